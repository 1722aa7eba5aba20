//! What operators ask about the log: how much is written, and that it be more or less for a while.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::overview::document;
use crate::{
    error::{Error, Kind, Result},
    telemetry::{
        Level,
        verbosity::{LENGTH, LENGTH_DEFAULT, Standing, Wish},
    },
};

/// Reads `level=L` and `for=TIME`, where the level `default` is the configured one.
///
/// # Errors
/// [`Kind::BadParameter`], and what is allowed.
pub(super) fn wish(query: &str) -> Result<Wish> {
    let bad = |detail: &'static str| Error::new(Kind::BadParameter, detail);
    let (mut level, mut length) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match name {
            "level" => &mut level,
            "for" => &mut length,
            _ => return Err(bad("known here: level, for")),
        };
        if place.replace(value).is_some() {
            return Err(bad("a parameter is there twice"));
        }
    }
    let length = length.map(|text| {
        let length = humantime::parse_duration(text).ok();
        let length = length.filter(|length| LENGTH.contains(length));
        length.ok_or_else(|| bad("for is a time from 1s to 24h, as in 10m or 1h30m"))
    });
    let length: Option<Duration> = length.transpose()?;
    match (level, length) {
        (Some("default"), None) => Ok(Wish::Configured),
        (Some("default"), Some(_)) => Err(bad("the configured level is not there for a time")),
        (level, length) => {
            let level = level.and_then(Level::named);
            let level =
                level.ok_or_else(|| bad("level is error, warn, info, debug, trace or default"))?;
            Ok(Wish::For(level, length.unwrap_or(LENGTH_DEFAULT)))
        }
    }
}

/// What is in force, for whoever asks about it alone.
pub(super) fn document(standing: &Standing) -> Value {
    let until = standing.other.map(|other| {
        let until = humantime::format_rfc3339_seconds(other.until_wall);
        until.to_string()
    });
    json!({
        "level": standing.level().word(),
        "configured": standing.configured.word(),
        "until": until,
    })
}

/// The same beside everything else.
pub(super) fn shown(standing: &Standing) -> document::Log {
    let until = standing.other.map(|other| other.until_wall);
    let until = until.map(|until| until.duration_since(UNIX_EPOCH).unwrap_or_default());
    document::Log {
        level: standing.level().word().to_owned(),
        configured: standing.configured.word().to_owned(),
        until_s: until.map(|until| until.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> std::result::Result<Wish, String> {
        wish(query).map_err(|error| {
            assert_eq!(error.kind(), Kind::BadParameter);
            error.detail().to_owned()
        })
    }

    /// Catches a level for ever, and one that nobody asked for.
    #[test]
    fn a_level_is_asked_for_by_its_name_and_for_a_time() {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        for (query, expected) in [
            ("level=debug", Wish::For(Level::Debug, minutes(10))),
            (
                "level=error&for=24h",
                Wish::For(Level::Error, minutes(24 * 60)),
            ),
            (
                "for=1h30m&level=trace",
                Wish::For(Level::Trace, minutes(90)),
            ),
            (
                "level=info&for=1s",
                Wish::For(Level::Info, Duration::from_secs(1)),
            ),
            ("level=default", Wish::Configured),
        ] {
            assert_eq!(read(query).as_ref(), Ok(&expected), "{query}");
        }
        let (levels, times) = ("level is error, warn", "for is a time from 1s to 24h");
        for (query, told) in [
            ("", levels),
            ("for=10m", levels),
            ("level=", levels),
            ("level=DEBUG", levels),
            ("level=off", levels),
            ("level=hyper=trace", levels),
            ("level=trace,hyper", levels),
            ("level=debug&for=", times),
            ("level=debug&for=0", times),
            ("level=debug&for=10", times),
            ("level=debug&for=999ms", times),
            ("level=debug&for=24h1s", times),
            ("level=debug&for=-10m", times),
            ("level=debug&for=99999999999999999999y", times),
            ("level=default&for=10m", "the configured level"),
            ("level=debug&level=debug", "twice"),
            ("level=debug&lvl=debug", "known here"),
        ] {
            let said = read(query).unwrap_err();
            assert!(said.contains(told), "{query}: {said}");
        }
    }
}
