use std::{sync::Barrier, time::Duration};

use tokio::time;

use super::*;
use crate::contacts::{
    cache::store::tests::{counted, entry},
    collection::Collection,
    sweep::keep_swept,
    testing,
};

/// What one list weighs under any of the keys here.
fn one_weighs(list: &Entry<List>) -> u64 {
    weight(&testing::list_key("st-a"), list) as u64
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
fn a_list_that_grew_leaves_with_all_its_weight() {
    let (one, other) = (entry(10), entry(10));
    let metrics = testing::metrics("lists");
    let store = Lists::new(
        2 * one_weighs(&one) + with_pieces(100) as u64,
        metrics.clone(),
    );
    let [a, b] = ["st-a", "st-b"].map(testing::list_key);
    store.put(a.clone(), one.clone());
    assert!(store.grow(&a, &one, 100));
    store.put(b.clone(), other.clone());
    assert_eq!(
        metrics.bytes.get() as usize,
        2 * one_weighs(&one) as usize + with_pieces(100)
    );
    // No list is given up for it.
    assert!(!store.grow(&b, &other, 1));
    assert!(store.get(&a).is_some());
    store.put(a.clone(), entry(10));
    assert!(store.grow(&a, &one, 100), "it is not held any more");
    assert_eq!(metrics.bytes.get() as usize, 2 * one_weighs(&one) as usize);
    store.remove(&a);
    store.remove(&b);
    assert_eq!((metrics.bytes.get(), metrics.entries.get()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_list_that_nobody_asks_for_is_held_no_longer_than_it_is_of_use() {
    let metrics = testing::metrics("lists");
    let store = Arc::new(Lists::new(1 << 20, metrics.clone()));
    let sweeping = tokio::spawn(keep_swept(Arc::downgrade(&store), Lists::sweep));
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
