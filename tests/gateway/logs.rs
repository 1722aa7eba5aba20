//! What is written about requests: enough to follow one, and no secret and no contact however much it is.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader, pipe},
    process::{Command, Stdio},
};

use bytes::Bytes;
use contacts_gateway::simulator::{AccountSettings, DEMO_STREAM_ID, Settings, Simulator};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::{
    listener::get,
    program::{Program, addresses, configured, paste},
    support::{Raw, World, fault, path, soon, until},
};

const SECRET: &str = "CANARYSECRETaWVnaHRzZWNyZXRzZWNyZXRzZWNyZXQ=";

/// With a word of upstream's wherever one can stand.
const FAULTS: [&str; 11] = [
    "status=500;body=CANARYBODY",
    "status=401;body=CANARYBODY",
    "status=403;header=x-canary: CANARYHEADER;body=CANARYBODY",
    "redirect=http://127.0.0.1:9/CANARYPLACE",
    "content-type=text/CANARYTYPE",
    "encoding=CANARYCODING",
    "trailing-bytes=CANARYTAIL",
    "truncate",
    "truncate-chunked",
    "bad-utf8",
    "nesting=70",
];

/// Catches a `Debug` of a secret or a page, a parser's complaint that quotes, and a library that logs what it sends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_and_no_contact_is_logged_at_any_level() {
    let contact = |id: &str| {
        format!(r#"{{"firstName":"CANARYNAME","phone":"+1CANARYPHONE","id":"CANARYID{id}"}}"#)
    };
    let two = format!("{},{}", contact("1"), contact("2"));
    let good = format!(
        r#"{{"results":[{two}],"skip":0,"limit":10,"hasMore":false,"totalPages":1,"totalResults":2}}"#
    );
    let wrong = [
        good.replace("\"limit\":10", "\"limit\":\"CANARYLIMIT\""),
        good.replace("\"id\":\"CANARYID2\"", "\"id\":CANARYID2"),
        good.replace("\"id\":\"CANARYID2\"", "\"_id\":\"CANARYID2\""),
        good.replace("\"skip\":0", "\"skip\":0,\"CANARYKEY\":1,\"CANARYKEY\":2"),
        good.replace("CANARYID2", "CANARYID1"),
        format!("{good}CANARYTAIL"),
        format!("[{two}]"),
        "\"CANARYTEXT\"".to_owned(),
    ];
    let mut account = AccountSettings::new("acme-1", "cs-app", SECRET)
        .fixed("st-good", vec![Bytes::from(good.clone())]);
    for number in 0..FAULTS.len() {
        account = account.fixed(
            &format!("st-fault-{number}"),
            vec![Bytes::from(good.clone())],
        );
    }
    for (number, body) in wrong.iter().enumerate() {
        account = account.fixed(&format!("st-{number}"), vec![Bytes::from(body.clone())]);
    }
    let kore = Simulator::start(Settings {
        accounts: vec![account.clone()],
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = "[log]\nlevel = \"debug\"\nformat = \"json\"";
    let file = configured(folder.path(), &kore.base_url(), &account, log);
    let variables = [("RUST_LOG", "trace"), ("RUST_BACKTRACE", "1")];
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &variables);
    let (traffic, admin) = addresses(&serve.says("callers on "));

    let client: Client<HttpConnector, Empty<Bytes>> =
        Client::builder(TokioExecutor::new()).build_http();
    let ask = async |url: String| {
        let request = Request::get(url)
            .header("accountId", "acme-1")
            .header("auth", "CANARYCALLER")
            .header("authorization", "Bearer CANARYCALLER")
            .header("cookie", "CANARYCALLER")
            .body(Empty::new())
            .unwrap();
        let response = soon("an answer", client.request(request)).await.unwrap();
        let (head, body) = response.into_parts();
        (
            head.status.as_u16(),
            body.collect().await.unwrap().to_bytes(),
        )
    };
    // However the level came to be.
    paste(
        folder.path(),
        &format!("curl -sf -X POST '{admin}/api/log?level=trace'"),
    );
    let contacts = |stream: &str, query: &str| format!("{traffic}{}", path(stream, query));
    // A miss, a hit, the list, a slice.
    for query in ["", "", "?all=true", "?skip=1&limit=1"] {
        let (status, body) = ask(contacts("st-good", query)).await;
        assert!(status == 200 && body.windows(10).any(|part| part == b"CANARYNAME"));
    }
    for number in 0..wrong.len() {
        for query in ["", "?all=true"] {
            ask(contacts(&format!("st-{number}"), query)).await;
        }
    }
    for (number, text) in FAULTS.into_iter().enumerate() {
        for query in ["", "?all=true"] {
            kore.fault_always(fault(text));
            let (status, _) = ask(contacts(&format!("st-fault-{number}"), query)).await;
            assert!(status >= 500, "{text}");
            kore.clear_faults();
        }
    }
    // What makes no sense may be anything, a person's name included.
    for target in [
        contacts("st-good", "?name=CANARYPERSON"),
        contacts("st-good", "?skip=CANARYPERSON"),
        contacts("st-good", "?skip=0&limit=10&CANARYPERSON"),
        contacts("CANARYPERSON%20x", ""),
        format!("{traffic}/CANARYPERSON"),
        format!("{admin}/CANARYPERSON"),
    ] {
        assert!(ask(target).await.0 >= 400);
    }
    let (_, metrics) = ask(format!("{admin}/metrics")).await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let tokens: Vec<_> = kore
        .requests()
        .iter()
        .map(|seen| seen.header("auth").to_owned())
        .collect();
    assert!(!tokens.is_empty());
    serve.signal("TERM");
    let (status, said, errors) = serve.ends();
    assert_eq!(status.code(), Some(0), "{errors}");

    let (mut access, mut failures) = (0, 0);
    for line in errors.lines() {
        let event: Value =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        access += usize::from(event["target"] == "access");
        failures += usize::from(event["level"] == "WARN");
    }
    assert!(
        access > 30 && failures > 20,
        "it tells of everything: {access} requests, {failures} failures"
    );
    for (place, text) in [
        ("stdout", &said),
        ("stderr", &errors),
        ("metrics", &metrics),
    ] {
        for (number, line) in text.lines().enumerate() {
            assert!(!line.contains("CANARY"), "{place}:{number}: {line}");
            for token in &tokens {
                // Its signature alone would do harm as well.
                for part in token.split('.').skip(1) {
                    assert!(!line.contains(part), "{place}:{number}: a token");
                }
            }
        }
    }
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Asks for a page within a trace: what upstream was told of it, for each call.
async fn traced(world: &World, query: &str, headers: &[(&str, &str)]) -> Vec<String> {
    let before = world.kore.requests().len();
    let request = world.gateway.request(&path(DEMO_STREAM_ID, query));
    let request = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    world.gateway.ask(request).await;
    let seen = world.kore.requests();
    let seen = seen[before..].iter();
    seen.inspect(|seen| assert_eq!(seen.header("tracestate"), ""))
        .map(|seen| seen.header("traceparent").to_owned())
        .collect()
}

/// Catches a trace that ends at the gateway, two attempts that cannot be told apart, and a header that is passed on as it
/// came.
#[tokio::test]
async fn a_trace_goes_on_to_upstream_with_a_parent_for_each_attempt() {
    let world = World::new().await;
    let told = format!("00-{TRACE}-{PARENT}-01");
    let within = [("traceparent", &*told), ("tracestate", "vendor=canary")];
    let mut all = traced(&world, "?skip=0", &within).await;
    assert_eq!(all.len(), 1);
    // The second attempt of one flight, and the pages of a walk.
    world.kore.fault_next(1, fault("status=500"));
    let again = traced(&world, "?skip=10", &within).await;
    assert_eq!(again.len(), 2);
    all.extend(again);
    let walk = traced(&world, "?all=true", &within).await;
    assert!(walk.len() > 10);
    all.extend(walk);
    let mut parents = HashSet::from([PARENT]);
    for header in &all {
        let parts: Vec<_> = header.split('-').collect();
        let [version, trace, parent, flags] = parts[..] else {
            panic!("{header}")
        };
        assert_eq!((version, trace, flags), ("00", TRACE, "01"));
        assert!(parents.insert(parent), "{parent} is there twice");
    }
    // What is none begins none.
    let other = World::new().await;
    for headers in [
        &[][..],
        &[("traceparent", "00-canary-00f067aa0ba902b7-01")],
        &[("traceparent", &*told), ("traceparent", &*told)],
        &[("tracestate", "vendor=canary")],
    ] {
        other.kore.fault_next(1, fault("status=500"));
        let query = format!("?skip={}", other.kore.requests().len());
        assert_eq!(traced(&other, &query, headers).await, ["", ""]);
    }
}

/// Catches a line that does not say to which trace it belongs, a failure that is told twice or sampled away, and an access
/// line that is written although nobody asked for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn lines_name_the_trace_and_failures_are_never_left_out() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (demo, log) = (
        AccountSettings::demo(),
        "[log]\nformat = \"json\"\naccess_share = 0.0",
    );
    let file = configured(folder, &kore.base_url(), &demo, log);
    let mut serve = Program::start(folder, &["serve", "--config", &file], &[]);
    let (traffic, _) = addresses(&serve.says("callers on "));
    kore.fault_next(1, fault("content-type=text/html"));
    for (query, status) in [("?skip=0", 502), ("?skip=10", 200), ("?skip=x", 400)] {
        let url = format!("{traffic}{}", path(DEMO_STREAM_ID, query));
        let header = format!("traceparent: 00-{TRACE}-{PARENT}-00");
        let line = format!("curl -sS -o /dev/null -w '%{{http_code}}' -H '{header}' '{url}'");
        assert_eq!(paste(folder, &line), status.to_string());
    }
    serve.signal("TERM");
    let (_, _, errors) = serve.ends();
    let events: Vec<Value> = errors
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let of = |name: &str| -> Vec<_> {
        let events = events.iter();
        events.filter(|event| event["target"] == name).collect()
    };
    let access = of("access");
    assert_eq!(access.len(), 1, "{access:?}");
    assert_eq!(access[0]["status"], 502);
    assert_eq!(access[0]["trace"], TRACE);
    let failures: Vec<_> = events
        .iter()
        .filter(|event| event["code"] == "upstream_wrong_type")
        .collect();
    assert_eq!(failures.len(), 1, "{failures:?}");
    assert_eq!(failures[0]["span"]["trace"], TRACE);
    assert_eq!(failures[0]["span"]["request"], access[0]["request"]);
}

