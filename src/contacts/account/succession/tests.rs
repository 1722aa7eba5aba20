use super::*;
use crate::contacts::{account::StreamConfig, collection::Collection};

fn config(name: &str, id: &str, client: &str, streams: &[&str]) -> Config {
    let stream = |id: &&str| StreamConfig {
        name: (*id).to_owned(),
        stream_id: (*id).to_owned(),
    };
    Config {
        name: name.to_owned(),
        account_id: id.to_owned(),
        client_id: client.to_owned(),
        streams: streams.iter().map(stream).collect(),
        ..Config::default()
    }
}

fn follow(before: &Accounts, configs: &[Config]) -> Accounts {
    let next = before.next(configs).unwrap();
    before.give_way_to(&next);
    next
}

fn collection(account: &Arc<Account>, stream: &str) -> Collection {
    Collection::new(account.clone(), StreamId::parse(stream).unwrap())
}

/// Whether copies of before are still found, and that in no case they are found under another account.
#[test]
fn who_stays_keeps_its_copies_and_nobody_else_gets_them() {
    for (next, stays) in [
        (config("acme", "a1", "cs-1", &[]), true),
        (config("acme", "a1", "cs-1", &["st-1"]), true),
        (config("other", "a1", "cs-1", &[]), false),
        (config("acme", "a2", "cs-1", &[]), false),
        (config("acme", "a1", "cs-2", &[]), false),
    ] {
        let before = Accounts::new(&[config("acme", "a1", "cs-1", &[])]).unwrap();
        let acme = before.get("a1").unwrap();
        let held = collection(acme, "st-1");
        let epoch = held.epoch();
        let after = follow(&before, std::slice::from_ref(&next));
        let now = after.iter().next().unwrap();
        let found = collection(now, "st-1");
        assert_eq!(found.epoch() == epoch, stays, "{next:?}");
        // What was under way for the old one is kept where it stays, and else not.
        assert_eq!(held.epoch() == epoch, stays, "{next:?}");
        assert_eq!(after.has(acme), stays, "{next:?}");
    }
}

#[test]
fn who_comes_back_finds_nothing_of_before() {
    let acme = [config("acme", "a1", "cs-1", &[])];
    let before = Accounts::new(&acme).unwrap();
    let held = collection(before.get("a1").unwrap(), "st-1");
    let old = held.epoch();
    let gone = follow(&before, &[config("zeta", "a2", "cs-2", &[])]);
    let late = held.epoch();
    let back = follow(&gone, &acme);
    let found = collection(back.get("a1").unwrap(), "st-1");
    assert!(found.epoch() > late && late > old);
    assert!(!Arc::ptr_eq(&found.scope, &held.scope));
}

#[test]
fn a_stream_that_is_closed_loses_its_copies_and_the_others_do_not() {
    let before = Accounts::new(&[config("acme", "a1", "cs-1", &[])]).unwrap();
    let account = before.get("a1").unwrap();
    let [open, closed] = ["st-1", "st-2"].map(|stream| collection(account, stream));
    let epoch = account.scope.epoch();
    let after = follow(&before, &[config("acme", "a1", "cs-1", &["st-1"])]);
    assert!(after.get("a1").unwrap().admits("st-1"));
    assert!(!after.get("a1").unwrap().admits("st-2"));
    assert_eq!(open.epoch(), epoch);
    assert!(closed.epoch() > epoch);
    // Open again, it begins anew.
    let again = follow(&after, &[config("acme", "a1", "cs-1", &[])]);
    let reopened = collection(again.get("a1").unwrap(), "st-2");
    assert!(reopened.epoch() > epoch);
}

#[test]
fn labels_stay_and_are_never_more_than_twenty() {
    let named = |numbers: std::ops::Range<usize>| {
        let config = |n| config(&format!("n{n}"), &format!("a{n}"), "cs", &[]);
        numbers.map(config).collect::<Vec<_>>()
    };
    let labels = |accounts: &Accounts| {
        let labels = accounts.iter().map(|account| account.label.to_string());
        labels.collect::<Vec<_>>()
    };
    let mut accounts = Accounts::new(&named(0..25)).unwrap();
    for first in 1..40 {
        let before = labels(&accounts);
        let next = follow(&accounts, &named(first..first + 25));
        let own = labels(&next);
        assert_eq!(own[..24], before[1..], "{first}");
        let own: std::collections::HashSet<_> = own.into_iter().collect();
        assert!(own.len() <= LABELS_MAX + 1);
        accounts = next;
    }
    // Those that came later have the labels that were given up.
    assert!(labels(&accounts).contains(&"n60".to_owned()));
    assert!(accounts.need_label("n60") && accounts.need_label("other"));
    assert!(!accounts.need_label("n0"));
}

#[test]
fn what_cannot_be_changes_nothing() {
    let acme = config("acme", "a1", "cs-1", &[]);
    let before = Accounts::new(std::slice::from_ref(&acme)).unwrap();
    let epoch = before.get("a1").unwrap().scope.epoch();
    for broken in [
        config("zeta", "a/2", "cs", &[]),
        config("zeta", "a1", "cs", &[]),
        config("zeta", "a2", "", &[]),
        config("zeta", "a2", "cs", &["no id"]),
    ] {
        assert!(before.next(&[acme.clone(), broken]).is_err());
    }
    assert_eq!(before.get("a1").unwrap().scope.epoch(), epoch);
}
