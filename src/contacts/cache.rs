use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

/// `[cache]`: how long copies are fresh, and how much memory they may hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a page is answered from memory; 1 s to 24 h.
    #[serde(with = "crate::config::duration")]
    pub fresh_for: Duration,
    /// Pages and lists together; 1 MiB to 1 TiB.
    pub max_bytes: ByteSize,
    /// The lists' part of `max_bytes`; 0 B to `max_bytes`.
    pub lists_max_bytes: ByteSize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fresh_for: Duration::from_secs(5 * 60),
            max_bytes: ByteSize::mib(256),
            lists_max_bytes: ByteSize::mib(128),
        }
    }
}
