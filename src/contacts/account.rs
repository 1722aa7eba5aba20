//! Accounts: configured, found by id or implied by a stream.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use serde::Deserialize;

use super::{
    ids::{AccountId, ClientId, Epoch, StreamId},
    scope::Scope,
};
use crate::config::Rules;

/// One `[[accounts]]` table: a Kore.ai account and the credential that reads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What logs and metrics call it: `[a-z0-9_-]{1,64}`, unique. Required.
    pub name: String,
    /// Kore.ai's id for it: 1 to 128 of `[A-Za-z0-9_-]`, unique. Required.
    pub account_id: String,
    /// The JWT app's client id (`cs-...`): 1 to 256 visible ASCII characters. Required.
    pub client_id: String,
    /// A file that holds the client secret; one trailing newline is dropped. Relative to the configuration file.
    pub client_secret_file: Option<PathBuf>,
    /// The environment variable that holds the client secret. Exactly one of the two is required.
    pub client_secret_env: Option<String>,
    /// How tokens are signed.
    pub algorithm: Algorithm,
    /// Calls that Kore.ai allows the account in a minute; 1 to 60,000.
    pub calls_per_minute: u32,
    /// The streams that may be asked for. None listed: every stream of the account is open.
    pub streams: Vec<StreamConfig>,
}

impl Config {
    /// States which rules are broken within this account.
    pub fn check(&self, rules: &mut Rules) {
        rules.name("name", &self.name);
        rules.id("account_id", &self.account_id);
        rules.text(
            "client_id",
            &self.client_id,
            256,
            |c| c.is_ascii_graphic(),
            "visible ASCII",
        );
        self.check_secret(rules);
        rules.range("calls_per_minute", self.calls_per_minute, 1..=60_000);
        for (index, stream) in self.streams.iter().enumerate() {
            rules.section(&format!("streams[{index}]"), |rules| {
                rules.name("name", &stream.name);
                rules.id("stream_id", &stream.stream_id);
            });
        }
        let streams = || self.streams.iter();
        rules.unique(
            "streams",
            "name",
            streams().map(|stream| stream.name.as_str()),
        );
        rules.unique(
            "streams",
            "stream_id",
            streams().map(|stream| stream.stream_id.as_str()),
        );
    }

    fn check_secret(&self, rules: &mut Rules) {
        let both = ["client_secret_file", "client_secret_env"];
        match (&self.client_secret_file, &self.client_secret_env) {
            (Some(_), Some(_)) => rules.broken(
                &both,
                "and client_secret_env are both set: keep one".to_owned(),
            ),
            (None, None) => rules.broken(&both, "or client_secret_env is required".to_owned()),
            (Some(file), None) if file.as_os_str().is_empty() => {
                rules.broken(&["client_secret_file"], "names no file".to_owned());
            }
            (Some(_), None) => {}
            // Capitals only, so that a secret put here by mistake is refused and not later named as a variable.
            (None, Some(name)) => rules.text(
                "client_secret_env",
                name,
                128,
                |c| matches!(c, 'A'..='Z' | '0'..='9' | '_'),
                "A-Z, 0-9 and _: the name of an environment variable, not the secret itself",
            ),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            account_id: String::new(),
            client_id: String::new(),
            client_secret_file: None,
            client_secret_env: None,
            algorithm: Algorithm::default(),
            calls_per_minute: 60,
            streams: Vec::new(),
        }
    }
}

/// The signature of the JWTs. HS256 is the one that Kore.ai documents for this API.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum Algorithm {
    #[default]
    HS256,
}

/// One `[[accounts.streams]]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamConfig {
    /// What logs call it: `[a-z0-9_-]{1,64}`, unique within the account. Required.
    pub name: String,
    /// Kore.ai's id for it: 1 to 128 of `[A-Za-z0-9_-]`, unique within the account. Required.
    pub stream_id: String,
}

