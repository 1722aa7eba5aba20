//! Compressed answers: a copy is compressed once, when the first caller wants it so, and then kept beside it.
//!
//! The stage stands right above the copies, whose key and store it knows. Slices are cut above it, anew for each request;
//! to compress them each time would take longer than sending them as they are, so they are not.
//!
//! What is sent uncompressed is never wrong, and that decides every doubt: nobody waits for a turn to compress, for what
//! is large, or for what failed. The others wait, but not in here, where all who wait do so for upstream: an answer
//! whose encoding is being made says so ([`Answer::encoded_by`]), and is [completed](Answer::complete) above.

use std::{
    iter, mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either},
};
use prometheus::IntCounter;
use tokio::task;
use tower::{Layer, Service, layer::layer_fn};

use super::{
    cache::{
        Held, Metrics,
        encoding::{Begun, Content, Encoder},
        entry::Entry,
        store::Store,
    },
    request::{Coding, Request},
};
use crate::{
    error::{Error, Result},
    served::Answer,
};

/// Below so many bytes the headers are what an answer costs.
const LENGTH_MIN: u64 = 1024;

/// A content of so many bytes is compressed in about a tenth of a second. Whoever is first waits for it, and so for every
/// page. What is longer is answered as it is until its encoding is there: it can be sent at once, and a caller that is
/// near, as callers here are, has it sooner than the encoding is made.
const WAITED_FOR_MAX: u64 = 8 * 1024 * 1024;

/// Encodings made at once, for each cache. Beyond them copies are answered as they are: compressing must not take the
/// processors from those who serve.
const ENCODINGS_MAX: usize = 2;

/// The stage.
pub struct Compress<T: Store, S> {
    shared: Arc<Shared<T>>,
    inner: S,
}

struct Shared<T: Store> {
    held: Arc<Held<T>>,
    turns: Arc<Turns>,
    made: IntCounter,
}

/// The encoders that nobody uses at this moment.
struct Turns(Mutex<Vec<Encoder>>);

impl Default for Turns {
    fn default() -> Self {
        let encoders = iter::repeat_with(Encoder::default);
        Self(Mutex::new(encoders.take(ENCODINGS_MAX).collect()))
    }
}

impl Turns {
    fn take(self: &Arc<Self>) -> Option<Turn> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().map(|encoder| Turn {
            encoder,
            turns: self.clone(),
        })
    }
}

/// An encoder, until it is dropped.
struct Turn {
    encoder: Encoder,
    turns: Arc<Turns>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let encoder = mem::take(&mut self.encoder);
        let mut free = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(encoder);
    }
}

/// Compresses copies for those who want them so. `held` is where they lie: it must have room for the encoding too.
pub fn layer<T: Store, S>(
    held: Arc<Held<T>>,
    metrics: &Metrics,
) -> impl Layer<S, Service = Compress<T, S>> + use<T, S> {
    let shared = Arc::new(Shared {
        held,
        turns: Arc::default(),
        made: metrics.encodings.clone(),
    });
    layer_fn(move |inner| Compress {
        shared: shared.clone(),
        inner,
    })
}

impl<T, S> Service<Request<T::Key>> for Compress<T, S>
where
    T: Store<Value: Content>,
    S: Service<Request<T::Key>, Response = Answer<T::Value>, Error = Error, Future: Send + 'static>,
{
    type Response = Answer<T::Value>;
    type Error = Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Self::Response>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<T::Key>) -> Self::Future {
        if request.terms.coding == Coding::Identity {
            return Either::Left(self.inner.call(request));
        }
        let (key, deadline) = (request.key.clone(), request.terms.deadline);
        let answering = self.inner.call(request);
        let shared = self.shared.clone();
        let compressing = async move {
            let answer = answering.await?;
            let waits = shared.encode(key, &answer.copy);
            Ok(Answer {
                coding: Coding::Gzip,
                encoded_by: waits.then_some(deadline),
                ..answer
            })
        };
        Either::Right(compressing.boxed())
    }
}

impl<T: Store<Value: Content>> Shared<T> {
    /// Sees to it that the copy's encoding is made. Whether it is worth waiting for.
    fn encode(&self, key: T::Key, copy: &Arc<Entry<T::Value>>) -> bool {
        if copy.encoding.has_ended() {
            return false;
        }
        let length = copy.length();
        // What is not kept is answered a few times at most.
        if length < LENGTH_MIN || !copy.is_kept() {
            return false;
        }
        let begun = copy.encoding.has_begun() || self.begin(key, copy);
        begun && length <= WAITED_FOR_MAX
    }

    /// Begins the encoding, unless somebody else just has. `false` if there is no turn for it now.
    fn begin(&self, key: T::Key, copy: &Arc<Entry<T::Value>>) -> bool {
        let Some(mut turn) = self.turns.take() else {
            return false;
        };
        let Some(begun) = Begun::of(copy) else {
            return true;
        };
        let (held, made) = (self.held.clone(), self.made.clone());
        task::spawn_blocking(move || {
            let encoded = turn.encoder.encode(&***begun.copy());
            made.inc();
            let encoded = encoded.filter(|encoded| held.grow(&key, begun.copy(), encoded.weight()));
            drop(turn);
            begun.end(encoded);
        });
        true
    }
}

impl<T: Store, S: Clone> Clone for Compress<T, S> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            inner: self.inner.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
