use std::{
    collections::HashMap,
    sync::{
        LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::{sync::Notify, task, time};
use tower::{BoxError, service_fn, util::MapErr};
use tower_test::mock::{self, Handle, Mock, SendResponse};

use super::{entry::Cached, flight::Board, *};
use crate::{
    contacts::{
        request::{Class, Terms},
        testing,
        verdict::{Checks, Verdict},
    },
    error::Kind,
};

mod handling;
mod unkept;

const FRESH_FOR: Duration = Duration::from_secs(60);

/// What the stage below answers with: for which key, and when it was whole.
#[derive(Debug)]
struct Value {
    key: u8,
    whole_at: Instant,
    no_store: bool,
    verdict: Verdict,
}

impl Value {
    fn of(key: u8) -> Self {
        Self {
            key,
            whole_at: Instant::now(),
            no_store: false,
            verdict: Verdict::Verified(Checks::Seam),
        }
    }
}

impl Cached for Value {
    fn weight(&self) -> usize {
        1
    }

    fn read_at(&self) -> Instant {
        self.whole_at
    }

    fn no_store(&self) -> bool {
        self.no_store
    }

    fn good_for(&self, handling: Handling) -> Result<()> {
        handling.accept(self.verdict)
    }
}

/// A store without a bound. The first so many look-ups see nothing, as if a copy came right after them.
#[derive(Default)]
struct Shelf {
    copies: Mutex<HashMap<u8, Arc<Entry<Value>>>>,
    blind: AtomicUsize,
}

impl Store for Shelf {
    type Key = u8;
    type Value = Value;

    fn get(&self, key: &u8) -> Option<Arc<Entry<Value>>> {
        let less = |left: usize| left.checked_sub(1);
        let blind = self
            .blind
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        if blind.is_ok() {
            return None;
        }
        self.copies.lock().unwrap().get(key).cloned()
    }

    fn keeps(&self, _: &u8, _: &Entry<Value>) -> bool {
        true
    }

    fn put(&self, key: u8, copy: Arc<Entry<Value>>) {
        self.copies.lock().unwrap().insert(key, copy);
    }

    fn grow(&self, _: &u8, _: &Arc<Entry<Value>>, _: usize) -> bool {
        true
    }

    fn remove(&self, key: &u8) {
        self.copies.lock().unwrap().remove(key);
    }

    fn each(&self, mut see: impl FnMut(&u8, &Entry<Value>)) {
        for (key, copy) in &*self.copies.lock().unwrap() {
            see(key, copy);
        }
    }

    fn sweep(&self, _: Instant) {}
}

impl Key for u8 {
    /// All of one collection.
    fn collection(&self) -> &Arc<Collection> {
        static COLLECTION: LazyLock<Arc<Collection>> =
            LazyLock::new(|| testing::collection("st-1"));
        &COLLECTION
    }

    fn epoch(&self) -> Epoch {
        self.collection().epoch()
    }
}

fn over<S>(inner: S) -> Cache<Shelf, S> {
    layer(
        Arc::new(Held::new(Arc::new(Shelf::default()))),
        Arc::new(Forced::new(6)),
        testing::LIFETIME,
        || 0.0,
        testing::metrics("pages"),
    )
    .layer(inner)
}

type Mocked = MapErr<Mock<Fetch<u8>, Value>, fn(BoxError) -> Error>;

/// The stage over a mock that answers when the test says so.
fn mocked() -> (Cache<Shelf, Mocked>, Handle<Fetch<u8>, Value>) {
    let (mock, handle) = mock::pair();
    let own: fn(BoxError) -> Error = |error| *error.downcast().unwrap();
    (over(mock.map_err(own)), handle)
}

/// The stage over one that takes a second, and a count of its calls.
fn slow() -> (
    Cache<Shelf, impl Service<Fetch<u8>, Response = Value, Error = Error, Future: Send> + Clone>,
    Arc<AtomicUsize>,
) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let inner = service_fn(move |fetch: Fetch<u8>| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            time::sleep(seconds(1)).await;
            Ok(Value::of(fetch.key))
        }
    });
    (over(inner), calls)
}

