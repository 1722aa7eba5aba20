use std::time::Duration;

use tower::{ServiceExt, service_fn};

use http::HeaderMap;

use super::*;
use crate::{
    contacts::{
        account::{self, Accounts, StreamConfig},
        request::RequestId,
    },
    edge::key::Digest,
    metrics::Registry,
};

fn account(name: &str, streams: &[(&str, &str)]) -> account::Config {
    let stream = |(name, id): &(&str, &str)| StreamConfig {
        name: (*name).to_owned(),
        stream_id: (*id).to_owned(),
    };
    account::Config {
        name: name.to_owned(),
        account_id: format!("id-of-{name}"),
        client_id: format!("cs-{name}"),
        streams: streams.iter().map(stream).collect(),
        ..account::Config::default()
    }
}

fn caller(name: &str, keys: &[&str]) -> Config {
    Config {
        name: name.to_owned(),
        key_sha256: keys.iter().map(|key| Digest::of(key).to_string()).collect(),
        accounts: vec!["acme".to_owned()],
        ..Config::default()
    }
}

fn build(callers: &[Config], registry: &Registry) -> std::result::Result<Callers, Malformed> {
    let configured = [
        account("acme", &[("support", "st-1"), ("sales", "st-2")]),
        account("zeta", &[("support", "st-3")]),
        account("open", &[]),
    ];
    let accounts = Arc::new(Accounts::new(&configured).unwrap());
    let metrics = Metrics::new(registry).unwrap();
    Callers::new(callers, &configured, &accounts, &metrics)
}

