use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use proptest::prelude::*;
use tokio::task::JoinSet;
use tower::service_fn;

use super::*;
use crate::{
    contacts::{
        account::Account,
        collection::Collection,
        ids::StreamId,
        page::{Page, Window as PageWindow},
        request::Class,
        testing,
    },
    metrics::Registry,
    service::{Calls, Forecast},
};

mod day;
mod fair;
mod standing;

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

/// The stage for some accounts, each over its own limiter.
fn stage_of(
    config: &Config,
    accounts: &[(Arc<Account>, Arc<Limiter>)],
    chance: Arc<Chance>,
) -> impl FetchPage + use<> {
    let metrics = Metrics::new(&Registry::new().unwrap()).unwrap();
    let calls = accounts.iter().map(|(account, _)| (account, 60));
    let budgets = Budgets::new(calls, config, 0.25, &metrics, Instant::now());
    let limiters: HashMap<_, _> = accounts
        .iter()
        .map(|(account, limiter)| (account.id.clone(), limiter.clone()))
        .collect();
    let inner = service_fn(move |fetch: Fetch<PageKey>| {
        let limiter = limiters[&fetch.key.collection.account.id].clone();
        let chance = chance.next();
        async move { limiter.answer(chance).await }.boxed()
    });
    layer(Arc::new(budgets)).layer(inner)
}

/// The stage for one account.
fn stage(
    config: &Config,
    limiter: Arc<Limiter>,
    chance: Arc<Chance>,
) -> (Arc<Account>, impl FetchPage) {
    let account = testing::account("acme");
    let stage = stage_of(config, &[(account.clone(), limiter)], chance);
    (account, stage)
}

