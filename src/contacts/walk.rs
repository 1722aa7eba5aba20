//! The walk: reads a whole collection page by page, and returns it as one list or not at all.
//!
//! What to ask and what to believe is the [`plan`]'s, a pure state machine. Here is the I/O around it: so many pages at
//! once, through the same stages below as a single page.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytesize::ByteSize;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use prometheus::{Histogram, IntCounterVec};
use serde::{Deserialize, Serialize};
use tokio::{select, sync::Semaphore, task, time::Instant};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use self::plan::{Bounds, Plan};
use super::{
    list::{List, ListKey, Verdict},
    page::{LIMIT_DEFAULT, Page, PageKey},
    request::{Fetch, Urgency},
    spent::Phase,
};
use crate::{
    config,
    error::{Error, Kind, Result},
    metrics::{self, Registry},
    service::FetchPage,
};

pub mod plan;
mod verdict;

/// `[merge]`: how a whole list is read.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Lists read at once; one more is refused. 1 to 1,000.
    pub walks_max: usize,
    /// Pages of one list asked for at once; 1 to 64.
    pub width: usize,
    /// The largest `limit` that is tried; 2 to 10,000 records.
    pub page_limit_max: u32,
    /// How long a list is answered from memory; 1 s to 24 h.
    #[serde(with = "crate::config::duration")]
    pub fresh_for: Duration,
    /// The longest list that is kept; 1 to 10,000,000 records.
    pub records_max: u64,
    /// The largest list that is kept; 1 KiB to 16 GiB.
    #[serde(serialize_with = "crate::config::size::serialize")]
    pub bytes_max: ByteSize,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut config::Rules) {
        rules.range("walks_max", self.walks_max, 1..=1000);
        rules.range("width", self.width, 1..=64);
        // Not 1: neighbouring pages overlap by a record, so a page of one would never get on.
        rules.range("page_limit_max", self.page_limit_max, 2..=10_000);
        rules.range(
            "fresh_for",
            self.fresh_for,
            Duration::from_secs(1)..=Duration::from_secs(24 * 3600),
        );
        rules.range("records_max", self.records_max, 1..=10_000_000);
        rules.range(
            "bytes_max",
            self.bytes_max,
            ByteSize::kib(1)..=ByteSize::gib(16),
        );
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            walks_max: 8,
            width: 8,
            page_limit_max: 100,
            fresh_for: Duration::from_secs(15 * 60),
            records_max: 200_000,
            bytes_max: ByteSize::mib(128),
        }
    }
}

/// The stage: a list is fetched by fetching its pages.
#[derive(Clone, Debug)]
pub struct Walk<S> {
    shared: Arc<Shared>,
    inner: S,
}

#[derive(Debug)]
struct Shared {
    /// One for each list that may be read at this moment.
    walks: Semaphore,
    config: Config,
    /// Upstream counts in pages.
    pages: bool,
    metrics: Metrics,
}

/// Reads lists through whatever fetches pages. `pages` says that upstream counts in pages.
pub fn layer<S>(config: Config, pages: bool, metrics: Metrics) -> impl Layer<S, Service = Walk<S>> {
    let shared = Arc::new(Shared {
        walks: Semaphore::new(config.walks_max),
        config,
        pages,
        metrics,
    });
    layer_fn(move |inner| Walk {
        shared: shared.clone(),
        inner,
    })
}

impl<S: FetchPage> Service<Fetch<ListKey>> for Walk<S> {
    type Response = List;
    type Error = Error;
    type Future = BoxFuture<'static, Result<List>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        // Each page waits for its own turn below.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, fetch: Fetch<ListKey>) -> Self::Future {
        let (shared, inner) = (self.shared.clone(), self.inner.clone());
        async move {
            let (started, spent) = (Instant::now(), fetch.spent.clone());
            let outcome = match shared.walks.try_acquire() {
                Ok(_walking) => shared.walk(inner, fetch, started).await,
                Err(_) => Err(busy()),
            };
            spent.add(Phase::Merge, started.elapsed());
            shared.metrics.count(&outcome, started.elapsed());
            outcome
        }
        .boxed()
    }
}

