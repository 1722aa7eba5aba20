//! A minute in which upstream fails altogether, on paused time: the cache over all that spares upstream, as it is built.

use std::{cell::Cell, collections::HashSet, sync::Mutex};

use tokio::task::JoinSet;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    contacts::{
        account,
        collection::Collection,
        ids::StreamId,
        page::{PageKey, Window},
        request::{Fetch, Urgency},
        testing,
    },
    error::{Again, Error, Kind},
    served::Served,
    service::ServePage,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Pages that are asked for all the time, and how often one of them is.
const KEYS: u64 = 50;
const GAP: Duration = Duration::from_millis(50);

/// How long upstream takes, well or not.
const CALL: Duration = Duration::from_millis(100);

/// What upstream saw.
#[derive(Default)]
struct Upstream {
    fails_by: Mutex<Option<Kind>>,
    calls: Mutex<Vec<Call>>,
}

struct Call {
    at: Instant,
    skip: u64,
    /// The same for all attempts of one flight.
    flight: Arc<Urgency>,
    succeeded: bool,
}

impl Upstream {
    async fn answer(
        &self,
        fetch: Fetch<PageKey>,
    ) -> crate::error::Result<crate::contacts::page::Page> {
        let (at, fails_by) = (Instant::now(), *self.fails_by.lock().unwrap());
        self.calls.lock().unwrap().push(Call {
            at,
            skip: fetch.key.window.skip,
            flight: fetch.urgency.clone(),
            succeeded: fails_by.is_none(),
        });
        time::sleep(CALL).await;
        match fails_by {
            Some(kind) => Err(Error::new(kind, "down").again_by(Again::Later)),
            None => Ok(testing::page(fetch.key.window.skip, 10, 1000, at)),
        }
    }

    /// Attempts and flights from then on.
    fn since(&self, begin: Instant) -> (usize, usize) {
        let calls = self.calls.lock().unwrap();
        let since = calls.iter().filter(|call| call.at >= begin);
        let flights: HashSet<_> = since
            .clone()
            .map(|call| Arc::as_ptr(&call.flight))
            .collect();
        (since.count(), flights.len())
    }

    /// The most calls in any ten seconds between two moments.
    fn most(&self, begin: Instant, end: Instant) -> usize {
        let calls = self.calls.lock().unwrap();
        let at: Vec<_> = calls
            .iter()
            .map(|call| call.at)
            .filter(|at| (begin..end).contains(at))
            .collect();
        let within = |first: &Instant| {
            at.iter()
                .filter(|at| (*first..*first + 10 * SECOND).contains(at))
                .count()
        };
        at.iter().map(within).max().unwrap_or(0)
    }
}

/// Evenly from 0 to 1, and the same in each run.
fn dice() -> f64 {
    thread_local!(static NEXT: Cell<u64> = const { Cell::new(0) });
    let next = NEXT.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    NEXT.set(next);
    next as f64 / u64::MAX as f64
}

