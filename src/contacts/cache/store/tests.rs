use super::*;
use crate::contacts::{cache::Metrics, list::List, testing};

pub(super) fn entry(records: usize) -> Arc<Entry<List>> {
    let now = Instant::now();
    let list = testing::list(records, now);
    testing::kept(list, now)
}

/// Evictions by cause: size, expired, replaced, removed.
pub(super) fn counted(metrics: &Metrics) -> [u64; 4] {
    Cause::ALL.map(|cause| metrics.evictions[cause as usize].get())
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

/// Catches contacts that lie in memory for as long as a copy may, although nobody can be told them any more.
#[test]
fn what_a_purge_has_made_unreachable_is_swept_away() {
    let now = Instant::now();
    let of_pages = testing::metrics("pages");
    let pages = Pages::new(1 << 20, testing::LIFETIME, of_pages.clone());
    let [page, other_page] = ["st-a", "st-b"].map(|stream| testing::page_key(stream, 0, 10));
    for key in [&page, &other_page] {
        pages.put(
            key.clone(),
            testing::kept(testing::page(0, 10, 5, now), now),
        );
    }
    let of_lists = testing::metrics("lists");
    let lists = Lists::new(1 << 20, of_lists.clone());
    let [list, other_list] = ["st-a", "st-b"].map(testing::list_key);
    for key in [&list, &other_list] {
        lists.put(key.clone(), entry(10));
    }
    page.collection.scope.end_epoch();
    list.collection.scope.end_epoch();
    pages.sweep(now);
    lists.sweep(now);
    assert!(pages.get(&page).is_none() && pages.get(&other_page).is_some());
    assert!(lists.get(&list).is_none() && lists.get(&other_list).is_some());
    assert!(list.collection.list().is_none());
    for metrics in [of_pages, of_lists] {
        assert_eq!(counted(&metrics), [0, 0, 0, 1]);
        assert_eq!(metrics.entries.get(), 1);
    }
}
