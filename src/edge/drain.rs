//! The last answer: what is not there when the drain is over is told as 503 `draining`, and not as a connection that
//! breaks.
//!
//! What can be answered at once never looks at the drain. A list that is sent as lines has its own end, by the
//! [drain](crate::contacts::drain) of its walk.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use pin_project_lite::pin_project;
use tower::{Layer, Service, layer::layer_fn};

use super::Inbound;
use crate::{
    contacts::drain::Drain,
    error::{Error, Result},
};

/// The stage.
#[derive(Clone, Debug)]
pub struct Last<S> {
    drain: Drain,
    inner: S,
}

/// Ends whatever still waits when the drain is over.
pub fn layer<S>(drain: Drain) -> impl Layer<S, Service = Last<S>> {
    layer_fn(move |inner| Last {
        drain: drain.clone(),
        inner,
    })
}

impl<S: Service<Inbound, Error = Error>> Service<Inbound> for Last<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Waiting<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        Waiting {
            drain: self.drain.clone(),
            over: None,
            inner: self.inner.call(inbound),
        }
    }
}

pin_project! {
    /// An outcome to come.
    pub struct Waiting<F> {
        drain: Drain,
        // There once it waits.
        over: Option<BoxFuture<'static, Error>>,
        #[pin]
        inner: F,
    }
}

impl<F: Future<Output = Result<T>>, T> Future for Waiting<F> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let this = self.project();
        if let Poll::Ready(outcome) = this.inner.poll(cx) {
            return Poll::Ready(outcome);
        }
        let over = this.over.get_or_insert_with(|| {
            let drain = this.drain.clone();
            async move { drain.over().await }.boxed()
        });
        over.as_mut().poll(cx).map(Err)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{self, Instant};
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{
        contacts::request::RequestId,
        edge::{Reply, caller::Asker},
        error::Kind,
    };

    fn inbound() -> Inbound {
        Inbound {
            head: http::Request::new(()).into_parts().0,
            has_body: false,
            header_lines: 0,
            id: RequestId::number(0, 0),
            trace: None,
            asker: Asker::Anyone(std::sync::Arc::default()),
        }
    }

    /// How a request comes out that takes so many seconds, five of which are gone when a drain of ten seconds begins.
    async fn answered(takes: u64) -> (Result<Reply>, u64) {
        let drain = Drain::default();
        let stage = layer(drain.clone()).layer(service_fn(move |_: Inbound| async move {
            time::sleep(Duration::from_secs(takes)).await;
            Ok(Reply::Text("text/plain", "x".into()))
        }));
        let begun = Instant::now();
        tokio::spawn(async move {
            time::sleep(Duration::from_secs(5)).await;
            drain.begin(Instant::now() + Duration::from_secs(10));
        });
        let outcome = stage.oneshot(inbound()).await;
        (outcome, begun.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn who_still_waits_when_the_drain_is_over_is_told_so() {
        for takes in [0, 1, 14] {
            let (outcome, after) = answered(takes).await;
            assert!(outcome.is_ok());
            assert_eq!(after, takes);
        }
        let (outcome, after) = answered(3_600).await;
        assert_eq!(outcome.unwrap_err().kind(), Kind::Draining);
        assert_eq!(after, 15);
    }
}
