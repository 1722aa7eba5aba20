//! How much is written to the log is changed while the gateway runs, for a while, and by nobody but operators.

use std::collections::BTreeMap;

use contacts_gateway::{
    edge::key::Digest,
    simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Settings, Simulator},
};
use http::Request;
use serde_json::{Value, json};

use crate::{
    program::{Program, addresses, configured, paste},
    support::{Gateway, fault, path, until},
};

/// Catches a level that changes nothing, one that stays, one that lets libraries speak, and a change that is not logged.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn more_is_written_for_a_while_and_then_no_more() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let log = "[log]\nformat = \"json\"";
    let file = configured(folder, &kore.base_url(), &AccountSettings::demo(), log);
    let mut serve = Program::start(folder, &["serve", "--config", &file], &[]);
    let (traffic, admin) = addresses(&serve.says("callers on "));
    let gateway = env!("CARGO_BIN_EXE_contacts-gateway");
    let command = |words: &str| -> Value {
        let said = paste(folder, &format!("{gateway} log {words} --admin {admin}"));
        serde_json::from_str(&said).unwrap()
    };
    // Something of which a line below `info` tells: a call that is made once more.
    let mut skip = 0;
    let mut ask = |id: &str| {
        kore.fault_next(1, fault("status=500"));
        skip += 10;
        let url = format!(
            "{traffic}{}",
            path(DEMO_STREAM_ID, &format!("?skip={skip}"))
        );
        let headers = format!("-H 'accountId: {DEMO_ACCOUNT_ID}' -H 'x-request-id: {id}'");
        paste(folder, &format!("curl -sf -o /dev/null {headers} '{url}'"));
    };
    let configured = json!({ "level": "info", "configured": "info", "until": null });

    assert_eq!(command(""), configured);
    ask("before");
    let raised = command("debug");
    assert_eq!(
        (&raised["level"], &raised["configured"]),
        (&json!("debug"), &json!("info"))
    );
    assert!(raised["until"].is_string(), "{raised}");
    assert_eq!(command(""), raised);
    ask("raised");
    let shown = paste(folder, &format!("{gateway} status --admin {admin}"));
    assert!(
        shown.contains("\nlog        debug for ") && shown.contains(", then info\n"),
        "{shown}"
    );
    assert_eq!(command("default"), configured);
    ask("ended");
    command("trace --for 1s");
    ask("raised-again");
    until("it has fallen back", async || command("") == configured).await;
    ask("fallen-back");

    serve.signal("TERM");
    let (_, _, errors) = serve.ends();
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    let mut changes = Vec::new();
    for line in errors.lines() {
        let event: Value = serde_json::from_str(line).unwrap();
        let (target, level) = (event["target"].as_str().unwrap(), &event["level"]);
        if level == "DEBUG" || level == "TRACE" {
            assert!(target.starts_with("contacts_gateway::"), "{line}");
        }
        if target.ends_with("::retry") {
            let id = event["span"]["request"].as_str().unwrap();
            *told.entry(id.to_owned()).or_default() += 1;
        }
        if target.ends_with("::verbosity") {
            assert_eq!(level, "INFO");
            changes.push(event["to"].as_str().unwrap().to_owned());
        }
    }
    let expected = ["raised", "raised-again"].map(|id| (id.to_owned(), 1));
    assert_eq!(told, BTreeMap::from(expected));
    assert_eq!(changes, ["debug", "info", "trace", "info"]);
}

/// Catches a level that is changed by whoever has no token, by a link, by a web page, or by something that is no level.
#[tokio::test]
async fn who_may_not_operate_changes_no_level() {
    let gateway = Gateway::before("127.0.0.1:9".parse().unwrap(), |config| {
        config.admin.token_sha256 = vec![Digest::of("token").to_string()];
    })
    .await;
    let ask = async |method: &str, query: &str, headers: &[(&str, &str)]| {
        let target = format!("http://{}/api/log{query}", gateway.admin);
        let request = Request::builder().method(method).uri(target);
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        gateway.ask(request).await
    };
    let token = [("auth", "token")];
    ask("POST", "?level=debug", &[])
        .await
        .is_problem(401, "unauthorized");
    ask("GET", "", &[]).await.is_problem(401, "unauthorized");
    let page = [("auth", "token"), ("origin", "http://evil.example")];
    ask("POST", "?level=debug", &page)
        .await
        .is_problem(403, "forbidden");
    for query in ["?level=loud", "?level=debug&for=25h", "", "?for=10m"] {
        let refused = ask("POST", query, &token).await;
        refused.is_problem(400, "bad_parameter");
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(
            detail.contains("trace") || detail.contains("24h"),
            "{detail}"
        );
    }
    ask("GET", "?level=debug", &token)
        .await
        .is_problem(400, "bad_parameter");
    let put = ask("PUT", "?level=debug", &token).await;
    put.is_problem(405, "method_not_allowed");
    assert_eq!(put.header("allow"), "GET, HEAD, POST");
    let standing = ask("GET", "", &token).await.ok().json();
    assert_eq!(standing["until"], Value::Null);
    let changed = ask("POST", "?level=debug", &token).await.ok().json();
    assert_eq!(ask("GET", "", &token).await.ok().json(), changed);
    assert_eq!(changed["level"], "debug");
}
