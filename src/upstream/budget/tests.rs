use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::task::JoinSet;
use tower::service_fn;

use super::*;
use crate::{
    contacts::{
        collection::Collection,
        ids::StreamId,
        page::{Page, Window as PageWindow},
        request::{Class, Terms},
        testing,
    },
    metrics::Registry,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Upstream's side of one account: counts each call at some moment of it, and refuses what is too much.
#[derive(Debug, Default)]
struct Limiter {
    counted: Mutex<VecDeque<Instant>>,
    most: AtomicU32,
    served: AtomicU32,
    refusals: Mutex<Vec<Instant>>,
}

const ALLOWED: usize = 60;

impl Limiter {
    fn count(&self, now: Instant) -> bool {
        let mut counted = self.counted.lock().unwrap();
        while counted.front().is_some_and(|call| *call + MINUTE <= now) {
            counted.pop_front();
        }
        if counted.len() >= ALLOWED {
            return false;
        }
        counted.push_back(now);
        self.most.fetch_max(counted.len() as u32, Ordering::Relaxed);
        true
    }

    async fn answer(&self, chance: u64) -> Result<Page> {
        let duration = Duration::from_millis(50 + chance % 450);
        time::sleep(duration.mul_f64((chance % 7) as f64 / 6.0)).await;
        let now = Instant::now();
        let served = self.count(now);
        time::sleep(duration.mul_f64(1.0 - (chance % 7) as f64 / 6.0)).await;
        if served {
            self.served.fetch_add(1, Ordering::Relaxed);
            return Ok(testing::page(0, 1, 1, now));
        }
        self.refusals.lock().unwrap().push(now);
        Err(Error::new(Kind::UpstreamRateLimited, "too many"))
    }
}

/// Numbers without a pattern, the same in each run.
#[derive(Debug)]
struct Chance(Mutex<u64>);

impl Chance {
    fn next(&self) -> u64 {
        let mut state = self.0.lock().unwrap();
        // xorshift64.
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    fn up_to(&self, most: Duration) -> Duration {
        most.mul_f64((self.next() % 10_000) as f64 / 10_000.0)
    }
}

/// The stage for one account over its limiter.
fn stage(
    config: &Config,
    limiter: Arc<Limiter>,
    chance: Arc<Chance>,
) -> (Arc<Account>, impl FetchPage) {
    let account = testing::account("acme");
    let metrics = Metrics::new(&Registry::new().unwrap()).unwrap();
    let budgets = Budgets::new([(&account, 60)], config, &metrics, Instant::now());
    let inner = service_fn(move |_: Fetch<PageKey>| {
        let (limiter, chance) = (limiter.clone(), chance.next());
        async move { limiter.answer(chance).await }.boxed()
    });
    (account, layer(Arc::new(budgets)).layer(inner))
}

fn fetch(account: &Arc<Account>, stream: &str, class: Class, patience: Duration) -> Fetch<PageKey> {
    let collection = Arc::new(Collection::new(
        account.clone(),
        StreamId::parse(stream).unwrap(),
    ));
    let terms = Terms {
        class,
        deadline: Instant::now() + patience,
        ..testing::request(()).terms
    };
    Fetch {
        key: PageKey {
            epoch: collection.epoch(),
            collection,
            window: PageWindow { skip: 0, limit: 1 },
        },
        urgency: Urgency::of(&terms),
        afresh: false,
    }
}

fn ready_at_once() -> Config {
    Config {
        start_share: 1.0,
        ..Config::default()
    }
}

#[tokio::test(start_paused = true)]
async fn the_sixty_first_waits_for_its_slot_or_is_refused_at_once() {
    let (limiter, chance) = (Arc::default(), Arc::new(Chance(Mutex::new(1))));
    let (account, stage) = stage(&ready_at_once(), limiter, chance);
    let ask = |patience| {
        stage
            .clone()
            .oneshot(fetch(&account, "st-1", Class::Interactive, patience))
    };
    let started = Instant::now();
    let mut sixty: FuturesUnordered<_> = (0..60).map(|_| ask(30 * SECOND)).collect();
    while let Some(outcome) = sixty.next().await {
        assert!(outcome.is_ok());
    }
    // Nothing is free before a minute has gone by: who cannot wait so long is told so before it has waited.
    let refused = Instant::now();
    let error = ask(30 * SECOND).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BudgetExhausted);
    assert_eq!(Instant::now(), refused);
    let wait = error.wait().unwrap();
    assert!((59 * SECOND..=61 * SECOND).contains(&wait), "{wait:?}");
    // And what it is told is what then happens.
    time::sleep(wait - 10 * SECOND).await;
    assert!(ask(30 * SECOND).await.is_ok());
    assert!(started.elapsed() > MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_queued_fetch_that_is_dropped_costs_nothing() {
    let (limiter, chance) = (Arc::<Limiter>::default(), Arc::new(Chance(Mutex::new(1))));
    let (account, stage) = stage(&ready_at_once(), limiter.clone(), chance);
    let ask = |class| {
        stage
            .clone()
            .oneshot(fetch(&account, "st-1", class, 300 * SECOND))
    };
    let mut all: FuturesUnordered<_> = (0..60).map(|_| ask(Class::Interactive)).collect();
    while all.next().await.is_some() {}
    let queued: Vec<_> = (0..50)
        .map(|_| tokio::spawn(ask(Class::Interactive)))
        .collect();
    time::sleep(SECOND).await;
    for task in &queued {
        task.abort();
    }
    time::sleep(2 * MINUTE).await;
    assert_eq!(limiter.served.load(Ordering::Relaxed), 60);
    // All slots are there again.
    let mut all: FuturesUnordered<_> = (0..60).map(|_| ask(Class::Interactive)).collect();
    let asked = Instant::now();
    while all.next().await.is_some() {}
    assert!(asked.elapsed() < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_pause_refuses_those_that_wait_as_well() {
    let (limiter, chance) = (Arc::<Limiter>::default(), Arc::new(Chance(Mutex::new(1))));
    // A stranger has just used the account up.
    for _ in 0..60 {
        limiter.count(Instant::now());
    }
    let (account, stage) = stage(&ready_at_once(), limiter, chance);
    let ask = || {
        stage
            .clone()
            .oneshot(fetch(&account, "st-1", Class::Interactive, 30 * SECOND))
    };
    let error = ask().await.unwrap_err();
    assert_eq!(error.kind(), Kind::UpstreamRateLimited);
    assert_eq!(error.wait(), Some(MINUTE));
    let error = ask().await.unwrap_err();
    assert_eq!(error.kind(), Kind::BudgetExhausted);
    assert!(error.wait().unwrap() > 59 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_was_never_sent_costs_nothing() {
    let account = testing::account("acme");
    let metrics = Metrics::new(&Registry::new().unwrap()).unwrap();
    let budgets = Budgets::new([(&account, 60)], &ready_at_once(), &metrics, Instant::now());
    let disabled = || Error::new(Kind::CredentialsUnavailable, "no secret").unsent();
    let inner = service_fn(move |_: Fetch<PageKey>| std::future::ready(Err::<Page, _>(disabled())));
    let stage = layer(Arc::new(budgets)).layer(inner);
    for _ in 0..100 {
        let fetch = fetch(&account, "st-1", Class::Interactive, 30 * SECOND);
        let error = stage.clone().oneshot(fetch).await.unwrap_err();
        assert_eq!(error.kind(), Kind::CredentialsUnavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_has_a_bound() {
    let (limiter, chance) = (Arc::<Limiter>::default(), Arc::new(Chance(Mutex::new(1))));
    let config = Config {
        queue_max: 3,
        ..ready_at_once()
    };
    let (account, stage) = stage(&config, limiter, chance);
    let ask = || {
        stage
            .clone()
            .oneshot(fetch(&account, "st-1", Class::Interactive, 3600 * SECOND))
    };
    let mut asked: FuturesUnordered<_> = (0..70).map(|_| ask()).collect();
    let mut refused = 0;
    while let Some(outcome) = asked.next().await {
        refused += usize::from(outcome.is_err_and(|error| error.kind() == Kind::BudgetExhausted));
    }
    assert_eq!(refused, 7);
}

/// What a day of mixed load came to.
#[derive(Debug)]
struct Day {
    most: u32,
    refusals: Vec<Duration>,
    /// How long interactive calls took, shortest first.
    interactive: Vec<Duration>,
    exhausted: usize,
    /// Pages of whole lists, in each ten minutes.
    bulk: Vec<u32>,
}

/// A day of one account: four interactive misses a minute, a walk of 500 pages in turn with the next, a refresh now and
/// then; and perhaps a stranger who uses the account too, so many times a minute.
async fn day(seed: u64, hours: u64, strangers: u64) -> Day {
    let (limiter, chance) = (
        Arc::<Limiter>::default(),
        Arc::new(Chance(Mutex::new(seed))),
    );
    let (account, stage) = stage(&ready_at_once(), limiter.clone(), chance.clone());
    let started = Instant::now();
    let end = started + Duration::from_secs(3600 * hours);
    let over = Arc::new(AtomicBool::new(false));

    let stranger = tokio::spawn({
        let (limiter, chance, over) = (limiter.clone(), chance.clone(), over.clone());
        async move {
            while strangers > 0 && !over.load(Ordering::Relaxed) {
                // Steadily, give or take a quarter.
                let step = MINUTE / strangers as u32;
                time::sleep(step * 3 / 4 + chance.up_to(step / 2)).await;
                // It is served or refused like anybody; what it does then is its own affair.
                limiter.count(Instant::now());
            }
        }
    });
    let walks = tokio::spawn({
        let (stage, account, over) = (stage.clone(), account.clone(), over.clone());
        async move {
            let mut bulk = vec![0_u32; (hours * 6 + 1) as usize];
            while !over.load(Ordering::Relaxed) {
                // One walk is one flight: once it has made a call, it waits as long as it takes.
                let walk = fetch(&account, "st-walk", Class::Bulk, 60 * MINUTE);
                let mut pages: FuturesUnordered<_> = (0..8)
                    .map(|_| stage.clone().oneshot(walk.clone()))
                    .collect();
                let mut left = 500;
                while let Some(outcome) = pages.next().await {
                    bulk[(started.elapsed().as_secs() / 600) as usize
                        % (hours * 6 + 1) as usize] += u32::from(outcome.is_ok());
                    left -= i32::from(outcome.is_ok());
                    if left > 8 && !over.load(Ordering::Relaxed) {
                        pages.push(stage.clone().oneshot(walk.clone()));
                    }
                }
            }
            bulk
        }
    });
    let mut asked = JoinSet::new();
    let (mut interactive, mut exhausted) = (Vec::new(), 0);
    while Instant::now() < end {
        time::sleep(chance.up_to(30 * SECOND)).await;
        let class = if chance.next().is_multiple_of(5) {
            Class::Background
        } else {
            Class::Interactive
        };
        let stream = format!("st-{}", chance.next() % 7);
        let one = stage
            .clone()
            .oneshot(fetch(&account, &stream, class, 30 * SECOND));
        asked.spawn(async move {
            let asked = Instant::now();
            (class, one.await, asked.elapsed())
        });
    }
    over.store(true, Ordering::Relaxed);
    let bulk = walks.await.unwrap();
    stranger.await.unwrap();
    while let Some(done) = asked.join_next().await {
        match done.unwrap() {
            (Class::Interactive, Ok(_), took) => interactive.push(took),
            (Class::Interactive, Err(error), _) if error.kind() == Kind::BudgetExhausted => {
                exhausted += 1
            }
            _ => {}
        }
    }
    interactive.sort();
    let refusals = limiter
        .refusals
        .lock()
        .unwrap()
        .iter()
        .map(|at| *at - started)
        .collect();
    Day {
        most: limiter.most.load(Ordering::Relaxed),
        refusals,
        interactive,
        exhausted,
        bulk,
    }
}

#[tokio::test(start_paused = true)]
async fn a_day_alone_has_no_refusal_and_interactive_calls_do_not_wait() {
    for seed in [1] {
        let day = day(seed, 24, 0).await;
        assert!(day.most <= 60, "seed {seed}: {}", day.most);
        assert_eq!((day.refusals.len(), day.exhausted), (0, 0), "seed {seed}");
        let p99 = day.interactive[day.interactive.len() * 99 / 100];
        assert!(p99 < 5 * SECOND, "seed {seed}: {p99:?}");
        // Sixty a minute less what others take, and never nothing.
        let least = day.bulk[..day.bulk.len() - 1].iter().min().unwrap();
        assert!(*least > 300, "seed {seed}: {:?}", day.bulk);
    }
}

#[tokio::test(start_paused = true)]
async fn strangers_are_learned_and_yielded_to() {
    for seed in [1, 3] {
        let day = day(seed, 24, 30).await;
        let mut learned: Vec<_> = day.refusals;
        learned.retain(|at| *at > 10 * MINUTE);
        // Calls that were on their way together are refused together: that is one lesson.
        learned.dedup_by(|later, earlier| *later - *earlier < SECOND);
        for pair in learned.windows(2) {
            assert!(pair[1] - pair[0] > 10 * MINUTE, "seed {seed}: {learned:?}");
        }
        let least = day.bulk[..day.bulk.len() - 1].iter().min().unwrap();
        assert!(*least > 0, "seed {seed}: {:?}", day.bulk);
    }
}