impl Shared {
    async fn walk<S: FetchPage>(
        &self,
        inner: S,
        fetch: Fetch<ListKey>,
        started: Instant,
    ) -> Result<List> {
        let collection = &fetch.key.collection;
        let bounds = Bounds {
            limit: collection.limits.largest(self.config.page_limit_max),
            pages: self.pages,
            records_max: self.config.records_max,
            bytes_max: self.config.bytes_max.as_u64(),
        };
        let mut plan = Plan::new(bounds, started);
        let (mut asked, failed) = (FuturesUnordered::new(), CancellationToken::new());
        let mut refused = false;
        loop {
            while asked.len() < self.config.width
                && let Some(ask) = plan.next_ask()
            {
                let urgency = fetch.urgency.part();
                let page = Fetch {
                    key: PageKey {
                        collection: collection.clone(),
                        epoch: fetch.key.epoch,
                        window: ask.window,
                    },
                    urgency: urgency.clone(),
                    spent: fetch.spent.clone(),
                    afresh: false,
                };
                let page = one(inner.clone().oneshot(page), urgency, failed.clone());
                asked.push(page.map(move |page| (ask, page)));
            }
            match asked.next().await {
                Some((ask, Ok(page))) => {
                    // Only now it is known that the limit was what upstream refused.
                    if std::mem::take(&mut refused) {
                        collection.limits.refuses_above(page.limit);
                    }
                    if let Err(error) = plan.take(ask, page) {
                        failed.cancel();
                        finish_calls(asked);
                        return Err(error);
                    }
                }
                // Some servers refuse a large limit where others clamp it.
                Some((ask, Err(error)))
                    if error.kind() == Kind::Upstream4xx
                        && plan.at_first()
                        && ask.window.limit > LIMIT_DEFAULT
                        && !collection.limits.has_applied(ask.window.limit) =>
                {
                    plan.ask_for_less(LIMIT_DEFAULT);
                    refused = true;
                }
                Some((_, Err(error))) => {
                    failed.cancel();
                    finish_calls(asked);
                    return Err(error);
                }
                None => break,
            }
        }
        // Hashing a large list takes longer than other requests should wait for this thread.
        task::spawn_blocking(move || plan.finish(Instant::now()))
            .await
            .map_err(|_| Error::new(Kind::Internal, "the merge ended unexpectedly"))?
    }
}

fn busy() -> Error {
    Error::new(
        Kind::MergeBusy,
        "as many lists are being read as may be at once; ask again in a moment",
    )
}

/// One page, which is given up with its walk if it still waits for its turn.
async fn one(
    page: impl Future<Output = Result<Page>>,
    urgency: Arc<Urgency>,
    failed: CancellationToken,
) -> Result<Page> {
    let mut page = pin!(page);
    select! {
        biased;
        page = &mut page => page,
        () = failed.cancelled() => {
            if urgency.has_departed() {
                return page.await;
            }
            Err(Error::new(Kind::Internal, "the walk is over"))
        }
    }
}

/// Lets the calls of a walk that has failed come to their ends: breaking them off would spare upstream nothing, and
/// cost connections.
fn finish_calls<F: Future<Output: Send> + Send + 'static>(mut asked: FuturesUnordered<F>) {
    tokio::spawn(async move { while asked.next().await.is_some() {} });
}

/// What the walks tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    walks: IntCounterVec,
    duration: Histogram,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let walks = registry.counter(
            "walks_total",
            "Whole lists read from upstream, by verdict, or by the code of what ended the walk.",
            &["outcome"],
        )?;
        for verdict in Verdict::ALL {
            walks.with_label_values(&[verdict.word()]);
        }
        let duration = registry.seconds(
            "walk_duration_seconds",
            "From a walk's first call to its verdict.",
            &[],
        )?;
        Ok(Self {
            walks,
            duration: duration.with_label_values::<&str>(&[]),
        })
    }

    fn count(&self, outcome: &Result<List>, took: Duration) {
        let word = match outcome {
            Ok(list) => list.verdict.word(),
            Err(error) => error.kind().code(),
        };
        self.walks.with_label_values(&[word]).inc();
        self.duration.observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests;
