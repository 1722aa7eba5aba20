//! Keys whose answers upstream forbids to keep (`Cache-Control: no-store`).
//!
//! Requests that shared a flight for such a key would be answered one flight after another, each waiting for the end of
//! one that serves nobody later. So the key is marked, and while the mark holds each request has a flight of its own
//! (Varnish calls it hit-for-miss). Upstream's own bounds hold all the same: the calls a minute and those at once.

use std::{
    hash::Hash,
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::time::Instant;

/// Keys that are marked. Beyond it the one marked longest ago is forgotten: its next requests share one flight.
const KEYS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// How long a mark holds after the last answer that may not be kept, as in Varnish.
pub(super) const MARKED_FOR: Duration = Duration::from_secs(120);

/// The marked keys, and until when each is.
pub(super) struct Unkept<K: Hash + Eq>(Mutex<LruCache<K, Instant>>);

impl<K: Hash + Eq> Default for Unkept<K> {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEYS_MAX)))
    }
}

impl<K: Hash + Eq> Unkept<K> {
    /// Whether requests for a key go side by side.
    pub(super) fn holds(&self, key: &K, now: Instant) -> bool {
        let marked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marked.peek(key).is_some_and(|until| now < *until)
    }

    /// Leaves the marks of these keys alone.
    pub(super) fn retain(&self, keep: impl Fn(&K) -> bool)
    where
        K: Clone,
    {
        let mut marked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let useless = marked.iter().map(|(key, _)| key).filter(|key| !keep(key));
        for key in useless.cloned().collect::<Vec<_>>() {
            marked.pop(&key);
        }
    }

    /// Learns from an answer whether the next may be kept.
    pub(super) fn learn(&self, key: &K, no_store: bool, now: Instant)
    where
        K: Clone,
    {
        let mut marked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if no_store {
            marked.put(key.clone(), now + MARKED_FOR);
        } else {
            marked.pop(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_holds_until_its_time_or_an_answer_that_may_be_kept() {
        let (unkept, now) = (Unkept::default(), Instant::now());
        assert!(!unkept.holds(&1, now));
        unkept.learn(&1, true, now);
        let last = now + MARKED_FOR - Duration::from_nanos(1);
        assert!(unkept.holds(&1, last) && !unkept.holds(&2, now));
        assert!(!unkept.holds(&1, now + MARKED_FOR));
        unkept.learn(&1, true, last);
        assert!(unkept.holds(&1, now + MARKED_FOR));
        unkept.learn(&1, false, now);
        assert!(!unkept.holds(&1, now));
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_not_marked() {
        let (unkept, now) = (Unkept::default(), Instant::now());
        for key in 0..10 {
            unkept.learn(&key, true, now);
        }
        unkept.retain(|key| *key == 3);
        assert!((0..10).all(|key| unkept.holds(&key, now) == (key == 3)));
    }

    #[test]
    fn marks_are_bounded() {
        let (unkept, now) = (Unkept::default(), Instant::now());
        for key in 0..=KEYS_MAX.get() {
            unkept.learn(&key, true, now);
        }
        assert!(!unkept.holds(&0, now) && unkept.holds(&1, now));
    }
}
