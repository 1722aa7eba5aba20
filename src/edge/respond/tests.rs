use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use http::header::CONTENT_ENCODING;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::Instant;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    contacts::{
        cache::encoding::{Begun, Content, Encoder},
        follow,
        list::List,
        page::Window,
        request::Coding,
        spent::{Phase, Spent},
        testing,
        verdict::{Checks, Verdict},
    },
    edge::caller::Asker,
    served::{Answer, Forward},
};

/// What the stage makes of an outcome below it.
async fn respond(method: Method, outcome: Result<Reply>) -> Responded {
    respond_to(http::Request::builder().method(method), outcome).await
}

async fn respond_to(request: http::request::Builder, outcome: Result<Reply>) -> Responded {
    let outcome = std::sync::Mutex::new(Some(outcome));
    let inner = service_fn(move |_: Inbound| {
        let outcome = outcome.lock().unwrap().take().unwrap();
        async move { outcome }
    });
    let request = request.body(()).unwrap();
    let inbound = Inbound {
        head: request.into_parts().0,
        has_body: false,
        header_lines: 0,
        id: RequestId::parse(b"req-1").unwrap(),
        trace: None,
        asker: Asker::Anyone(Arc::default()),
    };
    layer(Duration::from_secs(600))
        .layer(inner)
        .oneshot(inbound)
        .await
        .unwrap()
}

/// A response as it would be read on the wire: status, headers in alphabetical order, and what its body holds.
async fn written(responded: Responded) -> (String, Bytes) {
    let (head, body) = responded.response.into_parts();
    let mut lines: Vec<_> = head
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap()))
        .collect();
    lines.sort();
    let status = head.status.as_u16();
    let body = body.collect().await.unwrap().to_bytes();
    (format!("{status}\n{}", lines.concat()), body)
}

const BODY: &str = r#"{"results":[],"skip":0,"limit":10,"hasMore":false,"totalResults":0}"#;

fn answer<V: Content>(value: V, served: Served) -> Answer<V> {
    Answer {
        copy: testing::kept(value, Instant::now()),
        served,
        age: Duration::from_millis(4_999),
        ttl: if matches!(served, Served::Stale(_)) {
            -7
        } else {
            295
        },
        coding: Coding::Identity,
        encoded_by: None,
    }
}

fn page(served: Served) -> Result<Reply> {
    Ok(Reply::Page(answer(testing::decode(BODY, 0, 10), served)))
}

fn error(kind: Kind) -> Error {
    Error::new(kind, "what happened").because("what only the log may say")
}

