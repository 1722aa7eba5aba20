//! From the accounts before a reload to those after it: who stays, who goes, and what becomes of their copies.
//!
//! An account stays if its name, its id and its client id are what they were. It then keeps its epoch, so its copies, and
//! its label. Any other is new, whatever it is called: nothing that was read for the one before it can be found under it.

use std::sync::{Arc, PoisonError, Weak};

use super::{Account, Accounts, Config, LABELS_MAX, StreamId, Streams};

/// What metrics call the accounts beyond those that they tell apart.
const OTHER: &str = "other";

/// How many more accounts get a label of their own.
pub(super) struct Labels {
    left: usize,
}

impl Labels {
    /// The label of an account that is new.
    pub(super) fn of<'a>(&mut self, name: &'a str) -> &'a str {
        match self.left {
            0 => OTHER,
            _ => {
                self.left -= 1;
                name
            }
        }
    }
}

impl Account {
    /// The same account with these streams: the same copies, and what is learned is learned for both.
    pub(super) fn with_streams(self: &Arc<Self>, streams: &[(StreamId, &str)]) -> Arc<Self> {
        let streams = Streams::of(streams);
        if streams == self.streams {
            return self.clone();
        }
        Arc::new(Self {
            name: self.name.clone(),
            label: self.label.clone(),
            id: self.id.clone(),
            client: self.client.clone(),
            epoch: self.epoch,
            scope: self.scope.clone(),
            scopes: self.scopes.clone(),
            upstream: self.upstream.clone(),
            under_way: self.under_way.clone(),
            streams,
            named: self.named.clone(),
        })
    }

    /// Has its streams called as they are here, by all that hold this account or one that it goes on from.
    fn rename(&self) {
        if self.named.load().as_deref() != Some(&self.streams) {
            self.named.store(Some(Arc::new(self.streams.clone())));
        }
    }

    /// It is not configured any more: its copies are unreachable, and whoever holds it can tell.
    pub(crate) fn leave(&self) {
        self.scope.end_epoch();
        self.named.store(None);
    }

    /// Ends the epochs of streams that may not be asked for.
    fn close_others(&self) {
        let scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = scopes.iter().filter(|(id, _)| !self.admits(id.as_str()));
        for scope in closed.filter_map(|(_, scope)| Weak::upgrade(scope)) {
            scope.end_epoch();
        }
    }
}

impl Accounts {
    /// The account that goes on as `config`.
    pub(super) fn kept(&self, config: &Config) -> Option<&Arc<Account>> {
        let account = self.by_id.get(config.account_id.as_str())?;
        let same = *account.name == *config.name && account.client.as_str() == config.client_id;
        same.then_some(account)
    }

    /// The labels that are left beside those of accounts that go on.
    pub(super) fn labels_kept(&self, configs: &[Config]) -> Labels {
        let kept = configs.iter().filter_map(|config| self.kept(config));
        let taken = kept.filter(|account| *account.label != *OTHER).count();
        Labels {
            left: LABELS_MAX.saturating_sub(taken),
        }
    }

    /// Whether this very account is among them, whatever its streams.
    pub fn has(&self, account: &Account) -> bool {
        let found = self.by_id.get(&account.id);
        found.is_some_and(|found| found.epoch == account.epoch)
    }

    /// Whether metrics still need this label.
    pub fn need_label(&self, label: &str) -> bool {
        label == OTHER || self.all.iter().any(|account| *account.label == *label)
    }

    /// Makes the copies of whatever is not among `next` unreachable: of accounts that go, and of streams that may not be
    /// asked for any more. What is fetched for them is not kept. Streams have the names of `next` from now on.
    pub fn give_way_to(&self, next: &Self) {
        for account in self.iter().filter(|account| !next.has(account)) {
            account.leave();
        }
        for account in next.iter() {
            account.close_others();
            account.rename();
        }
    }
}

#[cfg(test)]
mod tests;
