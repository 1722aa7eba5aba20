//! `Prefer` of a request (RFC 7240): what a caller would rather have. What is unknown or malformed is left aside, as the
//! RFC wants it.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::contacts::verdict::Handling;

pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Which lists a caller accepts. Of a preference that is there twice the first counts (section 2).
pub(super) fn handling(headers: &HeaderMap) -> Handling {
    let lines = headers.get_all(PREFER).iter();
    let mut preferences = lines.flat_map(|line| {
        let text = line.to_str().unwrap_or_default();
        pieces(text, ',').filter_map(preference)
    });
    let value = preferences.find(|(name, _)| name.eq_ignore_ascii_case("handling"));
    match value.map(|(_, value)| value) {
        Some("strict") => Handling::Strict,
        Some("lenient") => Handling::Lenient,
        _ => Handling::Default,
    }
}

/// What `Preference-Applied` says of it, where anything was preferred.
pub(super) const fn applied(handling: Handling) -> Option<HeaderValue> {
    match handling {
        Handling::Strict => Some(HeaderValue::from_static("handling=strict")),
        Handling::Lenient => Some(HeaderValue::from_static("handling=lenient")),
        Handling::Default => None,
    }
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
            assert_eq!(handling(&headers), expected, "{lines:?}");
        }
    }
}
