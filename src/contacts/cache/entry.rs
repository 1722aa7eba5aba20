//! A copy and its freshness: pure rules that take `now`.
//!
//! Freshness is a field of our own on tokio's clock. The stores bound memory and never decide it.

use std::{ops::Deref, time::Duration};

use tokio::time::Instant;

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

/// A copy, with the moment until which it is fresh.
#[derive(Debug)]
pub struct Entry<V> {
    value: V,
    fresh_until: Instant,
    /// The store has room for it: others will be answered with it too.
    pub kept: bool,
}

impl<V: Cached> Entry<V> {
    /// A copy that became whole `now`, and is fresh from now on.
    pub fn new(value: V, now: Instant, fresh_for: Duration) -> Self {
        let fresh_for = fresh_for.max(value.fresh_at_least());
        Self {
            value,
            fresh_until: now + fresh_for,
            kept: true,
        }
    }
}

impl<V> Entry<V> {
    /// What is made of another copy is fresh as long as that one is.
    pub fn derived<W>(value: V, from: &Entry<W>) -> Self {
        Self {
            value,
            fresh_until: from.fresh_until,
            kept: from.kept,
        }
    }

    pub fn is_fresh(&self, now: Instant) -> bool {
        now < self.fresh_until
    }

    /// How long it is still fresh.
    pub fn ttl(&self, now: Instant) -> Duration {
        self.fresh_until.saturating_duration_since(now)
    }
}

impl<V: Cached> Entry<V> {
    /// Since upstream was asked.
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.value.read_at())
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

    #[test]
    fn fresh_until_the_last_moment_but_not_at_it() {
        let asked = Instant::now();
        let whole = asked + Duration::from_secs(10);
        let entry = Entry::new(Dear(asked), whole, Duration::from_secs(60));
        let end = whole + Duration::from_secs(60);
        assert!(entry.is_fresh(end - Duration::from_nanos(1)));
        assert!(!entry.is_fresh(end));
        assert_eq!(entry.age(end), Duration::from_secs(70));
        assert_eq!(entry.ttl(end), Duration::ZERO);
        assert_eq!(entry.ttl(whole), Duration::from_secs(60));
    }

    #[test]
    fn what_was_dear_stays_longer() {
        let now = Instant::now();
        let entry = Entry::new(Dear(now), now, Duration::from_secs(1));
        assert_eq!(entry.ttl(now), Duration::from_secs(40));
    }
}
