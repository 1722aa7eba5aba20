//! The sliding minute of one account: exact, pure, and told the time.
//!
//! A slot is taken when an attempt is dispatched and is free again 60 s and a margin after the attempt *ended*. Upstream
//! counts a call at some moment between the two. Of all calls that it counts in some 60 s, the one dispatched last
//! found all others still holding their slots, so there are never more of them than the allowance, wherever upstream's
//! own window begins.
//!
//! Strangers may use the account too. A refusal says that they do: the allowance drops by a quarter and climbs back by
//! one for each two quiet minutes. While it climbs, nobody knows where upstream's patience ends, so the last slots are
//! tried one at a time: then what is found there is one refusal, and not one for each call under way.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// How long a slot stays taken after its attempt ended: upstream's minute, and a margin for clocks and networks.
pub(super) const HELD_FOR: Duration = Duration::from_millis(60_250);

/// How long the account must be quiet for the allowance to climb by one.
const QUIET: Duration = Duration::from_secs(120);

/// Of an allowance that climbs, one slot in so many is tried with no other call under way.
const PROBED: u32 = 4;

/// The longest pause that a refusal can ask for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The calls of one account in the last minute, and how many there may be.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// What is configured.
    most: u32,
    /// What was learned at `learned_at`.
    learned: u32,
    learned_at: Instant,
    /// Attempts that have not ended.
    running: u32,
    /// When the slots of attempts that have ended are free again, soonest first.
    held: VecDeque<Instant>,
    paused_until: Option<Instant>,
}

impl Window {
    /// A window of `most` calls a minute, from 1. Calls of an earlier process are unknown, so that only `start_share`
    /// of them, from 0 to 1, can be taken in the first minute.
    pub(super) fn new(most: u32, start_share: f64, now: Instant) -> Self {
        let most = most.max(1);
        let at_once = (f64::from(most) * start_share.clamp(0.0, 1.0)) as u32;
        let unknown = most - at_once.clamp(1, most);
        Self {
            most,
            learned: most,
            learned_at: now,
            running: 0,
            held: std::iter::repeat_n(now + HELD_FOR, unknown as usize).collect(),
            paused_until: None,
        }
    }

    /// Has another number of calls a minute from now on. Slots that are taken stay so, and so does what was learned, if
    /// it is less.
    pub(super) fn allow(&mut self, most: u32, now: Instant) {
        let most = most.max(1);
        if most == self.most {
            return;
        }
        let allowance = self.allowance(now);
        self.learned = match allowance == self.most {
            true => most,
            false => allowance.min(most),
        };
        self.learned_at = now;
        self.most = most;
    }

