//! A minute in which upstream fails altogether, on paused time: the cache over all that spares upstream, as it is built.

use std::collections::HashSet;

use tokio::task::JoinSet;
use tokio::time;
use tower::ServiceExt;

use super::{
    stack::{MINUTE, SECOND, Stack, Upstream},
    *,
};
use crate::{
    contacts::{page::PageKey, testing},
    error::{Again, Error, Kind},
    served::Served,
    service::ServePage,
};

/// Pages that are asked for all the time, and how often one of them is.
const KEYS: u64 = 50;
const GAP: Duration = Duration::from_millis(50);

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

/// Attempts and flights from then on.
fn since(upstream: &Upstream, begin: Instant) -> (usize, usize) {
    let calls = upstream.calls.lock().unwrap();
    let since = calls.iter().filter(|call| call.at >= begin);
    let flights: HashSet<_> = since
        .clone()
        .map(|call| Arc::as_ptr(&call.flight))
        .collect();
    (since.count(), flights.len())
}

/// The most calls in any ten seconds between two moments.
fn most(upstream: &Upstream, begin: Instant, end: Instant) -> usize {
    let calls = upstream.calls.lock().unwrap();
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

/// An outage of a minute and a little more: upstream heals at another moment between two probes each time.
async fn outage(kind: Kind, more: Duration) {
    let stack = Stack::new(&[("acme", 60)], &budget::Config::default());
    let upstream = &stack.upstream;
    let keys: Vec<_> = (0..KEYS)
        .map(|number| stack.page("acme", "st-1", number * 10))
        .collect();
    let pages = stack.pages(
        Lifetime {
            fresh_for: MINUTE,
            stale_for: 60 * MINUTE,
        },
        stack.below(),
    );

    // One after the other, so that they do not all expire together; then all of them, until all is as usual.
    for key in &keys {
        ask(&pages, std::slice::from_ref(key), 2 * SECOND).await;
    }
    ask(&pages, &keys, 3 * MINUTE).await;
    let usual = Instant::now();
    assert_eq!(ask(&pages, &keys, 5 * MINUTE).await, 0);

    let broken = Instant::now();
    upstream.fail(move |_| Some(Error::new(kind, "down").again_by(Again::Later)));
    assert_eq!(
        ask(&pages, &keys, MINUTE + more).await,
        0,
        "a warm page was not answered"
    );
    let (attempts, flights) = since(upstream, broken);
    assert!(
        attempts <= flights + 6,
        "{attempts} attempts for {flights} flights"
    );
    // Five failures, a few that were under way with the fifth, and one probe each five seconds.
    assert!((5..=5 + 3 + 13).contains(&attempts), "{attempts}");

    let healed = Instant::now();
    upstream.heal();
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
        most(upstream, healed, Instant::now()),
        most(upstream, usual, broken),
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
        .map(|call| call.key.window.skip)
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
