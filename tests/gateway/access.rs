//! Who may ask, and for what: keys, grants, rates, and the operators' token.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    net::{Ipv4Addr, SocketAddr},
};

use contacts_gateway::{
    app::{App, StartError},
    config::Config,
    contacts::request::Class,
    edge::{caller, key::Digest},
    simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Settings, Simulator},
};
use http::Request;

use crate::{
    program::{Program, addresses, configured},
    support::{Answer, Gateway, Raw, Rogue, World, configuration, path, secrets, until},
};

/// A caller of these accounts, whose key is its name and `-key`.
pub(crate) fn caller(name: &str, accounts: &[&str]) -> caller::Config {
    caller::Config {
        name: name.to_owned(),
        key_sha256: vec![Digest::of(&format!("{name}-key")).to_string()],
        accounts: accounts.iter().map(|name| (*name).to_owned()).collect(),
        ..caller::Config::default()
    }
}

/// The demo's account with all its streams, and another one, for these callers.
async fn world(callers: Vec<caller::Config>) -> World {
    let accounts = vec![
        AccountSettings::demo().others(1_000),
        AccountSettings::numbered(1).others(1_000),
    ];
    World::with(
        |settings| settings.accounts = accounts,
        |config| config.callers = callers,
    )
    .await
}

fn other_account() -> String {
    AccountSettings::numbered(1).account_id
}

