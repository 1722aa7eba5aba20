//! Whatever upstream answers to a page: the right status and code, a count, nothing kept, and nothing of it passed on.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use contacts_gateway::simulator::{
    AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Settings, Simulator,
};
use futures_util::future::join_all;
use tokio::{io::AsyncWriteExt, net::TcpListener, sync::Notify};

use crate::support::{Answer, Gateway, Raw, Rogue, World, page, path, soon, until};

/// The longest that a key rests from its first failure, refusals and unknown streams aside.
const REST: Duration = Duration::from_secs(1);

/// Breaks upstream, asks, asks again while the key rests, heals it, asks another window, and the same one after its rest.
/// These two must be right, and fetched: nothing wrong was kept.
async fn broken(world: &World, query: &str, fault: &str) -> Broken {
    let code = |answer: &Answer| answer.json()["code"].as_str().unwrap_or("ok").to_owned();
    world.fault_stream(STREAM, fault);
    let (before, good) = (world.calls(), world.gateway.attempts("ok").await);
    let answer = world.stream(STREAM, query).await;
    let calls = (world.calls() - before) as f64;
    assert!(calls >= 1.0, "{fault}");
    let remembered = world.stream(STREAM, query).await;
    assert_eq!(code(&remembered), code(&answer), "{fault}");
    assert_eq!((world.calls() - before) as f64, calls, "{fault}: it rests");
    let counted = world.gateway.attempts(&code(&answer)).await;
    assert_eq!(world.gateway.attempts("ok").await, good, "{fault}");
    world.kore.clear_faults();
    if answer.status == 503 {
        // The account pauses; whoever waits for that does it by the clock of a test of its own.
        return Broken {
            answer,
            calls,
            counted,
        };
    }
    if answer.status == 502 && code(&answer) == "upstream_auth_rejected" {
        // Not this page alone rests, but its stream.
        tokio::time::sleep(REST).await;
    }
    fetched(world, "?skip=30&limit=7", fault).await;
    if answer.status != 404 {
        tokio::time::sleep(REST).await;
        fetched(world, query, fault).await;
    }
    Broken {
        answer,
        calls,
        counted,
    }
}

/// The stream of a world that is broken.
const STREAM: &str = "st-broken";

/// Asserts that a page is right and comes from upstream.
async fn fetched(world: &World, query: &str, fault: &str) {
    let healed = world.stream(STREAM, query).await.ok();
    assert!(healed.is_miss(), "{fault}: {:?}", healed.headers);
    let direct = world.direct(DEMO_ACCOUNT_ID, STREAM, query).await;
    assert_eq!(healed.body, direct.body, "{fault}");
}

/// A broken answer.
struct Broken {
    answer: Answer,
    /// What it cost.
    calls: f64,
    /// The attempts so far that came to its code.
    counted: f64,
}

/// Each fault on a page from `skip=20`, in a world of its own, all at once: a rest is waited for once.
async fn each(rows: &[(&str, u16, &str)]) -> Vec<World> {
    let each = rows.iter().map(async |(fault, status, code)| {
        let world = World::new().await;
        let Broken {
            answer,
            calls,
            counted,
        } = broken(&world, "?skip=20&limit=10", fault).await;
        assert_eq!(answer.json()["code"], *code, "{fault}: {}", answer.text());
        answer.is_problem(*status, code);
        assert_eq!(
            answer.header("cache-status"),
            "contacts-gateway; fwd=uri-miss",
            "{fault}"
        );
        assert_eq!(counted, calls, "{fault}: every attempt is counted");
        // Another moment may cure what says that the host is in trouble, so that is tried once more.
        let tries = if *code == "upstream_5xx" { 2.0 } else { 1.0 };
        assert_eq!(calls, tries, "{fault}");
        no_trace(&answer, fault);
        world
    });
    join_all(each).await
}

/// Nothing that upstream sent is in a problem: no word of its errors, and no part of a contact.
fn no_trace(answer: &Answer, fault: &str) {
    let everything = format!("{:?} {}", answer.headers, answer.text());
    for text in [
        "canary",
        "CANARY",
        "firstName",
        "phoneNumber",
        "results",
        "Maintenance",
        "<html",
        "65f7d49a",
        "credentials\"",
        "encryptedKey",
    ] {
        assert!(
            !everything.contains(text),
            "{fault}: {text} in {everything}"
        );
    }
}

