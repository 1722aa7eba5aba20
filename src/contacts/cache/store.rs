//! Where copies lie. Pages in moka, which keeps what is asked for often; lists in an LRU of their own, because moka
//! would give up one list that cost a hundred calls for a thousand pages that cost one each.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use lru::LruCache;
use moka::notification::RemovalCause;
use tokio::time::{self, Instant};

use super::{
    Key, Metrics,
    entry::{Cached, Entry, Freshness, Lifetime, block},
};
use crate::contacts::{
    collection::Collection,
    list::{List, ListKey},
    page::{Page, PageKey},
    slice,
};

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

    /// Gives up a copy.
    fn remove(&self, key: &Self::Key);

    /// Shows each copy once, in no order.
    fn each(&self, see: impl FnMut(&Self::Key, &Entry<Self::Value>));

    /// Gives up the copies that are of no use any more, and for which nobody has asked since.
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
    blocks + blocks / PIECES
}

/// How often expired copies are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Sweeps a store for as long as it is there.
pub async fn keep_swept<T: Store>(store: Weak<T>) {
    loop {
        time::sleep(SWEEP_EVERY).await;
        match store.upgrade() {
            Some(store) => store.sweep(Instant::now()),
            None => break,
        }
    }
}

/// Pages, at most so many bytes of them.
pub struct Pages {
    bytes_max: u64,
    held: moka::sync::Cache<PageKey, Arc<Entry<Page>>>,
    metrics: Metrics,
}

impl Pages {
    /// `lifetime` is that of the copies, which are held a little longer at most.
    pub fn new(bytes_max: u64, lifetime: Lifetime, metrics: Metrics) -> Self {
        // By moka's own clock, so that it bounds memory and never decides.
        let held_for = lifetime.fresh_for + lifetime.stale_for + SWEEP_EVERY;
        Self::held_for(held_for, bytes_max, metrics)
    }

    fn held_for(held_for: Duration, bytes_max: u64, metrics: Metrics) -> Self {
        let counted = metrics.clone();
        let held = moka::sync::Cache::builder()
            .max_capacity(bytes_max)
            .time_to_live(held_for)
            .weigher(|key, entry: &Arc<Entry<Page>>| {
                u32::try_from(weight(key, entry)).unwrap_or(u32::MAX)
            })
            .eviction_listener(move |key: Arc<PageKey>, entry, cause| {
                counted.removed(weight(&*key, &entry), Cause::of(cause));
            });
        Self {
            bytes_max,
            held: held.build(),
            metrics,
        }
    }
}

impl Store for Pages {
    type Key = PageKey;
    type Value = Page;

    fn get(&self, key: &PageKey) -> Option<Arc<Entry<Page>>> {
        self.held.get(key)
    }

    fn in_place_of(&self, key: &PageKey, now: Instant) -> Option<Arc<Entry<Page>>> {
        slice::in_place_of(key, now)
    }

    fn keeps(&self, key: &PageKey, entry: &Entry<Page>) -> bool {
        weight(key, entry) as u64 <= self.bytes_max
    }

    fn put(&self, key: PageKey, entry: Arc<Entry<Page>>) {
        self.metrics.added(weight(&key, &entry));
        self.held.insert(key, entry);
        // moka makes room only after some dozens of insertions, each of which may be a page of megabytes.
        if self.metrics.bytes.get().unsigned_abs() > self.bytes_max {
            self.held.run_pending_tasks();
        }
    }

    fn remove(&self, key: &PageKey) {
        self.held.invalidate(key);
    }

    fn each(&self, mut see: impl FnMut(&PageKey, &Entry<Page>)) {
        for (key, copy) in &self.held {
            see(&key, &copy);
        }
    }

    fn sweep(&self, _: Instant) {
        self.held.run_pending_tasks();
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
    lists: LruCache<ListKey, Arc<Entry<List>>>,
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

    fn give_up(&self, key: &ListKey, cause: Cause) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Its own key goes with it, and names the collection on which it was published.
        let Some((key, old)) = held.lists.pop_entry(key) else {
            return;
        };
        held.bytes -= weight(&key, &old);
        drop(held);
        self.metrics.removed(weight(&key, &old), cause);
        key.collection.withdraw(&old);
    }
}

