//! One source: while a fresh verified list of the collection is held, every window is a slice of it and costs no call.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use prometheus::IntCounter;
use tokio::time::Instant;
use tower::{Layer, Service, layer::layer_fn};

use super::{
    cache::{
        Metrics,
        entry::{Entry, Freshness},
    },
    list::Verdict,
    page::{Page, PageKey, Window},
    request::Request,
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
    sliced: IntCounter,
}

/// Cuts windows from lists before the pages below are asked. Slices count among the pages' metrics.
pub fn layer<S>(metrics: Metrics) -> impl Layer<S, Service = Slice<S>> {
    layer_fn(move |inner| Slice {
        inner,
        sliced: metrics.counter(Served::Slice).clone(),
    })
}

impl<S: ServePage> Service<Request<PageKey>> for Slice<S> {
    type Response = Answer<Page>;
    type Error = Error;
    type Future = Either<Ready<Result<Answer<Page>>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<PageKey>) -> Self::Future {
        match cut(&request, Instant::now()) {
            Some(answer) => {
                self.sliced.inc();
                Either::Left(ready(Ok(answer)))
            }
            None => Either::Right(self.inner.call(request)),
        }
    }
}

/// The window as a slice, if there is a list that may be cut now.
fn cut(request: &Request<PageKey>, now: Instant) -> Option<Answer<Page>> {
    let Request { key, terms } = request;
    let list = key.collection.list();
    let list = list.as_ref()?;
    let standing = list.standing(now);
    if list.verdict != Verdict::Verified
        || standing.freshness != Freshness::Fresh
        || !terms.directives.accept(&standing)
    {
        return None;
    }
    let Window { skip, limit } = key.window;
    // Upstream would echo the limit that it applies. Where that is not known yet, it is asked, once.
    let limit = key.collection.limits.echo_of(limit)?;
    let page = list.slice(Window { skip, limit });
    let copy = Arc::new(Entry::derived(page, list));
    Some(Answer {
        coding: terms.coding,
        ..Answer::new(copy, Served::Slice, now)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{contacts::testing, error::Kind};

    /// The stage over pages that cannot be had, so that only slices answer.
    async fn ask(key: &PageKey) -> Result<Answer<Page>> {
        let refuse =
            service_fn(async |_: Request<PageKey>| Err(Error::new(Kind::Internal, "no page here")));
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
    async fn a_list_that_is_only_consistent_is_not_cut() {
        let key = testing::page_key("st-1", 0, 10);
        let now = Instant::now();
        let mut list = testing::list(35, now);
        list.verdict = Verdict::Consistent;
        key.collection.publish(testing::kept(list, now));
        assert!(ask(&key).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_learned_clamp_is_obeyed() {
        let key = testing::page_key("st-1", 0, 100);
        let now = Instant::now();
        key.collection
            .publish(testing::kept(testing::list(35, now), now));
        key.collection.limits.refuses_above(20);
        assert_eq!(ask(&key).await.unwrap().copy.body, testing::body(0, 20, 35));
    }
}
