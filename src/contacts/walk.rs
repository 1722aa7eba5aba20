//! The walk: reads a whole collection page by page, and returns it as one list with a verdict.
//!
//! What to ask and what to believe is the [`plan`]'s, a pure state machine, and that of one reading in it, the [`pass`]'s.
//! What a verified list guarantees is argued in [`judge`]. Here is the I/O around it: so many pages at once, through the
//! same stages below as a single page.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::{select, sync::Semaphore, task, time::Instant};
use tokio_util::sync::CancellationToken;
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

pub use self::{
    config::{Config, Verify},
    metrics::Metrics,
};
use self::{pass::Bounds, plan::Plan};
use super::{
    collection::Collection,
    limits,
    list::{List, ListKey},
    page::{Page, PageKey, Window},
    request::{Fetch, Urgency},
    spent::Phase,
    verdict::Verdict,
    walking::Walking,
};
use crate::{
    error::{Error, Kind, Result},
    service::FetchPage,
};

mod config;
mod confirm;
mod flow;
pub mod judge;
mod metrics;
mod parts;
pub mod pass;
pub mod plan;
pub mod stream;

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
        let walking = collection.walking.begin(fetch.key.epoch, started);
        let outcome = self.merge(inner, &fetch, &walking, started).await;
        walking.end(outcome.as_ref().map(|_| ()).map_err(Error::clone));
        outcome
    }

    async fn merge<S: FetchPage>(
        &self,
        inner: S,
        fetch: &Fetch<ListKey>,
        walking: &Walking,
        started: Instant,
    ) -> Result<List> {
        let collection = &fetch.key.collection;
        let bounds = Bounds {
            limit: collection
                .limits
                .largest(self.config.page_limit_max, started),
            pages: self.pages,
            records_max: self.config.records_max,
            bytes_max: self.config.bytes_max.as_u64(),
            repairs_max: self.config.repairs_max,
        };
        let mut plan = Plan::new(bounds, self.config.verify, collection.gap.known(), started);
        loop {
            self.read(&inner, fetch, &mut plan, walking).await?;
            let repairs = plan.repairs();
            // Hashing a large list takes longer than other requests should wait for this thread.
            let judged = task::spawn_blocking(move || {
                let judged = plan.judge(Instant::now());
                (plan, judged)
            });
            let (read, judged) = judged
                .await
                .map_err(|_| Error::new(Kind::Internal, "the merge ended unexpectedly"))?;
            self.saw(collection, &read, repairs, started);
            plan = read;
            if let Some(list) = judged? {
                walking.trail.complete(&list, list.ending(Instant::now()));
                match list.verdict {
                    // What was read before now may be anything.
                    Verdict::Drifting => collection.scope.outdate(Instant::now()),
                    _ => collection.gap.remember(plan.gap()),
                }
                return Ok(list);
            }
        }
    }

    /// Asks for pages until the plan has all that it wants for one reading.
    async fn read<S: FetchPage>(
        &self,
        inner: &S,
        fetch: &Fetch<ListKey>,
        plan: &mut Plan,
        walking: &Walking,
    ) -> Result<()> {
        let collection = &fetch.key.collection;
        let (mut asked, failed) = (FuturesUnordered::new(), CancellationToken::new());
        let mut refused = None;
        loop {
            while asked.len() < self.config.width
                && let Some(ask) = plan.next_ask()
            {
                asked.push(page(inner.clone(), fetch, ask.window, failed.clone(), ask));
            }
            let outcome = match asked.next().await {
                Some((ask, Ok(page))) => {
                    // Only now it is known that the limit was what upstream refused.
                    if let Some(refused) = refused.take() {
                        let now = Instant::now();
                        collection.limits.refuses(refused, page.limit, now);
                    }
                    let repairs = plan.repairs();
                    let taken = plan.take(ask, page);
                    self.saw(collection, plan, repairs, walking.started);
                    walking.tell(plan.progress());
                    plan.lay_out(&walking.trail);
                    taken
                }
                Some((ask, Err(error))) => match limits::smaller(ask.window.limit) {
                    // Some servers refuse a large limit where others clamp it.
                    Some(smaller) if error.kind() == Kind::Upstream4xx && plan.at_first() => {
                        plan.ask_for_less(smaller);
                        refused.get_or_insert(ask.window.limit);
                        Ok(())
                    }
                    _ => Err(error),
                },
                None => return Ok(()),
            };
            if let Err(error) = outcome {
                failed.cancel();
                finish_calls(asked);
                return Err(error);
            }
        }
    }

    /// What becomes of a change that the walk has seen: a repair more is counted, and what was read before this walk is
    /// stale.
    fn saw(&self, collection: &Collection, plan: &Plan, repairs: u32, started: Instant) {
        self.metrics
            .repairs
            .inc_by((plan.repairs() - repairs).into());
        if plan.has_drifted()
            && let Some(before) = started.checked_sub(Duration::from_nanos(1))
        {
            collection.scope.outdate(before);
        }
    }
}

fn busy() -> Error {
    Error::new(
        Kind::MergeBusy,
        "as many lists are being read as may be at once; ask again in a moment",
    )
}

/// One page, which is given up with its walk if it still waits for its turn. `ask` is what it answers.
fn page<S: FetchPage, A: Send>(
    inner: S,
    walk: &Fetch<ListKey>,
    window: Window,
    failed: CancellationToken,
    ask: A,
) -> impl Future<Output = (A, Result<Page>)> + Send + use<S, A> {
    let urgency = walk.urgency.part();
    let fetch = Fetch {
        key: PageKey {
            collection: walk.key.collection.clone(),
            epoch: walk.key.epoch,
            window,
        },
        urgency: urgency.clone(),
        spent: walk.spent.clone(),
        afresh: false,
    };
    one(inner.oneshot(fetch), urgency, failed).map(move |page| (ask, page))
}

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

#[cfg(test)]
mod tests;
