//! What differs between two configurations, and whether a running gateway can follow. Pure.
//!
//! Whatever is not listed here needs a restart, keys that are yet to come included: a key that cannot take effect is
//! refused and never ignored.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use crate::{config::Config, contacts::account, edge::caller};

/// The keys that can change while the gateway runs, beside `accounts` and `callers`.
const LIVE: [&str; 6] = [
    "admin.token_sha256",
    "budget.queue_max",
    "budget.replicas",
    "budget.reserve",
    "budget.start_share",
    "merge.refresh_share",
];

/// What keeps others out. It can change, but not go: a file of which a part is lost must not open the gateway.
const GUARDS: [&str; 2] = ["callers", "admin.token_sha256"];

/// What differs, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    pub accounts: AccountChanges,
    pub callers: CallerChanges,
    /// Keys with another value, as in `accounts[acme].calls_per_minute`. The values are not told.
    pub keys: Vec<String>,
}

/// Accounts by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AccountChanges {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    /// Another account under the same name, or another client id: nothing of the one before it stays.
    pub remapped: Vec<String>,
    pub changed: Vec<String>,
}

/// Callers by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CallerChanges {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<String>,
}

impl Changes {
    /// What makes `next` out of `now`.
    ///
    /// # Errors
    /// All keys that cannot change in a running gateway, and have.
    pub fn between(now: &Config, next: &Config) -> Result<Self, Vec<String>> {
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        flatten("", &document(now), &mut before);
        flatten("", &document(next), &mut after);
        for (config, keys) in [(now, &mut before), (next, &mut after)] {
            let unwritten = config.token.service.unwritten();
            let unwritten =
                unwritten.map(|(key, text)| (format!("token.service.{key}"), text.into()));
            keys.extend(unwritten);
        }
        let mut keys = differing(&before, &after);
        let fixed = keys.iter().filter(|key| !LIVE.contains(&key.as_str()));
        let mut fixed: Vec<_> = fixed.cloned().collect();
        fixed.extend(opened(now, next).map(str::to_owned));
        if !fixed.is_empty() {
            fixed.sort();
            return Err(fixed);
        }
        let accounts = accounts(&now.accounts, &next.accounts, &mut keys);
        let callers = callers(&now.callers, &next.callers, &mut keys);
        Ok(Self {
            accounts,
            callers,
            keys,
        })
    }

    /// Each kind of change that there is, and what has changed so.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &[String])> {
        let (accounts, callers) = (&self.accounts, &self.callers);
        [
            ("accounts added", &accounts.added),
            ("accounts removed", &accounts.removed),
            ("accounts that are others now", &accounts.remapped),
            ("accounts changed", &accounts.changed),
            ("callers added", &callers.added),
            ("callers removed", &callers.removed),
            ("callers changed", &callers.changed),
            ("keys changed", &self.keys),
        ]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(kind, names)| (kind, names.as_slice()))
    }

    /// Whether nothing differs.
    pub fn are_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Guards that would be gone.
fn opened(now: &Config, next: &Config) -> impl Iterator<Item = &'static str> {
    let are_there = |config: &Config| {
        [
            !config.callers.is_empty(),
            !config.admin.token_sha256.is_empty(),
        ]
    };
    let went = are_there(now).into_iter().zip(are_there(next));
    let gone = GUARDS.into_iter().zip(went);
    gone.filter_map(|(key, (before, after))| (before && !after).then_some(key))
}

/// All but the lists of accounts and callers.
fn document(config: &Config) -> Value {
    let config = Config {
        accounts: Vec::new(),
        callers: Vec::new(),
        ..config.clone()
    };
    value(&config)
}

/// What is written of a configuration. All of ours can be: its file has the same values.
fn value(config: &impl Serialize) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

/// Each key in full, with its value.
fn flatten(path: &str, value: &Value, keys: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(table) => {
            for (key, value) in table {
                let path = match path {
                    "" => key.clone(),
                    _ => format!("{path}.{key}"),
                };
                flatten(&path, value, keys);
            }
        }
        value => {
            keys.insert(path.to_owned(), value.clone());
        }
    }
}

/// The keys that are not in both with the same value.
fn differing(now: &BTreeMap<String, Value>, next: &BTreeMap<String, Value>) -> Vec<String> {
    let keys: BTreeSet<_> = now.keys().chain(next.keys()).collect();
    let differing = keys
        .into_iter()
        .filter(|key| now.get(*key) != next.get(*key));
    differing.cloned().collect()
}

/// The keys of one item of a list that have another value, under its name.
fn keys_of(list: &str, name: &str, now: &impl Serialize, next: &impl Serialize) -> Vec<String> {
    let flat = |config: Value| {
        let table = match config {
            Value::Object(table) => table,
            _ => serde_json::Map::new(),
        };
        table.into_iter().collect::<BTreeMap<_, _>>()
    };
    let keys = differing(&flat(value(now)), &flat(value(next)));
    let named = keys.into_iter().map(|key| format!("{list}[{name}].{key}"));
    named.collect()
}

fn accounts(
    now: &[account::Config],
    next: &[account::Config],
    keys: &mut Vec<String>,
) -> AccountChanges {
    let mut changes = AccountChanges::default();
    for account in now {
        if !next.iter().any(|other| other.name == account.name) {
            changes.removed.push(account.name.clone());
        }
    }
    for account in next {
        let name = &account.name;
        let Some(before) = now.iter().find(|other| other.name == *name) else {
            changes.added.push(name.clone());
            continue;
        };
        let mut differing = keys_of("accounts", name, before, account);
        // Not among what is written, since somebody may have put a secret there.
        if before.claims != account.claims {
            differing.push(format!("accounts[{name}].claims"));
        }
        if (&before.account_id, &before.client_id) != (&account.account_id, &account.client_id) {
            changes.remapped.push(name.clone());
        } else if !differing.is_empty() {
            changes.changed.push(name.clone());
        }
        keys.extend(differing);
    }
    changes
}

fn callers(
    now: &[caller::Config],
    next: &[caller::Config],
    keys: &mut Vec<String>,
) -> CallerChanges {
    let mut changes = CallerChanges::default();
    for caller in now {
        if !next.iter().any(|other| other.name == caller.name) {
            changes.removed.push(caller.name.clone());
        }
    }
    for caller in next {
        let Some(before) = now.iter().find(|other| other.name == caller.name) else {
            changes.added.push(caller.name.clone());
            continue;
        };
        let differing = keys_of("callers", &caller.name, before, caller);
        if !differing.is_empty() {
            changes.changed.push(caller.name.clone());
        }
        keys.extend(differing);
    }
    changes
}

#[cfg(test)]
mod tests;
