//! Many callers, one call.

use std::time::Duration;

use bytes::Bytes;
use contacts_gateway::{
    config::Config,
    simulator::{DEMO_ACCOUNT_ID, DEMO_STREAM_ID},
};
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time};

use crate::support::{Raw, World, list, page, path, soon, until};

/// Long enough that callers of one moment meet the flight in the air.
const LATENCY: Duration = Duration::from_millis(700);

async fn slow() -> World {
    World::with(|settings| settings.latency = LATENCY, |_| ()).await
}

fn request(query: &str) -> String {
    let target = path(DEMO_STREAM_ID, query);
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Catches an answer that is kept against upstream's word, a copy that hides it, and walks that go side by side.
#[tokio::test]
async fn what_upstream_forbids_to_keep_is_answered_and_forgotten() {
    const STREAM: &str = "st-unkept";
    const UNKEPT: &str = "contacts-gateway; fwd=uri-miss; fwd-status=200";
    let change = |config: &mut Config| config.cache.fresh_for = Duration::from_secs(1);
    let world = World::with(|settings| settings.latency = LATENCY, change).await;
    let forbid = |limit| {
        world.kore.clear_faults();
        let body = page(DEMO_ACCOUNT_ID, STREAM, 3, 0, limit);
        let head = "status=200;header=cache-control: private, no-store";
        world.fault_stream(STREAM, &format!("{head};body={body}"));
    };
    let held = async |cache: &str| {
        let series = format!("cache_entries{{cache=\"{cache}\"}}");
        world.gateway.metric(&series).await
    };
    let ask = async || world.stream(STREAM, "?limit=10").await.ok();
    assert!(ask().await.is_miss());
    time::sleep(Duration::from_secs(1)).await;
    forbid(10);
    // Stale, and fetched anew meanwhile: then there is no copy any more.
    assert!(ask().await.is_hit());
    until("the copy is outdated", async || held("pages").await == 0.0).await;
    assert_eq!(ask().await.header("cache-status"), UNKEPT);
    let before = world.calls();
    for answer in join_all((0..20).map(|_| ask())).await {
        assert_eq!(answer.header("cache-status"), UNKEPT);
    }
    assert_eq!(world.calls(), before + 20);
    assert_eq!(held("pages").await, 0.0);

    // A list is not kept either; but one walk is enough for all who ask meanwhile.
    forbid(100);
    let ask_all = async || world.stream(STREAM, "?all=true").await.ok();
    assert_eq!(ask_all().await.header("cache-status"), UNKEPT);
    let before = world.calls();
    let answers = join_all((0..20).map(|_| ask_all())).await;
    let expected = list(DEMO_ACCOUNT_ID, STREAM, 3);
    assert!(answers.iter().all(|answer| answer.text() == expected));
    assert_eq!(world.calls(), before + 1);
    assert_eq!(held("lists").await, 0.0);

    world.kore.clear_faults();
    assert!(ask().await.is_miss());
    assert!(ask().await.is_hit());
}

/// A hundred connections with one request each, and nine with a hundred: a thousand callers on few descriptors.
///
/// Catches a cache in which each caller, or each thread, or each connection fetches for itself.
#[tokio::test]
async fn a_thousand_simultaneous_callers_of_a_cold_page_cost_one_call() {
    let world = slow().await;
    let address = world.gateway.traffic;
    let http1 = join_all((0..100).map(|_| Raw::to(address))).await;
    let http2 = join_all((0..9).map(|_| async {
        let stream = TcpStream::connect(address).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender.ready().await.unwrap();
        sender
    }))
    .await;

    let asked_one = http1.into_iter().map(|mut raw| async move {
        raw.write(request("?skip=30&limit=10")).await;
        let answer = raw.answer().await;
        (answer.status, answer.headers, answer.body)
    });
    let asked_hundred = http2
        .iter()
        .flat_map(|sender| (0..100).map(|_| sender.clone()))
        .map(|mut sender| async move {
            let target = format!("http://{address}{}", path(DEMO_STREAM_ID, "?skip=30"));
            let request = Request::get(target).body(Empty::<Bytes>::new()).unwrap();
            let (head, body) = sender.send_request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            (head.status.as_u16(), head.headers, body)
        });
    let (mut answers, more) = soon(
        "a thousand answers",
        futures_util::future::join(join_all(asked_one), join_all(asked_hundred)),
    )
    .await;
    answers.extend(more);

    assert_eq!(answers.len(), 1_000);
    let expected = page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 30, 10);
    let (mut fetched, mut joined) = (0, 0);
    for (status, headers, body) in &answers {
        assert_eq!(*status, 200);
        assert!(body == expected.as_bytes());
        match headers["cache-status"].to_str().unwrap() {
            "contacts-gateway; fwd=uri-miss; fwd-status=200; stored" => fetched += 1,
            "contacts-gateway; fwd=uri-miss; collapsed" => joined += 1,
            other => assert!(other.starts_with("contacts-gateway; hit; ttl="), "{other}"),
        }
    }
    assert_eq!(world.calls(), 1);
    assert_eq!(fetched, 1);
    assert!(joined > 0, "nobody met the flight: it proves nothing");
}

