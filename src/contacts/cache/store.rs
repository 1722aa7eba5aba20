//! Where copies lie. Pages in moka, which keeps what is asked for often; lists in an LRU of their own, because moka
//! would give up one list that cost a hundred calls for a thousand pages that cost one each.

use std::sync::Arc;

use moka::notification::RemovalCause;
use tokio::time::Instant;

pub use self::{lists::Lists, pages::Pages};
use super::{
    Key,
    entry::{Cached, Entry, block},
};

mod lists;
mod pages;

/// Bounded memory for copies. Whether one is fresh is not its business.
pub trait Store: Send + Sync + 'static {
    type Key: Key;
    type Value: Cached;

    fn get(&self, key: &Self::Key) -> Option<Arc<Entry<Self::Value>>>;

    /// The same for whoever only looks, and should not keep a copy from being given up.
    fn peek(&self, key: &Self::Key) -> Option<Arc<Entry<Self::Value>>> {
        self.get(key)
    }

    /// What is fresh and as good as a copy for this key, although it is not kept under it.
    fn in_place_of(&self, _: &Self::Key, _: Instant) -> Option<Arc<Entry<Self::Value>>> {
        None
    }

    /// Whether a copy is small enough to be kept at all.
    fn keeps(&self, key: &Self::Key, entry: &Entry<Self::Value>) -> bool;

    /// Keeps a copy in place of any older one, as far as the bound allows.
    fn put(&self, key: Self::Key, entry: Arc<Entry<Self::Value>>);

    /// Makes room for blocks of so many bytes that are to lie beside a copy; whether there is.
    fn grow(&self, key: &Self::Key, entry: &Arc<Entry<Self::Value>>, blocks: usize) -> bool;

    /// Gives up a copy.
    fn remove(&self, key: &Self::Key);

    /// Shows each copy once, in no order.
    fn each(&self, see: impl FnMut(&Self::Key, &Entry<Self::Value>));

    /// Gives up the copies that are of no use any more, and for which nobody has asked since: those that have expired, and
    /// those that a purge or a reload has made unreachable.
    fn sweep(&self, now: Instant);
}

/// Why a copy was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// For want of memory.
    Size,
    /// It was of no use any more.
    Expired,
    /// A newer one has taken its place.
    Replaced,
    /// It must not be answered any more.
    Removed,
}

impl Cause {
    pub const ALL: [Self; 4] = [Self::Size, Self::Expired, Self::Replaced, Self::Removed];

    /// The word for it in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Size => "size",
            Self::Expired => "expired",
            Self::Replaced => "replaced",
            Self::Removed => "removed",
        }
    }

    fn of(cause: RemovalCause) -> Self {
        match cause {
            RemovalCause::Size => Self::Size,
            RemovalCause::Expired => Self::Expired,
            RemovalCause::Replaced => Self::Replaced,
            RemovalCause::Explicit => Self::Removed,
        }
    }
}

/// Bytes that a store's own nodes take for a copy: in moka its counters, its places in two queues and in the table. Measured
/// by `tests/memory.rs`, which fails if they are more; the list's nodes are less.
const NODE: usize = 400;

/// One part in so many is lost to pieces between blocks, where copies of many sizes come and go on several threads. glibc
/// left 2 % to 33 % of what was held when this was measured; the bound's own 15 % and 32 MiB are for the rest.
const PIECES: usize = 8;

/// What a copy really takes. Its collection is weighed with each copy, since callers may ask for as many as they like.
fn weight<K: Key, V: Cached>(key: &K, entry: &Entry<V>) -> usize {
    let counts = 2 * size_of::<usize>();
    let blocks = NODE
        + block(counts + size_of::<K>())
        + key.collection().weight()
        + block(counts + size_of::<Entry<V>>())
        + entry.weight();
    with_pieces(blocks)
}

/// What blocks of so many bytes come to.
pub(in crate::contacts) const fn with_pieces(blocks: usize) -> usize {
    blocks + blocks / PIECES
}

/// Whether its epoch has ended: no request will ever look for it again.
pub(super) fn is_unreachable(key: &impl Key) -> bool {
    key.epoch() != key.collection().epoch()
}

/// A copy with the weight it was counted with, which it must be taken off with.
#[derive(Debug)]
struct Weighed<V> {
    entry: Arc<Entry<V>>,
    bytes: usize,
}

impl<V: Cached> Weighed<V> {
    fn new<K: Key>(key: &K, entry: Arc<Entry<V>>) -> Self {
        Self {
            bytes: weight(key, &entry),
            entry,
        }
    }
}

impl<V> Clone for Weighed<V> {
    fn clone(&self) -> Self {
        Self {
            entry: self.entry.clone(),
            bytes: self.bytes,
        }
    }
}

#[cfg(test)]
mod tests;
