//! Lists in an LRU of their own.

use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use tokio::time::Instant;

use super::{Cause, Store, Weighed, is_unreachable, weight, with_pieces};
use crate::contacts::{
    cache::{
        Metrics,
        entry::{Entry, Freshness},
    },
    collection::Collection,
    list::{List, ListKey},
};

/// Lists, at most so many bytes of them; the least recently asked for goes first.
///
/// It also tells each collection which list is held, since windows are cut from it.
#[derive(Debug)]
pub struct Lists {
    bytes_max: u64,
    held: Mutex<Held>,
    metrics: Metrics,
}

#[derive(Debug)]
struct Held {
    lists: LruCache<ListKey, Weighed<List>>,
    bytes: usize,
}

impl Lists {
    pub fn new(bytes_max: u64, metrics: Metrics) -> Self {
        metrics.bounded(bytes_max);
        Self {
            bytes_max,
            held: Mutex::new(Held {
                lists: LruCache::unbounded(),
                bytes: 0,
            }),
            metrics,
        }
    }
}

impl Lists {
    /// The collection that a held list belongs to, if it is this one. With the list goes what was learned about it.
    pub fn collection(&self, like: &Collection) -> Option<Arc<Collection>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut collections = held.lists.iter().map(|(key, _)| &key.collection);
        collections.find(|held| held.is(like)).cloned()
    }

    fn give_up(&self, key: &ListKey, cause: Cause) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Its own key goes with it, and names the collection on which it was published.
        let Some((key, old)) = held.lists.pop_entry(key) else {
            return;
        };
        held.bytes -= old.bytes;
        drop(held);
        self.metrics.removed(old.bytes);
        self.metrics.evicted(cause);
        key.collection.withdraw(&old.entry);
    }
}

impl Store for Lists {
    type Key = ListKey;
    type Value = List;

    fn get(&self, key: &ListKey) -> Option<Arc<Entry<List>>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.lists.get(key).map(|held| held.entry.clone())
    }

    fn peek(&self, key: &ListKey) -> Option<Arc<Entry<List>>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.lists.peek(key).map(|held| held.entry.clone())
    }

    fn keeps(&self, key: &ListKey, entry: &Entry<List>) -> bool {
        weight(key, entry) as u64 <= self.bytes_max
    }

    fn put(&self, key: ListKey, entry: Arc<Entry<List>>) {
        let weighed = Weighed::new(&key, entry.clone());
        let bytes = weighed.bytes;
        let mut removed = Vec::new();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Its own key goes with it: that names the collection on which the older list was published.
        if let Some((key, old)) = held.lists.pop_entry(&key) {
            held.bytes -= old.bytes;
            removed.push((key, old, Cause::Replaced));
        }
        held.lists.put(key.clone(), weighed);
        held.bytes += bytes;
        while held.bytes as u64 > self.bytes_max
            && let Some((key, old)) = held.lists.pop_lru()
        {
            held.bytes -= old.bytes;
            removed.push((key, old, Cause::Size));
        }
        // Under the lock, so that nothing is published after it was given up.
        key.collection.publish(entry);
        for (key, old, _) in &removed {
            key.collection.withdraw(&old.entry);
        }
        drop(held);
        self.metrics.added(bytes);
        for (_, old, cause) in removed {
            self.metrics.removed(old.bytes);
            self.metrics.evicted(cause);
        }
    }

    /// No list is given up for the encoding of another: it would cost a hundred calls to have it again.
    fn grow(&self, key: &ListKey, entry: &Arc<Entry<List>>, blocks: usize) -> bool {
        let bytes = with_pieces(blocks);
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let grown = held.bytes + bytes;
        let Some(list) = held.lists.peek_mut(key) else {
            return true;
        };
        if !Arc::ptr_eq(&list.entry, entry) {
            return true;
        }
        if grown as u64 > self.bytes_max {
            return false;
        }
        list.bytes += bytes;
        held.bytes = grown;
        drop(held);
        self.metrics.grew(bytes);
        true
    }

    fn remove(&self, key: &ListKey) {
        self.give_up(key, Cause::Removed);
    }

    fn sweep(&self, now: Instant) {
        let useless: Vec<_> = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let lists = held.lists.iter();
            let cause = |key: &ListKey, list: &Weighed<List>| match list.entry.freshness(now) {
                _ if is_unreachable(key) => Some(Cause::Removed),
                Freshness::Expired => Some(Cause::Expired),
                _ => None,
            };
            lists
                .filter_map(|(key, list)| Some((key.clone(), cause(key, list)?)))
                .collect()
        };
        for (key, cause) in useless {
            self.give_up(&key, cause);
        }
    }

    fn each(&self, mut see: impl FnMut(&ListKey, &Entry<List>)) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, held) in &held.lists {
            see(key, &held.entry);
        }
    }
}

#[cfg(test)]
mod tests;
