//! `Prefer` of a request (RFC 7240): what a caller would rather have. What is unknown or malformed is left aside, as the
//! RFC wants it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::contacts::verdict::Handling;

pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// What a caller would rather have; all of it concerns lists alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Preferences {
    /// Which lists it accepts.
    pub handling: Handling,
    /// How long it waits (section 4.3).
    pub wait: Option<Duration>,
    /// If it takes longer, to be told that it goes on is as good as an answer (section 4.1).
    pub respond_async: bool,
}

impl Preferences {
    /// Of a preference that is there twice the first counts (section 2).
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let (mut preferences, mut waits, mut handles) = (Self::default(), None, None);
        let lines = headers.get_all(PREFER).iter();
        let texts = lines.map(|line| line.to_str().unwrap_or_default());
        let told = texts.flat_map(|text| pieces(text, ',').filter_map(preference));
        for (name, value) in told {
            match name.to_ascii_lowercase().as_str() {
                "handling" => _ = handles.get_or_insert(value),
                "wait" => _ = waits.get_or_insert(value),
                "respond-async" => preferences.respond_async = true,
                _ => {}
            }
        }
        preferences.wait = waits.and_then(seconds);
        preferences.handling = match handles {
            Some("strict") => Handling::Strict,
            Some("lenient") => Handling::Lenient,
            _ => Handling::Default,
        };
        preferences
    }

    /// How long is waited for it, at most `wait_max`.
    pub(super) fn wait(&self, wait_max: Duration) -> Option<Duration> {
        self.wait.map(|wait| wait.min(wait_max))
    }

    /// What `Preference-Applied` says, if anything was. `accepted`: it was told that the list is still being read.
    pub(super) fn applied(&self, wait_max: Duration, accepted: bool) -> Option<HeaderValue> {
        let handling = match self.handling {
            Handling::Strict => Some("handling=strict".to_owned()),
            Handling::Lenient => Some("handling=lenient".to_owned()),
            Handling::Default => None,
        };
        let accepted = accepted.then(|| "respond-async".to_owned());
        let wait = self.wait(wait_max);
        let wait = wait.map(|wait| format!("wait={}", wait.as_secs()));
        let applied: Vec<_> = [accepted, wait, handling].into_iter().flatten().collect();
        let applied = Some(applied.join(", ")).filter(|applied| !applied.is_empty())?;
        HeaderValue::from_maybe_shared(Bytes::from(applied)).ok()
    }
}

/// Seconds; more than can be counted is as much as can be.
fn seconds(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))))
}

/// A preference's name and its value, without quotes and parameters; a missing value is an empty one.
fn preference(text: &str) -> Option<(&str, &str)> {
    let text = pieces(text, ';').next()?;
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    let value = value.trim();
    let quoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
    Some((name.trim(), quoted.unwrap_or(value)))
}

/// What stands between separators, of which those inside quotes separate nothing.
fn pieces(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    let separates = move |character| {
        quoted ^= character == '"';
        character == separator && !quoted
    };
    text.split(separates).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_on_handling_counts() {
        for (lines, expected) in [
            (&[][..], Handling::Default),
            (&["handling=strict"], Handling::Strict),
            (&["handling=lenient"], Handling::Lenient),
            (&["Handling = \"strict\""], Handling::Strict),
            (&["respond-async, handling=lenient; a=b"], Handling::Lenient),
            (&["wait=10", "handling=strict"], Handling::Strict),
            (&["handling=strict, handling=lenient"], Handling::Strict),
            (&["handling=sloppy, handling=strict"], Handling::Default),
            (&["handling"], Handling::Default),
            (&["handling=STRICT"], Handling::Default),
            (&["x=\"a, handling=strict\""], Handling::Default),
            (&["x; handling=strict"], Handling::Default),
            (&["", ", ,=,;"], Handling::Default),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(PREFER, HeaderValue::from_static(line));
            }
            assert_eq!(Preferences::of(&headers).handling, expected, "{lines:?}");
        }
    }

    #[test]
    fn how_long_a_caller_waits_and_what_was_applied() {
        let most = Duration::from_secs(600);
        for (line, wait, applied, accepted) in [
            ("", None, "", "respond-async"),
            ("wait=20", Some(20), "wait=20", "respond-async, wait=20"),
            ("wait=\"20\"", Some(20), "wait=20", "respond-async, wait=20"),
            ("WAIT=0; a=b", Some(0), "wait=0", "respond-async, wait=0"),
            ("wait=601", Some(600), "wait=600", "respond-async, wait=600"),
            (
                "wait=99999999999999999999999, wait=1",
                Some(600),
                "wait=600",
                "respond-async, wait=600",
            ),
            ("wait=-1, wait=1", None, "", "respond-async"),
            ("wait=1.5", None, "", "respond-async"),
            ("wait", None, "", "respond-async"),
            (
                "respond-async, handling=strict, wait=5",
                Some(5),
                "wait=5, handling=strict",
                "respond-async, wait=5, handling=strict",
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(PREFER, HeaderValue::from_static(line));
            let read = Preferences::of(&headers);
            assert_eq!(read.wait(most), wait.map(Duration::from_secs), "{line}");
            assert_eq!(read.respond_async, line.starts_with("respond-async"));
            let told = |accepted| {
                let applied = read.applied(most, accepted);
                applied.map_or(String::new(), |text| text.to_str().unwrap().to_owned())
            };
            assert_eq!(
                (told(false), told(true)),
                (applied.to_owned(), accepted.to_owned())
            );
        }
    }
}
