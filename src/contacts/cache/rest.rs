//! Failures are remembered: while a key rests, nobody asks upstream for it again.
//!
//! After a failure it rests for 1, 2, then 4 seconds; after a refusal, and after a failure that told when to come back,
//! for as long as upstream said. The first success ends it. What the gateway refuses itself costs no call, so callers do
//! not wait for it; only revalidating a stale copy, which nobody waits for, is left for a second, or each stale answer
//! would try again.

use std::{
    hash::Hash,
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use lru::LruCache;
use tokio::time::Instant;

use crate::error::{Error, Kind};

/// Keys whose failures are remembered. Beyond it the least recently failed one is forgotten, and costs a call.
const KEYS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The keys that rest.
pub(super) struct Resting<K: Hash + Eq>(Mutex<LruCache<K, Rest>>);

/// One key's last failure.
#[derive(Clone, Debug)]
struct Rest {
    error: Error,
    /// For callers.
    until: Instant,
    /// For whatever nobody waits for.
    revalidate_from: Instant,
    /// Failures in a row.
    failures: u32,
}

/// How long a stale copy is not revalidated after the gateway itself refused to.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// How long a key rests after so many failures in a row, or `None` if it does not.
fn length(error: &Error, failures: u32) -> Option<Duration> {
    if error.is_unsent() {
        return None;
    }
    match error.kind() {
        // Nobody was asked; whether it is so still is found out at once and for nothing.
        Kind::Internal
        | Kind::BudgetExhausted
        | Kind::CredentialsUnavailable
        | Kind::UpstreamUnavailable
        | Kind::MergeBusy => None,
        Kind::StreamNotFound => Some(Duration::from_secs(10)),
        Kind::UpstreamRateLimited => Some(error.told_to_wait().unwrap_or(Duration::from_secs(60))),
        kind => {
            let growing = Duration::from_secs(1 << failures.saturating_sub(1).min(2));
            let told = match kind {
                // That is how long the credential rests. Its gate says so for nothing, and knows when another secret ends it.
                Kind::UpstreamAuthRejected => None,
                _ => error.told_to_wait(),
            };
            Some(growing.max(told.unwrap_or_default()))
        }
    }
}

impl<K: Hash + Eq> Default for Resting<K> {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(KEYS_MAX)))
    }
}

impl<K: Hash + Eq> Resting<K> {
    /// The error that a key rests from, telling how long it still does.
    pub(super) fn of(&self, key: &K, now: Instant) -> Option<Error> {
        let resting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = resting.peek(key)?;
        let left = rest
            .until
            .checked_duration_since(now)
            .filter(|left| !left.is_zero())?;
        Some(rest.error.clone().retry_after(left))
    }

    /// Whether a stale copy is left as it is for now.
    pub(super) fn rests(&self, key: &K, now: Instant) -> bool {
        let resting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        resting
            .peek(key)
            .is_some_and(|rest| now < rest.revalidate_from)
    }

    /// What the key failed with last, whether or not it still rests.
    pub(super) fn last(&self, key: &K) -> Option<Kind> {
        let resting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        resting.peek(key).map(|rest| rest.error.kind())
    }

    /// Remembers the failures of these keys alone.
    pub(super) fn retain(&self, keep: impl Fn(&K) -> bool)
    where
        K: Clone,
    {
        let mut resting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let useless = resting.iter().map(|(key, _)| key).filter(|key| !keep(key));
        for key in useless.cloned().collect::<Vec<_>>() {
            resting.pop(&key);
        }
    }

    /// Remembers a failure.
    pub(super) fn failed(&self, key: K, error: &Error, now: Instant) {
        let mut resting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let failures = resting.peek(&key).map_or(0, |rest| rest.failures) + 1;
        let rest = match (length(error, failures), resting.peek(&key)) {
            (Some(length), _) => Rest {
                error: error.clone(),
                until: now + length,
                revalidate_from: now + length,
                failures,
            },
            // Nobody was asked, so nothing new is known of upstream; but a stale copy says why it still is one.
            (None, last) => Rest {
                error: error.clone(),
                until: last.map_or(now, |last| last.until),
                revalidate_from: now + REFUSED_FOR,
                failures: last.map_or(0, |last| last.failures),
            },
        };
        resting.put(key, rest);
    }