/// U7. Catches half a page that is kept or passed on.
#[tokio::test]
async fn a_body_that_ends_early_is_refused_and_not_kept() {
    each(&[
        ("truncate", 502, "upstream_truncated"),
        ("truncate=1", 502, "upstream_truncated"),
        ("truncate=999999", 502, "upstream_truncated"),
        ("truncate-chunked", 502, "upstream_truncated"),
        ("truncate-chunked=100", 502, "upstream_truncated"),
        ("truncate-chunked=999999", 502, "upstream_truncated"),
    ])
    .await;
}

/// U8. Catches a body that is passed on because nobody reads it, or that two readers would understand differently.
#[tokio::test]
async fn a_body_that_is_not_sound_json_is_refused_and_not_kept() {
    let world = World::new().await;
    each(&[
        ("invalid-json", 502, "upstream_invalid_body"),
        ("bad-utf8", 502, "upstream_invalid_body"),
        ("nesting=65", 502, "upstream_invalid_body"),
        ("nesting=100000", 502, "upstream_invalid_body"),
        ("repeated-key=results", 502, "upstream_invalid_body"),
        ("repeated-key=skip", 502, "upstream_invalid_body"),
        ("repeated-key=limit", 502, "upstream_invalid_body"),
        ("repeated-key=hasMore", 502, "upstream_invalid_body"),
        ("repeated-key=totalPages", 502, "upstream_invalid_body"),
        ("repeated-key=totalResults", 502, "upstream_invalid_body"),
        ("trailing-bytes={}", 502, "upstream_invalid_body"),
        ("trailing-bytes=canary", 502, "upstream_invalid_body"),
        ("empty-body", 502, "upstream_invalid_body"),
    ])
    .await;
    // As deep as is allowed, and white space at the end, are sound.
    world.fault_stream("st-deep", "nesting=64");
    world.stream("st-deep", "").await.ok();
    world.fault_stream("st-space", "trailing-bytes= \n\t ");
    world.stream("st-space", "").await.ok();
}

/// U9. Catches a web page that is answered as contacts.
#[tokio::test]
async fn a_body_that_does_not_claim_to_be_json_is_refused_and_not_kept() {
    let world = World::new().await;
    each(&[
        ("html", 502, "upstream_wrong_type"),
        ("content-type=text/html", 502, "upstream_wrong_type"),
        ("content-type=none", 502, "upstream_wrong_type"),
        (
            "content-type=text/plain; x=canary",
            502,
            "upstream_wrong_type",
        ),
        ("content-type=application/jsonp", 502, "upstream_wrong_type"),
        (
            "content-type=application/x-ndjson",
            502,
            "upstream_wrong_type",
        ),
        (
            "status=200;header=content-type: application/json;header=content-type: text/html",
            502,
            "upstream_wrong_type",
        ),
    ])
    .await;
    world.fault_stream("st-type", "content-type=Application/JSON ; charset=UTF-8");
    let answer = world.stream("st-type", "").await.ok();
    assert_eq!(answer.header("content-type"), "application/json");
}

/// U10. Catches JSON that is no page but is answered as one.
#[tokio::test]
async fn json_that_is_no_page_of_contacts_is_refused_and_not_kept() {
    let error = r#"status=200;body={"errors":[{"msg":"canary","code":500}]}"#;
    each(&[
        ("no-results", 502, "upstream_schema"),
        ("results-object", 502, "upstream_schema"),
        ("no-ids", 502, "upstream_schema"),
        ("encrypted", 502, "upstream_schema"),
        ("null", 502, "upstream_schema"),
        ("array", 502, "upstream_schema"),
        ("status=200;body=true", 502, "upstream_schema"),
        ("status=200;body={}", 502, "upstream_schema"),
        (r#"status=200;body="canary""#, 502, "upstream_schema"),
        (
            r#"status=200;body={"results":[{"id":7}],"skip":20,"limit":10}"#,
            502,
            "upstream_schema",
        ),
        (
            r#"status=200;body={"results":[["id"]],"skip":20,"limit":10}"#,
            502,
            "upstream_schema",
        ),
        (
            r#"status=200;body={"results":[],"skip":"20","limit":10}"#,
            502,
            "upstream_schema",
        ),
        (
            r#"status=200;body={"results":[],"skip":20,"limit":10.5}"#,
            502,
            "upstream_schema",
        ),
        (error, 502, "upstream_schema"),
    ])
    .await;
    let world = World::new().await;
    world.kore.fault_always(crate::support::fault("encrypted"));
    let answer = world.get("").await;
    answer.is_problem(502, "upstream_schema");
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("payload encryption"), "{detail}");
}