/// Catches JSON that a person has to read, colours in a file, and colours for somebody who would rather have none.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn people_get_lines_and_programs_get_json() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = configured(folder, &kore.base_url(), &AccountSettings::demo(), "");
    let gateway = env!("CARGO_BIN_EXE_contacts-gateway");
    // The first event, on a terminal of its own or into a pipe.
    let told = |no_colour: &str, format: &str, terminal: bool| {
        let serve = format!("exec timeout 60 '{gateway}' serve --config '{file}'");
        let mut command = match terminal {
            true => Command::new("script"),
            false => Command::new("bash"),
        };
        match terminal {
            true => command.args(["-qec", &serve, "/dev/null"]),
            false => command.args(["-c", &format!("{serve} 2>&1")]),
        };
        let child = command
            .env("NO_COLOR", no_colour)
            .env("CONTACTS_GATEWAY__LOG__FORMAT", format)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let mut child = child.expect("script is needed (Debian's package bsdutils)");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let event = lines.find_map(|line| line.ok().filter(|line| line.contains("serving")));
        // `timeout` ends what it runs, and closing the terminal ends both.
        paste(folder, &format!("kill {}", child.id()));
        child.wait().unwrap();
        event.unwrap().trim_end().to_owned()
    };
    for (no_colour, format, terminal, json, coloured) in [
        ("", "auto", true, false, true),
        ("1", "auto", true, false, false),
        ("", "json", true, true, false),
        ("", "auto", false, true, false),
        ("", "human", false, false, false),
    ] {
        let line = told(no_colour, format, terminal);
        let told = serde_json::from_str::<Value>(&line).is_ok();
        assert_eq!((told, line.contains('\u{1b}')), (json, coloured), "{line}");
    }
}