/// How many requests were counted as served in this way.
fn counted<S>(cache: &Cache<Shelf, S>, served: Served) -> u64 {
    cache.0.metrics.requests[served.index()].get()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn failed() -> Error {
    Error::new(Kind::Upstream5xx, "upstream failed")
}

/// A request that waits so long.
fn patient(key: u8, patience: Duration) -> Request<u8> {
    let mut request = testing::request(key);
    request.terms.deadline = Instant::now() + patience;
    request
}

/// Lets whatever can go on go on, at this very instant.
async fn settle() {
    for _ in 0..20 {
        task::yield_now().await;
    }
}

/// The next call of the stage below. Where none comes, paused time runs out at once.
async fn asked(upstream: &mut Handle<Fetch<u8>, Value>) -> (Fetch<u8>, SendResponse<Value>) {
    let call = time::timeout(seconds(3600), upstream.next_request()).await;
    call.ok().flatten().expect("a call of the stage below")
}

/// Whether the stage below has been asked and not yet answered.
async fn is_asked(handle: &mut Handle<Fetch<u8>, Value>) -> bool {
    settle().await;
    handle.next_request().now_or_never().flatten().is_some()
}

#[tokio::test(start_paused = true)]
async fn a_miss_is_fetched_and_then_a_hit() {
    let (cache, calls) = slow();
    let first = cache.clone().oneshot(testing::request(1)).await.unwrap();
    assert_eq!(first.served, Served::Fetched(Forward::Miss));
    assert_eq!((first.age, first.ttl), (Duration::ZERO, 60));
    time::advance(seconds(7)).await;
    let second = cache.clone().oneshot(testing::request(1)).await.unwrap();
    assert_eq!(second.served, Served::Hit);
    assert_eq!((second.age, second.ttl), (seconds(7), 53));
    assert!(Arc::ptr_eq(&first.copy, &second.copy));
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_fresh_to_its_last_instant_and_then_fetched_again() {
    let (cache, calls) = slow();
    let first = cache.clone().oneshot(testing::request(1)).await.unwrap();
    for (advance, served) in [
        (FRESH_FOR - Duration::from_millis(1), Served::Hit),
        (Duration::from_millis(1), Served::Fetched(Forward::Stale)),
    ] {
        time::advance(advance).await;
        let answer = cache.clone().oneshot(testing::request(1)).await.unwrap();
        assert_eq!(answer.served, served);
    }
    let newest = cache.clone().oneshot(testing::request(1)).await.unwrap();
    assert_eq!(newest.served, Served::Hit);
    assert!(!Arc::ptr_eq(&first.copy, &newest.copy));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_waiters_share_one_call_and_one_copy() {
    let (cache, calls) = slow();
    let began = Instant::now();
    let waiting = (0..1000).map(|_| {
        let waiter = cache.clone().oneshot(testing::request(1));
        async { (waiter.await.unwrap(), Instant::now()) }
    });
    let answers = join_all(waiting).await;
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    for (answer, at) in &answers {
        assert_eq!(*at, began + seconds(1));
        assert!(Arc::ptr_eq(&answer.copy, &answers[0].0.copy));
    }
    assert_eq!(counted(&cache, Served::Fetched(Forward::Miss)), 1);
    assert_eq!(counted(&cache, Served::Joined(Forward::Miss)), 999);
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_was_purged_and_departs_as_its_waiter_leaves_comes_to_its_end() {
    let (calls, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (landed, turn) = (calls.clone(), go.clone());
    let inner = service_fn(move |fetch: Fetch<u8>| {
        let (landed, turn) = (landed.clone(), turn.clone());
        async move {
            turn.notified().await;
            fetch.urgency.depart();
            time::sleep(seconds(1)).await;
            landed.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Error>(Value::of(fetch.key))
        }
    });
    let mut cache = over(inner);
    let waiter = cache.call(testing::request(1));
    settle().await;
    cache.0.held.purge(&1);
    drop(waiter);
    go.notify_one();
    time::sleep(seconds(2)).await;
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_leaves_cancels_nothing() {
    let (mut cache, mut upstream) = mocked();
    let leader = cache.call(testing::request(1));
    let joined = cache.call(testing::request(1));
    drop(leader);
    let (_, answer) = asked(&mut upstream).await;
    answer.send_response(Value::of(1));
    let joined = joined.await.unwrap();
    assert_eq!(joined.served, Served::Joined(Forward::Miss));
    assert_eq!(joined.copy.key, 1);
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_nobody_waits_for_still_fills_the_store() {
    let (mut cache, mut upstream) = mocked();
    let leader = cache.call(testing::request(1));
    let (_, answer) = asked(&mut upstream).await;
    drop(leader);
    answer.send_response(Value::of(1));
    settle().await;
    let later = cache.oneshot(testing::request(1)).await.unwrap();
    assert_eq!(later.served, Served::Hit);
    assert!(!is_asked(&mut upstream).await);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_bounds_its_own_wait_only() {
    let (mut cache, mut upstream) = mocked();
    let began = Instant::now();
    let hasty = cache.call(patient(1, seconds(3)));
    let steady = cache.call(patient(1, seconds(10)));
    let error = hasty.await.unwrap_err();
    assert_eq!(began.elapsed(), seconds(3));
    assert_eq!(error.kind(), Kind::UpstreamTimeout);
    assert_eq!(error.how(), Some(Served::Fetched(Forward::Miss)));

    let (_, answer) = asked(&mut upstream).await;
    time::advance(seconds(2)).await;
    answer.send_response(Value::of(1));
    assert_eq!(steady.await.unwrap().copy.key, 1);
    assert_eq!(began.elapsed(), seconds(5));
    let later = cache.oneshot(testing::request(1)).await.unwrap();
    assert_eq!(later.served, Served::Hit);
    assert!(!is_asked(&mut upstream).await);
}

#[tokio::test(start_paused = true)]
async fn all_waiters_of_a_failed_flight_get_its_one_error_and_none_fetches_again() {
    let (mut cache, mut upstream) = mocked();
    let waiters: Vec<_> = (0..10).map(|_| cache.call(testing::request(1))).collect();
    let (_, answer) = asked(&mut upstream).await;
    answer.send_error(failed());
    for (place, outcome) in join_all(waiters).await.into_iter().enumerate() {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), Kind::Upstream5xx);
        let how = match place {
            0 => Served::Fetched(Forward::Miss),
            _ => Served::Joined(Forward::Miss),
        };
        assert_eq!(error.how(), Some(how));
    }
    assert!(!is_asked(&mut upstream).await);
    assert!(cache.0.held.store.get(&1).is_none());

    // For a second the failure is remembered, and told with the rest of that second.
    time::advance(Duration::from_millis(400)).await;
    let error = cache.call(testing::request(1)).await.unwrap_err();
    assert_eq!(error.wait(), Some(Duration::from_millis(600)));
    assert!(!is_asked(&mut upstream).await);
    time::advance(Duration::from_millis(600)).await;
    let next = cache.call(testing::request(1));
    let (_, answer) = asked(&mut upstream).await;
    answer.send_response(Value::of(1));
    let served = next.await.unwrap().served;
    assert_eq!(served, Served::Fetched(Forward::Miss));
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_leaves_the_copy_where_it_is() {
    let (mut cache, mut upstream) = mocked();
    let first = cache.call(testing::request(1));
    let (_, answer) = asked(&mut upstream).await;
    answer.send_response(Value::of(1));
    let kept = first.await.unwrap().copy;
    time::advance(FRESH_FOR).await;
    let second = cache.call(testing::request(1));
    let (_, answer) = asked(&mut upstream).await;
    answer.send_error(failed());
    let error = second.await.unwrap_err();
    assert_eq!(error.how(), Some(Served::Fetched(Forward::Stale)));
    assert!(Arc::ptr_eq(&cache.0.held.store.get(&1).unwrap(), &kept));
}

#[tokio::test(start_paused = true)]
async fn a_panic_below_is_internal_for_those_who_wait_and_over_for_the_next() {
    let calls = Arc::new(AtomicUsize::new(0));
    let inner = service_fn(move |fetch: Fetch<u8>| {
        let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            assert!(!first, "this panic is part of the test");
            Ok::<_, Error>(Value::of(fetch.key))
        }
    });
    let mut cache = over(inner);
    let waiters = [0; 3].map(|_| cache.call(testing::request(1)));
    for outcome in join_all(waiters).await {
        assert_eq!(outcome.unwrap_err().kind(), Kind::Internal);
    }
    assert_eq!(cache.0.held.flights.count(), 0);
    let next = cache.call(testing::request(1)).await.unwrap();
    assert_eq!(next.served, Served::Fetched(Forward::Miss));
}

#[tokio::test(start_paused = true)]
async fn a_joiner_raises_the_urgency_of_the_flight() {
    let (mut cache, mut upstream) = mocked();
    let mut bulk = patient(1, seconds(5));
    bulk.terms.class = Class::Bulk;
    let leader = cache.call(bulk);
    let (fetch, answer) = asked(&mut upstream).await;
    assert_eq!(fetch.urgency.class(), Class::Bulk);

    let joiner = patient(1, seconds(20));
    let latest = joiner.terms.deadline;
    let joined = cache.call(joiner);
    assert_eq!(fetch.urgency.class(), Class::Interactive);
    assert_eq!(fetch.urgency.deadline(), latest);
    answer.send_response(Value::of(1));
    assert!(leader.await.is_ok() && joined.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_landed_since_the_look_up_is_a_hit() {
    let (mut cache, mut upstream) = mocked();
    let copy = testing::kept(Value::of(1), Instant::now());
    cache.0.held.store.put(1, copy);
    cache.0.held.store.blind.store(1, Ordering::Relaxed);
    let answer = cache.call(testing::request(1)).await.unwrap();
    assert_eq!(answer.served, Served::Hit);
    assert!(!is_asked(&mut upstream).await);
    assert_eq!(counted(&cache, Served::Hit), 1);
}

#[tokio::test(start_paused = true)]
async fn the_board_looks_again_only_where_no_flight_is_on_its_way() {
    let board = Board::<u8, Value>::default();
    let copy = testing::kept(Value::of(1), Instant::now());
    let kept = Mutex::new(None);
    let board_once = || {
        let look = |_: &u8| kept.lock().unwrap().clone();
        let copy = copy.clone();
        let keep = |_, _, _| ();
        board.board(testing::request(1), look, |_| async { Ok(copy) }, keep)
    };
    let leader = match board_once() {
        Boarded::Leader(waiter) => waiter,
        _ => panic!("nothing was there"),
    };
    // Stored, but not yet landed.
    *kept.lock().unwrap() = Some((copy.clone(), Served::Hit));
    assert!(matches!(board_once(), Boarded::Joined(_)));
    assert!(Arc::ptr_eq(&leader.wait().await.unwrap(), &copy));
    assert!(matches!(board_once(), Boarded::Landed(..)));
    assert_eq!(board.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn different_keys_do_not_wait_for_each_other() {
    let (mut cache, mut upstream) = mocked();
    let mut one = cache.call(testing::request(1));
    let two = cache.call(testing::request(2));
    let (first, _unanswered) = asked(&mut upstream).await;
    let (second, answer) = asked(&mut upstream).await;
    assert_eq!([first.key, second.key], [1, 2]);
    answer.send_response(Value::of(2));
    assert_eq!(two.await.unwrap().copy.key, 2);
    assert!((&mut one).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn copies_are_served_while_the_stage_below_is_not_ready() {
    let (mut cache, mut upstream) = mocked();
    let first = cache.call(testing::request(1));
    let (_, answer) = asked(&mut upstream).await;
    answer.send_response(Value::of(1));
    first.await.unwrap();

    upstream.allow(0);
    let hit = cache.ready().await.unwrap().call(testing::request(1)).await;
    assert_eq!(hit.unwrap().served, Served::Hit);
    let waiting = cache.ready().await.unwrap().call(testing::request(2));
    assert!(!is_asked(&mut upstream).await);
    upstream.allow(1);
    let (_, answer) = asked(&mut upstream).await;
    answer.send_response(Value::of(2));
    assert_eq!(waiting.await.unwrap().copy.key, 2);
}

#[tokio::test(start_paused = true)]
async fn each_request_is_counted_by_how_it_was_served() {
    let (mut cache, mut upstream) = mocked();
    for outcome in [Ok(()), Err(failed())] {
        let pair = [0; 2].map(|_| cache.call(testing::request(1)));
        let (_, answer) = asked(&mut upstream).await;
        match outcome {
            Ok(()) => answer.send_response(Value::of(1)),
            Err(error) => answer.send_error(error),
        }
        join_all(pair).await;
        let _ = cache.call(testing::request(1)).now_or_never();
        time::advance(FRESH_FOR).await;
    }
    let all = Served::ALL.map(|served| counted(&cache, served));
    // Hit, slice, stale, miss, expired, and the two joined; nothing was forced. The last request of all found a remembered
    // failure.
    assert_eq!(all, [1, 0, 0, 1, 2, 1, 1, 0, 0, 0]);
}

/// One step of a history.
#[derive(Clone, Debug)]
enum Step {
    Ask {
        key: u8,
        patience_ms: u64,
    },
    /// A waiter leaves: this one of those so far.
    Leave(usize),
    Advance(u64),
    /// From now on, the stage below ends in this way.
    Below(End),
}

#[derive(Clone, Copy, Debug)]
enum End {
    Answer,
    Fail,
    Panic,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_u8..3, 1_u64..4_000).prop_map(|(key, patience_ms)| Step::Ask { key, patience_ms }),
        2 => (0_usize..40).prop_map(Step::Leave),
        4 => (0_u64..3_000).prop_map(Step::Advance),
        1 => Just(Step::Advance(FRESH_FOR.as_millis() as u64 - 1_000)),
        2 => prop_oneof![3 => Just(End::Answer), 2 => Just(End::Fail), 1 => Just(End::Panic)].prop_map(Step::Below),
    ];
    prop::collection::vec(step, 1..60)
}

/// The stage below, as it watches itself.
#[derive(Default)]
struct Watched {
    end: Mutex<Option<End>>,
    running: Mutex<HashMap<u8, usize>>,
    most: AtomicUsize,
    calls: AtomicUsize,
}

/// Counts a key's calls under way, however they end.
struct Running<'a>(&'a Watched, u8);

impl<'a> Running<'a> {
    fn start(watched: &'a Watched, key: u8) -> Self {
        let mut running = watched.running.lock().unwrap();
        let now = running.entry(key).or_default();
        *now += 1;
        watched.most.fetch_max(*now, Ordering::Relaxed);
        Self(watched, key)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap().get_mut(&self.1).unwrap() -= 1;
    }
}

async fn live_through(steps: Vec<Step>) -> std::result::Result<(), TestCaseError> {
    let watched = Arc::new(Watched::default());
    let below = watched.clone();
    let inner = service_fn(move |fetch: Fetch<u8>| {
        let below = below.clone();
        async move {
            let _running = Running::start(&below, fetch.key);
            let call = below.calls.fetch_add(1, Ordering::Relaxed) as u64;
            time::sleep(Duration::from_millis(call * 677 % 2_000)).await;
            let end = *below.end.lock().unwrap();
            match end.unwrap_or(End::Answer) {
                End::Answer => Ok(Value::of(fetch.key)),
                End::Fail => Err(failed()),
                End::Panic => std::panic::resume_unwind(Box::new("part of the test")),
            }
        }
    });
    let mut cache = over(inner);
    let mut waiting = Vec::new();
    for step in steps {
        match step {
            Step::Ask { key, patience_ms } => {
                let request = patient(key, Duration::from_millis(patience_ms));
                let Terms { deadline, .. } = request.terms;
                let (asked_at, answer) = (Instant::now(), cache.call(request));
                waiting.push(tokio::spawn(async move {
                    let outcome = answer.await;
                    (key, asked_at, deadline, Instant::now(), outcome)
                }));
            }
            Step::Leave(place) => {
                if let Some(waiter) = waiting.get(place) {
                    waiter.abort();
                }
            }
            Step::Advance(by) => time::sleep(Duration::from_millis(by)).await,
            Step::Below(end) => *watched.end.lock().unwrap() = Some(end),
        }
    }
    let asked = waiting.len();
    for waiter in waiting {
        let ended = time::timeout(seconds(5), waiter).await;
        let Ok((key, asked_at, deadline, ended_at, outcome)) = ended.expect("every request ends")
        else {
            continue;
        };
        prop_assert!(ended_at <= deadline);
        if let Ok(answer) = outcome {
            let whole_at = answer.copy.whole_at;
            prop_assert_eq!(answer.copy.key, key);
            match answer.served {
                Served::Hit => {
                    prop_assert!(asked_at < whole_at + FRESH_FOR, "an expired copy as a hit");
                    prop_assert_eq!(
                        answer.ttl,
                        (whole_at + FRESH_FOR - asked_at).as_secs() as i64
                    );
                }
                _ => prop_assert!(whole_at >= asked_at, "an older answer than the request"),
            }
        }
    }
    time::sleep(seconds(5)).await;
    prop_assert_eq!(cache.0.held.flights.count(), 0);
    prop_assert!(watched.most.load(Ordering::Relaxed) <= 1);
    prop_assert!(watched.calls.load(Ordering::Relaxed) <= asked);
    Ok(())
}

proptest! {
    #[test]
    fn whatever_happens_one_flight_a_key_and_every_request_ends(steps in steps()) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live_through(steps))?;
    }
}

/// A stage below: how often it was called, and what it fails with while it is told to.
#[derive(Clone, Default)]
struct Below {
    calls: Arc<AtomicUsize>,
    fault: Arc<Mutex<Option<Kind>>>,
}

/// The stage with copies that stay of use for half a minute after they were fresh, over one that takes a second.
fn forgiving() -> (
    Cache<Shelf, impl Service<Fetch<u8>, Response = Value, Error = Error, Future: Send> + Clone>,
    Below,
) {
    let below = Below::default();
    let Below {
        calls: counted,
        fault: told,
    } = below.clone();
    let inner = service_fn(move |fetch: Fetch<u8>| {
        counted.fetch_add(1, Ordering::Relaxed);
        fetch.urgency.depart();
        let told = told.clone();
        async move {
            time::sleep(seconds(1)).await;
            match *told.lock().unwrap() {
                Some(kind) => Err(Error::new(kind, "told to")),
                None => Ok(Value::of(fetch.key)),
            }
        }
    });
    let lifetime = Lifetime {
        stale_for: seconds(30),
        ..testing::LIFETIME
    };
    let held = Arc::new(Held::new(Arc::new(Shelf::default())));
    let forced = Arc::new(Forced::new(6));
    let metrics = testing::metrics("pages");
    let stage = layer(held, forced, lifetime, || 0.0, metrics).layer(inner);
    (stage, below)
}

#[tokio::test(start_paused = true)]
async fn a_stale_copy_is_answered_at_once_while_one_flight_fetches_it_anew() {
    let (mut cache, Below { calls, .. }) = forgiving();
    let first = cache.call(testing::request(1)).await.unwrap().copy;
    time::advance(FRESH_FOR).await;
    let asked = Instant::now();
    for _ in 0..100 {
        let answer = cache.call(testing::request(1)).await.unwrap();
        assert_eq!(answer.served, Served::Stale(None));
        assert!(Arc::ptr_eq(&answer.copy, &first));
    }
    assert_eq!(Instant::now(), asked);
    time::sleep(seconds(2)).await;
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let served = cache.call(testing::request(1)).await.unwrap().served;
    assert_eq!(served, Served::Hit);
}

#[tokio::test(start_paused = true)]
async fn a_stale_copy_outlives_failures_and_says_which_until_it_ends() {
    let (mut cache, Below { calls, fault }) = forgiving();
    cache.call(testing::request(1)).await.unwrap();
    *fault.lock().unwrap() = Some(Kind::Upstream5xx);
    time::advance(FRESH_FOR).await;
    let began = Instant::now();
    let mut last = Served::Stale(None);
    while began.elapsed() < seconds(30) {
        last = cache.call(testing::request(1)).await.unwrap().served;
        time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(last, Served::Stale(Some(Kind::Upstream5xx)));
    // A second each, and rests of 1, 2, 4, 4, 4, 4 s between them.
    let tried = calls.load(Ordering::Relaxed) - 1;
    assert!((6..=8).contains(&tried), "{tried}");
    assert!(cache.call(testing::request(1)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_upstream_is_not_answered_from_a_stale_copy() {
    let (mut cache, Below { fault, .. }) = forgiving();
    cache.call(testing::request(1)).await.unwrap();
    *fault.lock().unwrap() = Some(Kind::StreamNotFound);
    time::advance(FRESH_FOR).await;
    assert!(cache.call(testing::request(1)).await.is_ok());
    time::sleep(seconds(2)).await;
    let error = cache.call(testing::request(1)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::StreamNotFound);
}

#[tokio::test(start_paused = true)]
async fn a_flight_that_still_queues_is_dropped_with_its_last_waiter_and_one_that_departed_is_not() {
    for departs in [false, true] {
        let calls = Arc::new(AtomicUsize::new(0));
        let landed = calls.clone();
        let inner = service_fn(move |fetch: Fetch<u8>| {
            let landed = landed.clone();
            async move {
                if departs {
                    fetch.urgency.depart();
                }
                time::sleep(seconds(5)).await;
                landed.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Error>(Value::of(fetch.key))
            }
        });
        let mut cache = over(inner);
        let (one, other) = (
            cache.call(testing::request(1)),
            cache.call(testing::request(1)),
        );
        time::sleep(seconds(1)).await;
        drop(one);
        time::sleep(seconds(1)).await;
        assert_eq!(cache.0.held.flights.count(), 1, "somebody still waits");
        drop(other);
        time::sleep(seconds(1)).await;
        assert_eq!(cache.0.held.flights.count(), usize::from(departs));
        time::sleep(seconds(5)).await;
        assert_eq!(calls.load(Ordering::Relaxed), usize::from(departs));
        // Whoever comes next finds the copy, or starts anew.
        assert!(cache.call(testing::request(1)).await.is_ok());
    }
}

fn saying(key: u8, directives: Directives) -> Request<u8> {
    let mut request = testing::request(key);
    request.terms.directives = directives;
    request
}

const NO_CACHE: Directives = Directives {
    no_cache: true,
    only_if_cached: false,
    max_age: None,
    min_fresh: None,
    max_stale: None,
    stale_if_error: None,
};

#[tokio::test(start_paused = true)]
async fn who_insists_has_a_fresh_copy_fetched_anew_but_not_a_young_one() {
    let (mut cache, calls) = slow();
    let first = cache.call(testing::request(1)).await.unwrap();
    let young = cache.call(saying(1, NO_CACHE)).await.unwrap();
    assert_eq!(young.served, Served::Floor);
    assert!(Arc::ptr_eq(&young.copy, &first.copy));
    time::advance(seconds(5)).await;
    let mut insisting = cache.call(saying(1, NO_CACHE));
    assert!((&mut insisting).now_or_never().is_none());
    // Whoever does not insist is answered meanwhile, and whoever does joins.
    let hit = cache.call(testing::request(1)).await.unwrap();
    assert_eq!(hit.served, Served::Hit);
    let joined = cache.call(saying(1, NO_CACHE));
    let forced = insisting.await.unwrap();
    assert_eq!(forced.served, Served::Fetched(Forward::Request));
    assert_eq!(
        joined.await.unwrap().served,
        Served::Joined(Forward::Request)
    );
    assert!(!Arc::ptr_eq(&forced.copy, &first.copy));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn insisting_in_a_loop_costs_six_calls_a_minute() {
    let (mut cache, calls) = slow();
    for key in 0..4 {
        cache.call(testing::request(key)).await.unwrap();
    }
    // One allowance for all that an account has.
    for second in 0..600_u64 {
        time::sleep(seconds(1)).await;
        cache
            .call(saying((second % 4) as u8, NO_CACHE))
            .await
            .unwrap();
    }
    let minutes = 600 * 2 / 60;
    let calls = calls.load(Ordering::Relaxed) - 4;
    assert!(
        (6 * minutes / 2..=6 * (minutes + 1)).contains(&calls),
        "{calls}"
    );
}

#[tokio::test(start_paused = true)]
async fn only_if_cached_costs_no_call() {
    let (mut cache, Below { calls, .. }) = forgiving();
    let only = Directives {
        only_if_cached: true,
        ..Directives::default()
    };
    let refused = cache.call(saying(1, only)).await.unwrap_err();
    assert_eq!(refused.kind(), Kind::OnlyIfCached);
    cache.call(testing::request(1)).await.unwrap();
    for (wait, served) in [(0, Served::Hit), (60, Served::Stale(None))] {
        time::advance(seconds(wait)).await;
        assert_eq!(cache.call(saying(1, only)).await.unwrap().served, served);
        time::sleep(seconds(2)).await;
    }
    time::advance(seconds(30)).await;
    assert!(cache.call(saying(1, only)).await.is_err());
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_will_not_do_does_after_a_failure_only_where_that_was_allowed() {
    let forgiving_for = |wait| Directives {
        stale_if_error: Some(seconds(wait)),
        ..NO_CACHE
    };
    for (directives, wait, answered) in [
        (NO_CACHE, 10, false),
        (forgiving_for(0), 10, true),
        (forgiving_for(15), 70, true),
        (forgiving_for(5), 70, false),
    ] {
        let (mut cache, Below { fault, .. }) = forgiving();
        let copy = cache.call(testing::request(1)).await.unwrap().copy;
        *fault.lock().unwrap() = Some(Kind::Upstream5xx);
        time::advance(seconds(wait)).await;
        // The second one finds the failure remembered.
        for _ in 0..2 {
            match cache.call(saying(1, directives)).await {
                Ok(answer) => {
                    assert!(answered, "{directives:?}");
                    assert!(Arc::ptr_eq(&answer.copy, &copy));
                    assert_eq!(answer.served, Served::Stale(Some(Kind::Upstream5xx)));
                }
                Err(error) => {
                    assert!(!answered, "{directives:?}");
                    assert_eq!(error.kind(), Kind::Upstream5xx);
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_not_fallen_back_to() {
    let (mut cache, Below { fault, .. }) = forgiving();
    cache.call(testing::request(1)).await.unwrap();
    *fault.lock().unwrap() = Some(Kind::StreamNotFound);
    time::advance(seconds(10)).await;
    let directives = Directives {
        stale_if_error: Some(seconds(60)),
        ..NO_CACHE
    };
    let error = cache.call(saying(1, directives)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::StreamNotFound);
}
