use arc_swap::ArcSwap;

use super::*;
use crate::{
    admin::operate,
    contacts::{collection, request::Urgency, testing, walking::Progress},
    error::Kind,
    upstream::{breaker, budget, secret, token},
};

/// Over one account without a secret, of which nothing was asked.
pub(crate) fn overview() -> Overview {
    let registry = Registry::new().unwrap();
    let (resolver, accounts) = operate::tests::resolver();
    let secrets = || secret::Sources::from(None);
    let told = account::Config::default();
    let credentials = Credentials::new(
        accounts.iter().map(|account| (account, &told, secrets())),
        &token::Config::default(),
        None,
        || 0.0,
        &token::Metrics::new(&registry).unwrap(),
    );
    let budgets = Budgets::new(
        accounts.iter().map(|account| (account, 60)),
        &budget::Config::default(),
        0.25,
        &budget::Metrics::new(&registry).unwrap(),
        Instant::now(),
    );
    Overview::new(Sources {
        breaker: Breaker::new(breaker::Metrics::new(&registry).unwrap()),
        registry,
        accounts: Arc::new(ArcSwap::new(accounts)),
        resolver,
        credentials: Arc::new(credentials),
        budgets: Arc::new(budgets),
        journal: Arc::default(),
    })
}

fn shown_collection(overview: &Overview, stream: &str) -> Arc<collection::Collection> {
    let resolver = &overview.0.sources.resolver;
    let accounts = overview.0.sources.accounts.load();
    let account = accounts.iter().next().unwrap();
    resolver.collection(account, stream).unwrap()
}

/// Catches an account whose refusal is not told on top, and a secret's absence without its place.
#[tokio::test]
async fn the_account_that_cannot_be_read_is_named_with_the_reason() {
    let status = overview().status(Phase::Serving, None, Log::default());
    let [acme] = &status.accounts.shown[..] else {
        panic!("{status:?}");
    };
    assert_eq!((&*acme.name, &*acme.state), ("acme", "disabled"));
    let text = &status.summary.text;
    let expected = "Serving. 1 account is refused: acme - it has no usable secret.";
    assert_eq!(text, expected);
    assert!(status.summary.reasons[0].starts_with("acme: it has no usable secret: "));
    assert!(acme.advice.as_ref().unwrap().contains("client_secret_file"));
    // The first minute has half of them.
    assert_eq!((acme.budget.taken, acme.budget.left), (30, 30));
}

/// Catches a document that grows with what callers ask for, and one that leaves out what is asked for most.
#[tokio::test(start_paused = true)]
async fn of_many_collections_the_busiest_are_shown() {
    let overview = overview();
    let held: Vec<_> = (0..80)
        .map(|number| {
            let collection = shown_collection(&overview, &format!("st-{number}"));
            (0..number).for_each(|_| collection.seen.request());
            collection
        })
        .collect();
    held[79].seen.waited();
    overview.look_in(EVERY);
    let Few { total, shown } = overview
        .status(Phase::Serving, None, Log::default())
        .collections;
    assert_eq!((total, shown.len()), (80, collections::COLLECTIONS_MAX));
    let [first, .., last] = &shown[..] else {
        panic!("{shown:?}");
    };
    assert_eq!((&*first.stream, first.requests), ("st-79", 79));
    assert_eq!(first.hit_ratio, Some(78.0 / 79.0));
    assert_eq!(last.stream, "st-30");
    assert!(first.rate > last.rate && last.rate > 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_walk_is_shown_while_it_runs() {
    let overview = overview();
    let collection = shown_collection(&overview, "st-1");
    let urgency = Urgency::of(&testing::request(()).terms);
    let now = Instant::now();
    let begun = collection.walking.begin(collection.epoch(), urgency, now);
    begun.tell(Progress {
        pages_done: 3,
        pages_needed: Some(11),
        records: 300,
        ends_at: Some(now + Duration::from_secs(40)),
        held_up: Some(Kind::UpstreamRateLimited),
        ..Progress::default()
    });
    time::advance(Duration::from_secs(10)).await;
    let Few { total, shown } = overview.status(Phase::Serving, None, Log::default()).walks;
    assert_eq!(total, 1);
    let walk = &shown[0];
    assert_eq!((&*walk.account, &*walk.stream), ("acme", "st-1"));
    assert_eq!((walk.pages_done, walk.pages_needed), (3, Some(11)));
    assert_eq!((walk.running_s, walk.estimate_s), (10.0, Some(30.0)));
    assert_eq!(
        walk.held_up.as_deref(),
        Some("Upstream's rate limit is reached")
    );
    drop(begun);
    assert_eq!(
        overview
            .status(Phase::Serving, None, Log::default())
            .walks
            .total,
        0
    );
}

/// Catches charts that stay empty: the task that looks in is what fills them.
#[tokio::test(start_paused = true)]
async fn the_charts_fill_by_themselves() {
    let overview = overview();
    let watching = tokio::spawn(overview.clone().watch());
    // Time stands still while a thread of its own does the looking.
    time::sleep(20 * EVERY + EVERY / 2).await;
    watching.abort();
    let history = overview
        .status(Phase::Serving, None, Log::default())
        .history;
    assert_eq!(history.at_s.len(), 20);
    assert_eq!(history.rate.len(), history.at_s.len());
}
