//! One source: while a fresh verified list of the collection is held, every window is a slice of it and costs no call. A
//! stale one is what is left where upstream fails and the window has no copy of its own.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, Ready, ready},
};
use tokio::time::Instant;
use tower::{Layer, Service, layer::layer_fn};

use super::{
    cache::{
        Metrics, ends_the_copy,
        entry::{Entry, Freshness},
    },
    list::List,
    page::{Page, PageKey, Window},
    request::{Coding, Request},
};
use crate::{
    error::{Error, Result},
    served::{Answer, Served},
    service::ServePage,
};

/// The stage: above the page cache, because what a slice answers need not be kept twice.
#[derive(Clone, Debug)]
pub struct Slice<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

/// Cuts windows from lists before the pages below are asked. Slices count among the pages' metrics.
pub fn layer<S>(metrics: Metrics) -> impl Layer<S, Service = Slice<S>> {
    let metrics = Arc::new(metrics);
    layer_fn(move |inner| Slice {
        inner,
        metrics: metrics.clone(),
    })
}

impl<S: ServePage> Service<Request<PageKey>> for Slice<S> {
    type Response = Answer<Page>;
    type Error = Error;
    type Future = Either<
        Ready<Result<Answer<Page>>>,
        Either<S::Future, BoxFuture<'static, Result<Answer<Page>>>>,
    >;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<PageKey>) -> Self::Future {
        let now = Instant::now();
        let Some((list, limit)) = source(&request, now) else {
            return Either::Right(Either::Left(self.inner.call(request)));
        };
        let window = Window {
            limit,
            ..request.key.window
        };
        let coding = request.terms.coding;
        if list.is_fresh(now) {
            self.metrics.counter(Served::Slice).inc();
            return Either::Left(ready(Ok(cut(&list, window, coding, Served::Slice, now))));
        }
        // No longer good enough to stand in for upstream, and still better than its failure.
        let (answer, metrics) = (self.inner.call(request), self.metrics.clone());
        let after_all = async move {
            match answer.await {
                Err(error) if !ends_the_copy(error.kind()) && list.is_current() => {
                    let (now, served) = (Instant::now(), Served::Stale(Some(error.kind())));
                    match list.freshness(now) {
                        Freshness::Expired => Err(error),
                        _ => {
                            // As a request it was counted below.
                            metrics.stale(Some(error.kind()));
                            Ok(cut(&list, window, coding, served, now))
                        }
                    }
                }
                outcome => outcome,
            }
        };
        Either::Right(Either::Right(after_all.boxed()))
    }
}

/// A window as a slice of a list. It is never compressed, but whoever has it so is told that it still holds.
fn cut(
    list: &Entry<List>,
    window: Window,
    coding: Coding,
    served: Served,
    now: Instant,
) -> Answer<Page> {
    let copy = Arc::new(Entry::derived(list.slice(window), list));
    Answer {
        coding,
        ..Answer::new(copy, served, now)
    }
}

/// The list that a window may be cut from, fresh or stale, and the limit that upstream would echo.
pub fn source(request: &Request<PageKey>, now: Instant) -> Option<(Arc<Entry<List>>, u32)> {
    let Request { key, terms } = request;
    usable(key, now).filter(|(list, _)| terms.directives.accept(&list.standing(now)))
}

/// The same, whatever a request says about copies.
fn usable(key: &PageKey, now: Instant) -> Option<(Arc<Entry<List>>, u32)> {
    let list = key.collection.list();
    let list = list.as_ref()?;
    let usable = list.verdict.is_verified()
        && list.freshness(now) != Freshness::Expired
        && list.is_current();
    // Where it is not known yet how upstream clamps such a limit, it is asked, once.
    let limit = key.collection.limits.echo_of(key.window.limit)?;
    usable.then(|| (list.clone(), limit))
}

