//! What callers get is what upstream has, byte for byte.

use bytes::Bytes;
use contacts_gateway::simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, LimitMax};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::support::{World, list, page};

const SAMPLE: &str = include_str!("../fixtures/get-all-contacts.json");

/// The records of a body as they stand in it.
fn records(body: &str) -> Vec<&str> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        results: Vec<&'a RawValue>,
    }
    let body: Body<'_> = serde_json::from_str(body).unwrap();
    body.results.into_iter().map(RawValue::get).collect()
}

/// Catches a page that is written anew, or a window that is changed on its way up.
#[tokio::test]
async fn a_page_is_upstreams_body_byte_for_byte() {
    let world = World::new().await;
    for (query, skip, limit) in [
        ("", 0, 10),
        ("?skip=0&limit=10", 0, 10),
        ("?limit=3&skip=7", 7, 3),
        ("?skip=40", 40, 10),
        ("?limit=100", 0, 100),
        ("?skip=990&limit=20", 990, 20),
        ("?skip=1000&limit=10", 1000, 10),
        ("?skip=9007199254740991&limit=1", (1 << 53) - 1, 1),
    ] {
        let answer = world.get(query).await.ok();
        let held = page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, skip, limit);
        assert_eq!(answer.text(), held, "{query}");
        let direct = world.direct(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, query).await;
        assert_eq!(answer.body, direct.body, "{query}");
        assert_eq!(answer.header("content-length"), held.len().to_string());
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

/// Catches a cache that forgets, and one that looks up by the query's text instead of its meaning.
#[tokio::test]
async fn the_second_request_for_a_page_is_a_hit_and_costs_no_call() {
    let world = World::new().await;
    let first = world.get("?skip=20&limit=10").await.ok();
    assert!(first.is_miss(), "{:?}", first.headers);
    for query in ["?skip=20&limit=10", "?limit=10&skip=20", "?skip=20"] {
        let second = world.get(query).await.ok();
        assert!(second.is_hit(), "{query}: {:?}", second.headers);
        assert_eq!(second.body, first.body);
        assert_eq!(second.header("etag"), first.header("etag"));
        assert_eq!(second.header("cache-control"), "private, no-cache");
        assert_eq!(second.header("vary"), "Accept, Accept-Encoding, Prefer");
        assert!(second.header("age").parse::<u64>().is_ok());
    }
    assert_eq!(world.calls(), 1);
    let hits = "cache_requests_total{cache=\"pages\",result=\"hit\"}";
    assert_eq!(world.gateway.metric(hits).await, 3.0);
}

/// Catches a splice that loses, repeats, reorders or rewrites a record.
#[tokio::test]
async fn the_list_of_a_thousand_contacts_is_what_the_simulator_holds() {
    let world = World::new().await;
    let answer = world.get("?all=true").await.ok();
    assert_eq!(answer.text(), list(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000));
    assert_eq!(
        answer.header("content-length"),
        answer.body.len().to_string()
    );
    assert!(answer.is_miss());
    let calls = world.calls();
    let told = answer.header("merge-status");
    let expected = format!("verified; checks=seam; pages=11; records=1000; calls={calls}; oldest=");
    assert!(told.starts_with(&expected), "{told}");
    // At most two more than a hundred contacts a page need.
    assert!(calls <= 12, "{calls}");

    let again = world.get("?all=true").await.ok();
    assert!(again.is_hit(), "{:?}", again.headers);
    assert_eq!(again.body, answer.body);
    assert_eq!(again.header("etag"), answer.header("etag"));
    assert_eq!(world.calls(), calls);
}

/// Catches a splice that parses records and prints them again: indented ones would come back compact.
#[tokio::test]
async fn the_records_of_a_list_keep_their_own_white_space() {
    let world = World::with(|settings| settings.pretty = true, |_| ()).await;
    let whole = world.get("?all=true").await.ok();
    let mut expected = Vec::new();
    let pages: Vec<_> = {
        let mut pages = Vec::new();
        for skip in (0..1_000).step_by(100) {
            let query = format!("?skip={skip}&limit=100");
            pages.push(world.direct(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, &query).await);
        }
        pages
    };
    pages
        .iter()
        .for_each(|page| expected.extend(records(page.text())));
    assert!(expected[0].contains("\n    "), "the records are indented");
    assert!(records(whole.text()) == expected, "a record is not its own");

    let window = world.get("?skip=98&limit=4").await.ok();
    assert!(records(window.text()) == expected[98..102]);
}

/// Catches a slice that is off by one or that computes one of the five numbers otherwise than upstream does.
#[tokio::test]
async fn after_the_list_every_window_is_a_slice_that_equals_upstreams_own_page() {
    let world = World::with(|settings| settings.limit_max = LimitMax::Clamp(40), |_| ()).await;
    let windows = [
        "",
        "?skip=0&limit=10",
        "?skip=39&limit=2",
        "?skip=7&limit=13",
        "?skip=990&limit=10",
        "?skip=995&limit=10",
        "?skip=999&limit=1",
        "?skip=1000&limit=10",
        "?skip=123456&limit=7",
        "?skip=9007199254740991&limit=40",
        // Beyond the clamp, which the walk has met.
        "?skip=0&limit=41",
        "?skip=980&limit=1000",
    ];
    let mut direct = Vec::new();
    for query in windows {
        direct.push(world.direct(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, query).await);
    }
    world.get("?all=true").await.ok();
    let calls = world.calls();
    for (query, direct) in windows.into_iter().zip(direct) {
        let slice = world.get(query).await.ok();
        assert_eq!(slice.text(), direct.text(), "{query}");
        let told = slice.header("cache-status");
        assert!(
            told.starts_with("contacts-gateway; hit; ttl=") && told.ends_with("; detail=slice"),
            "{query}: {told}"
        );
        assert!(!slice.header("etag").is_empty());
    }
    assert_eq!(world.calls(), calls);
}

/// Catches a number or a record that is off by one in whichever window of a list.
#[tokio::test]
async fn every_window_of_a_list_is_upstreams_own_page() {
    let world = World::with(
        |settings| {
            settings.accounts = vec![AccountSettings::demo().others(30)];
            settings.limit_max = LimitMax::Clamp(12);
        },
        |_| (),
    )
    .await;
    world.stream("st-1", "?all=true").await.ok();
    let calls = world.calls();
    let windows = (0..=32).flat_map(|skip| (1..=15).map(move |limit| (skip, limit)));
    let queries = windows.map(|(skip, limit)| format!("?skip={skip}&limit={limit}"));
    let mut direct = 0;
    for query in queries {
        let slice = world.stream("st-1", &query).await.ok();
        assert!(
            slice.header("cache-status").ends_with("; detail=slice"),
            "{query}"
        );
        let own = world.direct(DEMO_ACCOUNT_ID, "st-1", &query).await;
        direct += 1;
        assert_eq!(slice.text(), own.text(), "{query}");
    }
    assert_eq!(world.calls(), calls + direct);
}

/// Catches a list that differs from the pages when the contacts fill exactly one page, several, or none.
#[tokio::test]
async fn lists_of_every_awkward_length_are_whole() {
    let lengths = [0, 1, 2, 99, 100, 101, 198, 199, 200, 201];
    let world = World::with(
        |settings| {
            let mut account = AccountSettings::demo();
            for length in lengths {
                account = account.stream(&format!("st-{length}"), length);
            }
            settings.accounts = vec![account];
        },
        |_| (),
    )
    .await;
    for length in lengths {
        let stream = format!("st-{length}");
        let answer = world.stream(&stream, "?all=true").await.ok();
        let expected = match length {
            // There is no `limit` that would divide it.
            0 => r#"{"results":[],"skip":0,"limit":0,"hasMore":false,"totalPages":1,"totalResults":0}"#.to_owned(),
            _ => list(DEMO_ACCOUNT_ID, &stream, length),
        };
        assert!(answer.text() == expected, "{length}: {}", answer.text());
        assert!(
            answer.header("merge-status").starts_with("verified; "),
            "{length}"
        );
    }
}

async fn sample(body: &str) -> World {
    let body = Bytes::copy_from_slice(body.as_bytes());
    World::with(
        |settings| {
            let account = AccountSettings::demo();
            settings.accounts = vec![account.fixed("st-sample", vec![body])];
        },
        |_| (),
    )
    .await
}

/// The documented sample says 6 contacts and holds 2. Catches a page that is mended, and a list that is silently short.
#[tokio::test]
async fn the_documented_sample_passes_as_a_page_and_is_settled_as_a_list() {
    let world = sample(SAMPLE).await;
    let passed = world.stream("st-sample", "").await.ok();
    assert_eq!(passed.text(), SAMPLE);
    assert!(world.stream("st-sample", "?limit=10").await.is_hit());

    let settled = world.stream("st-sample", "?all=true").await.ok();
    let status = settled.header("merge-status");
    assert!(
        status.starts_with("settled; pages=1; records=2; calls=2; "),
        "{status}"
    );
    assert_eq!(settled.json()["totalResults"], 2);
    assert_eq!(records(settled.text()), records(SAMPLE));
    // The page is still there, and is not cut from such a list.
    let page = world.stream("st-sample", "").await.ok();
    assert!(page.is_hit() && page.text() == SAMPLE);
    assert!(!page.header("cache-status").contains("slice"));
}

/// With the total that it holds, the sample is a list. Catches a splice that touches a byte between its two records.
#[tokio::test]
async fn the_documented_sample_is_spliced_byte_for_byte() {
    let body = SAMPLE.replace("\"totalResults\": 6", "\"totalResults\": 2");
    let world = sample(&body).await;
    let answer = world.stream("st-sample", "?all=true").await.ok();
    let first = body.find("{\n            \"firstName\"").unwrap();
    let end = body.find("\n    ],").unwrap();
    let expected = format!(
        r#"{{"results":[{}],"skip":0,"limit":2,"hasMore":false,"totalPages":1,"totalResults":2}}"#,
        &body[first..end]
    );
    assert_eq!(answer.text(), expected);
    assert_eq!(records(answer.text()), records(SAMPLE));
    let second = world.stream("st-sample", "?skip=1&limit=1").await.ok();
    assert_eq!(records(second.text()), records(SAMPLE)[1..]);
}
