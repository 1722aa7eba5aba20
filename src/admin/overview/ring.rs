//! The last quarter of an hour in fixed memory, so that the ops page has charts without Prometheus. Pure.

use std::{
    collections::VecDeque,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    document::{History, Totals},
    figures::{Figures, ratio},
};

/// How far apart the moments are.
pub(super) const EVERY: Duration = Duration::from_secs(5);

/// Moments that are remembered: those of 15 minutes.
pub(super) const MOMENTS_MAX: usize = 180;

/// Steps from one moment to the next, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Ring {
    steps: VecDeque<Step>,
    last: Option<Figures>,
}

/// What happened from one moment to the next.
#[derive(Clone, Copy, Debug)]
struct Step {
    at_s: u64,
    rate: f64,
    failed_rate: f64,
    hit_ratio: Option<f64>,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

impl Ring {
    /// Remembers a moment. The first one is only what the next is compared with.
    pub(super) fn push(&mut self, figures: Figures, wall: SystemTime) {
        if let Some(last) = &self.last {
            let seconds = figures.since(last).as_secs_f64();
            if seconds <= 0.0 {
                return;
            }
            let more =
                |of: fn(&Totals) -> u64| of(&figures.totals).saturating_sub(of(&last.totals));
            let a_second = |count: u64| count as f64 / seconds;
            let step = Step {
                at_s: seconds_of(wall),
                rate: a_second(more(|totals| totals.requests)),
                failed_rate: a_second(more(|totals| totals.failed)),
                hit_ratio: ratio(more(|totals| totals.hits), more(|totals| totals.asked)),
                p50_ms: figures.quantile_ms(Some(last), 0.5),
                p99_ms: figures.quantile_ms(Some(last), 0.99),
            };
            if self.steps.len() >= MOMENTS_MAX {
                self.steps.pop_front();
            }
            self.steps.push_back(step);
        }
        self.last = Some(figures);
    }

    pub(super) fn history(&self) -> History {
        fn column<T>(steps: &VecDeque<Step>, of: impl Fn(&Step) -> T) -> Vec<T> {
            steps.iter().map(of).collect()
        }
        let steps = &self.steps;
        History {
            every_s: EVERY.as_secs(),
            moments_max: MOMENTS_MAX,
            at_s: column(steps, |step| step.at_s),
            rate: column(steps, |step| step.rate),
            failed_rate: column(steps, |step| step.failed_rate),
            hit_ratio: column(steps, |step| step.hit_ratio),
            p50_ms: column(steps, |step| step.p50_ms),
            p99_ms: column(steps, |step| step.p99_ms),
        }
    }

    /// Of the requests of the last minute, how many a second there were, and how many failed.
    pub(super) fn last_minute(&self) -> (f64, f64) {
        let minute = (60 / EVERY.as_secs()) as usize;
        let steps = self.steps.iter().rev().take(minute);
        let count = steps.len().max(1) as f64;
        let sums = steps.fold((0.0, 0.0), |(rate, failed), step| {
            (rate + step.rate, failed + step.failed_rate)
        });
        (sums.0 / count, sums.1 / count)
    }
}

/// Seconds since 1970.
pub(super) fn seconds_of(wall: SystemTime) -> u64 {
    wall.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// So many seconds after the start, after so many requests, of which so many failed and as many missed.
    fn figures(start: Instant, seconds: u64, requests: u64, failed: u64) -> Figures {
        Figures {
            at: start + Duration::from_secs(seconds),
            totals: Totals {
                requests,
                failed,
                asked: requests,
                hits: requests - failed,
                ..Totals::default()
            },
            took: vec![(0.001, requests), (f64::INFINITY, requests)],
        }
    }

    #[test]
    fn a_step_is_what_happened_in_it_however_long_it_was() {
        let (start, mut ring) = (Instant::now(), Ring::default());
        let wall = UNIX_EPOCH + Duration::from_secs(1000);
        ring.push(figures(start, 0, 1_000_000, 0), wall);
        assert_eq!(ring.history().at_s, [0; 0]);
        for (seconds, requests, failed) in [(5, 100, 0), (15, 200, 50), (20, 200, 50)] {
            let figures = figures(start, seconds, 1_000_000 + requests, failed);
            ring.push(figures, wall + Duration::from_secs(seconds));
        }
        let history = ring.history();
        assert_eq!(history.at_s, [1005, 1015, 1020]);
        assert_eq!(history.rate, [20.0, 10.0, 0.0]);
        assert_eq!(history.failed_rate, [0.0, 5.0, 0.0]);
        assert_eq!(history.hit_ratio, [Some(1.0), Some(0.5), None]);
        assert_eq!(history.p50_ms, [Some(0.5), Some(0.5), None]);
        assert_eq!(ring.last_minute(), (10.0, 5.0 / 3.0));
    }

    #[test]
    fn it_holds_a_quarter_of_an_hour() {
        let (start, mut ring) = (Instant::now(), Ring::default());
        for step in 0..500 {
            ring.push(
                figures(start, 5 * step, 10 * step, 0),
                UNIX_EPOCH + Duration::from_secs(5 * step),
            );
        }
        let history = ring.history();
        assert_eq!(history.at_s.len(), MOMENTS_MAX);
        assert_eq!(history.at_s.last(), Some(&(499 * 5)));
        assert_eq!(history.at_s[0], 499 * 5 - 179 * 5);
    }
}
