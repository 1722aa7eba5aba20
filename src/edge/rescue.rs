//! A panic in one request is that request's own: its caller gets 500 `internal`, and the connection goes on.
//!
//! It stands below the stage that writes answers, so that this one is a problem like any other, with the request's name.
//! What panics above it ends its connection. A flight is a task of its own, whose waiters are told when it is lost.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt, future::CatchUnwind};
use pin_project_lite::pin_project;
use tower::{Layer, Service, layer::layer_fn};

use super::Inbound;
use crate::{
    error::{Error, Kind, Result},
    panics::Caught,
};

/// The stage.
#[derive(Clone, Debug)]
pub struct Rescue<S> {
    inner: S,
}

/// Turns a panic into an error.
pub fn layer<S>() -> impl Layer<S, Service = Rescue<S>> {
    layer_fn(|inner| Rescue { inner })
}

impl<S: Service<Inbound, Error = Error>> Service<Inbound> for Rescue<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Rescuing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        // A service is as good after a panic as before: what its requests share is behind locks and atomics.
        let called = catch_unwind(AssertUnwindSafe(|| self.inner.call(inbound)));
        Rescuing {
            inner: called
                .ok()
                .map(|future| AssertUnwindSafe(future).catch_unwind()),
        }
    }
}

pin_project! {
    /// An outcome to come; `None` if there was a panic before there was a future.
    pub struct Rescuing<F> {
        #[pin]
        inner: Option<CatchUnwind<AssertUnwindSafe<F>>>,
    }
}

impl<F, T> Future for Rescuing<F>
where
    F: Future<Output = Result<T>>,
{
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let outcome: std::result::Result<_, Caught> = match self.project().inner.as_pin_mut() {
            Some(inner) => ready!(inner.poll(cx)),
            None => return Poll::Ready(Err(panicked())),
        };
        Poll::Ready(outcome.unwrap_or_else(|_| Err(panicked())))
    }
}

fn panicked() -> Error {
    Error::new(
        Kind::Internal,
        "the request met a fault of the gateway's own",
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::future::Ready;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{
        contacts::request::RequestId,
        edge::{Reply, caller::Asker},
    };

    fn inbound() -> Inbound {
        Inbound {
            head: http::Request::new(()).into_parts().0,
            has_body: false,
            header_lines: 0,
            id: RequestId::number(0, 0),
            trace: None,
            asker: Asker::Anyone(Arc::default()),
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_nothing_of_its_text() {
        let at_once = layer().layer(service_fn(|_: Inbound| -> Ready<Result<Reply>> {
            panic!("CANARY-7f3a")
        }));
        let later = layer().layer(service_fn(async |_: Inbound| -> Result<Reply> {
            tokio::task::yield_now().await;
            panic!("CANARY-7f3a")
        }));
        for error in [
            at_once.oneshot(inbound()).await.unwrap_err(),
            later.oneshot(inbound()).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Internal);
            assert!(!format!("{error:?}").contains("CANARY"));
        }
    }

    #[tokio::test]
    async fn what_does_not_panic_passes() {
        let stage = layer().layer(service_fn(async |_| {
            Ok(Reply::Text("text/plain", "x".into()))
        }));
        assert!(matches!(
            stage.oneshot(inbound()).await,
            Ok(Reply::Text(..))
        ));
    }
}
