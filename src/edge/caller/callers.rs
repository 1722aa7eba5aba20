//! All configured callers, found by their keys.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use http::{HeaderMap, header::AUTHORIZATION};

use super::{
    Asker, Caller,
    answered::Metrics,
    config::{Config, ids_of},
    grants::{Grant, Grants},
    rate::Rate,
};
use crate::{
    contacts::{
        account::{self, Accounts},
        ids::StreamId,
    },
    edge::key::{Digest, Keys},
    metrics::{self, Registry},
};

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
        let metrics = Metrics::new(registry)?;
        let mut keys = HashMap::new();
        for (index, config) in callers.iter().enumerate() {
            let malformed = |key| Malformed {
                name: config.name.clone(),
                key,
            };
            let caller = Arc::new(Caller {
                name: config.name.as_str().into(),
                grants: grants(config, configured, accounts).map_err(malformed)?,
                urgency_max: config.urgency_max,
                rate: Mutex::new(Rate::new(
                    config.requests_per_minute,
                    config.requests_at_once,
                )),
                answered: metrics.of(index, &config.name),
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

    /// All of them, by name.
    pub fn by_name(&self) -> HashMap<Box<str>, Arc<Caller>> {
        let callers = self.0.iter().flat_map(Keys::owners);
        callers
            .map(|caller| (caller.name.clone(), caller.clone()))
            .collect()
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
