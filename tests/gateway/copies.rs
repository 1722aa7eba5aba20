//! What callers say about copies, and what copies tell them: validators, directives, compression, timing.

use std::{io::Read, time::Duration};

use bytes::Bytes;
use contacts_gateway::simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID};
use flate2::read::GzDecoder;
use futures_util::future::join_all;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, time};

use crate::support::{
    Answer, Gateway, Raw, World, configuration, list, page, path, secrets, soon, until,
};

/// So long after it was fetched a copy may be fetched anew because a caller would not have it, and a moment more.
const GROWN_UP: Duration = Duration::from_millis(5_100);

/// Asks for the demo's stream with these headers.
async fn ask(world: &World, query: &str, headers: &[(&str, &str)]) -> Answer {
    ask_by(world, Method::GET, query, headers).await
}

async fn ask_by(world: &World, method: Method, query: &str, headers: &[(&str, &str)]) -> Answer {
    let target = path(DEMO_STREAM_ID, query);
    let mut request = world.gateway.request(&target).method(method);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    world.gateway.ask(request).await
}

/// Asks with this `Cache-Control`.
async fn directed(world: &World, query: &str, directives: &str) -> Answer {
    ask(world, query, &[("cache-control", directives)]).await
}

/// Asks for gzip.
async fn zipped(world: &World, query: &str) -> Answer {
    ask(world, query, &[("accept-encoding", "gzip")]).await
}

fn status(answer: &Answer) -> &str {
    let status = answer.header("cache-status");
    status.strip_prefix("contacts-gateway; ").unwrap_or(status)
}

/// The names of an answer's headers but for its length, and what of them does not change with time.
fn constant(answer: &Answer) -> (Vec<String>, Vec<String>) {
    let mut names: Vec<_> = answer.headers.keys().map(ToString::to_string).collect();
    names.retain(|name| name != "content-length");
    names.sort();
    let same = [
        "etag",
        "vary",
        "cache-control",
        "content-type",
        "content-encoding",
        "merge-status",
    ];
    // How old a list's oldest page is changes from second to second.
    let values = same.map(|name| answer.header(name).split("; oldest=").next());
    let values = values.map(|value| value.unwrap_or_default().to_owned());
    (names, values.to_vec())
}

fn unzipped(answer: &Answer) -> String {
    assert_eq!(answer.header("content-encoding"), "gzip");
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
    let mut text = String::new();
    let mut decoder = GzDecoder::new(&answer.body[..]);
    decoder.read_to_string(&mut text).unwrap();
    text
}

/// Catches a 304 that says less than the 200, a HEAD that differs from GET, tags that are compared as texts, and a body
/// that is compared with the tag of another coding.
#[tokio::test]
async fn whoever_has_it_already_is_told_so() {
    let world = World::new().await;
    for query in ["?skip=20&limit=20", "?all=true"] {
        for coding in ["identity", "gzip"] {
            let accept = ("accept-encoding", coding);
            ask(&world, query, &[accept]).await.ok();
            let whole = ask(&world, query, &[accept]).await.ok();
            let etag = whole.header("etag").to_owned();
            assert!(etag.starts_with('"') && whole.is_hit(), "{etag}");
            for condition in [
                etag.clone(),
                format!("W/{etag}"),
                "*".to_owned(),
                format!("\"other\", W/\"x,y\" , {etag}"),
            ] {
                for method in [Method::GET, Method::HEAD] {
                    let shown = format!("{method} {query} {coding} {condition}");
                    let asked = [accept, ("if-none-match", condition.as_str())];
                    let had = ask_by(&world, method, query, &asked).await;
                    assert_eq!(had.status, 304, "{shown}");
                    assert!(had.body.is_empty(), "{shown}");
                    assert!(!had.headers.contains_key("content-length"), "{shown}");
                    assert_eq!(constant(&had), constant(&whole), "{shown}");
                }
            }
            for condition in [
                "\"other\"",
                "\"\"",
                &etag.to_uppercase(),
                &etag.replace('"', ""),
            ] {
                let asked = [accept, ("if-none-match", condition)];
                let whole_again = ask(&world, query, &asked).await.ok();
                assert_eq!(whole_again.body, whole.body, "{condition}");
            }
            // The other coding is another representation.
            let other = if coding == "gzip" { "identity" } else { "gzip" };
            let asked = [("accept-encoding", other), ("if-none-match", &*etag)];
            assert_eq!(ask(&world, query, &asked).await.status, 200, "{other}");

            let head = ask_by(&world, Method::HEAD, query, &[accept]).await.ok();
            assert_eq!(constant(&head), constant(&whole));
            assert_eq!(
                head.header("content-length"),
                whole.header("content-length")
            );
            assert!(head.body.is_empty());
        }
    }
    // A cold key is fetched, and need not be sent either.
    let world = World::new().await;
    let tag = [("if-none-match", "*")];
    let cold = ask(&world, "", &tag).await;
    assert_eq!((cold.status, world.calls()), (304, 1));
    // An error is no representation.
    world.fault_stream(DEMO_STREAM_ID, "status=500");
    let failed = ask(&world, "?skip=500", &tag).await;
    failed.is_problem(502, "upstream_5xx");
}

