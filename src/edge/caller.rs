//! Who asks, and whether they may now: the key, and the caller's own rate.
//!
//! Decided before anything is looked up, for each request by itself: who waits for another's flight was admitted like
//! whoever began it. What of the accounts a caller may read is told by its [`Grants`], where a request names one
//! ([`route`](super::route)).

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_util::future::{Either, Ready, ready};
use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use prometheus::IntCounter;
use tokio::time::Instant;
use tower::{Layer, Service, layer::layer_fn};

pub(crate) use self::config::check_digests;
pub use self::config::{Config, check};
use self::{
    grants::{Grant, Grants},
    rate::Rate,
};
use super::{
    Inbound,
    key::{self, Digest, Keys, Refusal},
};
use crate::{
    contacts::{
        account::{self, Accounts},
        ids::StreamId,
        request::Class,
    },
    error::{Error, Kind, Result},
    metrics::{self, Registry},
};

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
    /// Whoever it is: no callers are configured, or it is an operator.
    Anyone,
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
            Self::Anyone => Ok(None),
            Self::Known(caller) => Ok(Some(caller)),
            Self::Unknown(refusal) => Err(refusal.error()),
        }
    }

    /// What logs call the caller.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Known(caller) => Some(&caller.name),
            Self::Anyone | Self::Unknown(_) => None,
        }
    }

    /// Counts what its request came to.
    pub fn count(&self, status: StatusCode) {
        if let Self::Known(caller) = self {
            caller.answered[Outcome::of(status) as usize].inc();
        }
    }
}

/// A caller, as the stages know it.
#[derive(Debug)]
pub struct Caller {
    name: Box<str>,
    grants: Grants,
    urgency_max: Class,
    rate: Mutex<Rate>,
    answered: [IntCounter; Outcome::ALL.len()],
}

impl Caller {
    /// What it may read.
    pub fn grants(&self) -> &Grants {
        &self.grants
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

/// How many callers metrics tell apart.
pub const LABELS_MAX: usize = 20;

/// All configured callers, found by their keys.
#[derive(Debug, Default)]
pub struct Callers(Option<Keys<Arc<Caller>>>);

/// A configured caller that cannot be what it says. The configuration's check finds these first, with their place.
#[derive(Debug, thiserror::Error)]
#[error("caller {name:?}: {key} is missing, malformed, unknown or a duplicate")]
pub struct Malformed {
    name: String,
    key: &'static str,
}

/// Why there are no callers as they were configured.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error(transparent)]
    Caller(#[from] Malformed),
    #[error(transparent)]
    Metrics(#[from] metrics::Error),
}

impl Callers {
    /// The callers of these accounts, which are configured so.
    ///
    /// # Errors
    /// If one cannot be what it says.
    pub fn new(
        callers: &[Config],
        configured: &[account::Config],
        accounts: &Accounts,
        registry: &Registry,
    ) -> std::result::Result<Self, Unusable> {
        let answered = registry.counter(
            "caller_requests_total",
            "Requests of configured callers, by what they came to.",
            &["caller", "outcome"],
        )?;
        let counters = |label: &str| {
            Outcome::ALL.map(|outcome| answered.with_label_values(&[label, outcome.word()]))
        };
        // There from the start, for those beyond the last label.
        counters(OTHER);
        let mut keys = HashMap::new();
        for (index, config) in callers.iter().enumerate() {
            let malformed = |key| Malformed {
                name: config.name.clone(),
                key,
            };
            let label = if index < LABELS_MAX {
                &config.name
            } else {
                OTHER
            };
            let caller = Arc::new(Caller {
                name: config.name.as_str().into(),
                grants: grants(config, configured, accounts).map_err(malformed)?,
                urgency_max: config.urgency_max,
                rate: Mutex::new(Rate::new(
                    config.requests_per_minute,
                    config.requests_at_once,
                )),
                answered: counters(label),
            });
            for key in &config.key_sha256 {
                let digest = Digest::parse(key).ok_or_else(|| malformed("key_sha256"))?;
                if keys.insert(digest, caller.clone()).is_some() {
                    return Err(malformed("key_sha256").into());
                }
            }
        }
        // A caller without a key closes the gateway as well.
        Ok(Self((!callers.is_empty()).then(|| Keys::new(keys))))
    }

    /// Whether there are none, so that anyone may ask.
    pub fn are_none(&self) -> bool {
        self.0.is_none()
    }

    /// Who asks. The key is taken out of the headers, so that nothing below can pass it on or write it down.
    pub fn identify(&self, headers: &mut HeaderMap) -> Asker {
        let Some(keys) = &self.0 else {
            return Asker::Anyone;
        };
        let asker = match keys.owner(headers) {
            Ok(caller) => Asker::Known(caller.clone()),
            Err(refusal) => Asker::Unknown(refusal),
        };
        headers.remove(AUTHORIZATION);
        headers.remove("auth");
        asker
    }
}

/// What `config` grants. The error is the key that cannot be.
fn grants(
    config: &Config,
    configured: &[account::Config],
    accounts: &Accounts,
) -> std::result::Result<Grants, &'static str> {
    let mut granted = Vec::new();
    for name in &config.accounts {
        let own = configured.iter().find(|account| account.name == *name);
        let account = own.and_then(|account| accounts.get(&account.account_id));
        let (own, account) = own.zip(account).ok_or("accounts")?;
        let streams = config.streams.as_ref().map(|streams| {
            let ids = streams.iter().flat_map(|named| config::ids_of(own, named));
            ids.filter_map(StreamId::parse).collect()
        });
        granted.push(Grant {
            account: account.clone(),
            streams,
        });
    }
    Ok(Grants::new(granted))
}

/// What metrics call the callers beyond the first [`LABELS_MAX`].
const OTHER: &str = "other";

/// What a caller's request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    /// Its own doing.
    Refused,
    Forbidden,
    Throttled,
    /// The gateway's or upstream's.
    Failed,
}

impl Outcome {
    const ALL: [Self; 5] = [
        Self::Ok,
        Self::Refused,
        Self::Forbidden,
        Self::Throttled,
        Self::Failed,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Forbidden => "forbidden",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
        }
    }

    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => Self::Throttled,
            _ if status.is_client_error() => Self::Refused,
            _ if status.is_server_error() => Self::Failed,
            _ => Self::Ok,
        }
    }
}

#[cfg(test)]
mod tests;