/// U11. Catches a body that is read without a bound, or to a bound that only its announced length has.
#[tokio::test]
async fn a_body_over_the_cap_is_refused_and_not_kept() {
    each(&[
        ("oversize=9MiB", 502, "upstream_too_large"),
        ("oversize=8388609B", 502, "upstream_too_large"),
        ("oversize-chunked=9MiB", 502, "upstream_too_large"),
        ("oversize-chunked=8388609B", 502, "upstream_too_large"),
        // Would never end if it were read to its end.
        ("oversize=16GiB", 502, "upstream_too_large"),
        ("oversize-chunked=16GiB", 502, "upstream_too_large"),
    ])
    .await;
    let world = World::with(
        |_| (),
        |config| config.upstream.page_bytes_max = "64KiB".parse().unwrap(),
    )
    .await;
    for framing in ["oversize", "oversize-chunked"] {
        let (most, more) = (format!("st-most-{framing}"), format!("st-more-{framing}"));
        world.fault_stream(&most, &format!("{framing}=65536B"));
        assert_eq!(world.stream(&most, "").await.ok().body.len(), 65_536);
        world.fault_stream(&more, &format!("{framing}=65537B"));
        let refused = world.stream(&more, "").await;
        refused.is_problem(502, "upstream_too_large");
    }
}

/// U13. Catches a client that follows: the account's token would go wherever upstream's answer points.
#[tokio::test]
async fn a_redirect_is_never_followed() {
    let elsewhere = Simulator::start(Settings {
        accounts: vec![AccountSettings::demo().others(1_000)],
        ..Settings::default()
    })
    .await
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trap = listener.local_addr().unwrap();
    let other = format!("{}{}", elsewhere.base_url(), path(DEMO_STREAM_ID, ""));
    let mut rows = Vec::new();
    for status in [300, 301, 302, 303, 305, 307, 308] {
        rows.push(format!("redirect={other};status={status}"));
        rows.push(format!("redirect=http://{trap}/canary;status={status}"));
        rows.push(format!("redirect=/canary;status={status}"));
    }
    let rows: Vec<_> = rows
        .iter()
        .map(|fault| (fault.as_str(), 502, "upstream_redirect"))
        .collect();
    let worlds = each(&rows).await;

    assert!(elsewhere.requests().is_empty());
    for world in worlds {
        let followed = world.kore.requests();
        assert!(
            !followed.is_empty() && followed.len() < 256,
            "it is all of them"
        );
        assert!(followed.iter().all(|seen| seen.path != "/canary"));
    }
    let knocked = std::pin::pin!(listener.accept());
    assert!(
        futures_util::poll!(knocked).is_pending(),
        "the trap was visited"
    );
}

/// U16. Catches a page that is not the one asked for, kept under the key of the one that is.
#[tokio::test]
async fn a_page_that_echoes_another_window_is_refused_and_not_kept() {
    each(&[
        ("echo-skip=+1", 502, "upstream_schema"),
        ("echo-skip=-1", 502, "upstream_schema"),
        ("echo-skip=0", 502, "upstream_schema"),
        ("echo-skip=18446744073709551615", 502, "upstream_schema"),
        ("echo-limit=+1", 502, "upstream_schema"),
        ("echo-limit=0", 502, "upstream_schema"),
        ("echo-limit=4294967306", 502, "upstream_schema"),
        // A smaller echo is a clamp, but then there are more records than it allows.
        ("echo-limit=-1", 502, "upstream_schema"),
        ("extra-records=1", 502, "upstream_schema"),
        ("extra-records=80", 502, "upstream_schema"),
    ])
    .await;
}

