//! Whole lists as lines: whoever reads the last one has the list, and whoever does not knows it.

use std::process::{Command, Stdio};

use bytes::Bytes;
use contacts_gateway::{
    contacts::walk::Verify,
    simulator::{self, Contacts, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Rule},
    upstream::{self, TenantCheck},
};
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::{join, task};

use crate::{
    access::caller,
    support::{Answer, World, fault, path, soon, until},
};

const NDJSON: &str = "application/x-ndjson";

/// The lines of a stream's contacts, as they must come.
pub(crate) fn lines_of(stream: &str, total: u64) -> String {
    let contacts = Contacts::new(DEMO_ACCOUNT_ID, stream);
    let mut lines = Vec::new();
    for index in 0..total {
        contacts.write(index, &mut lines);
        lines.push(b'\n');
    }
    String::from_utf8(lines).unwrap()
}

fn wanting(world: &World, stream: &str) -> http::request::Builder {
    let request = world.gateway.request(&path(stream, "?all=true"));
    request
        .header("accountId", DEMO_ACCOUNT_ID)
        .header("accept", NDJSON)
}

/// A body that is read line by line.
struct Lines {
    body: Incoming,
    read: Vec<u8>,
}

impl Lines {
    async fn open(request: http::request::Builder, world: &World, http2: bool) -> Self {
        let response = world.gateway.open(request, http2).await;
        assert_eq!(response.status(), 200);
        Self::of(response)
    }

    fn of(response: Response<Incoming>) -> Self {
        let running = ["etag", "content-length", "merge-status"];
        for header in running {
            assert!(!response.headers().contains_key(header), "{header}");
        }
        assert_eq!(response.headers()["content-type"], NDJSON);
        Self {
            body: response.into_body(),
            read: Vec::new(),
        }
    }

