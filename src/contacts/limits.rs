//! How large a page upstream gives of a collection: not documented, so learned from what it echoes.
//!
//! A larger `limit` than upstream gives is usually cut down, and its echo says so: that costs nothing, so a walk asks for
//! the most each time. Where it is refused instead, what was answered in its place is remembered for an hour. Then the
//! most is tried again, since a refusal may have been about something else.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::page::{LIMIT_DEFAULT, Page, Window};

/// How long a refusal is believed.
const REFUSED_FOR: Duration = Duration::from_secs(3600);

/// What is tried in place of a `limit` that was refused, largest first: sizes that servers are known to stop at.
const SMALLER: [u32; 2] = [50, LIMIT_DEFAULT];

/// The next smaller `limit` to try after a refusal; `None` if there is none.
pub fn smaller(limit: u32) -> Option<u32> {
    SMALLER.into_iter().find(|smaller| *smaller < limit)
}

/// What is known about the largest `limit`, in records.
#[derive(Debug, Default)]
pub struct Limits {
    /// The `limit` that larger ones were cut down to; 0 while none was.
    clamp: AtomicU32,
    /// The largest `limit` that was echoed.
    applied: AtomicU32,
    /// What was answered in place of a `limit` that was refused, and until when that is believed.
    refused: Mutex<Option<(u32, Instant)>>,
}

impl Limits {
    /// Learns from a page that upstream sent for `asked`.
    pub fn learn(&self, asked: Window, page: &Page) {
        let applied = self.applied.fetch_max(page.limit, Ordering::Relaxed);
        if page.limit == asked.limit {
            // Upstream may have become more generous.
            let outdated = |clamp| (clamp < asked.limit).then_some(0);
            let _ = self
                .clamp
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, outdated);
            return;
        }
        // A full page with more behind it was cut down, and so was one that echoes the largest limit there ever was.
        // Others may have been short for reasons of their own.
        let full = page.records.len() == page.limit as usize;
        let last = asked.skip.saturating_add(u64::from(page.limit));
        let more = page.total.is_some_and(|total| last < total);
        if full && more || page.limit == applied {
            self.clamp.store(page.limit, Ordering::Relaxed);
        }
    }

    /// Learns that upstream refused one `limit` and answered a smaller one.
    pub fn refuses(&self, refused: u32, answered: u32, now: Instant) {
        // What it has applied before, it refused for another reason, or has just changed its mind. Until that is known,
        // each walk tries.
        if !self.has_applied(refused) {
            *self.refused() = Some((answered, now + REFUSED_FOR));
        }
    }

    /// The `limit` to ask for when as many records as possible are wanted, but not more than `most`.
    pub fn largest(&self, most: u32, now: Instant) -> u32 {
        match *self.refused() {
            Some((answered, until)) if now < until => answered.min(most),
            _ => most,
        }
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Option<(u32, Instant)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether upstream has already applied as large a `limit`.
    fn has_applied(&self, limit: u32) -> bool {
        limit <= self.applied.load(Ordering::Relaxed)
    }

    /// What upstream would echo for a `limit`; `None` if that is not known.
    pub fn echo_of(&self, limit: u32) -> Option<u32> {
        match self.clamp.load(Ordering::Relaxed) {
            0 => self.has_applied(limit).then_some(limit),
            clamp => Some(clamp.min(limit)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contacts::testing;

    const ASKED: Window = Window {
        skip: 0,
        limit: 250,
    };

    fn page(limit: u32, total: u64) -> Page {
        testing::decode(&testing::body(0, limit, total), 0, 250)
    }

    #[test]
    fn a_clamp_holds_until_upstream_gives_more() {
        let limits = Limits::default();
        assert_eq!(limits.echo_of(100), None);
        limits.learn(ASKED, &page(20, 1000));
        assert_eq!(
            (limits.echo_of(100), limits.echo_of(7)),
            (Some(20), Some(7))
        );
        // To be cut down costs nothing.
        assert_eq!(limits.largest(100, Instant::now()), 100);
        limits.learn(ASKED, &page(250, 1000));
        assert_eq!(
            (limits.echo_of(250), limits.echo_of(251)),
            (Some(250), None)
        );
    }

    #[test]
    fn an_odd_page_teaches_nothing() {
        let limits = Limits::default();
        // The last page, whose echo is the number of its records.
        limits.learn(ASKED, &page(20, 20));
        // A page without its records.
        let mut empty = page(1, 1000);
        empty.records = Box::default();
        limits.learn(ASKED, &empty);
        assert_eq!(limits.echo_of(100), None);
    }

    #[test]
    fn the_largest_limit_there_ever_was_is_a_clamp_on_the_last_page_too() {
        let limits = Limits::default();
        let hundred = Window {
            skip: 0,
            limit: 100,
        };
        limits.learn(
            hundred,
            &testing::decode(&testing::body(0, 100, 30), 0, 100),
        );
        assert_eq!(limits.echo_of(250), None);
        limits.learn(ASKED, &page(100, 30));
        assert_eq!(limits.echo_of(250), Some(100));
    }

    #[test]
    fn a_refusal_is_believed_for_an_hour() {
        let (limits, now) = (Limits::default(), Instant::now());
        limits.refuses(100, 10, now);
        let last = now + REFUSED_FOR - Duration::from_nanos(1);
        assert_eq!(
            (limits.largest(100, last), limits.largest(5, last)),
            (10, 5)
        );
        // It says nothing of how upstream cuts down what it does not refuse.
        assert_eq!(limits.echo_of(50), None);
        assert_eq!(limits.largest(100, now + REFUSED_FOR), 100);
    }

    #[test]
    fn what_was_once_applied_was_refused_for_another_reason() {
        let (limits, now) = (Limits::default(), Instant::now());
        limits.learn(ASKED, &page(250, 1000));
        limits.refuses(250, 10, now);
        assert_eq!(limits.largest(250, now), 250);
        limits.refuses(300, 10, now);
        assert_eq!(limits.largest(300, now), 10);
    }

    #[test]
    fn the_size_is_found_in_three_tries() {
        let tries = |most| std::iter::successors(Some(most), |limit| smaller(*limit));
        assert!(tries(100).eq([100, 50, 10]));
        assert!(tries(40).eq([40, 10]));
        assert!(tries(10).eq([10]));
    }
}
