use std::{sync::Barrier, thread};

use tokio::time;

use super::*;
use crate::contacts::{cache::store::tests::counted, testing};

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

#[test]
fn a_page_that_grows_is_weighed_again_and_only_while_it_is_held() {
    let metrics = testing::metrics("pages");
    let now = Instant::now();
    let page = || testing::kept(testing::page(0, 10, 10, now), now);
    let (key, older, newer) = (testing::page_key("st-a", 0, 10), page(), page());
    let more = with_pieces(800) as u64;
    let room = weight(&key, &older) as u64 + more;
    let store = Pages::new(room, testing::LIFETIME, metrics.clone());
    let held = |store: &Pages| {
        store.held.run_pending_tasks();
        assert_eq!(metrics.bytes.get() as u64, store.held.weighted_size());
        assert_eq!(metrics.entries.get() as u64, store.held.entry_count());
        store.held.weighted_size()
    };
    store.put(key.clone(), older.clone());
    assert!(store.grow(&key, &older, 800));
    assert_eq!(held(&store), room);
    // More than all there may be.
    assert!(!store.grow(&key, &older, 1));
    assert_eq!(held(&store), room);
    // Nothing was given up for it.
    assert_eq!(counted(&metrics), [0; 4]);
    // What has been replaced does not come back.
    store.put(key.clone(), newer.clone());
    assert!(store.grow(&key, &older, 800));
    assert!(Arc::ptr_eq(&store.get(&key).unwrap(), &newer));
    assert_eq!(held(&store), room - more);
    store.remove(&key);
    assert!(store.grow(&key, &newer, 800));
    assert_eq!((store.get(&key).is_none(), held(&store)), (true, 0));
    assert_eq!(counted(&metrics), [0, 0, 1, 1]);
}

#[test]
fn what_is_removed_stays_so_whatever_grows_meanwhile() {
    let metrics = testing::metrics("pages");
    let now = Instant::now();
    let store = Pages::new(1 << 20, testing::LIFETIME, metrics.clone());
    let key = testing::page_key("st-a", 0, 10);
    let page = testing::kept(testing::page(0, 10, 10, now), now);
    let barrier = Barrier::new(2);
    // A race, so it is run often. What came back is counted: a panic would leave the other one waiting.
    let rounds = 0..20_000;
    let mut came_back = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in rounds.clone() {
                barrier.wait();
                store.grow(&key, &page, 100);
                barrier.wait();
            }
        });
        for _ in rounds.clone() {
            store.put(key.clone(), page.clone());
            barrier.wait();
            store.remove(&key);
            barrier.wait();
            came_back += usize::from(store.get(&key).is_some());
        }
    });
    assert_eq!(came_back, 0);
    assert_eq!((metrics.bytes.get(), metrics.entries.get()), (0, 0));
}

#[test]
fn pages_that_grow_stay_within_their_bytes() {
    let metrics = testing::metrics("pages");
    let store = Pages::new(100_000, testing::LIFETIME, metrics.clone());
    let now = Instant::now();
    for skip in 0..1000 {
        let page = testing::kept(testing::page(skip * 10, 10, 10_000, now), now);
        let key = testing::page_key("st-a", skip * 10, 10);
        store.put(key.clone(), page.clone());
        assert!(store.grow(&key, &page, 5_000));
        // At once, and not some insertions later.
        assert!(metrics.bytes.get() <= 100_000, "{}", metrics.bytes.get());
    }
    assert!(counted(&metrics)[0] > 0);
    assert_eq!(metrics.bytes.get() as u64, store.held.weighted_size());
    assert_eq!(metrics.entries.get() as u64, store.held.entry_count());
}

#[test]
#[expect(
    clippy::disallowed_types,
    reason = "moka's own, which is not looked at"
)]
fn a_page_lives_no_longer_for_being_weighed_again() {
    let time = Duration::from_secs(60);
    let growing = Growing::default();
    let held_for = HeldFor {
        time,
        growing: growing.clone(),
    };
    let (now, left) = (std::time::Instant::now(), Some(Duration::from_secs(7)));
    assert_eq!(held_for.expire_after_create(&(), &(), now), Some(time));
    let update = || held_for.expire_after_update(&(), &(), now, left);
    assert_eq!(update(), Some(time), "a newer one");
    growing.set(true);
    assert_eq!(update(), left);
}

#[tokio::test]
async fn a_page_that_nobody_asks_for_is_held_a_little_longer_than_it_is_of_use() {
    let (metrics, now) = (testing::metrics("pages"), Instant::now());
    let lifetime = Lifetime {
        fresh_for: Duration::from_millis(1),
        stale_for: Duration::from_millis(1),
    };
    let store = Pages::held_for(Duration::from_millis(2), 1 << 24, metrics.clone());
    assert_eq!(held_for(lifetime), Duration::from_millis(2) + sweep::EVERY);
    for skip in 0..1000 {
        let page = testing::kept(testing::page(skip, 1, 10_000, now), now);
        store.put(testing::page_key("st-a", skip, 1), page);
    }
    // moka's own clock cannot be advanced, and its steps are of a second.
    while metrics.entries.get() > 0 {
        time::sleep(Duration::from_millis(1)).await;
        store.sweep(now);
    }
    assert_eq!(counted(&metrics), [0, 1000, 0, 0]);
    assert_eq!(metrics.bytes.get(), 0);
}
