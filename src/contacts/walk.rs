use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::config::Rules;

/// `[merge]`: how a whole list is read.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Pages asked for at once; 1 to 64.
    pub width: usize,
    /// The largest `limit` that is tried; 2 to 10,000 records.
    pub page_limit_max: u32,
    /// How long a list is answered from memory; 1 s to 24 h.
    #[serde(with = "crate::config::duration")]
    pub fresh_for: Duration,
    /// The longest list that is kept; 1 to 10,000,000 records.
    pub records_max: u64,
    /// The largest list that is kept; 1 KiB to 16 GiB.
    pub bytes_max: ByteSize,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        rules.range("width", self.width, 1..=64);
        // Not 1: neighbouring pages overlap by a record, so a page of one would never get on.
        rules.range("page_limit_max", self.page_limit_max, 2..=10_000);
        rules.range(
            "fresh_for",
            self.fresh_for,
            Duration::from_secs(1)..=Duration::from_secs(24 * 3600),
        );
        rules.range("records_max", self.records_max, 1..=10_000_000);
        rules.range(
            "bytes_max",
            self.bytes_max,
            ByteSize::kib(1)..=ByteSize::gib(16),
        );
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            width: 8,
            page_limit_max: 100,
            fresh_for: Duration::from_secs(15 * 60),
            records_max: 200_000,
            bytes_max: ByteSize::mib(128),
        }
    }
}
