//! The cache: a fresh copy at once, or one flight for all who ask.
//!
//! The same stage serves pages over upstream and lists over the walk. What a copy is and where it lies is the
//! [`Store`]'s; when it is fresh is the [`Entry`]'s; who fetches it is the [`flight`]'s. Here they meet.

use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either, Ready, pending, ready},
};
use tokio::{select, time::Instant};
use tower::{Layer, Service, ServiceExt, layer::layer_fn};
use tracing::{Instrument, Span, info_span};

pub(super) use self::landing::ends_the_copy;
pub use self::{
    config::Config,
    held::Held,
    metrics::{Families, Metrics},
};
use self::{
    decision::{Decision, decide},
    entry::{Cached, Entry, Freshness, Lifetime},
    flight::{Boarded, Waiter},
    forced::Forced,
    store::Store,
};
use super::{
    collection::Collection,
    directives::Directives,
    ids::Epoch,
    request::{Class, Fetch, Request, Terms},
    verdict::Handling,
};
use crate::{
    error::{Error, Kind, Result},
    served::{Answer, Forward, Served},
};

mod config;
pub mod decision;
pub mod encoding;
pub mod entry;
pub mod explanation;
pub mod flight;
pub mod forced;
mod held;
mod landing;
mod metrics;
mod rest;
pub mod store;
mod unkept;

/// What copies are looked up by.
pub trait Key: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static {
    /// Whose contacts they are.
    fn collection(&self) -> &Arc<Collection>;

    /// The generation of copies that it is about.
    fn epoch(&self) -> Epoch;

    /// Ends when it is known that what is fetched will not be there before a request's deadline, with what to tell it.
    /// Most fetches do not know how long they take.
    fn outlasted(&self, terms: &Terms) -> impl Future<Output = Error> + Send {
        let _ = terms;
        pending()
    }

    /// What to tell a request at its deadline, if there is more to say than that upstream did not answer.
    fn overdue(&self) -> Option<Error> {
        None
    }
}

/// The stage. Clones share everything and cost one reference, since each connection has one.
pub struct Cache<T: Store, S>(Arc<Shared<T, S>>);

struct Shared<T: Store, S> {
    inner: S,
    held: Arc<Held<T>>,
    forced: Arc<Forced>,
    lifetime: Lifetime,
    chance: fn() -> f64,
    metrics: Metrics,
}

/// Puts a cache over whatever fetches. `chance` draws from 0 to 1, evenly.
pub fn layer<T: Store, S>(
    held: Arc<Held<T>>,
    forced: Arc<Forced>,
    lifetime: Lifetime,
    chance: fn() -> f64,
    metrics: Metrics,
) -> impl Layer<S, Service = Cache<T, S>> {
    layer_fn(move |inner| {
        Cache(Arc::new(Shared {
            inner,
            held: held.clone(),
            forced: forced.clone(),
            lifetime,
            chance,
            metrics: metrics.clone(),
        }))
    })
}