/// An account as the stages know it. Its credential is upstream's business; here is only whose it is.
#[derive(Debug)]
pub struct Account {
    /// What logs call it.
    pub name: Box<str>,
    /// What metrics call it: its name, or `other` beyond the first [`LABELS_MAX`] accounts.
    pub label: Box<str>,
    pub id: AccountId,
    pub client: ClientId,
    /// Its own, and never another's: it tells accounts apart that had the same id at different times.
    pub epoch: Epoch,
    /// All its copies.
    pub scope: Arc<Scope>,
    /// Those of its collections, as long as somebody holds them.
    scopes: Mutex<HashMap<StreamId, Weak<Scope>>>,
    streams: Streams,
}

/// How many accounts metrics tell apart.
pub const LABELS_MAX: usize = 20;

#[derive(Debug)]
enum Streams {
    Open,
    /// Names by id.
    Listed(HashMap<StreamId, Box<str>>),
}

impl Account {
    /// An account with an epoch of its own.
    pub fn new(
        name: &str,
        label: &str,
        id: AccountId,
        client: ClientId,
        streams: &[(StreamId, &str)],
    ) -> Self {
        let listed = |streams: &[(StreamId, &str)]| {
            let named = |(id, name): &(StreamId, &str)| (id.clone(), Box::from(*name));
            Streams::Listed(streams.iter().map(named).collect())
        };
        Self {
            name: name.into(),
            label: label.into(),
            id,
            client,
            epoch: Epoch::begin(),
            scope: Arc::default(),
            scopes: Mutex::default(),
            streams: if streams.is_empty() {
                Streams::Open
            } else {
                listed(streams)
            },
        }
    }

    /// The scope of a stream's copies: the same as long as one of them is held anywhere.
    pub fn scope_of(&self, stream: &StreamId) -> Arc<Scope> {
        let mut scopes = self.scopes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scope) = scopes.get(stream).and_then(Weak::upgrade) {
            return scope;
        }
        // As many are forgotten as are added, so that this costs little each time.
        if scopes.len() == scopes.capacity() {
            scopes.retain(|_, scope| scope.strong_count() > 0);
        }
        let scope = Arc::new(Scope::within(self.scope.clone()));
        scopes.insert(stream.clone(), Arc::downgrade(&scope));
        scope
    }

    /// Whether this stream may be asked for at all.
    pub fn admits(&self, stream: &str) -> bool {
        match &self.streams {
            Streams::Open => true,
            Streams::Listed(names) => names.contains_key(stream),
        }
    }

    /// What logs call a stream of this account: its configured name, else its id.
    pub fn stream_name<'a>(&'a self, stream: &'a StreamId) -> &'a str {
        match &self.streams {
            Streams::Listed(names) => names.get(stream).map_or(stream.as_str(), |name| name),
            Streams::Open => stream.as_str(),
        }
    }
}

/// All configured accounts, as a request finds its own.
#[derive(Debug, Default)]
pub struct Accounts {
    all: Vec<Arc<Account>>,
    by_id: HashMap<AccountId, Arc<Account>>,
    /// Streams that exactly one account lists.
    by_stream: HashMap<StreamId, Arc<Account>>,
}

/// A configured account that cannot be what it says. The configuration's check finds these first, with their place.
#[derive(Debug, thiserror::Error)]
#[error("account {name:?}: {key} is missing, malformed or a duplicate")]
pub struct Malformed {
    name: String,
    key: &'static str,
}

impl Accounts {
    pub fn new(configs: &[Config]) -> Result<Self, Malformed> {
        let mut accounts = Self::default();
        let mut shared = HashSet::new();
        for config in configs {
            let malformed = |key| Malformed {
                name: config.name.clone(),
                key,
            };
            let mut streams = Vec::new();
            for stream in &config.streams {
                let id =
                    StreamId::parse(&stream.stream_id).ok_or_else(|| malformed("stream_id"))?;
                streams.push((id, stream.name.as_str()));
            }
            let distinct = accounts.all.len() < LABELS_MAX;
            let account = Arc::new(Account::new(
                &config.name,
                if distinct { &config.name } else { "other" },
                AccountId::parse(&config.account_id).ok_or_else(|| malformed("account_id"))?,
                ClientId::parse(&config.client_id).ok_or_else(|| malformed("client_id"))?,
                &streams,
            ));
            for (stream, _) in streams {
                if accounts
                    .by_stream
                    .insert(stream.clone(), account.clone())
                    .is_some()
                {
                    shared.insert(stream);
                }
            }
            if accounts
                .by_id
                .insert(account.id.clone(), account.clone())
                .is_some()
            {
                return Err(malformed("account_id"));
            }
            accounts.all.push(account);
        }
        accounts
            .by_stream
            .retain(|stream, _| !shared.contains(stream));
        Ok(accounts)
    }

