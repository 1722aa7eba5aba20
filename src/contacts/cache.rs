use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::config::{Quantity, Rules};

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

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        rules.range(
            "fresh_for",
            self.fresh_for,
            Duration::from_secs(1)..=Duration::from_secs(24 * 3600),
        );
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
            max_bytes: ByteSize::mib(256),
            lists_max_bytes: ByteSize::mib(128),
        }
    }
}
