//! The second listener: what probes and Prometheus see.

use std::{
    collections::{BTreeSet, HashSet},
    io::Write,
    process::{Command, Stdio},
    sync::Arc,
};

use contacts_gateway::simulator::{DEMO_ACCOUNT_ID, DEMO_STREAM_ID};
use tokio::sync::Notify;

use crate::support::{Gateway, Raw, Rogue, World, page, path, soon, until};

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
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed (Debian's package prometheus)");
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(&metrics.body).unwrap();
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
