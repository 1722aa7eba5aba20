//! The walk: reads a whole collection page by page, and returns it as one list with a verdict.
//!
//! What to ask and what to believe is the [`plan`]'s, a pure state machine, and that of one reading in it, the [`pass`]'s.
//! What a verified list guarantees is argued in [`judge`]. The I/O around it is the [`reading`]'s: so many pages at once,
//! through the same stages below as a single page, and with [rests](rest) when that fails.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{select, task, time::Instant};
use tower::{Layer, Service, layer::layer_fn};

pub use self::{
    config::{Config, Verify},
    metrics::Metrics,
};
use self::{
    pass::Bounds,
    plan::{Plan, Seen},
    reading::Reading,
};
use super::{
    collection::Collection,
    drain::Drain,
    list::{List, ListKey},
    places::Places,
    request::Fetch,
    spent::Phase,
    verdict::Verdict,
    walking::Walking,
};
use crate::{
    error::{Error, Kind, Result},
    metrics::Counted,
    service::{FetchPage, Forecast},
};

mod config;
mod confirm;
pub mod flow;
pub mod judge;
mod metrics;
mod outlook;
mod parts;
pub mod pass;
pub mod plan;
pub mod reading;
pub mod rest;
pub mod stream;

/// The stage: a list is fetched by fetching its pages.
#[derive(Clone, Debug)]
pub struct Walk<S> {
    shared: Arc<Shared>,
    inner: S,
}

#[derive(Debug)]
struct Shared {
    /// One for each list that is being read, of whoever asked for it first.
    walks: Places,
    config: Config,
    forecast: Arc<dyn Forecast>,
    /// Upstream counts in pages.
    pages: bool,
    drain: Drain,
    metrics: Metrics,
}

/// Reads lists through whatever fetches pages. `pages` says that upstream counts in pages, and `forecast` how long what is
/// still to come will take. When the process ends, `drain` ends what would come too late.
pub fn layer<S>(
    config: Config,
    pages: bool,
    forecast: Arc<dyn Forecast>,
    drain: Drain,
    metrics: Metrics,
) -> impl Layer<S, Service = Walk<S>> {
    let shared = Arc::new(Shared {
        walks: Places::new(config.walks_max),
        config,
        forecast,
        pages,
        drain,
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
            let collection = fetch.key.collection.clone();
            let outcome = match shared.walks.take(fetch.urgency.beginner().as_ref()) {
                Some(_place) => {
                    let _running = Counted::new(&shared.metrics.running);
                    shared.walk(inner, fetch, started).await
                }
                None => Err(busy()),
            };
            spent.add(Phase::Merge, started.elapsed());
            shared
                .metrics
                .count(&collection, &outcome, started.elapsed());
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
        let urgency = fetch.urgency.clone();
        let walking = collection.walking.begin(fetch.key.epoch, urgency, started);
        let reading = self.drain.reading(collection);
        let outcome = select! {
            biased;
            outcome = self.merge(inner, &fetch, &walking, started) => outcome,
            error = reading.abandoned(walking.watch()) => Err(error),
        };
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
        let mut reading = Reading::new(self, &inner, fetch, walking);
        loop {
            reading.read(&mut plan).await?;
            let before = plan.seen();
            // Hashing a large list takes longer than other requests should wait for this thread.
            let judged = task::spawn_blocking(move || {
                let judged = plan.judge(Instant::now());
                (plan, judged)
            });
            let (read, judged) = judged
                .await
                .map_err(|_| Error::new(Kind::Internal, "the merge ended unexpectedly"))?;
            self.saw(collection, &read, before, started);
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

    /// What becomes of a change that the walk has seen: it is counted, and so is a repair more, and what was read before
    /// this walk is stale.
    fn saw(&self, collection: &Collection, plan: &Plan, before: Seen, started: Instant) {
        let now = plan.seen();
        let (changes, repairs) = (&self.metrics.changes, &self.metrics.repairs);
        changes.inc_by((now.drifted && !before.drifted).into());
        repairs.inc_by((now.repairs - before.repairs).into());
        if now.drifted
            && let Some(before) = started.checked_sub(Duration::from_nanos(1))
        {
            collection.scope.outdate(before);
        }
    }
}

fn busy() -> Error {
    Error::new(
        Kind::MergeBusy,
        "as many lists are being read as may be at once, for all callers or for this one; ask again in a moment",
    )
}

#[cfg(test)]
mod tests;
