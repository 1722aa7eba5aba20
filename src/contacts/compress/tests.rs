use futures_util::future::join_all;
use tokio::{sync::oneshot, time::Instant};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    contacts::{
        cache::store::{Lists, Pages, with_pieces},
        list::{List, ListKey},
        page::{Page, PageKey},
        testing,
    },
    served::Served,
};

const ROOM: u64 = 1 << 30;

/// A stage over copies that are held in its store, and its metrics.
fn over<T: Store<Value: Content>>(
    store: Arc<T>,
    key: &T::Key,
    copy: &Arc<Entry<T::Value>>,
    metrics: &Metrics,
) -> Compress<
    T,
    impl Service<Request<T::Key>, Response = Answer<T::Value>, Error = Error, Future: Send + 'static>
    + Clone
    + use<T>,
> {
    store.put(key.clone(), copy.clone());
    let copy = copy.clone();
    let held = service_fn(move |_: Request<T::Key>| {
        let answer = Answer::new(copy.clone(), Served::Hit, Instant::now());
        async move { Ok::<_, Error>(answer) }
    });
    layer(Arc::new(Held::new(store)), metrics).layer(held)
}

fn wanting<K>(key: &K, coding: Coding) -> Request<K>
where
    K: Clone,
{
    let mut request = testing::request(key.clone());
    request.terms.coding = coding;
    request
}

fn page(records: u32) -> (PageKey, Arc<Entry<Page>>) {
    let now = Instant::now();
    let page = testing::page(0, records, u64::from(records), now);
    (
        testing::page_key("st-1", 0, records),
        testing::kept(page, now),
    )
}

fn list(records: usize) -> (ListKey, Arc<Entry<List>>) {
    let now = Instant::now();
    let list = testing::list(records, now);
    (testing::list_key("st-1"), testing::kept(list, now))
}

#[tokio::test]
async fn a_thousand_who_want_it_first_share_one_encoding_that_is_weighed() {
    let ((key, copy), metrics) = (page(100), testing::metrics("pages"));
    let store = Arc::new(Pages::new(ROOM, testing::LIFETIME, metrics.clone()));
    let stage = over(store.clone(), &key, &copy, &metrics);
    let alone = metrics.bytes.get();

    let plain = stage.clone().oneshot(wanting(&key, Coding::Identity)).await;
    assert!(plain.unwrap().encoded().is_none());
    assert!(!copy.encoding.has_begun(), "nobody wanted it yet");

    let demands = (0..1000).map(|_| stage.clone().oneshot(wanting(&key, Coding::Gzip)));
    for answer in join_all(demands).await {
        let answer = answer.unwrap().complete().await;
        assert_eq!(answer.encoded().unwrap().etag, copy.etag.gzipped());
    }
    assert_eq!(metrics.encodings.get(), 1);

    let weight = with_pieces(copy.encoding.made().unwrap().weight());
    assert_eq!(metrics.bytes.get(), alone + weight as i64);
    assert_eq!(metrics.entries.get(), 1);
    assert!(Arc::ptr_eq(&store.get(&key).unwrap(), &copy));
    // Whoever does not want it so still gets the content as it is.
    let plain = stage.oneshot(wanting(&key, Coding::Identity)).await;
    assert!(plain.unwrap().encoded().is_none());

    store.put(key.clone(), page(100).1);
    store.remove(&key);
    assert_eq!((metrics.bytes.get(), metrics.entries.get()), (0, 0));
}

#[tokio::test]
async fn what_is_short_or_not_kept_is_answered_as_it_is() {
    let metrics = testing::metrics("pages");
    let (key, short) = page(5);
    assert!(short.body.len() < 1024);
    let now = Instant::now();
    let page = testing::page(0, 100, 100, now);
    let passing = Entry::new(page, &key, now, testing::LIFETIME, 0.0);
    for copy in [short, Arc::new(passing)] {
        let store = Arc::new(Pages::new(ROOM, testing::LIFETIME, metrics.clone()));
        let stage = over(store, &key, &copy, &metrics);
        let answer = stage.oneshot(wanting(&key, Coding::Gzip)).await.unwrap();
        assert!(answer.encoded_by.is_none() && !copy.encoding.has_begun());
    }
}

#[tokio::test]
async fn nobody_waits_for_what_is_large_or_for_a_turn() {
    let ((key, copy), metrics) = (list(150_000), testing::metrics("lists"));
    assert!(copy.length() > WAITED_FOR_MAX);
    let store = Arc::new(Lists::new(ROOM, metrics.clone()));
    let stage = over(store, &key, &copy, &metrics);

    let turns: Vec<_> = iter::from_fn(|| stage.shared.turns.take()).collect();
    assert_eq!(turns.len(), ENCODINGS_MAX);
    let demand = async || {
        let answer = stage.clone().oneshot(wanting(&key, Coding::Gzip)).await;
        let answer = answer.unwrap();
        assert!(answer.encoded_by.is_none(), "it is waited for");
        answer
    };
    assert!(demand().await.encoded().is_none());
    assert!(!copy.encoding.has_begun(), "whoever is next may begin");
    drop(turns);

    assert!(demand().await.encoded().is_none());
    assert!(copy.encoding.has_begun());
    assert!(demand().await.encoded().is_none());
    copy.encoding.ended().await;
    assert!(demand().await.encoded().is_some());
    assert_eq!(metrics.encodings.get(), 1);
}

#[tokio::test]
async fn an_encoding_without_room_beside_the_lists_is_not_kept() {
    let metrics = testing::metrics("lists");
    let ((key, copy), (other_key, other)) = (list(1000), list(1000));
    let other_key = ListKey {
        epoch: crate::contacts::ids::Epoch::begin(),
        ..other_key
    };
    // Exactly both of them.
    let measure = Lists::new(ROOM, metrics.clone());
    measure.put(key.clone(), copy.clone());
    let room = 2 * metrics.bytes.get() as u64;
    let store = Arc::new(Lists::new(room, metrics.clone()));
    let before = metrics.bytes.get();
    let stage = over(store.clone(), &key, &copy, &metrics);
    store.put(other_key.clone(), other);

    let answer = stage.oneshot(wanting(&key, Coding::Gzip)).await.unwrap();
    let answer = answer.complete().await;
    assert!(answer.encoded().is_none() && copy.encoding.made().is_none());
    assert!(store.get(&key).is_some() && store.get(&other_key).is_some());
    assert_eq!(metrics.bytes.get() as u64, before as u64 + room);
}

/// The one thread for what blocks is held up meanwhile, so that the purge comes after the encoding has begun and before
/// it is made.
#[test]
fn what_is_purged_while_it_is_compressed_does_not_come_back() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let ((key, copy), metrics) = (page(100), testing::metrics("pages"));
        let store = Arc::new(Pages::new(ROOM, testing::LIFETIME, metrics.clone()));
        let stage = over(store.clone(), &key, &copy, &metrics);
        let (go_on, held_up) = oneshot::channel::<()>();
        let holding_up = task::spawn_blocking(move || held_up.blocking_recv());
        let answer = stage.clone().oneshot(wanting(&key, Coding::Gzip)).await;
        assert!(copy.encoding.has_begun() && !copy.encoding.has_ended());
        stage.shared.held.purge(&key);
        go_on.send(()).unwrap();
        holding_up.await.unwrap().unwrap();

        // Whoever asked before the purge has it all the same.
        assert!(answer.unwrap().complete().await.encoded().is_some());
        assert!(store.get(&key).is_none());
        store.sweep(Instant::now());
        assert_eq!((metrics.bytes.get(), metrics.entries.get()), (0, 0));
    });
}