/// Asks with these headers.
async fn ask(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> Answer {
    let request = gateway.request(target);
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    gateway.ask(request).await
}

/// Asks for an account as a caller.
async fn ask_as(gateway: &Gateway, name: &str, account: &str, target: &str) -> Answer {
    let key = format!("Bearer {name}-key");
    let headers = [
        ("authorization", &*key),
        ("accountid", account),
        ("x-request-id", "same"),
    ];
    ask(gateway, target, &headers).await
}

/// All of an answer but the time of day.
fn whole(answer: &Answer) -> (u16, Vec<(String, String)>, String) {
    let mut headers: Vec<_> = answer
        .headers
        .iter()
        .filter(|(name, _)| *name != "date")
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    (answer.status, headers, answer.text().to_owned())
}

/// C1. Catches a key that is not asked for, one that is taken in a form that was not promised, and an answer from memory for
/// whoever has none.
#[tokio::test]
async fn without_a_good_key_nothing_is_answered() {
    let world = world(vec![caller("crm", &["account-0"])]).await;
    let gateway = &world.gateway;
    let target = path(DEMO_STREAM_ID, "");
    let refused = async || {
        for (headers, reason) in [
            (&[][..], "missing"),
            (&[("authorization", "Bearer wrong")], "unknown"),
            (&[("auth", "wrong")], "unknown"),
            (&[("auth", "CRM-KEY")], "unknown"),
            (&[("authorization", "crm-key")], "malformed"),
            (&[("authorization", "Basic crm-key")], "malformed"),
            (&[("auth", "Bearer crm-key")], "malformed"),
            (
                &[("auth", "crm-key"), ("authorization", "Basic eA==")],
                "malformed",
            ),
            (
                &[("auth", "crm-key"), ("authorization", "Bearer bi-key")],
                "ambiguous",
            ),
            (&[("auth", "crm-key"), ("auth", "bi-key")], "ambiguous"),
        ] {
            let series =
                format!("unauthorized_requests_total{{listener=\"traffic\",reason=\"{reason}\"}}");
            let before = gateway.metric(&series).await;
            let mut told = HashSet::new();
            for account in [DEMO_ACCOUNT_ID, "nobody", "a/b"] {
                let named = [("accountid", account), ("x-request-id", "same")];
                let headers = [headers, &named].concat();
                let answer = ask(gateway, &target, &headers).await;
                answer.is_problem(401, "unauthorized");
                assert_eq!(answer.header("www-authenticate"), "Bearer");
                told.insert(whole(&answer));
            }
            assert_eq!(told.len(), 1, "{headers:?} tells accounts apart");
            assert_eq!(gateway.metric(&series).await, before + 3.0, "{headers:?}");
        }
    };
    refused().await;
    assert_eq!(world.calls(), 0);
    let named = ("accountid", DEMO_ACCOUNT_ID);
    for headers in [
        &[("authorization", "Bearer crm-key"), named][..],
        &[("authorization", "bearer  crm-key"), named],
        &[("auth", "crm-key"), named],
        &[
            ("auth", "crm-key"),
            ("authorization", "Bearer crm-key"),
            named,
        ],
        // The only account that it may read.
        &[("auth", "crm-key")],
    ] {
        ask(gateway, &target, headers).await.ok();
    }
    let http2 = gateway
        .request(&target)
        .header("authorization", "Bearer crm-key");
    gateway.ask_http2(http2).await.ok();
    assert_eq!(world.calls(), 1);
    refused().await;
    assert_eq!(world.calls(), 1);
    let answered = "caller_requests_total{caller=\"crm\",outcome=\"ok\"}";
    assert_eq!(gateway.metric(answered).await, 6.0);
}

/// C1. Catches an answer by which what exists can be told from what does not, and one that memory gives to anybody.
#[tokio::test]
async fn what_a_caller_may_not_read_looks_as_if_it_were_not_there() {
    let some = caller::Config {
        streams: Some(vec![DEMO_STREAM_ID.to_owned()]),
        ..caller("some", &["account-0"])
    };
    let all = caller("all", &["account-0", "account-1"]);
    let world = world(vec![some, all]).await;
    let (gateway, other) = (&world.gateway, other_account());
    let places = [
        (other.as_str(), DEMO_STREAM_ID),
        ("nobody", DEMO_STREAM_ID),
        (DEMO_ACCOUNT_ID, "st-another"),
        (&other, "st-another"),
        ("nobody", "st-another"),
    ];
    let mut told = HashSet::new();
    let mut asked = async || {
        for (account, stream) in places {
            for query in ["", "?all=true", "?skip=20&limit=10"] {
                let answer = ask_as(gateway, "some", account, &path(stream, query)).await;
                answer.is_problem(403, "forbidden");
                told.insert(whole(&answer));
            }
        }
        told.len()
    };
    assert_eq!(asked().await, 1);
    assert_eq!(world.kore.requests().len(), 0);
    for (account, stream) in places {
        for query in ["", "?all=true"] {
            let answer = ask_as(gateway, "all", account, &path(stream, query)).await;
            assert_eq!(answer.status, if account == "nobody" { 403 } else { 200 });
        }
    }
    let calls = world.kore.requests().len();
    assert_eq!(asked().await, 1, "memory makes a difference");
    assert_eq!(world.kore.requests().len(), calls);
    // What makes no sense is told before, whosever it is.
    for (account, target, code) in [
        ("nobody", path("st.x", ""), "bad_stream"),
        (&other, path("st-another", "?skip=x"), "bad_parameter"),
        ("a/b", path(DEMO_STREAM_ID, ""), "bad_account"),
        ("nobody", "/".to_owned(), "not_found"),
    ] {
        let answer = ask_as(gateway, "some", account, &target).await;
        assert_eq!(answer.json()["code"], code);
    }
    let counted = async |caller: &str, outcome: &str| {
        let series = format!("caller_requests_total{{caller=\"{caller}\",outcome=\"{outcome}\"}}");
        gateway.metric(&series).await
    };
    assert_eq!(counted("some", "forbidden").await, 30.0);
    assert_eq!(counted("some", "refused").await, 4.0);
    assert_eq!(counted("all", "ok").await, 6.0);
}

/// C1. Catches a right that is looked at for whoever begins a flight, and not for whoever waits for it.
#[tokio::test]
async fn a_flight_under_way_is_joined_only_by_whoever_may_read_it() {
    let release = std::sync::Arc::new(tokio::sync::Notify::new());
    let rogue = Rogue::holding(release.clone()).await;
    let gateway = Gateway::before(rogue.address, |config| {
        let elsewhere = caller::Config {
            streams: Some(vec!["st-elsewhere".to_owned()]),
            ..caller("elsewhere", &["account-0"])
        };
        config.callers = vec![
            caller("crm", &["account-0"]),
            caller("bi", &["account-0"]),
            elsewhere,
        ];
    })
    .await;
    let target = path(DEMO_STREAM_ID, "");
    let waits = async |name: &'static str| ask_as(&gateway, name, DEMO_ACCOUNT_ID, &target).await;
    let waiters = async { tokio::join!(waits("crm"), waits("bi")) };
    let others = async {
        until("upstream is asked", async || rogue.seen() == 1).await;
        waits("elsewhere").await.is_problem(403, "forbidden");
        ask(&gateway, &target, &[])
            .await
            .is_problem(401, "unauthorized");
        release.notify_one();
    };
    let ((first, second), ()) = tokio::join!(waiters, others);
    assert_eq!(first.ok().body, second.ok().body);
    assert_eq!(rogue.seen(), 1);
}

/// C4. Catches a caller's key that travels on to upstream.
#[tokio::test]
async fn no_key_reaches_upstream() {
    let world = world(vec![caller("crm", &["account-0"])]).await;
    let named = ("accountid", DEMO_ACCOUNT_ID);
    for (stream, headers) in [
        ("st-1", &[("authorization", "Bearer crm-key"), named][..]),
        ("st-2", &[("auth", "crm-key"), named]),
        (
            "st-3",
            &[
                ("auth", "crm-key"),
                ("authorization", "Bearer crm-key"),
                named,
            ],
        ),
    ] {
        for query in ["", "?all=true"] {
            ask(&world.gateway, &path(stream, query), headers)
                .await
                .ok();
        }
    }
    let seen = world.kore.requests();
    assert!(seen.len() > 6);
    for request in seen {
        assert!(!request.headers.contains_key("authorization"));
        for (name, value) in &request.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            assert!(!value.contains("crm-key"), "{name}: {value}");
        }
    }
}

