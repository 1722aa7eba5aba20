//! The I/O of one walk: asks for the pages that the [`plan`](super::plan) wants, so many at once, [rests](super::rest) when
//! that fails, and tells how far it is.

use std::{pin::pin, sync::Arc};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use tokio::{
    select,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::info;

use super::{
    Shared,
    outlook::{TOLD_EVERY, outlook},
    pass::Ask,
    plan::Plan,
    rest::Rest,
};
use crate::{
    contacts::{
        limits,
        list::ListKey,
        page::{Page, PageKey, Window},
        request::{Fetch, Urgency},
        walking::Walking,
    },
    error::{Error, Kind, Result},
    service::FetchPage,
};

/// A walk's readings, one after the other.
pub(super) struct Reading<'a, S> {
    pub shared: &'a Shared,
    pub inner: &'a S,
    pub fetch: &'a Fetch<ListKey>,
    pub walking: &'a Walking,
    /// Calls that were made and have come back.
    back: usize,
    /// A page was read.
    begun: bool,
    rest: Rest,
}

/// What comes back of an ask.
pub(super) struct Back<A> {
    pub ask: A,
    /// Upstream was asked.
    pub sent: bool,
    pub outcome: Result<Page>,
}

impl<'a, S: FetchPage> Reading<'a, S> {
    pub(super) fn new(
        shared: &'a Shared,
        inner: &'a S,
        fetch: &'a Fetch<ListKey>,
        walking: &'a Walking,
    ) -> Self {
        Self {
            shared,
            inner,
            fetch,
            walking,
            back: 0,
            begun: false,
            rest: Rest::default(),
        }
    }

    /// Asks for pages until the plan has all that it wants for one reading.
    pub(super) async fn read(&mut self, plan: &mut Plan) -> Result<()> {
        let (mut asked, failed) = (FuturesUnordered::new(), CancellationToken::new());
        let mut refused = None;
        loop {
            let now = Instant::now();
            let rest = self.rest.until(now);
            while rest.is_none()
                && asked.len() < self.shared.config.width
                && let Some(ask) = plan.next_ask()
            {
                let inner = self.inner.clone();
                asked.push(page(inner, self.fetch, ask.window, failed.clone(), ask));
            }
            self.tell(plan, now);
            if asked.is_empty() && rest.is_none() {
                return Ok(());
            }
            let wake = rest.map_or(now + TOLD_EVERY, |(end, _)| end.min(now + TOLD_EVERY));
            let outcome = select! {
                biased;
                Some(back) = asked.next() => self.take(back, plan, &mut refused),
                () = time::sleep_until(wake) => Ok(()),
            };
            if let Err(error) = outcome.and_then(|()| self.in_time(Instant::now())) {
                failed.cancel();
                finish_calls(asked);
                return Err(error);
            }
        }
    }

    /// Takes what came back. `refused` is the limit that upstream may have refused.
    fn take(&mut self, back: Back<Ask>, plan: &mut Plan, refused: &mut Option<u32>) -> Result<()> {
        let Back { ask, sent, outcome } = back;
        let (collection, now) = (&self.fetch.key.collection, Instant::now());
        self.back += usize::from(sent);
        match outcome {
            Ok(page) => {
                self.begun = true;
                self.rest.succeeded(now);
                // Only now it is known that the limit was what upstream refused.
                if let Some(refused) = refused.take() {
                    collection.limits.refuses(refused, page.limit, now);
                }
                let before = plan.seen();
                let taken = plan.take(ask, page);
                self.shared
                    .saw(collection, plan, before, self.walking.started);
                plan.lay_out(&self.walking.trail);
                taken
            }
            Err(error) => match limits::smaller(ask.window.limit) {
                // Some servers refuse a large limit where others clamp it.
                Some(smaller) if error.kind() == Kind::Upstream4xx && plan.at_first() => {
                    plan.ask_for_less(smaller);
                    refused.get_or_insert(ask.window.limit);
                    Ok(())
                }
                // While there is nothing to lose, whoever asks next may as well begin anew.
                _ if !self.begun => Err(error),
                _ => {
                    let code = error.kind().code();
                    if self
                        .rest
                        .failed(error, self.shared.config.failures_max, now)?
                    {
                        self.shared.metrics.rests.inc();
                        info!(code, "a page failed; the walk rests and goes on with it");
                    }
                    plan.ask_again(ask);
                    Ok(())
                }
            },
        }
    }

    fn in_time(&self, now: Instant) -> Result<()> {
        if now < self.walking.started + self.shared.config.walk_max {
            return Ok(());
        }
        Err(Error::new(
            Kind::UpstreamTimeout,
            "the list could not be read within merge.walk_max",
        ))
    }

    /// Tells how far it is, and when it will be over if all goes on as it does.
    fn tell(&self, plan: &Plan, now: Instant) {
        let Shared {
            config, forecast, ..
        } = self.shared;
        self.walking.tell(outlook(
            plan.progress(),
            &**forecast,
            self.fetch,
            (config.width, self.back),
            &self.rest,
            now,
        ));
    }
}

/// One page, which is given up with its walk if it still waits for its turn.
pub(super) fn page<S: FetchPage, A: Send>(
    inner: S,
    walk: &Fetch<ListKey>,
    window: Window,
    failed: CancellationToken,
    ask: A,
) -> impl Future<Output = Back<A>> + Send + use<S, A> {
    let urgency = walk.urgency.part();
    let fetch = Fetch {
        key: PageKey {
            collection: walk.key.collection.clone(),
            epoch: walk.key.epoch,
            window,
        },
        urgency: urgency.clone(),
        spent: walk.spent.clone(),
        trace: walk.trace,
        afresh: false,
    };
    one(inner.oneshot(fetch), urgency.clone(), failed).map(move |outcome| Back {
        ask,
        sent: urgency.has_departed(),
        outcome,
    })
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
pub(super) fn finish_calls<F: Future<Output: Send> + Send + 'static>(
    mut asked: FuturesUnordered<F>,
) {
    tokio::spawn(async move { while asked.next().await.is_some() {} });
}