#[tokio::test(start_paused = true)]
async fn a_page_says_where_it_came_from() {
    for (served, status) in [
        (Served::Hit, "hit; ttl=295"),
        (Served::Slice, "hit; ttl=295; detail=slice"),
        (Served::Stale(None), "hit; ttl=-7"),
        (
            Served::Stale(Some(Kind::Upstream5xx)),
            "hit; ttl=-7; detail=upstream_5xx",
        ),
        (
            Served::Fetched(Forward::Miss),
            "fwd=uri-miss; fwd-status=200; stored",
        ),
        (
            Served::Fetched(Forward::Stale),
            "fwd=stale; fwd-status=200; stored",
        ),
        (Served::Joined(Forward::Miss), "fwd=uri-miss; collapsed"),
        (Served::Joined(Forward::Stale), "fwd=stale; collapsed"),
    ] {
        let responded = respond(Method::GET, page(served)).await;
        assert_eq!(
            (responded.word, responded.resource),
            (served.word(), Resource::Page)
        );
        assert!(!responded.refused);
        let (head, body) = written(responded).await;
        // Nothing was spent on what was held already.
        let timing = match served {
            Served::Fetched(_) | Served::Joined(_) => {
                "server-timing: token;dur=0.0, queue;dur=0.0, upstream;dur=0.0\n"
            }
            _ => "",
        };
        assert_eq!(
            head,
            format!(
                "200\n\
                 age: 4\n\
                 cache-control: private, no-cache\n\
                 cache-status: contacts-gateway; {status}\n\
                 content-length: 67\n\
                 content-type: application/json\n\
                 etag: \"d24d04841543667a4e8d27dd85aba8a9\"\n\
                 {timing}\
                 vary: Accept, Accept-Encoding, Prefer\n\
                 x-request-id: req-1\n"
            )
        );
        assert_eq!(body, BODY);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_says_how_it_was_read() {
    let now = Instant::now();
    let pages = [0, 2, 4].map(|skip| testing::page(skip, 2, 5, now));
    for (verdict, how) in [
        (Verdict::Verified(Checks::Seam), "verified; checks=seam"),
        (Verdict::Verified(Checks::Twice), "verified; checks=twice"),
        (Verdict::Consistent, "consistent"),
        (Verdict::Settled, "settled"),
        (Verdict::Drifting, "drifting"),
    ] {
        let mut list = testing::splice(pages.to_vec(), now);
        (list.verdict, list.walked.calls, list.walked.gap) = (verdict, 4, -3);
        let gap = match verdict {
            Verdict::Settled => "; gap=-3",
            _ => "",
        };
        let expected = list.slice(Window { skip: 0, limit: 5 });
        let spent = Spent::default();
        for (phase, micros) in [
            (Phase::Token, 90),
            (Phase::Queue, 12_345),
            (Phase::Upstream, 401_000),
            (Phase::Merge, 120_000),
        ] {
            spent.add(phase, Duration::from_micros(micros));
        }
        let mut answer = answer(list, Served::Fetched(Forward::Miss));
        Arc::get_mut(&mut answer.copy).unwrap().timing = spent.timing();
        let responded = respond(Method::GET, Ok(Reply::List(answer))).await;
        assert_eq!(
            (responded.word, responded.resource),
            ("miss", Resource::List)
        );
        let (head, body) = written(responded).await;
        assert_eq!(
            head,
            format!(
                "200\n\
                 age: 4\n\
                 cache-control: private, no-cache\n\
                 cache-status: contacts-gateway; fwd=uri-miss; fwd-status=200; stored\n\
                 content-length: {}\n\
                 content-type: application/json\n\
                 etag: {}\n\
                 merge-status: {how}; pages=3; records=5; calls=4; oldest=4{gap}\n\
                 server-timing: token;dur=0.0, queue;dur=12.3, upstream;dur=401.0, merge;dur=120.0\n\
                 vary: Accept, Accept-Encoding, Prefer\n\
                 x-request-id: req-1\n",
                body.len(),
                std::str::from_utf8(expected.etag.as_bytes()).unwrap(),
            )
        );
        assert_eq!(body, expected.body);
    }
}

#[tokio::test(start_paused = true)]
async fn a_compressed_answer_says_so_and_is_another_representation() {
    let now = Instant::now();
    let compressed = |mut answer: Answer<List>| {
        let encoded = Encoder::default().encode(&**answer.copy);
        Begun::of(&answer.copy).unwrap().end(encoded);
        answer.coding = Coding::Gzip;
        answer
    };
    let list = compressed(answer(testing::list(50, now), Served::Hit));
    let (identity, encoding) = (list.copy.etag.clone(), list.copy.clone());
    let (head, body) = written(respond(Method::GET, Ok(Reply::List(list))).await).await;
    let etag = std::str::from_utf8(identity.as_bytes()).unwrap();
    assert_eq!(
        head,
        format!(
            "200\n\
             age: 4\n\
             cache-control: private, no-cache\n\
             cache-status: contacts-gateway; hit; ttl=295\n\
             content-encoding: gzip\n\
             content-length: {}\n\
             content-type: application/json\n\
             etag: {}-gzip\"\n\
             merge-status: verified; checks=seam; pages=1; records=50; calls=1; oldest=4\n\
             vary: Accept, Accept-Encoding, Prefer\n\
             x-request-id: req-1\n",
            body.len(),
            etag.strip_suffix('"').unwrap(),
        )
    );
    assert_eq!(body, encoding.encoding.made().unwrap().body);

    // Wanted so, but not there: the content as it is.
    let mut plain = answer(testing::list(50, now), Served::Hit);
    plain.coding = Coding::Gzip;
    let (head, body) = written(respond(Method::GET, Ok(Reply::List(plain))).await).await;
    assert!(!head.contains("content-encoding") && head.contains(etag));
    assert_eq!(body, testing::list(50, now).document().concat());
}

#[tokio::test(start_paused = true)]
async fn whoever_has_it_compressed_need_not_wait_for_it_to_be_compressed_here() {
    let tag = |etag: &str| format!("\"d24d04841543667a4e8d27dd85aba8a9{etag}\"");
    for (wanted, had, told) in [
        (Coding::Gzip, tag("-gzip"), Some((tag("-gzip"), true))),
        (Coding::Gzip, tag(""), Some((tag(""), false))),
        // Nothing there is compressed, and it is not said which one is meant.
        (Coding::Gzip, "*".to_owned(), Some((tag(""), false))),
        (Coding::Gzip, tag("-br"), None),
        (Coding::Identity, tag("-gzip"), None),
    ] {
        let mut plain = answer(testing::decode(BODY, 0, 10), Served::Hit);
        plain.coding = wanted;
        let request = http::Request::get("/").header("if-none-match", &had);
        let response = respond_to(request, Ok(Reply::Page(plain))).await.response;
        let coded = response.headers().contains_key(CONTENT_ENCODING);
        match told {
            Some((etag, gzip)) => {
                assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{had}");
                assert_eq!(response.headers()[ETAG], etag);
                assert_eq!(coded, gzip, "{had}");
            }
            None => {
                assert_eq!(response.status(), StatusCode::OK, "{had}");
                assert_eq!(response.headers()[ETAG], tag(""));
                assert!(!coded, "{had}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_gateways_own_texts_are_not_kept() {
    let text = Bytes::from_static(b"ok\n");
    let responded = respond(Method::GET, Ok(Reply::Text("text/plain", text))).await;
    assert_eq!(
        (responded.word, responded.resource),
        ("ok", Resource::Other)
    );
    let (head, body) = written(responded).await;
    assert_eq!(
        head,
        "200\n\
         cache-control: no-store\n\
         content-length: 3\n\
         content-type: text/plain\n\
         x-request-id: req-1\n"
    );
    assert_eq!(body, "ok\n");
}

#[tokio::test(start_paused = true)]
async fn a_problem_has_all_its_members_and_nothing_for_the_log() {
    let failed = error(Kind::Upstream5xx).served(Served::Fetched(Forward::Miss));
    let responded = respond(Method::GET, Err(failed)).await;
    assert_eq!(
        (responded.word, responded.resource),
        ("upstream_5xx", Resource::Other)
    );
    assert!(!responded.refused);
    let (head, body) = written(responded).await;
    assert_eq!(
        head,
        format!(
            "502\n\
             cache-control: no-store\n\
             cache-status: contacts-gateway; fwd=uri-miss\n\
             content-length: {}\n\
             content-type: application/problem+json\n\
             retry-after: 1\n\
             x-request-id: req-1\n",
            body.len()
        )
    );
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap(),
        json!({
            "type": "urn:contacts-gateway:problem:upstream_5xx",
            "title": "Upstream failed",
            "status": 502,
            "detail": "what happened",
            "code": "upstream_5xx",
            "request_id": "req-1",
            "retryable": true,
            "errors": [{ "msg": "what happened", "code": 502 }],
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_says_nothing_of_the_cache_and_nothing_of_waiting() {
    let responded = respond(Method::GET, Err(error(Kind::BadParameter))).await;
    assert!(responded.refused);
    let (head, body) = written(responded).await;
    assert_eq!(
        head,
        format!(
            "400\n\
             cache-control: no-store\n\
             content-length: {}\n\
             content-type: application/problem+json\n\
             x-request-id: req-1\n",
            body.len()
        )
    );
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(problem["retryable"], false);
}

#[tokio::test(start_paused = true)]
async fn an_error_says_whether_the_cache_was_asked() {
    for (how, status) in [
        (None, None),
        (Some(Served::Fetched(Forward::Miss)), Some("fwd=uri-miss")),
        (Some(Served::Fetched(Forward::Stale)), Some("fwd=stale")),
        (
            Some(Served::Joined(Forward::Miss)),
            Some("fwd=uri-miss; collapsed"),
        ),
        (
            Some(Served::Joined(Forward::Stale)),
            Some("fwd=stale; collapsed"),
        ),
    ] {
        let failed = error(Kind::UpstreamTimeout);
        let failed = match how {
            Some(how) => failed.served(how),
            None => failed,
        };
        let response = respond(Method::GET, Err(failed)).await.response;
        let header = response.headers().get(CACHE_STATUS);
        let expected = status.map(|status| format!("contacts-gateway; {status}"));
        assert_eq!(
            header.map(|value| value.to_str().unwrap()),
            expected.as_deref()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn waits_are_told_in_whole_seconds_and_never_too_short() {
    for (wait_ms, seconds) in [
        (0, "1"),
        (1, "1"),
        (1_000, "1"),
        (1_001, "2"),
        (29_500, "30"),
        (60_000, "60"),
    ] {
        let limited = error(Kind::UpstreamRateLimited).retry_after(Duration::from_millis(wait_ms));
        let response = respond(Method::GET, Err(limited)).await.response;
        assert_eq!(response.headers()[RETRY_AFTER], seconds, "{wait_ms} ms");
    }
    // Where a wait is known it is told, whatever kind of error it is.
    let known = error(Kind::CredentialsUnavailable).retry_after(Duration::from_secs(9));
    let response = respond(Method::GET, Err(known)).await.response;
    assert_eq!(response.headers()[RETRY_AFTER], "9");
}

#[tokio::test(start_paused = true)]
async fn headers_that_only_one_kind_has() {
    for kind in Kind::ALL {
        let response = respond(Method::GET, Err(error(*kind))).await.response;
        let header = |name| {
            response
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap())
        };
        let allow = (*kind == Kind::MethodNotAllowed).then_some("GET, HEAD");
        assert_eq!(header(ALLOW), allow, "{kind:?}");
        let close = matches!(kind, Kind::BodyNotAllowed | Kind::BadHost).then_some("close");
        assert_eq!(header(CONNECTION), close, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn head_is_answered_as_get_but_for_the_body() {
    let list = || {
        let list = testing::list(5, Instant::now());
        Ok(Reply::List(answer(list, Served::Hit)))
    };
    let outcomes: [(&str, &dyn Fn() -> Result<Reply>); 4] = [
        ("page", &|| page(Served::Hit)),
        ("list", &list),
        ("text", &|| {
            Ok(Reply::Text("text/plain", Bytes::from_static(b"ok\n")))
        }),
        ("problem", &|| Err(error(Kind::NotFound))),
    ];
    for (name, outcome) in outcomes {
        let (head_of_get, body) = written(respond(Method::GET, outcome()).await).await;
        let (head, nothing) = written(respond(Method::HEAD, outcome()).await).await;
        assert_eq!(head, head_of_get, "{name}");
        assert!(nothing.is_empty() && !body.is_empty(), "{name}");
    }
}

/// Catches lines that do not say what was applied to them, and say what they do not know yet.
#[tokio::test]
async fn lines_that_are_still_read_say_what_was_applied() {
    let running = || follow::Running {
        lines: futures_util::stream::empty().boxed(),
        forward: Forward::Request,
        joined: false,
        age: Duration::ZERO,
    };
    for (preference, expected) in [
        ("respond-async", ""),
        (
            "handling=strict, wait=5",
            "preference-applied: wait=5, handling=strict\n",
        ),
    ] {
        let request = http::Request::get("/").header("prefer", preference);
        let reply = Reply::Lines(Told::Running(running()));
        let (head, _) = respond_to(request, Ok(reply)).await.response.into_parts();
        let mut told: Vec<_> = head.headers.iter().collect();
        told.sort_by_key(|(name, _)| name.as_str());
        let told = told.into_iter().fold(String::new(), |told, (name, value)| {
            format!("{told}{name}: {}\n", value.to_str().unwrap())
        });
        assert_eq!(
            told,
            format!(
                "age: 0\n\
                 cache-control: private, no-cache\n\
                 cache-status: contacts-gateway; fwd=request; fwd-status=200\n\
                 content-type: application/x-ndjson\n\
                 {expected}\
                 vary: Accept, Accept-Encoding, Prefer\n\
                 x-request-id: req-1\n"
            )
        );
    }
}

/// Every code, its status, and a star where it comes with `Retry-After`: what callers are promised.
const CODES: &str = "
    400 bad_stream bad_account bad_parameter bad_host body_not_allowed
    401 unauthorized
    403 forbidden
    404 not_found unknown_account stream_not_found
    405 method_not_allowed
    406 not_acceptable
    414 uri_too_long
    431 headers_too_large
    409 restart_needed
    422 merge_too_large configuration_refused
    429 caller_throttled*
    500 internal
    502 upstream_unreachable* upstream_5xx* upstream_truncated* upstream_invalid_body upstream_wrong_type
    502 upstream_schema upstream_too_large upstream_encoding upstream_redirect upstream_protocol* upstream_4xx
    502 upstream_tls upstream_auth_rejected* upstream_tenant_mismatch pagination_inconsistent merge_unverified
    503 upstream_rate_limited* upstream_unavailable* budget_exhausted* credentials_unavailable
    503 token_service_unavailable* merge_in_progress* merge_drifting* merge_busy* overloaded* draining*
    504 upstream_timeout* only_if_cached
";

#[tokio::test(start_paused = true)]
async fn every_code_has_its_promised_status() {
    let mut promised = Vec::new();
    for line in CODES.lines() {
        let mut words = line.split_whitespace();
        let status = words.next();
        promised.extend(words.map(|code| format!("{} {code}", status.unwrap())));
    }
    let mut found = Vec::new();
    for kind in Kind::ALL {
        let responded = respond(Method::GET, Err(error(*kind))).await;
        let response = responded.response;
        let waits = response.headers().contains_key(RETRY_AFTER);
        let star = if waits { "*" } else { "" };
        found.push(format!(
            "{} {}{star}",
            response.status().as_u16(),
            kind.code()
        ));
        // A request that is refused for its own sake leaves no trace of what it said.
        assert_eq!(responded.refused, kind.side() == Side::Caller);
        let problem = response.into_body().collect().await.unwrap().to_bytes();
        let problem: Value = serde_json::from_slice(&problem).unwrap();
        assert_eq!(problem["retryable"], waits, "{kind:?}");
        assert_eq!(problem["title"], kind.title());
    }
    promised.sort();
    found.sort();
    assert_eq!(found, promised);
}