fn callers(configs: &[Config]) -> Callers {
    build(configs, &Registry::new().unwrap()).unwrap()
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn asker(callers: &Callers, key: &str) -> Asker {
    callers.identify(&mut headers(&[("auth", key)]))
}

fn inbound(asker: Asker) -> Inbound {
    Inbound {
        head: http::Request::new(()).into_parts().0,
        has_body: false,
        header_lines: 0,
        id: RequestId::number(0, 0),
        trace: None,
        asker,
    }
}

/// What the stage makes of a request, with whether it was let through.
async fn outcome(asker: Asker, metrics: &key::Metrics) -> std::result::Result<(), Error> {
    let inner = service_fn(async |_: Inbound| Ok(()));
    let stage = layer(metrics.clone()).layer(inner);
    stage.oneshot(inbound(asker)).await
}

#[test]
fn a_caller_is_known_by_each_of_its_keys() {
    let callers = callers(&[caller("crm", &["old", "new"]), caller("bi", &["other"])]);
    for (key, expected) in [
        ("old", Some("crm")),
        ("new", Some("crm")),
        ("other", Some("bi")),
        ("neither", None),
    ] {
        assert_eq!(
            asker(&callers, key).caller().map(|caller| &**caller.name()),
            expected,
            "{key}"
        );
    }
}

/// Catches a key that travels on, where a log or a header of another request could take it along.
#[test]
fn the_key_is_taken_out_of_the_headers_and_shows_nowhere() {
    let callers = callers(&[caller("crm", &["CANARY"])]);
    for lines in [
        &[("auth", "CANARY")][..],
        &[
            ("authorization", "Bearer CANARY"),
            ("auth", "CANARY"),
            ("auth", "CANARY"),
        ],
        &[
            ("authorization", "Basic CANARY"),
            ("authorization", "CANARY"),
        ],
        &[("auth", "CANARY2")],
    ] {
        let mut headers = headers(lines);
        headers.insert("accountid", "a1".parse().unwrap());
        let asker = callers.identify(&mut headers);
        assert_eq!(headers.len(), 1, "{headers:?}");
        let told = format!("{asker:?} {callers:?} {:?}", asker.known().err());
        assert!(!told.contains("CANARY"), "{told}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_unknown_is_refused_and_counted() {
    let registry = Registry::new().unwrap();
    let [metrics, _] = key::Metrics::new(&registry).unwrap();
    let known = callers(&[caller("crm", &["key"])]);
    let none = Asker::Unknown(Refusal::Missing);
    assert!(outcome(asker(&known, "key"), &metrics).await.is_ok());
    for asker in [asker(&known, "yek"), none.clone(), none] {
        let error = outcome(asker, &metrics).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unauthorized);
    }
    // Without callers nobody is asked.
    let anyone = Callers::default().identify(&mut headers(&[("auth", "x")]));
    assert!(outcome(anyone, &metrics).await.is_ok());
    let text = String::from_utf8(registry.render().unwrap()).unwrap();
    for (reason, count) in [("missing", 2), ("unknown", 1), ("malformed", 0)] {
        let series = format!(
            "contacts_gateway_unauthorized_requests_total{{listener=\"traffic\",reason=\"{reason}\"}} {count}"
        );
        assert!(text.contains(&series), "{series}\n{text}");
    }
}

/// C19. Catches a rate that is shared between callers, that refusals use up, or that never comes back.
#[tokio::test(start_paused = true)]
async fn each_caller_has_a_rate_of_its_own() {
    let registry = Registry::new().unwrap();
    let [metrics, _] = key::Metrics::new(&registry).unwrap();
    let slow = Config {
        requests_per_minute: 30,
        requests_at_once: 2,
        ..caller("slow", &["a", "b"])
    };
    let callers = callers(&[slow, caller("other", &["c"])]);
    let ask = async |key: &str| outcome(asker(&callers, key), &metrics).await;
    // Both keys are one caller's.
    assert!(ask("a").await.is_ok() && ask("b").await.is_ok());
    for key in ["a", "b"] {
        let error = ask(key).await.unwrap_err();
        assert_eq!(error.kind(), Kind::CallerThrottled);
        assert_eq!(error.told_to_wait(), Some(Duration::from_secs(2)));
    }
    assert!(ask("c").await.is_ok());
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(ask("a").await.is_ok() && ask("a").await.is_err());
}

#[test]
fn grants_are_read_from_names_and_ids() {
    let with = |accounts: &[&str], streams: Option<&[&str]>| Config {
        accounts: accounts.iter().map(|name| (*name).to_owned()).collect(),
        streams: streams.map(|streams| streams.iter().map(|name| (*name).to_owned()).collect()),
        ..caller("crm", &["key"])
    };
    for (config, account, stream, expected) in [
        (with(&["acme"], None), "acme", "st-1", true),
        (with(&["acme"], None), "zeta", "st-3", false),
        (with(&["acme"], Some(&["support"])), "acme", "st-1", true),
        (with(&["acme"], Some(&["support"])), "acme", "st-2", false),
        // A name is no id.
        (
            with(&["acme"], Some(&["support"])),
            "acme",
            "support",
            false,
        ),
        (with(&["acme"], Some(&["st-2"])), "acme", "st-2", true),
        (
            with(&["acme", "zeta"], Some(&["support"])),
            "acme",
            "st-1",
            true,
        ),
        (
            with(&["acme", "zeta"], Some(&["support"])),
            "zeta",
            "st-3",
            true,
        ),
        (
            with(&["acme", "open"], Some(&["sales", "st-9"])),
            "open",
            "st-9",
            true,
        ),
        (
            with(&["acme", "open"], Some(&["sales", "st-9"])),
            "open",
            "st-2",
            false,
        ),
        (with(&["acme"], Some(&[])), "acme", "st-1", false),
    ] {
        let callers = callers(std::slice::from_ref(&config));
        let asker = asker(&callers, "key");
        let found = asker.account(Some(&format!("id-of-{account}")), stream);
        assert_eq!(found.is_ok(), expected, "{config:?} {account} {stream}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let broken = |config: Config| build(&[config], &Registry::new().unwrap()).is_err();
    let good = || caller("crm", &["key"]);
    assert!(!broken(good()));
    assert!(broken(Config {
        key_sha256: vec!["key".to_owned()],
        ..good()
    }));
    assert!(broken(Config {
        accounts: vec!["nobody".to_owned()],
        ..good()
    }));
    let twice = [caller("one", &["key"]), caller("two", &["key"])];
    assert!(build(&twice, &Registry::new().unwrap()).is_err());
    // Somebody is configured, so that nobody else may ask.
    assert!(!callers(&[caller("crm", &[])]).are_none());
    assert!(callers(&[]).are_none());
}