/// Catches a status that is passed on, answered as another's doing, or told the wrong patience.
#[tokio::test]
async fn every_status_but_200_has_its_own_answer() {
    let world = World::new().await;
    let body = r#";body={"errors":[{"msg":"canary"}]}"#;
    let with_text = |status: u16| format!("status={status};header=x-canary: canary{body}");
    let expected = [
        (500, 502, "upstream_5xx"),
        (502, 502, "upstream_5xx"),
        (503, 502, "upstream_5xx"),
        (504, 502, "upstream_5xx"),
        (599, 502, "upstream_5xx"),
        (400, 502, "upstream_4xx"),
        (403, 502, "upstream_4xx"),
        (405, 502, "upstream_4xx"),
        (413, 502, "upstream_4xx"),
        (404, 404, "stream_not_found"),
        (201, 502, "upstream_protocol"),
        (203, 502, "upstream_protocol"),
        (206, 502, "upstream_protocol"),
    ];
    let rows: Vec<_> = expected
        .iter()
        .map(|(sent, status, code)| (with_text(*sent), *status, *code))
        .chain([
            ("status=204".to_owned(), 502, "upstream_protocol"),
            ("status=304".to_owned(), 502, "upstream_protocol"),
            ("encoding=gzip".to_owned(), 502, "upstream_encoding"),
            ("encoding=br".to_owned(), 502, "upstream_encoding"),
            ("encoding=canary".to_owned(), 502, "upstream_encoding"),
            (
                "encoding=identity, gzip".to_owned(),
                502,
                "upstream_encoding",
            ),
        ])
        .collect();
    let rows: Vec<_> = rows
        .iter()
        .map(|(fault, status, code)| (fault.as_str(), *status, *code))
        .collect();
    each(&rows).await;
    world.fault_stream("st-identity", "encoding=Identity");
    world.stream("st-identity", "").await.ok();
}

/// Catches a refusal whose `Retry-After` is missing, is upstream's nonsense, or is beyond a minute.
#[tokio::test]
async fn a_rate_limit_tells_the_caller_when_to_come_back() {
    let each = [
        ("", "60"),
        (";header=retry-after: 7", "7"),
        (";header=retry-after: 1", "1"),
        (";header=retry-after: 0", "1"),
        (";header=retry-after: 3600", "60"),
        (";header=retry-after: -5", "60"),
        (";header=retry-after: canary", "60"),
        (";header=retry-after: Fri, 31 Dec 1999 23:59:59 GMT", "60"),
    ]
    .map(async |(header, told)| {
        let world = World::new().await;
        let fault = format!("status=429{header};body=canary");
        let Broken {
            answer,
            calls,
            counted,
        } = broken(&world, "", &fault).await;
        answer.is_problem(503, "upstream_rate_limited");
        assert_eq!(answer.header("retry-after"), told, "{fault}");
        assert_eq!((calls, counted), (1.0, 1.0));
        no_trace(&answer, &fault);
        // The whole account pauses, and whoever can wait for the end of that does.
        if told == "1" {
            fetched(&world, "?skip=10", &fault).await;
            fetched(&world, "", &fault).await;
        } else if told == "60" {
            let other = world.stream("st-other", "").await;
            other.is_problem(503, "budget_exhausted");
            let wait: u64 = other.header("retry-after").parse().unwrap();
            assert!((50..=60).contains(&wait), "{fault}: {wait}");
            assert_eq!(world.calls(), 1);
        }
    });
    join_all(each).await;
}

/// Catches a 401 that reaches the caller, as if its own key were wrong, and a refused token that is used again.
#[tokio::test]
async fn a_refused_credential_is_the_gateways_own_trouble() {
    let world = World::new().await;
    let minted = "tokens_minted_total{account=\"account-0\"}";
    world.get("").await.ok();
    assert_eq!(world.gateway.metric(minted).await, 1.0);
    let refusal = r#"status=401;header=www-authenticate: canary;body={"errors":[{"msg":"Invalid SDK credentials","code":4002}]}"#;
    let Broken {
        answer,
        calls,
        counted,
    } = broken(&world, "", refusal).await;
    answer.is_problem(502, "upstream_auth_rejected");
    assert_eq!((calls, counted), (2.0, 2.0), "once more, with a new token");
    assert!(!answer.headers.contains_key("www-authenticate"));
    no_trace(&answer, refusal);
    // The second try needed a token of its own, which is as good as any once upstream takes it.
    assert_eq!(world.gateway.metric(minted).await, 2.0);
}

