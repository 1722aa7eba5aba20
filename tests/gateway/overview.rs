//! What operators see at one look: the status document, the ops page's files, and the commands that ask for them.

use std::process::{Command, Stdio};

use contacts_gateway::{
    admin::overview::document::{Level, Phase, Status},
    simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Settings, Simulator},
    upstream::secret::Secret,
};
use http::Request;
use tokio::task;

use crate::support::{Gateway, World, configuration, path, secrets, soon, until};

async fn status(gateway: &Gateway) -> Status {
    let document = gateway.operate("/api/status").await.ok();
    assert_eq!(document.header("content-type"), "application/json");
    assert_eq!(document.header("cache-control"), "no-store");
    serde_json::from_slice(&document.body).unwrap()
}

/// Runs a command against a gateway: its exit code, and what it said on standard output and standard error.
async fn run(gateway: &Gateway, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_contacts-gateway"));
    command
        .args(arguments)
        .args(["--admin", &format!("http://{}", gateway.admin)])
        .stdin(Stdio::null());
    let running = task::spawn_blocking(move || command.output());
    let output = soon("a command", running).await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// Catches a figure that is not the one that Prometheus reads, and a collection that is counted by somebody else's requests.
#[tokio::test]
async fn the_status_says_what_happened() {
    let world = World::new().await;
    for query in ["", "", "", "?skip=10", "?all=true", "?skip=20", "?skip=x"] {
        world.get(query).await;
    }
    world.fault_stream("st-broken", "status=500");
    world.stream("st-broken", "").await;
    world.stream("st-broken", "?all=true").await;
    let told = status(&world.gateway).await;
    assert_eq!(told.phase, Phase::Serving);
    let totals = told.totals;
    assert_eq!((totals.requests, totals.refused, totals.failed), (9, 1, 2));
    assert_eq!((totals.asked, totals.hits), (8, 3));
    assert_eq!(totals.hit_ratio, Some(3.0 / 8.0));
    assert_eq!(totals.calls - totals.calls_ok, 4);
    assert_eq!((totals.pages, totals.lists), (2, 1));

    assert_eq!(told.collections.total, 2);
    let of = |stream: &str| {
        let mut shown = told.collections.shown.iter();
        shown.find(|shown| shown.stream == stream).unwrap()
    };
    let demo = of(DEMO_STREAM_ID);
    // What could not be read is nobody's.
    assert_eq!((demo.requests, demo.hit_ratio), (6, Some(0.5)));
    let list = demo.list.as_ref().unwrap();
    assert_eq!((&*list.verdict, list.records), ("verified", 1000));
    assert!(demo.fault.is_none() && demo.answered_ago_s.is_some());
    let broken = of("st-broken");
    assert_eq!(broken.fault.as_ref().unwrap().code, "upstream_5xx");
    assert_eq!((broken.requests, broken.hit_ratio), (2, Some(0.0)));

    // The page's failure and the list's, which is the same one, are one entry.
    let [fault] = &told.faults[..] else {
        panic!("{:?}", told.faults);
    };
    assert_eq!(
        (&*fault.stream, &*fault.code),
        ("st-broken", "upstream_5xx")
    );
    assert!(fault.advice.is_some());
    let [account] = &told.accounts.shown[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        (&*account.state, account.level),
        ("failing", Level::Warning)
    );
    let taken = world
        .gateway
        .metric("budget_taken_calls{account=\"account-0\"}")
        .await;
    assert_eq!(f64::from(account.budget.taken), taken);
    assert!(account.token.expires_s.unwrap() > 500);
    // It is the operators', but contacts are nobody's but the callers'.
    let text = world.gateway.operate("/api/status").await.ok();
    for canary in [
        "firstName",
        "cellPhone",
        &world
            .kore
            .token(DEMO_ACCOUNT_ID, std::time::Duration::from_secs(9))[..20],
    ] {
        assert!(!text.text().contains(canary), "{canary}");
    }
}

/// A newcomer's question: which account is refused, and why?
#[tokio::test]
async fn a_refused_account_is_named_with_the_reason() {
    let accounts: Vec<_> = (0..2)
        .map(|number| AccountSettings::numbered(number).stream(DEMO_STREAM_ID, 50))
        .collect();
    let settings = Settings {
        accounts: accounts.clone(),
        ..Settings::default()
    };
    let kore = Simulator::start(settings).await.unwrap();
    let mut known = secrets(&accounts);
    known[1] = Some(Secret::new("not-the-secret"));
    let gateway = Gateway::start(&configuration(&kore.base_url(), &accounts), known).await;
    for account in &accounts {
        let target = path(DEMO_STREAM_ID, "");
        gateway.get_as(&account.account_id, &target).await;
    }
    let told = status(&gateway).await;
    let expected = "Serving. 1 account is refused: account-1 - Kore.ai refuses its credential.";
    assert_eq!(told.summary.text, expected);
    assert_eq!(told.summary.level, Level::Bad);
    let shown = &told.accounts.shown;
    // The worst news first.
    assert_eq!(
        (&*shown[0].name, &*shown[0].state),
        ("account-1", "refused")
    );
    assert_eq!((&*shown[1].name, &*shown[1].state), ("account-0", "well"));
    assert!(
        shown[0]
            .advice
            .as_ref()
            .unwrap()
            .starts_with("Compare, in this order: the client secret")
    );

    let (code, table, _) = run(&gateway, &["status"]).await;
    assert_eq!(code, 0);
    assert!(table.contains(expected), "{table}");
    assert!(
        !table.contains('\u{1b}'),
        "colours without a terminal: {table:?}"
    );
    let (code, json, _) = run(&gateway, &["status", "--json"]).await;
    let document: Status = serde_json::from_str(&json).unwrap();
    assert_eq!((code, document.summary.text.as_str()), (0, expected));
    let verbose = gateway.operate("/readyz?verbose").await.ok();
    assert_eq!(
        verbose.text(),
        "ready\nupstream: closed\naccount account-1: refused\naccount account-0: well\nreload: none since the start\n"
    );
}

/// Catches a walk that is not shown, or still is when it has ended.
#[tokio::test]
async fn a_walk_is_seen_while_it_runs() {
    let world = World::new().await;
    world.kore.fault_always(crate::support::fault("delay=60s"));
    let request = world.gateway.request(&path(DEMO_STREAM_ID, "?all=true"));
    let request = request.header("accountId", DEMO_ACCOUNT_ID);
    let asking = soon("no answer", world.gateway.ask(request));
    let looking = async {
        until("the walk is shown", async || {
            let walks = status(&world.gateway).await.walks;
            walks
                .shown
                .iter()
                .any(|walk| walk.stream == DEMO_STREAM_ID && walk.pages_done == 0)
        })
        .await;
    };
    tokio::select! {
        answer = asking => panic!("{answer:?}"),
        () = looking => {}
    }
}

/// Catches a page that a browser would not run, would let others frame, or would load again each time.
#[tokio::test]
async fn the_page_is_served_with_a_strict_policy_and_once() {
    let world = World::new().await;
    let html = world.gateway.operate("/").await.ok();
    assert_eq!(html.header("content-type"), "text/html; charset=utf-8");
    for target in ["/", "/page/ops.js", "/page/ops.css", "/page/uplot.js"] {
        let file = world.gateway.operate(target).await.ok();
        let policy = file.header("content-security-policy");
        assert_eq!(
            policy,
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        assert_eq!(file.header("referrer-policy"), "no-referrer");
        assert_eq!(file.header("content-length"), file.body.len().to_string());
        let url = format!("http://{}{target}", world.gateway.admin);
        let again = Request::get(url).header("if-none-match", file.header("etag"));
        let again = world.gateway.ask(again).await;
        assert_eq!((again.status, again.body.len()), (304, 0), "{target}");
    }
    let posted = Request::post(format!("http://{}/", world.gateway.admin));
    world
        .gateway
        .ask(posted)
        .await
        .is_problem(405, "method_not_allowed");
}

/// Catches a probe that is well while nobody is served, and a drain that a link or another page's script can start.
#[tokio::test]
async fn an_operator_drains_it_and_the_probe_says_so() {
    let world = World::new().await;
    let gateway = &world.gateway;
    let (code, said, _) = run(gateway, &["health"]).await;
    assert_eq!((code, said.as_str()), (0, "ready\n"));
    let target = format!("http://{}/api/drain", gateway.admin);
    let link = gateway.ask(Request::get(&target)).await;
    link.is_problem(405, "method_not_allowed");
    assert_eq!(link.header("allow"), "POST");
    let foreign = Request::post(&target).header("origin", "http://evil.example");
    gateway.ask(foreign).await.is_problem(403, "forbidden");
    assert_eq!(status(gateway).await.phase, Phase::Serving);

    let own = Request::post(&target).header("origin", format!("http://{}", gateway.admin));
    gateway.ask(own).await.ok();
    let World { gateway, .. } = world;
    let admin = format!("http://{}", gateway.admin);
    gateway.ended().await;
    let gone = task::spawn_blocking(move || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_contacts-gateway"));
        command
            .args(["health", "--live", "--admin", &admin])
            .output()
    });
    let output = soon("the probe", gone).await.unwrap().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("contacts-gateway: no gateway answers at http://127.0.0.1:"),
        "{said}"
    );
}
