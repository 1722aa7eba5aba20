//! A copy and its freshness: pure rules that take `now`.
//!
//! Freshness is a field of our own on tokio's clock. The stores bound memory and never decide it.

use std::{ops::Deref, time::Duration};

use tokio::time::Instant;

use super::encoding::Encoding;
use crate::contacts::spent::Timing;

/// What can be kept.
pub trait Cached: Send + Sync + 'static {
    /// What it really holds, in bytes: content, and whatever was made beside it.
    fn weight(&self) -> usize;

    /// When upstream was asked for it; for its oldest part.
    fn read_at(&self) -> Instant;

    /// The least time it must count as fresh, whatever is configured: what was dear to read is kept in proportion.
    fn fresh_at_least(&self) -> Duration {
        Duration::ZERO
    }
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
    whole_at: Instant,
    fresh_until: Instant,
    stale_until: Instant,
    /// The store has room for it: others will be answered with it too.
    pub kept: bool,
    /// What its flight spent its time on.
    pub timing: Timing,
    /// Its content compressed, where somebody wanted that.
    pub encoding: Encoding,
}

impl<V: Cached> Entry<V> {
    /// A copy that became whole `now`. `chance` is from 0 to 1.
    pub fn new(value: V, now: Instant, lifetime: Lifetime, chance: f64) -> Self {
        let jitter = lifetime.fresh_for.mul_f64(JITTER * chance.clamp(0.0, 1.0));
        let fresh_for = (lifetime.fresh_for - jitter).max(value.fresh_at_least());
        let fresh_until = now + fresh_for;
        Self {
            value,
            whole_at: now,
            fresh_until,
            stale_until: fresh_until + lifetime.stale_for,
            kept: true,
            timing: Timing::default(),
            encoding: Encoding::default(),
        }
    }

    /// How it stands now.
    pub fn standing(&self, now: Instant) -> Standing {
        Standing {
            freshness: self.freshness(now),
            age: self.age(now),
            fresh_left: self.fresh_until.saturating_duration_since(now),
            stale_since: now.saturating_duration_since(self.fresh_until),
        }
    }

    /// Whether it became whole so recently that nobody can have it fetched anew.
    pub fn is_young(&self, now: Instant) -> bool {
        now < self.whole_at + YOUNG_FOR.max(self.value.fresh_at_least())
    }

    /// Since upstream was asked.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.value.read_at())
    }
}

impl<V> Entry<V> {
    /// What is made of another copy is of use as long as that one is.
    pub fn derived<W>(value: V, from: &Entry<W>) -> Self {
        Self {
            value,
            whole_at: from.whole_at,
            fresh_until: from.fresh_until,
            stale_until: from.stale_until,
            kept: from.kept,
            timing: Timing::default(),
            encoding: Encoding::default(),
        }
    }

    pub fn freshness(&self, now: Instant) -> Freshness {
        if now < self.fresh_until {
            Freshness::Fresh
        } else if now < self.stale_until {
            Freshness::Stale
        } else {
            Freshness::Expired
        }
    }

    pub fn is_fresh(&self, now: Instant) -> bool {
        self.freshness(now) == Freshness::Fresh
    }

    /// In whole seconds, how long it is still fresh, or as a negative number since when it is not.
    pub fn ttl(&self, now: Instant) -> i64 {
        let seconds = |length: Duration| i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        match self.fresh_until.checked_duration_since(now) {
            Some(left) if !left.is_zero() => seconds(left),
            // At its end it is stale already, which 0 would not say.
            _ => -seconds(now - self.fresh_until).saturating_add(1),
        }
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

    const LIFETIME: Lifetime = Lifetime {
        fresh_for: Duration::from_secs(60),
        stale_for: Duration::from_secs(30),
    };

    #[test]
    fn fresh_then_stale_then_gone() {
        let asked = Instant::now();
        let whole = asked + Duration::from_secs(10);
        let entry = Entry::new(Dear(asked), whole, LIFETIME, 0.0);
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
        assert_eq!(Entry::new(Dear(now), now, short, 1.0).ttl(now), 40);
    }

    #[test]
    fn copies_stored_together_end_one_by_one() {
        let now = Instant::now();
        let ttl = |chance| Entry::new(Dear(now), now, LIFETIME, chance).ttl(now);
        assert_eq!([0.0, 0.5, 1.0].map(ttl), [60, 57, 54]);
    }
}