    /// Forgets a key's failures.
    pub(super) fn succeeded(&self, key: &K) {
        let mut resting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        resting.pop(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn error(kind: Kind) -> Error {
        Error::new(kind, "for a test")
    }

    #[test]
    fn rests_grow_to_four_seconds_and_end_with_a_success() {
        let (resting, mut now) = (Resting::default(), Instant::now());
        for length in [1, 2, 4, 4] {
            resting.failed(1, &error(Kind::Upstream5xx), now);
            let told = resting.of(&1, now).map(|error| error.wait());
            assert_eq!(told, Some(Some(seconds(length))));
            let last = now + seconds(length) - Duration::from_nanos(1);
            assert!(resting.of(&1, last).is_some());
            now += seconds(length);
            assert!(resting.of(&1, now).is_none());
        }
        assert_eq!(resting.last(&1), Some(Kind::Upstream5xx));
        resting.succeeded(&1);
        assert_eq!(resting.last(&1), None);
        resting.failed(1, &error(Kind::Upstream5xx), now);
        assert!(resting.of(&1, now + seconds(1)).is_none());
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_not_remembered() {
        let (resting, now) = (Resting::default(), Instant::now());
        for key in 0..10 {
            resting.failed(key, &error(Kind::Upstream5xx), now);
        }
        resting.retain(|key| *key == 3);
        for key in 0..10 {
            assert_eq!(resting.last(&key).is_some(), key == 3);
        }
    }

    #[test]
    fn refusals_rest_as_long_as_upstream_said() {
        let (resting, now) = (Resting::default(), Instant::now());
        resting.failed(
            1,
            &error(Kind::UpstreamRateLimited).retry_after(seconds(30)),
            now,
        );
        assert!(resting.of(&1, now + seconds(29)).is_some());
        assert!(resting.of(&1, now + seconds(30)).is_none());
        resting.failed(4, &error(Kind::Upstream5xx).retry_after(seconds(20)), now);
        assert!(resting.of(&4, now + seconds(19)).is_some());
        assert!(resting.of(&4, now + seconds(20)).is_none());
        resting.failed(2, &error(Kind::StreamNotFound), now);
        assert!(resting.of(&2, now + seconds(9)).is_some());
        assert!(resting.of(&2, now + seconds(10)).is_none());
        assert!(resting.of(&3, now).is_none());
    }

    #[test]
    fn what_cost_no_call_is_not_remembered() {
        let (resting, now) = (Resting::default(), Instant::now());
        for kind in [
            Kind::BudgetExhausted,
            Kind::CredentialsUnavailable,
            Kind::UpstreamUnavailable,
            Kind::Internal,
        ] {
            resting.failed(1, &error(kind), now);
            assert!(resting.of(&1, now).is_none(), "{kind:?}");
            assert_eq!(resting.last(&1), Some(kind));
            // What nobody waits for is left alone for a second.
            assert!(resting.rests(&1, now + REFUSED_FOR / 2));
            assert!(!resting.rests(&1, now + REFUSED_FOR));
        }
    }

    #[test]
    fn a_key_does_not_outlast_the_rest_of_its_credential() {
        let (resting, now) = (Resting::default(), Instant::now());
        let rejected = error(Kind::UpstreamAuthRejected).retry_after(seconds(300));
        resting.failed(1, &rejected, now);
        assert!(resting.of(&1, now).is_some());
        assert!(resting.of(&1, now + seconds(1)).is_none());
    }

    #[test]
    fn a_list_that_is_too_large_costs_no_call_for_each_who_asks() {
        let (resting, now) = (Resting::default(), Instant::now());
        resting.failed(1, &error(Kind::MergeTooLarge), now);
        assert!(resting.of(&1, now).is_some());
    }
}