/// Catches text of upstream's or a contact in a problem, in whatever way its page is wrong.
#[tokio::test]
async fn no_contact_is_ever_quoted_in_a_problem() {
    let contact = r#"{"firstName":"CANARY","phone":"CANARY","id":"CANARY"}"#;
    let bodies = [
        format!(r#"{{"results":[{contact}],"skip":"CANARY","limit":10}}"#),
        format!(r#"{{"results":[{contact}],"skip":0,"limit":10,"hasMore":"CANARY"}}"#),
        format!(r#"{{"results":[{contact},{{"id":CANARY}}],"skip":0,"limit":10}}"#),
        format!(r#"{{"results":[{contact},"CANARY"],"skip":0,"limit":10}}"#),
        format!(r#"{{"results":[{contact},{{"name":"CANARY"}}],"skip":0,"limit":10}}"#),
        format!(r#"{{"results":[{contact}],"CANARY":1,"CANARY":2,"skip":0,"limit":10}}"#),
        format!(r#"{{"results":[{contact}],"skip":77,"limit":10}}"#),
        format!(r#"{{"results":[{contact}],"skip":0,"limit":10}}CANARY"#),
        format!(r#"{{"results":{contact},"skip":0,"limit":10}}"#),
        contact.to_owned(),
        "\"CANARY\"".to_owned(),
        "CANARY".to_owned(),
    ];
    let streams: Vec<_> = (0..bodies.len())
        .map(|number| format!("st-{number}"))
        .collect();
    let world = World::with(
        |settings| {
            let mut account = AccountSettings::demo();
            for (stream, body) in streams.iter().zip(&bodies) {
                account = account.fixed(stream, vec![Bytes::from(body.clone())]);
            }
            settings.accounts = vec![account];
        },
        |_| (),
    )
    .await;
    for (stream, body) in streams.iter().zip(&bodies) {
        for query in ["", "?all=true"] {
            let answer = world.stream(stream, query).await;
            assert_eq!(answer.status, 502, "{body}");
            let code = answer.json()["code"].as_str().unwrap().to_owned();
            answer.is_problem(502, &code);
            no_trace(&answer, body);
        }
    }
    let metrics = world.gateway.operate("/metrics").await;
    assert!(!metrics.text().contains("CANARY"));
}

/// U2. Catches an upstream that can hold a caller for as long as it likes.
#[tokio::test]
async fn an_upstream_that_does_not_begin_to_answer_times_out() {
    let world = World::with(
        |_| (),
        |config| config.upstream.first_byte_timeout = Duration::from_millis(100),
    )
    .await;
    let Broken {
        answer, counted, ..
    } = broken(&world, "", "delay=1h").await;
    answer.is_problem(504, "upstream_timeout");
    assert_eq!(counted, 1.0);
}

const HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{";

/// U3. Catches a body that stalls, and one that drips for ever below the limit between two pieces.
#[tokio::test]
async fn an_upstream_that_stalls_or_drips_inside_a_body_times_out() {
    let stalling = Rogue::start(|mut stream| async move {
        let _ = stream.write_all(HEAD.as_bytes()).await;
        std::future::pending::<()>().await;
    })
    .await;
    let gateway = Gateway::before(stalling.address, |config| {
        config.upstream.between_bytes_timeout = Duration::from_millis(100);
    })
    .await;
    let answer = gateway.get(&path(DEMO_STREAM_ID, "")).await;
    answer.is_problem(504, "upstream_timeout");
    assert_eq!(gateway.attempts("upstream_timeout").await, 1.0);

    let ended = Arc::new(Notify::new());
    let told = ended.clone();
    let dripping = Rogue::start(move |mut stream| {
        let told = told.clone();
        async move {
            let mut sent = stream.write_all(HEAD.as_bytes()).await;
            while sent.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                sent = stream.write_all(b" ").await;
            }
            told.notify_one();
        }
    })
    .await;
    let gateway = Gateway::before(dripping.address, |config| {
        config.upstream.page_timeout = Duration::from_millis(300);
    })
    .await;
    let answer = gateway.get(&path(DEMO_STREAM_ID, "")).await;
    answer.is_problem(504, "upstream_timeout");
    // Nothing can follow half an answer, so its connection is closed and never used again.
    soon("the connection is closed", ended.notified()).await;
}

/// A caller's patience ends before upstream's. Catches a fetch that is given up with its caller.
#[tokio::test]
async fn a_caller_whose_time_is_up_is_told_and_the_page_is_kept_all_the_same() {
    let world = World::with(
        |settings| settings.latency = Duration::from_millis(600),
        |config| config.edge.request_timeout = Duration::from_millis(100),
    )
    .await;
    let answer = world.get("").await;
    answer.is_problem(504, "upstream_timeout");
    let held = "cache_entries{cache=\"pages\"}";
    until("the page is kept", async || {
        world.gateway.metric(held).await == 1.0
    })
    .await;
    let next = world.get("").await.ok();
    assert!(next.is_hit());
    assert_eq!(
        next.text(),
        page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 0, 10)
    );
    assert_eq!(world.calls(), 1);
}

/// U1. Catches a panic, a hang or a wrong blame when there is nobody to ask.
#[tokio::test]
async fn an_upstream_that_is_not_there_is_told_from_one_that_fails() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let gateway = Gateway::before(nobody, |_| ()).await;
    for query in ["", "?all=true"] {
        let answer = gateway.get(&path(DEMO_STREAM_ID, query)).await;
        answer.is_problem(502, "upstream_unreachable");
    }
    // Each is tried once more; the fifth failure in a row opens the breaker, after which nobody is asked.
    assert_eq!(gateway.attempts("upstream_unreachable").await, 4.0);
    let answer = gateway.get(&path("st-third", "")).await;
    answer.is_problem(502, "upstream_unreachable");
    let answer = gateway.get(&path("st-fourth", "")).await;
    answer.is_problem(503, "upstream_unavailable");
    assert_eq!(gateway.attempts("upstream_unreachable").await, 5.0);
    assert_eq!(
        gateway
            .metric("upstream_breaker_state{state=\"open\"}")
            .await,
        1.0
    );
}

/// U7 and U15, as only raw bytes can say it. Catches broken framing that passes, or whose rest begins the next answer.
#[tokio::test]
async fn answers_that_are_not_http_are_refused() {
    let page =
        r#"{"results":[],"skip":0,"limit":10,"hasMore":false,"totalPages":0,"totalResults":0}"#;
    assert_eq!(page.len(), 82, "the lengths below count on it");
    for (bytes, code) in [
        ("canary\r\n\r\n", "upstream_protocol"),
        ("HTTP/1.1 canary OK\r\n\r\n", "upstream_protocol"),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 82\r\ncontent-length: 2\r\n\r\n{}",
            "upstream_protocol",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\ncanary\r\n{}",
            "upstream_protocol",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 82\r\n\r\n{\"results\":[]",
            "upstream_truncated",
        ),
        (
            // Whole JSON, but the last chunk that would say so is missing.
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n52\r\n{\"results\":[],\"skip\":0,\"limit\":10,\"hasMore\":false,\"totalPages\":0,\"totalResults\":0}\r\n",
            "upstream_truncated",
        ),
        ("", "upstream_truncated"),
    ] {
        let rogue = Rogue::sending(bytes).await;
        let gateway = Gateway::before(rogue.address, |_| ()).await;
        let answer = gateway.get(&path(DEMO_STREAM_ID, "")).await;
        assert_eq!(answer.json()["code"], code, "{bytes:?}");
        answer.is_problem(502, code);
        no_trace(&answer, bytes);
        let seen = rogue.seen();
        let tries = if bytes.is_empty() { 2 } else { 1 };
        assert_eq!(seen, tries, "{bytes:?}");
        let again = gateway.get(&path(DEMO_STREAM_ID, "")).await;
        again.is_problem(502, code);
        assert_eq!(rogue.seen(), seen, "it rests: {bytes:?}");
        let other = gateway.get(&path(DEMO_STREAM_ID, "?skip=10")).await;
        other.is_problem(502, code);
        assert!(rogue.seen() > seen, "another window is fetched: {bytes:?}");
    }
}

/// Catches a failure that pushes out the good copy which is still fresh.
#[tokio::test]
async fn a_fresh_copy_is_served_whatever_upstream_does() {
    let world = World::new().await;
    let page = world.get("").await.ok();
    let list = world.stream("st-list", "?all=true").await.ok();
    world.kore.fault_always(crate::support::fault("status=500"));
    world.get("?skip=10").await.is_problem(502, "upstream_5xx");
    let again = world.get("").await.ok();
    assert!(again.is_hit() && again.body == page.body);
    let again = world.stream("st-list", "?all=true").await.ok();
    assert!(again.is_hit() && again.body == list.body);
    world.stream("st-list", "?skip=77").await.ok();
}

/// Catches one stream's failure that reaches another's callers on the same connection.
#[tokio::test]
async fn after_a_failure_the_same_connection_still_answers() {
    let world = World::new().await;
    world.fault_stream("st-broken", "truncate");
    let mut raw = Raw::to(world.gateway.traffic).await;
    for _ in 0..3 {
        let first = format!("GET {} HTTP/1.1", path("st-broken", ""));
        let broken = raw.ask(&[&first, "Host: localhost"]).await;
        broken.is_problem(502, "upstream_truncated");
        let first = format!("GET {} HTTP/1.1", path("st-sound", ""));
        let sound = raw.ask(&[&first, "Host: localhost"]).await.ok();
        assert_eq!(
            sound.text(),
            crate::support::page(DEMO_ACCOUNT_ID, "st-sound", 1_000, 0, 10)
        );
    }
}
