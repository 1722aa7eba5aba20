use std::{
    convert::Infallible,
    io::Write,
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use flate2::write::GzEncoder;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tower::service_fn;

use super::{
    credential::Credential,
    testing::{Bench, given, wall, with_next},
    watch::Watched,
    *,
};
use crate::{
    contacts::{
        account::{self, Jti},
        collection::Collection,
        ids::StreamId,
    },
    error::{Again, Kind},
    upstream::secret::Sources,
};

type TestBody = UnsyncBoxBody<Bytes, Infallible>;

const DENIED: &str = r#"{"errors":[{"msg":"Invalid SDK credentials","code":4002}]}"#;
const NO_JTI: &str =
    r#"{"errors":[{"msg":"error verifying the jwt: jti is required","code":401}]}"#;

fn answer(status: u16, body: &'static str) -> Response<TestBody> {
    let body = Full::new(Bytes::from_static(body.as_bytes())).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}

/// An upstream that judges the text of a token.
type Judge = fn(&str) -> Response<TestBody>;

/// Asks for a stream once, and a second time where that may help, as the stage above does.
async fn ask(bench: &Bench, judge: Judge, stream: &str) -> Result<u16> {
    let mut outcome = once(bench, judge, stream).await;
    if outcome
        .as_ref()
        .is_err_and(|error| error.again() == Some(Again::Resigned))
    {
        outcome = once(bench, judge, stream).await;
    }
    outcome
}

async fn once(bench: &Bench, judge: Judge, stream: &str) -> Result<u16> {
    let upstream = service_fn(move |request: Request<Empty<Bytes>>| async move {
        let token = &request.headers()[AUTH];
        assert!(token.is_sensitive());
        Ok::<_, Error>(judge(token.to_str().unwrap()))
    });
    let attempt = Attempt {
        collection: Arc::new(Collection::new(
            bench.account.clone(),
            StreamId::parse(stream).unwrap(),
        )),
        request: Request::get("/").body(Empty::new()).unwrap(),
        began: tokio::sync::oneshot::channel().0,
    };
    let stage = layer(bench.credentials.clone(), wall).layer(upstream);
    let response = stage.oneshot(attempt).await?;
    Ok(response.status().as_u16())
}

/// Whether a token was signed with this secret.
fn signed_with(token: &str, secret: &str) -> bool {
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    validation.validate_exp = false;
    validation.required_spec_claims.clear();
    let key = jsonwebtoken::DecodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::decode::<serde_json::Value>(token, &key, &validation).is_ok()
}

fn takes(token: &str, secrets: &[&str]) -> Response<TestBody> {
    if secrets.iter().any(|secret| signed_with(token, secret)) {
        answer(200, "{}")
    } else {
        answer(401, DENIED)
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_ends_here_and_other_answers_pass() {
    let bench = Bench::new();
    for status in [200, 400, 403, 404, 429, 500] {
        let judge: Judge = match status {
            200 => |_| answer(200, "{}"),
            400 => |_| answer(400, "{}"),
            403 => |_| answer(403, "{}"),
            404 => |_| answer(404, "{}"),
            429 => |_| answer(429, "{}"),
            _ => |_| answer(500, "{}"),
        };
        assert_eq!(once(&bench, judge, "st-1").await.unwrap(), status);
    }
    let error = once(&bench, |_| answer(401, DENIED), "st-1")
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::UpstreamAuthRejected);
    assert_eq!(error.again(), Some(Again::Resigned));
    let shown = format!("{error:?} {error}");
    assert!(!shown.contains("SDK") && !shown.contains("4002"), "{shown}");
    assert_eq!(bench.minted(), 1);
    let error = once(&bench, |_| answer(401, DENIED), "st-1")
        .await
        .unwrap_err();
    assert_eq!((error.again(), bench.minted()), (None, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_read_to_a_bound_in_bytes_and_time_and_decoded() {
    const SCOPE: &str = "Permission denied. Scope is incorrect!";
    let reason = async |response| Reason::read(&text(response).await);
    assert_eq!(reason(answer(401, SCOPE)).await, Reason::Scope);

    let first = stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from(SCOPE)))]);
    let endless = StreamBody::new(futures_util::StreamExt::chain(first, stream::pending()));
    let began = Instant::now();
    assert_eq!(
        reason(Response::new(endless.boxed_unsync())).await,
        Reason::Unsaid
    );
    assert_eq!(began.elapsed(), TEXT_WITHIN);

    let large = Bytes::from([SCOPE.as_bytes(), &[b' '; 1 << 20]].concat());
    let large = Full::new(large).boxed_unsync();
    assert_eq!(reason(Response::new(large)).await, Reason::Unsaid);

    let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(SCOPE.as_bytes()).unwrap();
    let coded = Full::new(Bytes::from(encoder.finish().unwrap())).boxed_unsync();
    let coded = Response::builder()
        .header("content-encoding", "gzip")
        .body(coded)
        .unwrap();
    assert_eq!(reason(coded).await, Reason::Scope);
}

#[tokio::test(start_paused = true)]
async fn the_switch_to_jti_costs_no_answer() {
    let bench = Bench::new();
    let judge: Judge = |token| {
        static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let decoded = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(token);
        let jti = decoded.unwrap().claims["jti"].as_str().map(str::to_owned);
        let Some(jti) = jti else {
            return answer(401, NO_JTI);
        };
        let mut seen = SEEN.lock().unwrap();
        assert!(!seen.contains(&jti), "a jti twice");
        seen.push(jti);
        answer(200, "{}")
    };
    let asking = (0..500).map(|_| ask(&bench, judge, "st-1"));
    for outcome in futures_util::future::join_all(asking).await {
        assert_eq!(outcome.unwrap(), 200);
    }
    for _ in 0..10 {
        assert_eq!(once(&bench, judge, "st-1").await.unwrap(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn rotations_fail_nobody_while_both_secrets_are_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acme");
    std::fs::write(&path, "s0").unwrap();
    let sources = Sources {
        first: super::super::secret::Source::File(path.clone()),
        next: None,
    };
    let bench = Bench::with(sources, |told| told.jti = Jti::Auto);
    static ROUND: AtomicU32 = AtomicU32::new(0);
    let judge: Judge = |token| {
        let round = ROUND.load(Ordering::Relaxed);
        let (old, new) = (format!("s{}", round.saturating_sub(1)), format!("s{round}"));
        takes(token, &[&old, &new])
    };
    for round in 1..=200 {
        // Upstream has the new secret first, then the file; each is good for two rounds.
        ROUND.store(round, Ordering::Relaxed);
        std::fs::write(&path, format!("s{round}\n")).unwrap();
        bench.credentials.reread();
        for outcome in
            futures_util::future::join_all((0..10).map(|_| ask(&bench, judge, "st-1"))).await
        {
            assert_eq!(outcome.unwrap(), 200, "{round}");
        }
    }
    // Nothing was refused on the way.
    assert_eq!(
        bench.metric(r#"tokens_refused_total{account="acme",reason="unsaid"}"#),
        0
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_written_too_early_or_by_half_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("acme");
    std::fs::write(&path, "old").unwrap();
    let sources = Sources {
        first: super::super::secret::Source::File(path.clone()),
        next: None,
    };
    let bench = Bench::with(sources, |_| ());
    let judge: Judge = |token| takes(token, &["old"]);
    assert_eq!(ask(&bench, judge, "st-1").await.unwrap(), 200);
    for content in ["", "\n", "ne", "new"] {
        std::fs::write(&path, content).unwrap();
        bench.credentials.reread();
        for _ in 0..20 {
            assert_eq!(
                ask(&bench, judge, "st-1").await.unwrap(),
                200,
                "{content:?}"
            );
            time::advance(Duration::from_millis(100)).await;
        }
    }
    // The old one is revoked, and the file was right all along.
    let judge: Judge = |token| takes(token, &["new"]);
    assert_eq!(ask(&bench, judge, "st-1").await.unwrap(), 200);
}

#[tokio::test(start_paused = true)]
async fn the_second_secret_takes_over_when_the_first_is_refused() {
    let bench = Bench::with(with_next("first", "second"), |_| ());
    let judge: Judge = |token| takes(token, &["first"]);
    assert_eq!(ask(&bench, judge, "st-1").await.unwrap(), 200);
    let judge: Judge = |token| takes(token, &["second"]);
    for outcome in
        futures_util::future::join_all((0..100).map(|_| ask(&bench, judge, "st-1"))).await
    {
        assert_eq!(outcome.unwrap(), 200);
    }
    assert_eq!(bench.minted(), 2);
    // From the start as well, with a stream that was never read.
    let bench = Bench::with(with_next("first", "second"), |_| ());
    assert_eq!(ask(&bench, judge, "st-2").await.unwrap(), 200);
}

/// One poller for all, no task and little memory for each.
#[test]
fn a_thousand_accounts_are_read_at_once() {
    let accounts: Vec<_> = (0..1000)
        .map(|number| crate::contacts::testing::account(&format!("a{number}")))
        .collect();
    let told = account::Config::default();
    let registry = crate::metrics::Registry::new().unwrap();
    let metrics = Metrics::new(&registry).unwrap();
    let credentials = Credentials::new(
        accounts
            .iter()
            .map(|account| (account, &told, given("secret"))),
        &Config::default(),
        None,
        || 0.5,
        &metrics,
    );
    assert_eq!(credentials.count(), 1000);
    let each = size_of::<Credential>() + size_of::<Watched>();
    assert!(each < 2048, "{each} bytes for each account");
}
