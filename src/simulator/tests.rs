//! The simulator over real sockets: what a gateway would see.

mod changes;
mod credentials;
mod faults;
mod raw;

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::*;

const PATH: &str = "/agentassist/api/v1/public/st-7dc994f0-4436-5134-9fa8-000000000000/contacts";
const HOUR: Duration = Duration::from_secs(3600);

struct Got {
    status: StatusCode,
    headers: HeaderMap,
    /// `None` when it ended before its end.
    body: Option<Bytes>,
}

impl Got {
    fn text(&self) -> &str {
        self.body
            .as_deref()
            .and_then(|body| std::str::from_utf8(body).ok())
            .unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn ids(&self) -> Vec<String> {
        let page = self.json();
        let ids = page["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|record| record["id"].to_string());
        ids.collect()
    }
}

fn client(http2: bool) -> Client<HttpConnector, Empty<Bytes>> {
    Client::builder(TokioExecutor::new())
        .http2_only(http2)
        .build_http()
}

async fn send(http2: bool, request: Request<Empty<Bytes>>) -> Got {
    let response = client(http2).request(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.ok().map(|body| body.to_bytes());
    Got {
        status: head.status,
        headers: head.headers,
        body,
    }
}

fn request(kore: &Simulator, path_and_query: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("{}{path_and_query}", kore.base_url()))
        .header("accountId", DEMO_ACCOUNT_ID)
        .header("auth", kore.token(DEMO_ACCOUNT_ID, HOUR))
        .body(Empty::new())
        .unwrap()
}

async fn get(kore: &Simulator, query: &str) -> Got {
    send(false, request(kore, &format!("{PATH}{query}"))).await
}

async fn start(settings: Settings) -> Simulator {
    Simulator::start(settings).await.unwrap()
}

#[tokio::test]
async fn a_page_is_the_envelope_around_the_records_over_both_versions() {
    let kore = start(Settings::default()).await;
    let records: Vec<String> = (5..8)
        .map(|index| String::from_utf8(contact(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, index)).unwrap())
        .collect();
    let expected = format!(
        r#"{{"results":[{}],"skip":5,"limit":3,"hasMore":true,"totalPages":334,"totalResults":1000}}"#,
        records.join(",")
    );
    for http2 in [false, true] {
        let got = send(http2, request(&kore, &format!("{PATH}?skip=5&limit=3"))).await;
        assert_eq!(got.status, StatusCode::OK);
        assert_eq!(
            got.headers["content-type"],
            "application/json; charset=utf-8"
        );
        assert_eq!(got.headers["content-length"], expected.len().to_string());
        assert_eq!(got.text(), expected);
    }
    let seen = kore.requests();
    assert_eq!(
        seen.iter().map(|seen| seen.version).collect::<Vec<_>>(),
        [Version::HTTP_11, Version::HTTP_2]
    );
    assert_eq!(
        (seen[0].path.as_str(), seen[0].query.as_str()),
        (PATH, "skip=5&limit=3")
    );
    assert_eq!(seen[0].header("accountId"), DEMO_ACCOUNT_ID);
    let counts = kore.calls(DEMO_ACCOUNT_ID);
    assert_eq!(
        (counts.total, counts.served, counts.busiest_minute),
        (2, 2, 2)
    );
}

#[tokio::test]
async fn the_end_of_a_stream_and_beyond() {
    let kore = start(Settings::default()).await;
    let last = get(&kore, "?skip=995").await.json();
    assert_eq!(
        (last["results"].as_array().unwrap().len(), &last["hasMore"]),
        (5, &Value::Bool(false))
    );
    let beyond = get(&kore, "?skip=9007199254740991").await.json();
    assert_eq!(
        (beyond["results"].as_array().unwrap().len(), &beyond["skip"]),
        (0, &9_007_199_254_740_991u64.into())
    );
}

#[tokio::test]
async fn fixed_bodies_are_served_as_they_are() {
    let bodies = || {
        vec![
            Bytes::from_static(b"{ \"first\": 1 }\n"),
            Bytes::from_static(b"second"),
        ]
    };
    let account = AccountSettings {
        streams: vec![],
        ..AccountSettings::demo()
    }
    .fixed(DEMO_STREAM_ID, bodies());
    let kore = start(Settings {
        accounts: vec![account],
        ..Settings::default()
    })
    .await;
    assert_eq!(get(&kore, "").await.text(), "{ \"first\": 1 }\n");
    assert_eq!(get(&kore, "?skip=20&limit=20").await.text(), "second");
    assert_eq!(get(&kore, "?skip=900").await.text(), "second");
}

#[tokio::test]
async fn a_large_stream_is_read_at_its_far_end_in_either_style_and_indented() {
    let account = AccountSettings {
        streams: vec![],
        ..AccountSettings::demo()
    };
    let settings = Settings {
        accounts: vec![account.stream(DEMO_STREAM_ID, CONTACTS_MAX)],
        paging: Paging::PageLimit,
        pretty: true,
        ..Settings::default()
    };
    let kore = start(settings).await;
    let got = get(&kore, "?page=10000&limit=100").await;
    assert!(
        got.text()
            .starts_with("{\n    \"results\": [\n        {\n            \"firstName\": \"")
    );
    let page = got.json();
    assert_eq!(page["skip"], 999_900);
    assert_eq!(page["hasMore"], false);
    let last = contact(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, CONTACTS_MAX - 1);
    assert_eq!(
        page["results"][99],
        serde_json::from_slice::<Value>(&last).unwrap()
    );
}

#[tokio::test]
async fn a_taken_port_is_said_to_be_taken() {
    let first = start(Settings::default()).await;
    let settings = Settings {
        listen: first.addr(),
        ..Settings::default()
    };
    let error = Simulator::start(settings).await.unwrap_err().to_string();
    assert!(
        error.starts_with(&format!(
            "the simulator cannot listen on {}: ",
            first.addr()
        )),
        "{error}"
    );
}

#[tokio::test]
async fn latency_and_jitter_hold_every_answer_back() {
    let kore = start(Settings {
        latency: Duration::from_millis(60),
        jitter: Duration::from_millis(20),
        ..Settings::default()
    })
    .await;
    let before = tokio::time::Instant::now();
    get(&kore, "").await;
    assert!(before.elapsed() >= Duration::from_millis(60));
}

#[tokio::test]
async fn requests_are_remembered_up_to_their_bound() {
    let kore = start(Settings {
        requests_max: 2,
        ..Settings::default()
    })
    .await;
    for skip in 0..4 {
        get(&kore, &format!("?skip={skip}")).await;
    }
    let queries = kore.requests().into_iter().map(|seen| seen.query);
    assert_eq!(queries.collect::<Vec<_>>(), ["skip=2", "skip=3"]);
    kore.clear_requests();
    assert!(kore.requests().is_empty());
}

#[tokio::test]
async fn each_refusal_of_credentials() {
    let accounts = vec![
        AccountSettings::demo(),
        AccountSettings::numbered(1).stream("st-other", 3),
    ];
    let kore = start(Settings {
        accounts: accounts.clone(),
        ..Settings::default()
    })
    .await;
    let good = kore.token(DEMO_ACCOUNT_ID, HOUR);
    let other = kore.token(&accounts[1].account_id, HOUR);
    let (head, signature) = good.rsplit_once('.').unwrap();
    let tampered = format!("{head}.{}", signature.chars().rev().collect::<String>());
    let expired = kore.token(DEMO_ACCOUNT_ID, Duration::ZERO);
    let ask = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(format!("{}{path}", kore.base_url()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let got = send(false, request.body(Empty::new()).unwrap()).await;
        (
            got.status.as_u16(),
            got.json()["errors"][0]["msg"].as_str().unwrap().to_owned(),
        )
    };
    let (id, wrong) = ("accountid", (401, "Invalid SDK credentials".to_owned()));
    assert_eq!(ask(PATH, &[(id, DEMO_ACCOUNT_ID)]).await, wrong, "no token");
    for (token, why) in [
        (&tampered, "tampered"),
        (&other, "another app's"),
        (&expired, "expired"),
    ] {
        assert_eq!(
            ask(PATH, &[(id, DEMO_ACCOUNT_ID), ("auth", token)]).await,
            wrong,
            "{why}"
        );
    }
    let not_a_token = (401, "Invalid JWT token".to_owned());
    assert_eq!(
        ask(PATH, &[(id, DEMO_ACCOUNT_ID), ("auth", "nonsense")]).await,
        not_a_token
    );
    assert_eq!(ask(PATH, &[("auth", "nonsense")]).await, not_a_token);
    let stream = "/agentassist/api/v1/public/st-other/contacts";
    assert_eq!(
        ask(stream, &[(id, DEMO_ACCOUNT_ID), ("auth", &good)]).await,
        wrong,
        "another stream"
    );
    assert_eq!(
        ask(PATH, &[(id, "unknown"), ("auth", &good)]).await,
        wrong,
        "unknown account"
    );
    assert_eq!(ask(PATH, &[("auth", &good)]).await, wrong, "no account");
    assert_eq!(
        ask(
            PATH,
            &[
                (id, DEMO_ACCOUNT_ID),
                (id, DEMO_ACCOUNT_ID),
                ("auth", &good)
            ]
        )
        .await,
        wrong,
        "twice"
    );
    assert_eq!(kore.calls(DEMO_ACCOUNT_ID).denied, 6);
    assert_eq!(kore.calls(&accounts[1].account_id), Counts::default());
    assert_eq!(ask("/elsewhere", &[]).await.0, 404);
    assert_eq!(get(&kore, "?limit=x").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_call_after_the_last_is_refused_with_or_without_a_time() {
    for retry_after in [true, false] {
        let limit = RateLimit {
            per_minute: 2,
            retry_after,
            window: Window::Sliding,
        };
        let kore = start(Settings {
            rate_limit: Some(limit),
            ..Settings::default()
        })
        .await;
        for _ in 0..2 {
            assert_eq!(get(&kore, "").await.status, StatusCode::OK);
        }
        let refused = get(&kore, "").await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(
            refused
                .text()
                .contains("You've exceeded the per-minute rate limit.")
        );
        let header = refused
            .headers
            .get("retry-after")
            .map(|value| value.to_str().unwrap().parse::<u64>().unwrap());
        assert_eq!(header.is_some(), retry_after);
        assert!(header.is_none_or(|seconds| (50..=60).contains(&seconds)));
        let counts = kore.calls(DEMO_ACCOUNT_ID);
        assert_eq!((counts.total, counts.served, counts.refused), (3, 2, 1));
        assert_eq!(kore.busiest_minute(DEMO_ACCOUNT_ID), 3);
    }
}

#[tokio::test]
async fn it_ends_when_stopped_or_dropped_even_in_the_middle_of_a_delay() {
    let kore = start(Settings::default()).await;
    let addr = kore.addr();
    kore.fault_always("delay=1h".parse().unwrap());
    for http2 in [false, true] {
        let request = request(&kore, PATH);
        tokio::spawn(client(http2).request(request));
    }
    while kore.calls(DEMO_ACCOUNT_ID).total < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(kore.calls(DEMO_ACCOUNT_ID).most_at_once, 2);
    tokio::time::timeout(Duration::from_secs(5), kore.stop())
        .await
        .expect("it stops at once");
    let again = start(Settings {
        listen: addr,
        ..Settings::default()
    })
    .await;
    let tasks = again.tasks.clone();
    drop(again);
    tasks.tracker.close();
    tokio::time::timeout(Duration::from_secs(5), tasks.tracker.wait())
        .await
        .expect("it ends at once");
}
