//! How long copies last, and how much memory they may take.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::config::{Quantity, Rules};

/// `[cache]`: how long copies are fresh, and how much memory they may hold.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a page is answered from memory; 1 s to 24 h.
    #[serde(with = "crate::config::duration")]
    pub fresh_for: Duration,
    /// How long after that a copy is still answered while it is fetched anew, or while that fails; 0 s to 7 days.
    #[serde(with = "crate::config::duration")]
    pub stale_for: Duration,
    /// Fetches in a minute, for each account, of copies that are fresh but that a caller would not have; 0 to 60.
    pub forced_per_minute: usize,
    /// Pages and lists together, compressed ones included; 1 MiB to 1 TiB.
    #[serde(serialize_with = "crate::config::size::serialize")]
    pub max_bytes: ByteSize,
    /// The lists' part of `max_bytes`; 0 B to `max_bytes`.
    #[serde(serialize_with = "crate::config::size::serialize")]
    pub lists_max_bytes: ByteSize,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        rules.range(
            "fresh_for",
            self.fresh_for,
            Duration::from_secs(1)..=Duration::from_secs(24 * 3600),
        );
        rules.range(
            "stale_for",
            self.stale_for,
            Duration::ZERO..=Duration::from_secs(7 * 24 * 3600),
        );
        rules.range("forced_per_minute", self.forced_per_minute, 0..=60);
        rules.range(
            "max_bytes",
            self.max_bytes,
            ByteSize::mib(1)..=ByteSize::tib(1),
        );
        if self.lists_max_bytes > self.max_bytes {
            let (part, whole) = (self.lists_max_bytes.text(), self.max_bytes.text());
            rules.broken(
                &["lists_max_bytes", "max_bytes"],
                format!("{part} is a part of max_bytes, which is only {whole}"),
            );
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            fresh_for: Duration::from_secs(5 * 60),
            stale_for: Duration::from_secs(60 * 60),
            forced_per_minute: 6,
            max_bytes: ByteSize::mib(256),
            lists_max_bytes: ByteSize::mib(128),
        }
    }
}
