//! What is under way for an account: flights, and streams that nobody shares. Each needs its credential to the end, also
//! once the account has left. Copies do not, and are no measure: memory gives them up in its own time.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::Account;

/// How many there are.
pub(super) type Count = Arc<AtomicUsize>;

/// One of them, for as long as it lives.
#[derive(Debug)]
pub struct UnderWay(Count);

impl Account {
    /// One more.
    pub fn set_out(&self) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.under_way.clone())
    }

    /// Whether there is any, of this account or of one that it goes on from.
    pub fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
