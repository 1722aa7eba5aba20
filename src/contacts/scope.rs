//! What a purge can be about: an account, or one collection of it. Ending all copies of a scope costs one store, however
//! many there are.
//!
//! A **hard** purge ends the scope's epoch. It stands in every key, so that older copies can no longer be found, and
//! memory gives them up in its own time. A **soft** purge outdates the scope: copies of what was read before that moment
//! are stale, and still of use while upstream fails.
//!
//! Copies share the scope that they belong to, so it lives as long as one of them does. A collection that is forgotten and
//! found again has the same scope as before, or none of its older copies is left.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::time::{Duration, Instant};

use super::ids::Epoch;

/// A scope, perhaps within another one that ends it as well.
#[derive(Debug)]
pub struct Scope {
    within: Option<Arc<Scope>>,
    epoch: AtomicU64,
    begun: Instant,
    /// In nanoseconds since `begun`; 0 if never.
    outdated: AtomicU64,
}

impl Scope {
    /// A scope of its own, with an epoch of its own.
    pub fn new() -> Self {
        Self {
            within: None,
            epoch: AtomicU64::new(Epoch::begin().number()),
            begun: Instant::now(),
            outdated: AtomicU64::new(0),
        }
    }

    /// A scope that is in the epoch of another until its own is ended.
    pub fn within(other: Arc<Self>) -> Self {
        Self {
            within: Some(other),
            epoch: AtomicU64::new(0),
            begun: Instant::now(),
            outdated: AtomicU64::new(0),
        }
    }

    /// The epoch that new keys carry.
    pub fn epoch(&self) -> Epoch {
        let own = Epoch::numbered(self.epoch.load(Ordering::Acquire));
        match &self.within {
            // Numbers only ever grow, so the later of the two is the one that was begun by the last purge.
            Some(other) => own.max(other.epoch()),
            None => own,
        }
    }

    /// Makes all copies of the scope unreachable.
    pub fn end_epoch(&self) {
        let next = Epoch::begin().number();
        self.epoch.fetch_max(next, Ordering::AcqRel);
    }

    /// Makes whatever was read until now stale.
    pub fn outdate(&self, now: Instant) {
        let nanos = now.saturating_duration_since(self.begun).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        self.outdated.fetch_max(nanos, Ordering::AcqRel);
    }

    /// The moment until which all that was read is stale, if there is one.
    pub fn outdated_at(&self) -> Option<Instant> {
        let own = match self.outdated.load(Ordering::Acquire) {
            0 => None,
            nanos => Some(self.begun + Duration::from_nanos(nanos)),
        };
        own.max(self.within.as_ref().and_then(|other| other.outdated_at()))
    }
}

impl Default for Scope {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_the_whole_ends_the_part_and_not_the_other_way_round() {
        let account = Arc::new(Scope::new());
        let [one, two] = [(); 2].map(|()| Scope::within(account.clone()));
        let first = account.epoch();
        assert_eq!((one.epoch(), two.epoch()), (first, first));
        one.end_epoch();
        let own = one.epoch();
        assert!(own > first);
        assert_eq!((account.epoch(), two.epoch()), (first, first));
        account.end_epoch();
        let last = account.epoch();
        assert!(last > own);
        assert_eq!((one.epoch(), two.epoch()), (last, last));
    }

    #[test]
    fn what_outdates_the_whole_outdates_the_part() {
        let account = Arc::new(Scope::new());
        let [one, two] = [(); 2].map(|()| Scope::within(account.clone()));
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        assert_eq!(one.outdated_at(), None);
        one.outdate(now);
        assert_eq!((one.outdated_at(), two.outdated_at()), (Some(now), None));
        account.outdate(later);
        one.outdate(now);
        assert_eq!(one.outdated_at(), Some(later));
        assert_eq!(two.outdated_at(), Some(later));
    }
}