impl<T, S> Service<Request<T::Key>> for Cache<T, S>
where
    T: Store,
    S: Service<Fetch<T::Key>, Response = T::Value, Error = Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    type Response = Answer<T::Value>;
    type Error = Error;
    type Future = Either<Ready<Result<Self::Response>>, BoxFuture<'static, Result<Self::Response>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        // A copy can be served whether or not upstream is ready; the flight waits for it below.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<T::Key>) -> Self::Future {
        let Self(shared) = self;
        let now = Instant::now();
        let copy = shared.held.store.get(&request.key);
        let standing = copy.as_ref().map(|copy| copy.standing(now));
        let handling = request.terms.handling;
        let at_once = |outcome| Either::Left(ready(outcome));
        match (decide(standing.as_ref(), &request.terms.directives), copy) {
            (Decision::Serve, Some(copy)) => {
                let served = match standing.map(|standing| standing.freshness) {
                    Some(Freshness::Fresh) => Served::Hit,
                    _ => Served::Stale(shared.held.resting.last(&request.key)),
                };
                at_once(shared.answer(copy, served, now, handling))
            }
            (Decision::Revalidate, Some(copy)) => {
                let failure = shared.held.resting.last(&request.key);
                shared.clone().revalidate(request, now);
                at_once(shared.answer(copy, Served::Stale(failure), now, handling))
            }
            (Decision::Fetch { forward, fallback }, copy) => {
                let fallback = copy.clone().filter(|_| fallback);
                let refused = shared.held.refused(forward, copy, &request.key, now);
                let forward = match refused {
                    Some(_) => Forward::Request,
                    None => forward,
                };
                let seen = &request.key.collection().clone().seen;
                if let Some(error) = shared.held.resting.of(&request.key, now) {
                    if fallback.is_none() {
                        seen.waited();
                    }
                    let served = Served::Fetched(forward);
                    return at_once(shared.fall_back(error, fallback, served, now, handling));
                }
                let (key, terms) = (request.key.clone(), request.terms.clone());
                let boarded = match shared.held.unkept.holds(&request.key, now) {
                    true => Boarded::Leader(shared.alone(request)),
                    false => shared.board(request, refused, now),
                };
                let (waiter, served) = match boarded {
                    Boarded::Landed(copy, served) => {
                        return at_once(shared.answer(copy, served, now, handling));
                    }
                    Boarded::Leader(waiter) => (waiter, Served::Fetched(forward)),
                    Boarded::Joined(waiter) => (waiter, Served::Joined(forward)),
                };
                seen.waited();
                let shared = shared.clone();
                let wait = async move {
                    let outcome = patiently(waiter, &key, &terms).await;
                    let now = Instant::now();
                    let good = |copy: Arc<Entry<T::Value>>| copy.good_for(handling).map(|()| copy);
                    match outcome.and_then(good) {
                        Ok(copy) => shared.answer(copy, served, now, handling),
                        Err(error) => shared.fall_back(error, fallback, served, now, handling),
                    }
                };
                Either::Right(wait.boxed())
            }
            // Without a copy nothing else is ever decided.
            (Decision::Refuse | Decision::Serve | Decision::Revalidate, _) => {
                request.key.collection().seen.waited();
                at_once(Err(Error::new(
                    Kind::OnlyIfCached,
                    "no copy that will do is held, and the request wants nothing else",
                )))
            }
        }
    }
}

impl<T: Store, S> Shared<T, S> {
    /// What a copy comes to for one caller.
    fn answer(
        &self,
        copy: Arc<Entry<T::Value>>,
        served: Served,
        now: Instant,
        handling: Handling,
    ) -> Result<Answer<T::Value>> {
        self.metrics.count(served);
        copy.good_for(handling)?;
        Ok(Answer::new(copy, served, now))
    }

    /// What a failure comes to for one caller: the copy after all, where it allows that, or the error.
    fn fall_back(
        &self,
        error: Error,
        copy: Option<Arc<Entry<T::Value>>>,
        served: Served,
        now: Instant,
        handling: Handling,
    ) -> Result<Answer<T::Value>> {
        // Time goes on while one waits, and purges happen.
        let copy = copy.filter(|copy| {
            !ends_the_copy(error.kind())
                && copy.is_current()
                && copy.freshness(now) != Freshness::Expired
                && copy.good_for(handling).is_ok()
        });
        match copy {
            Some(copy) => self.answer(copy, Served::Stale(Some(error.kind())), now, handling),
            None => {
                self.metrics.count(served);
                Err(error.served(served))
            }
        }
    }
}