/// C19. Catches a rate that is nobody's own, and a refusal that does not say when to come back.
#[tokio::test]
async fn who_asks_too_often_is_told_when_to_come_back() {
    let slow = caller::Config {
        requests_per_minute: 2,
        requests_at_once: 3,
        ..caller("slow", &["account-0"])
    };
    let world = world(vec![slow, caller("crm", &["account-0"])]).await;
    let gateway = &world.gateway;
    let target = path(DEMO_STREAM_ID, "");
    for _ in 0..3 {
        ask_as(gateway, "slow", DEMO_ACCOUNT_ID, &target).await.ok();
    }
    // Whatever it asks for: the account is not looked at any more.
    for account in [DEMO_ACCOUNT_ID, "nobody"] {
        let answer = ask_as(gateway, "slow", account, &target).await;
        answer.is_problem(429, "caller_throttled");
        let wait: u64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=30).contains(&wait), "{wait}");
    }
    ask_as(gateway, "crm", DEMO_ACCOUNT_ID, &target).await.ok();
    let throttled = "caller_requests_total{caller=\"slow\",outcome=\"throttled\"}";
    assert_eq!(gateway.metric(throttled).await, 2.0);
    assert_eq!(world.calls(), 1);
}

/// Catches a ceiling that is ignored: a bulk reader's pages would leave nothing for those that somebody waits for.
#[tokio::test]
async fn a_bulk_caller_never_takes_the_reserve() {
    let world = World::with(
        |_| (),
        |config| {
            let warehouse = caller::Config {
                urgency_max: Class::Bulk,
                ..caller("warehouse", &["account-0"])
            };
            config.callers = vec![warehouse, caller("crm", &["account-0"])];
            config.accounts[0].calls_per_minute = 12;
            config.budget.reserve = 3;
        },
    )
    .await;
    let take = async |name: &str| {
        let mut taken = 0;
        loop {
            let target = path(&format!("st-{name}-{taken}"), "");
            let answer = ask_as(&world.gateway, name, DEMO_ACCOUNT_ID, &target).await;
            if answer.status != 200 {
                assert_eq!(answer.json()["code"], "budget_exhausted");
                return taken;
            }
            taken += 1;
        }
    };
    assert_eq!(take("warehouse").await, 9);
    assert_eq!(take("crm").await, 3);
    assert_eq!(world.calls(), 12);
}