fn fetch(account: &Arc<Account>, stream: &str, class: Class, patience: Duration) -> Fetch<PageKey> {
    let collection = Arc::new(Collection::new(
        account.clone(),
        StreamId::parse(stream).unwrap(),
    ));
    let mut request = testing::request(PageKey {
        epoch: collection.epoch(),
        collection,
        window: PageWindow { skip: 0, limit: 1 },
    });
    request.terms.class = class;
    request.terms.deadline = Instant::now() + patience;
    Fetch::of(request)
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

/// C18. Catches a wait that is told as a minute although more than a minute's calls are before it: whoever comes back then is
/// refused once more.
#[tokio::test(start_paused = true)]
async fn a_wait_of_more_than_a_minute_is_told_as_what_it_is() {
    let (limiter, chance) = (Arc::default(), Arc::new(Chance(Mutex::new(1))));
    let (account, stage) = stage(&ready_at_once(), limiter, chance);
    let ask = |patience| {
        stage
            .clone()
            .oneshot(fetch(&account, "st-1", Class::Interactive, patience))
    };
    let patient = || tokio::spawn(ask(300 * SECOND));
    let ahead: Vec<_> = (0..130).map(|_| patient()).collect();
    time::sleep(SECOND).await;
    let error = ask(30 * SECOND).await.unwrap_err();
    assert_eq!(error.kind(), Kind::BudgetExhausted);
    let wait = error.wait().unwrap();
    assert!((115 * SECOND..=122 * SECOND).contains(&wait), "{wait:?}");
    time::sleep(wait).await;
    assert!(ask(30 * SECOND).await.is_ok());
    drop(ahead);
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
    let budgets = Budgets::new(
        [(&account, 60)],
        &ready_at_once(),
        0.25,
        &metrics,
        Instant::now(),
    );
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

/// One request of the property below, in milliseconds from the one before it.
#[derive(Clone, Debug)]
struct Asked {
    after: u64,
    class: Class,
    patience: u64,
    /// Until whoever asked leaves.
    leaves: Option<u64>,
    /// How long upstream takes, and when it counts the call, as a share of that.
    takes: u64,
    counted: f64,
    /// In seconds.
    refused: Option<Option<u64>>,
}

fn asked() -> impl Strategy<Value = Asked> {
    let class = prop_oneof![
        Just(Class::Background),
        Just(Class::Bulk),
        Just(Class::Interactive),
    ];
    let refused = prop_oneof![
        9 => Just(None),
        1 => proptest::option::of(0_u64..90).prop_map(Some),
    ];
    let whether = (0_u64..5_000, class, 0_u64..120_000);
    let then = (
        proptest::option::weighted(0.2, 0_u64..60_000),
        0_u64..8_000,
        0.0..1.0,
        refused,
    );
    (whether, then).prop_map(
        |((after, class, patience), (leaves, takes, counted, refused))| Asked {
            after,
            class,
            patience,
            leaves,
            takes,
            counted,
            refused,
        },
    )
}

/// Catches a forecast in which a call that has its slot, and was not yet made, needs another one.
#[tokio::test(start_paused = true)]
async fn a_slot_that_is_given_out_counts_once() {
    let collection = testing::collection("st-1");
    let (metrics, now) = (
        Metrics::new(&Registry::new().unwrap()).unwrap(),
        Instant::now(),
    );
    let config = Config {
        start_share: 1.0,
        reserve: 0,
        ..Config::default()
    };
    let account = &collection.account;
    let budgets = Budgets::new([(account, 4)], &config, 0.25, &metrics, now);
    let budget = budgets.of(&account.id).unwrap();
    let fits = |number| {
        let calls = Calls {
            number,
            width: 8,
            each: SECOND,
        };
        budgets.ends_at(&collection, Class::Bulk, calls, now) == now + SECOND
    };
    let urgency = Urgency::of(&testing::request(()).terms);
    let mut slot = budget.slot(&urgency, collection.number()).await.unwrap();
    assert!(fits(4) && !fits(5));
    slot.dispatch(now);
    assert!(fits(3) && !fits(4));
    drop(slot);
    assert!(fits(3) && !fits(4));
    // One that comes to nothing.
    drop(budget.slot(&urgency, collection.number()).await.unwrap());
    assert!(fits(3) && !fits(4));
}

/// Lets them ask, and returns when upstream counted a call, and how many of them never got an outcome.
async fn run(calls_per_minute: u32, start_share: f64, all: Vec<Asked>) -> (Vec<Instant>, usize) {
    let account = testing::account("acme");
    let metrics = Metrics::new(&Registry::new().unwrap()).unwrap();
    let config = Config {
        start_share,
        ..Config::default()
    };
    let calls = [(&account, calls_per_minute)];
    let budgets = Budgets::new(calls, &config, 0.25, &metrics, Instant::now());
    let counted = Arc::new(Mutex::new(Vec::new()));
    let (plans, log) = (Arc::new(all.clone()), counted.clone());
    let inner = service_fn(move |fetch: Fetch<PageKey>| {
        let plan = plans[fetch.key.window.skip as usize].clone();
        let log = log.clone();
        async move {
            let takes = Duration::from_millis(plan.takes);
            time::sleep(takes.mul_f64(plan.counted)).await;
            log.lock().unwrap().push(Instant::now());
            time::sleep(takes.mul_f64(1.0 - plan.counted)).await;
            let Some(told) = plan.refused else {
                return Ok(testing::page(0, 1, 1, Instant::now()));
            };
            let error = Error::new(Kind::UpstreamRateLimited, "too many");
            Err(match told {
                Some(seconds) => error.retry_after(Duration::from_secs(seconds)),
                None => error,
            })
        }
        .boxed()
    });
    let stage = layer(Arc::new(budgets)).layer(inner);
    let mut asked = JoinSet::new();
    for (place, plan) in all.into_iter().enumerate() {
        time::sleep(Duration::from_millis(plan.after)).await;
        let patience = Duration::from_millis(plan.patience);
        let mut fetch = fetch(&account, &format!("st-{}", place % 3), plan.class, patience);
        fetch.key.window.skip = place as u64;
        let answer = stage.clone().oneshot(fetch);
        asked.spawn(async move {
            // Longer than the queue before it can take, even at one call a minute.
            let leaves = plan.leaves.map_or(HOUR * 6, Duration::from_millis);
            time::timeout(leaves, answer).await.is_ok() || plan.leaves.is_some()
        });
    }
    let mut hung = 0;
    while let Some(ended) = asked.join_next().await {
        hung += usize::from(!ended.unwrap());
    }
    let mut counted = std::mem::take(&mut *counted.lock().unwrap());
    counted.sort();
    (counted, hung)
}

const HOUR: Duration = Duration::from_secs(3600);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whoever asks, leaves, is slow or refused: no minute that upstream sees has more calls than it allows, wherever it
    /// begins, and every request ends.
    #[test]
    fn no_minute_is_overspent_and_every_request_ends(
        calls in 1_u32..12,
        start_share in 0.0_f64..1.0,
        all in proptest::collection::vec(asked(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let (counted, hung) = runtime.block_on(run(calls, start_share, all));
        prop_assert_eq!(hung, 0);
        for (first, begin) in counted.iter().enumerate() {
            let minute = counted[first..].iter().take_while(|call| **call < *begin + MINUTE);
            let seen = minute.count();
            prop_assert!(seen <= calls as usize, "{} of {}", seen, calls);
        }
    }
}

/// Catches a reload that gives an account's calls anew: to one that stays, is called otherwise, is away meanwhile, or has
/// other settings.
#[tokio::test(start_paused = true)]
async fn what_was_spent_is_spent_whoever_comes_and_goes() {
    let account = |name: &str| {
        let stranger = testing::account("acme");
        Arc::new(Account::new(
            name,
            name,
            stranger.id.clone(),
            stranger.client.clone(),
            &[],
        ))
    };
    let [acme, renamed, other] = [
        account("acme"),
        account("renamed"),
        testing::account("other"),
    ];
    let metrics = Metrics::new(&Registry::new().unwrap()).unwrap();
    let config = ready_at_once();
    let now = Instant::now();
    let budgets = Arc::new(Budgets::new([(&acme, 60)], &config, 0.25, &metrics, now));
    let limiter = Arc::<Limiter>::default();
    let seen = limiter.clone();
    let inner = service_fn(move |_: Fetch<PageKey>| {
        let limiter = seen.clone();
        async move { limiter.answer(0).await }.boxed()
    });
    let stage = layer(budgets.clone()).layer(inner);
    let ask = async |account: &Arc<Account>| {
        let fetch = fetch(account, "st-1", Class::Interactive, 5 * SECOND);
        stage.clone().oneshot(fetch).await.is_ok()
    };
    let update = |accounts: &[(&Arc<Account>, u32)], config: &Config| {
        budgets.update(accounts.iter().copied(), config, 0.25, Instant::now());
    };
    let doubled = Config {
        replicas: 2,
        ..config.clone()
    };
    let mut answered = 0;
    for round in 0..20 {
        let asking = if round % 4 == 1 { &renamed } else { &acme };
        for _ in 0..5 {
            answered += usize::from(ask(asking).await);
        }
        match round % 4 {
            0 => update(&[(&renamed, 60), (&other, 60)], &config),
            1 => update(&[(&other, 60)], &config),
            2 => update(&[(&acme, 60)], &doubled),
            _ => update(&[(&acme, 60)], &config),
        }
    }
    assert_eq!(answered, 60);
    assert!(Instant::now() - now < MINUTE);
    // Once nothing is left to remember, nothing is.
    update(&[(&other, 60)], &config);
    assert!(budgets.of(&acme.id).is_some());
    time::sleep(2 * MINUTE).await;
    // A walk that pauses will call again.
    let walks = acme.set_out();
    update(&[(&other, 60)], &config);
    assert!(budgets.of(&acme.id).is_some());
    drop(walks);
    update(&[(&other, 60)], &config);
    assert!(budgets.of(&acme.id).is_none());
    assert!(budgets.of(&other.id).is_some());
}