impl<T, S> Shared<T, S>
where
    T: Store,
    S: Service<Fetch<T::Key>, Response = T::Value, Error = Error, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
{
    /// Waits for a flight of the request's own.
    fn alone(self: &Arc<Self>, request: Request<T::Key>) -> Waiter<T::Value> {
        let span = self.span(&request);
        let fetch = |fetch| self.clone().fetch(fetch).instrument(span);
        let held = self.held.clone();
        let keep = move |key, copy| held.keep(key, copy, false);
        self.held.flights.alone(request, fetch, keep)
    }

    /// What the log calls the flight that a request starts.
    fn span(&self, request: &Request<T::Key>) -> Span {
        let Terms { id, trace, .. } = &request.terms;
        info_span!("flight", request = %id, trace = trace.map(display), key = ?request.key)
    }

    /// Waits for the key's flight, and starts it if there is none. `forced` is the fresh copy that would not do.
    fn board(
        self: &Arc<Self>,
        request: Request<T::Key>,
        forced: Option<Arc<Entry<T::Value>>>,
        now: Instant,
    ) -> Boarded<T::Value> {
        let span = self.span(&request);
        let directives = request.terms.directives;
        self.held.flights.board(
            request,
            |key| {
                // Another flight may have landed between the look at the copy and this one.
                let landed = self.held.store.get(key).filter(|copy| {
                    let standing = copy.standing(now);
                    decide(Some(&standing), &directives) == Decision::Serve && copy.is_fresh(now)
                });
                if let Some(copy) = landed {
                    return Some((copy, Served::Hit));
                }
                let copy = forced?;
                let account = &key.collection().account.id;
                let may = !copy.is_young(now) && self.forced.take(account, now);
                (!may).then_some((copy, Served::Floor))
            },
            |fetch| self.clone().fetch(fetch).instrument(span),
            {
                let held = self.held.clone();
                move |key, copy, outdated| held.keep(key, copy, outdated)
            },
        )
    }

    /// Fetches a stale copy anew, which nobody waits for; not while it rests from a failure.
    fn revalidate(self: Arc<Self>, request: Request<T::Key>, now: Instant) {
        if self.held.resting.rests(&request.key, now) || self.held.flights.has(&request.key) {
            return;
        }
        let Request { key, mut terms } = request;
        terms.class = Class::Background;
        terms.directives = Directives::default();
        if let Boarded::Leader(waiter) = self.board(Request { key, terms }, None, now) {
            // Wanted until the deadline of the request that noticed; then a queued one makes room.
            tokio::spawn(waiter.wait());
        }
    }

    /// One flight, from dispatch to what it brings.
    async fn fetch(self: Arc<Self>, fetch: Fetch<T::Key>) -> Result<Arc<Entry<T::Value>>> {
        let (key, spent) = (fetch.key.clone(), fetch.spent.clone());
        let _under_way = key.collection().account.set_out();
        let outcome = self.inner.clone().oneshot(fetch).await;
        let now = Instant::now();
        match outcome {
            Ok(value) => {
                self.held.brought(&key, &value, now);
                let mut copy = Entry::new(value, &key, now, self.lifetime, (self.chance)());
                copy.timing = spent.timing();
                let unkept = copy.no_store() && !T::Value::IS_DEAR;
                self.held.unkept.learn(&key, unkept, now);
                Ok(Arc::new(copy))
            }
            Err(error) => {
                self.held.failed(&key, &error, now);
                Err(error)
            }
        }
    }
}

/// A flight's outcome, or what is told to a request that does not live to see it.
async fn patiently<K: Key, V>(waiter: Waiter<V>, key: &K, terms: &Terms) -> flight::Outcome<V> {
    select! {
        biased;
        outcome = waiter.wait() => match outcome {
            Err(error) if error.kind() == Kind::UpstreamTimeout && Instant::now() >= terms.deadline => {
                Err(key.overdue().unwrap_or(error))
            }
            outcome => outcome,
        },
        error = key.outlasted(terms) => Err(error),
    }
}

impl<T: Store, S> Clone for Cache<T, S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

#[cfg(test)]
mod tests;