    /// More of it; `false` at its end, good or bad.
    async fn more(&mut self) -> Result<bool, hyper::Error> {
        match soon("a frame", self.body.frame()).await {
            Some(frame) => {
                let frame: Bytes = frame?.into_data().unwrap_or_default();
                self.read.extend_from_slice(&frame);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Reads to the end: the text, and whether it was the end.
    async fn rest(mut self) -> (String, bool) {
        let whole = loop {
            match self.more().await {
                Ok(true) => {}
                Ok(false) => break true,
                Err(_) => break false,
            }
        };
        (String::from_utf8(self.read).unwrap(), whole)
    }
}

/// The last line, and what stands before it.
fn last(text: &str) -> (&str, Value) {
    let text = text.strip_suffix('\n').expect("the last line is whole");
    let (before, last) = text.rsplit_once('\n').unwrap_or(("", text));
    let before = &text[..before.len() + usize::from(!before.is_empty())];
    (before, serde_json::from_str(last).unwrap())
}

/// Catches lines that are not upstream's bytes, a length that is not theirs, and an ETag that is the document's.
#[tokio::test]
async fn a_kept_list_has_a_length_an_etag_and_a_verdict() {
    let world = World::new().await;
    let document = world.get("?all=true").await.ok();
    let kept = world
        .gateway
        .ask(wanting(&world, DEMO_STREAM_ID))
        .await
        .ok();
    assert!(kept.is_hit());
    assert_eq!(kept.header("content-type"), NDJSON);
    assert_eq!(kept.header("merge-status"), document.header("merge-status"));
    assert_eq!(kept.header("content-length"), kept.body.len().to_string());
    let (contacts, end) = last(kept.text());
    assert!(contacts == lines_of(DEMO_STREAM_ID, 1_000));
    let expected = serde_json::json!({ "$end": {
        "verdict": "verified", "checks": "seam", "pages": 11, "records": 1000, "calls": 12,
        "oldest_s": end["$end"]["oldest_s"],
    }});
    assert_eq!(end, expected);
    let etag = kept.header("etag");
    assert_ne!(etag, document.header("etag"));
    let again = wanting(&world, DEMO_STREAM_ID).header("if-none-match", etag);
    let again = world.gateway.ask(again).await;
    assert_eq!((again.status, again.body.len()), (304, 0));
    let other = wanting(&world, DEMO_STREAM_ID).header("if-none-match", document.header("etag"));
    assert_eq!(world.gateway.ask(other).await.ok().body, kept.body);
    let head = wanting(&world, DEMO_STREAM_ID).method(Method::HEAD);
    let head = world.gateway.ask(head).await.ok();
    let of = |answer: &Answer| {
        ["etag", "content-length", "content-type"].map(|name| answer.header(name).to_owned())
    };
    assert_eq!((of(&head), head.body.len()), (of(&kept), 0));
    // There is no news of what is there already.
    let news = world.get("?all=true&progress=true").await.ok();
    assert_eq!(news.body, kept.body);
    let compressed = wanting(&world, DEMO_STREAM_ID).header("accept-encoding", "gzip");
    assert_eq!(world.gateway.ask(compressed).await.ok().body, kept.body);
    assert_eq!(world.calls(), 12);
}

#[tokio::test]
async fn who_accepts_nothing_that_there_is_is_told() {
    let world = World::new().await;
    for (query, accept) in [
        ("?all=true&progress=true", "application/json"),
        ("?skip=0", NDJSON),
        ("?all=true", "application/ndjson"),
    ] {
        let request = world.gateway.request(&path(DEMO_STREAM_ID, query));
        let answer = world.gateway.ask(request.header("accept", accept)).await;
        answer.is_problem(406, "not_acceptable");
    }
    assert_eq!(world.calls(), 0);
}

/// Each call after the first two takes a while.
async fn slow_after_two(world: &World, stream: &str) {
    world
        .kore
        .add_faults(Rule::always(fault("delay=0s")).next(2).stream(stream));
    world.fault_stream(stream, "delay=100ms");
}

/// Catches lines that wait for the whole list, a first line before its page's right seam matched, and a list that is read
/// once for its lines and once more for its document.
#[tokio::test]
async fn the_first_contact_comes_after_the_second_page() {
    for http2 in [false, true] {
        let world = World::with(|_| (), |config| config.merge.width = 1).await;
        let stream = "st-slow";
        slow_after_two(&world, stream).await;
        let mut lines = Lines::open(wanting(&world, stream), &world, http2).await;
        // It may be a call further by the time it is here, but not ten.
        assert!((2..=5).contains(&world.calls()), "{}", world.calls());
        assert!(lines.more().await.unwrap());
        assert!((2..=6).contains(&world.calls()), "{}", world.calls());
        let (text, whole) = lines.rest().await;
        let (contacts, end) = last(&text);
        assert!(contacts == lines_of(stream, 1_000));
        assert_eq!(end["$end"]["verdict"], "verified");
        assert_eq!(end["$end"]["calls"], 12);
        assert!(whole);
        let document = world.stream(stream, "?all=true").await.ok();
        assert!(document.is_hit());
        assert_eq!(world.calls(), 12);
        let joined = "cache_requests_total{cache=\"lists\",result=\"miss\"}";
        assert_eq!(world.gateway.metric(joined).await, 1.0);
    }
}

/// The sixth call fails, when some of the list was sent.
async fn failing(config: impl FnOnce(&mut contacts_gateway::config::Config), text: &str) -> World {
    let world = World::with(
        |_| (),
        |told| {
            told.merge.width = 1;
            // No rests, which the clock decides.
            told.merge.failures_max = 1;
            config(told);
        },
    )
    .await;
    world
        .kore
        .add_faults(Rule::always(fault("delay=0s")).next(5).stream("st-broken"));
    world.fault_stream("st-broken", text);
    world
}

/// U21. Catches a list that ends early as if that were its end, and an error that nobody is told.
#[tokio::test]
async fn a_list_that_breaks_in_the_middle_says_so_and_is_broken_off() {
    for http2 in [false, true] {
        let world = failing(|_| (), "reset").await;
        let request = wanting(&world, "st-broken").header("x-request-id", "mine");
        let (text, whole) = Lines::open(request, &world, http2).await.rest().await;
        let (contacts, error) = last(&text);
        assert!(!whole);
        assert!(!contacts.is_empty());
        assert!(lines_of("st-broken", 1_000).starts_with(contacts));
        let error = &error["$error"];
        assert_eq!(error["code"], "upstream_truncated", "{error}");
        assert_eq!(
            (&error["status"], &error["retryable"]),
            (&Value::from(502), &Value::from(true))
        );
        assert_eq!(error["request_id"], "mine");
        // What nothing was sent of is an error like any other.
        let after = world.gateway.ask(wanting(&world, "st-broken")).await;
        after.is_problem(502, "upstream_truncated");
    }
}

/// U21, as callers see it.
#[tokio::test]
async fn curl_reports_a_broken_list_as_a_failed_transfer() {
    for http2 in [false, true] {
        let world = failing(|_| (), "reset").await;
        let target = path("st-broken", "?all=true");
        let target = format!("http://{}{target}", world.gateway.traffic);
        let curl = task::spawn_blocking(move || {
            let mut curl = Command::new("curl");
            if http2 {
                curl.arg("--http2-prior-knowledge");
            }
            curl.args(["-sS", "-H", "accept: application/x-ndjson", &target])
                .stdin(Stdio::null())
                .output()
                .unwrap()
        });
        let curl = soon("curl ends", curl).await.unwrap();
        let text = String::from_utf8_lossy(&curl.stdout);
        let said = String::from_utf8_lossy(&curl.stderr);
        assert!(!curl.status.success(), "{said}");
        assert!(last(&text).1["$error"].is_object(), "{said}");
    }
}

/// U22. Catches a page that is sent before it was seen whose contacts are on it.
#[tokio::test]
async fn no_line_is_another_accounts() {
    let reject = |config: &mut contacts_gateway::config::Config| {
        config.upstream.tenant_check = TenantCheck::Reject;
    };
    let world = failing(reject, "other-account").await;
    let lines = Lines::open(wanting(&world, "st-broken"), &world, false).await;
    let (text, whole) = lines.rest().await;
    let (contacts, error) = last(&text);
    assert!(!whole);
    assert!(lines_of("st-broken", 1_000).starts_with(contacts));
    assert_eq!(error["$error"]["code"], "upstream_tenant_mismatch");
}

/// Catches a walk that waits for its readers, readers that each have a walk of their own, and one that misses what was
/// laid out before it came.
#[tokio::test]
async fn fifty_readers_that_do_not_read_hold_up_nobody() {
    const CONTACTS: u64 = 10_000;
    let world = World::with(
        |settings| settings.accounts[0] = settings.accounts[0].clone().others(CONTACTS),
        |config| config.merge.width = 4,
    )
    .await;
    slow_after_two(&world, "st-many").await;
    let mut readers = Vec::new();
    for _ in 0..50 {
        // Each on a connection of its own.
        readers.push(Lines::open(wanting(&world, "st-many"), &world, false).await);
    }
    world.kore.clear_faults();
    let document = world.stream("st-many", "?all=true").await.ok();
    assert!(
        document
            .header("merge-status")
            .starts_with("verified; checks=seam; pages=101; records=10000; calls=102;")
    );
    assert_eq!(world.calls(), 102);
    // They were answered before the list was whole, and have all of it before them.
    let expected = lines_of("st-many", CONTACTS);
    for reader in readers.drain(..).take(3) {
        let (text, whole) = reader.rest().await;
        assert!(whole);
        assert!(last(&text).0 == expected);
    }
    assert_eq!(world.calls(), 102);
}

/// Catches news that wait for pages, and lines that are neither news nor contacts.
#[tokio::test]
async fn who_wants_news_is_told_how_far_the_walk_is() {
    let world = World::with(|_| (), |config| config.merge.width = 1).await;
    world
        .kore
        .add_faults(Rule::always(fault("delay=0s")).next(1).stream("st-slow"));
    world.fault_stream("st-slow", "delay=300ms");
    let request = world
        .gateway
        .request(&path("st-slow", "?all=true&progress=true"));
    let request = request.header("accountId", DEMO_ACCOUNT_ID);
    let (text, whole) = Lines::open(request, &world, false).await.rest().await;
    assert!(whole);
    let (news, contacts): (Vec<&str>, Vec<&str>) = text
        .split_inclusive('\n')
        .partition(|line| line.starts_with("{\"$progress\""));
    let told: Vec<Value> = news
        .iter()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(told[0]["$progress"]["pages_done"], 1);
    assert_eq!(told[0]["$progress"]["pages_needed"], 11);
    assert_eq!(told[0]["$progress"]["records"], 100);
    // Two seconds and more of calls, one line a second.
    assert!((3..=6).contains(&told.len()), "{news:?}");
    let contacts = contacts.concat();
    let (contacts, end) = last(&contacts);
    assert!(contacts == lines_of("st-slow", 1_000));
    assert_eq!(end["$end"]["records"], 1_000);
}

/// Where no line comes before the verdict. Catches news that wait for it too.
#[tokio::test]
async fn news_come_where_contacts_have_to_wait() {
    let in_pages = World::with(
        |settings| settings.paging = simulator::Paging::PageLimit,
        |config| {
            config.upstream.paging = upstream::Paging::PageLimit;
            config.merge.width = 1;
        },
    );
    let twice = |records_max| {
        World::with(
            |_| (),
            move |config| {
                config.merge.verify = Verify::Twice;
                (config.merge.width, config.merge.records_max) = (1, records_max);
            },
        )
    };
    let told = async |world: World, verdict: &str| {
        world
            .kore
            .add_faults(Rule::always(fault("delay=0s")).next(1).stream("st-slow"));
        world.fault_stream("st-slow", "delay=150ms");
        let request = world
            .gateway
            .request(&path("st-slow", "?all=true&progress=true"));
        let request = request.header("accountId", DEMO_ACCOUNT_ID);
        let (text, whole) = Lines::open(request, &world, false).await.rest().await;
        assert!(whole);
        let first: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert!(first["$progress"]["pages_needed"].is_u64(), "{first}");
        let news = text
            .lines()
            .filter(|line| line.starts_with("{\"$progress\""));
        assert!(news.count() >= 2);
        let contacts = text
            .split_inclusive('\n')
            .filter(|line| !line.starts_with("{\"$"));
        assert!(contacts.collect::<String>() == lines_of("st-slow", 1_000));
        assert_eq!(last(&text).1["$end"]["verdict"], verdict);
        text.lines()
            .take_while(|line| line.starts_with("{\"$progress\""))
            .count()
    };
    let (in_pages, kept, streamed) = join!(
        async { told(in_pages.await, "consistent").await },
        async { told(twice(200_000).await, "verified").await },
        async { told(twice(500).await, "verified").await },
    );
    // All of them, where the contacts had to wait.
    assert!(in_pages >= 2 && kept >= 2 && streamed >= 1);
}

/// C13. Catches a list that ends with its reader.
#[tokio::test]
async fn a_reader_that_leaves_does_not_end_the_walk() {
    let world = World::with(|_| (), |config| config.merge.width = 1).await;
    slow_after_two(&world, "st-slow").await;
    drop(Lines::open(wanting(&world, "st-slow"), &world, true).await);
    world.kore.clear_faults();
    until("the walk ends", async || {
        world
            .gateway
            .metric("walks_total{outcome=\"verified\"}")
            .await
            == 1.0
    })
    .await;
    assert!(world.stream("st-slow", "?all=true").await.ok().is_hit());
    assert_eq!(world.calls(), 12);
}

/// Where no list of more than 500 contacts is kept.
async fn keeping_little(change: impl FnOnce(&mut contacts_gateway::config::Config)) -> World {
    World::with(
        |_| (),
        |config| {
            config.merge.records_max = 500;
            config.merge.width = 2;
            change(config);
        },
    )
    .await
}

/// C17. Catches a large list that is refused as lines too, is kept after all, or lacks anything.
#[tokio::test]
async fn a_list_too_large_to_be_kept_is_sent_as_it_is_read() {
    for http2 in [false, true] {
        let world = keeping_little(|_| ()).await;
        let document = world.stream("st-large", "?all=true").await;
        document.is_problem(422, "merge_too_large");
        let detail = document.json()["detail"].to_string();
        assert!(detail.contains("1000 contacts on 11 pages"), "{detail}");
        for _ in 0..2 {
            let before = world.calls();
            let lines = Lines::open(wanting(&world, "st-large"), &world, http2).await;
            let (text, whole) = lines.rest().await;
            assert!(whole);
            let (contacts, end) = last(&text);
            assert!(contacts == lines_of("st-large", 1_000));
            let (verdict, calls) = (&end["$end"]["verdict"], &end["$end"]["calls"]);
            assert_eq!(
                (verdict.as_str(), calls.as_u64()),
                (Some("verified"), Some(12))
            );
            // Perhaps with the one that finds out again that it is too large.
            assert!((12..=13).contains(&(world.calls() - before)));
        }
        let verified = world.gateway.metric("streams_total{outcome=\"verified\"}");
        assert_eq!(verified.await, 2.0);
        assert_eq!(world.gateway.metric("streams_open").await, 0.0);
        assert_eq!(world.gateway.metric("stream_records_total").await, 2_000.0);
        assert_eq!(
            world.gateway.metric("cache_entries{cache=\"lists\"}").await,
            0.0
        );
    }
}

/// Catches more large lists at once than there may be, and a place that a reader who has left keeps.
#[tokio::test]
async fn there_are_only_so_many_large_lists_at_once() {
    let world = keeping_little(|config| config.merge.streams_max = 1).await;
    slow_after_two(&world, "st-large").await;
    let first = Lines::open(wanting(&world, "st-large"), &world, false).await;
    let second = world.gateway.ask(wanting(&world, "st-large")).await;
    second.is_problem(503, "merge_busy");
    drop(first);
    world.kore.clear_faults();
    until("the reader has left", async || {
        world.gateway.metric("streams_open").await == 0.0
    })
    .await;
    let third = Lines::open(wanting(&world, "st-large"), &world, false).await;
    assert!(third.rest().await.1);
}

/// C17. Catches one caller that takes all places for large lists, or for those that are kept.
#[tokio::test]
async fn no_caller_takes_all_places_for_lists() {
    for (records_max, gauge) in [(500, "streams_open"), (5_000, "walks_running")] {
        let world = keeping_little(|config| {
            (config.merge.streams_max, config.merge.walks_max) = (2, 2);
            config.merge.records_max = records_max;
            config.merge.width = 1;
            config.callers = ["greedy", "modest"]
                .map(|name| caller(name, &["account-0"]))
                .to_vec();
        })
        .await;
        let ask =
            |name: &str, stream| wanting(&world, stream).header("auth", format!("{name}-key"));
        for stream in ["st-1", "st-2", "st-3"] {
            slow_after_two(&world, stream).await;
        }
        let own = Lines::open(ask("greedy", "st-1"), &world, false).await;
        let second = world.gateway.ask(ask("greedy", "st-2")).await;
        second.is_problem(503, "merge_busy");
        let other = Lines::open(ask("modest", "st-3"), &world, false).await;
        assert_eq!(world.gateway.metric(gauge).await, 2.0);
        world.kore.clear_faults();
        assert!(own.rest().await.1 && other.rest().await.1);
        let again = Lines::open(ask("greedy", "st-2"), &world, false).await;
        assert!(again.rest().await.1);
    }
}

/// U21, where the walk is the reader's own.
#[tokio::test]
async fn a_large_list_that_breaks_in_the_middle_says_so_and_is_broken_off() {
    for http2 in [false, true] {
        let world = failing(
            |config| {
                config.merge.records_max = 500;
            },
            "html",
        )
        .await;
        let lines = Lines::open(wanting(&world, "st-broken"), &world, http2).await;
        let (text, whole) = lines.rest().await;
        let (contacts, error) = last(&text);
        assert!(!whole);
        assert!(!contacts.is_empty() && lines_of("st-broken", 1_000).starts_with(contacts));
        assert_eq!(error["$error"]["code"], "upstream_wrong_type");
    }
}

/// What fails before anything was sent is an error like any other.
#[tokio::test]
async fn a_list_of_which_nothing_was_sent_has_a_status() {
    let world = keeping_little(|_| ()).await;
    let document = world.stream("st-large", "?all=true").await;
    document.is_problem(422, "merge_too_large");
    world.fault_stream("st-large", "html");
    let lines = world.gateway.ask(wanting(&world, "st-large")).await;
    lines.is_problem(502, "upstream_wrong_type");
    world.fault_stream("st-small", "html");
    let lines = world.gateway.ask(wanting(&world, "st-small")).await;
    lines.is_problem(502, "upstream_wrong_type");
}