/// O8. Catches a request that waits until its line is written, a process that ends with its log, and lines that are lost
/// without a word.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn requests_are_served_whatever_becomes_of_their_lines() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = "[log]\nformat = \"json\"";
    let file = configured(
        folder.path(),
        &kore.base_url(),
        &AccountSettings::demo(),
        log,
    );
    // Where nothing is taken: more than wait to be written, the pipe's own included.
    for (what, requests, least) in [
        ("blocked", 5_500, 1),
        ("closed", 200, 200),
        ("full", 200, 200),
    ] {
        let (unread, written) = pipe().unwrap();
        let (unread, output) = match what {
            "blocked" => (Some(unread), Stdio::from(written)),
            // Its reader is gone: each line is an error.
            "closed" => (None, Stdio::from(written)),
            _ => (
                None,
                File::options()
                    .write(true)
                    .open("/dev/full")
                    .unwrap()
                    .into(),
            ),
        };
        let mut serve = Program::writing(folder.path(), &["serve", "--config", &file], output);
        let (traffic, admin) = addresses(&serve.says("callers on "));
        let socket = |url: &str| url.strip_prefix("http://").unwrap().parse().unwrap();
        let mut caller = Raw::to(socket(&traffic)).await;
        let hundred = get("/").repeat(100);
        for _ in 0..requests / 100 {
            caller.write(&hundred).await;
            for _ in 0..100 {
                assert_eq!(caller.answer().await.status, 404, "{what}");
            }
        }
        let mut operator = Raw::to(socket(&admin)).await;
        until("what is lost is counted", async || {
            operator.write(get("/metrics")).await;
            let metrics = operator.answer().await.ok();
            let mut lines = metrics.text().lines();
            let lost =
                lines.find_map(|line| line.strip_prefix("contacts_gateway_log_lines_lost_total "));
            lost.unwrap().parse::<usize>().unwrap() >= least
        })
        .await;
        serve.signal("TERM");
        let (status, _, _) = serve.ends();
        assert_eq!(status.code(), Some(0), "{what}");
        drop(unread);
    }
}
