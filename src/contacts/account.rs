//! Accounts: configured, found by id or implied by a stream.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError, Weak},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use foldhash::quality::RandomState;
use indexmap::IndexMap;

pub use self::{
    claims::Claims,
    config::{Algorithm, Config, Jti, StreamConfig},
    under_way::UnderWay,
};
use super::{
    ids::{AccountId, ClientId, Epoch, StreamId},
    scope::Scope,
    seen::Answers,
};
use crate::error::{Error, Kind, Result};

pub(crate) mod claims;
mod config;
mod succession;
mod under_way;

/// The accounts as they are now, for operators. A request finds its own by who asks.
pub type Current = Arc<ArcSwap<Accounts>>;

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
    scopes: Arc<Mutex<HashMap<StreamId, Weak<Scope>>>>,
    /// How upstream answers for it.
    pub upstream: Arc<Answers>,
    under_way: under_way::Count,
    streams: Streams,
    /// What its streams are called now: who began before a reload speaks of them by these names too. `None` once the
    /// account has left.
    named: Arc<ArcSwapOption<Streams>>,
}

/// How many accounts metrics tell apart.
pub const LABELS_MAX: usize = 20;

#[derive(Clone, Debug, PartialEq)]
enum Streams {
    Open,
    /// Names by id, as they are configured.
    Listed(IndexMap<StreamId, Arc<str>>),
}

impl Streams {
    /// Those that are listed; all, if none are.
    fn of(streams: &[(StreamId, &str)]) -> Self {
        if streams.is_empty() {
            return Self::Open;
        }
        let named = |(id, name): &(StreamId, &str)| (id.clone(), Arc::from(*name));
        Self::Listed(streams.iter().map(named).collect())
    }

    /// Whether this stream may be asked for.
    fn admit(&self, stream: &str) -> bool {
        match self {
            Self::Open => true,
            Self::Listed(names) => names.contains_key(stream),
        }
    }
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
        let streams = Streams::of(streams);
        Self {
            name: name.into(),
            label: label.into(),
            id,
            client,
            epoch: Epoch::begin(),
            scope: Arc::default(),
            scopes: Arc::default(),
            upstream: Arc::default(),
            under_way: Arc::default(),
            named: Arc::new(ArcSwapOption::from_pointee(streams.clone())),
            streams,
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
        self.streams.admit(stream)
    }

    /// Whether this stream may be asked for as it is configured now, which a reload may have changed since.
    pub fn still_admits(&self, stream: &str) -> bool {
        let now = self.named.load();
        now.as_deref().is_some_and(|streams| streams.admit(stream))
    }

    /// Its streams by id and name, if it lists any.
    pub fn listed(&self) -> impl Iterator<Item = (&StreamId, &str)> {
        let names = match &self.streams {
            Streams::Open => None,
            Streams::Listed(names) => Some(names.iter().map(|(id, name)| (id, &**name))),
        };
        names.into_iter().flatten()
    }

    /// A stream's configured name, if it has one; of an account that has left, the name that it had.
    pub fn listed_as(&self, stream: &StreamId) -> Option<Arc<str>> {
        match self.named.load().as_deref().unwrap_or(&self.streams) {
            Streams::Listed(names) => names.get(stream).cloned(),
            Streams::Open => None,
        }
    }

    /// What metrics count it by, as long as it is configured. Of one that has left only totals are counted: what ends
    /// late would bring its series back, and nobody would take them away again.
    pub fn counted_as(&self) -> Option<&str> {
        self.named.load().is_some().then_some(&*self.label)
    }

    /// What logs call a stream of this account: its configured name, else its id.
    pub fn stream_name(&self, stream: &StreamId) -> Arc<str> {
        let listed = self.listed_as(stream);
        listed.unwrap_or_else(|| stream.as_str().into())
    }
}

/// All configured accounts, as a request finds its own.
#[derive(Debug, Default)]
pub struct Accounts {
    all: Vec<Arc<Account>>,
    by_id: HashMap<AccountId, Arc<Account>, RandomState>,
    /// Streams that exactly one account lists.
    by_stream: HashMap<StreamId, Arc<Account>, RandomState>,
}

/// What a request that names no account is told, where it may be about several.
pub fn missing() -> Error {
    let detail = "the accountId header is missing, and the stream does not tell the account";
    Error::new(Kind::BadAccount, detail)
}

/// A configured account that cannot be what it says. The configuration's check finds these first, with their place.
#[derive(Debug, thiserror::Error)]
#[error("account {name:?}: {key} is missing, malformed or a duplicate")]
pub struct Malformed {
    name: String,
    key: &'static str,
}

impl Accounts {
    /// The accounts that are configured so.
    ///
    /// # Errors
    /// If one cannot be what it says.
    pub fn new(configs: &[Config]) -> std::result::Result<Self, Malformed> {
        Self::default().next(configs)
    }

    /// Those that are configured so now. Whoever stays keeps its copies and its label.
    ///
    /// # Errors
    /// If one cannot be what it says. Nothing has changed then.
    pub fn next(&self, configs: &[Config]) -> std::result::Result<Self, Malformed> {
        let mut accounts = Self::default();
        let mut shared = HashSet::new();
        let mut labels = self.labels_kept(configs);
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
            let account = match self.kept(config) {
                Some(before) => before.with_streams(&streams),
                None => Arc::new(Account::new(
                    &config.name,
                    labels.of(&config.name),
                    AccountId::parse(&config.account_id).ok_or_else(|| malformed("account_id"))?,
                    ClientId::parse(&config.client_id).ok_or_else(|| malformed("client_id"))?,
                    &streams,
                )),
            };
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

    /// The account that is named, or else the only one that it can be.
    ///
    /// # Errors
    /// [`Kind::UnknownAccount`]; [`Kind::BadAccount`] if none is named and it may be several.
    pub fn find(&self, named: Option<&str>, stream: &str) -> Result<&Arc<Account>> {
        match named {
            Some(id) => self.get(id).ok_or_else(|| {
                let detail = "no account with this id is configured";
                Error::new(Kind::UnknownAccount, detail)
            }),
            None => self.implied_by(stream).ok_or_else(missing),
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
            &*acme.stream_name(&StreamId::parse("st-1").unwrap()),
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
