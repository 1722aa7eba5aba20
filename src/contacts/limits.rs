//! How large a page upstream gives of a collection: not documented, so learned from what it echoes.

use std::sync::atomic::{AtomicU32, Ordering};

use super::page::{Page, Window};

/// What is known about the largest `limit`, in records.
#[derive(Debug, Default)]
pub struct Limits {
    /// The `limit` that larger ones were cut down to; 0 while none was.
    clamp: AtomicU32,
    /// The largest `limit` that was echoed.
    applied: AtomicU32,
}

impl Limits {
    /// Learns from a page that upstream sent for `asked`.
    pub fn learn(&self, asked: Window, page: &Page) {
        self.applied.fetch_max(page.limit, Ordering::Relaxed);
        if page.limit == asked.limit {
            // Upstream may have become more generous.
            let outdated = |clamp| (clamp < asked.limit).then_some(0);
            let _ = self
                .clamp
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, outdated);
            return;
        }
        // Only a full page with more behind it was cut down. Others may have been short for reasons of their own.
        let full = page.records.len() == page.limit as usize;
        let last = asked.skip.saturating_add(u64::from(page.limit));
        if full && page.total.is_some_and(|total| last < total) {
            self.clamp.store(page.limit, Ordering::Relaxed);
        }
    }

    /// Learns that upstream refused a larger `limit` and answered this one.
    pub fn refuses_above(&self, limit: u32) {
        self.clamp.store(limit, Ordering::Relaxed);
    }

    /// The `limit` to ask for when as many records as possible are wanted, but not more than `most`.
    pub fn largest(&self, most: u32) -> u32 {
        match self.clamp.load(Ordering::Relaxed) {
            0 => most,
            clamp => clamp.min(most),
        }
    }

    /// Whether upstream has already applied as large a `limit`, so that refusing it now means something else.
    pub fn has_applied(&self, limit: u32) -> bool {
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
        assert_eq!((limits.largest(100), limits.echo_of(100)), (100, None));
        limits.learn(ASKED, &page(20, 1000));
        assert_eq!(
            (limits.largest(100), limits.echo_of(100), limits.echo_of(7)),
            (20, Some(20), Some(7))
        );
        limits.learn(ASKED, &page(250, 1000));
        assert_eq!(
            (
                limits.largest(300),
                limits.echo_of(250),
                limits.echo_of(251)
            ),
            (300, Some(250), None)
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
        assert_eq!(limits.largest(100), 100);
    }

    #[test]
    fn a_refusal_is_believed_unless_it_was_once_otherwise() {
        let limits = Limits::default();
        assert!(!limits.has_applied(100));
        limits.refuses_above(10);
        assert_eq!((limits.largest(100), limits.echo_of(50)), (10, Some(10)));
        limits.learn(
            Window {
                skip: 0,
                limit: 100,
            },
            &testing::decode(&testing::body(0, 100, 1000), 0, 100),
        );
        assert!(limits.has_applied(100));
        assert_eq!(limits.largest(100), 100);
    }
}
