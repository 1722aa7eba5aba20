//! What one account has called: the sixty calls a minute, and the count of everything for whoever asks later.
//!
//! Two windows are kept apart on purpose. The limiter forgets calls that it refused, as most limiters do, or a caller that
//! keeps asking would never get through again. The count of the busiest minute forgets nothing: it is the evidence of how a
//! gateway behaved.

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;
use tokio::time::Instant;

/// The length of every window here.
const MINUTE: Duration = Duration::from_secs(60);

/// The most instants that are remembered for an account, 1 MiB of them. A minute with more calls counts as this many.
const ARRIVALS_MAX: usize = 65_536;

/// How many calls an account may make, and how a refusal reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Calls a minute for each account, all its streams together; 1 to 60,000. Kore.ai: 60.
    pub per_minute: u32,
    /// Where a minute begins. Kore.ai does not say.
    pub window: Window,
    /// Whether a refusal tells when to come back. Kore.ai documents no such header.
    pub retry_after: bool,
}

/// Where a minute begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Window {
    /// With every call: never more than the allowance in any 60 s.
    #[default]
    Sliding,
    /// Every 60 s from the simulator's start: up to twice the allowance may pass around a boundary.
    Fixed,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            per_minute: 60,
            window: Window::Sliding,
            retry_after: false,
        }
    }
}

/// What an account's calls came to. `total` is the sum of `served`, `refused`, `denied`, `faulted` and the calls still unanswered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Calls that named the account and the contacts of any stream.
    pub total: u64,
    /// Answered with the page they asked for.
    pub served: u64,
    /// Answered 429: beyond the account's calls a minute.
    pub refused: u64,
    /// Answered 401 or 400: wrong credential, stream or paging parameter.
    pub denied: u64,
    /// Answered under a fault that somebody set.
    pub faulted: u64,
    /// The most calls that arrived in any 60 s, whatever became of them; counts to 65,536.
    pub busiest_minute: u64,
    /// The most calls that were waiting for the head of their answer at the same time. A call under a fault below HTTP leaves
    /// when that begins: a stall is not counted, a delay is.
    pub most_at_once: u64,
    /// Different tokens that were signed for the app and had not expired. Of those that come back after two hours, or after
    /// 500,000 others, some are counted again.
    pub tokens: u64,
    /// Calls refused because their `jti` had been used; they are among `denied`.
    pub replays: u64,
}

/// Whether a call may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Admitted,
    /// One more call would be admitted after `wait`.
    Refused {
        wait: Duration,
    },
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Served,
    Refused,
    Denied,
    Faulted,
}

/// One account's calls.
#[derive(Debug)]
pub(super) struct Calls {
    limit: Option<RateLimit>,
    started: Instant,
    /// Admitted calls of the current window, oldest first: at most `per_minute`.
    admitted: VecDeque<Instant>,
    /// All calls of the last minute, oldest first: at most `ARRIVALS_MAX`.
    arrivals: VecDeque<Instant>,
    at_once: u64,
    counts: Counts,
}

