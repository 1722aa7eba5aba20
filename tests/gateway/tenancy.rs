//! U22: contacts that say that they are another account's or stream's. Pages in `reject` mode are rows of `matrix`.

use std::time::Duration;

use contacts_gateway::{
    config::Config,
    simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Settings, Simulator},
    upstream::TenantCheck,
};
use serde_json::Value;
use tokio::time;

use crate::{
    program::{Program, addresses, configured, paste},
    support::{Answer, World, fault, path, until},
};

const FAULTS: [&str; 2] = ["other-account", "other-stream"];
const STREAM: &str = "st-tenancy";
const CODE: &str = "upstream_tenant_mismatch";
const MISMATCHES: &str = "upstream_tenant_mismatches_total{account=\"account-0\"}";

/// Copies go stale as soon as can be, and are never given up.
const FRESH_FOR: Duration = Duration::from_secs(1);

async fn world(check: TenantCheck) -> World {
    let config = |config: &mut Config| {
        config.upstream.tenant_check = check;
        config.cache.fresh_for = FRESH_FOR;
        config.merge.fresh_for = FRESH_FOR;
        config.cache.stale_for = Duration::from_secs(3600);
        // One call at a time, so that their number is known when one of them fails.
        config.merge.width = 1;
    };
    World::with(|_| (), config).await
}

fn is_stale(answer: &Answer) -> bool {
    answer
        .header("cache-status")
        .starts_with("contacts-gateway; hit; ttl=-")
}

/// Catches a setting that observes and yet refuses or does not keep, and one that does not count.
#[tokio::test]
async fn what_is_observed_is_answered_kept_and_counted() {
    for text in FAULTS {
        let world = world(TenantCheck::Observe).await;
        assert_eq!(world.gateway.metric(MISMATCHES).await, 0.0);
        world.fault_stream(STREAM, text);
        let page = world.stream(STREAM, "?limit=3").await.ok();
        let held = crate::support::page(DEMO_ACCOUNT_ID, STREAM, 1_000, 0, 3);
        assert!(page.is_miss() && page.text() != held, "{text}");
        assert!(world.stream(STREAM, "?limit=3").await.is_hit());
        assert_eq!(world.gateway.metric(MISMATCHES).await, 1.0, "{text}");
        assert_eq!(world.gateway.attempts("ok").await, 1.0, "{text}");

        let list = world.stream(STREAM, "?all=true").await.ok();
        assert!(list.is_miss(), "{text}");
        let calls = world.calls() as f64;
        assert_eq!(world.gateway.metric(MISMATCHES).await, calls, "{text}");
        world.kore.clear_faults();
        world.stream("st-other", "").await.ok();
        assert_eq!(world.gateway.metric(MISMATCHES).await, calls, "{text}");
    }
}

/// Catches an observed answer that does not take the place of an older copy.
#[tokio::test]
async fn what_is_observed_replaces_a_stale_copy() {
    let world = world(TenantCheck::Observe).await;
    for query in ["?limit=3", "?all=true"] {
        let old = world.stream(STREAM, query).await.ok();
        time::sleep(FRESH_FOR).await;
        world.fault_stream(STREAM, FAULTS[0]);
        until(query, async || {
            let answer = world.stream(STREAM, query).await.ok();
            answer.body != old.body
        })
        .await;
        world.kore.clear_faults();
    }
}

/// Catches a list with strangers in it, a walk that goes on, and one whose failure is not remembered.
#[tokio::test]
async fn a_list_with_strangers_is_refused_whole() {
    for text in FAULTS {
        let world = world(TenantCheck::Reject).await;
        world.fault_stream(STREAM, text);
        let refused = world.stream(STREAM, "?all=true").await;
        refused.is_problem(502, CODE);
        let remembered = world.stream(STREAM, "?all=true").await;
        assert_eq!(remembered.json()["code"], CODE, "{text}");
        assert_eq!(world.calls(), 1, "{text}");
        assert_eq!(world.gateway.metric(MISMATCHES).await, 1.0, "{text}");
        let walks = "walks_total{outcome=\"upstream_tenant_mismatch\"}";
        assert_eq!(world.gateway.metric(walks).await, 1.0, "{text}");
        let held = "cache_entries{cache=\"lists\"}";
        assert_eq!(world.gateway.metric(held).await, 0.0, "{text}");
        world.kore.clear_faults();
        time::sleep(Duration::from_secs(1)).await;
        assert!(world.stream(STREAM, "?all=true").await.ok().is_miss());
    }
}

/// Catches a stale list that is answered after its refresh was refused, and a window that is still cut from it.
#[tokio::test]
async fn a_held_list_is_given_up_when_its_refresh_is_refused() {
    let world = world(TenantCheck::Reject).await;
    world.stream(STREAM, "?all=true").await.ok();
    world.fault_stream(STREAM, FAULTS[0]);
    // After FRESH_FOR, or four times its walk where the machine has much to do.
    until("the list is stale", async || {
        is_stale(&world.stream(STREAM, "?all=true").await.ok())
    })
    .await;
    until("the list is given up", async || {
        let answer = world.stream(STREAM, "?all=true").await;
        answer.status == 502 && answer.json()["code"] == CODE
    })
    .await;
    let held = "cache_entries{cache=\"lists\"}";
    assert_eq!(world.gateway.metric(held).await, 0.0);
    let window = world.stream(STREAM, "?skip=10").await;
    window.is_problem(502, CODE);
}

/// Catches a line for each record or each page of a walk, and one that tells a contact.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_observed_is_logged_once_for_each_flight() {
    let kore = Simulator::start(Settings {
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let more = "[budget]\nstart_share = 1.0\n[log]\nformat = \"json\"";
    let account = AccountSettings::demo();
    let file = configured(folder.path(), &kore.base_url(), &account, more);
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &[]);
    let (traffic, _) = addresses(&serve.says("callers on "));
    kore.fault_always(fault(FAULTS[0]));
    // The page is a hit the second time.
    for query in ["?limit=3", "?limit=3", "?all=true"] {
        let url = format!("{traffic}{}", path(DEMO_STREAM_ID, query));
        let body = paste(folder.path(), &format!("curl -sf '{url}'"));
        assert!(body.starts_with("{\"results\":["), "{body}");
    }
    assert!(kore.calls(DEMO_ACCOUNT_ID).total > 10);
    serve.signal("TERM");
    let (_, _, errors) = serve.ends();
    let lines = errors
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    let told: Vec<Value> = lines
        .filter(|line: &Value| line["code"] == "upstream_tenant_mismatch")
        .collect();
    let records: Vec<_> = told.iter().map(|line| &line["records"]).collect();
    // The first record of the one page, and of each page of the walk.
    assert_eq!(records.len(), 2, "{errors}");
    assert_eq!(records[0], 1, "{errors}");
    assert!(records[1].as_u64() > Some(10), "{errors}");
}