/// Catches tags from chance, from time, or from the process.
#[tokio::test]
async fn etags_are_equal_wherever_the_content_is() {
    let world = World::new().await;
    let accounts = [AccountSettings::demo()];
    let config = configuration(&world.kore.base_url(), &accounts);
    let other = Gateway::start(&config, secrets(&accounts)).await;
    for query in ["?skip=20&limit=20", "?all=true"] {
        for coding in ["identity", "gzip"] {
            let here = ask(&world, query, &[("accept-encoding", coding)])
                .await
                .ok();
            let request = other.request(&path(DEMO_STREAM_ID, query));
            let there = other.ask(request.header("accept-encoding", coding)).await;
            assert_eq!(here.header("etag"), there.header("etag"), "{query}");
            assert_eq!(here.body, there.body, "{query} {coding}");
        }
    }
}

/// Catches directives that are not passed on, a fresh copy that cannot be refused, and one that can be too often.
#[tokio::test]
async fn a_fresh_copy_that_will_not_do_is_fetched_anew_now_and_then() {
    let world = World::new().await;
    let windows = ["?skip=0", "?skip=10", "?skip=20", "?skip=30"];
    for query in windows {
        assert!(world.get(query).await.ok().is_miss());
    }
    // Whoever has just been served need not ask again.
    for directives in ["no-cache", "max-age=0", "min-fresh=100000"] {
        let young = directed(&world, windows[0], directives).await.ok();
        assert!(status(&young).starts_with("hit; ttl="), "{directives}");
        assert!(status(&young).ends_with("; detail=refresh_floor"));
    }
    assert_eq!(world.calls(), 4);
    time::sleep(GROWN_UP).await;
    for (query, good, bad) in [
        (windows[0], "no-store", "no-cache"),
        (windows[1], "max-age=3600", "max-age=3"),
        (windows[2], "min-fresh=60", "min-fresh=100000"),
        (windows[3], "max-stale", "no-cache, max-age=3600"),
    ] {
        let calls = world.calls();
        assert!(directed(&world, query, good).await.ok().is_hit(), "{good}");
        assert_eq!(world.calls(), calls, "{good}");
        let forced = directed(&world, query, bad).await.ok();
        assert_eq!(status(&forced), "fwd=request; fwd-status=200; stored");
        assert_eq!(world.calls(), calls + 1, "{bad}");
        assert!(world.get(query).await.ok().is_hit());
    }
}

/// Catches one caller that spends everybody's calls.
#[tokio::test]
async fn no_cache_in_a_loop_costs_six_calls_a_minute_at_most() {
    let world = World::new().await;
    let queries: Vec<_> = (0..12).map(|page| format!("?skip={}", 10 * page)).collect();
    for query in &queries {
        world.get(query).await.ok();
    }
    let before = world.calls();
    time::sleep(GROWN_UP).await;
    let (mut forced, mut floored) = (0, 0);
    for query in queries.iter().cycle().take(120) {
        let answer = directed(&world, query, "no-cache").await.ok();
        match status(&answer) {
            "fwd=request; fwd-status=200; stored" => forced += 1,
            status => {
                assert!(status.ends_with("; detail=refresh_floor"), "{status}");
                floored += 1;
            }
        }
    }
    assert_eq!((forced, floored), (6, 114));
    assert_eq!(world.calls() - before, 6);
}

/// Catches a list that is walked again for whoever asks so, at twelve calls each.
#[tokio::test]
async fn a_list_that_was_just_read_is_not_read_again() {
    let world = World::new().await;
    world.get("?all=true").await.ok();
    let calls = world.calls();
    let answer = directed(&world, "?all=true", "no-cache").await.ok();
    assert!(status(&answer).ends_with("; detail=refresh_floor"));
    assert_eq!(world.calls(), calls);
}

