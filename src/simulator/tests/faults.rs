//! Faults over real sockets, and the control interface that sets them.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

#[tokio::test]
async fn each_fault_of_the_page_tells_its_lie_and_no_other() {
    let kore = start(Settings {
        rate_limit: None,
        ..Settings::default()
    })
    .await;
    let honest = get(&kore, "?skip=20&limit=5").await;
    let id = |index| {
        serde_json::from_slice::<Value>(&contact(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, index)).unwrap()["id"].to_string()
    };
    let ids = |indices: &[u64]| indices.iter().map(|&index| id(index)).collect::<Vec<_>>();
    assert_eq!(honest.ids(), ids(&[20, 21, 22, 23, 24]));

    for (fault, key, value) in [
        ("has-more=false", "hasMore", Value::Bool(false)),
        ("total=+3", "totalResults", 1003.into()),
        ("total=7", "totalResults", 7.into()),
        ("total-pages=0", "totalPages", 0.into()),
        ("echo-skip=-20", "skip", 0.into()),
        ("echo-limit=+1", "limit", 6.into()),
    ] {
        kore.fault_next(1, fault.parse().unwrap());
        let mut expected = honest.json();
        expected[key] = value;
        assert_eq!(
            get(&kore, "?skip=20&limit=5").await.json(),
            expected,
            "{fault}"
        );
    }
    for (fault, indices) in [
        ("extra-records=2", &[20u64, 21, 22, 23, 24, 25, 26][..]),
        ("shift=-1", &[19, 20, 21, 22, 23]),
        ("shift=1", &[21, 22, 23, 24, 25]),
        ("stuck", &[0, 1, 2, 3, 4]),
        ("twice", &[20, 20, 22, 23, 24]),
        ("no-records", &[]),
    ] {
        kore.fault_next(1, fault.parse().unwrap());
        assert_eq!(
            get(&kore, "?skip=20&limit=5").await.ids(),
            ids(indices),
            "{fault}"
        );
    }
    for (fault, key) in [
        ("other-account", "accountId"),
        ("other-stream", "instanceBotId"),
    ] {
        kore.fault_next(1, fault.parse().unwrap());
        let (bent, honest) = (get(&kore, "?skip=20&limit=5").await.json(), honest.json());
        assert_ne!(bent["results"][0][key], honest["results"][0][key]);
        assert_eq!(bent["results"][0]["id"], honest["results"][0]["id"]);
        assert_eq!(bent["results"][1], honest["results"][1]);
    }
    assert_eq!(
        get(&kore, "?skip=20&limit=5").await.text(),
        honest.text(),
        "healed"
    );
}

#[tokio::test]
async fn each_fault_of_the_head() {
    let kore = start(Settings::default()).await;
    let under = async |fault: &str| {
        kore.fault_next(1, fault.parse().unwrap());
        get(&kore, "").await
    };
    let got = under("status=503;header=Retry-After: 7").await;
    assert_eq!(
        (
            got.status.as_u16(),
            got.headers["retry-after"].to_str().unwrap()
        ),
        (503, "7")
    );
    for status in [204, 206, 304, 401, 404, 500] {
        assert_eq!(
            under(&format!("status={status}")).await.status.as_u16(),
            status
        );
    }
    let got = under("rate-limited=400").await;
    assert!(got.status.as_u16() == 400 && got.text().contains("rate limit"));
    let got = under("redirect=http://127.0.0.1:9/x;status=307").await;
    assert_eq!(
        (
            got.status.as_u16(),
            got.headers["location"].to_str().unwrap()
        ),
        (307, "http://127.0.0.1:9/x")
    );
    assert_eq!(
        under("content-type=text/plain").await.headers["content-type"],
        "text/plain"
    );
    assert!(
        !under("content-type=none")
            .await
            .headers
            .contains_key("content-type")
    );
    let got = under("html").await;
    assert!(
        got.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/html")
            && got.text().starts_with("<!")
    );
    assert_eq!(
        under("encoding=gzip").await.headers["content-encoding"],
        "gzip"
    );
    let before = tokio::time::Instant::now();
    assert_eq!(under("delay=150ms").await.status, StatusCode::OK);
    assert!(before.elapsed() >= Duration::from_millis(150));
    assert_eq!(kore.calls(DEMO_ACCOUNT_ID).faulted, 14);
}

