//! So many requests in a minute, and so many at once: a token bucket, pure and told the time.
//!
//! It is kept as one instant, when the bucket is full again. A minute's instants one by one, as
//! [`PerMinute`](crate::minute::PerMinute) keeps them, would be a megabyte for each caller.

use std::time::Duration;

use tokio::time::Instant;

use crate::minute::MINUTE;

/// Admits so many a minute, evenly, and so many at once after a silence.
#[derive(Clone, Debug)]
pub(super) struct Rate {
    /// What each request costs.
    each: Duration,
    /// What those at once cost, but for the last of them.
    ahead: Duration,
    full_at: Option<Instant>,
}

impl Rate {
    /// From a full bucket. Both numbers are at least 1.
    pub(super) fn new(per_minute: u32, burst: u32) -> Self {
        let each = MINUTE / per_minute.max(1);
        Self {
            each,
            ahead: each * burst.saturating_sub(1),
            full_at: None,
        }
    }

    /// Whether both have the same numbers.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        (self.each, self.ahead) == (other.each, other.ahead)
    }

    /// The same bucket, as full as it is, with other numbers.
    pub(super) fn with(&self, per_minute: u32, burst: u32) -> Self {
        Self {
            full_at: self.full_at,
            ..Self::new(per_minute, burst)
        }
    }

    /// Takes one more.
    ///
    /// # Errors
    /// With how long to wait, and nothing is taken.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full_at = self.full_at.map_or(now, |then| then.max(now));
        let wait = (full_at - now).saturating_sub(self.ahead);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        self.full_at = Some(full_at + self.each);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In no stretch of time are there more than those at once and those that came due in it; and who is refused
        /// waits no longer than needed.
        #[test]
        fn no_stretch_has_more_and_nobody_waits_for_nothing(
            (per_minute, burst) in (1_u32..600, 1_u32..10),
            waits in proptest::collection::vec(0_u64..30_000, 1..200),
        ) {
            let each = MINUTE / per_minute;
            let (mut rate, mut now, mut taken) = (Rate::new(per_minute, burst), Instant::now(), Vec::new());
            for wait in waits {
                now += Duration::from_millis(wait);
                match rate.take(now) {
                    Ok(()) => taken.push(now),
                    Err(wait) => {
                        prop_assert!(wait <= each);
                        let nanosecond = Duration::from_nanos(1);
                        prop_assert!(rate.clone().take(now + wait - nanosecond).is_err());
                        prop_assert!(rate.clone().take(now + wait).is_ok());
                    }
                }
            }
            for (first, from) in taken.iter().enumerate() {
                for (last, to) in taken.iter().enumerate().skip(first) {
                    let due = (*to - *from).as_nanos() / each.as_nanos();
                    prop_assert!((last - first + 1) as u128 <= u128::from(burst) + due);
                }
            }
        }
    }

    #[test]
    fn a_burst_comes_back_after_a_silence() {
        let mut rate = Rate::new(60, 3);
        let mut now = Instant::now();
        for _ in 0..2 {
            for _ in 0..3 {
                assert_eq!(rate.take(now), Ok(()));
            }
            assert_eq!(rate.take(now), Err(Duration::from_secs(1)));
            now += Duration::from_secs(3);
        }
        // Refusals cost nothing.
        for _ in 0..100 {
            let _ = rate.take(now);
        }
        assert_eq!(rate.take(now + Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn the_fastest_and_the_slowest_are_counted() {
        let now = Instant::now();
        let mut fastest = Rate::new(6_000_000, 1);
        assert_eq!(fastest.take(now), Ok(()));
        assert_eq!(fastest.take(now), Err(Duration::from_micros(10)));
        let mut slowest = Rate::new(1, 1_000_000);
        assert!((0..1_000_000).all(|_| slowest.take(now).is_ok()));
        assert_eq!(slowest.take(now), Err(MINUTE));
    }
}
