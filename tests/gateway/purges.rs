//! Operators and copies: why an answer is what it is, and purges.

use std::process::{Command, Stdio};

use contacts_gateway::simulator::DEMO_STREAM_ID;
use serde_json::Value;
use tokio::task;

use crate::support::{World, path, soon};

async fn explained(world: &World, query: &str) -> Value {
    let target = format!("/api/explain{}", path(DEMO_STREAM_ID, query));
    world.gateway.operate(&target).await.ok().json()
}

/// Runs a command against a gateway.
async fn run(world: &World, arguments: &[&str]) -> (bool, String) {
    let admin = format!("http://{}", world.gateway.admin);
    let mut command = Command::new(env!("CARGO_BIN_EXE_contacts-gateway"));
    command
        .args(arguments)
        .args(["--admin", &admin])
        .stdin(Stdio::null());
    let running = task::spawn_blocking(move || command.output());
    let output = soon("a command", running).await.unwrap().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

/// Catches an explanation that differs from what then happens, or that makes it happen.
#[tokio::test]
async fn an_explanation_is_what_then_happens() {
    let world = World::new().await;
    for query in ["?skip=0", "?all=true"] {
        assert_eq!(explained(&world, query).await["decision"], "miss");
        world.get(query).await.ok();
        let document = explained(&world, query).await;
        assert_eq!(document["decision"], "hit", "{document:#}");
        assert_eq!(document["copy"]["freshness"], "fresh");
        assert!(document["copy"]["weight_bytes"].as_u64().unwrap() > 1_000);
    }
    // The list is held by now, and windows are cut from it.
    assert_eq!(explained(&world, "?skip=700").await["decision"], "slice");
    let calls = world.calls();
    world.get("?skip=700").await.ok();
    assert_eq!(world.calls(), calls);
    world.fault_stream("st-broken", "status=500");
    world
        .stream("st-broken", "")
        .await
        .is_problem(502, "upstream_5xx");
    let target = format!("/api/explain{}", path("st-broken", ""));
    let document = world.gateway.operate(&target).await.ok().json();
    assert_eq!(document["decision"], "resting");
    assert_eq!(document["rest"]["code"], "upstream_5xx");
    // What a caller would be refused is refused here too.
    let target = format!("/api/explain{}", path(DEMO_STREAM_ID, "?skip=x"));
    world
        .gateway
        .operate(&target)
        .await
        .is_problem(400, "bad_parameter");
}

/// Catches a purge that leaves a copy, takes another one, or counts wrongly; and commands that say nothing of use.
#[tokio::test]
async fn copies_go_when_they_are_told_to() {
    let world = World::new().await;
    for query in ["?skip=0", "?skip=10", "?skip=20"] {
        world.get(query).await.ok();
    }
    world.stream("st-other", "").await.ok();
    let purge = async |arguments: &[&str]| {
        let (ended_well, text) = run(&world, &[&["purge"], arguments].concat()).await;
        assert!(ended_well, "{text}");
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let all = purge(&["--all", "--dry-run"]).await;
    assert_eq!((&all["pages"], &all["lists"]), (&4.into(), &0.into()));
    let stream = ["--account", "account-0", "--stream", DEMO_STREAM_ID];
    let counted = purge(&[&stream[..], &["--dry-run"]].concat()).await;
    assert_eq!(counted["pages"], 3);

    // One page, hard; the others stay.
    let page = [&stream[..], &["--skip", "10"]].concat();
    assert_eq!(purge(&page).await["subject"], "page");
    assert!(world.get("?skip=10").await.ok().is_miss());
    assert!(world.get("?skip=0").await.ok().is_hit());

    // The stream, soft: stale, at once, and then fresh again.
    purge(&[&stream[..], &["--soft"]].concat()).await;
    let stale = world.get("?skip=0").await.ok();
    let status = stale.header("cache-status").to_owned();
    assert!(
        status.starts_with("contacts-gateway; hit; ttl=-1"),
        "{status}"
    );
    assert!(world.stream("st-other", "").await.ok().is_hit());

    // The stream, hard: also the list, and what is cut from it.
    world.get("?all=true").await.ok();
    purge(&stream).await;
    assert!(world.get("?skip=20").await.ok().is_miss());
    assert!(world.get("?all=true").await.ok().is_miss());
    assert!(world.stream("st-other", "").await.ok().is_hit());
    purge(&["--all"]).await;
    assert!(world.stream("st-other", "").await.ok().is_miss());

    for (arguments, said) in [
        (&["purge", "--account", "nobody"][..], "unknown_account"),
        (&["explain", "/agentassist"], "not_found"),
    ] {
        let (ended_well, text) = run(&world, arguments).await;
        assert!(!ended_well && text.contains(said), "{text}");
    }
    let (ended_well, text) = run(&world, &["explain", &path(DEMO_STREAM_ID, "?skip=20")]).await;
    assert!(ended_well && text.contains("\"decision\""), "{text}");
}

/// Catches a purge by whoever can make a browser send a request, or by a link.
#[tokio::test]
async fn a_purge_is_no_link() {
    let world = World::new().await;
    let purge = world.gateway.operate("/api/purge?all=true").await;
    purge.is_problem(405, "method_not_allowed");
    assert_eq!(purge.header("allow"), "POST");
}
