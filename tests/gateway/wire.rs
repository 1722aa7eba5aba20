//! HTTP/1.1 and HTTP/2 as callers speak them.

use std::{net::SocketAddr, time::Duration};

use contacts_gateway::{
    config::Config,
    simulator::{DEMO_ACCOUNT_ID, DEMO_STREAM_ID},
};
use http::{Request, Version};

use crate::{
    access::caller,
    support::{Raw, World, list, page, path},
};

fn get(query: &str) -> String {
    format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        path(DEMO_STREAM_ID, query)
    )
}

/// Catches an answer that depends on the protocol, and a listener that knows only one.
#[tokio::test]
async fn http2_with_prior_knowledge_answers_like_http1() {
    let world = World::new().await;
    for (query, status) in [
        ("?skip=10", 200),
        ("?all=true", 200),
        ("?skip=x", 400),
        ("?skip=11", 200),
    ] {
        let ask = || world.gateway.request(&path(DEMO_STREAM_ID, query));
        let old = world.gateway.ask(ask()).await;
        let new = world.gateway.ask_http2(ask()).await;
        assert_eq!(
            (old.version, new.version),
            (Version::HTTP_11, Version::HTTP_2)
        );
        assert_eq!((old.status, new.status), (status, status));
        for name in [
            "content-type",
            "content-length",
            "etag",
            "cache-control",
            "vary",
        ] {
            assert_eq!(old.header(name), new.header(name), "{query}: {name}");
        }
        match status {
            200 => assert!(new.is_hit() && new.body == old.body, "{query}"),
            _ => new.is_problem(400, "bad_parameter"),
        }
    }
    world.fault_stream("st-broken", "status=500");
    let request = world.gateway.request(&path("st-broken", ""));
    let failed = world.gateway.ask_http2(request).await;
    failed.is_problem(502, "upstream_5xx");
    let metrics = format!("http://{}/metrics", world.gateway.admin);
    let metrics = world.gateway.ask_http2(Request::get(metrics)).await;
    assert_eq!((metrics.status, metrics.version), (200, Version::HTTP_2));
}

/// Catches a browser's page that comes over HTTP/2, where the host is not a header.
#[tokio::test]
async fn http2_is_held_to_the_same_hosts() {
    let world = World::new().await;
    let origin = world
        .gateway
        .request(&path(DEMO_STREAM_ID, ""))
        .header("origin", "http://localhost");
    let answer = world.gateway.ask_http2(origin).await;
    answer.is_problem(403, "forbidden");
    let host = world
        .gateway
        .request(&path(DEMO_STREAM_ID, ""))
        .header("host", "evil.example");
    let answer = world.gateway.ask_http2(host).await;
    assert_ne!(answer.status, 200);
    assert_eq!(world.kore.requests().len(), 0);
}

/// Catches a connection that is closed after each answer, or answers that come out of order.
#[tokio::test]
async fn a_connection_is_kept_and_pipelined_requests_are_answered_in_order() {
    let world = World::with(
        |settings| settings.latency = Duration::from_millis(50),
        |_| (),
    )
    .await;
    let mut raw = Raw::to(world.gateway.traffic).await;
    for _ in 0..3 {
        raw.write(get("?skip=3")).await;
        raw.answer().await.ok();
    }
    // A miss, a hit, a refusal, a list and a miss, in one piece.
    let queries = ["?skip=1", "?skip=3", "?skip=x", "?all=true", "?skip=2"];
    raw.write(queries.map(get).concat()).await;
    let (account, stream) = (DEMO_ACCOUNT_ID, DEMO_STREAM_ID);
    assert_eq!(
        raw.answer().await.text(),
        page(account, stream, 1_000, 1, 10)
    );
    assert_eq!(
        raw.answer().await.text(),
        page(account, stream, 1_000, 3, 10)
    );
    raw.answer().await.is_problem(400, "bad_parameter");
    assert!(raw.answer().await.text() == list(account, stream, 1_000));
    assert_eq!(
        raw.answer().await.text(),
        page(account, stream, 1_000, 2, 10)
    );
    // And it ends when the caller says so.
    raw.write(get("?skip=3").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"))
        .await;
    assert_eq!(raw.answer().await.ok().header("connection"), "close");
    raw.is_closed().await;
}

/// C8. Catches a body that is taken for the next request: somebody's request would be answered that nobody made.
#[tokio::test]
async fn a_body_on_a_get_is_refused_and_never_read_as_a_request() {
    let world = World::new().await;
    world.get("?skip=1").await.ok();
    world.kore.clear_requests();
    let hidden = get("?skip=777");
    for query in ["?skip=1", "?skip=2", "?all=true"] {
        for (framing, body) in [
            (format!("Content-Length: {}", hidden.len()), hidden.clone()),
            ("Content-Length: 5".to_owned(), "hello".to_owned()),
            (
                "Transfer-Encoding: chunked".to_owned(),
                format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
            ),
            // An empty one is framed like any other.
            (
                "Transfer-Encoding: chunked".to_owned(),
                "0\r\n\r\n".to_owned(),
            ),
        ] {
            let mut raw = Raw::to(world.gateway.traffic).await;
            let head = get(query).replace("\r\n\r\n", &format!("\r\n{framing}\r\n\r\n"));
            raw.write(format!("{head}{body}{}", get("?skip=778"))).await;
            let answer = raw.answer().await;
            answer.is_problem(400, "body_not_allowed");
            assert_eq!(answer.header("connection"), "close");
            raw.is_closed().await;
        }
    }
    assert_eq!(world.kore.requests().len(), 0);
    // No body is no body, however it is said.
    let mut raw = Raw::to(world.gateway.traffic).await;
    raw.write(get("?skip=1").replace("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"))
        .await;
    raw.answer().await.ok();
    raw.write(get("?skip=1")).await;
    raw.answer().await.ok();
}

/// The same for a method that is refused: its body is drained or the connection ends.
#[tokio::test]
async fn the_body_of_a_refused_method_is_never_read_as_a_request() {
    let world = World::new().await;
    let hidden = get("?skip=777");
    let head = get("?skip=1").replace("GET", "POST");
    for (framing, body) in [
        (format!("Content-Length: {}", hidden.len()), hidden.clone()),
        (
            "Transfer-Encoding: chunked".to_owned(),
            format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len()),
        ),
    ] {
        let mut raw = Raw::to(world.gateway.traffic).await;
        let head = head.replace("\r\n\r\n", &format!("\r\n{framing}\r\n\r\n"));
        raw.write(format!("{head}{body}{}", get("?skip=778"))).await;
        raw.answer().await.is_problem(405, "method_not_allowed");
        if let Some(next) = raw.next_answer(true).await {
            assert_eq!(next.ok().json()["skip"], 778);
        }
    }
    let seen = world.kore.requests();
    assert!(
        seen.iter().all(|seen| seen.query.contains("778")),
        "{seen:?}"
    );
}

