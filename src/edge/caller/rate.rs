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

    /// The same bucket with other numbers. As many requests are missing in it as before, but no more than it holds: they
    /// come back at the new rate, or whoever is given more would still wait as long as with less.
    pub(super) fn with(&self, per_minute: u32, burst: u32, now: Instant) -> Self {
        let changed = Self::new(per_minute, burst);
        let missing = self
            .full_at
            .map_or(Duration::ZERO, |then| then.saturating_duration_since(now));
        let missing = missing.as_nanos() * changed.each.as_nanos();
        let missing = missing.div_ceil(self.each.as_nanos());
        let missing = u64::try_from(missing).map_or(Duration::MAX, Duration::from_nanos);
        Self {
            full_at: Some(now + missing.min(changed.ahead + changed.each)),
            ..changed
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

    /// Catches a caller that is given more and waits for hours all the same, and a change that gives back what was taken.
    #[test]
    fn with_other_numbers_as_many_are_missing_as_before() {
        let now = Instant::now();
        for (before, taken, after, left) in [
            ((60, 10), 4, (60, 10), 6),
            ((60, 10), 4, (60_000, 10), 6),
            ((60, 10), 4, (1, 10), 6),
            ((60, 10), 4, (60, 20), 16),
            ((60, 10), 4, (60, 5), 1),
            ((60, 10), 4, (60, 4), 0),
            // No more is missing than there can be.
            ((1, 100), 100, (60_000, 10), 0),
            ((1, 1_000_000), 1_000_000, (6_000_000, 1), 0),
            ((6_000_000, 1_000_000), 1_000_000, (1, 1_000_000), 0),
            ((60, 10), 0, (600, 3), 3),
        ] {
            let mut rate = Rate::new(before.0, before.1);
            assert!((0..taken).all(|_| rate.take(now).is_ok()));
            let mut changed = rate.with(after.0, after.1, now);
            let told = format!("{before:?} {taken} {after:?}");
            assert!((0..left).all(|_| changed.take(now).is_ok()), "{told}");
            let wait = changed.take(now).unwrap_err();
            assert!(wait <= MINUTE / after.0, "{told}: {wait:?}");
        }
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
