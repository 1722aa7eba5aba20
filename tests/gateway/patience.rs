//! A list that takes longer than its caller waits: what the caller is told, and what becomes of the walk.

use contacts_gateway::{
    config::Config,
    simulator::{DEMO_ACCOUNT_ID, DEMO_STREAM_ID},
};
use futures_util::future::join_all;

use crate::support::{Answer, World, fault, list, path, until};

/// One page at a time.
fn slow(config: &mut Config) {
    config.merge.width = 1;
}

/// A world in which the demo's list takes its twelve calls half a second each.
async fn world() -> World {
    let world = World::with(|_| (), slow).await;
    world.fault_stream(DEMO_STREAM_ID, "delay=500ms");
    world
}

/// Asks for the whole list with a preference.
async fn prefer(world: &World, preference: &str) -> Answer {
    let request = world.gateway.request(&path(DEMO_STREAM_ID, "?all=true"));
    let request = request
        .header("accountId", DEMO_ACCOUNT_ID)
        .header("prefer", preference);
    world.gateway.ask(request).await
}

/// Asserts that an answer says how far the list is, and when to come back.
#[track_caller]
fn is_underway(answer: &Answer) {
    let told = answer.json();
    assert_eq!(told["code"], "merge_in_progress");
    assert!(told["pages_done"].as_u64().unwrap() >= 1, "{told}");
    assert_eq!(told["pages_needed"], 11, "{told}");
    let seconds = told["estimate_s"].as_u64().unwrap();
    assert!((2..=30).contains(&seconds), "{told}");
    assert_eq!(answer.header("retry-after"), seconds.to_string());
    assert_eq!(answer.header("cache-control"), "no-store");
    assert!(told["request_id"] == answer.header("x-request-id"));
}

/// Catches a walk that ends with its caller, a second one for whoever comes next, and numbers that are missing.
#[tokio::test]
async fn who_cannot_wait_is_told_how_far_it_is_and_who_can_joins() {
    let world = world().await;
    let refused = prefer(&world, "wait=3, handling=strict").await;
    refused.is_problem(503, "merge_in_progress");
    is_underway(&refused);
    assert_eq!(
        refused.header("preference-applied"),
        "wait=3, handling=strict"
    );
    assert_eq!(
        refused.header("cache-status"),
        "contacts-gateway; fwd=uri-miss"
    );
    assert_eq!(world.gateway.metric("walks_running").await, 1.0);
    assert!(world.calls() < 6, "it was told at once");

    // More than anybody can wait, so that it is what is applied.
    let joined = prefer(&world, "wait=99999").await.ok();
    assert_eq!(
        joined.header("cache-status"),
        "contacts-gateway; fwd=uri-miss; collapsed"
    );
    assert_eq!(joined.header("preference-applied"), "wait=600");
    assert!(joined.text() == list(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000));
    assert_eq!(world.calls(), 12);
    let hit = prefer(&world, "wait=0").await.ok();
    assert!(hit.is_hit());
    assert_eq!(world.gateway.metric("walks_running").await, 0.0);
}

/// RFC 7240, section 4.1. Catches a promise that is not kept.
#[tokio::test]
async fn who_need_not_wait_gets_a_202_and_later_the_list() {
    let world = world().await;
    let accepted = prefer(&world, "respond-async, wait=3").await;
    assert_eq!(accepted.status, 202, "{}", accepted.text());
    is_underway(&accepted);
    assert_eq!(accepted.header("content-type"), "application/json");
    assert_eq!(accepted.json()["status"], 202);
    assert_eq!(
        accepted.header("preference-applied"),
        "respond-async, wait=3"
    );
    assert!(!accepted.headers.contains_key("etag"));
    until("nobody waits, and it is read", async || {
        world
            .gateway
            .metric("walks_total{outcome=\"verified\"}")
            .await
            == 1.0
    })
    .await;
    let list = prefer(&world, "respond-async").await.ok();
    assert!(list.is_hit());
    // There was nothing to be asynchronous about.
    assert_eq!(list.header("preference-applied"), "");
    assert_eq!(world.calls(), 12);

    // Of pages there is nothing to prefer.
    let request = world.gateway.request(&path("st-page", "?skip=0"));
    let request = request
        .header("accountId", DEMO_ACCOUNT_ID)
        .header("prefer", "wait=0, respond-async");
    let page = world.gateway.ask(request).await.ok();
    assert_eq!(page.header("preference-applied"), "");
}

/// U5. Catches a walk that dies of one refusal, or begins anew after it.
#[tokio::test]
async fn a_refusal_in_the_middle_of_a_walk_is_waited_for_and_costs_one_call() {
    for (text, code) in [
        ("status=429;header=retry-after: 2", "upstream_rate_limited"),
        ("truncate", "upstream_truncated"),
    ] {
        let world = World::with(|_| (), slow).await;
        // A fault that is none, so that the next one comes later.
        world.kore.fault_next(5, fault("delay=0s"));
        world.kore.fault_next(1, fault(text));
        let list = world.get("?all=true").await.ok();
        let status = list.header("merge-status");
        assert!(
            status.starts_with("verified; checks=seam; pages=11; records=1000; calls=13; "),
            "{code}: {status}"
        );
        assert_eq!(world.calls(), 13, "{code}");
        assert_eq!(world.gateway.metric("walk_rests_total").await, 1.0);
    }
}

/// While it rests, what is told says why.
#[tokio::test]
async fn who_cannot_wait_for_a_pause_is_told_of_it() {
    let world = World::with(|_| (), slow).await;
    world.kore.fault_next(5, fault("delay=0s"));
    world
        .kore
        .fault_next(1, fault("status=429;header=retry-after: 20"));
    let refused = prefer(&world, "wait=10").await;
    refused.is_problem(503, "merge_in_progress");
    is_underway(&refused);
    let told = refused.json();
    let detail = told["detail"].as_str().unwrap();
    assert!(
        detail.contains("held up by upstream_rate_limited"),
        "{detail}"
    );
    assert_eq!(told["pages_done"], 5);
    assert!(told["estimate_s"].as_u64().unwrap() > 10);
    assert_eq!(world.calls(), 6);
}

/// Catches a second walk.
#[tokio::test]
async fn fifty_callers_of_one_cold_list_are_one_walk() {
    let world = World::new().await;
    let answers = join_all((0..50).map(|_| world.get("?all=true"))).await;
    let expected = list(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000);
    for answer in answers {
        assert!(answer.ok().text() == expected);
    }
    assert_eq!(world.calls(), 12);
}
