//! The breaker: while upstream keeps failing, callers are told at once and no call is spent on finding out again.
//!
//! Five failures in a row open it for five seconds; then one call probes, and its outcome closes or reopens it. What
//! counts as a failure says that the host is in trouble: answers that are merely wrong, refused or unknown do not.
//!
//! Two stages look at it. The [`gate`](Breaker::gate) is above the budget: while it is open, callers need not wait for a
//! turn to hear so. The [`watch`](Breaker::watch) is below, where calls are made: one that had waited for its turn while
//! the breaker opened is not made, and a probe has the field only while it is really under way.

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, Ready, ready},
};
use prometheus::{IntCounter, IntGaugeVec};
use tokio::time::Instant;
use tower::{Layer, Service, layer::layer_fn};
use tracing::{info, warn};

use crate::{
    contacts::{page::PageKey, request::Fetch},
    error::{Error, Kind, Result},
    metrics::{self, Registry},
    service::FetchPage,
};

/// Failures in a row that open it.
const FAILURES: u32 = 5;

/// How long it stays open before it lets one call try.
const OPEN_FOR: Duration = Duration::from_secs(5);

/// How long a probe has the field for itself: as long as a page may take.
const PROBE_FOR: Duration = Duration::from_secs(20);

/// Pure: what has happened, and what follows for the next call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many failures in a row.
    Closed(u32),
    Open(Instant),
    /// One call is on its way to find out. Should it never report, another one may try after this.
    HalfOpen(Instant),
}

/// What one call was let through as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pass {
    Ordinary,
    Probe,
}

impl State {
    /// Whether a call may go, or how long nobody may.
    fn admit(&mut self, now: Instant) -> std::result::Result<Pass, Duration> {
        match *self {
            Self::Closed(_) => Ok(Pass::Ordinary),
            Self::Open(_) | Self::HalfOpen(_) => {
                self.look(now)?;
                *self = Self::HalfOpen(now + PROBE_FOR);
                Ok(Pass::Probe)
            }
        }
    }

    /// The same, for a call that does not go yet.
    fn look(self, now: Instant) -> std::result::Result<(), Duration> {
        match self {
            Self::Open(until) | Self::HalfOpen(until) if now < until => {
                Err(until.saturating_duration_since(now).min(OPEN_FOR))
            }
            _ => Ok(()),
        }
    }

    /// What a call's end means.
    fn learn(&mut self, pass: Pass, failed: bool, now: Instant) {
        *self = match (*self, pass, failed) {
            // Whatever is still on its way from before the breaker opened says nothing new.
            (open @ (Self::Open(_) | Self::HalfOpen(_)), Pass::Ordinary, _) => open,
            (_, Pass::Probe, true) => Self::Open(now + OPEN_FOR),
            (_, _, false) => Self::Closed(0),
            (Self::Closed(failures), _, true) if failures + 1 >= FAILURES => {
                Self::Open(now + OPEN_FOR)
            }
            (Self::Closed(failures), _, true) => Self::Closed(failures + 1),
        };
    }
}

/// Whether an error says that the host is in trouble.
fn is_failure(error: &Error) -> bool {
    let counts = matches!(
        error.kind(),
        Kind::UpstreamUnreachable
            | Kind::UpstreamTimeout
            | Kind::Upstream5xx
            | Kind::UpstreamTruncated
            | Kind::UpstreamProtocol
    );
    counts && !error.host_is_well()
}

/// What is known about one upstream host.
#[derive(Debug)]
pub struct Breaker {
    state: Mutex<State>,
    metrics: Metrics,
}

/// The stage that refuses while the breaker is open.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    breaker: Arc<Breaker>,
    inner: S,
}

/// The stage that refuses as well, and learns from what it lets through.
#[derive(Clone, Debug)]
pub struct Watch<S> {
    breaker: Arc<Breaker>,
    inner: S,
}

impl<S: FetchPage> Service<Fetch<PageKey>> for Gate<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Ready<Result<S::Response>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, fetch: Fetch<PageKey>) -> Self::Future {
        match self.breaker.look(Instant::now()) {
            Ok(()) => Either::Right(self.inner.call(fetch)),
            Err(error) => Either::Left(ready(Err(error))),
        }
    }
}

impl<S: FetchPage> Service<Fetch<PageKey>> for Watch<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<S::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, fetch: Fetch<PageKey>) -> Self::Future {
        let pass = match self.breaker.admit(Instant::now()) {
            Ok(pass) => pass,
            Err(error) => return async { Err(error) }.boxed(),
        };
        let breaker = self.breaker.clone();
        let fetching = self.inner.call(fetch);
        async move {
            let outcome = fetching.await;
            breaker.learn(pass, outcome.as_ref().err(), Instant::now());
            outcome
        }
        .boxed()
    }
}