    pub fn get(&self, id: &str) -> Option<&Arc<Account>> {
        self.by_id.get(id)
    }

    /// The account of a request that names none: the only one there is, or the only one that lists the stream.
    pub fn implied_by(&self, stream: &str) -> Option<&Arc<Account>> {
        match self.all.as_slice() {
            [only] => Some(only),
            _ => self.by_stream.get(stream),
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Account>> {
        self.all.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str, id: &str, streams: &[&str]) -> Config {
        Config {
            name: name.to_owned(),
            account_id: id.to_owned(),
            client_id: format!("cs-{name}"),
            streams: streams
                .iter()
                .map(|stream| StreamConfig {
                    name: format!("name-of-{stream}"),
                    stream_id: (*stream).to_owned(),
                })
                .collect(),
            ..Config::default()
        }
    }

    #[test]
    fn an_account_is_implied_where_it_can_only_be_one() {
        let one = Accounts::new(&[config("acme", "a1", &[])]).unwrap();
        assert_eq!(&*one.implied_by("st-any").unwrap().name, "acme");

        let two = Accounts::new(&[
            config("acme", "a1", &["st-1", "st-both"]),
            config("zeta", "a2", &["st-2", "st-both"]),
        ])
        .unwrap();
        assert_eq!(&*two.implied_by("st-2").unwrap().name, "zeta");
        assert!(two.implied_by("st-both").is_none());
        assert!(two.implied_by("st-3").is_none());
    }

    #[test]
    fn a_stream_that_three_accounts_list_implies_none() {
        let accounts: Vec<_> = ["a1", "a2", "a3"]
            .map(|id| config(id, id, &["st-all"]))
            .into();
        assert!(
            Accounts::new(&accounts)
                .unwrap()
                .implied_by("st-all")
                .is_none()
        );
    }

    #[test]
    fn listed_streams_close_the_others() {
        let accounts = Accounts::new(&[config("acme", "a1", &["st-1"])]).unwrap();
        let acme = accounts.get("a1").unwrap();
        assert!(acme.admits("st-1") && !acme.admits("st-2"));
        assert_eq!(
            acme.stream_name(&StreamId::parse("st-1").unwrap()),
            "name-of-st-1"
        );
    }

    #[test]
    fn a_scope_is_the_same_while_somebody_holds_it_and_is_forgotten_after() {
        let accounts = Accounts::new(&[config("acme", "a1", &[])]).unwrap();
        let acme = accounts.get("a1").unwrap();
        let stream = StreamId::parse("st-1").unwrap();
        let scope = acme.scope_of(&stream);
        scope.end_epoch();
        assert!(Arc::ptr_eq(&scope, &acme.scope_of(&stream)));
        for number in 0..10_000 {
            acme.scope_of(&StreamId::parse(&format!("st-{number}")).unwrap());
        }
        assert!(Arc::ptr_eq(&scope, &acme.scope_of(&stream)));
        assert!(acme.scopes.lock().unwrap().len() < 100);
        drop(scope);
        assert_eq!(acme.scope_of(&stream).epoch(), acme.scope.epoch());
    }

    #[test]
    fn metrics_tell_twenty_accounts_apart() {
        let configs: Vec<_> = (0..25)
            .map(|n| config(&format!("n{n}"), &format!("a{n}"), &[]))
            .collect();
        let accounts = Accounts::new(&configs).unwrap();
        let labels: HashSet<_> = accounts.iter().map(|account| &account.label).collect();
        assert_eq!(labels.len(), LABELS_MAX + 1);
    }

    #[test]
    fn the_same_account_twice_is_refused() {
        assert!(Accounts::new(&[config("x", "a1", &[]), config("y", "a1", &[])]).is_err());
    }
}
