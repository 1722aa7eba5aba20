//! A copy and its freshness: pure rules that take `now`.
//!
//! Freshness is a field of our own on tokio's clock. The stores bound memory and never decide it.

use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{Key, encoding::Encoding};
use crate::{
    contacts::{ids::Epoch, scope::Scope, spent::Timing, verdict::Handling},
    error::Result,
};

/// What can be kept.
pub trait Cached: Send + Sync + 'static {
    /// Whether fetching it costs so many calls that requests share a flight even where its result may not be kept.
    const IS_DEAR: bool = false;

    /// What it holds in blocks of its own, each as [`block`] says: content, and whatever was made beside it.
    fn weight(&self) -> usize;

    /// When upstream was asked for it; for its oldest part.
    fn read_at(&self) -> Instant;

    /// How many of its records say that they are another account's or stream's.
    fn foreign(&self) -> usize {
        0
    }

    /// Whether upstream forbids to keep it.
    fn no_store(&self) -> bool {
        false
    }

    /// Whether it is an answer for a caller with such wishes. What is none by default is not kept either.
    ///
    /// # Errors
    /// What such a caller is told instead.
    fn good_for(&self, _: Handling) -> Result<()> {
        Ok(())
    }

    /// The least time it must count as fresh, whatever is configured: what was dear to read is kept in proportion.
    fn fresh_at_least(&self) -> Duration {
        Duration::ZERO
    }
}

/// What a block of so many bytes takes of the heap, as glibc lays it out: a word more, in steps of 16, from 32.
pub const fn block(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=24 => 32,
        _ => (bytes + 8).next_multiple_of(16),
    }
}

/// What [`Bytes`](bytes::Bytes) of so many bytes take: their block, and the one in which they count their clones.
pub const fn shared(bytes: usize) -> usize {
    block(bytes) + block(24)
}

/// How long copies are of use.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// How long a copy is fresh; a little less for each, by chance, so that copies stored together do not all end
    /// together.
    pub fresh_for: Duration,
    /// How long after that it may still be answered, while it is fetched anew (RFC 5861).
    pub stale_for: Duration,
}

/// At most such a part of `fresh_for` is taken off by chance.
const JITTER: f64 = 0.1;

/// How long a copy is kept from callers who would rather have another; for a list at least as long as for whatever is
/// dear.
const YOUNG_FOR: Duration = Duration::from_secs(5);

/// What may be done with a copy now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    Fresh,
    /// It may be answered, and should be fetched anew.
    Stale,
    /// It must not be answered any more.
    Expired,
}

/// How a copy stands at some moment.
#[derive(Clone, Copy, Debug)]
pub struct Standing {
    pub freshness: Freshness,
    /// Since upstream was asked; for a list's oldest page.
    pub age: Duration,
    /// How long it is still fresh; zero if it is not.
    pub fresh_left: Duration,
    /// How long it has not been fresh; zero if it is.
    pub stale_since: Duration,
}

/// A copy, with the moments until which it is fresh and until which it may be answered.
#[derive(Debug)]
pub struct Entry<V> {
    value: V,
    scope: Arc<Scope>,
    epoch: Epoch,
    read_at: Instant,
    whole_at: Instant,
    fresh_until: Instant,
    stale_until: Instant,
    /// When it was purged softly, alone.
    outdated: OnceLock<Instant>,
    /// Others will be answered with it too.
    kept: AtomicBool,
    /// What its flight spent its time on.
    pub timing: Timing,
    /// Its content compressed, where somebody wanted that.
    pub encoding: Encoding,
}

impl<V: Cached> Entry<V> {
    /// A copy that became whole `now`. `chance` is from 0 to 1.
    pub fn new(value: V, key: &impl Key, now: Instant, lifetime: Lifetime, chance: f64) -> Self {
        let jitter = lifetime.fresh_for.mul_f64(JITTER * chance.clamp(0.0, 1.0));
        let fresh_for = (lifetime.fresh_for - jitter).max(value.fresh_at_least());
        let fresh_until = now + fresh_for;
        Self {
            scope: key.collection().scope.clone(),
            epoch: key.epoch(),
            read_at: value.read_at(),
            value,
            whole_at: now,
            fresh_until,
            stale_until: fresh_until + lifetime.stale_for,
            outdated: OnceLock::new(),
            kept: AtomicBool::new(false),
            timing: Timing::default(),
            encoding: Encoding::default(),
        }
    }

    /// Whether it became whole so recently that nobody can have it fetched anew.
    pub fn is_young(&self, now: Instant) -> bool {
        now < self.whole_at + YOUNG_FOR.max(self.value.fresh_at_least())
    }
}

impl<V> Entry<V> {
    /// What is made of another copy is of use as long as that one is.
    pub fn derived<W>(value: V, from: &Entry<W>) -> Self {
        Self {
            value,
            scope: from.scope.clone(),
            epoch: from.epoch,
            read_at: from.read_at,
            whole_at: from.whole_at,
            fresh_until: from.fresh_until(),
            stale_until: from.stale_until,
            outdated: OnceLock::new(),
            kept: AtomicBool::new(false),
            timing: Timing::default(),
            encoding: Encoding::default(),
        }
    }

    /// How it stands now.
    pub fn standing(&self, now: Instant) -> Standing {
        let fresh_until = self.fresh_until();
        Standing {
            freshness: self.freshness_by(fresh_until, now),
            age: self.age(now),
            fresh_left: fresh_until.saturating_duration_since(now),
            stale_since: now.saturating_duration_since(fresh_until),
        }
    }

