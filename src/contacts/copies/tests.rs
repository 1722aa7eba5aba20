//! Purges against whatever else happens, on paused time: the cache of pages as it is built, over a stage that tells which
//! call it was.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::time;
use tower::{Layer, Service, ServiceExt, service_fn};

use arc_swap::ArcSwap;

use super::*;
use crate::{
    contacts::{
        account,
        cache::{
            self,
            entry::{Entry, Lifetime},
            forced::Forced,
            store::Store,
        },
        directives::Directives,
        ids::StreamId,
        page::{Page, Window},
        request::Fetch,
        testing,
    },
    error::{Error, Kind},
    served::{Answer, Served},
    service::ServePage,
};

const FRESH_FOR: Duration = Duration::from_secs(60);
const STALE_FOR: Duration = Duration::from_secs(120);

/// What the stage below has seen and is told.
#[derive(Default)]
struct Upstream {
    calls: AtomicUsize,
    fails: Mutex<bool>,
    /// Calls of each key that are under way, and the most there ever were.
    running: Mutex<HashMap<PageKey, usize>>,
    most: AtomicUsize,
}

/// One of them under way, however it ends.
struct Running<'a>(&'a Upstream, PageKey);

impl<'a> Running<'a> {
    fn start(upstream: &'a Upstream, key: &PageKey) -> Self {
        let mut running = upstream.running.lock().unwrap();
        let now = running.entry(key.clone()).or_default();
        *now += 1;
        upstream.most.fetch_max(*now, Ordering::Relaxed);
        Self(upstream, key.clone())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap().get_mut(&self.1).unwrap() -= 1;
    }
}

/// Two accounts of two streams each.
struct World {
    copies: Copies,
    lists: Arc<Lists>,
    collections: Vec<Arc<Collection>>,
    upstream: Arc<Upstream>,
}

fn world() -> (World, impl ServePage) {
    let config = |name: &str| account::Config {
        name: name.to_owned(),
        account_id: name.to_owned(),
        client_id: format!("cs-{name}"),
        ..account::Config::default()
    };
    let accounts = Arc::new(Accounts::new(&[config("a"), config("b")]).unwrap());
    let collections = ["a", "b"].into_iter().flat_map(|account| {
        let account = accounts.get(account).unwrap().clone();
        ["st-1", "st-2"].map(move |stream| {
            let stream = StreamId::parse(stream).unwrap();
            Arc::new(Collection::new(account.clone(), stream))
        })
    });
    let collections = collections.collect();
    let metrics = testing::metrics("pages");
    let lifetime = Lifetime {
        fresh_for: FRESH_FOR,
        stale_for: STALE_FOR,
    };
    let pages = Pages::new(1 << 30, lifetime, metrics.clone());
    let pages = Arc::new(Held::new(Arc::new(pages)));
    let lists = Arc::new(Lists::new(1 << 30, testing::metrics("lists")));
    let upstream = Arc::new(Upstream::default());
    let below = upstream.clone();
    let inner = service_fn(move |fetch: Fetch<PageKey>| {
        let below = below.clone();
        fetch.urgency.depart();
        async move {
            let _running = Running::start(&below, &fetch.key);
            let call = below.calls.fetch_add(1, Ordering::Relaxed) as u64;
            let asked_at = Instant::now();
            time::sleep(Duration::from_millis(call * 677 % 4_000)).await;
            if *below.fails.lock().unwrap() {
                return Err(Error::new(Kind::Upstream5xx, "down"));
            }
            Ok(testing::page(fetch.key.window.skip, 10, 100, asked_at))
        }
        .boxed()
    });
    let forced = Arc::new(Forced::new(6));
    let cached = cache::layer(pages.clone(), forced, lifetime, || 0.0, metrics.clone());
    let stage = slice::layer(metrics).layer(cached.layer(inner));
    let world = World {
        copies: Copies::new(
            Arc::new(ArcSwap::new(accounts)),
            pages,
            Arc::new(Held::new(lists.clone())),
        ),
        lists,
        collections,
        upstream,
    };
    (world, stage)
}

impl World {
    fn key(&self, place: usize) -> PageKey {
        let collection = self.collections[place / 2 % 4].clone();
        PageKey {
            epoch: collection.epoch(),
            collection,
            window: Window {
                skip: (place % 2 * 10) as u64,
                limit: 10,
            },
        }
    }

    /// What a purge of this width around a page is about.
    fn subject(&self, place: usize, width: usize) -> Subject {
        let key = self.key(place);
        match width {
            0 => Subject::Page(key),
            1 => Subject::Collection(key.collection),
            2 => Subject::Account(key.collection.account.clone()),
            _ => Subject::All,
        }
    }