/// Catches a stale copy for whoever forbids it, an error for whoever allows one, and both the other way round.
#[tokio::test]
async fn a_stale_copy_is_for_those_who_would_have_it() {
    let world = World::with(
        |_| (),
        |config| config.cache.fresh_for = Duration::from_secs(1),
    )
    .await;
    let windows = ["?skip=0", "?skip=10", "?skip=20", "?skip=30"];
    for query in windows {
        world.get(query).await.ok();
    }
    let kept = world.get(windows[0]).await.ok().body;
    time::sleep(Duration::from_millis(1_100)).await;
    // A refusal, which is neither tried again nor counted by the breaker.
    world.fault_stream(DEMO_STREAM_ID, "status=403");

    // Nobody else would be asked.
    let cached = directed(&world, windows[0], "only-if-cached").await.ok();
    assert!(status(&cached).starts_with("hit; ttl=-"));
    assert_eq!(world.calls(), 4);

    let refused = directed(&world, windows[0], "max-stale=0").await;
    refused.is_problem(502, "upstream_4xx");
    assert_eq!(status(&refused), "fwd=stale");
    for forgiving in [
        "max-stale=0, stale-if-error=3600",
        "no-cache, stale-if-error=3600",
    ] {
        // While the key rests, and after it.
        for query in &windows[..2] {
            let answer = directed(&world, query, forgiving).await.ok();
            assert!(status(&answer).starts_with("hit; ttl=-"), "{forgiving}");
            assert!(status(&answer).ends_with("; detail=upstream_4xx"));
        }
    }
    for told in ["max-stale", "max-stale=3600", "max-age=3600"] {
        let answer = directed(&world, windows[2], told).await.ok();
        assert!(status(&answer).starts_with("hit; ttl=-"), "{told}");
    }
    let answer = directed(&world, windows[3], "no-cache, stale-if-error=0").await;
    answer.is_problem(502, "upstream_4xx");
    let answer = directed(&world, windows[0], "stale-if-error=3600")
        .await
        .ok();
    assert_eq!(answer.body, kept);
}

/// Catches a call for whoever wants none, and a copy withheld from it.
#[tokio::test]
async fn only_if_cached_asks_nobody() {
    let world = World::new().await;
    for query in ["", "?all=true"] {
        let cold = directed(&world, query, "only-if-cached").await;
        cold.is_problem(504, "only_if_cached");
        assert_eq!(status(&cold), "");
    }
    assert_eq!(world.calls(), 0);
    world.get("").await.ok();
    assert!(directed(&world, "", "only-if-cached").await.ok().is_hit());
    let never = directed(&world, "", "only-if-cached, no-cache").await;
    never.is_problem(504, "only_if_cached");
    assert_eq!(world.calls(), 1);
}

/// Catches other bytes, a tag for two representations, a coding nobody asked for, and a HEAD that does not know of it.
#[tokio::test]
async fn gzip_is_for_those_who_ask_for_it() {
    let world = World::new().await;
    let page = page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 20, 20);
    let list = list(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000);
    for (query, expected) in [("?skip=20&limit=20", &page), ("?all=true", &list)] {
        // Compressed at first sight, and plain from the same copy.
        let first = zipped(&world, query).await.ok();
        assert!(unzipped(&first) == *expected && first.is_miss(), "{query}");
        let plain = ask(&world, query, &[]).await.ok();
        assert!(plain.text() == expected && plain.is_hit());
        assert!(!plain.headers.contains_key("content-encoding"));
        assert!(first.body.len() * 2 < plain.body.len());
        assert_ne!(first.header("etag"), plain.header("etag"));
        for answer in [&first, &plain] {
            assert!(answer.header("vary").contains("Accept-Encoding"));
        }
        for (accept, coded) in [
            ("gzip, deflate, br", true),
            ("x-gzip", true),
            ("*", true),
            ("identity;q=0, *;q=0.1", true),
            ("identity;q=0.5, gzip;q=0.5", true),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("identity, gzip;q=0.5", false),
            ("br, zstd", false),
            ("identity;q=0", false),
            ("", false),
        ] {
            let asked = [("accept-encoding", accept), ("range", "bytes=0-9")];
            let answer = ask(&world, query, &asked).await.ok();
            let expected = if coded { &first } else { &plain };
            assert!(answer.body == expected.body, "{query} {accept}");
            assert_eq!(answer.header("etag"), expected.header("etag"), "{accept}");
        }
    }
    let encodings = async |cache: &str| {
        let series = format!("cache_encodings_total{{cache=\"{cache}\"}}");
        world.gateway.metric(&series).await
    };
    assert_eq!(encodings("pages").await, 1.0);
    assert_eq!(encodings("lists").await, 1.0);

    // Slices of the list are not kept, and not compressed. Whoever has the page compressed is told so all the same.
    let slice = zipped(&world, "?skip=20&limit=20").await.ok();
    assert!(status(&slice).ends_with("; detail=slice"));
    assert!(!slice.headers.contains_key("content-encoding"));
    let tag = slice.header("etag").strip_suffix('"').unwrap();
    let tag = format!("{tag}-gzip\"");
    let asked = [("accept-encoding", "gzip"), ("if-none-match", &*tag)];
    let had = ask(&world, "?skip=20&limit=20", &asked).await;
    assert_eq!((had.status, had.header("etag")), (304, &*tag));

    // Short ones and problems neither.
    let short = world.stream("st-short", "?limit=1").await.ok();
    assert!(short.body.len() < 1024, "{}", short.body.len());
    for target in [path("st-short", "?limit=1"), path("st-short", "?limit=0")] {
        let request = world.gateway.request(&target);
        let answer = world.gateway.ask(request.header("accept-encoding", "gzip"));
        let answer = answer.await;
        assert!(!answer.headers.contains_key("content-encoding"), "{target}");
        assert!(answer.json().is_object());
    }
    assert_eq!(encodings("pages").await, 1.0);
}

