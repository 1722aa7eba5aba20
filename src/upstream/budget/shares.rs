//! What each caller has had of an account's calls, and what is kept for the others. Pure.
//!
//! Turns alone share nothing where one caller asks all the time: it takes what there is of a minute at its beginning, and
//! leaves the others none to take turns for. So of the slots one in five is not for a caller while another, who has asked
//! lately, has had less than its even share. Whoever is alone may have them all, and so may those who all ask for more.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use super::window::HELD_FOR;
use crate::contacts::request::CallerName;

/// Of so many slots, one is kept for callers who have had less than their share.
const KEPT: u32 = 5;

/// How long a caller is reckoned with after it has asked.
const REMEMBERED: Duration = Duration::from_secs(5 * 60);

/// What callers have had.
#[derive(Debug, Default)]
pub(super) struct Shares {
    of: HashMap<CallerName, Share>,
}

#[derive(Debug)]
struct Share {
    asked: Instant,
    /// When its slots of the last minute were taken, soonest first.
    taken: VecDeque<Instant>,
}

impl Share {
    fn taken(&self, now: Instant) -> u32 {
        let held = self.taken.iter().filter(|at| **at + HELD_FOR > now);
        held.count() as u32
    }
}

impl Shares {
    /// A caller has asked for a call.
    pub(super) fn asked(&mut self, caller: CallerName, now: Instant) {
        let share = self.of.entry(caller).or_insert_with(|| Share {
            asked: now,
            taken: VecDeque::new(),
        });
        share.asked = now;
    }

    /// A caller has a slot.
    pub(super) fn took(&mut self, caller: &CallerName, now: Instant) {
        self.of
            .retain(|_, share| share.asked + REMEMBERED > now || share.taken(now) > 0);
        if let Some(share) = self.of.get_mut(caller) {
            while share.taken.front().is_some_and(|at| *at + HELD_FOR <= now) {
                share.taken.pop_front();
            }
            share.taken.push_back(now);
        }
    }

    /// It was not used.
    pub(super) fn gave_back(&mut self, caller: &CallerName) {
        if let Some(share) = self.of.get_mut(caller) {
            share.taken.pop_back();
        }
    }

    /// For each of these callers, how many slots are not for it while `open` can be taken.
    pub(super) fn kept_from(
        &self,
        callers: impl IntoIterator<Item = CallerName>,
        open: u32,
        now: Instant,
    ) -> HashMap<CallerName, u32> {
        self.kept(callers, open, now, |share, now| share.taken(now))
    }

    /// The same when all that the others have had is free again: what is kept for them grows with each slot of theirs that
    /// is.
    pub(super) fn kept_at_most(
        &self,
        callers: impl IntoIterator<Item = CallerName>,
        open: u32,
        now: Instant,
    ) -> HashMap<CallerName, u32> {
        self.kept(callers, open, now, |_, _| 0)
    }

    fn kept(
        &self,
        callers: impl IntoIterator<Item = CallerName>,
        open: u32,
        now: Instant,
        taken: impl Fn(&Share, Instant) -> u32,
    ) -> HashMap<CallerName, u32> {
        let callers: HashSet<_> = callers.into_iter().collect();
        let lately = |share: &Share| share.asked + REMEMBERED > now;
        let reckoned = self
            .of
            .iter()
            .filter(|(name, share)| lately(share) || callers.contains(*name));
        let reckoned: Vec<_> = reckoned.collect();
        // Of what is theirs at all: slots that nobody known has had are nobody's to share.
        let had: u32 = reckoned.iter().map(|(_, share)| share.taken(now)).sum();
        let all = open + had;
        let even = (all / u32::try_from(reckoned.len()).unwrap_or(u32::MAX).max(1)).max(1);
        let owed = |share: &Share| even.saturating_sub(taken(share, now));
        let kept = |name: CallerName| {
            let others = reckoned.iter().filter(|(other, _)| **other != name);
            let owed: u32 = others.map(|(_, share)| owed(share)).sum();
            (name, owed.min(all / KEPT))
        };
        callers.into_iter().map(kept).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> CallerName {
        name.into()
    }

    fn kept(shares: &Shares, caller: &str, open: u32, now: Instant) -> u32 {
        shares.kept_from([name(caller)], open, now)[&name(caller)]
    }

    /// How many of so many slots these callers take at once, taking turns.
    fn fill_of(all: u32, shares: &mut Shares, callers: &[&str], now: Instant) -> Vec<u32> {
        let mut taken = vec![0; callers.len()];
        let had: u32 = shares.of.values().map(|share| share.taken(now)).sum();
        let mut open = all - had;
        loop {
            let before = open;
            for (own, caller) in taken.iter_mut().zip(callers) {
                shares.asked(name(caller), now);
                if open > kept(shares, caller, open, now) {
                    shares.took(&name(caller), now);
                    *own += 1;
                    open -= 1;
                }
            }
            if open == before {
                return taken;
            }
        }
    }

    fn fill(shares: &mut Shares, callers: &[&str], now: Instant) -> Vec<u32> {
        fill_of(60, shares, callers, now)
    }

    #[test]
    fn whoever_is_alone_has_them_all() {
        let now = Instant::now();
        assert_eq!(fill(&mut Shares::default(), &["a"], now), [60]);
        assert_eq!(fill(&mut Shares::default(), &["a", "b"], now), [30, 30]);
        assert_eq!(
            fill(&mut Shares::default(), &["a", "b", "c"], now),
            [20, 20, 20]
        );
    }

    /// Catches slots that lie idle while all are refused: in the minute after a start half of them are nobody's, and there may
    /// be more callers than slots.
    #[test]
    fn none_is_left_where_all_ask_for_more() {
        let now = Instant::now();
        let callers: Vec<_> = (0..100).map(|number| number.to_string()).collect();
        let callers: Vec<_> = callers.iter().map(String::as_str).collect();
        for all in [1, 2, 6, 30, 60] {
            for count in [1, 2, 3, 6, 7, 30, 100] {
                let mut shares = Shares::default();
                let taken = fill_of(all, &mut shares, &callers[..count], now);
                assert_eq!(taken.iter().sum::<u32>(), all, "{all} {count}: {taken:?}");
                let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
                assert!(most - least <= 1, "{all} {count}: {taken:?}");
            }
        }
        // Of many who have asked, one asks for more than its share.
        let mut shares = Shares::default();
        for caller in &callers {
            shares.asked(name(caller), now);
        }
        assert_eq!(fill(&mut shares, &["greedy"], now), [48]);
    }

    /// Catches a caller that takes a minute's slots before the others come, minute after minute.
    #[test]
    fn one_in_five_is_kept_for_who_has_had_less() {
        let (mut shares, now) = (Shares::default(), Instant::now());
        shares.asked(name("modest"), now);
        assert_eq!(fill(&mut shares, &["greedy"], now), [48]);
        assert_eq!(kept(&shares, "modest", 12, now), 0);
        // What the other has had is not kept for it as well.
        for _ in 0..7 {
            shares.took(&name("modest"), now);
        }
        assert_eq!(kept(&shares, "greedy", 5, now), 12);
        for _ in 0..7 {
            shares.gave_back(&name("modest"));
        }
        assert_eq!(kept(&shares, "greedy", 12, now), 12);
        // Nobody is reckoned with for ever, and the slots come back.
        let later = now + REMEMBERED;
        assert_eq!(fill(&mut shares, &["greedy"], later), [60]);
        assert_eq!(shares.of.len(), 1);
    }
}