    /// Whether nothing is to be remembered: no call of the last minute, and nothing that was learned.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        self.open(now) == self.most
    }

    /// How many calls a minute are configured.
    pub(super) fn most(&self) -> u32 {
        self.most
    }

    /// How many calls a minute there may be, as far as is known now.
    pub(super) fn allowance(&self, now: Instant) -> u32 {
        let quiet = now.saturating_duration_since(self.learned_at).as_secs() / QUIET.as_secs();
        let climbed = self
            .learned
            .saturating_add(u32::try_from(quiet).unwrap_or(u32::MAX));
        climbed.min(self.most)
    }

    /// How many slots can be taken now.
    pub(super) fn open(&mut self, now: Instant) -> u32 {
        while self.held.front().is_some_and(|free_at| *free_at <= now) {
            self.held.pop_front();
        }
        if self.paused(now).is_some() {
            return 0;
        }
        let allowance = self.allowance(now);
        if self.probes(self.taken(), now) && self.running > 0 {
            return 0;
        }
        allowance.saturating_sub(self.taken())
    }

    /// Whether the next slot, when so many are taken, is one of those that are tried one at a time.
    pub(super) fn probes(&self, taken: u32, now: Instant) -> bool {
        let allowance = self.allowance(now);
        allowance < self.most && taken >= allowance - allowance / PROBED
    }

    /// When the slots that are taken are free again, soonest first, if running attempts still take so long.
    pub(super) fn free_again(&self, still: Duration, now: Instant) -> VecDeque<Instant> {
        let running = std::iter::repeat_n(Self::free_after(now + still), self.running as usize);
        self.held.iter().copied().chain(running).collect()
    }

    /// When the slot of an attempt that ends then is free again.
    pub(super) fn free_after(end: Instant) -> Instant {
        end + HELD_FOR
    }

    /// How many slots are taken.
    pub(super) fn taken(&self) -> u32 {
        self.running + self.held.len() as u32
    }

    /// Until when upstream wants no call at all.
    pub(super) fn paused(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| *until > now)
    }

    /// An attempt is dispatched.
    pub(super) fn take(&mut self) {
        self.running += 1;
    }

    /// A slot was taken and nothing was sent.
    pub(super) fn give_back(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// An attempt has ended, however.
    pub(super) fn end(&mut self, now: Instant) {
        self.running = self.running.saturating_sub(1);
        self.held.push_back(now + HELD_FOR);
    }

    /// Upstream refused a call that was dispatched at `dispatched`. Returns how long the account pauses.
    ///
    /// Without upstream's own word for it, the pause is the rest of the minute that our oldest call is in.
    pub(super) fn refused(
        &mut self,
        dispatched: Instant,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Duration {
        // Calls refused together say one thing.
        if dispatched >= self.learned_at {
            self.learned = (self.allowance(now) * 3 / 4).max(1);
            self.learned_at = now;
        }
        let rest = || {
            self.held
                .front()
                .map(|free_at| free_at.saturating_duration_since(now))
        };
        let pause = retry_after.or_else(rest).unwrap_or(PAUSE_MAX);
        let pause = pause.clamp(Duration::from_secs(1), PAUSE_MAX);
        self.paused_until = self.paused_until.max(Some(now + pause));
        pause
    }

    /// When the next slot may become free, if one is known to.
    pub(super) fn changes_at(&self, now: Instant) -> Option<Instant> {
        self.paused(now).or_else(|| self.held.front().copied())
    }

    /// When, at the earliest, somebody can be served who is preceded by `ahead` others.
    pub(super) fn estimate(&mut self, ahead: u32, now: Instant) -> Instant {
        let resumed = self.paused(now).unwrap_or(now);
        let allowance = self.allowance(now);
        let open = allowance.saturating_sub(self.taken());
        if ahead < open {
            return resumed;
        }
        // Slots that must be given back before it is one's turn, beyond those above the allowance.
        let awaited = (ahead - open) as usize + (self.taken().saturating_sub(allowance)) as usize;
        // Each slot is held for a minute anew by whoever takes it. Those of running attempts come last.
        let rounds = awaited / self.taken().max(1) as usize;
        let place = awaited % self.taken().max(1) as usize;
        let free_at = self.held.get(place).copied().unwrap_or(now + HELD_FOR);
        resumed.max(free_at + HELD_FOR * u32::try_from(rounds).unwrap_or(u32::MAX).min(1000))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_slot_is_free_a_minute_after_its_attempt_ended() {
        let start = Instant::now();
        let mut window = Window::new(2, 1.0, start);
        window.take();
        window.take();
        assert_eq!(window.open(start), 0);
        window.end(start + 3 * SECOND);
        let free_at = start + 3 * SECOND + HELD_FOR;
        assert_eq!(window.changes_at(start + 4 * SECOND), Some(free_at));
        assert_eq!(window.open(free_at - Duration::from_nanos(1)), 0);
        assert_eq!(window.open(free_at), 1);
        // The other one runs for hours and holds its slot all the while.
        assert_eq!(window.open(free_at + 7200 * SECOND), 1);
    }

    #[test]
    fn the_first_minute_is_a_share_of_the_others() {
        let start = Instant::now();
        for (share, open) in [
            (0.5, 30),
            (1.0, 60),
            (0.0, 1),
            (0.01, 1),
            (7.0, 60),
            (f64::NAN, 1),
        ] {
            let mut window = Window::new(60, share, start);
            assert_eq!(window.open(start), open, "{share}");
            assert_eq!(window.open(start + HELD_FOR), 60);
        }
    }

    #[test]
    fn a_refusal_pauses_and_teaches() {
        let start = Instant::now();
        let mut window = Window::new(60, 1.0, start);
        let at = start + 10 * SECOND;
        assert_eq!(window.refused(start, Some(5 * SECOND), at), 5 * SECOND);
        assert_eq!(window.open(at + 5 * SECOND - Duration::from_nanos(1)), 0);
        assert_eq!(window.open(at + 5 * SECOND), 45);
        // It was dispatched before the lesson, so it repeats it.
        window.refused(start + 9 * SECOND, None, at + SECOND);
        assert_eq!(window.allowance(at + SECOND), 45);
        window.refused(at + 20 * SECOND, None, at + 20 * SECOND);
        assert_eq!(window.allowance(at + 20 * SECOND), 33);
        let learned = at + 20 * SECOND;
        assert_eq!(window.allowance(learned + 119 * SECOND), 33);
        assert_eq!(window.allowance(learned + 120 * SECOND), 34);
        assert_eq!(window.allowance(learned + 24 * 3600 * SECOND), 60);
    }

    #[test]
    fn a_pause_is_between_a_second_and_a_minute() {
        let start = Instant::now();
        for (asked, expected) in [(0, 1), (1, 1), (60, 60), (3600, 60)] {
            let mut window = Window::new(60, 1.0, start);
            assert_eq!(
                window.refused(start, Some(asked * SECOND), start),
                expected * SECOND
            );
        }
        let mut window = Window::new(60, 1.0, start);
        assert_eq!(window.refused(start, None, start), 60 * SECOND);
        window.take();
        window.end(start);
        let rest = window.refused(start, None, start + 20 * SECOND);
        assert_eq!(rest, HELD_FOR - 20 * SECOND);
    }

    #[test]
    fn the_allowance_never_falls_to_nothing() {
        let mut now = Instant::now();
        let mut window = Window::new(3, 1.0, now);
        for _ in 0..10 {
            now += SECOND;
            window.refused(now, None, now);
        }
        assert_eq!(window.allowance(now), 1);
    }

    #[test]
    fn another_allowance_forgets_neither_calls_nor_lessons() {
        let start = Instant::now();
        let mut window = Window::new(10, 1.0, start);
        for _ in 0..8 {
            window.take();
            window.end(start);
        }
        window.allow(4, start);
        assert_eq!((window.allowance(start), window.open(start)), (4, 0));
        window.allow(20, start);
        assert_eq!((window.allowance(start), window.open(start)), (20, 12));
        window.refused(start, Some(SECOND), start);
        let later = start + 2 * SECOND;
        assert_eq!(window.allowance(later), 15);
        window.allow(40, later);
        assert_eq!(window.allowance(later), 15);
        window.allow(5, later);
        assert_eq!(window.allowance(later), 5);
        // The same again takes back nothing of what has climbed since.
        let climbed = later + 10 * QUIET;
        window.allow(40, climbed);
        window.allow(40, climbed + QUIET);
        assert_eq!(
            window.allowance(climbed + QUIET),
            40.min(window.learned + 1)
        );
    }

    #[test]
    fn it_is_idle_when_a_new_one_would_say_the_same() {
        let start = Instant::now();
        let mut window = Window::new(4, 1.0, start);
        assert!(window.is_idle(start));
        window.take();
        assert!(!window.is_idle(start));
        window.end(start);
        assert!(!window.is_idle(start + HELD_FOR - SECOND));
        assert!(window.is_idle(start + HELD_FOR));
        window.refused(start, Some(SECOND), start);
        assert!(!window.is_idle(start + HELD_FOR));
        assert!(window.is_idle(start + 24 * 60 * MINUTE));
    }

    #[test]
    fn estimates_are_what_then_happens() {
        let start = Instant::now();
        let mut window = Window::new(3, 1.0, start);
        for second in 0..3 {
            window.take();
            window.end(start + second * SECOND);
        }
        let now = start + 3 * SECOND;
        for (ahead, at) in [
            (0, start + HELD_FOR),
            (2, start + 2 * SECOND + HELD_FOR),
            (3, start + 2 * HELD_FOR),
            (7, start + SECOND + 3 * HELD_FOR),
        ] {
            assert_eq!(window.estimate(ahead, now), at, "{ahead}");
        }
        window.refused(now, Some(30 * SECOND), now);
        assert!(window.estimate(0, now) >= now + 30 * SECOND);
    }

    #[test]
    fn what_climbs_is_tried_one_at_a_time() {
        let start = Instant::now();
        let mut window = Window::new(8, 1.0, start);
        let refused = start + SECOND;
        window.refused(start, Some(SECOND), refused);
        let now = refused + SECOND;
        assert_eq!((window.allowance(now), window.open(now)), (6, 6));
        for _ in 0..4 {
            window.take();
        }
        assert_eq!(window.open(now), 2);
        window.take();
        // The sixth may be one too many, so it waits for the others.
        assert_eq!(window.open(now), 0);
        for _ in 0..5 {
            window.end(now);
        }
        assert_eq!(window.open(now), 1);
        window.take();
        // Once all of it is known to be there, nobody waits for another.
        let later = now + 20 * QUIET;
        assert_eq!((window.allowance(later), window.open(later)), (8, 7));
    }

    proptest! {
        /// Whoever takes only what is open is never seen above the allowance, wherever upstream's minute begins.
        #[test]
        fn no_minute_has_more_than_the_allowance(
            most in 1_u32..20,
            share in 0.0_f64..1.0,
            steps in proptest::collection::vec((0_u64..9_000, 0_u64..8_000, 0.0_f64..1.0), 1..300),
        ) {
            let mut now = Instant::now();
            let mut window = Window::new(most, share, now);
            let mut ends: Vec<Instant> = Vec::new();
            let mut counted: Vec<Instant> = Vec::new();
            for (wait, duration, at) in steps {
                let next = now + Duration::from_millis(wait);
                ends.sort();
                for end in ends.extract_if(.., |end| *end <= next) {
                    window.end(end);
                }
                now = next;
                if window.open(now) > 0 {
                    window.take();
                    let duration = Duration::from_millis(duration);
                    ends.push(now + duration);
                    counted.push(now + duration.mul_f64(at));
                }
            }
            counted.sort();
            for (first, begin) in counted.iter().enumerate() {
                let seen = counted[first..].iter().take_while(|call| **call < *begin + Duration::from_secs(60)).count();
                prop_assert!(seen <= most as usize, "{seen} of {most}");
            }
        }
    }
}