impl Breaker {
    pub fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::Closed(0)),
            metrics,
        })
    }

    /// For whatever must wait before it can make a call.
    pub fn gate<S>(self: &Arc<Self>) -> impl Layer<S, Service = Gate<S>> + use<S> {
        let breaker = self.clone();
        layer_fn(move |inner| Gate {
            breaker: breaker.clone(),
            inner,
        })
    }

    /// For whatever makes calls.
    pub fn watch<S>(self: &Arc<Self>) -> impl Layer<S, Service = Watch<S>> + use<S> {
        let breaker = self.clone();
        layer_fn(move |inner| Watch {
            breaker: breaker.clone(),
            inner,
        })
    }

    /// The word for its state, and how long no call is made, for whoever looks into it.
    pub fn standing(&self, now: Instant) -> (&'static str, Option<Duration>) {
        let state = *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.word(), state.look(now).err())
    }

    fn look(&self, now: Instant) -> Result<()> {
        let looked = self.change(|state| state.look(now));
        looked.map_err(|rest| self.refuse(rest))
    }

    fn admit(&self, now: Instant) -> Result<Pass> {
        let admitted = self.change(|state| state.admit(now));
        admitted.map_err(|rest| self.refuse(rest))
    }

    fn refuse(&self, rest: Duration) -> Error {
        self.metrics.refused.inc();
        let detail = "upstream keeps failing; it is tried again in a moment";
        Error::new(Kind::UpstreamUnavailable, detail)
            .retry_after(rest)
            .unsent()
    }

    fn learn(&self, pass: Pass, error: Option<&Error>, now: Instant) {
        // The gateway's own troubles say nothing of the host.
        let own = |error: &Error| {
            let kinds = [
                Kind::TokenServiceUnavailable,
                Kind::Overloaded,
                Kind::Internal,
            ];
            error.is_unsent() || kinds.contains(&error.kind())
        };
        if error.is_some_and(own) {
            return self.change(|state| state.forget(pass));
        }
        self.change(|state| state.learn(pass, error.is_some_and(is_failure), now));
    }

    /// Changes the state, and says so where others look.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.word();
        let result = change(&mut state);
        let after = state.word();
        drop(state);
        if before != after {
            for word in State::WORDS {
                self.metrics
                    .state
                    .with_label_values(&[word])
                    .set(i64::from(word == after));
            }
            if after == "open" {
                warn!(state = after, "upstream keeps failing");
            } else {
                info!(state = after, "upstream's breaker");
            }
        }
        result
    }
}

impl State {
    const WORDS: [&str; 3] = ["closed", "open", "half_open"];

    const fn word(self) -> &'static str {
        match self {
            Self::Closed(_) => "closed",
            Self::Open(_) => "open",
            Self::HalfOpen(_) => "half_open",
        }
    }

    /// A call ended without having reached the host: a probe leaves its place to the next.
    fn forget(&mut self, pass: Pass) {
        if let (Self::HalfOpen(until), Pass::Probe) = (*self, pass) {
            *self = Self::Open(until - PROBE_FOR);
        }
    }
}

