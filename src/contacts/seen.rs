//! What is seen of one collection: how often it is asked for, and how upstream last answered. For operators; no decision
//! depends on it.
//!
//! A request costs one relaxed addition here, and another one if no copy could answer it. The rate is worked out by
//! whoever [ticks](Seen::tick) at an even pace.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::error::Kind;

/// The time over which the rate is an average: what is older counts for less and less.
const AVERAGED_OVER: Duration = Duration::from_secs(60);

/// The counts of one collection.
#[derive(Debug, Default)]
pub struct Seen {
    requests: AtomicU64,
    waited: AtomicU64,
    /// The requests at the last tick.
    ticked: AtomicU64,
    /// Requests a second, as the bits of an [`f64`].
    rate: AtomicU64,
    pub upstream: Answers,
}

/// How upstream answers for a collection, or for a whole account.
#[derive(Debug, Default)]
pub struct Answers(Mutex<Last>);

/// How upstream last answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Last {
    /// When it last gave what was asked for.
    pub answered: Option<Instant>,
    /// What was last wrong.
    pub failed: Option<(Kind, Instant)>,
}

impl Seen {
    /// Somebody asks.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// No copy was the answer.
    pub fn waited(&self) {
        self.waited.fetch_add(1, Ordering::Relaxed);
    }

    /// Works the rate out anew, so long after the last time.
    pub fn tick(&self, elapsed: Duration) {
        let requests = self.requests();
        let more = requests - self.ticked.swap(requests, Ordering::Relaxed).min(requests);
        let seconds = elapsed.as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let kept = (-seconds / AVERAGED_OVER.as_secs_f64()).exp();
        let rate = self.rate() * kept + more as f64 / seconds * (1.0 - kept);
        self.rate.store(rate.to_bits(), Ordering::Relaxed);
    }

    /// Requests since it is known.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Requests a second, about the last minute.
    pub fn rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }

    /// The share of requests that a copy answered, from 0 to 1; `None` before the first one.
    pub fn hit_ratio(&self) -> Option<f64> {
        let (requests, waited) = (self.requests(), self.waited.load(Ordering::Relaxed));
        // The two are not read at one moment.
        (requests > 0).then(|| 1.0 - waited.min(requests) as f64 / requests as f64)
    }
}

impl Answers {
    /// Upstream was asked.
    pub fn note(&self, outcome: Result<(), Kind>, now: Instant) {
        let mut last = self.lock();
        match outcome {
            Ok(()) => last.answered = Some(now),
            Err(kind) => last.failed = Some((kind, now)),
        }
    }

    pub fn last(&self) -> Last {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Last {
    /// What was wrong since it last answered.
    pub fn fault(&self) -> Option<(Kind, Instant)> {
        self.failed
            .filter(|(_, at)| self.answered.is_none_or(|answered| answered <= *at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_secs(5);

    fn ticks(seen: &Seen, ticks: usize, requests: usize) {
        for _ in 0..ticks {
            (0..requests).for_each(|_| seen.request());
            seen.tick(TICK);
        }
    }

    /// Catches a rate that never falls, and one that forgets in one tick.
    #[test]
    fn the_rate_follows_in_about_a_minute() {
        let seen = Seen::default();
        ticks(&seen, 120, 50);
        assert!((seen.rate() - 10.0).abs() < 0.01, "{}", seen.rate());
        ticks(&seen, 12, 0);
        assert!(
            (3.0..4.0).contains(&seen.rate()),
            "a minute later: {}",
            seen.rate()
        );
        ticks(&seen, 120, 0);
        assert!(seen.rate() < 0.01);
        // Two looks at once are no reason to divide by nothing.
        seen.tick(Duration::ZERO);
        assert!(seen.rate().is_finite());
    }

    #[test]
    fn what_waited_was_no_hit() {
        let seen = Seen::default();
        assert_eq!(seen.hit_ratio(), None);
        (0..4).for_each(|_| seen.request());
        seen.waited();
        assert_eq!(seen.hit_ratio(), Some(0.75));
    }
}
