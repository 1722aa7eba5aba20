//! `[[callers]]`: what the configuration says of a caller, and what it must keep to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    config::{Rules, nearest},
    contacts::{account, ids::is_plain, request::Class},
    edge::key::Digest,
};

/// One `[[callers]]` table: whom a key belongs to, and what may be done with it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What logs and metrics call it: `[a-z0-9_-]{1,64}`, unique. Required.
    pub name: String,
    /// The SHA-256 of its key, in 64 hexadecimal digits; while a key is rotated, of both. 1 to 8, each of them once in the
    /// whole configuration.
    pub key_sha256: Vec<String>,
    /// The accounts that it may read, by name; at least one.
    pub accounts: Vec<String>,
    /// The streams of those accounts that it may read, by name or id; at least one of each account. All, if this is not set.
    pub streams: Option<Vec<String>>,
    /// Requests in a minute; 1 to 6,000,000.
    pub requests_per_minute: u32,
    /// Requests at once, after a silence; 1 to 1,000,000.
    pub requests_at_once: u32,
    /// How urgent its requests may be.
    pub urgency_max: Class,
}

/// The keys that one owner may have.
const KEYS_MAX: usize = 8;

/// The accounts that a misspelt one is compared with, since each comparison takes its time.
const GUESSED_FROM: usize = 100;

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            key_sha256: Vec::new(),
            accounts: Vec::new(),
            streams: None,
            requests_per_minute: 60_000,
            requests_at_once: 1_000,
            urgency_max: Class::Interactive,
        }
    }
}

/// The configured accounts by name.
type Named<'a> = BTreeMap<&'a str, &'a account::Config>;

/// States which rules are broken by the callers of these accounts.
pub fn check(callers: &[Config], accounts: &[account::Config], rules: &mut Rules) {
    let named = accounts
        .iter()
        .map(|account| (account.name.as_str(), account));
    let named: Named<'_> = named.collect();
    for (index, caller) in callers.iter().enumerate() {
        rules.section(&format!("callers[{index}]"), |rules| {
            caller.check(&named, rules);
        });
    }
    let names = callers.iter().map(|caller| caller.name.as_str());
    rules.unique("callers", "name", names);
}

impl Config {
    fn check(&self, named: &Named<'_>, rules: &mut Rules) {
        rules.name("name", &self.name);
        if self.key_sha256.is_empty() {
            let message = "is required: `contacts-gateway key` makes a key and its hash";
            rules.broken(&["key_sha256"], message.to_owned());
        }
        check_digests("key_sha256", &self.key_sha256, rules);
        if self.accounts.is_empty() {
            let message = "is required: the names of the accounts that it may read";
            rules.broken(&["accounts"], message.to_owned());
        }
        self.check_accounts(named, rules);
        self.check_streams(named, rules);
        rules.range(
            "requests_per_minute",
            self.requests_per_minute,
            1..=6_000_000,
        );
        rules.range("requests_at_once", self.requests_at_once, 1..=1_000_000);
    }

    fn check_accounts(&self, named: &Named<'_>, rules: &mut Rules) {
        // One whose name is wrong itself may be meant.
        if named.is_empty() || named.contains_key("") {
            return;
        }
        for (index, name) in self.accounts.iter().enumerate() {
            if !named.contains_key(name.as_str()) {
                // A name that is wrong itself may hold anything, and is no advice.
                let known = named.keys().copied().filter(|name| is_plain(name));
                let known = known.take(GUESSED_FROM);
                let meant = nearest(name, known)
                    .map_or_else(String::new, |meant| format!(" (did you mean {meant}?)"));
                let message = format!("is the name of no account{meant}");
                rules.broken(&[&format!("accounts[{index}]")], message);
            }
        }
    }

    fn check_streams(&self, named: &Named<'_>, rules: &mut Rules) {
        let Some(streams) = &self.streams else { return };
        if streams.is_empty() {
            let message = "are none: leave it out, and all streams may be read";
            rules.broken(&["streams"], message.to_owned());
        }
        let own = self.accounts.iter();
        let own: Vec<_> = own.map(|name| named.get(name.as_str()).copied()).collect();
        // An account that is not known may have any stream.
        let may_have = |account: &Option<&account::Config>, stream: &String| match account {
            Some(account) => ids_of(account, stream).next().is_some(),
            None => true,
        };
        for (index, stream) in streams.iter().enumerate() {
            if !own.iter().any(|account| may_have(account, stream)) {
                let message = "is neither the name nor the id of a stream of these accounts";
                let key = format!("streams[{index}]");
                rules.broken(&[&key, "accounts"], message.to_owned());
            }
        }
        for (account, name) in own.iter().zip(&self.accounts) {
            let some = streams.iter().any(|stream| may_have(account, stream));
            if !some && !streams.is_empty() {
                let message = format!("have none of the account {name}: remove one or the other");
                rules.broken(&["streams", "accounts"], message);
            }
        }
    }
}

/// The ids that are meant by a stream's name or id in an account's configuration.
pub(super) fn ids_of<'a>(
    account: &'a account::Config,
    named: &'a str,
) -> impl Iterator<Item = &'a str> {
    let open = account.streams.is_empty() && is_plain(named);
    let listed = account
        .streams
        .iter()
        .filter(move |stream| stream.name == named || stream.stream_id == named)
        .map(|stream| stream.stream_id.as_str());
    listed.chain(open.then_some(named))
}

/// States which of `digests` are none. What is wrong is never shown, since it may be the key itself.
pub(crate) fn check_digests(key: &str, digests: &[String], rules: &mut Rules) {
    if digests.len() > KEYS_MAX {
        rules.broken(&[key], format!("are more than {KEYS_MAX}"));
    }
    for (index, digest) in digests.iter().enumerate() {
        if Digest::parse(digest).is_none() {
            let message = "must be a key's SHA-256, 64 of 0-9 and a-f, and not the key itself";
            rules.broken(&[&format!("{key}[{index}]")], message.to_owned());
        }
    }
}