/// What the breaker tells.
#[derive(Clone, Debug)]
pub struct Metrics {
    state: IntGaugeVec,
    refused: IntCounter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let state = registry.gauge(
            "upstream_breaker_state",
            "1 for the state that the breaker is in: five failures in a row open it for 5 s, then one call tries (half_open).",
            &["state"],
        )?;
        for word in State::WORDS {
            state
                .with_label_values(&[word])
                .set(i64::from(word == "closed"));
        }
        let refused = registry.counter(
            "upstream_breaker_refused_total",
            "Calls that were not made because the breaker was open.",
            &[],
        )?;
        Ok(Self {
            state,
            refused: refused.with_label_values::<&str>(&[]),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::contacts::{page::Page, testing};

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Arc<Breaker> {
        Breaker::new(Metrics::new(&Registry::new().unwrap()).unwrap())
    }

    fn opened(now: Instant) -> State {
        let mut state = State::Closed(0);
        for _ in 0..FAILURES {
            let pass = state.admit(now).unwrap();
            state.learn(pass, true, now);
        }
        state
    }

    #[test]
    fn five_failures_in_a_row_open_it() {
        let now = Instant::now();
        let mut state = State::Closed(0);
        for _ in 0..4 {
            state.learn(Pass::Ordinary, true, now);
        }
        state.learn(Pass::Ordinary, false, now);
        for _ in 0..4 {
            state.learn(Pass::Ordinary, true, now);
            assert_eq!(state.admit(now), Ok(Pass::Ordinary));
        }
        state.learn(Pass::Ordinary, true, now);
        assert_eq!(state.admit(now), Err(5 * SECOND));
        assert_eq!(state.admit(now + 4 * SECOND), Err(SECOND));
    }

    #[test]
    fn one_call_probes_and_decides() {
        let now = Instant::now();
        let later = now + 5 * SECOND;
        for (failed, next) in [(false, Ok(Pass::Ordinary)), (true, Err(5 * SECOND))] {
            let mut state = opened(now);
            assert_eq!(state.admit(later), Ok(Pass::Probe));
            assert!(state.admit(later).is_err());
            state.learn(Pass::Probe, failed, later);
            assert_eq!(state.admit(later), next);
        }
    }

    #[test]
    fn a_call_from_before_it_opened_does_not_close_it() {
        let now = Instant::now();
        let mut state = opened(now);
        state.learn(Pass::Ordinary, false, now + SECOND);
        assert_eq!(state.admit(now + SECOND), Err(4 * SECOND));
    }

    #[test]
    fn a_probe_that_never_reports_makes_way_for_another() {
        let now = Instant::now();
        let mut state = opened(now);
        assert_eq!(state.admit(now + 5 * SECOND), Ok(Pass::Probe));
        assert!(state.admit(now + 24 * SECOND).is_err());
        assert_eq!(state.admit(now + 25 * SECOND), Ok(Pass::Probe));
        // One that did not reach the host, at once.
        state.forget(Pass::Probe);
        assert_eq!(state.admit(now + 26 * SECOND), Ok(Pass::Probe));
    }

    #[tokio::test(start_paused = true)]
    async fn while_open_nothing_goes_below() {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let inner = service_fn(async |_: Fetch<PageKey>| {
            CALLS.fetch_add(1, Ordering::Relaxed);
            Err::<Page, _>(Error::new(Kind::Upstream5xx, "down"))
        });
        let stage = breaker().watch().layer(inner);
        let ask = async || {
            let outcome = stage
                .clone()
                .oneshot(testing::fetch(testing::page_key("st-1", 0, 10)))
                .await;
            outcome.unwrap_err()
        };
        for _ in 0..5 {
            assert_eq!(ask().await.kind(), Kind::Upstream5xx);
        }
        let refused = ask().await;
        assert_eq!(
            (refused.kind(), refused.wait()),
            (Kind::UpstreamUnavailable, Some(OPEN_FOR))
        );
        assert_eq!(CALLS.load(Ordering::Relaxed), 5);
        time::advance(OPEN_FOR).await;
        assert_eq!(ask().await.kind(), Kind::Upstream5xx);
        assert_eq!(ask().await.kind(), Kind::UpstreamUnavailable);
        assert_eq!(CALLS.load(Ordering::Relaxed), 6);
    }

    #[test]
    fn an_odd_answer_says_nothing_of_the_hosts_health() {
        let odd = Error::new(Kind::UpstreamProtocol, "204");
        assert!(is_failure(&odd));
        assert!(!is_failure(&odd.from_a_host_that_is_well()));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_and_wrong_answers_do_not_count() {
        for kind in [
            Kind::UpstreamAuthRejected,
            Kind::StreamNotFound,
            Kind::UpstreamRateLimited,
            Kind::UpstreamSchema,
        ] {
            let inner = service_fn(move |_: Fetch<PageKey>| {
                std::future::ready(Err::<Page, _>(Error::new(kind, "")))
            });
            let stage = breaker().watch().layer(inner);
            for _ in 0..10 {
                let fetch = testing::fetch(testing::page_key("st-1", 0, 10));
                assert_eq!(stage.clone().oneshot(fetch).await.unwrap_err().kind(), kind);
            }
        }
    }

    #[test]
    fn what_says_nothing_of_the_host_neither_closes_it_nor_counts() {
        let (breaker, now) = (breaker(), Instant::now());
        *breaker.state.lock().unwrap() = opened(now);
        for kind in [
            Kind::CredentialsUnavailable,
            Kind::TokenServiceUnavailable,
            Kind::Overloaded,
            Kind::Internal,
        ] {
            let later = now + OPEN_FOR;
            assert!(breaker.look(later).is_ok());
            assert_eq!(breaker.admit(later).unwrap(), Pass::Probe, "{kind:?}");
            assert!(breaker.look(later).is_err() && breaker.admit(later).is_err());
            let error = match kind {
                Kind::CredentialsUnavailable => Error::new(kind, "").unsent(),
                _ => Error::new(kind, ""),
            };
            breaker.learn(Pass::Probe, Some(&error), later);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_gate_opens_and_closes_with_the_watch_and_sends_no_probe() {
        let breaker = breaker();
        let inner = service_fn(async |_: Fetch<PageKey>| {
            Ok::<_, Error>(testing::page(0, 10, 5, Instant::now()))
        });
        let stage = breaker.gate().layer(inner);
        let ask = || {
            let fetch = testing::fetch(testing::page_key("st-1", 0, 10));
            stage.clone().oneshot(fetch)
        };
        *breaker.state.lock().unwrap() = opened(Instant::now());
        assert_eq!(ask().await.unwrap_err().kind(), Kind::UpstreamUnavailable);
        time::advance(OPEN_FOR).await;
        for _ in 0..3 {
            assert!(ask().await.is_ok(), "whoever gets so far may be the probe");
        }
    }
}
