//! Stale runway: how long the copies of a collection still last while nothing newer can be had.
//!
//! While upstream fails, callers live on stale copies, and operators want to know for how long. Counted are collections
//! that are *warm*, since others are missed by nobody: a copy was held, the last try to fetch one failed, and a caller
//! was lately answered from a stale copy or not at all. A collection has run out when its best copy has: the one that
//! may be answered for longest, a page's or the list's. That it is out stays known, as 0, while callers still ask.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::ids::Epoch;
use crate::error::{Kind, Side};

/// How long a collection is warm after somebody has asked for it: long enough for whoever reads it a few times an hour.
pub const WARM_FOR: Duration = Duration::from_secs(15 * 60);

/// Whether a failed fetch says that copies are all there is for now, and not only that this list is none to be kept.
pub fn is_failure(kind: Kind) -> bool {
    kind.side() == Side::Upstream
        || matches!(
            kind,
            Kind::BudgetExhausted | Kind::CredentialsUnavailable | Kind::TokenServiceUnavailable
        )
}

/// What one collection's copies and callers come to.
#[derive(Debug)]
pub struct Runway {
    born: Instant,
    /// When a caller last had to make do with less than a fresh answer: in seconds after `born`, and one more. 0: never.
    /// Written once a second at most, since in an outage every answer comes by here.
    wanted: AtomicU64,
    copies: Mutex<Copies>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Copies {
    /// The best one's end, and the generation of copies that it belongs to.
    best: Option<(Epoch, Instant)>,
    /// The last fetch failed.
    failing: bool,
}

impl Runway {
    pub fn new(now: Instant) -> Self {
        Self {
            born: now,
            wanted: AtomicU64::new(0),
            copies: Mutex::default(),
        }
    }

    /// A caller was answered from a stale copy, or with an error.
    pub fn wanted(&self, now: Instant) {
        let second = now.saturating_duration_since(self.born).as_secs() + 1;
        if self.wanted.load(Ordering::Relaxed) < second {
            self.wanted.store(second, Ordering::Relaxed);
        }
    }

    /// A copy is kept that may be answered until then.
    pub fn kept(&self, epoch: Epoch, until: Instant) {
        self.change(|copies| match &mut copies.best {
            Some((of, best)) if *of == epoch => *best = until.max(*best),
            best => *best = Some((epoch, until)),
        });
    }

    /// A fetch succeeded, whether or not what it brought is kept.
    pub fn succeeded(&self) {
        self.change(|copies| copies.failing = false);
    }

    /// A fetch failed.
    pub fn failed(&self) {
        self.change(|copies| copies.failing = true);
    }

    /// Upstream has no such collection any more, or another's under its name: nobody is to live on its copies.
    pub fn ended(&self) {
        self.change(|copies| *copies = Copies::default());
    }

    /// How long the best copy can still be answered; `None` unless the collection is warm and could not be fetched.
    pub fn left(&self, epoch: Epoch, now: Instant) -> Option<Duration> {
        let Copies { best, failing } = *self.copies.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, until) = best.filter(|(of, _)| failing && *of == epoch)?;
        let second = self.wanted.load(Ordering::Relaxed).checked_sub(1)?;
        let wanted = self.born + Duration::from_secs(second);
        let is_warm = now.saturating_duration_since(wanted) < WARM_FOR;
        is_warm.then(|| until.saturating_duration_since(now))
    }

    fn change(&self, change: impl FnOnce(&mut Copies)) {
        change(&mut self.copies.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[cfg(test)]
mod tests;
