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