/// Catches an encoding for each caller or each connection, one that is not weighed, and callers left waiting for it.
#[tokio::test]
async fn a_thousand_who_want_gzip_first_cost_one_encoding() {
    let world = World::with(
        |settings| settings.latency = Duration::from_millis(500),
        |_| (),
    )
    .await;
    let address = world.gateway.traffic;
    let connections = join_all((0..10).map(|_| async {
        let stream = TcpStream::connect(address).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender.ready().await.unwrap();
        sender
    }))
    .await;
    let asked = connections
        .iter()
        .flat_map(|sender| (0..100).map(|_| sender.clone()))
        .map(|mut sender| async move {
            let target = format!("http://{address}{}", path(DEMO_STREAM_ID, "?limit=100"));
            let request = Request::get(target).header("accept-encoding", "gzip");
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            let (head, body) = sender.send_request(request).await.unwrap().into_parts();
            Answer {
                status: head.status.as_u16(),
                version: head.version,
                headers: head.headers,
                body: body.collect().await.unwrap().to_bytes(),
            }
        });
    let answers = soon("a thousand answers", join_all(asked)).await;
    let expected = page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 0, 100);
    assert_eq!(unzipped(&answers[0]), expected);
    for answer in &answers {
        assert!(answer.status == 200 && answer.body == answers[0].body);
        assert_eq!(answer.header("content-encoding"), "gzip");
    }
    assert_eq!(world.calls(), 1);
    let gateway = &world.gateway;
    assert_eq!(
        gateway
            .metric("cache_encodings_total{cache=\"pages\"}")
            .await,
        1.0
    );
    assert_eq!(gateway.metric("cache_entries{cache=\"pages\"}").await, 1.0);
    let held = gateway.metric("cache_bytes{cache=\"pages\"}").await;
    let least = expected.len() + answers[0].body.len();
    assert!(held > least as f64, "{held} and not {least}");
}

/// The durations that an answer tells, in milliseconds.
fn durations(answer: &Answer) -> Vec<(String, f64)> {
    let told = answer.header("server-timing");
    let metric = |metric: &str| {
        let (name, duration) = metric.split_once(";dur=").unwrap();
        (name.to_owned(), duration.parse().unwrap())
    };
    told.split(", ").map(metric).collect()
}

/// Catches durations that belong to no phase, that the waiters do not hear of, or that a copy goes on telling.
#[tokio::test]
async fn who_waited_for_upstream_is_told_what_for() {
    let latency = Duration::from_millis(400);
    let world = World::with(|settings| settings.latency = latency, |_| ()).await;
    let mut first = Raw::to(world.gateway.traffic).await;
    let line = format!("GET {} HTTP/1.1", path(DEMO_STREAM_ID, ""));
    first
        .write(format!("{line}\r\nHost: x.localhost\r\n\r\n"))
        .await;
    let answer = first.answer().await;
    assert!(!answer.headers.contains_key("server-timing"), "an error");

    first
        .write(format!("{line}\r\nHost: localhost\r\n\r\n"))
        .await;
    until("upstream is asked", async || world.calls() == 1).await;
    let joined = world.get("").await.ok();
    let fetched = first.answer().await.ok();
    assert_eq!(status(&joined), "fwd=uri-miss; collapsed");
    assert!(fetched.is_miss());
    assert_eq!(
        joined.header("server-timing"),
        fetched.header("server-timing")
    );
    let told = durations(&fetched);
    let names: Vec<_> = told.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["token", "queue", "upstream"]);
    assert!(told[2].1 >= 400.0, "{told:?}");

    let hit = world.get("").await.ok();
    assert!(hit.is_hit() && !hit.headers.contains_key("server-timing"));

    let list = world.get("?all=true").await.ok();
    let told = durations(&list);
    let names: Vec<_> = told.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["token", "queue", "upstream", "merge"]);
    // Twelve calls together, and of the walk the least that its first and its last call take.
    assert!(told[2].1 >= 12.0 * 400.0, "{told:?}");
    assert!(
        told[3].1 >= 2.0 * 400.0 && told[3].1 < told[2].1,
        "{told:?}"
    );
    let slice = world.get("?skip=500").await.ok();
    assert!(!slice.headers.contains_key("server-timing"));
}
