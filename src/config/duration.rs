//! A length of time written as `"5m"` or `"1h 30m"`: `#[serde(with = "crate::config::duration")]`.

use std::{fmt, time::Duration};

use serde::{
    Deserializer, Serializer,
    de::{Error, Visitor},
};

/// What serde is told to expect. The tree of keys recognises a length of time by it.
pub(crate) const EXPECTED: &str = "a length of time such as \"5m\" or \"1h 30m\"";

/// # Errors
/// If it is not text, or not a length of time.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    struct Text;

    impl Visitor<'_> for Text {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(EXPECTED)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text).map_err(E::custom)
        }
    }

    deserializer.deserialize_str(Text)
}

/// # Errors
/// As the serializer does.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}
