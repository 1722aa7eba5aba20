//! Who asks, and whether they may now: the key, and the caller's own rate.
//!
//! Decided before anything is looked up, for each request by itself: who waits for another's flight was admitted like
//! whoever began it. What of the accounts a caller may read is told by its [`Grants`], where a request names one
//! ([`route`](super::route)).

use std::{
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::StatusCode;
use tokio::time::Instant;
use tower::{Layer, Service, layer::layer_fn};

pub(crate) use self::config::check_digests;
use self::{answered::Answered, rate::Rate};
pub use self::{
    answered::Metrics,
    callers::{Callers, Malformed, Roster},
    config::{Config, check},
    grants::Grants,
};
use super::{
    Inbound,
    key::{self, Refusal},
};
use crate::{
    contacts::{
        account::{Account, Accounts},
        request::{CallerName, Class},
    },
    error::{Error, Kind, Result},
};

mod answered;
mod callers;
mod config;
mod grants;
mod rate;

/// The stage.
#[derive(Clone, Debug)]
pub struct Admit<S> {
    metrics: key::Metrics,
    inner: S,
}

/// Admits known callers, each at its own rate; and anyone, where no callers are configured.
pub fn layer<S>(metrics: key::Metrics) -> impl Layer<S, Service = Admit<S>> {
    layer_fn(move |inner| Admit {
        metrics: metrics.clone(),
        inner,
    })
}

impl<S: Service<Inbound, Error = Error>> Service<Inbound> for Admit<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Either<Ready<Result<S::Response>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        if let Asker::Unknown(refusal) = &inbound.asker {
            self.metrics.count(*refusal);
        }
        let admitted = inbound.asker.known().and_then(|caller| match caller {
            Some(caller) => caller.take(Instant::now()),
            None => Ok(()),
        });
        match admitted {
            Ok(()) => Either::Right(self.inner.call(inbound)),
            Err(error) => Either::Left(ready(Err(error))),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Asker {
    /// Whoever it is, for any of these accounts: no callers are configured, or it is an operator.
    Anyone(Arc<Accounts>),
    Known(Arc<Caller>),
    Unknown(Refusal),
}

impl Asker {
    /// The caller, or `None` if it does not matter who it is.
    ///
    /// # Errors
    /// [`Kind::Unauthorized`] for whoever is unknown.
    pub fn known(&self) -> Result<Option<&Caller>> {
        match self {
            Self::Anyone(_) => Ok(None),
            Self::Known(caller) => Ok(Some(caller)),
            Self::Unknown(refusal) => Err(refusal.error()),
        }
    }

    /// The account that is named, or else the only one that it can be, if this one may read it and the stream.
    ///
    /// # Errors
    /// Those of [`Accounts::find`], of [`Grants::find`] and of [`known`](Self::known).
    pub fn account(&self, named: Option<&str>, stream: &str) -> Result<&Arc<Account>> {
        match self {
            Self::Anyone(accounts) => accounts.find(named, stream),
            Self::Known(caller) => caller.grants.find(named, stream),
            Self::Unknown(refusal) => Err(refusal.error()),
        }
    }

    /// The caller, where it is known.
    pub fn caller(&self) -> Option<&Arc<Caller>> {
        match self {
            Self::Known(caller) => Some(caller),
            Self::Anyone(_) | Self::Unknown(_) => None,
        }
    }
}

/// A caller, as the stages know it.
#[derive(Debug)]
pub struct Caller {
    name: CallerName,
    grants: Grants,
    urgency_max: Class,
    rate: Arc<Mutex<Rate>>,
    answered: Arc<Answered>,
}

impl Caller {
    /// What logs call it.
    pub fn name(&self) -> &CallerName {
        &self.name
    }

    /// Counts what its request came to.
    pub fn count(&self, status: StatusCode) {
        self.answered.count(status);
    }

    /// How urgent its requests may be.
    pub fn urgency_max(&self) -> Class {
        self.urgency_max
    }

    fn take(&self, now: Instant) -> Result<()> {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        rate.take(now).map_err(|wait| {
            let detail = "this caller's own rate is used up";
            Error::new(Kind::CallerThrottled, detail).retry_after(wait)
        })
    }
}

#[cfg(test)]
mod tests;