/// Everything that comes back over one connection, to its end.
async fn raw(kore: &Simulator) -> String {
    let mut stream = TcpStream::connect(kore.addr()).await.unwrap();
    let token = kore.token(DEMO_ACCOUNT_ID, HOUR);
    let head = format!(
        "GET {PATH} HTTP/1.1\r\nhost: x\r\naccountId: {DEMO_ACCOUNT_ID}\r\nauth: {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn a_cut_body_arrives_in_part_and_its_connection_ends() {
    let kore = start(Settings::default()).await;
    let whole = get(&kore, "").await.text().to_owned();

    kore.fault_next(1, Fault::Truncate { keep: Some(100) });
    let got = raw(&kore).await;
    let (head, body) = got.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 200 OK")
            && head.contains(&format!("content-length: {}", whole.len())),
        "{head}"
    );
    assert_eq!(body, &whole[..100]);

    kore.fault_next(1, Fault::TruncateChunked { keep: Some(100) });
    let got = raw(&kore).await;
    let (head, body) = got.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains("transfer-encoding: chunked") && !head.contains("content-length"),
        "{head}"
    );
    assert_eq!(body, format!("64\r\n{}\r\n", &whole[..100]));

    kore.fault_next(1, Fault::Truncate { keep: Some(0) });
    let got = raw(&kore).await;
    assert!(got.ends_with("\r\n\r\n"), "a head and no body: {got}");

    for http2 in [false, true] {
        kore.fault_next(1, Fault::Truncate { keep: None });
        let got = send(http2, request(&kore, PATH)).await;
        assert!(got.status == StatusCode::OK && got.body.is_none());
    }
}

#[tokio::test]
async fn an_oversized_body_is_valid_and_exactly_as_large() {
    let kore = start(Settings::default()).await;
    for (fault, announced) in [("oversize=9MiB", true), ("oversize-chunked=9MiB", false)] {
        kore.fault_next(1, fault.parse().unwrap());
        let got = get(&kore, "").await;
        assert_eq!(got.body.as_ref().map(Bytes::len), Some(9 << 20));
        assert_eq!(got.headers.contains_key("content-length"), announced);
        assert!(got.json()["results"].is_array());
    }
}

#[tokio::test]
async fn bombs_are_small_on_the_wire_over_both_versions() {
    let kore = start(Settings::default()).await;
    for (fault, coding, most) in [
        ("gzip-bomb=1GiB", "gzip", 1_100_000),
        ("gzip-bomb-twice=1GiB", "gzip, gzip", 1_500),
        ("gzip", "gzip", 10_000),
        ("gzip-twice", "gzip, gzip", 10_000),
    ] {
        for http2 in [false, true] {
            kore.fault_next(1, fault.parse().unwrap());
            let got = send(http2, request(&kore, PATH)).await;
            assert_eq!(got.headers["content-encoding"], coding, "{fault}");
            let body = got.body.unwrap();
            assert_eq!(
                got.headers["content-length"],
                body.len().to_string(),
                "{fault}"
            );
            assert!(
                body.starts_with(&[0x1f, 0x8b]) && body.len() < most,
                "{fault}"
            );
        }
    }
}

#[tokio::test]
async fn curl_breaks_and_heals_a_running_one() {
    let kore = start(Settings::default()).await;
    let control = async |method: &str, path: &str, form: &str| {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", kore.base_url()));
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let response = client
            .request(request.body(Bytes::from(form.to_owned()).into()).unwrap())
            .await
            .unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (
            status,
            serde_json::from_slice::<Value>(&body).unwrap_or(Value::Null),
        )
    };
    let (status, shown) = control("POST", "/_simulator/faults?fault=status=503&next=2", "").await;
    assert_eq!(
        (status, &shown["faults"][0]["faults"][0]),
        (200, &Value::from("status=503"))
    );
    assert_eq!(get(&kore, "").await.status, StatusCode::SERVICE_UNAVAILABLE);
    control("DELETE", "/_simulator/faults", "").await;
    assert_eq!(get(&kore, "").await.status, StatusCode::OK);

    let form = format!("share=1&stream={DEMO_STREAM_ID}&fault=status%3D500%3Bbody%3Da%20b");
    assert_eq!(control("POST", "/_simulator/faults", &form).await.0, 200);
    assert_eq!(get(&kore, "").await.text(), "a b");

    let (status, shown) = control("POST", "/_simulator/faults?fault=nope", "").await;
    assert!(
        status == 400
            && shown["error"]
                .as_str()
                .unwrap()
                .contains("there are status, rate-limited")
    );
    assert_eq!(
        control("POST", "/_simulator/faults", &"x".repeat(20_000))
            .await
            .0,
        400
    );
    assert_eq!(control("PUT", "/_simulator/faults", "").await.0, 405);
    assert_eq!(control("GET", "/_simulator/nowhere", "").await.0, 404);
    let (_, counts) = control("GET", "/_simulator/calls", "").await;
    assert_eq!(counts["accounts"][DEMO_ACCOUNT_ID]["faulted"], 2);
    assert_eq!(
        counts["accounts"][DEMO_ACCOUNT_ID]["total"], 3,
        "control calls are not counted"
    );
}

#[tokio::test]
async fn other_accounts_and_streams_are_spared() {
    let account = AccountSettings::demo().others(3);
    let kore = start(Settings {
        accounts: vec![account],
        ..Settings::default()
    })
    .await;
    kore.add_faults(Rule::always(Fault::Null).stream("st-sick"));
    let ask = async |stream: &str| {
        send(
            false,
            request(
                &kore,
                &format!("/agentassist/api/v1/public/{stream}/contacts"),
            ),
        )
        .await
    };
    assert_eq!(ask("st-sick").await.text(), "null");
    assert_eq!(ask("st-well").await.json()["totalResults"], 3);
    assert_eq!(ask(DEMO_STREAM_ID).await.json()["totalResults"], 1000);
}
