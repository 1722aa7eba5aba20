//! What a flight spends its time on, which `Server-Timing` tells to everybody who waited for it.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What can take time, in the order in which it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A token for the call: signed, or fetched.
    Token,
    /// The call's turn: in the account's budget, and among the calls at once.
    Queue,
    /// Upstream's answer, from the call to the page decoded.
    Upstream,
    /// A whole list, from its first call to its verdict.
    Merge,
}

impl Phase {
    pub const ALL: [Self; 4] = [Self::Token, Self::Queue, Self::Upstream, Self::Merge];

    /// Its name in `Server-Timing`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Queue => "queue",
            Self::Upstream => "upstream",
            Self::Merge => "merge",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Token => 0,
            Self::Queue => 1,
            Self::Upstream => 2,
            Self::Merge => 3,
        }
    }
}

/// What a flight has spent so far, all its calls together: those of a walk run side by side, so that their sum may be
/// more than the walk took.
#[derive(Debug, Default)]
pub struct Spent([AtomicU64; Phase::ALL.len()]);

impl Spent {
    /// Adds to a phase; in nanoseconds, of which 64 bits hold five hundred years.
    pub fn add(&self, phase: Phase, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0[phase.index()].fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was spent on a phase.
    pub fn on(&self, phase: Phase) -> Duration {
        Duration::from_nanos(self.0[phase.index()].load(Ordering::Relaxed))
    }

    /// What it is now, to be kept with what was fetched.
    pub fn timing(&self) -> Timing {
        let tenths = |phase| u32::try_from(self.on(phase).as_micros() / 100).unwrap_or(u32::MAX);
        Timing(Phase::ALL.map(tenths))
    }
}

/// What a flight spent, in tenths of a millisecond: the most that is told, and small enough to lie beside every copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing([u32; Phase::ALL.len()]);

impl Timing {
    /// The phases with what they took, in tenths of a millisecond. Without a merge it is not told that there was none.
    pub fn phases(self) -> impl Iterator<Item = (Phase, u32)> {
        let told = |&(phase, tenths): &(Phase, u32)| phase != Phase::Merge || tenths > 0;
        Phase::ALL.into_iter().zip(self.0).filter(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_told_in_tenths_of_a_millisecond() {
        let spent = Spent::default();
        spent.add(Phase::Queue, Duration::from_micros(12_340));
        spent.add(Phase::Upstream, Duration::from_micros(99));
        spent.add(Phase::Upstream, Duration::from_micros(1));
        let page: Vec<_> = spent.timing().phases().collect();
        assert_eq!(
            page,
            [(Phase::Token, 0), (Phase::Queue, 123), (Phase::Upstream, 1)]
        );
        spent.add(Phase::Merge, Duration::from_secs(3600));
        let list: Vec<_> = spent.timing().phases().collect();
        assert_eq!(list[3], (Phase::Merge, 36_000_000));
    }
}