/// Catches a fetch that is run by its first caller, and dies with it.
#[tokio::test]
async fn the_first_caller_leaving_changes_nothing() {
    let world = slow().await;
    let mut first = Raw::to(world.gateway.traffic).await;
    first.write(request("")).await;
    until("upstream is asked", async || world.calls() == 1).await;
    drop(first);

    let held = "cache_entries{cache=\"pages\"}";
    until("the page is kept", async || {
        world.gateway.metric(held).await == 1.0
    })
    .await;
    let next = world.get("").await.ok();
    assert!(next.is_hit(), "{:?}", next.headers);
    assert_eq!(
        next.text(),
        page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 0, 10)
    );
    let counts = world.kore.calls(DEMO_ACCOUNT_ID);
    assert_eq!((counts.total, counts.served), (1, 1));
}

/// Catches waiters that hang, fail or start again when the one they joined goes away.
#[tokio::test]
async fn those_who_joined_a_caller_that_leaves_get_its_page() {
    let world = slow().await;
    let mut first = Raw::to(world.gateway.traffic).await;
    first.write(request("")).await;
    until("upstream is asked", async || world.calls() == 1).await;
    let mut waiters = join_all((0..50).map(|_| Raw::to(world.gateway.traffic))).await;
    join_all(waiters.iter_mut().map(|raw| raw.write(request("")))).await;
    drop(first);
    let answers = join_all(waiters.iter_mut().map(Raw::answer)).await;
    let expected = page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 0, 10);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 200 && answer.body == expected)
    );
    assert_eq!(world.calls(), 1);
}

/// Catches a walk for each caller: 50 times 12 calls.
#[tokio::test]
async fn fifty_callers_of_a_cold_list_cost_one_walk_even_if_the_first_leaves() {
    let world = World::with(
        |settings| settings.latency = Duration::from_millis(150),
        |_| (),
    )
    .await;
    let mut first = Raw::to(world.gateway.traffic).await;
    first.write(request("?all=true")).await;
    until("upstream is asked", async || world.calls() >= 1).await;
    let mut callers = join_all((0..50).map(|_| Raw::to(world.gateway.traffic))).await;
    join_all(
        callers
            .iter_mut()
            .map(|raw| raw.write(request("?all=true"))),
    )
    .await;
    drop(first);
    let answers = join_all(callers.iter_mut().map(Raw::answer)).await;
    let expected = list(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000);
    for answer in &answers {
        assert_eq!(answer.status, 200);
        assert!(answer.body == expected);
    }
    assert_eq!(world.calls(), 12);
    let walks = "walks_total{outcome=\"verified\"}";
    assert_eq!(world.gateway.metric(walks).await, 1.0);
    assert!(world.get("?all=true").await.is_hit());
}

/// Catches a failure that each waiter tries again by itself, and one that is kept as if it were a page.
#[tokio::test]
async fn those_who_wait_for_a_failing_flight_share_its_one_error() {
    let world = slow().await;
    world.fault_stream(DEMO_STREAM_ID, "status=500");
    let mut callers = join_all((0..50).map(|_| Raw::to(world.gateway.traffic))).await;
    join_all(callers.iter_mut().map(|raw| raw.write(request("")))).await;
    let answers = join_all(callers.iter_mut().map(Raw::answer)).await;
    for answer in &answers {
        answer.is_problem(502, "upstream_5xx");
    }
    let joined = answers
        .iter()
        .filter(|answer| answer.header("cache-status").ends_with("; collapsed"))
        .count() as u64;
    assert!(joined > 0, "nobody met the flight: it proves nothing");
    assert_eq!(world.calls(), 2, "one flight, which tried once more");
    world.kore.clear_faults();
    time::sleep(Duration::from_secs(1)).await;
    assert!(world.get("").await.ok().is_miss());
}