    /// From when on it must not be answered any more.
    pub fn stale_until(&self) -> Instant {
        self.stale_until
    }

    /// When it became whole.
    pub fn whole_at(&self) -> Instant {
        self.whole_at
    }

    /// Since upstream was asked.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.read_at)
    }

    /// Until when it is fresh, as far as is known: a purge may end that at any moment.
    fn fresh_until(&self) -> Instant {
        let with_others = self.scope.outdated_at().filter(|at| self.read_at <= *at);
        let outdated = [with_others, self.outdated.get().copied()];
        outdated
            .into_iter()
            .flatten()
            .fold(self.fresh_until, Instant::min)
    }

    pub fn freshness(&self, now: Instant) -> Freshness {
        self.freshness_by(self.fresh_until(), now)
    }

    fn freshness_by(&self, fresh_until: Instant, now: Instant) -> Freshness {
        if now >= self.stale_until {
            Freshness::Expired
        } else if now >= fresh_until {
            Freshness::Stale
        } else {
            Freshness::Fresh
        }
    }

    pub fn is_fresh(&self, now: Instant) -> bool {
        self.freshness(now) == Freshness::Fresh
    }

    /// In whole seconds, how long it is still fresh, or as a negative number since when it is not.
    pub fn ttl(&self, now: Instant) -> i64 {
        let fresh_until = self.fresh_until();
        let seconds = |length: Duration| i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        match fresh_until.checked_duration_since(now) {
            Some(left) if !left.is_zero() => seconds(left),
            // At its end it is stale already, which 0 would not say.
            _ => -seconds(now - fresh_until).saturating_add(1),
        }
    }

    /// Makes this copy stale, and no other.
    pub fn outdate(&self, now: Instant) {
        // Whatever was first has ended it already.
        let _ = self.outdated.set(now);
    }

    /// Whether its epoch goes on: no hard purge has ended it.
    pub fn is_current(&self) -> bool {
        self.epoch == self.scope.epoch()
    }

    /// Whether others will be answered with it too.
    pub fn is_kept(&self) -> bool {
        self.kept.load(Ordering::Relaxed)
    }

    pub(in crate::contacts) fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
    }
}

impl<V> Deref for Entry<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contacts::{list::ListKey, testing};

    struct Dear(Instant);

    impl Cached for Dear {
        fn weight(&self) -> usize {
            1
        }

        fn read_at(&self) -> Instant {
            self.0
        }

        fn fresh_at_least(&self) -> Duration {
            Duration::from_secs(40)
        }
    }

    fn key() -> ListKey {
        testing::list_key("st-1")
    }

    const LIFETIME: Lifetime = Lifetime {
        fresh_for: Duration::from_secs(60),
        stale_for: Duration::from_secs(30),
    };

    #[test]
    fn fresh_then_stale_then_gone() {
        let asked = Instant::now();
        let whole = asked + Duration::from_secs(10);
        let entry = Entry::new(Dear(asked), &key(), whole, LIFETIME, 0.0);
        let [last, first] = [-1_i64, 0];
        for (seconds, nanos, freshness, ttl) in [
            (0, first, Freshness::Fresh, 60),
            (60, last, Freshness::Fresh, 0),
            (60, first, Freshness::Stale, -1),
            (61, first, Freshness::Stale, -2),
            (90, last, Freshness::Stale, -30),
            (90, first, Freshness::Expired, -31),
        ] {
            let now =
                whole + Duration::from_secs(seconds) - Duration::from_nanos(nanos.unsigned_abs());
            assert_eq!(entry.freshness(now), freshness, "{seconds} {nanos}");
            assert_eq!(entry.ttl(now), ttl, "{seconds} {nanos}");
        }
        assert_eq!(entry.age(whole), Duration::from_secs(10));
    }

    #[test]
    fn what_was_dear_stays_longer() {
        let now = Instant::now();
        let short = Lifetime {
            fresh_for: Duration::from_secs(1),
            ..LIFETIME
        };
        assert_eq!(Entry::new(Dear(now), &key(), now, short, 1.0).ttl(now), 40);
    }

    #[test]
    fn copies_stored_together_end_one_by_one() {
        let now = Instant::now();
        let ttl = |chance| Entry::new(Dear(now), &key(), now, LIFETIME, chance).ttl(now);
        assert_eq!([0.0, 0.5, 1.0].map(ttl), [60, 57, 54]);
    }

    #[test]
    fn a_soft_purge_makes_stale_what_was_read_before_it() {
        let (key, now) = (key(), Instant::now());
        let later = now + Duration::from_secs(20);
        let scope = &key.collection.scope;
        let read_at = |read_at| Entry::new(Dear(read_at), &key, read_at, LIFETIME, 0.0);
        let (before, after) = (read_at(now), read_at(later));
        scope.outdate(now + Duration::from_secs(10));
        assert_eq!(
            (before.freshness(later), before.ttl(later)),
            (Freshness::Stale, -11)
        );
        assert_eq!(
            (after.freshness(later), after.ttl(later)),
            (Freshness::Fresh, 60)
        );
        // It is of use for no longer than it would have been.
        let end = now + Duration::from_secs(90);
        assert_eq!(before.freshness(end), Freshness::Expired);
        // What was stale already has been so for longer.
        let end = now + Duration::from_secs(80);
        let stale = read_at(now);
        scope.outdate(now + Duration::from_secs(70));
        assert_eq!(stale.ttl(end), -21);
        after.outdate(later);
        assert_eq!(after.ttl(later), -1);
        assert!(before.is_current());
        scope.end_epoch();
        assert!(!before.is_current());
    }
}
