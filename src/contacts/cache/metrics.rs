//! What the caches tell.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::store::Cause;
use crate::{
    metrics::{self, Registry},
    served::Served,
};

/// The metrics of all caches, from which each takes its own.
#[derive(Clone, Debug)]
pub struct Families {
    requests: IntCounterVec,
    bytes: IntGaugeVec,
    entries: IntGaugeVec,
    evictions: IntCounterVec,
    encodings: IntCounterVec,
}

impl Families {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        Ok(Self {
            requests: registry.counter(
                "cache_requests_total",
                "Requests that a cache answered, by how: hit, slice of a list, stale copy, miss, expired copy, fresh copy that the request would not have (forced, or floor where it was answered all the same), or joined to another request's flight.",
                &["cache", "result"],
            )?,
            bytes: registry.gauge("cache_bytes", "Memory held by copies.", &["cache"])?,
            entries: registry.gauge("cache_entries", "Copies held.", &["cache"])?,
            evictions: registry.counter(
                "cache_evictions_total",
                "Copies given up, by cause: size (the memory bound), expired, replaced by a newer one, or removed.",
                &["cache", "cause"],
            )?,
            encodings: registry.counter(
                "cache_encodings_total",
                "Copies compressed, each when a caller first wanted it so.",
                &["cache"],
            )?,
        })
    }

    /// The metrics of one cache.
    pub fn of(&self, cache: &str) -> Metrics {
        Metrics {
            requests: Served::ALL
                .map(|served| self.requests.with_label_values(&[cache, served.word()])),
            bytes: self.bytes.with_label_values(&[cache]),
            entries: self.entries.with_label_values(&[cache]),
            evictions: Cause::ALL
                .map(|cause| self.evictions.with_label_values(&[cache, cause.word()])),
            encodings: self.encodings.with_label_values(&[cache]),
        }
    }
}

/// The metrics of one cache.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) requests: [IntCounter; Served::ALL.len()],
    pub(in crate::contacts) bytes: IntGauge,
    pub(in crate::contacts) entries: IntGauge,
    pub(in crate::contacts) evictions: [IntCounter; Cause::ALL.len()],
    pub(in crate::contacts) encodings: IntCounter,
}

impl Metrics {
    pub(super) fn count(&self, served: Served) {
        self.counter(served).inc();
    }

    pub(in crate::contacts) fn counter(&self, served: Served) -> &IntCounter {
        &self.requests[served.index()]
    }

    pub(super) fn added(&self, bytes: usize) {
        self.grew(bytes);
        self.entries.inc();
    }

    pub(super) fn grew(&self, bytes: usize) {
        self.bytes.add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn removed(&self, bytes: usize) {
        self.bytes.sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.entries.dec();
    }

    pub(super) fn evicted(&self, cause: Cause) {
        self.evictions[cause as usize].inc();
    }
}
