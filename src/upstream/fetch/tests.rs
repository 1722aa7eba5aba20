use std::{convert::Infallible, io, sync::Mutex, time::Duration};

use bytes::BytesMut;
use bytesize::ByteSize;
use futures_util::{StreamExt, stream};
use http::{
    HeaderMap, Response,
    header::{CONTENT_ENCODING, RETRY_AFTER},
    response,
};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::time;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    contacts::{collection::Collection, testing},
    metrics::Registry,
};

type TestBody = UnsyncBoxBody<Bytes, io::Error>;

/// What a body does next.
#[derive(Clone, Debug)]
enum Step {
    Data(Bytes),
    Wait(Duration),
    Trailers,
    Break(io::ErrorKind),
}

/// A body that announces no length.
fn steps(steps: Vec<Step>) -> TestBody {
    let frames = stream::iter(steps).filter_map(async |step| match step {
        Step::Data(data) => Some(Ok(Frame::data(data))),
        Step::Trailers => Some(Ok(Frame::trailers(HeaderMap::new()))),
        Step::Break(kind) => Some(Err(io::Error::from(kind))),
        Step::Wait(time) => {
            time::sleep(time).await;
            None
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A body that announces its length.
fn whole(body: impl Into<Bytes>) -> TestBody {
    let never = |error: Infallible| match error {};
    Full::new(body.into()).map_err(never).boxed_unsync()
}

/// The head of a page.
fn head() -> response::Builder {
    Response::builder().header(CONTENT_TYPE, "application/json")
}

/// The stage, over one canned answer.
struct Bench {
    config: Config,
    /// How long the answer's head takes.
    delay: Duration,
    /// How long its token takes before that.
    unsigned: Duration,
    window: Window,
    metrics: Metrics,
    collection: Arc<Collection>,
    sent: Mutex<Option<Request<Empty<Bytes>>>>,
}

impl Default for Bench {
    fn default() -> Self {
        Self {
            config: Config::default(),
            delay: Duration::ZERO,
            unsigned: Duration::ZERO,
            window: Window { skip: 0, limit: 10 },
            metrics: Metrics::new(&Registry::new().unwrap()).unwrap(),
            collection: testing::collection("st-1"),
            sent: Mutex::default(),
        }
    }
}

impl Bench {
    async fn ask(&self, answer: Response<TestBody>) -> Result<Page> {
        self.ask_with(Ok(answer)).await
    }

    async fn ask_with(&self, answer: Result<Response<TestBody>>) -> Result<Page> {
        let answer = Mutex::new(Some(answer));
        let (answer, sent) = (Arc::new(answer), Arc::new(Mutex::new(None)));
        let (delay, unsigned) = (self.delay, self.unsigned);
        let seen = sent.clone();
        let inner = service_fn(move |attempt: Attempt| {
            *seen.lock().unwrap() = Some(attempt.request);
            let answer = answer.lock().unwrap().take().unwrap();
            async move {
                time::sleep(unsigned).await;
                let _ = attempt.began.send(());
                time::sleep(delay).await;
                answer
            }
        });
        let stage = layer(self.config.clone(), self.metrics.clone()).layer(inner);
        let fetch = testing::fetch(PageKey {
            epoch: self.collection.epoch(),
            collection: self.collection.clone(),
            window: self.window,
        });
        let outcome = stage.oneshot(fetch).await;
        *self.sent.lock().unwrap() = sent.lock().unwrap().take();
        outcome
    }

    /// What the stage makes of a page's own body under this head.
    async fn judged(&self, head: response::Builder) -> std::result::Result<(), Kind> {
        let answer = head.body(whole(testing::body(0, 10, 3))).unwrap();
        self.ask(answer)
            .await
            .map(drop)
            .map_err(|error| error.kind())
    }

    async fn kind(&self, body: TestBody) -> Kind {
        self.ask(head().body(body).unwrap())
            .await
            .unwrap_err()
            .kind()
    }

    fn counted(&self, word: &str) -> u64 {
        self.metrics
            .attempts
            .with_label_values(&["acme", word])
            .get()
    }
}

#[tokio::test(start_paused = true)]
async fn the_request_is_built_and_nothing_else_is_in_it() {
    let window = |skip, limit| Window { skip, limit };
    for (paging, window, query) in [
        (Paging::SkipLimit, window(0, 10), "skip=0&limit=10"),
        (Paging::SkipLimit, window(45, 7), "skip=45&limit=7"),
        (
            Paging::SkipLimit,
            window(Window::SKIP_MAX, 1),
            "skip=9007199254740991&limit=1",
        ),
        (Paging::PageLimit, window(0, 10), "page=1&limit=10"),
        (Paging::PageLimit, window(30, 10), "page=4&limit=10"),
    ] {
        let bench = Bench {
            config: Config {
                paging,
                ..Config::default()
            },
            window,
            ..Bench::default()
        };
        let body = testing::body(window.skip, window.limit, 3);
        bench.ask(head().body(whole(body)).unwrap()).await.unwrap();
        let sent = bench.sent.lock().unwrap().take().unwrap();
        assert_eq!(sent.method(), http::Method::GET);
        assert_eq!(
            sent.uri().to_string(),
            format!("https://platform.kore.ai/agentassist/api/v1/public/st-1/contacts?{query}")
        );
        let mut headers: Vec<_> = sent
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        headers.sort();
        assert_eq!(
            headers,
            [
                "accept-encoding: gzip",
                "accept: application/json",
                "accountid: acme",
                "content-type: application/json",
            ]
        );
        assert!(sent.body().is_end_stream());
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_keeps_upstreams_bytes_in_memory_of_exactly_their_size() {
    let body = testing::body(0, 10, 25);
    let half = body.len() / 2;
    // A piece as it arrives may be a small part of a large buffer.
    let buffer = Bytes::from([body.as_bytes(), &[0; 64 * 1024]].concat());
    let pieces = vec![
        Step::Data(buffer.slice(..half)),
        Step::Data(Bytes::new()),
        Step::Data(buffer.slice(half..body.len())),
        Step::Trailers,
    ];
    for sent in [
        whole(body.clone()),
        whole(buffer.slice(..body.len())),
        steps(pieces),
    ] {
        let asked_at = Instant::now();
        let bench = Bench {
            delay: Duration::from_secs(3),
            ..Bench::default()
        };
        let page = bench.ask(head().body(sent).unwrap()).await.unwrap();
        assert_eq!(page.body, body);
        // When it was asked for, and not when it came.
        assert_eq!(page.read_at, asked_at);
        let memory: BytesMut = page.body.try_into_mut().unwrap();
        assert_eq!(memory.capacity(), body.len());
    }
}

#[tokio::test(start_paused = true)]
async fn each_status_is_what_it_is() {
    for (statuses, kind) in [
        (&[200][..], None),
        (&[401], Some(Kind::UpstreamAuthRejected)),
        (&[404], Some(Kind::StreamNotFound)),
        (&[429], Some(Kind::UpstreamRateLimited)),
        (
            &[300, 301, 302, 303, 305, 307, 308],
            Some(Kind::UpstreamRedirect),
        ),
        (
            &[400, 402, 403, 405, 408, 412, 451, 499],
            Some(Kind::Upstream4xx),
        ),
        (&[500, 501, 502, 503, 504, 599], Some(Kind::Upstream5xx)),
        (
            &[100, 101, 201, 204, 206, 299, 304, 399, 600, 999],
            Some(Kind::UpstreamProtocol),
        ),
    ] {
        for status in statuses {
            let outcome = Bench::default().judged(head().status(*status)).await;
            assert_eq!(outcome.err(), kind, "{status}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_redirect_leads_nowhere_and_its_target_is_not_told() {
    let answer = head()
        .status(302)
        .header("location", "https://elsewhere.example/")
        .body(whole(""));
    let error = Bench::default().ask(answer.unwrap()).await.unwrap_err();
    assert!(!error.to_string().contains("elsewhere"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn only_json_that_was_not_coded_is_read() {
    let wrong = Err(Kind::UpstreamWrongType);
    for (types, outcome) in [
        (&["application/json"][..], Ok(())),
        (&["Application/JSON; charset=utf-8"], Ok(())),
        (&["application/json;charset=utf-8"], Ok(())),
        (&["application/json ; x=y"], Ok(())),
        (&[], wrong),
        (&[""], wrong),
        (&["text/html"], wrong),
        (&["text/html; application/json"], wrong),
        (&["application/jsonp"], wrong),
        (&["application/problem+json"], wrong),
        (&["application/json, text/html"], wrong),
        (&["application/json", "application/json"], wrong),
    ] {
        let mut head = Response::builder();
        for media_type in types {
            head = head.header(CONTENT_TYPE, *media_type);
        }
        assert_eq!(Bench::default().judged(head).await, outcome, "{types:?}");
    }
    let coded = Err(Kind::UpstreamEncoding);
    for (codings, outcome) in [
        (&["identity"][..], Ok(())),
        (&["Identity"], Ok(())),
        (&["gzip"], coded),
        (&["br"], coded),
        (&["gzip, gzip"], coded),
        (&["identity", "gzip"], coded),
        (&[""], coded),
    ] {
        let mut head = head();
        for coding in codings {
            head = head.header(CONTENT_ENCODING, *coding);
        }
        assert_eq!(Bench::default().judged(head).await, outcome, "{codings:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_as_large_as_the_cap_and_no_larger() {
    let body = Bytes::from(testing::body(0, 10, 10));
    let announced = || whole(body.clone());
    let unannounced = || {
        steps(
            body.chunks(100)
                .map(|piece| Step::Data(body.slice_ref(piece)))
                .collect(),
        )
    };
    for (less, kept) in [(0, true), (1, false)] {
        let bench = Bench {
            config: Config {
                page_bytes_max: ByteSize::b((body.len() - less) as u64),
                ..Config::default()
            },
            ..Bench::default()
        };
        for sent in [announced(), unannounced()] {
            let outcome = bench.ask(head().body(sent).unwrap()).await;
            let kind = outcome.map(|page| page.body).map_err(|error| error.kind());
            let expected = if kept {
                Ok(body.clone())
            } else {
                Err(Kind::UpstreamTooLarge)
            };
            assert_eq!(kind, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reading_stops_at_the_cap() {
    let bench = Bench {
        config: Config {
            page_bytes_max: ByteSize::kib(64),
            ..Config::default()
        },
        ..Bench::default()
    };
    let piece = Step::Data(Bytes::from_static(&[b' '; 16 * 1024]));
    // Five pieces are over the cap. What comes after them would take half a minute, and another error.
    let mut endless = vec![piece; 5];
    endless.extend([
        Step::Wait(Duration::from_secs(4)),
        Step::Break(io::ErrorKind::Other),
    ]);
    let began = Instant::now();
    assert_eq!(bench.kind(steps(endless)).await, Kind::UpstreamTooLarge);
    assert_eq!(began.elapsed(), Duration::ZERO);
    // An announcement is believed before anything is read.
    let lie = whole(vec![b' '; 64 * 1024 + 1]);
    assert_eq!(bench.kind(lie).await, Kind::UpstreamTooLarge);
}

#[tokio::test(start_paused = true)]
async fn each_timeout_ends_the_wait_exactly_then() {
    let body = Bytes::from(testing::body(0, 10, 3));
    let ms = Duration::from_millis;
    let drip = |pause: Duration, times: usize| {
        let mut drip = Vec::new();
        for at in 0..times {
            drip.extend([Step::Wait(pause), Step::Data(body.slice(at..=at))]);
        }
        drip.push(Step::Data(body.slice(times..)));
        steps(drip)
    };
    // Defaults: first byte 10 s, between bytes 5 s, the page 20 s.
    for (name, delay, body, outcome, took) in [
        (
            "a head just in time",
            ms(9_999),
            whole(body.clone()),
            true,
            ms(9_999),
        ),
        (
            "a head too late",
            ms(10_001),
            whole(body.clone()),
            false,
            ms(10_000),
        ),
        (
            "a pause just short enough",
            ms(0),
            drip(ms(4_999), 1),
            true,
            ms(4_999),
        ),
        (
            "a pause too long",
            ms(0),
            drip(ms(5_001), 1),
            false,
            ms(5_000),
        ),
        (
            "a stall after the head",
            ms(9_000),
            drip(ms(3_600_000), 1),
            false,
            ms(14_000),
        ),
        (
            "a drip that ends in time",
            ms(9_999),
            drip(ms(1_000), 10),
            true,
            ms(19_999),
        ),
        (
            "a drip without end",
            ms(0),
            drip(ms(4_000), 60),
            false,
            ms(20_000),
        ),
    ] {
        let bench = Bench {
            delay,
            ..Bench::default()
        };
        let began = Instant::now();
        let answer = bench.ask(head().body(body).unwrap()).await;
        assert_eq!(began.elapsed(), took, "{name}");
        let kind = answer.map(drop).map_err(|error| error.kind());
        let expected = if outcome {
            Ok(())
        } else {
            Err(Kind::UpstreamTimeout)
        };
        assert_eq!(kind, expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_truncated_and_one_that_is_not_http_says_so() {
    let some = Step::Data(Bytes::from_static(b"{\"results\":["));
    for (broken, kind) in [
        (io::ErrorKind::ConnectionReset, Kind::UpstreamTruncated),
        (io::ErrorKind::UnexpectedEof, Kind::UpstreamTruncated),
        (io::ErrorKind::BrokenPipe, Kind::UpstreamTruncated),
        (io::ErrorKind::InvalidData, Kind::UpstreamProtocol),
        (io::ErrorKind::InvalidInput, Kind::UpstreamProtocol),
        (io::ErrorKind::TimedOut, Kind::UpstreamTimeout),
    ] {
        let body = steps(vec![some.clone(), Step::Break(broken)]);
        assert_eq!(Bench::default().kind(body).await, kind, "{broken}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_no_page_of_contacts_is_refused() {
    for (body, kind) in [
        ("", Kind::UpstreamInvalidBody),
        ("{\"results\":[", Kind::UpstreamInvalidBody),
        ("null", Kind::UpstreamSchema),
        ("{\"errors\":[]}", Kind::UpstreamSchema),
        (&testing::body(10, 10, 30), Kind::UpstreamSchema),
        (&testing::body(0, 20, 30), Kind::UpstreamSchema),
    ] {
        assert_eq!(
            Bench::default().kind(whole(body.to_owned())).await,
            kind,
            "{body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_upstream_wrote_is_told() {
    for status in [200, 302, 400, 401, 404, 429, 500, 600] {
        let answer = head()
            .status(status)
            .header("x-canary", "canary")
            .body(whole("{\"canary\":\"canary\"}"));
        let error = Bench::default().ask(answer.unwrap()).await.unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn how_long_to_wait_is_at_least_a_second_and_at_most_a_window() {
    for (header, seconds) in [
        (None, None),
        (Some("0"), Some(1)),
        (Some("1"), Some(1)),
        (Some("30"), Some(30)),
        (Some(" 30 "), Some(30)),
        (Some("60"), Some(60)),
        (Some("61"), Some(60)),
        (Some("3600"), Some(60)),
        (Some("99999999999999999999999"), None),
        (Some("-5"), None),
        (Some("1.5"), None),
        (Some("soon"), None),
        (Some(""), None),
        (Some("Wed, 21 Oct 2026 07:28:00 GMT"), None),
    ] {
        let mut head = head().status(429);
        if let Some(value) = header {
            head = head.header(RETRY_AFTER, value);
        }
        let answer = head.body(whole("")).unwrap();
        let error = Bench::default().ask(answer).await.unwrap_err();
        assert_eq!(
            error.told_to_wait(),
            seconds.map(Duration::from_secs),
            "{header:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_clamp_is_passed_on_and_remembered() {
    for (paging, skip, echoed) in [(Paging::SkipLimit, 200, 200), (Paging::PageLimit, 200, 40)] {
        let bench = Bench {
            config: Config {
                paging,
                ..Config::default()
            },
            window: Window { skip, limit: 100 },
            ..Bench::default()
        };
        let clamped = testing::body(echoed, 20, 500);
        let answer = head().body(whole(clamped.clone())).unwrap();
        let page = bench.ask(answer).await.unwrap();
        assert_eq!((page.body, page.limit), (clamped.into(), 20));
        assert_eq!(bench.collection.limits.echo_of(100), Some(20));
    }
    // What is refused teaches nothing.
    let bench = Bench::default();
    assert_eq!(
        bench.kind(whole(testing::body(3, 5, 30))).await,
        Kind::UpstreamSchema
    );
    assert_eq!(bench.collection.limits.echo_of(10), None);
    assert_eq!(bench.judged(head()).await, Ok(()));
    assert_eq!(bench.collection.limits.echo_of(10), Some(10));
}

#[tokio::test(start_paused = true)]
async fn attempts_are_counted_by_what_came_of_them() {
    let bench = Bench {
        delay: Duration::from_secs(2),
        ..Bench::default()
    };
    for status in [200, 200, 401, 500] {
        let _ = bench.judged(head().status(status)).await;
    }
    bench.kind(whole("null")).await;
    bench
        .kind(steps(vec![Step::Wait(Duration::from_secs(6))]))
        .await;
    let lost = Error::new(Kind::UpstreamUnreachable, "nobody there");
    let unsent = Error::new(Kind::CredentialsUnavailable, "not sent").unsent();
    for error in [lost, unsent] {
        assert!(bench.ask_with(Err(error)).await.is_err());
    }
    for (word, count) in [
        ("ok", 2),
        ("upstream_auth_rejected", 1),
        ("upstream_5xx", 1),
        ("upstream_schema", 1),
        ("upstream_timeout", 1),
        ("upstream_unreachable", 1),
        // Without a credential nothing is sent.
        ("credentials_unavailable", 0),
    ] {
        assert_eq!(bench.counted(word), count, "{word}");
    }
    assert_eq!(bench.metrics.duration.get_sample_count(), 7);
    // Seven heads of 2 s, and 5 s until the stalled body was given up.
    assert_eq!(bench.metrics.duration.get_sample_sum().round(), 19.0);
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_most_at_once_wait_and_their_wait_is_no_timeout() {
    let config = Config {
        calls_max: 2,
        page_timeout: Duration::from_secs(8),
        ..Config::default()
    };
    let inner = service_fn(async |_: Attempt| {
        time::sleep(Duration::from_secs(5)).await;
        let body = whole(testing::body(0, 10, 3));
        Ok::<_, Error>(head().body(body).unwrap())
    });
    let stage = layer(config, Metrics::new(&Registry::new().unwrap()).unwrap()).layer(inner);
    let ask = || {
        let fetch = testing::fetch(testing::page_key("st-1", 0, 10));
        stage.clone().oneshot(fetch)
    };
    let began = Instant::now();
    let (one, two, three) = tokio::join!(ask(), ask(), ask());
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!(began.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn no_store_is_obeyed_and_nothing_else() {
    for (lines, expected) in [
        (&[][..], false),
        (&["no-store"], true),
        (&["No-Store"], true),
        (&["private, no-store"], true),
        (&["max-age=0 ,\tno-store , x"], true),
        (&["no-store=\"x\""], true),
        (&["private", "no-store"], true),
        // Malformed, and not kept to be safe.
        (&["x=\"y, no-store"], true),
        (&["no-cache, private, max-age=0, must-revalidate"], false),
        (&["no-stored", "no_store", "x=no-store"], false),
    ] {
        let mut head = head().header("pragma", "no-cache").header("expires", "0");
        for line in lines {
            head = head.header("cache-control", *line);
        }
        let answer = head.body(whole(testing::body(0, 10, 3))).unwrap();
        let page = Bench::default().ask(answer).await.unwrap();
        assert_eq!(page.no_store, expected, "{lines:?}");
    }
}

/// A page with one record of another stream.
fn foreign() -> Response<TestBody> {
    let body = testing::body(0, 10, 3);
    let body = body.replacen(
        "{\"firstName\"",
        "{\"instanceBotId\":\"st-2\",\"firstName\"",
        1,
    );
    head().body(whole(body)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn another_tenants_records_are_observed_or_refused_and_counted_either_way() {
    let mut bench = Bench::default();
    let page = bench.ask(foreign()).await.unwrap();
    assert_eq!((page.foreign, page.records.len()), (1, 3));
    bench.config.tenant_check = TenantCheck::Reject;
    let error = bench.ask(foreign()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UpstreamTenantMismatch);
    assert_eq!(error.cause(), Some("1 of 3 records"));
    assert!(error.again().is_none());
    let ours = head().body(whole(testing::body(0, 10, 3))).unwrap();
    assert_eq!(bench.ask(ours).await.unwrap().foreign, 0);
    let mismatches = &bench.metrics.tenant_mismatches;
    assert_eq!(mismatches.with_label_values(&["acme"]).get(), 2);
    assert_eq!(bench.counted("upstream_tenant_mismatch"), 1);
    assert_eq!(bench.counted("ok"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_token_that_is_waited_for_is_none_of_upstreams_time() {
    let slow = |delay| Bench {
        delay: Duration::from_secs(delay),
        unsigned: Duration::from_secs(60),
        ..Bench::default()
    };
    let answer = || head().body(whole(testing::body(0, 10, 3))).unwrap();
    let page = slow(9).ask(answer()).await.unwrap();
    assert_eq!(page.read_at.elapsed(), Duration::from_secs(9));
    let began = Instant::now();
    let error = slow(11).ask(answer()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UpstreamTimeout);
    assert_eq!(began.elapsed(), Duration::from_secs(70));
}