/// Catches a rotation in which one of two keys does not open, or opens something else.
#[tokio::test]
async fn while_a_key_is_rotated_both_open_the_same() {
    let mut crm = caller("crm", &["account-0"]);
    crm.key_sha256.push(Digest::of("crm-next-key").to_string());
    let world = world(vec![crm]).await;
    let target = path(DEMO_STREAM_ID, "");
    for name in ["crm", "crm-next"] {
        let allowed = ask_as(&world.gateway, name, DEMO_ACCOUNT_ID, &target).await;
        allowed.ok();
        let refused = ask_as(&world.gateway, name, &other_account(), &target).await;
        refused.is_problem(403, "forbidden");
    }
    let answered = "caller_requests_total{caller=\"crm\",outcome=\"ok\"}";
    assert_eq!(world.gateway.metric(answered).await, 2.0);
}

/// Catches a listener that anybody can reach, and the rule for this machine where keys take its place.
#[tokio::test]
async fn other_machines_are_served_only_with_keys() {
    let accounts = [AccountSettings::demo().others(10)];
    let kore = Simulator::start(Settings {
        accounts: accounts.to_vec(),
        ..Settings::default()
    })
    .await
    .unwrap();
    let anywhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let config = |change: &dyn Fn(&mut Config)| {
        let mut config = configuration(&kore.base_url(), &accounts);
        change(&mut config);
        config
    };
    let callers = |config: &mut Config| config.callers = vec![caller("crm", &["account-0"])];
    let token =
        |config: &mut Config| config.admin.token_sha256 = vec![Digest::of("ops-key").to_string()];
    let refused = async |config: Config| match App::bind(&config, secrets(&accounts)).await {
        Err(StartError::NotLoopback { key, .. }) => key,
        // A token that is none would open nothing, or, left out, everything.
        Err(StartError::Token) => "the token",
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("it starts"),
    };
    let open = config(&|config| {
        token(config);
        config.listen.address = anywhere;
    });
    assert_eq!(refused(open).await, "listen.address");
    let open = config(&|config| {
        callers(config);
        config.admin.address = anywhere;
    });
    assert_eq!(refused(open).await, "admin.address");
    let open = config(&|config| config.admin.token_sha256 = vec!["ops-key".to_owned()]);
    assert_eq!(refused(open).await, "the token");

    let closed = config(&|config| {
        callers(config);
        token(config);
        config.listen.address = anywhere;
        config.admin.address = anywhere;
    });
    let gateway = Gateway::start(&closed, secrets(&accounts)).await;
    let elsewhere = |port| SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), port));
    let (traffic, admin) = (
        elsewhere(gateway.traffic.port()),
        elsewhere(gateway.admin.port()),
    );
    let contacts = format!("GET {} HTTP/1.1", path(DEMO_STREAM_ID, ""));
    // A web page may ask, and cannot read the answer.
    for more in ["Accept: */*", "Origin: https://crm.example"] {
        let lines = [&*contacts, "Host: contacts.internal", "auth: crm-key", more];
        let answer = Raw::to(traffic).await.ask(&lines).await.ok();
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    let live = "GET /livez HTTP/1.1";
    for (address, request) in [(traffic, &*contacts), (admin, live)] {
        for hosts in [
            &[][..],
            &["Host: a", "Host: a"],
            &["Host: a", "Host: b"],
            &["Host: a, b"],
            &["Host: a b"],
            &["Host: a/b"],
            &["Host: a:80@b"],
            &["Host: a:b:c"],
            &["Host: [[[:::"],
        ] {
            let lines = [&[request], hosts, &["auth: crm-key"]].concat();
            let mut raw = Raw::to(address).await;
            let answer = raw.ask(&lines).await;
            answer.is_problem(400, "bad_host");
            assert_eq!(answer.header("connection"), "close");
            raw.is_closed().await;
        }
        // Where it is the target that names the host: of two the one that counts.
        for (named, is_one) in [("u@evil", false), ("a:80", true)] {
            let request = request.replace(" /", &format!(" http://{named}/"));
            let lines = [&*request, "Host: a", "auth: crm-key"];
            let answer = Raw::to(address).await.ask(&lines).await;
            match is_one {
                true => drop(answer.ok()),
                false => answer.is_problem(400, "bad_host"),
            }
        }
        let target = request.split(' ').nth(1).unwrap();
        let with_user = Request::get(format!("http://u@{address}{target}"));
        let answer = gateway.ask_http2(with_user.header("auth", "crm-key")).await;
        answer.is_problem(400, "bad_host");
    }
    let old = ["GET /livez HTTP/1.0"];
    Raw::to(admin).await.ask(&old).await.ok();
    let lines = [&*contacts, "Host: contacts.internal"];
    let answer = Raw::to(traffic).await.ask(&lines).await;
    answer.is_problem(401, "unauthorized");
    let live = [live, "Host: 10.0.0.7:8081"];
    Raw::to(admin).await.ask(&live).await.ok();
    let explain = format!("GET /api/explain{} HTTP/1.1", path(DEMO_STREAM_ID, ""));
    let lines = [&*explain, "Host: ops.internal"];
    let answer = Raw::to(admin).await.ask(&lines).await;
    answer.is_problem(401, "unauthorized");
    let lines = [
        &*explain,
        "Host: ops.internal",
        "Authorization: Bearer ops-key",
    ];
    Raw::to(admin).await.ask(&lines).await.ok();
}

