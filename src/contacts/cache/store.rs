//! Where copies lie. Pages in moka, which keeps what is asked for often; lists in an LRU of their own, because moka
//! would give up one list that cost a hundred calls for a thousand pages that cost one each.

use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use moka::notification::RemovalCause;

use super::{
    Key, Metrics,
    entry::{Cached, Entry},
};
use crate::contacts::{
    collection::Collection,
    list::{List, ListKey},
    page::{Page, PageKey},
};

/// Bounded memory for copies. Whether one is fresh is not its business.
pub trait Store: Send + Sync + 'static {
    type Key: Key;
    type Value: Cached;

    fn get(&self, key: &Self::Key) -> Option<Arc<Entry<Self::Value>>>;

    /// Whether a copy is small enough to be kept at all.
    fn keeps(&self, entry: &Entry<Self::Value>) -> bool;

    /// Keeps a copy in place of any older one, as far as the bound allows.
    fn put(&self, key: Self::Key, entry: Arc<Entry<Self::Value>>);

    /// Makes room for so many bytes that are to lie beside a copy; whether there is.
    fn grow(&self, key: &Self::Key, entry: &Arc<Entry<Self::Value>>, bytes: usize) -> bool;

    /// Gives up a copy.
    fn remove(&self, key: &Self::Key);
}

/// Bytes that a copy costs beside its value: key, the store's own node, reference counts.
const OVERHEAD: usize = 256;

fn weight<V: Cached>(entry: &Entry<V>) -> usize {
    entry.weight() + OVERHEAD
}

/// A copy with the weight it was counted with, which it must be taken off with.
#[derive(Debug)]
struct Weighed<V> {
    entry: Arc<Entry<V>>,
    bytes: usize,
}

impl<V: Cached> Weighed<V> {
    fn new(entry: Arc<Entry<V>>) -> Self {
        Self {
            bytes: weight(&entry),
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

/// Pages, at most so many bytes of them.
pub struct Pages {
    bytes_max: u64,
    held: moka::sync::Cache<PageKey, Weighed<Page>>,
    /// One change at a time, so that a page which is weighed again never takes the place of a newer one. Pages change as
    /// often as upstream is asked, which is seldom.
    changing: Mutex<()>,
    metrics: Metrics,
}

impl Pages {
    pub fn new(bytes_max: u64, metrics: Metrics) -> Self {
        let counted = metrics.clone();
        let held = moka::sync::Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_, held: &Weighed<Page>| u32::try_from(held.bytes).unwrap_or(u32::MAX))
            .eviction_listener(move |_, held, cause| {
                counted.removed(held.bytes, cause == RemovalCause::Size);
            });
        Self {
            bytes_max,
            held: held.build(),
            changing: Mutex::default(),
            metrics,
        }
    }

    fn insert(&self, key: PageKey, held: Weighed<Page>) {
        self.metrics.added(held.bytes);
        self.held.insert(key, held);
    }
}

impl Store for Pages {
    type Key = PageKey;
    type Value = Page;

    fn get(&self, key: &PageKey) -> Option<Arc<Entry<Page>>> {
        self.held.get(key).map(|held| held.entry)
    }

    fn keeps(&self, entry: &Entry<Page>) -> bool {
        weight(entry) as u64 <= self.bytes_max
    }

    fn put(&self, key: PageKey, entry: Arc<Entry<Page>>) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.insert(key, Weighed::new(entry));
    }

    fn grow(&self, key: &PageKey, entry: &Arc<Entry<Page>>, bytes: usize) -> bool {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let held = self.held.get(key);
        let Some(mut held) = held.filter(|held| Arc::ptr_eq(&held.entry, entry)) else {
            // It is held by nobody but those who answer with it, and not for long.
            return true;
        };
        held.bytes += bytes;
        if held.bytes as u64 > self.bytes_max {
            return false;
        }
        self.insert(key.clone(), held);
        true
    }

    fn remove(&self, key: &PageKey) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.held.invalidate(key);
    }
}

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
        collections
            .find(|collection| ***collection == *like)
            .cloned()
    }
}

impl Store for Lists {
    type Key = ListKey;
    type Value = List;

