use std::time::Duration;

use bytesize::ByteSize;

use super::*;
use crate::{
    contacts::account::{Claims, StreamConfig},
    edge::key::Digest,
    upstream::{Paging, token::TokenSource},
};

fn account(name: &str) -> account::Config {
    account::Config {
        name: name.to_owned(),
        account_id: format!("id-{name}"),
        client_id: format!("cs-{name}"),
        client_secret_file: Some(name.into()),
        ..account::Config::default()
    }
}

fn caller(name: &str) -> caller::Config {
    caller::Config {
        name: name.to_owned(),
        key_sha256: vec![Digest::of(name).to_string()],
        accounts: vec!["acme".to_owned()],
        ..caller::Config::default()
    }
}

fn config() -> Config {
    let mut config = Config {
        accounts: vec![account("acme"), account("zeta")],
        callers: vec![caller("crm"), caller("bi")],
        ..Config::default()
    };
    config.admin.token_sha256 = vec![Digest::of("one").to_string()];
    config
}

type Change = fn(&mut Config);

fn told(change: Change) -> Result<Changes, Vec<String>> {
    let mut next = config();
    change(&mut next);
    Changes::between(&config(), &next)
}

#[test]
fn what_can_change_is_told_by_name() {
    let table: &[(Change, &str)] = &[
        (|_| (), "nothing changed"),
        (|config| config.accounts.reverse(), "nothing changed"),
        (
            |config| config.accounts.push(account("new")),
            "accounts added: new",
        ),
        (
            |config| drop(config.accounts.remove(0)),
            "accounts removed: acme",
        ),
        (
            |config| config.accounts[0].account_id = "other".to_owned(),
            "accounts that are others now: acme; keys changed: accounts[acme].account_id",
        ),
        (
            |config| config.accounts[0].client_id = "other".to_owned(),
            "accounts that are others now: acme; keys changed: accounts[acme].client_id",
        ),
        (
            |config| config.accounts[0].name = "emca".to_owned(),
            "accounts added: emca; accounts removed: acme",
        ),
        (
            |config| config.accounts[1].calls_per_minute = 30,
            "accounts changed: zeta; keys changed: accounts[zeta].calls_per_minute",
        ),
        (
            |config| config.accounts[1].streams.push(StreamConfig::default()),
            "accounts changed: zeta; keys changed: accounts[zeta].streams",
        ),
        (
            |config| config.accounts[1].claims = toml::from_str::<Claims>("a = 'x'").unwrap(),
            "accounts changed: zeta; keys changed: accounts[zeta].claims",
        ),
        (
            |config| config.callers.push(caller("new")),
            "callers added: new",
        ),
        (
            |config| drop(config.callers.remove(0)),
            "callers removed: crm",
        ),
        (
            |config| config.callers[1].key_sha256.clear(),
            "callers changed: bi; keys changed: callers[bi].key_sha256",
        ),
        (
            |config| config.admin.token_sha256.push("two".to_owned()),
            "keys changed: admin.token_sha256",
        ),
        (
            |config| config.budget.replicas = 2,
            "keys changed: budget.replicas",
        ),
        (
            |config| config.merge.refresh_share = 0.5,
            "keys changed: merge.refresh_share",
        ),
    ];
    for (change, expected) in table {
        let changes = told(*change).unwrap();
        assert_eq!(changes.to_string(), *expected);
        assert_eq!(changes.are_none(), *expected == "nothing changed");
    }
    let remapped = told(|config| config.accounts[0].account_id = "x".to_owned()).unwrap();
    assert_eq!(remapped.accounts.remapped, ["acme"]);
    assert!(remapped.accounts.changed.is_empty());
    let rotated = told(|config| config.callers[1].key_sha256.clear()).unwrap();
    assert_eq!(rotated.callers.changed, ["bi"]);
}

/// Catches a key that would silently not take effect.
#[test]
fn what_cannot_change_is_refused_with_all_its_keys() {
    let table: &[(Change, &[&str])] = &[
        (
            |config| config.listen.address = ([127, 0, 0, 1], 1).into(),
            &["listen.address"],
        ),
        (
            |config| {
                config.listen.workers = 7;
                config.admin.address = ([127, 0, 0, 1], 1).into();
                config.accounts.push(account("new"));
            },
            &["admin.address", "listen.workers"],
        ),
        (
            |config| config.cache.fresh_for = Duration::from_secs(1),
            &["cache.fresh_for"],
        ),
        (
            |config| config.cache.max_bytes = ByteSize::gib(1),
            &["cache.max_bytes"],
        ),
        (
            |config| config.upstream.paging = Paging::PageLimit,
            &["upstream.paging"],
        ),
        (
            |config| config.token.source = TokenSource::Service,
            &["token.source"],
        ),
        (
            |config| config.token.service.url = "https://x".to_owned(),
            &["token.service.url"],
        ),
        (
            |config| config.listen.tls.key_file = "key".into(),
            &["listen.tls.key_file"],
        ),
        (|config| config.log.access = false, &["log.access"]),
        // A part of the file that is lost opens nothing.
        (|config| config.callers.clear(), &["callers"]),
        (
            |config| config.admin.token_sha256.clear(),
            &["admin.token_sha256"],
        ),
    ];
    for (change, expected) in table {
        assert_eq!(
            told(*change),
            Err(expected.iter().map(ToString::to_string).collect())
        );
    }
}

/// Catches a key that is not written, and so not compared: whose change would be silently ignored.
#[test]
fn every_key_is_compared() {
    let mut compared = BTreeMap::new();
    flatten("", &document(&Config::default()), &mut compared);
    let mut compared: BTreeSet<_> = compared.into_keys().collect();
    let unwritten = Config::default().token.service.unwritten();
    compared.extend(unwritten.map(|(key, _)| format!("token.service.{key}")));
    compared.insert("accounts[].claims".to_owned());
    for (list, item) in [
        ("accounts", value(&account::Config::default())),
        ("accounts[].streams", value(&StreamConfig::default())),
        ("callers", value(&caller::Config::default())),
    ] {
        let keys = item.as_object().unwrap().keys();
        compared.extend(keys.map(|key| format!("{list}[].{key}")));
    }
    for key in crate::config::every_key() {
        assert!(compared.contains(&key), "{key}");
    }
}

#[test]
fn the_keys_that_can_change_are_keys() {
    let mut keys = BTreeMap::new();
    flatten("", &document(&Config::default()), &mut keys);
    for key in LIVE {
        assert!(keys.contains_key(key), "{key}");
    }
}

/// Claims and hashes are compared, and told by their keys alone.
#[test]
fn no_value_is_told() {
    let changes = told(|config| {
        config.accounts[0].claims = toml::from_str("canary = 'CANARY'").unwrap();
        config.callers[0].key_sha256 = vec!["CANARY".to_owned()];
        config.accounts[1].client_secret_env = Some("CANARY".to_owned());
    });
    let changes = changes.unwrap();
    let told = format!("{changes} {changes:?} {}", value(&changes));
    assert!(
        !told.contains("CANARY") && !told.contains("canary"),
        "{told}"
    );
    assert_eq!(changes.keys.len(), 3);
}
