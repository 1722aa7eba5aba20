//! When so many calls would be over, if all goes on as it does: pure, and told the time.
//!
//! The calls are dealt out one after another, as the [`window`](super::window) and the queue would: each needs a slot, leaves
//! the reserve alone, keeps its class's pace, and finds one of so many at once free. What interactive callers will yet
//! ask for nobody knows; the reserve is theirs, and what they take beyond it makes the forecast too early.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::window::Window;
use crate::service::Calls;

/// Calls that are dealt out one by one; what is beyond them goes on at the same pace. Some hours of sixty calls a minute.
const DEALT_MAX: usize = 10_000;

/// What else is known of the account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rivals {
    /// Slots that only others may take.
    pub reserve: u32,
    /// The least time between two of the calls.
    pub gap: Duration,
    /// Calls of others that come before all of them.
    pub ahead: usize,
    /// Others who take turns with each of them.
    pub turns: usize,
}

/// When the last of the calls is answered.
pub(super) fn ends_at(window: &Window, calls: Calls, rivals: Rivals, now: Instant) -> Instant {
    let each = 1 + rivals.turns;
    let dealt = calls.number.min(DEALT_MAX / each).max(1);
    let mut deal = Deal::new(window, calls, now);
    for _ in 0..rivals.ahead.min(DEALT_MAX) {
        deal.next(window, rivals);
    }
    let began = deal.at;
    for _ in 0..dealt {
        for _ in 0..rivals.turns {
            deal.next(window, rivals);
        }
        deal.own(window, rivals, calls);
    }
    let scale = calls.number as f64 / dealt as f64;
    let more = (deal.at - began).mul_f64(scale.max(1.0) - 1.0);
    deal.at + more + calls.each
}

/// The slots while they are dealt out.
struct Deal {
    /// When the last call was dispatched.
    at: Instant,
    /// When the last one of the kind that keeps a pace was.
    own_at: Option<Instant>,
    /// When the taken slots are free again, soonest first.
    taken: VecDeque<Instant>,
    /// When those that may be under way at once are answered, soonest first.
    lanes: VecDeque<Instant>,
    each: Duration,
}

impl Deal {
    fn new(window: &Window, calls: Calls, now: Instant) -> Self {
        Self {
            at: window.paused(now).unwrap_or(now),
            own_at: None,
            taken: window.free_again(calls.each, now),
            lanes: std::iter::repeat_n(now, calls.width.max(1)).collect(),
            each: calls.each,
        }
    }

    /// One of the calls themselves.
    fn own(&mut self, window: &Window, rivals: Rivals, calls: Calls) {
        let lane = self.lanes.pop_front().unwrap_or(self.at);
        self.at = self.at.max(lane);
        if let Some(last) = self.own_at {
            self.at = self.at.max(last + rivals.gap);
        }
        self.next(window, rivals);
        self.own_at = Some(self.at);
        self.lanes.push_back(self.at + calls.each);
    }

    /// Whatever takes a slot.
    fn next(&mut self, window: &Window, rivals: Rivals) {
        loop {
            while self.taken.front().is_some_and(|free| *free <= self.at) {
                self.taken.pop_front();
            }
            let allowance = window.allowance(self.at);
            let taken = self.taken.len() as u32;
            let reserve = rivals.reserve.min(allowance / 4);
            match self.taken.front() {
                Some(free) if taken + reserve >= allowance => self.at = *free,
                _ => break,
            }
        }
        if window.probes(self.taken.len() as u32, self.at) {
            // Then it is one at a time.
            let last = self.lanes.back().copied();
            self.at = self.at.max(last.unwrap_or(self.at));
        }
        self.taken
            .push_back(Window::free_after(self.at + self.each));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);
    const CALL: Duration = Duration::from_millis(100);

    fn calls(number: usize) -> Calls {
        Calls {
            number,
            width: 8,
            each: CALL,
        }
    }

    const RESERVE: Rivals = Rivals {
        reserve: 6,
        gap: Duration::ZERO,
        ahead: 0,
        turns: 0,
    };

    fn seconds(window: &Window, calls: Calls, rivals: Rivals, now: Instant) -> f64 {
        (ends_at(window, calls, rivals, now) - now).as_secs_f64()
    }

    /// Each row says of so many calls, from the start of an idle account of sixty a minute, when they are over.
    #[test]
    fn an_idle_account() {
        let now = Instant::now();
        let window = Window::new(60, 1.0, now);
        for (number, expected) in [
            (1, 0.1),
            (8, 0.1),
            (9, 0.2),
            (54, 0.7),
            // The reserve is left alone, and each slot comes back a minute and a quarter of a second after its call.
            (55, 60.25 + 0.2),
            (108, 60.25 + 0.1 + 0.7),
            (109, 2.0 * 60.35 + 0.1),
            (10_000, 185.0 * 60.35 + 0.2),
            (100_000, 1851.0 * 60.35),
        ] {
            let told = seconds(&window, calls(number), RESERVE, now);
            let off = (told - expected).abs();
            assert!(
                off <= 0.01 * expected + 0.01,
                "{number}: {told} and not {expected}"
            );
        }
    }

    #[test]
    fn what_is_slow_is_not_bound_by_the_budget() {
        let now = Instant::now();
        let window = Window::new(60, 1.0, now);
        let slow = Calls {
            each: 10 * SECOND,
            width: 2,
            number: 100,
        };
        assert_eq!(seconds(&window, slow, RESERVE, now), 500.0);
    }

    #[test]
    fn what_else_holds_it_up() {
        let now = Instant::now();
        let mut paused = Window::new(60, 1.0, now);
        paused.refused(now, Some(30 * SECOND), now);
        let window = Window::new(60, 1.0, now);
        let gap = Rivals {
            gap: 4 * SECOND,
            ..RESERVE
        };
        let turns = Rivals {
            turns: 1,
            ..RESERVE
        };
        let ahead = Rivals {
            ahead: 50,
            ..RESERVE
        };
        for (told, window, number, rivals, expected) in [
            ("a pause", &paused, 1, RESERVE, 30.1),
            // The allowance is 45 now, and its last quarter is tried one at a time.
            ("a lesson", &paused, 40, RESERVE, 30.0 + 60.35 + 0.1),
            ("a pace", &window, 16, gap, 60.1),
            ("half of the slots", &window, 27, turns, 0.4),
            ("half of the slots", &window, 28, turns, 60.45),
            ("a queue", &window, 4, ahead, 0.1),
            ("a queue", &window, 5, ahead, 60.35),
        ] {
            let seconds = seconds(window, calls(number), rivals, now);
            assert!(
                (seconds - expected).abs() < 0.5,
                "{told}, {number}: {seconds}"
            );
        }
    }

    #[test]
    fn slots_that_are_taken_come_back_in_their_turn() {
        let start = Instant::now();
        let mut window = Window::new(60, 1.0, start);
        for second in 0..54 {
            window.take();
            window.end(start + second * SECOND);
        }
        let now = start + 54 * SECOND;
        let told = |number| ends_at(&window, calls(number), RESERVE, now) - start;
        assert_eq!(told(1), MINUTE + CALL + Duration::from_millis(250));
        assert_eq!(
            told(10),
            MINUTE + 9 * SECOND + CALL + Duration::from_millis(250)
        );
    }
}
