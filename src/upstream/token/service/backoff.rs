//! How long a token service that failed an account is left alone: a second, and twice as long each time up to a minute.
//! Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::Failure;

const MIN: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_secs(60);

/// What has become of an account's last asks.
#[derive(Debug, Default)]
pub(in crate::upstream::token) struct Backoff {
    failures: u32,
    last: Option<(Failure, Instant)>,
}

impl Backoff {
    /// Why it is not asked now, and for how much longer.
    pub(in crate::upstream::token) fn left(&self, now: Instant) -> Option<(Failure, Duration)> {
        let (failure, until) = self.last?;
        let left = until.checked_duration_since(now)?;
        (!left.is_zero()).then_some((failure, left))
    }

    /// It was asked in vain. Who had asked together with others does not make it longer.
    pub(in crate::upstream::token) fn failed(&mut self, failure: Failure, now: Instant) -> bool {
        if self.left(now).is_some() {
            return false;
        }
        let length = MIN * 2_u32.pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.last = Some((failure, now + length.min(MAX)));
        true
    }

    pub(in crate::upstream::token) fn worked(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_a_minute_and_begins_anew_after_a_token() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(backoff.left(now), None);
            assert!(backoff.failed(Failure::Timeout, now));
            let length = Duration::from_secs(seconds);
            assert_eq!(backoff.left(now), Some((Failure::Timeout, length)));
            // One that was under way at the same time.
            assert!(!backoff.failed(Failure::Tls, now));
            now += length;
        }
        backoff.worked();
        backoff.failed(Failure::Status, now);
        assert_eq!(backoff.left(now), Some((Failure::Status, MIN)));
    }
}
