//! By how much upstream's total is known to be off: one number for each collection.
//!
//! Kore.ai's own example says six contacts and holds two. Where two walks have found that the pages agree with each other
//! and not with the total, a later walk that finds the same difference need not be repeated.

use std::sync::atomic::{AtomicI64, Ordering};

/// What upstream says less what it sent, in records, as two walks have found it; 0 while there is nothing to remember.
#[derive(Debug, Default)]
pub struct Gap(AtomicI64);

impl Gap {
    /// The difference that is known; 0 if there is none.
    pub fn known(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Remembers what the last walk has found.
    pub fn remember(&self, gap: i64) {
        self.0.store(gap, Ordering::Relaxed);
    }
}
