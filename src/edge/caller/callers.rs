//! All configured callers, found by their keys.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use http::{HeaderMap, header::AUTHORIZATION};
use tokio::time::Instant;

use super::{
    Asker, Caller,
    answered::{Metrics, OTHER},
    config::{Config, ids_of},
    grants::{Grant, Grants},
    rate::Rate,
};
use crate::{
    contacts::{
        account::{self, Accounts},
        ids::StreamId,
        request::CallerName,
    },
    edge::key::{Digest, Keys},
};

/// All configured callers, found by their keys; and where there are none, the accounts that anyone may read.
#[derive(Debug, Default)]
pub struct Callers {
    all: HashMap<CallerName, Arc<Caller>>,
    /// `None` if anyone may ask.
    keys: Option<Keys<Arc<Caller>>>,
    accounts: Arc<Accounts>,
}

/// The callers as they are now. Read once for each request.
pub type Roster = Arc<ArcSwap<Callers>>;

/// A configured caller that cannot be what it says. The configuration's check finds these first, with their place.
#[derive(Debug, thiserror::Error)]
#[error("caller {name:?}: {key} is missing, malformed, unknown or a duplicate")]
pub struct Malformed {
    name: String,
    key: &'static str,
}

impl Callers {
    /// The callers of these accounts, which are configured so.
    ///
    /// # Errors
    /// If one cannot be what it says.
    pub fn new(
        callers: &[Config],
        configured: &[account::Config],
        accounts: &Arc<Accounts>,
        metrics: &Metrics,
    ) -> Result<Self, Malformed> {
        Self::default().next(callers, configured, accounts, metrics)
    }

    /// Those that are configured so now. Whoever keeps its name keeps its label and what it has taken of its rate.
    ///
    /// # Errors
    /// If one cannot be what it says. Nothing has changed then.
    pub fn next(
        &self,
        callers: &[Config],
        configured: &[account::Config],
        accounts: &Arc<Accounts>,
        metrics: &Metrics,
    ) -> Result<Self, Malformed> {
        let before = |name: &str| self.all.get(name);
        let kept = callers.iter().filter_map(|config| before(&config.name));
        let mut labelled = kept.filter(|caller| caller.answered.is_labelled()).count();
        let (mut all, mut keys) = (HashMap::new(), HashMap::new());
        for config in callers {
            let malformed = |key| Malformed {
                name: config.name.clone(),
                key,
            };
            let before = before(&config.name);
            let answered = before.map(|caller| caller.answered.clone());
            let answered = answered.unwrap_or_else(|| {
                let answered = metrics.of(labelled, &config.name);
                labelled += usize::from(answered.is_labelled());
                Arc::new(answered)
            });
            let caller = Arc::new(Caller {
                name: config.name.as_str().into(),
                grants: grants(config, configured, accounts).map_err(malformed)?,
                urgency_max: config.urgency_max,
                rate: rate(config, before),
                answered,
            });
            for key in &config.key_sha256 {
                let digest = Digest::parse(key).ok_or_else(|| malformed("key_sha256"))?;
                if keys.insert(digest, caller.clone()).is_some() {
                    return Err(malformed("key_sha256"));
                }
            }
            all.insert(caller.name.clone(), caller);
        }
        Ok(Self {
            // A caller without a key closes the gateway as well.
            keys: (!callers.is_empty()).then(|| Keys::new(keys)),
            all,
            accounts: accounts.clone(),
        })
    }

    /// Whether there are none, so that anyone may ask.
    pub fn are_none(&self) -> bool {
        self.keys.is_none()
    }

    /// Whether metrics still need this label.
    pub fn need_label(&self, label: &str) -> bool {
        let mut callers = self.all.values();
        label == OTHER || callers.any(|caller| *caller.answered.label == *label)
    }

    /// One of them.
    pub fn named(&self, name: &str) -> Option<&Arc<Caller>> {
        self.all.get(name)
    }

    /// Who asks. The key is taken out of the headers, so that nothing below can pass it on or write it down.
    pub fn identify(&self, headers: &mut HeaderMap) -> Asker {
        let Some(keys) = &self.keys else {
            return Asker::Anyone(self.accounts.clone());
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

/// What a caller may ask in a minute: of the same bucket as before, if there was one.
fn rate(config: &Config, before: Option<&Arc<Caller>>) -> Arc<Mutex<Rate>> {
    let (per_minute, burst) = (config.requests_per_minute, config.requests_at_once);
    let fresh = Rate::new(per_minute, burst);
    let Some(before) = before else {
        return Arc::new(Mutex::new(fresh));
    };
    let rate = before.rate.lock().unwrap_or_else(PoisonError::into_inner);
    let changed = rate.with(per_minute, burst, Instant::now());
    match rate.is_like(&fresh) {
        true => before.rate.clone(),
        false => Arc::new(Mutex::new(changed)),
    }
}

/// What `config` grants. The error is the key that cannot be.
fn grants(
    config: &Config,
    configured: &[account::Config],
    accounts: &Accounts,
) -> Result<Grants, &'static str> {
    let mut granted = Vec::new();
    for name in &config.accounts {
        let own = configured.iter().find(|account| account.name == *name);
        let account = own.and_then(|account| accounts.get(&account.account_id));
        let (own, account) = own.zip(account).ok_or("accounts")?;
        let streams = config.streams.as_ref().map(|streams| {
            let ids = streams.iter().flat_map(|named| ids_of(own, named));
            ids.filter_map(StreamId::parse).collect()
        });
        granted.push(Grant {
            account: account.clone(),
            streams,
        });
    }
    Ok(Grants::new(granted))
}