/// C5. Catches framing that another server on the way could read otherwise.
#[tokio::test]
async fn broken_framing_is_one_clear_refusal_and_the_end() {
    let world = World::new().await;
    let first = format!("GET {} HTTP/1.1\r\n", path(DEMO_STREAM_ID, ""));
    for (name, text) in [
        (
            "space before the colon",
            format!("{first}Host : localhost\r\n\r\n"),
        ),
        ("nul", format!("{first}Host: localhost\r\nx: a\0b\r\n\r\n")),
        (
            "bare cr",
            format!("{first}Host: localhost\r\nx: a\rb: c\r\n\r\n"),
        ),
        (
            "folded line",
            format!("{first}Host: localhost\r\n x: y\r\n\r\n"),
        ),
        (
            "two lengths",
            format!("{first}Host: localhost\r\nContent-Length: 0\r\nContent-Length: 1\r\n\r\n"),
        ),
        (
            "signed length",
            format!("{first}Host: localhost\r\nContent-Length: +0\r\n\r\n"),
        ),
        (
            "bad coding",
            format!("{first}Host: localhost\r\nTransfer-Encoding: x\r\n\r\n"),
        ),
        (
            "no version",
            format!("GET {}\r\n\r\n", path(DEMO_STREAM_ID, "")),
        ),
        (
            "space in the target",
            format!(
                "GET {}?skip=1 0 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                path(DEMO_STREAM_ID, "")
            ),
        ),
        ("noise", "\u{16}\u{3}\u{1}\u{2}\u{0}\r\n\r\n".to_owned()),
    ] {
        let mut raw = Raw::to(world.gateway.traffic).await;
        raw.write(text).await;
        if let Some(answer) = raw.next_answer(true).await {
            assert_eq!(answer.status, 400, "{name}");
        }
        raw.is_closed().await;
    }
    assert_eq!(world.kore.requests().len(), 0);
    let malformed = world
        .gateway
        .metric(r#"malformed_requests_total{listener="traffic"}"#)
        .await;
    assert!(malformed > 0.0);
}

/// C7. Catches heads without a bound, a number of lines that only one protocol is held to, and keys that do not count.
#[tokio::test]
async fn too_many_or_too_large_headers_are_refused() {
    let config = |config: &mut Config| config.callers = vec![caller("crm", &["account-0"])];
    let world = World::with(|_| (), config).await;
    let target = path(DEMO_STREAM_ID, "");
    let large = "y".repeat(1 << 20);
    let lines = |count: usize| (3..=count).map(|line| format!("x-{line}: y"));
    let old = async |lines: Vec<String>| {
        let first = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nauth: crm-key");
        let lines: Vec<_> = [&*first]
            .into_iter()
            .chain(lines.iter().map(|line| &**line))
            .collect();
        let mut raw = Raw::to(world.gateway.traffic).await;
        (raw.ask(&lines).await, raw)
    };
    for lines in [
        lines(101).collect(),
        lines(300).collect(),
        vec![format!("x: {large}")],
    ] {
        let (answer, mut raw) = old(lines).await;
        assert_eq!(answer.status, 431);
        raw.is_closed().await;
    }
    let large = world
        .gateway
        .request(&target)
        .header("x", &large[..20 * 1024]);
    let answer = world.gateway.ask_http2(large).await;
    assert_eq!(answer.status, 431);

    let other: fn(usize) -> String = |line| format!("x-{line}");
    let names = [other, |_| "x".to_owned(), |_| "auth".to_owned()];
    let new = async |address: SocketAddr, target: &str, name: fn(usize) -> String, count: usize| {
        let request = Request::get(format!("http://{address}{target}")).header("auth", "crm-key");
        let request = (2..=count).fold(request, |request, line| {
            request.header(name(line), "crm-key")
        });
        world.gateway.ask_http2(request).await
    };
    let asked = [
        (world.gateway.traffic, &*target),
        (world.gateway.admin, "/livez"),
    ];
    for name in names {
        for (address, target) in asked {
            for count in [101, 300] {
                let answer = new(address, target, name, count).await;
                answer.is_problem(431, "headers_too_large");
            }
        }
    }
    assert_eq!(world.kore.requests().len(), 0);

    old(lines(100).collect()).await.0.ok();
    for name in names {
        for (address, target) in asked {
            new(address, target, name, 100).await.ok();
        }
    }
}
