//! What an answer still lacks when all of it is here: the encoding of its copy, which is waited for above the
//! [limit](super::limit).
//!
//! Who waits for it holds nothing that others wait for, and not for long: no more than two are made at once for each cache,
//! each of so much content that it takes about a tenth of a second ([compress](crate::contacts::compress)). So it takes no
//! place, and a copy is never refused because too many wait for upstream.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either},
};
use pin_project_lite::pin_project;
use tower::{Layer, Service, layer::layer_fn};

use super::{Inbound, Reply};
use crate::error::{Error, Result};

/// The stage.
#[derive(Clone, Debug)]
pub struct Complete<S> {
    inner: S,
}

/// Waits for what answers lack.
pub fn layer<S>() -> impl Layer<S, Service = Complete<S>> {
    layer_fn(|inner| Complete { inner })
}

impl<S: Service<Inbound, Response = Reply, Error = Error>> Service<Inbound> for Complete<S> {
    type Response = Reply;
    type Error = Error;
    type Future = Completing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        Completing {
            incomplete: None,
            inner: self.inner.call(inbound),
        }
    }
}

pin_project! {
    /// An outcome to come.
    pub struct Completing<F> {
        // There once there is an answer that lacks something. The rest is over then.
        incomplete: Option<BoxFuture<'static, Reply>>,
        #[pin]
        inner: F,
    }
}

impl<F: Future<Output = Result<Reply>>> Future for Completing<F> {
    type Output = Result<Reply>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Reply>> {
        let this = self.project();
        let incomplete = match this.incomplete {
            Some(incomplete) => incomplete,
            None => match complete(ready!(this.inner.poll(cx))?) {
                Either::Left(reply) => return Poll::Ready(Ok(reply)),
                Either::Right(incomplete) => this.incomplete.insert(incomplete),
            },
        };
        incomplete.poll_unpin(cx).map(Ok)
    }
}

/// A reply that lacks nothing, or what becomes one.
fn complete(reply: Reply) -> Either<Reply, BoxFuture<'static, Reply>> {
    match reply {
        Reply::Page(answer) if answer.encoded_by.is_some() => {
            Either::Right(answer.complete().map(Reply::Page).boxed())
        }
        Reply::List(answer) if answer.encoded_by.is_some() => {
            Either::Right(answer.complete().map(Reply::List).boxed())
        }
        reply => Either::Left(reply),
    }
}

#[cfg(test)]
mod tests {
    use std::{future, sync::Arc, time::Duration};

    use futures_util::{TryFutureExt, future::poll_immediate};
    use tokio::{
        runtime,
        sync::oneshot,
        task,
        time::{self, Instant},
    };
    use tower::service_fn;

    use super::*;
    use crate::{
        contacts::{
            cache::{
                Held, Key,
                encoding::Content,
                entry::Entry,
                store::{Lists, Pages, Store},
            },
            compress,
            request::{Coding, Request, RequestId},
            testing,
        },
        edge::{caller::Asker, limit},
        error::Kind,
        metrics::Registry,
        served::{Answer, Served},
    };

    fn asking(path: &str) -> Inbound {
        Inbound {
            head: http::Request::get(path).body(()).unwrap().into_parts().0,
            has_body: false,
            header_lines: 0,
            id: RequestId::number(0, 0),
            trace: None,
            asker: Asker::Anyone(Arc::default()),
        }
    }

    /// The limit with one place above the compression of a copy, which `/hit` asks for; all else waits for ever.
    fn over<T, K>(
        (store, key, copy): (T, K, Arc<Entry<T::Value>>),
        reply: fn(Answer<T::Value>) -> Reply,
        cache: &str,
    ) -> impl Service<Inbound, Response = Reply, Error = Error, Future: Send + 'static>
    where
        T: Store<Key = K, Value: Content>,
        K: Key,
    {
        store.put(key.clone(), copy.clone());
        let held = service_fn(move |_: Request<K>| {
            let answer = Answer::new(copy.clone(), Served::Hit, Instant::now());
            future::ready(Ok::<_, Error>(answer))
        });
        let held_in = Arc::new(Held::new(Arc::new(store)));
        let mut compressed = compress::layer(held_in, &testing::metrics(cache)).layer(held);
        let route = service_fn(move |inbound: Inbound| {
            let mut request = testing::request(key.clone());
            request.terms.coding = Coding::Gzip;
            match inbound.head.uri.path() {
                "/hit" => compressed.call(request).map_ok(reply).left_future(),
                _ => future::pending().right_future(),
            }
        });
        let metrics = limit::Metrics::new(&Registry::new().unwrap()).unwrap();
        layer().layer(limit::layer(1, metrics).layer(route))
    }

