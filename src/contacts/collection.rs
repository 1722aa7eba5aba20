//! The contacts of one (account, stream): what is paged, cached and merged.

use std::{
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    sync::{Arc, LazyLock},
};

use arc_swap::{ArcSwapOption, Guard};

use super::{
    account::Account,
    cache::entry::Entry,
    ids::{Epoch, StreamId},
    limits::Limits,
    list::List,
};

/// A collection, and what has been learned about it. Two are equal if account, credential and stream are.
pub struct Collection {
    pub account: Arc<Account>,
    pub stream: StreamId,
    /// Of the identity, made once: keys are hashed for every request.
    hash: u64,
    /// How large a page upstream gives.
    pub limits: Limits,
    /// The merged list that is held right now.
    list: ArcSwapOption<Entry<List>>,
}

impl Collection {
    pub fn new(account: Arc<Account>, stream: StreamId) -> Self {
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        let hash = KEYS.hash_one((&account.id, &account.client, &stream));
        Self {
            account,
            stream,
            hash,
            limits: Limits::default(),
            list: ArcSwapOption::empty(),
        }
    }

    /// The epoch that new keys carry.
    pub fn epoch(&self) -> Epoch {
        self.account.epoch
    }

    /// The list that windows may be cut from, if one is held; fresh or not, verified or not.
    pub fn list(&self) -> Guard<Option<Arc<Entry<List>>>> {
        self.list.load()
    }

    /// Makes a list the one that windows are cut from.
    pub fn publish(&self, list: Arc<Entry<List>>) {
        self.list.store(Some(list));
    }

    /// Takes a list back, unless another has taken its place.
    pub fn withdraw(&self, list: &Arc<Entry<List>>) {
        self.list.compare_and_swap(list, None);
    }

    /// A number that tells collections apart within an account, nearly always.
    pub fn number(&self) -> u64 {
        self.hash
    }

    fn identity(&self) -> (&str, &str, &str) {
        (
            self.account.id.as_str(),
            self.account.client.as_str(),
            self.stream.as_str(),
        )
    }
}

impl PartialEq for Collection {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
            || (self.hash == other.hash && self.identity() == other.identity())
    }
}

impl Eq for Collection {}

impl Hash for Collection {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stream = self.account.stream_name(&self.stream);
        write!(f, "Collection({}/{stream})", self.account.name)
    }
}
