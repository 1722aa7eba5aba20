//! Answers that may not be kept.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::contacts::cache::unkept::MARKED_FOR;

/// What the stage below is told, and how often it was called.
#[derive(Clone, Default)]
struct Told {
    no_store: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Told {
    /// The calls since the last look.
    fn calls(&self) -> usize {
        self.calls.swap(0, Ordering::Relaxed)
    }

    fn no_store(&self, no_store: bool) {
        self.no_store.store(no_store, Ordering::Relaxed);
    }
}

/// The stage over one that takes a second, and forbids to keep its answers at first.
fn forbidding() -> (
    Cache<Shelf, impl Service<Fetch<u8>, Response = Value, Error = Error, Future: Send> + Clone>,
    Told,
) {
    let told = Told::default();
    told.no_store(true);
    let below = told.clone();
    let inner = service_fn(move |fetch: Fetch<u8>| {
        below.calls.fetch_add(1, Ordering::Relaxed);
        let no_store = below.no_store.load(Ordering::Relaxed);
        async move {
            time::sleep(seconds(1)).await;
            Ok(Value {
                no_store,
                ..Value::of(fetch.key)
            })
        }
    });
    (over(inner), told)
}

/// A thousand callers at once, who are all answered after one second: how each was served.
async fn herd<S>(cache: &Cache<Shelf, S>) -> Vec<Served>
where
    S: Service<Fetch<u8>, Response = Value, Error = Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let began = Instant::now();
    let callers = (0..1000).map(|_| cache.clone().oneshot(testing::request(1)));
    let answers = join_all(callers).await;
    assert_eq!(began.elapsed(), seconds(1), "nobody waits for another");
    answers
        .into_iter()
        .map(|answer| answer.unwrap().served)
        .collect()
}

fn all_of(served: &[Served], expected: Served) -> bool {
    served.iter().all(|served| *served == expected)
}

/// Catches waiters that are let through one after another, a copy that is kept, and a mark that outlives its reason.
#[tokio::test(start_paused = true)]
async fn callers_of_what_may_not_be_kept_go_side_by_side_until_it_may() {
    let (cache, told) = forbidding();
    // Nobody knows yet, so they share.
    let served = herd(&cache).await;
    assert_eq!(
        (told.calls(), served[0]),
        (1, Served::Fetched(Forward::Miss))
    );
    assert!(all_of(&served[1..], Served::Joined(Forward::Miss)));
    for _ in 0..2 {
        let served = herd(&cache).await;
        assert_eq!(told.calls(), 1000);
        assert!(all_of(&served, Served::Fetched(Forward::Miss)));
        assert!(cache.0.held.store.get(&1).is_none());
    }
    told.no_store(false);
    herd(&cache).await;
    assert_eq!(told.calls(), 1000);
    let hit = cache.clone().oneshot(testing::request(1)).await.unwrap();
    assert!(hit.served == Served::Hit && hit.copy.is_kept());
    time::advance(FRESH_FOR).await;
    herd(&cache).await;
    assert_eq!(told.calls(), 1, "the mark ended with the copy");
}

#[tokio::test(start_paused = true)]
async fn a_mark_ends_with_its_time_and_is_its_keys_alone() {
    let (cache, told) = forbidding();
    let answer = cache.clone().oneshot(testing::request(1)).await.unwrap();
    assert!(!answer.copy.is_kept());
    let others = [2, 2].map(|key| cache.clone().oneshot(testing::request(key)));
    join_all(others).await;
    assert_eq!(told.calls(), 2);
    time::advance(MARKED_FOR - seconds(1)).await;
    herd(&cache).await;
    assert_eq!(told.calls(), 1);
}

/// Catches an old copy that goes on being answered although upstream has said something newer.
#[tokio::test(start_paused = true)]
async fn what_may_not_be_kept_outdates_the_copy() {
    let (cache, told) = forbidding();
    told.no_store(false);
    cache.clone().oneshot(testing::request(1)).await.unwrap();
    told.no_store(true);
    time::advance(seconds(10)).await;
    let forced = saying(1, NO_CACHE);
    let forced = cache.clone().oneshot(forced).await.unwrap();
    assert_eq!(forced.served, Served::Fetched(Forward::Request));
    assert!(cache.0.held.store.get(&1).is_none());
    let next = cache.clone().oneshot(testing::request(1)).await.unwrap();
    assert_eq!(next.served, Served::Fetched(Forward::Miss));
}

/// Catches queued work that nobody waits for, and a call whose answer is thrown away.
#[tokio::test(start_paused = true)]
async fn a_flight_of_ones_own_is_dropped_while_it_queues_and_finished_once_it_departed() {
    for departs in [false, true] {
        let landed = Arc::new(AtomicUsize::new(0));
        let count = landed.clone();
        let inner = service_fn(move |fetch: Fetch<u8>| {
            let count = count.clone();
            async move {
                if departs {
                    fetch.urgency.depart();
                }
                time::sleep(seconds(5)).await;
                count.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Error>(Value {
                    no_store: true,
                    ..Value::of(fetch.key)
                })
            }
        });
        let mut cache = over(inner);
        cache.call(testing::request(1)).await.unwrap();
        let [one, other] = [0; 2].map(|_| cache.call(testing::request(1)));
        time::sleep(seconds(1)).await;
        drop(one);
        assert!(other.await.is_ok());
        time::sleep(seconds(5)).await;
        assert_eq!(landed.load(Ordering::Relaxed), 2 + usize::from(departs));
    }
}
