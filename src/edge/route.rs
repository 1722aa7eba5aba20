use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::config::Rules;

/// `[edge]`: what a caller may send, and how long it may wait.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The largest `limit` a caller may ask for; 1 to 10,000 records.
    pub limit_max: u32,
    /// The longest request target, in bytes; beyond it 414. 256 B to 60 KiB.
    pub uri_max: ByteSize,
    /// How long a caller's request may wait for its answer; 100 ms to 10 min.
    #[serde(with = "crate::config::duration")]
    pub request_timeout: Duration,
    /// Collections remembered between requests; 16 to 1,000,000.
    pub collections_max: u64,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        rules.range("limit_max", self.limit_max, 1..=10_000);
        rules.range(
            "uri_max",
            self.uri_max,
            ByteSize::b(256)..=ByteSize::kib(60),
        );
        rules.range(
            "request_timeout",
            self.request_timeout,
            Duration::from_millis(100)..=Duration::from_secs(10 * 60),
        );
        rules.range("collections_max", self.collections_max, 16..=1_000_000);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limit_max: 1000,
            uri_max: ByteSize::kib(8),
            request_timeout: Duration::from_secs(30),
            collections_max: 10_000,
        }
    }
}