    /// Whether a purge of this width around one page is about another.
    fn concerns(&self, purged: usize, width: usize, place: usize) -> bool {
        match width {
            0 => purged == place,
            1 => purged / 2 == place / 2,
            2 => purged / 4 == place / 4,
            _ => true,
        }
    }
}

const PLACES: usize = 8;

async fn ask(stage: &impl ServePage, key: PageKey) -> crate::error::Result<Answer<Page>> {
    stage.clone().oneshot(testing::request(key)).await
}

#[tokio::test(start_paused = true)]
async fn a_purge_is_about_what_it_names_and_nothing_else() {
    for width in 0..4 {
        for purge in [Purge::Hard, Purge::Soft] {
            let (world, stage) = world();
            for place in 0..PLACES {
                ask(&stage, world.key(place)).await.unwrap();
            }
            let concerned = (0..PLACES)
                .filter(|place| world.concerns(5, width, *place))
                .count();
            let subject = world.subject(5, width);
            assert_eq!(world.copies.count(&subject).pages, concerned);
            world.copies.purge(&subject, purge, Instant::now());
            for place in 0..PLACES {
                let explained = world
                    .copies
                    .explain_page(&testing::request(world.key(place)), Instant::now());
                let expected = match purge {
                    _ if !world.concerns(5, width, place) => Outcome::Hit,
                    Purge::Hard => Outcome::Miss,
                    Purge::Soft => Outcome::Stale,
                };
                assert_eq!(explained.outcome, expected, "{purge:?} {width} {place}");
            }
            let calls = world.upstream.calls.load(Ordering::Relaxed);
            assert_eq!(calls, PLACES, "an explanation costs no call");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_before_a_hard_purge_is_never_kept() {
    for width in 0..4 {
        let (world, stage) = world();
        // The first call is over at once; the second one takes a while.
        ask(&stage, world.key(0)).await.unwrap();
        let before = ask(&stage, world.key(5));
        let purging = async {
            time::sleep(Duration::from_millis(1)).await;
            world
                .copies
                .purge(&world.subject(5, width), Purge::Hard, Instant::now());
            // Whoever asks now does not get what was read before.
            let (purged, after) = (Instant::now(), ask(&stage, world.key(5)).await.unwrap());
            assert!(after.copy.read_at >= purged, "{width}");
        };
        let (before, ()) = tokio::join!(before, purging);
        // Whoever asked before it does.
        assert!(!before.unwrap().copy.is_kept(), "{width}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_for_before_a_soft_purge_is_stale_from_the_start() {
    for width in 0..4 {
        let (world, stage) = world();
        ask(&stage, world.key(0)).await.unwrap();
        let before = ask(&stage, world.key(5));
        let purging = async {
            time::sleep(Duration::from_millis(1)).await;
            world
                .copies
                .purge(&world.subject(5, width), Purge::Soft, Instant::now());
        };
        let (before, ()) = tokio::join!(before, purging);
        assert!(before.unwrap().copy.is_kept());
        let answer = ask(&stage, world.key(5)).await.unwrap();
        assert_eq!(answer.served, Served::Stale(None), "{width}");
        // And is then fetched anew.
        time::sleep(Duration::from_secs(5)).await;
        let answer = ask(&stage, world.key(5)).await.unwrap();
        assert_eq!(answer.served, Served::Hit, "{width}");
    }
}

/// Catches a caller that has fetched one by one, and for as many calls, what the list that is held says.
#[tokio::test(start_paused = true)]
async fn insisting_on_windows_of_a_fresh_list_costs_six_calls_a_minute() {
    let (world, stage) = world();
    let (key, now) = (world.key(0), Instant::now());
    let list = ListKey {
        collection: key.collection.clone(),
        epoch: key.epoch,
    };
    let lifetime = Lifetime {
        fresh_for: FRESH_FOR,
        stale_for: STALE_FOR,
    };
    let copy = Entry::new(testing::list(100, now), &list, now, lifetime, 0.0);
    world.lists.put(list, Arc::new(copy));
    let page = testing::page(0, 10, 100, now);
    key.collection.limits.learn(key.window, &page);
    let insist = async |skip: u64| {
        let window = Window { skip, limit: 10 };
        let mut request = testing::request(PageKey {
            window,
            ..key.clone()
        });
        request.terms.directives.no_cache = true;
        let explained = world.copies.explain_page(&request, Instant::now()).outcome;
        let answer = stage.clone().oneshot(request).await.unwrap();
        assert_eq!(answer.copy.body, testing::body(skip, 10, 100));
        (explained, answer.served)
    };
    assert_eq!(insist(0).await, (Outcome::RefreshFloor, Served::Floor));
    time::sleep(Duration::from_secs(5)).await;
    for place in 0..9 {
        let (explained, served) = insist(place * 10).await;
        assert_eq!(explained, Outcome::Forced);
        let expected = match place {
            0..6 => Served::Fetched(crate::served::Forward::Request),
            _ => Served::Floor,
        };
        assert_eq!(served, expected, "{place}");
    }
    assert_eq!(world.upstream.calls.load(Ordering::Relaxed), 6);
}

#[tokio::test(start_paused = true)]
async fn a_page_that_was_purged_is_not_cut_from_a_list_that_was_not() {
    for (purge, expected) in [
        (Purge::Soft, Ok(Served::Stale(Some(Kind::Upstream5xx)))),
        (Purge::Hard, Err(Kind::Upstream5xx)),
    ] {
        let (world, stage) = world();
        let (key, now) = (world.key(0), Instant::now());
        let list = ListKey {
            collection: key.collection.clone(),
            epoch: key.epoch,
        };
        let lifetime = Lifetime {
            fresh_for: FRESH_FOR,
            stale_for: STALE_FOR,
        };
        let copy = Entry::new(testing::list(35, now), &list, now, lifetime, 0.0);
        world.lists.put(list, Arc::new(copy));
        let page = testing::page(0, 10, 35, now);
        key.collection.limits.learn(key.window, &page);
        let before = ask(&stage, key.clone()).await.unwrap();
        assert_eq!(before.served, Served::Slice);
        world
            .copies
            .purge(&Subject::Page(key.clone()), purge, Instant::now());
        *world.upstream.fails.lock().unwrap() = true;
        let after = ask(&stage, key).await;
        let after = after.map(|answer| answer.served);
        assert_eq!(after.map_err(|error| error.kind()), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_was_purged_meanwhile_is_nobodys_last_resort() {
    for (purge, served) in [(Purge::Soft, true), (Purge::Hard, false)] {
        let (world, stage) = world();
        ask(&stage, world.key(0)).await.unwrap();
        *world.upstream.fails.lock().unwrap() = true;
        time::sleep(FRESH_FOR).await;
        let mut request = testing::request(world.key(0));
        request.terms.directives = Directives {
            no_cache: true,
            stale_if_error: Some(STALE_FOR),
            ..Directives::default()
        };
        let purging = async {
            time::sleep(Duration::from_millis(1)).await;
            world
                .copies
                .purge(&world.subject(0, 1), purge, Instant::now());
        };
        let (answer, ()) = tokio::join!(stage.oneshot(request), purging);
        assert_eq!(answer.is_ok(), served, "{purge:?}");
    }
}

/// Brings a world to where a request of its first page goes this way.
async fn bring_about(outcome: Outcome, world: &World, stage: &impl ServePage) -> Directives {
    let key = || world.key(0);
    let no_cache = Directives {
        no_cache: true,
        ..Directives::default()
    };
    match outcome {
        Outcome::Miss => {}
        Outcome::OnlyIfCached => {
            return Directives {
                only_if_cached: true,
                ..Directives::default()
            };
        }
        Outcome::Resting => {
            *world.upstream.fails.lock().unwrap() = true;
            ask(stage, key()).await.unwrap_err();
        }
        Outcome::Joined => {
            // The second call takes a while.
            ask(stage, world.key(1)).await.unwrap();
            tokio::spawn(ask_owned(stage.clone(), key()));
            time::sleep(Duration::from_millis(1)).await;
        }
        Outcome::Slice => {
            let key = key();
            let now = Instant::now();
            let list = testing::list(35, now);
            key.collection.publish(testing::kept(list, now));
            let page = testing::page(0, 10, 35, now);
            key.collection.limits.learn(key.window, &page);
        }
        Outcome::Hit
        | Outcome::RefreshFloor
        | Outcome::Forced
        | Outcome::Stale
        | Outcome::Expired => {
            ask(stage, key()).await.unwrap();
            let wait = match outcome {
                Outcome::Forced => Duration::from_secs(5),
                Outcome::Stale => FRESH_FOR,
                Outcome::Expired => FRESH_FOR + STALE_FOR,
                _ => Duration::ZERO,
            };
            time::sleep(wait).await;
            if matches!(outcome, Outcome::RefreshFloor | Outcome::Forced) {
                return no_cache;
            }
        }
    }
    Directives::default()
}

async fn ask_owned(stage: impl ServePage, key: PageKey) {
    let _ = ask(&stage, key).await;
}

#[tokio::test(start_paused = true)]
async fn each_explanation_is_what_then_happens() {
    use crate::served::Forward;
    for outcome in Outcome::ALL {
        let (world, stage) = world();
        let directives = bring_about(*outcome, &world, &stage).await;
        let mut request = testing::request(world.key(0));
        request.terms.directives = directives;
        let explained = world.copies.explain_page(&request, Instant::now());
        assert_eq!(explained.outcome, *outcome);
        let happened = match stage.oneshot(request).await {
            Ok(answer) => match answer.served {
                Served::Hit => Outcome::Hit,
                Served::Slice => Outcome::Slice,
                Served::Stale(_) => Outcome::Stale,
                Served::Floor => Outcome::RefreshFloor,
                Served::Fetched(Forward::Miss) => Outcome::Miss,
                Served::Fetched(Forward::Stale) => Outcome::Expired,
                Served::Fetched(Forward::Request) => Outcome::Forced,
                Served::Joined(_) => Outcome::Joined,
            },
            Err(error) if error.kind() == Kind::OnlyIfCached => Outcome::OnlyIfCached,
            Err(_) => Outcome::Resting,
        };
        assert_eq!(happened, *outcome);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask {
        place: usize,
        no_cache: bool,
    },
    /// A waiter gives up.
    Leave(usize),
    Purge {
        place: usize,
        width: usize,
        hard: bool,
    },
    Wait(u64),
    Fail(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let place = 0..PLACES;
    prop_oneof![
        6 => (place.clone(), prop::bool::weighted(0.2)).prop_map(|(place, no_cache)| Step::Ask { place, no_cache }),
        1 => (0_usize..40).prop_map(Step::Leave),
        2 => (place, 0_usize..4, any::<bool>()).prop_map(|(place, width, hard)| Step::Purge { place, width, hard }),
        3 => (0_u64..3_000).prop_map(Step::Wait),
        1 => (20_000_u64..90_000).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Fail),
    ]
}

async fn live_through(steps: Vec<Step>) -> std::result::Result<(), TestCaseError> {
    let (world, stage) = world();
    let mut waiting = Vec::new();
    // When each page was last purged, hard and soft.
    let (mut hard, mut soft) = ([None; PLACES], [None; PLACES]);
    for step in steps {
        match step {
            Step::Ask { place, no_cache } => {
                let mut request = testing::request(world.key(place));
                request.terms.directives = Directives {
                    no_cache,
                    ..Directives::default()
                };
                let (asked, key) = (Instant::now(), request.key.clone());
                let mut stage = stage.clone();
                let answer = stage.call(request);
                let purged = (hard[place], soft[place]);
                waiting.push(tokio::spawn(
                    async move { (key, asked, purged, answer.await) },
                ));
            }
            Step::Leave(place) => {
                if let Some(waiter) = waiting.get(place) {
                    waiter.abort();
                }
            }
            Step::Purge {
                place,
                width,
                hard: is_hard,
            } => {
                let how = if is_hard { Purge::Hard } else { Purge::Soft };
                let now = Instant::now();
                world.copies.purge(&world.subject(place, width), how, now);
                for other in (0..PLACES).filter(|other| world.concerns(place, width, *other)) {
                    let purged = if is_hard { &mut hard } else { &mut soft };
                    purged[other] = Some(now);
                }
                // Time goes on, so that what comes next is told from what came before.
                time::sleep(Duration::from_millis(1)).await;
            }
            Step::Wait(millis) => time::sleep(Duration::from_millis(millis)).await,
            Step::Fail(fails) => *world.upstream.fails.lock().unwrap() = fails,
        }
    }
    for waiter in waiting {
        let ended = time::timeout(Duration::from_secs(60), waiter).await;
        let Ok((key, asked, (hard, soft), outcome)) = ended.expect("every request ends") else {
            continue;
        };
        let Ok(answer) = outcome else {
            continue;
        };
        let copy = &answer.copy;
        let held = testing::page(key.window.skip, 10, 100, asked);
        prop_assert_eq!(&copy.body, &held.body, "another key's page");
        prop_assert!(
            hard.is_none_or(|purged| copy.read_at >= purged),
            "from an ended epoch"
        );
        let age = asked.saturating_duration_since(copy.read_at);
        prop_assert!(
            age <= FRESH_FOR + STALE_FOR + Duration::from_secs(4),
            "given up long ago"
        );
        if answer.served == Served::Hit {
            prop_assert!(age <= FRESH_FOR + Duration::from_secs(4), "no longer fresh");
            prop_assert!(
                soft.is_none_or(|purged| copy.read_at > purged),
                "outdated, and a hit"
            );
        }
    }
    // A page that was purged alone keeps its key, so that a second call may be under way beside the disowned one.
    let most = world.upstream.most.load(Ordering::Relaxed);
    let purges = hard.iter().flatten().count();
    prop_assert!(most <= 1 + purges);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever is asked, purged, left, failed and waited for: no answer is of another key, of an ended epoch, or older
    /// than may be.
    #[test]
    fn no_interleaving_shows_what_is_gone(steps in prop::collection::vec(step(), 1..60)) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(live_through(steps))?;
    }
}
