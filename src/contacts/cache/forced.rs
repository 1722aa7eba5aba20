//! Fetches that a caller insists on although its copy is fresh: so many a minute for an account, pages and lists
//! together. One caller with `no-cache` in a loop must not spend everybody's calls.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

use crate::{contacts::ids::AccountId, minute::PerMinute};

/// What is left of them for each account.
#[derive(Debug)]
pub struct Forced {
    per_minute: usize,
    accounts: Mutex<HashMap<AccountId, PerMinute>>,
}

impl Forced {
    pub fn new(per_minute: usize) -> Self {
        Self {
            per_minute,
            accounts: Mutex::default(),
        }
    }

    /// Whether one more may be, which is then counted.
    pub(super) fn take(&self, account: &AccountId, now: Instant) -> bool {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if !accounts.contains_key(account) {
            // Accounts come and go.
            accounts.retain(|_, minute| !minute.is_idle(now));
        }
        let minute = accounts
            .entry(account.clone())
            .or_insert_with(|| PerMinute::new(self.per_minute));
        minute.take(now)
    }
}