/// Asks for a page each [`GAP`], and returns how many of the answers were no copies.
async fn ask(pages: &(impl ServePage + 'static), keys: &[PageKey], length: Duration) -> usize {
    let end = Instant::now() + length;
    let mut answers = JoinSet::new();
    let mut turn = 0;
    while Instant::now() < end {
        let request = testing::request(keys[turn % keys.len()].clone());
        turn += 1;
        answers.spawn(pages.clone().oneshot(request));
        time::sleep(GAP).await;
    }
    let mut missed = 0;
    while let Some(answer) = answers.join_next().await {
        let copy = |served| matches!(served, Served::Hit | Served::Stale(_));
        missed += usize::from(!answer.unwrap().is_ok_and(|answer| copy(answer.served)));
    }
    missed
}

/// An outage of a minute and a little more: upstream heals at another moment between two probes each time.
async fn outage(kind: Kind, more: Duration) {
    let config = account::Config {
        name: "acme".to_owned(),
        account_id: "acme".to_owned(),
        client_id: "cs-acme".to_owned(),
        ..account::Config::default()
    };
    let registry = Registry::new().unwrap();
    let accounts = Accounts::new(&[config]).unwrap();
    let metrics = budget::Metrics::new(&registry).unwrap();
    let account = accounts.get("acme").unwrap();
    let budgets = Budgets::new(
        [(account, 60)],
        &budget::Config::default(),
        &metrics,
        Instant::now(),
    );
    let stream = StreamId::parse("st-1").unwrap();
    let collection = Arc::new(Collection::new(account.clone(), stream));
    let keys: Vec<_> = (0..KEYS)
        .map(|number| PageKey {
            epoch: collection.epoch(),
            collection: collection.clone(),
            window: Window {
                skip: number * 10,
                limit: 10,
            },
        })
        .collect();

    let upstream = Arc::new(Upstream::default());
    let answering = upstream.clone();
    let attempts = service_fn(move |fetch: Fetch<PageKey>| {
        let upstream = answering.clone();
        async move { upstream.answer(fetch).await }.boxed()
    });
    let of_pages = testing::metrics("pages");
    let lifetime = Lifetime {
        fresh_for: MINUTE,
        stale_for: 60 * MINUTE,
    };
    let pages = ServiceBuilder::new()
        .layer(cache::layer(
            Arc::new(store::Pages::new(1 << 30, lifetime, of_pages.clone())),
            Arc::new(Forced::new(6)),
            lifetime,
            dice,
            of_pages,
        ))
        .service(sparingly(attempts, &accounts, budgets, &registry).unwrap());

    // One after the other, so that they do not all expire together; then all of them, until all is as usual.
    for key in &keys {
        ask(&pages, std::slice::from_ref(key), 2 * SECOND).await;
    }
    ask(&pages, &keys, 3 * MINUTE).await;
    let usual = Instant::now();
    assert_eq!(ask(&pages, &keys, 5 * MINUTE).await, 0);

    let broken = Instant::now();
    *upstream.fails_by.lock().unwrap() = Some(kind);
    assert_eq!(
        ask(&pages, &keys, MINUTE + more).await,
        0,
        "a warm page was not answered"
    );
    let (attempts, flights) = upstream.since(broken);
    assert!(
        attempts <= flights + 6,
        "{attempts} attempts for {flights} flights"
    );
    // Five failures, a few that were under way with the fifth, and one probe each five seconds.
    assert!((5..=5 + 3 + 13).contains(&attempts), "{attempts}");

    let healed = Instant::now();
    *upstream.fails_by.lock().unwrap() = None;
    assert_eq!(ask(&pages, &keys, 5 * MINUTE).await, 0);
    let first = {
        let calls = upstream.calls.lock().unwrap();
        let succeeded = calls
            .iter()
            .find(|call| call.at >= healed && call.succeeded);
        succeeded.unwrap().at - healed
    };
    assert!(first <= 5 * SECOND + GAP, "{first:?}");
    let (most, before) = (
        upstream.most(healed, Instant::now()),
        upstream.most(usual, broken),
    );
    assert!(
        most * 10 <= before * 12,
        "{most} in ten seconds, usually {before}"
    );
    // No page was forgotten.
    let calls = upstream.calls.lock().unwrap();
    let again: HashSet<_> = calls
        .iter()
        .filter(|call| call.at >= healed)
        .map(|call| call.skip)
        .collect();
    assert_eq!(again.len() as u64, KEYS);
}

#[tokio::test(start_paused = true)]
async fn a_minute_without_connections_is_not_the_callers_problem() {
    for more in 0..5 {
        outage(Kind::UpstreamUnreachable, more * SECOND).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_minute_of_5xx_is_not_the_callers_problem() {
    for more in 0..5 {
        outage(Kind::Upstream5xx, more * SECOND).await;
    }
}
