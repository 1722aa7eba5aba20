//! One more try for what a moment or another connection may cure, inside the cache: one for a flight, none for waiters.
//!
//! Each try goes through breaker and budget like any other call. A few a minute help when upstream stumbles; more would
//! only help it to fall, so an account has six, and beyond them the first outcome stands.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use prometheus::IntCounterVec;
use tokio::time::{self, Instant};
use tower::{Layer, Service, ServiceExt, layer::layer_fn};
use tracing::debug;

use crate::{
    contacts::{
        account::{Account, Accounts},
        ids::AccountId,
        page::PageKey,
        request::Fetch,
    },
    error::{Again, Error, Result},
    metrics::{self, Registry},
    minute::PerMinute,
    service::FetchPage,
};

/// Retries of one account in a minute.
const RETRIES_MAX: usize = 6;

/// The shortest wait before another try, and how much chance may add to it.
const WAIT: Duration = Duration::from_millis(100);
const JITTER: Duration = Duration::from_millis(200);

/// How long to wait before another try, or `None` if there is none. `chance` is from 0 to 1.
fn wait_before(
    error: &Error,
    chance: f64,
    now: Instant,
    patience: Option<Instant>,
) -> Option<Duration> {
    let wait = match error.again()? {
        // Nothing is to be waited for: the cause is gone.
        Again::Afresh | Again::Resigned => Duration::ZERO,
        Again::Later => error.told_to_wait().unwrap_or_default() + WAIT + JITTER.mul_f64(chance),
    };
    patience
        .is_none_or(|until| now + wait < until)
        .then_some(wait)
}

/// The stage.
#[derive(Clone, Debug)]
pub struct Retry<S> {
    shared: Arc<Shared>,
    inner: S,
}

#[derive(Debug)]
struct Shared {
    recent: Mutex<HashMap<AccountId, PerMinute>>,
    chance: fn() -> f64,
    metrics: Metrics,
}

/// Tries once more. `chance` draws from 0 to 1, evenly.
pub fn layer<S>(chance: fn() -> f64, metrics: Metrics) -> impl Layer<S, Service = Retry<S>> {
    let shared = Arc::new(Shared {
        recent: Mutex::default(),
        chance,
        metrics,
    });
    layer_fn(move |inner| Retry {
        shared: shared.clone(),
        inner,
    })
}

impl<S: FetchPage> Service<Fetch<PageKey>> for Retry<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<S::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, fetch: Fetch<PageKey>) -> Self::Future {
        let (shared, again) = (self.shared.clone(), self.inner.clone());
        let first = self.inner.call(fetch.clone());
        async move {
            let error = match first.await {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            let now = Instant::now();
            let wait = wait_before(&error, (shared.chance)(), now, fetch.urgency.patience());
            let account = &fetch.key.collection.account.clone();
            let Some(wait) = wait.filter(|_| shared.may_retry(account, &error, now)) else {
                return Err(error);
            };
            debug!(code = error.kind().code(), ?wait, "tried once more");
            time::sleep(wait).await;
            let fetch = Fetch {
                afresh: error.again() == Some(Again::Afresh),
                ..fetch
            };
            let outcome = again.oneshot(fetch).await;
            if let Err(second) = &outcome
                && second.is_unsent()
            {
                // No call was made, and the first one's error says more.
                return Err(error);
            }
            shared.metrics.count(account, outcome.is_ok());
            outcome
        }
        .boxed()
    }
}

