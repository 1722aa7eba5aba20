//! What the caches tell.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::store::Cause;
use crate::{
    error::Kind,
    metrics::{self, ByKind, Registry},
    served::Served,
};

/// The metrics of all caches, from which each takes its own.
#[derive(Clone, Debug)]
pub struct Families {
    requests: IntCounterVec,
    stale: IntCounterVec,
    bytes: IntGaugeVec,
    bytes_max: IntGaugeVec,
    entries: IntGaugeVec,
    evictions: IntCounterVec,
    encodings: IntCounterVec,
}

impl Families {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        Ok(Self {
            requests: registry.counter(
                "cache_requests_total",
                "Requests that a cache answered, by how: hit, slice (cut out of a list), stale, miss, expired (the copy was too old), forced (the request would not have the fresh copy), floor (it got that all the same), or _joined to the flight of another request.",
                &["cache", "result"],
            )?,
            stale: registry.counter(
                "cache_stale_total",
                "Requests that were answered with a stale copy, by why it is still one: revalidating (it is being fetched anew), or the code of what the last fetch failed with.",
                &["cache", "reason"],
            )?,
            bytes: registry.gauge(
                "cache_bytes",
                "Memory held by copies, compressed ones included.",
                &["cache"],
            )?,
            bytes_max: registry.gauge(
                "cache_max_bytes",
                "Memory that they may hold; for more, those least asked for are given up.",
                &["cache"],
            )?,
            entries: registry.gauge("cache_entries", "Copies held.", &["cache"])?,
            evictions: registry.counter(
                "cache_evictions_total",
                "Copies given up, by cause: size (for want of memory), expired, replaced (by a newer one), removed (purged, or gone upstream).",
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
            revalidating: self.stale.with_label_values(&[cache, "revalidating"]),
            stale: {
                let (stale, cache) = (self.stale.clone(), cache.to_owned());
                let counter = move |code| stale.with_label_values(&[&*cache, code]);
                // These end the copy as well.
                let ends = |kind| super::ends_the_copy(kind);
                Arc::new(ByKind::new(counter, |kind| {
                    kind.ends_a_fetch() && !ends(kind)
                }))
            },
            bytes: self.bytes.with_label_values(&[cache]),
            bytes_max: self.bytes_max.with_label_values(&[cache]),
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
    revalidating: IntCounter,
    stale: Arc<ByKind>,
    pub(in crate::contacts) bytes: IntGauge,
    bytes_max: IntGauge,
    pub(in crate::contacts) entries: IntGauge,
    pub(in crate::contacts) evictions: [IntCounter; Cause::ALL.len()],
    pub(in crate::contacts) encodings: IntCounter,
}

impl Metrics {
    pub(super) fn count(&self, served: Served) {
        self.counter(served).inc();
        if let Served::Stale(failure) = served {
            self.stale(failure);
        }
    }

    /// A stale copy was the answer, after what its last fetch failed with.
    pub(in crate::contacts) fn stale(&self, failure: Option<Kind>) {
        match failure {
            None => self.revalidating.inc(),
            Some(kind) => self.stale.of(kind).inc(),
        }
    }

    /// How much memory there is.
    pub(super) fn bounded(&self, bytes_max: u64) {
        self.bytes_max
            .set(i64::try_from(bytes_max).unwrap_or(i64::MAX));
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
