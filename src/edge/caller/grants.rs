//! What a caller may read: some accounts, and of these all streams or some.
//!
//! A request is looked up in here and nowhere else. What its caller may not read is not found, and so is what does not
//! exist: the two cannot be told apart, by the answer or by the time that it takes.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use crate::{
    contacts::{
        account::{Account, missing},
        ids::{AccountId, StreamId},
    },
    error::{Error, Kind, Result},
};

/// What a caller may read.
#[derive(Debug)]
pub struct Grants {
    by_id: HashMap<AccountId, Grant>,
    /// For requests that name no account, by the streams that are known: theirs, or none where several have it.
    implied: HashMap<StreamId, Option<AccountId>>,
}

/// One account, and the streams of it that may be read.
#[derive(Clone, Debug)]
pub struct Grant {
    pub account: Arc<Account>,
    /// All of them, those to come included, if this is `None`.
    pub streams: Option<HashSet<StreamId>>,
}

impl Grants {
    pub fn new(grants: impl IntoIterator<Item = Grant>) -> Self {
        let by_id: HashMap<_, _> = grants
            .into_iter()
            .map(|grant| (grant.account.id.clone(), grant))
            .collect();
        let mut implied = HashMap::new();
        for (id, grant) in &by_id {
            for stream in grant.known() {
                match implied.entry(stream.clone()) {
                    Entry::Vacant(entry) => {
                        entry.insert(Some(id.clone()));
                    }
                    Entry::Occupied(mut entry) => {
                        entry.insert(None);
                    }
                }
            }
        }
        Self { by_id, implied }
    }

    /// The account that is named, or else the only one that it can be, if it and the stream may be read.
    ///
    /// # Errors
    /// [`Kind::BadAccount`] if none is named and it may be several; [`Kind::Forbidden`].
    pub fn find(&self, named: Option<&str>, stream: &str) -> Result<&Arc<Account>> {
        let grant = match named {
            Some(id) => self.by_id.get(id),
            None => Some(self.implied_by(stream).ok_or_else(missing)?),
        };
        grant
            .filter(|grant| grant.admits(stream))
            .map(|grant| &grant.account)
            .ok_or_else(forbidden)
    }

    fn implied_by(&self, stream: &str) -> Option<&Grant> {
        if self.by_id.len() == 1 {
            return self.by_id.values().next();
        }
        self.by_id.get(self.implied.get(stream)?.as_ref()?)
    }
}

impl Grant {
    fn admits(&self, stream: &str) -> bool {
        let streams = self.streams.as_ref();
        streams.is_none_or(|streams| streams.contains(stream))
    }

    /// The streams whose ids are written somewhere.
    fn known(&self) -> Vec<&StreamId> {
        match &self.streams {
            Some(streams) => streams.iter().collect(),
            None => self.account.listed().map(|(id, _)| id).collect(),
        }
    }
}

fn forbidden() -> Error {
    let detail = "this caller may not read that account and stream, if there are such";
    Error::new(Kind::Forbidden, detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contacts::account::{Accounts, Config, StreamConfig};

    /// Two accounts that list streams, one of them in common, and an open one.
    fn accounts() -> Accounts {
        let account = |id: &str, streams: &[&str]| Config {
            name: id.to_owned(),
            account_id: id.to_owned(),
            client_id: format!("cs-{id}"),
            streams: streams
                .iter()
                .map(|stream| StreamConfig {
                    name: (*stream).to_owned(),
                    stream_id: (*stream).to_owned(),
                })
                .collect(),
            ..Config::default()
        };
        Accounts::new(&[
            account("acme", &["st-1", "st-both"]),
            account("zeta", &["st-2", "st-both"]),
            account("open", &[]),
        ])
        .unwrap()
    }

    fn grants(accounts: &Accounts, granted: &[(&str, Option<&[&str]>)]) -> Grants {
        let grant = |(id, streams): &(&str, Option<&[&str]>)| Grant {
            account: accounts.get(id).unwrap().clone(),
            streams: streams.map(|ids| {
                let ids = ids.iter().map(|id| StreamId::parse(id).unwrap());
                ids.collect()
            }),
        };
        Grants::new(granted.iter().map(grant))
    }

    #[test]
    fn what_may_be_read_is_found_and_nothing_else() {
        use Kind::{BadAccount, Forbidden};
        let all = accounts();
        let one = grants(&all, &[("acme", None)]);
        let some = grants(
            &all,
            &[("acme", Some(&["st-both"])), ("zeta", Some(&["st-both"]))],
        );
        let two = grants(&all, &[("zeta", None), ("open", Some(&["st-1"]))]);
        let none = grants(&all, &[]);
        for (grants, named, stream, expected) in [
            (&one, Some("acme"), "st-1", Ok("acme")),
            // Whether it exists is the account's to say: all of it may be read.
            (&one, Some("acme"), "st-none", Ok("acme")),
            (&one, None, "st-1", Ok("acme")),
            (&one, None, "st-2", Ok("acme")),
            (&one, Some("zeta"), "st-both", Err(Forbidden)),
            (&one, Some("nobody"), "st-both", Err(Forbidden)),
            (&some, Some("acme"), "st-both", Ok("acme")),
            (&some, Some("acme"), "st-1", Err(Forbidden)),
            (&some, Some("acme"), "st-none", Err(Forbidden)),
            (&some, Some("open"), "st-both", Err(Forbidden)),
            (&some, None, "st-both", Err(BadAccount)),
            // Another account's stream implies nothing, as if it were not there.
            (&some, None, "st-1", Err(BadAccount)),
            (&some, None, "st-none", Err(BadAccount)),
            (&two, None, "st-2", Ok("zeta")),
            // Both acme and zeta list it, but of acme nothing is known here.
            (&two, None, "st-both", Ok("zeta")),
            (&two, None, "st-1", Ok("open")),
            (&two, None, "st-3", Err(BadAccount)),
            (&two, Some("open"), "st-3", Err(Forbidden)),
            (&two, Some("zeta"), "st-3", Ok("zeta")),
            (&none, Some("acme"), "st-1", Err(Forbidden)),
            (&none, None, "st-1", Err(BadAccount)),
        ] {
            let found = grants.find(named, stream);
            let found = found
                .map(|account| &*account.name)
                .map_err(|error| error.kind());
            assert_eq!(found, expected, "{named:?} {stream}");
        }
    }
}