    /// Asks for a copy while all places are taken, and its encoding is not begun before it is asked for.
    async fn first_gzip_of<S>(mut stage: S) -> Reply
    where
        S: Service<Inbound, Response = Reply, Error = Error, Future: Send + 'static>,
    {
        let mut waiting = Box::pin(stage.call(asking("/miss")));
        assert!(poll_immediate(&mut waiting).await.is_none());
        let refused = stage.call(asking("/miss")).await.unwrap_err();
        assert_eq!(refused.kind(), Kind::Overloaded);

        let (go_on, held_up) = oneshot::channel::<()>();
        let holding_up = task::spawn_blocking(move || held_up.blocking_recv());
        let mut hits = [stage.call(asking("/hit")), stage.call(asking("/hit"))].map(Box::pin);
        for hit in &mut hits {
            assert!(
                poll_immediate(hit).await.is_none(),
                "it waits for its encoding"
            );
        }
        go_on.send(()).unwrap();
        holding_up.await.unwrap().unwrap();
        let [first, second] = hits;
        second.await.unwrap();
        first.await.unwrap()
    }

    /// One thread for what blocks, so that a test can hold it up.
    fn run<F: Future>(test: F) -> F::Output {
        let mut runtime = runtime::Builder::new_current_thread();
        let runtime = runtime
            .enable_time()
            .max_blocking_threads(1)
            .start_paused(true);
        runtime.build().unwrap().block_on(test)
    }

    /// Catches a copy that is refused for load because nobody has compressed it yet.
    #[test]
    fn what_is_here_but_for_its_encoding_takes_no_place() {
        run(async {
            let (now, metrics) = (Instant::now(), testing::metrics("pages"));
            let page = testing::kept(testing::page(0, 100, 100, now), now);
            let pages = Pages::new(1 << 30, testing::LIFETIME, metrics);
            let key = testing::page_key("st-1", 0, 100);
            match first_gzip_of(over((pages, key, page), Reply::Page, "pages")).await {
                Reply::Page(answer) => assert!(answer.encoded().is_some()),
                other => panic!("{other:?}"),
            }
            let list = testing::kept(testing::list(100, now), now);
            let lists = Lists::new(1 << 30, testing::metrics("lists"));
            let key = testing::list_key("st-1");
            match first_gzip_of(over((lists, key, list), Reply::List, "lists")).await {
                Reply::List(answer) => assert!(answer.encoded().is_some()),
                other => panic!("{other:?}"),
            }
        });
    }

    /// Catches a caller that waits for an encoding beyond its deadline, thirty seconds here.
    #[test]
    fn who_waits_no_longer_has_the_content_as_it_is() {
        run(async {
            let now = Instant::now();
            let page = testing::kept(testing::page(0, 100, 100, now), now);
            let pages = Pages::new(1 << 30, testing::LIFETIME, testing::metrics("pages"));
            let key = testing::page_key("st-1", 0, 100);
            let mut stage = over((pages, key, page), Reply::Page, "pages");
            let (go_on, held_up) = oneshot::channel::<()>();
            let holding_up = task::spawn_blocking(move || held_up.blocking_recv());
            let mut hit = Box::pin(stage.call(asking("/hit")));
            assert!(poll_immediate(&mut hit).await.is_none());
            time::advance(Duration::from_secs(30)).await;
            match poll_immediate(hit).await {
                Some(Ok(Reply::Page(answer))) => assert!(answer.encoded().is_none()),
                other => panic!("{other:?}"),
            }
            go_on.send(()).unwrap();
            holding_up.await.unwrap().unwrap();
        });
    }
}
