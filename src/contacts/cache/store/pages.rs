//! Pages in moka, which keeps what is asked for often.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use foldhash::quality::RandomState;
use moka::{Expiry, notification::RemovalCause};
use tokio::time::Instant;

use super::{Cause, Store, Weighed, is_unreachable, weight, with_pieces};
use crate::contacts::{
    cache::{
        Metrics,
        entry::{Entry, Lifetime},
    },
    page::{Page, PageKey},
    slice, sweep,
};

/// Pages, at most so many bytes of them.
pub struct Pages {
    bytes_max: u64,
    held: moka::sync::Cache<PageKey, Weighed<Page>, RandomState>,
    /// One change at a time, so that a page which is weighed again never takes the place of a newer one, nor comes back.
    /// Pages change as often as upstream is asked, which is seldom.
    changing: Mutex<()>,
    growing: Growing,
    metrics: Metrics,
}

/// Whether the change that is made is a page weighed again: it takes its own place, which is neither an eviction nor a
/// longer life. moka asks within the change.
#[derive(Clone, Default)]
struct Growing(Arc<AtomicBool>);

impl Growing {
    fn set(&self, growing: bool) {
        self.0.store(growing, Ordering::Relaxed);
    }

    fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long moka holds a page: by its own clock, so that it bounds memory and never decides.
struct HeldFor {
    time: Duration,
    growing: Growing,
}

#[expect(
    clippy::disallowed_types,
    reason = "moka's own, which is not looked at"
)]
impl<K, V> Expiry<K, V> for HeldFor {
    fn expire_after_create(&self, _: &K, _: &V, _: std::time::Instant) -> Option<Duration> {
        Some(self.time)
    }

    fn expire_after_update(
        &self,
        _: &K,
        _: &V,
        _: std::time::Instant,
        left: Option<Duration>,
    ) -> Option<Duration> {
        match self.growing.is_set() {
            true => left,
            false => Some(self.time),
        }
    }
}

/// No longer than it is of use, and a little more.
fn held_for(lifetime: Lifetime) -> Duration {
    lifetime.fresh_for + lifetime.stale_for + sweep::EVERY
}

impl Pages {
    /// `lifetime` is that of the copies, which are held a little longer at most.
    pub fn new(bytes_max: u64, lifetime: Lifetime, metrics: Metrics) -> Self {
        Self::held_for(held_for(lifetime), bytes_max, metrics)
    }

    fn held_for(time: Duration, bytes_max: u64, metrics: Metrics) -> Self {
        metrics.bounded(bytes_max);
        let growing = Growing::default();
        let (counted, grows) = (metrics.clone(), growing.clone());
        let held = moka::sync::Cache::builder()
            .max_capacity(bytes_max)
            .expire_after(HeldFor {
                time,
                growing: growing.clone(),
            })
            .weigher(|_, held: &Weighed<Page>| u32::try_from(held.bytes).unwrap_or(u32::MAX))
            .eviction_listener(move |_, held, cause| {
                counted.removed(held.bytes);
                if cause != RemovalCause::Replaced || !grows.is_set() {
                    counted.evicted(Cause::of(cause));
                }
            });
        Self {
            bytes_max,
            held: held.build_with_hasher(RandomState::default()),
            changing: Mutex::default(),
            growing,
            metrics,
        }
    }

    fn insert(&self, key: PageKey, held: Weighed<Page>) {
        self.metrics.added(held.bytes);
        self.held.insert(key, held);
        // moka makes room only after some dozens of insertions, each of which may be a page of megabytes.
        if self.metrics.bytes.get().unsigned_abs() > self.bytes_max {
            self.held.run_pending_tasks();
        }
    }
}

impl Store for Pages {
    type Key = PageKey;
    type Value = Page;

    fn get(&self, key: &PageKey) -> Option<Arc<Entry<Page>>> {
        self.held.get(key).map(|held| held.entry)
    }

    fn in_place_of(&self, key: &PageKey, now: Instant) -> Option<Arc<Entry<Page>>> {
        slice::in_place_of(key, now)
    }

    fn keeps(&self, key: &PageKey, entry: &Entry<Page>) -> bool {
        weight(key, entry) as u64 <= self.bytes_max
    }

    fn put(&self, key: PageKey, entry: Arc<Entry<Page>>) {
        let held = Weighed::new(&key, entry);
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.insert(key, held);
    }

    fn grow(&self, key: &PageKey, entry: &Arc<Entry<Page>>, blocks: usize) -> bool {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held.get(key);
        let Some(mut held) = held.filter(|held| Arc::ptr_eq(&held.entry, entry)) else {
            // It is held by nobody but those who answer with it, and not for long.
            return true;
        };
        held.bytes += with_pieces(blocks);
        if held.bytes as u64 > self.bytes_max {
            return false;
        }
        self.growing.set(true);
        self.insert(key.clone(), held);
        self.growing.set(false);
        true
    }

    fn remove(&self, key: &PageKey) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.held.invalidate(key);
    }

    fn each(&self, mut see: impl FnMut(&PageKey, &Entry<Page>)) {
        for (key, held) in &self.held {
            see(&key, &held.entry);
        }
    }

    fn sweep(&self, _: Instant) {
        for (key, _) in &self.held {
            if is_unreachable(&*key) {
                self.remove(&key);
            }
        }
        self.held.run_pending_tasks();
    }
}

#[cfg(test)]
mod tests;
