//! The gate: what a credential will not be signed for costs no slot and no wait.
//!
//! It stands above breaker and budget, and knows the same credentials as the stage that signs below them. An account
//! without a secret, and whatever rests after refusals, is told so at once. When a rest is over it lets one attempt through
//! and holds the others back until that one has come to something.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::SystemTime,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use super::{
    Credentials,
    credential::{Credential, Now},
};
use crate::{
    contacts::{ids::StreamId, page::PageKey, request::Fetch},
    error::{Error, Result},
    service::FetchPage,
};

/// The stage.
#[derive(Clone, Debug)]
pub struct Gate<S> {
    credentials: Arc<Credentials>,
    clock: fn() -> SystemTime,
    inner: S,
}

/// Lets through what may be signed. `clock` tells the wall's time.
pub fn layer<S>(
    credentials: Arc<Credentials>,
    clock: fn() -> SystemTime,
) -> impl Layer<S, Service = Gate<S>> {
    layer_fn(move |inner| Gate {
        credentials: credentials.clone(),
        clock,
        inner,
    })
}

impl<S: FetchPage> Service<Fetch<PageKey>> for Gate<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<S::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, fetch: Fetch<PageKey>) -> Self::Future {
        let collection = &fetch.key.collection;
        let admitted = self.credentials.of(&collection.account);
        let admitted = admitted.and_then(|credential| {
            let now = Now {
                wall: (self.clock)(),
                steady: Instant::now(),
            };
            let caller = fetch.urgency.beginner();
            let number = credential.admit(&collection.stream, caller.as_ref(), now)?;
            let probe = number.map(|number| Probe {
                credential: credential.clone(),
                stream: collection.stream.clone(),
                number,
            });
            Ok((credential.clone(), probe))
        });
        let (credential, probe) = match admitted {
            Ok(admitted) => admitted,
            Err(error) => return async { Err(error) }.boxed(),
        };
        if credential.asks() {
            // Before anything is taken that others may need: a service can be slow.
            let (clock, inner) = (self.clock, self.inner.clone());
            return async move {
                let _probe = probe;
                let stream = &fetch.key.collection.stream;
                credential.prepare(stream, clock).await?;
                inner.oneshot(fetch).await
            }
            .boxed();
        }
        let fetching = self.inner.call(fetch);
        async move {
            let _probe = probe;
            fetching.await
        }
        .boxed()
    }
}

/// The one that goes first. Whatever ends it, also that nobody waits any more, lets the next one go.
struct Probe {
    credential: Arc<Credential>,
    stream: StreamId,
    number: u64,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.credential
            .release(&self.stream, self.number, Instant::now());
    }
}

#[cfg(test)]
mod tests;