/// Catches an operator's question that is answered without the token, a caller's key that opens the admin listener, and a web
/// page that purges.
#[tokio::test]
async fn operators_show_their_token_and_may_ask_about_every_account() {
    let world = World::with(
        |_| (),
        |config| {
            config.callers = vec![caller("crm", &["account-0"])];
            config.admin.token_sha256 = ["ops-key", "ops-next-key"]
                .map(|token| Digest::of(token).to_string())
                .to_vec();
        },
    )
    .await;
    let gateway = &world.gateway;
    let operate = async |method: &str, target: &str, headers: &[(&str, &str)]| {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{target}", gateway.admin));
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        gateway.ask(request).await
    };
    // The page is what asks for the token.
    for open in ["/livez", "/readyz", "/metrics", "/", "/page/ops.js"] {
        operate("GET", open, &[]).await.ok();
    }
    let explain = format!("/api/explain{}", path(DEMO_STREAM_ID, ""));
    let purge = "/api/purge?all=true";
    for (method, target) in [
        ("GET", &*explain),
        ("POST", purge),
        ("GET", "/api/status"),
        ("POST", "/api/drain"),
        ("GET", "/nothing"),
    ] {
        for headers in [
            &[][..],
            &[("authorization", "Bearer crm-key")],
            &[("auth", "wrong")],
        ] {
            let answer = operate(method, target, headers).await;
            answer.is_problem(401, "unauthorized");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    let refused = "unauthorized_requests_total{listener=\"admin\",reason=\"unknown\"}";
    assert_eq!(gateway.metric(refused).await, 10.0);
    for token in ["Bearer ops-key", "Bearer ops-next-key"] {
        let shown = ("authorization", token);
        let named = ("accountid", DEMO_ACCOUNT_ID);
        let explained = operate("GET", &explain, &[shown, named]).await.ok();
        assert_eq!(explained.json()["decision"], "miss");
        let own = format!("http://{}", gateway.admin);
        operate("POST", purge, &[shown, ("origin", &own)])
            .await
            .ok();
        for foreign in [
            ("origin", "http://evil.example"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let answer = operate("POST", purge, &[shown, foreign]).await;
            answer.is_problem(403, "forbidden");
        }
    }
    // The token opens nothing to callers.
    let answer = ask(gateway, &path(DEMO_STREAM_ID, ""), &[("auth", "ops-key")]).await;
    answer.is_problem(401, "unauthorized");
}

/// From `key` to an answer, with everything written at its most talkative: catches a key that is made and does not open, and
/// one that is written anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_was_made_opens_and_is_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let make = |arguments: &[&str]| {
        let (status, said, told) = Program::start(folder.path(), arguments, &[]).ends();
        assert_eq!(status.code(), Some(0), "{told}");
        assert!(said.starts_with("cgk_") && !told.contains(&said));
        (said, told)
    };
    let (key, callers) = make(&["key", "--name", "crm"]);
    let (token, admin) = make(&["key", "--admin"]);
    assert_ne!(key, token);
    let account = AccountSettings::demo();
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let file = configured(
        folder.path(),
        &kore.base_url(),
        &account,
        "[log]\nlevel = \"trace\"\nformat = \"json\"",
    );
    let callers = callers.replace("accounts = []", "accounts = [\"acme\"]");
    let hash = admin.lines().last().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("[admin]\n", &format!("[admin]\n{hash}\n")) + &callers;
    fs::write(&file, text).unwrap();
    let (status, said, errors) =
        Program::start(folder.path(), &["check", "--config", &file], &[]).ends();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(said.contains("for 1 caller,"), "{said}");

    let variables = [("RUST_LOG", "trace")];
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &variables);
    let (traffic, admin) = addresses(&serve.says("callers on "));
    let curl = |arguments: &str, url: &str| {
        let line = format!("curl -s -o /dev/null -w '%{{http_code}}' {arguments} '{url}'");
        crate::program::paste(folder.path(), &line)
    };
    let contacts = format!("{traffic}{}", path(DEMO_STREAM_ID, ""));
    for (arguments, expected) in [
        (format!("-H 'Authorization: Bearer {key}'"), "200"),
        (format!("-H 'auth: {key}'"), "200"),
        (format!("-H 'auth: {key}' -H 'accountId: nobody'"), "403"),
        ("-H 'auth: CANARYKEY'".to_owned(), "401"),
        (
            format!("-H 'auth: {key}' -H 'Authorization: Bearer CANARYKEY'"),
            "401",
        ),
        (format!("-H 'Authorization: Basic {key}'"), "401"),
    ] {
        assert_eq!(curl(&arguments, &contacts), expected, "{arguments}");
    }
    fs::write(folder.path().join("token"), &token).unwrap();
    let explain = ["explain", &contacts, "--admin", &admin];
    let (status, _, errors) = Program::start(folder.path(), &explain, &[]).ends();
    assert_eq!(status.code(), Some(1), "{errors}");
    assert!(errors.contains("a key is needed"), "{errors}");
    let explain = [&explain[..], &["--token-file", "token"]].concat();
    let (status, explained, _) = Program::start(folder.path(), &explain, &[]).ends();
    assert_eq!(status.code(), Some(0));
    assert!(explained.contains("\"decision\": \"hit\""), "{explained}");
    serve.signal("TERM");
    let (status, said, errors) = serve.ends();
    assert_eq!(status.code(), Some(0), "{errors}");
    for (place, text) in [("stdout", &said), ("stderr", &errors)] {
        for secret in [&*key, &*token, "CANARYKEY"] {
            assert!(!text.contains(secret), "{place}: {text}");
        }
    }
    let mut access = BTreeMap::new();
    for line in errors.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        if event["target"] == "access" {
            let of = (
                event["caller"].as_str().map(str::to_owned),
                event["status"].as_u64(),
            );
            *access.entry(of).or_insert(0) += 1;
        }
    }
    let crm = Some("crm".to_owned());
    for (of, count) in [
        ((crm.clone(), Some(200)), 2),
        ((crm, Some(403)), 1),
        ((None, Some(401)), 4),
    ] {
        assert_eq!(access.get(&of), Some(&count), "{of:?} of {access:?}");
    }
}

/// Catches a command that starts what anyone could reach, or that does not say what is missing.
#[test]
fn without_keys_nothing_starts_off_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let account = AccountSettings::demo();
    let file = configured(folder.path(), "http://127.0.0.1:9", &account, "");
    let variables = [("CONTACTS_GATEWAY__LISTEN__ADDRESS", "0.0.0.0:0")];
    for command in ["check", "serve"] {
        let (status, _, errors) =
            Program::start(folder.path(), &[command, "--config", &file], &variables).ends();
        assert_eq!(status.code(), Some(78));
        assert!(
            errors.contains("without [[callers]] whoever connects"),
            "{errors}"
        );
    }
    let demo = ["demo", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0"];
    let (status, _, errors) = Program::start(folder.path(), &demo, &[]).ends();
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("listen.address is 0.0.0.0:0"), "{errors}");
}
