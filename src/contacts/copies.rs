//! All copies, for whoever operates the gateway: why a request would be answered as it would be, and purges.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    account::{Account, Accounts, Current},
    cache::{
        Held,
        explanation::{Explanation, HeldCopy, Outcome},
        store::{Lists, Pages},
    },
    collection::Collection,
    list::ListKey,
    page::PageKey,
    request::Request,
    slice,
};

/// What a purge is about.
#[derive(Clone, Debug)]
pub enum Subject {
    All,
    Account(Arc<Account>),
    Collection(Arc<Collection>),
    /// One page's own copy, and the collection's list, from which the page might be cut.
    Page(PageKey),
}

/// How much of a copy a purge leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Nothing: no caller sees it again, and what was asked for before the purge is not kept.
    Hard,
    /// It is stale: fetched anew when asked for next, and the answer while that fails.
    Soft,
}

/// How many copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub pages: usize,
    pub lists: usize,
}

/// The copies of pages and of lists.
pub struct Copies {
    accounts: Current,
    pages: Arc<Held<Pages>>,
    lists: Arc<Held<Lists>>,
}

impl Copies {
    pub fn new(accounts: Current, pages: Arc<Held<Pages>>, lists: Arc<Held<Lists>>) -> Self {
        Self {
            accounts,
            pages,
            lists,
        }
    }

    /// The accounts as they are now.
    pub fn accounts(&self) -> Arc<Accounts> {
        self.accounts.load_full()
    }

    /// Takes effect before it returns, for calls that are under way as well. Costs the same however many copies there are.
    pub fn purge(&self, subject: &Subject, purge: Purge, now: Instant) {
        let accounts = self.accounts();
        let scopes = match subject {
            Subject::All => accounts.iter().map(|account| &account.scope).collect(),
            Subject::Account(account) => vec![&account.scope],
            Subject::Collection(collection) => vec![&collection.scope],
            Subject::Page(key) => {
                let list = ListKey {
                    collection: key.collection.clone(),
                    epoch: key.epoch,
                };
                match purge {
                    Purge::Hard => {
                        self.pages.purge(key);
                        self.lists.purge(&list);
                    }
                    Purge::Soft => {
                        self.pages.outdate(key, now);
                        self.lists.outdate(&list, now);
                    }
                }
                return;
            }
        };
        for scope in scopes {
            match purge {
                Purge::Hard => scope.end_epoch(),
                Purge::Soft => scope.outdate(now),
            }
        }
    }

    /// How many copies a purge would concern. Looks at all there are.
    pub fn count(&self, subject: &Subject) -> Count {
        let about = |collection: &Collection| match subject {
            Subject::All => true,
            Subject::Account(account) => collection.account.epoch == account.epoch,
            Subject::Collection(purged) => *collection == **purged,
            Subject::Page(key) => *collection == *key.collection,
        };
        match subject {
            Subject::Page(key) => Count {
                pages: usize::from(self.pages.holds(key)),
                lists: self.lists.count(about),
            },
            _ => Count {
                pages: self.pages.count(about),
                lists: self.lists.count(about),
            },
        }
    }

    /// Why a page would be answered as it would be now.
    pub fn explain_page(&self, request: &Request<PageKey>, now: Instant) -> Explanation {
        let explanation = self.pages.explain(request, now);
        match slice::source(request, now) {
            Some((list, _)) if list.is_fresh(now) => Explanation {
                outcome: Outcome::Slice,
                copy: Some(HeldCopy::of(&list, now)),
                ..explanation
            },
            _ => explanation,
        }
    }

    /// Why a list would be answered as it would be now.
    pub fn explain_list(&self, request: &Request<ListKey>, now: Instant) -> Explanation {
        self.lists.explain(request, now)
    }
}

#[cfg(test)]
mod tests;
