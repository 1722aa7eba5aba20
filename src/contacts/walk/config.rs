//! `[merge]`: how a whole list is read.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::config::Rules;

/// `[merge]`: how a whole list is read.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Lists read at once, for each caller no more than there are places left; one more is refused. 1 to 1,000.
    pub walks_max: usize,
    /// Pages of one list asked for at once; 1 to 64.
    pub width: usize,
    /// The largest `limit` that is tried; 2 to 10,000 records.
    pub page_limit_max: u32,
    /// What a list has to pass.
    pub verify: Verify,
    /// How often a list that changes while it is read is mended before that is given up; 0 to 20.
    pub repairs_max: u32,
    /// How often in a row upstream may fail before a walk fails that has read something; 1 to 100. After each failure but
    /// the last the walk rests, for 1, 2, 4 and so on up to 30 seconds, or for as long as it was told.
    pub failures_max: u32,
    /// How long a walk may take, pauses included; 1 min to 7 days.
    #[serde(with = "crate::config::duration")]
    pub walk_max: Duration,
    /// The longest that a caller can wait for a list, by `Prefer: wait`; 1 s to 1 h.
    #[serde(with = "crate::config::duration")]
    pub wait_max: Duration,
    /// The share of an account's calls that go to lists which are read anew while their copies are answered; 0.01 to 1.
    pub refresh_share: f64,
    /// How long a list is answered from memory; 1 s to 24 h.
    #[serde(with = "crate::config::duration")]
    pub fresh_for: Duration,
    /// The longest list that is kept; 1 to 10,000,000 records.
    pub records_max: u64,
    /// The largest list that is kept; 1 KiB to 16 GiB.
    #[serde(serialize_with = "crate::config::size::serialize")]
    pub bytes_max: ByteSize,
    /// Larger lists sent at once, as they are read, to each caller no more than there are places left; one more is refused.
    /// 1 to 100.
    pub streams_max: usize,
    /// The longest list that is sent so; 1 to 10,000,000 records, of about 20 B each.
    pub stream_records_max: u64,
}

/// What a list has to pass to be verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Neighbouring pages agree where they overlap.
    #[default]
    Seam,
    /// That, and two walks are equal: twice the calls.
    Twice,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        rules.range("walks_max", self.walks_max, 1..=1000);
        rules.range("width", self.width, 1..=64);
        // Not 1: neighbouring pages overlap by a record, so a page of one would never get on.
        rules.range("page_limit_max", self.page_limit_max, 2..=10_000);
        rules.range("repairs_max", self.repairs_max, 0..=20);
        rules.range("failures_max", self.failures_max, 1..=100);
        rules.range(
            "walk_max",
            self.walk_max,
            Duration::from_secs(60)..=Duration::from_secs(7 * 24 * 3600),
        );
        rules.range(
            "wait_max",
            self.wait_max,
            Duration::from_secs(1)..=Duration::from_secs(3600),
        );
        rules.range("refresh_share", self.refresh_share, 0.01..=1.0);
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
        rules.range("streams_max", self.streams_max, 1..=100);
        rules.range(
            "stream_records_max",
            self.stream_records_max,
            1..=10_000_000,
        );
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            walks_max: 8,
            width: 8,
            page_limit_max: 100,
            verify: Verify::Seam,
            repairs_max: 3,
            failures_max: 5,
            walk_max: Duration::from_secs(6 * 3600),
            wait_max: Duration::from_secs(10 * 60),
            refresh_share: 0.25,
            fresh_for: Duration::from_secs(15 * 60),
            records_max: 200_000,
            bytes_max: ByteSize::mib(128),
            streams_max: 4,
            stream_records_max: 2_000_000,
        }
    }
}