/// A window of a fresh list, for a request that would rather have it from upstream.
pub(super) fn in_place_of(key: &PageKey, now: Instant) -> Option<Arc<Entry<Page>>> {
    let (list, limit) = usable(key, now).filter(|(list, _)| list.is_fresh(now))?;
    let window = Window {
        limit,
        ..key.window
    };
    Some(Arc::new(Entry::derived(list.slice(window), &list)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{
        contacts::{
            cache::entry::Lifetime,
            testing,
            verdict::{Checks, Verdict},
        },
        error::Kind,
    };

    /// The stage over pages that cannot be had, so that only slices answer.
    async fn ask(key: &PageKey) -> Result<Answer<Page>> {
        ask_where(key, Kind::Internal).await
    }

    /// The same, with what fails them.
    async fn ask_where(key: &PageKey, fails: Kind) -> Result<Answer<Page>> {
        let refuse = service_fn(move |_: Request<PageKey>| {
            ready(Err::<Answer<Page>, _>(Error::new(fails, "no page here")))
        });
        let stage = layer(testing::metrics("pages")).layer(refuse);
        stage.oneshot(testing::request(key.clone())).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_fresh_verified_list_answers_until_it_is_not() {
        let key = testing::page_key("st-1", 20, 10);
        assert!(ask(&key).await.is_err());

        let now = Instant::now();
        let list = testing::kept(testing::list(35, now), now);
        key.collection.publish(list);
        // A page as large as this was never asked for, so upstream may cut it down.
        assert!(ask(&key).await.is_err());
        key.collection
            .limits
            .learn(key.window, &testing::page(0, 10, 35, now));
        time::advance(Duration::from_secs(59)).await;
        let answer = ask(&key).await.unwrap();
        assert_eq!(answer.copy.body, testing::body(20, 10, 35));
        assert_eq!(answer.served, Served::Slice);
        assert_eq!((answer.age, answer.ttl), (Duration::from_secs(59), 1));

        time::advance(Duration::from_secs(1)).await;
        assert!(ask(&key).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_that_is_not_verified_is_not_cut() {
        let key = testing::page_key("st-1", 0, 10);
        let now = Instant::now();
        key.collection
            .limits
            .learn(key.window, &testing::page(0, 10, 35, now));
        for (verdict, cut) in [
            (Verdict::Consistent, false),
            (Verdict::Settled, false),
            (Verdict::Drifting, false),
            (Verdict::Verified(Checks::Twice), true),
        ] {
            let mut list = testing::list(35, now);
            list.verdict = verdict;
            key.collection.publish(testing::kept(list, now));
            assert_eq!(ask(&key).await.is_ok(), cut, "{verdict}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_learned_clamp_is_obeyed() {
        let key = testing::page_key("st-1", 0, 100);
        let now = Instant::now();
        key.collection
            .publish(testing::kept(testing::list(35, now), now));
        let clamped = testing::decode(&testing::body(0, 20, 35), 0, 100);
        key.collection.limits.learn(key.window, &clamped);
        assert_eq!(ask(&key).await.unwrap().copy.body, testing::body(0, 20, 35));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stale_list_is_better_than_a_failure() {
        let key = testing::page_key("st-1", 20, 10);
        let now = Instant::now();
        let lifetime = Lifetime {
            stale_for: Duration::from_secs(30),
            ..testing::LIFETIME
        };
        let list = Entry::new(testing::list(35, now), &key, now, lifetime, 0.0);
        key.collection.publish(Arc::new(list));
        key.collection
            .limits
            .learn(key.window, &testing::page(0, 10, 35, now));
        time::advance(Duration::from_secs(60)).await;
        let answer = ask(&key).await.unwrap();
        assert_eq!(answer.copy.body, testing::body(20, 10, 35));
        assert_eq!(answer.served, Served::Stale(Some(Kind::Internal)));
        assert_eq!((answer.age, answer.ttl), (Duration::from_secs(60), -1));
        // But not than the word that there is nothing, or nothing that may be shown.
        for end in [Kind::StreamNotFound, Kind::UpstreamTenantMismatch] {
            assert_eq!(ask_where(&key, end).await.unwrap_err().kind(), end);
        }
        time::advance(Duration::from_secs(30)).await;
        assert!(ask(&key).await.is_err());
    }
}