impl Store for Lists {
    type Key = ListKey;
    type Value = List;

    fn get(&self, key: &ListKey) -> Option<Arc<Entry<List>>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.lists.get(key).cloned()
    }

    fn peek(&self, key: &ListKey) -> Option<Arc<Entry<List>>> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.lists.peek(key).cloned()
    }

    fn keeps(&self, key: &ListKey, entry: &Entry<List>) -> bool {
        weight(key, entry) as u64 <= self.bytes_max
    }

    fn put(&self, key: ListKey, entry: Arc<Entry<List>>) {
        let bytes = weight(&key, &entry);
        let mut removed = Vec::new();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        // Its own key goes with it: that names the collection on which the older list was published.
        if let Some((key, old)) = held.lists.pop_entry(&key) {
            held.bytes -= weight(&key, &old);
            removed.push((key, old, Cause::Replaced));
        }
        held.lists.put(key.clone(), entry.clone());
        held.bytes += bytes;
        while held.bytes as u64 > self.bytes_max
            && let Some((key, old)) = held.lists.pop_lru()
        {
            held.bytes -= weight(&key, &old);
            removed.push((key, old, Cause::Size));
        }
        // Under the lock, so that nothing is published after it was given up.
        key.collection.publish(entry);
        for (key, old, _) in &removed {
            key.collection.withdraw(old);
        }
        drop(held);
        self.metrics.added(bytes);
        for (key, old, cause) in removed {
            self.metrics.removed(weight(&key, &old), cause);
        }
    }

    fn remove(&self, key: &ListKey) {
        self.give_up(key, Cause::Removed);
    }

    fn sweep(&self, now: Instant) {
        let expired: Vec<_> = {
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let lists = held.lists.iter();
            let expired = lists.filter(|(_, list)| list.freshness(now) == Freshness::Expired);
            expired.map(|(key, _)| key.clone()).collect()
        };
        for key in expired {
            self.give_up(&key, Cause::Expired);
        }
    }

    fn each(&self, mut see: impl FnMut(&ListKey, &Entry<List>)) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, copy) in &held.lists {
            see(key, copy);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use crate::contacts::{collection::Collection, testing};

    fn entry(records: usize) -> Arc<Entry<List>> {
        let now = Instant::now();
        let list = testing::list(records, now);
        testing::kept(list, now)
    }

    /// What one list weighs under any of the keys here.
    fn one_weighs(list: &Entry<List>) -> u64 {
        weight(&testing::list_key("st-a"), list) as u64
    }

    /// Evictions by cause: size, expired, replaced, removed.
    fn counted(metrics: &Metrics) -> [u64; 4] {
        Cause::ALL.map(|cause| metrics.evictions[cause as usize].get())
    }

    #[test]
    fn the_least_recently_asked_for_list_goes_first() {
        let one = entry(10);
        let metrics = testing::metrics("lists");
        let [a, b, c] = ["st-a", "st-b", "st-c"].map(testing::list_key);
        let store = Lists::new(2 * weight(&a, &one) as u64, metrics.clone());
        store.put(a.clone(), one.clone());
        store.put(b.clone(), entry(10));
        assert!(store.get(&a).is_some());
        // Who only looks has not asked for it.
        assert!(store.peek(&b).is_some());
        store.put(c.clone(), entry(10));
        assert!(store.get(&b).is_none());
        assert!(store.get(&a).is_some() && store.get(&c).is_some());
        assert_eq!(counted(&metrics), [1, 0, 0, 0]);
        assert_eq!(metrics.bytes.get() as usize, 2 * weight(&a, &one));
    }

    #[test]
    fn windows_are_cut_only_from_lists_that_are_held() {
        let one = entry(10);
        let store = Lists::new(one_weighs(&one), testing::metrics("lists"));
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
        let store = Lists::new(one_weighs(&one), testing::metrics("lists"));
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
        let store = Lists::new(one_weighs(&entry(10)), testing::metrics("lists"));
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
        let (key, weight) = (testing::list_key("st-a"), one_weighs(&list));
        assert!(Lists::new(weight, testing::metrics("lists")).keeps(&key, &list));
        assert!(!Lists::new(weight - 1, testing::metrics("lists")).keeps(&key, &list));
    }

    #[test]
    fn pages_stay_within_their_bytes() {
        let metrics = testing::metrics("pages");
        let store = Pages::new(100_000, testing::LIFETIME, metrics.clone());
        let now = Instant::now();
        for skip in 0..1000 {
            let page = testing::page(skip * 10, 10, 10_000, now);
            let key = testing::page_key("st-a", skip * 10, 10);
            store.put(key, testing::kept(page, now));
            // At once, and not some insertions later.
            assert!(metrics.bytes.get() <= 100_000, "{}", metrics.bytes.get());
        }
        assert!(counted(&metrics)[0] > 0);
        assert_eq!(metrics.bytes.get() as u64, store.held.weighted_size());
        assert_eq!(metrics.entries.get() as u64, store.held.entry_count());
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_nobody_asks_for_is_held_no_longer_than_it_is_of_use() {
        let metrics = testing::metrics("lists");
        let store = Arc::new(Lists::new(1 << 20, metrics.clone()));
        let sweeping = tokio::spawn(keep_swept(Arc::downgrade(&store)));
        let [a, b] = ["st-a", "st-b"].map(testing::list_key);
        store.put(a.clone(), entry(10));
        time::sleep(Duration::from_secs(30)).await;
        store.put(b.clone(), entry(10));
        time::sleep(Duration::from_secs(31)).await;
        assert!(store.get(&a).is_none() && a.collection.list().is_none());
        assert!(store.get(&b).is_some() && b.collection.list().is_some());
        assert_eq!(counted(&metrics), [0, 1, 0, 0]);
        assert_eq!(metrics.bytes.get() as u64, one_weighs(&entry(10)));
        drop(store);
        sweeping.await.unwrap();
    }

    #[tokio::test]
    async fn a_page_that_nobody_asks_for_is_held_a_little_longer_than_it_is_of_use() {
        let (metrics, now) = (testing::metrics("pages"), Instant::now());
        let lifetime = Lifetime {
            fresh_for: Duration::from_millis(1),
            stale_for: Duration::from_millis(1),
        };
        let store = Pages::held_for(Duration::from_millis(2), 1 << 20, metrics.clone());
        let policy = Pages::new(1 << 20, lifetime, testing::metrics("pages"));
        let policy = policy.held.policy().time_to_live();
        assert_eq!(policy, Some(Duration::from_millis(2) + SWEEP_EVERY));
        for skip in 0..1000 {
            let page = testing::kept(testing::page(skip, 1, 10_000, now), now);
            store.put(testing::page_key("st-a", skip, 1), page);
        }
        // moka's own clock cannot be advanced.
        while metrics.entries.get() > 0 {
            time::sleep(Duration::from_millis(1)).await;
            store.sweep(now);
        }
        assert_eq!(counted(&metrics), [0, 1000, 0, 0]);
        assert_eq!(metrics.bytes.get(), 0);
    }

    #[test]
    fn copies_given_up_are_counted_by_cause() {
        let now = Instant::now();
        let of_pages = testing::metrics("pages");
        let pages = Pages::new(1 << 20, testing::LIFETIME, of_pages.clone());
        let key = testing::page_key("st-a", 0, 10);
        for _ in 0..3 {
            pages.put(
                key.clone(),
                testing::kept(testing::page(0, 10, 5, now), now),
            );
        }
        pages.remove(&key);
        pages.sweep(now);
        let of_lists = testing::metrics("lists");
        let lists = Lists::new(1 << 20, of_lists.clone());
        let key = testing::list_key("st-a");
        for _ in 0..3 {
            lists.put(key.clone(), entry(10));
        }
        lists.remove(&key);
        for metrics in [of_pages, of_lists] {
            assert_eq!(counted(&metrics), [0, 0, 2, 1]);
            assert_eq!((metrics.bytes.get(), metrics.entries.get()), (0, 0));
        }
    }
}