impl Shared {
    fn may_retry(&self, account: &Account, error: &Error, now: Instant) -> bool {
        // A token that was refused is the gateway's own affair, and costs upstream no strength.
        if error.again() == Some(Again::Resigned) {
            return true;
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if !recent.contains_key(&account.id) {
            // Accounts come and go.
            recent.retain(|_, minute| !minute.is_idle(now));
        }
        let minute = recent.entry(account.id.clone());
        minute
            .or_insert_with(|| PerMinute::new(RETRIES_MAX))
            .take(now)
    }
}

/// What the retries tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    retries: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let retries = registry.counter(
            "upstream_retries_total",
            "Calls made a second time, and whether that helped: yes or no.",
            &["account", "helped"],
        )?;
        Ok(Self { retries })
    }

    /// There for each of these accounts, so that its first retry is seen to be one more than none.
    pub fn show(&self, accounts: &Accounts) {
        for account in accounts.iter() {
            for helped in ["yes", "no"] {
                let _ = self.retries.with_label_values(&[&*account.label, helped]);
            }
        }
    }

    fn count(&self, account: &Account, helped: bool) {
        let helped = if helped { "yes" } else { "no" };
        if let Some(account) = account.counted_as() {
            self.retries.with_label_values(&[account, helped]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tower::service_fn;

    use super::*;
    use crate::{
        contacts::{page::Page, testing},
        error::Kind,
        minute::MINUTE,
    };

    fn failed(again: Again) -> Error {
        Error::new(Kind::Upstream5xx, "down").again_by(again)
    }

    /// Fails so many times with an error, then answers; returns the outcome, the calls and the time it took.
    async fn run(failures: usize, error: Error) -> (Result<Page>, usize, Duration) {
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = calls.clone();
        let inner = service_fn(move |fetch: Fetch<PageKey>| {
            let call = seen.fetch_add(1, Ordering::Relaxed);
            assert_eq!(
                fetch.afresh,
                call > 0 && error.again() == Some(Again::Afresh)
            );
            let page = testing::page(0, 10, 5, Instant::now());
            std::future::ready(if call < failures {
                Err(error.clone())
            } else {
                Ok(page)
            })
        });
        let stage = layer(|| 0.0, Metrics::new(&Registry::new().unwrap()).unwrap()).layer(inner);
        let started = Instant::now();
        let outcome = stage
            .oneshot(testing::fetch(testing::page_key("st-1", 0, 10)))
            .await;
        (outcome, calls.load(Ordering::Relaxed), started.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_moment_cures_is_tried_once_more() {
        let (outcome, calls, took) = run(1, failed(Again::Later)).await;
        assert!(outcome.is_ok());
        assert_eq!((calls, took), (2, WAIT));
        let (outcome, calls, _) = run(9, failed(Again::Later)).await;
        assert!(outcome.is_err());
        assert_eq!(calls, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn another_connection_or_token_is_tried_at_once() {
        for again in [Again::Afresh, Again::Resigned] {
            let (outcome, calls, took) = run(1, failed(again)).await;
            assert!(outcome.is_ok());
            assert_eq!((calls, took), (2, Duration::ZERO));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nothing_cures_stands() {
        let (outcome, calls, _) = run(1, Error::new(Kind::UpstreamSchema, "no page")).await;
        assert!(outcome.is_err());
        assert_eq!(calls, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_was_not_made_leaves_the_first_error() {
        for refusal in [Kind::UpstreamUnavailable, Kind::BudgetExhausted] {
            let calls = Arc::new(AtomicUsize::new(0));
            let inner = service_fn(move |_: Fetch<PageKey>| {
                let first = calls.fetch_add(1, Ordering::Relaxed) == 0;
                let refused = Error::new(refusal, "not now").unsent();
                let error = if first { failed(Again::Later) } else { refused };
                std::future::ready(Err::<Page, _>(error))
            });
            let metrics = Metrics::new(&Registry::new().unwrap()).unwrap();
            let stage = layer(|| 0.0, metrics.clone()).layer(inner);
            let fetch = testing::fetch(testing::page_key("st-1", 0, 10));
            let error = stage.oneshot(fetch).await.unwrap_err();
            assert_eq!(error.kind(), Kind::Upstream5xx);
            assert_eq!(metrics.retries.with_label_values(&["acme", "no"]).get(), 0);
        }
    }

    /// Catches a retry that brings back the series of an account that has left meanwhile.
    #[tokio::test(start_paused = true)]
    async fn a_retry_of_an_account_that_has_left_is_not_counted() {
        let registry = Registry::new().unwrap();
        let inner = service_fn(move |fetch: Fetch<PageKey>| {
            fetch.key.collection.account.leave();
            std::future::ready(Err::<Page, _>(failed(Again::Later)))
        });
        let stage = layer(|| 0.0, Metrics::new(&registry).unwrap()).layer(inner);
        let fetch = testing::fetch(testing::page_key("st-1", 0, 10));
        assert!(stage.oneshot(fetch).await.is_err());
        let text = String::from_utf8(registry.render().unwrap()).unwrap();
        assert!(!text.contains("account="), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn upstreams_own_word_is_obeyed_up_to_the_deadline() {
        let told = |seconds| failed(Again::Later).retry_after(Duration::from_secs(seconds));
        let (outcome, _, took) = run(1, told(20)).await;
        assert!(outcome.is_ok());
        assert_eq!(took, Duration::from_secs(20) + WAIT);
        let (outcome, calls, took) = run(1, told(30)).await;
        assert!(outcome.is_err());
        assert_eq!((calls, took), (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_has_six_a_minute() {
        let calls = Arc::new(AtomicUsize::new(0));
        let seen = calls.clone();
        let inner = service_fn(move |_: Fetch<PageKey>| {
            seen.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err::<Page, _>(failed(Again::Afresh)))
        });
        let stage = layer(|| 0.0, Metrics::new(&Registry::new().unwrap()).unwrap()).layer(inner);
        let ask = async |count: usize| {
            let before = calls.load(Ordering::Relaxed);
            for _ in 0..count {
                let fetch = testing::fetch(testing::page_key("st-1", 0, 10));
                assert!(stage.clone().oneshot(fetch).await.is_err());
            }
            calls.load(Ordering::Relaxed) - before
        };
        assert_eq!(ask(10).await, 16);
        time::advance(MINUTE - Duration::from_nanos(1)).await;
        assert_eq!(ask(1).await, 1);
        time::advance(Duration::from_nanos(1)).await;
        assert_eq!(ask(1).await, 2);
    }
}