impl Calls {
    pub(super) fn new(limit: Option<RateLimit>, now: Instant) -> Self {
        Self {
            limit,
            started: now,
            admitted: VecDeque::new(),
            arrivals: VecDeque::new(),
            at_once: 0,
            counts: Counts::default(),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// A call arrives. Each arrival is followed by one `leave`.
    pub(super) fn arrive(&mut self, now: Instant) -> Admission {
        self.counts.total += 1;
        self.at_once += 1;
        self.counts.most_at_once = self.counts.most_at_once.max(self.at_once);

        while self
            .arrivals
            .front()
            .is_some_and(|&at| now.duration_since(at) >= MINUTE)
        {
            self.arrivals.pop_front();
        }
        if self.arrivals.len() == ARRIVALS_MAX {
            self.arrivals.pop_front();
        }
        self.arrivals.push_back(now);
        self.counts.busiest_minute = self.counts.busiest_minute.max(self.arrivals.len() as u64);

        self.admit(now)
    }

    /// The head of its answer is ready, or its caller went away (`None`).
    pub(super) fn leave(&mut self, outcome: Option<Outcome>) {
        self.at_once -= 1;
        match outcome {
            Some(Outcome::Served) => self.counts.served += 1,
            Some(Outcome::Refused) => self.counts.refused += 1,
            Some(Outcome::Denied) => self.counts.denied += 1,
            Some(Outcome::Faulted) => self.counts.faulted += 1,
            None => {}
        }
    }

    fn admit(&mut self, now: Instant) -> Admission {
        let Some(limit) = self.limit else {
            return Admission::Admitted;
        };
        // When the place taken at `at` is free again.
        let started = self.started;
        let freed = |at: Instant| match limit.window {
            Window::Sliding => at + MINUTE,
            Window::Fixed => {
                let minutes = at.duration_since(started).as_secs() / 60;
                started + MINUTE * (minutes as u32 + 1)
            }
        };
        while self.admitted.front().is_some_and(|&at| freed(at) <= now) {
            self.admitted.pop_front();
        }
        match self.admitted.front() {
            Some(&oldest) if self.admitted.len() >= limit.per_minute as usize => {
                Admission::Refused {
                    wait: freed(oldest).duration_since(now),
                }
            }
            _ => {
                self.admitted.push_back(now);
                Admission::Admitted
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn calls(per_minute: u32, window: Window) -> (Calls, Instant) {
        let start = Instant::now();
        let limit = RateLimit {
            per_minute,
            window,
            retry_after: true,
        };
        (Calls::new(Some(limit), start), start)
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn a_sliding_window_frees_each_place_sixty_seconds_after_it_was_taken() {
        let (mut calls, start) = calls(2, Window::Sliding);
        assert_eq!(calls.arrive(start), Admission::Admitted);
        assert_eq!(calls.arrive(start + seconds(10.0)), Admission::Admitted);
        let refused = Admission::Refused {
            wait: seconds(40.0),
        };
        assert_eq!(calls.arrive(start + seconds(20.0)), refused);
        assert_eq!(calls.arrive(start + seconds(60.0)), Admission::Admitted);
        let refused = Admission::Refused { wait: seconds(5.0) };
        assert_eq!(calls.arrive(start + seconds(65.0)), refused);
        assert_eq!(calls.counts().busiest_minute, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_window_frees_all_places_at_its_boundary() {
        let (mut calls, start) = calls(2, Window::Fixed);
        assert_eq!(calls.arrive(start + seconds(58.0)), Admission::Admitted);
        assert_eq!(calls.arrive(start + seconds(59.0)), Admission::Admitted);
        let refused = Admission::Refused { wait: seconds(0.5) };
        assert_eq!(calls.arrive(start + seconds(59.5)), refused);
        assert_eq!(calls.arrive(start + seconds(60.0)), Admission::Admitted);
        assert_eq!(calls.arrive(start + seconds(61.0)), Admission::Admitted);
        // Four admitted and one refused within three seconds: the fixed window let it happen, the count saw it.
        assert_eq!(calls.counts().busiest_minute, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_everything_passes_and_is_counted() {
        let start = Instant::now();
        let mut calls = Calls::new(None, start);
        for _ in 0..ARRIVALS_MAX + 10 {
            assert_eq!(calls.arrive(start), Admission::Admitted);
            calls.leave(Some(Outcome::Served));
        }
        let counts = calls.counts();
        assert_eq!(counts.total, ARRIVALS_MAX as u64 + 10);
        assert_eq!(counts.served, counts.total);
        assert_eq!(counts.busiest_minute, ARRIVALS_MAX as u64);
        assert_eq!(counts.most_at_once, 1);
    }

    proptest! {
        #[test]
        fn the_sliding_window_never_admits_more_and_the_busiest_minute_is_exact(
            gaps in proptest::collection::vec(0u64..13, 1..120), per_minute in 1u32..8,
        ) {
            let (mut calls, start) = calls(per_minute, Window::Sliding);
            let (mut now, mut all, mut admitted) = (start, vec![], vec![]);
            for gap in gaps {
                // Multiples of five seconds, so that calls fall on the very edge of a window.
                now += Duration::from_secs(5) * gap as u32;
                all.push(now);
                if calls.arrive(now) == Admission::Admitted {
                    admitted.push(now);
                }
            }
            let most = |times: &[Instant]| {
                times.iter().map(|&end| times.iter().filter(|&&at| at <= end && end.duration_since(at) < MINUTE).count()).max().unwrap_or(0)
            };
            prop_assert!(most(&admitted) <= per_minute as usize);
            prop_assert_eq!(calls.counts().busiest_minute, most(&all) as u64);
        }
    }
}
