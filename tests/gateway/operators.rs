//! The second listener: what probes and Prometheus see.

use std::{
    collections::{BTreeSet, HashSet},
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use contacts_gateway::{
    contacts::account::StreamConfig,
    edge::caller,
    simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID},
};
use futures_util::future::join_all;
use tokio::sync::Notify;

use crate::{
    access::caller,
    support::{Gateway, Raw, Rogue, World, configuration, page, path, secrets, soon, until},
};

/// Hits, misses, slices, lists and refusals.
async fn exercise(world: &World) {
    for query in ["", "", "?all=true", "?skip=10", "?all=true", "?skip=x"] {
        world.get(query).await;
    }
    world.fault_stream("st-broken", "status=500");
    for query in ["", "?all=true"] {
        world.stream("st-broken", query).await;
    }
    world.gateway.operate("/nothing").await;
}

/// Catches a name, a type, a unit or a help text that Prometheus's own linter objects to.
#[tokio::test]
async fn the_metrics_pass_promtool() {
    let world = World::new().await;
    exercise(&world).await;
    let metrics = world.gateway.operate("/metrics").await.ok();
    assert_eq!(
        metrics.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    passes_promtool(&metrics.body);
}

fn passes_promtool(metrics: &[u8]) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed (Debian's package prometheus)");
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(metrics).unwrap();
    drop(input);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// Catches a metric outside the prefix, a counter without `_total`, and one that is not there before its first event.
#[tokio::test]
async fn metric_names_and_labels_are_the_promised_ones() {
    let world = World::new().await;
    exercise(&world).await;
    let metrics = world.gateway.operate("/metrics").await.ok();
    let mut names = BTreeSet::new();
    for line in metrics.text().lines() {
        let Some(rest) = line.strip_prefix("# TYPE ") else {
            assert!(
                line.starts_with("# HELP ") || line.starts_with("contacts_gateway_"),
                "{line}"
            );
            continue;
        };
        let (name, kind) = rest.split_once(' ').unwrap();
        assert!(name.starts_with("contacts_gateway_"), "{name}");
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name} {kind}");
        names.insert(name.trim_start_matches("contacts_gateway_").to_owned());
    }
    for name in [
        "requests_total",
        "problems_total",
        "collection_requests_total",
        "collection_age_seconds",
        "collection_lists_total",
        "stale_runway_seconds",
        "cache_stale_total",
        "budget_left_calls",
        "walk_pages",
        "request_duration_seconds",
        "malformed_requests_total",
        "connections",
        "connections_cut_total",
        "accept_pauses_total",
        "requests_waiting",
        "requests_shed_total",
        "panics_total",
        "cache_requests_total",
        "cache_bytes",
        "cache_entries",
        "upstream_attempts_total",
        "upstream_attempt_duration_seconds",
        "upstream_retries_total",
        "upstream_breaker_state",
        "upstream_breaker_refused_total",
        "budget_allowance_calls",
        "budget_taken_calls",
        "budget_wait_seconds",
        "budget_exhausted_total",
        "budget_refused_total",
        "tokens_minted_total",
        "config_reloads_total",
        "config_last_reload_success_timestamp_seconds",
        "walks_total",
        "walk_duration_seconds",
        "process_resident_memory_bytes",
        "build_info",
    ] {
        assert!(names.contains(name), "{name} is missing of {names:?}");
    }
    // Every request is counted once, by what became of it.
    let count = async |series: &str| world.gateway.metric(series).await;
    for (series, expected) in [
        (
            "requests_total{listener=\"traffic\",resource=\"page\",status=\"200\"}",
            3.0,
        ),
        (
            "requests_total{listener=\"traffic\",resource=\"list\",status=\"200\"}",
            2.0,
        ),
        (
            "requests_total{listener=\"traffic\",resource=\"other\",status=\"400\"}",
            1.0,
        ),
        (
            "requests_total{listener=\"traffic\",resource=\"other\",status=\"502\"}",
            2.0,
        ),
        (
            "requests_total{listener=\"admin\",resource=\"other\",status=\"404\"}",
            1.0,
        ),
        ("cache_requests_total{cache=\"pages\",result=\"hit\"}", 1.0),
        (
            "cache_requests_total{cache=\"pages\",result=\"slice\"}",
            1.0,
        ),
        ("cache_requests_total{cache=\"pages\",result=\"miss\"}", 2.0),
        ("cache_requests_total{cache=\"lists\",result=\"hit\"}", 1.0),
        ("cache_requests_total{cache=\"lists\",result=\"miss\"}", 2.0),
        ("walks_total{outcome=\"verified\"}", 1.0),
        ("walks_total{outcome=\"upstream_5xx\"}", 1.0),
        ("tokens_minted_total{account=\"account-0\"}", 1.0),
        (
            "upstream_attempts_total{account=\"account-0\",outcome=\"ok\"}",
            13.0,
        ),
        (
            "upstream_attempts_total{account=\"account-0\",outcome=\"upstream_5xx\"}",
            4.0,
        ),
        ("cache_entries{cache=\"lists\"}", 1.0),
        (
            "problems_total{code=\"upstream_5xx\",listener=\"traffic\"}",
            2.0,
        ),
        ("upstream_outcomes_total{outcome=\"upstream_5xx\"}", 4.0),
        ("upstream_attempts_running", 0.0),
        ("walk_pages_sum", 11.0),
        ("walk_changes_total", 0.0),
        (
            "collection_requests_total{account=\"account-0\",result=\"hit\",stream=\"other\"}",
            3.0,
        ),
        (
            "collection_requests_total{account=\"account-0\",result=\"fetched\",stream=\"other\"}",
            2.0,
        ),
        (
            "collection_requests_total{account=\"account-0\",result=\"failed\",stream=\"other\"}",
            2.0,
        ),
        (
            "collection_age_seconds_count{account=\"account-0\",stream=\"other\"}",
            5.0,
        ),
        (
            "collection_lists_total{account=\"account-0\",stream=\"other\",verdict=\"verified\"}",
            1.0,
        ),
        (
            "collection_lists_total{account=\"account-0\",stream=\"other\",verdict=\"failed\"}",
            1.0,
        ),
        // Failed, and never a copy: nobody runs out of anything.
        ("stale_runway_seconds{account=\"account-0\"}", f64::INFINITY),
    ] {
        assert_eq!(count(series).await, expected, "{series}");
    }
}

/// Catches a label that a caller can write: each new id would be a new series.
#[tokio::test]
async fn nothing_of_a_request_becomes_a_label() {
    let world = World::new().await;
    let series = async || {
        let metrics = world.gateway.operate("/metrics").await.ok();
        let lines = metrics.text().lines().map(str::to_owned);
        let series = lines.filter(|line| !line.starts_with('#'));
        series
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .collect::<HashSet<_>>()
    };
    let ask = async |number: usize| {
        let (stream, account) = (format!("st-canary-{number}"), format!("canary{number}"));
        world.stream(&stream, &format!("?skip={number}")).await.ok();
        world.stream(&stream, &format!("?canary={number}")).await;
        world.gateway.get_as(&account, &path(&stream, "")).await;
        world.gateway.get(&format!("/canary/{number}")).await;
        let request = world.gateway.request(&path(&stream, ""));
        let request = request
            .method(format!("CANARY{number}").as_str())
            .header("x-request-id", &stream)
            .header("user-agent", &stream);
        world.gateway.ask(request).await;
        world.gateway.operate(&format!("/canary/{number}")).await;
    };
    ask(0).await;
    let before = series().await;
    for number in 1..100 {
        ask(number).await;
    }
    let after = series().await;
    assert_eq!(before, after, "series grew with what callers sent");
    for name in &after {
        let lower = name.to_lowercase();
        assert!(!lower.contains("canary"), "{name}");
        assert!(!lower.contains(DEMO_ACCOUNT_ID), "{name}");
        assert!(!lower.contains(DEMO_STREAM_ID), "{name}");
    }
}

/// O9. Catches series that multiply: with every account and caller that has labels of its own and more, each asked about
/// streams that nobody has heard of.
#[tokio::test]
async fn there_are_two_thousand_series_at_most() {
    let accounts: Vec<_> = (0..40)
        .map(|number| AccountSettings::numbered(number).others(5))
        .collect();
    let ids: Vec<_> = accounts
        .iter()
        .map(|account| account.account_id.clone())
        .collect();
    let callers = (0..40).map(|number| {
        let every: Vec<_> = (0..40)
            .map(|account| format!("account-{account}"))
            .collect();
        let every: Vec<_> = every.iter().map(String::as_str).collect();
        caller::Config {
            requests_per_minute: 6_000_000,
            ..caller(&format!("caller-{number}"), &every)
        }
    });
    let world = World::with(
        |settings| settings.accounts = accounts,
        |config| config.callers = callers.collect(),
    )
    .await;
    for share in [
        "status=500",
        "status=429",
        "status=401",
        "truncate",
        "status=404",
    ] {
        world.kore.fault_share(0.1, crate::support::fault(share));
    }
    let ask = async |number: usize| {
        let query = ["", "?skip=1", "?all=true", "?limit=0"][number % 4];
        let request = world
            .gateway
            .request(&path(&format!("st-{number:x}"), query));
        let request = request.header("accountId", &ids[number % 40]).header(
            "authorization",
            format!("Bearer caller-{}-key", number / 4 % 41),
        );
        world.gateway.ask(request).await;
    };
    for number in 0..3_000 {
        ask(number).await;
    }
    let metrics = world.gateway.operate("/metrics").await.ok();
    let series = metrics
        .text()
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count();
    assert!((500..=2_000).contains(&series), "{series}");
}

/// O9, with as many accounts and streams as are told apart and more, over sockets. Catches a series for each id that
/// somebody makes up, in whatever becomes of it.
#[tokio::test]
async fn made_up_streams_stay_within_two_thousand_series() {
    let accounts: Vec<_> = (1..=25).map(AccountSettings::numbered).collect();
    // Nobody is there.
    let mut config = configuration("http://127.0.0.1:9", &accounts);
    for account in config.accounts.iter_mut().skip(20) {
        let stream = |number| StreamConfig {
            name: format!("stream-{number}"),
            stream_id: format!("st-{number}"),
        };
        account.streams = (0..5).map(stream).collect();
    }
    let gateway = Gateway::start(&config, secrets(&accounts)).await;
    for round in 0..40 {
        let ask = async |number: usize| {
            let account = &config.accounts[number % 25].account_id;
            let query = ["", "?all=true", "?skip=10"][number % 3];
            let target = path(&format!("st-made-up-{round}-{number}"), query);
            gateway.get_as(account, &target).await.status
        };
        let statuses = join_all((0..50).map(ask)).await;
        assert!(statuses.iter().all(|status| *status >= 400));
    }
    let metrics = gateway.operate("/metrics").await.ok();
    passes_promtool(&metrics.body);
    let text = metrics.text();
    assert!(!text.contains("made-up"));
    let series = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(series <= 2_000, "{series}");
}

/// Catches probes that depend on upstream.
#[tokio::test]
async fn the_probes_answer_whatever_upstream_does() {
    let world = World::new().await;
    world.kore.fault_always(crate::support::fault("status=500"));
    world.get("").await.is_problem(502, "upstream_5xx");
    assert_eq!(world.gateway.operate("/livez").await.ok().text(), "alive\n");
    until("it is ready", async || {
        world.gateway.operate("/readyz").await.status == 200
    })
    .await;
    let head = http::Request::head(format!("http://{}/readyz", world.gateway.admin));
    let head = world.gateway.ask(head).await.ok();
    assert!(head.body.is_empty());
    let nothing = world.gateway.operate("/elsewhere").await;
    nothing.is_problem(404, "not_found");
    // Contacts are not served where operators ask.
    let contacts = world.gateway.operate(&path(DEMO_STREAM_ID, "")).await;
    contacts.is_problem(404, "not_found");
}

/// O1. Catches a stop that cuts a request in flight, or that is not announced while there is still somebody to tell.
#[tokio::test]
async fn while_it_drains_it_is_not_ready_and_finishes_what_is_in_flight() {
    let release = Arc::new(Notify::new());
    let rogue = Rogue::holding(release.clone()).await;
    let gateway = Gateway::before(rogue.address, |_| ()).await;
    let traffic = gateway.traffic;
    let mut caller = Raw::to(traffic).await;
    let first = format!("GET {} HTTP/1.1\r\n", path(DEMO_STREAM_ID, ""));
    caller
        .write(format!("{first}Host: localhost\r\n\r\n"))
        .await;
    until("upstream is asked", async || rogue.seen() == 1).await;

    gateway.stop();
    until("it is no longer ready", async || {
        gateway.operate("/readyz").await.status == 503
    })
    .await;
    let readiness = gateway.operate("/readyz").await;
    readiness.is_problem(503, "draining");
    assert_eq!(gateway.operate("/livez").await.status, 200);
    until("nobody new is let in", async || {
        tokio::net::TcpStream::connect(traffic).await.is_err()
    })
    .await;

    release.notify_one();
    let answer = caller.answer().await.ok();
    assert_eq!(
        answer.text(),
        page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 0, 10)
    );
    assert_eq!(answer.header("connection"), "close");
    caller.is_closed().await;
    gateway.ended().await;
}

/// Catches a drain that waits for ever for a request which does not end.
#[tokio::test]
async fn a_drain_ends_even_if_a_request_does_not() {
    let rogue = Rogue::start(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let gateway = Gateway::before(rogue.address, |config| {
        config.listen.drain_timeout = std::time::Duration::from_millis(50);
    })
    .await;
    let mut caller = Raw::to(gateway.traffic).await;
    let first = format!("GET {} HTTP/1.1\r\n", path(DEMO_STREAM_ID, ""));
    caller
        .write(format!("{first}Host: localhost\r\n\r\n"))
        .await;
    until("upstream is asked", async || rogue.seen() == 1).await;
    gateway.stop();
    gateway.ended().await;
    // Who waits is told shortly before, and not cut.
    let told = soon("an answer", caller.next_answer(true)).await.unwrap();
    told.is_problem(503, "draining");
    assert_eq!(told.header("connection"), "close");
}