    fn get(&self, key: &ListKey) -> Option<Arc<Entry<List>>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.lists.get(key).map(|held| held.entry.clone())
    }

    fn keeps(&self, entry: &Entry<List>) -> bool {
        weight(entry) as u64 <= self.bytes_max
    }

    fn put(&self, key: ListKey, entry: Arc<Entry<List>>) {
        let weighed = Weighed::new(entry.clone());
        let bytes = weighed.bytes;
        let mut removed = Vec::new();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Its own key goes with it: that names the collection on which the older list was published.
        if let Some((key, old)) = held.lists.pop_entry(&key) {
            held.bytes -= old.bytes;
            removed.push((key, old, false));
        }
        held.lists.put(key.clone(), weighed);
        held.bytes += bytes;
        while held.bytes as u64 > self.bytes_max
            && let Some((key, old)) = held.lists.pop_lru()
        {
            held.bytes -= old.bytes;
            removed.push((key, old, true));
        }
        // Under the lock, so that nothing is published after it was given up.
        key.collection.publish(entry);
        for (key, old, _) in &removed {
            key.collection.withdraw(&old.entry);
        }
        drop(held);
        self.metrics.added(bytes);
        for (_, old, evicted) in removed {
            self.metrics.removed(old.bytes, evicted);
        }
    }

    /// No list is given up for the encoding of another: it would cost a hundred calls to have it again.
    fn grow(&self, key: &ListKey, entry: &Arc<Entry<List>>, bytes: usize) -> bool {
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
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(old) = held.lists.pop(key) else {
            return;
        };
        held.bytes -= old.bytes;
        drop(held);
        self.metrics.removed(old.bytes, false);
        key.collection.withdraw(&old.entry);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use tokio::time::Instant;

    use super::*;
    use crate::contacts::{collection::Collection, testing};

    fn entry(records: usize) -> Arc<Entry<List>> {
        let now = Instant::now();
        let list = testing::list(records, now);
        testing::kept(list, now)
    }

    #[test]
    fn the_least_recently_asked_for_list_goes_first() {
        let one = entry(10);
        let metrics = testing::metrics("lists");
        let store = Lists::new(2 * weight(&one) as u64, metrics.clone());
        let [a, b, c] = ["st-a", "st-b", "st-c"].map(testing::list_key);
        store.put(a.clone(), one.clone());
        store.put(b.clone(), entry(10));
        assert!(store.get(&a).is_some());
        store.put(c.clone(), entry(10));
        assert!(store.get(&b).is_none());
        assert!(store.get(&a).is_some() && store.get(&c).is_some());
        assert_eq!(metrics.evictions.get(), 1);
        assert_eq!(metrics.bytes.get() as usize, 2 * weight(&one));
    }

    #[test]
    fn windows_are_cut_only_from_lists_that_are_held() {
        let one = entry(10);
        let store = Lists::new(weight(&one) as u64, testing::metrics("lists"));
        let [a, b] = ["st-a", "st-b"].map(testing::list_key);
        store.put(a.clone(), one);
        assert!(a.collection.list().is_some());
        let newer = entry(10);
        store.put(a.clone(), newer.clone());
        assert!(Arc::ptr_eq(a.collection.list().as_ref().unwrap(), &newer));
        store.put(b.clone(), entry(10));
        assert!(a.collection.list().is_none());
        assert!(b.collection.list().is_some());
    }

    #[test]
    fn a_list_is_withdrawn_from_the_collection_that_it_was_published_on() {
        let one = entry(10);
        let store = Lists::new(weight(&one) as u64, testing::metrics("lists"));
        // The same collection twice in memory, as after the route has forgotten it.
        let before = testing::list_key("st-a");
        let collection = Collection::new(
            before.collection.account.clone(),
            before.collection.stream.clone(),
        );
        let after = ListKey {
            collection: Arc::new(collection),
            ..before
        };
        store.put(before.clone(), one);
        store.put(after.clone(), entry(10));
        assert!(before.collection.list().is_none());
        assert!(after.collection.list().is_some());
        store.put(testing::list_key("st-b"), entry(10));
        assert!(after.collection.list().is_none());
    }

    #[test]
    fn what_is_published_is_held_whoever_comes_in_between() {
        let store = Lists::new(weight(&entry(10)) as u64, testing::metrics("lists"));
        let keys = ["st-a", "st-b"].map(testing::list_key);
        let barrier = Barrier::new(2);
        // A race, so it is run often: there is room for one of the two.
        for _ in 0..1000 {
            std::thread::scope(|scope| {
                for key in &keys {
                    scope.spawn(|| {
                        let entry = entry(10);
                        barrier.wait();
                        store.put(key.clone(), entry);
                    });
                }
            });
            for key in &keys {
                assert_eq!(store.get(key).is_some(), key.collection.list().is_some());
            }
        }
    }

    #[test]
    fn a_list_above_the_bound_is_not_kept() {
        let list = entry(10);
        let weight = weight(&list) as u64;
        assert!(Lists::new(weight, testing::metrics("lists")).keeps(&list));
        assert!(!Lists::new(weight - 1, testing::metrics("lists")).keeps(&list));
    }

    #[test]
    fn a_page_that_grows_is_weighed_again_and_only_while_it_is_held() {
        let metrics = testing::metrics("pages");
        let now = Instant::now();
        let page = || testing::kept(testing::page(0, 10, 10, now), now);
        let (key, older, newer) = (testing::page_key("st-a", 0, 10), page(), page());
        let room = weight(&older) as u64 + 1000;
        let store = Pages::new(room, metrics.clone());
        let held = |store: &Pages| {
            store.held.run_pending_tasks();
            assert_eq!(metrics.bytes.get() as u64, store.held.weighted_size());
            assert_eq!(metrics.entries.get() as u64, store.held.entry_count());
            store.held.weighted_size()
        };
        store.put(key.clone(), older.clone());
        assert!(store.grow(&key, &older, 1000));
        assert_eq!(held(&store), room);
        // More than all there may be.
        assert!(!store.grow(&key, &older, 1));
        assert_eq!(held(&store), room);
        // What has been replaced does not come back.
        store.put(key.clone(), newer.clone());
        assert!(store.grow(&key, &older, 1000));
        assert!(Arc::ptr_eq(&store.get(&key).unwrap(), &newer));
        assert_eq!(held(&store), room - 1000);
        store.remove(&key);
        assert!(store.grow(&key, &newer, 1000));
        assert_eq!((store.get(&key).is_none(), held(&store)), (true, 0));
    }

    #[test]
    fn a_list_that_grew_leaves_with_all_its_weight() {
        let (one, other) = (entry(10), entry(10));
        let metrics = testing::metrics("lists");
        let store = Lists::new(2 * weight(&one) as u64 + 100, metrics.clone());
        let [a, b] = ["st-a", "st-b"].map(testing::list_key);
        store.put(a.clone(), one.clone());
        assert!(store.grow(&a, &one, 100));
        store.put(b.clone(), other.clone());
        assert_eq!(metrics.bytes.get() as usize, 2 * weight(&one) + 100);
        // No list is given up for it.
        assert!(!store.grow(&b, &other, 1));
        assert!(store.get(&a).is_some());
        store.put(a.clone(), entry(10));
        assert!(store.grow(&a, &one, 100), "it is not held any more");
        assert_eq!(metrics.bytes.get() as usize, 2 * weight(&one));
        store.remove(&a);
        store.remove(&b);
        assert_eq!((metrics.bytes.get(), metrics.entries.get()), (0, 0));
    }

    #[test]
    fn pages_stay_within_their_bytes() {
        let metrics = testing::metrics("pages");
        let store = Pages::new(100_000, metrics.clone());
        let now = Instant::now();
        for skip in 0..1000 {
            let page = testing::page(skip * 10, 10, 10_000, now);
            let key = testing::page_key("st-a", skip * 10, 10);
            store.put(key, testing::kept(page, now));
        }
        store.held.run_pending_tasks();
        assert!(metrics.bytes.get() <= 100_000, "{}", metrics.bytes.get());
        assert!(metrics.evictions.get() > 0);
        assert_eq!(metrics.bytes.get() as u64, store.held.weighted_size());
        assert_eq!(metrics.entries.get() as u64, store.held.entry_count());
    }
}
