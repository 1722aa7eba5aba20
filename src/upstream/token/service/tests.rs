use std::{
    collections::VecDeque,
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
};

use futures_util::future::join_all;
use http::HeaderMap;
use serde_json::json;
use tower::service_fn;

use super::{
    super::{
        Credentials, TokenSource,
        testing::{Bench, wall},
        words::Reason,
    },
    *,
};
use crate::{contacts::account::Jti, contacts::ids::StreamId, upstream::secret::Secret};

const MINUTE: Duration = Duration::from_secs(60);

/// What the service does with an ask.
#[derive(Clone, Copy)]
enum Does {
    /// Answers after so long with a token that lives for so long.
    Gives(Duration, Duration),
    /// Never answers.
    Hangs,
    Answers(u16, &'static str),
    Refuses,
}

use Does::*;

/// A service that does one thing after the other, and the last one from then on. It keeps what it was sent.
#[derive(Default)]
struct Fake {
    script: Mutex<VecDeque<Does>>,
    seen: Mutex<Vec<(http::request::Parts, Bytes)>>,
    at_once: AtomicUsize,
}

impl Fake {
    fn new(script: impl IntoIterator<Item = Does>) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script.into_iter().collect()),
            ..Self::default()
        })
    }

    fn then(&self, does: Does) {
        *self.script.lock().unwrap() = [does].into();
    }

    fn asks(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn transport(self: &Arc<Self>) -> Transport {
        let fake = self.clone();
        Transport::new(service_fn(move |request| fake.clone().answer(request)))
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<AnswerBody>, Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let number = {
            let mut seen = self.seen.lock().unwrap();
            seen.push((head, body));
            seen.len()
        };
        let does = {
            let mut script = self.script.lock().unwrap();
            let first = *script.front().unwrap();
            if script.len() > 1 {
                script.pop_front();
            }
            first
        };
        let (status, text) = match does {
            Gives(after, life) => {
                let other = self.at_once.fetch_add(1, Ordering::Relaxed);
                assert!(other < CALLS_MAX, "too many at once");
                time::sleep(after).await;
                self.at_once.fetch_sub(1, Ordering::Relaxed);
                (200, json!({ "jwt": jwt(number, life) }).to_string())
            }
            Hangs => std::future::pending().await,
            Answers(status, text) => (status, text.to_owned()),
            Refuses => {
                let detail = "upstream cannot be reached";
                return Err(Error::new(Kind::UpstreamUnreachable, detail).because("refused"));
            }
        };
        let body = Full::from(text).map_err(|never| match never {});
        let response = Response::builder().status(status);
        Ok(response.body(body.boxed_unsync()).unwrap())
    }
}

fn jwt(number: usize, life: Duration) -> String {
    let exp = (wall() + life)
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let claims = json!({ "n": number, "exp": exp.as_secs() });
    let key = jsonwebtoken::EncodingKey::from_secret(b"of the service");
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

fn told(change: impl FnOnce(&mut Config)) -> super::super::Config {
    let mut told = super::super::Config {
        source: TokenSource::Service,
        ..super::super::Config::default()
    };
    told.service.url = "https://tokens.example/jwt".to_owned();
    change(&mut told.service);
    told
}

fn bench(fake: &Arc<Fake>) -> Bench {
    let service = TokenService::over(&told(|_| ()), None, fake.transport());
    Bench::asking(service, |_| ())
}

fn stream() -> StreamId {
    StreamId::parse("st-1").unwrap()
}

/// The number of the ask that an attempt's token came from.
async fn token(bench: &Bench) -> Result<u64, Error> {
    let credential = of(&bench.credentials, bench);
    let token = credential.token(&stream(), wall).await?;
    let text = token.header.to_str().unwrap();
    let claims = jsonwebtoken::dangerous::insecure_decode::<serde_json::Value>(text);
    Ok(claims.unwrap().claims["n"].as_u64().unwrap())
}

fn of(credentials: &Credentials, bench: &Bench) -> Arc<super::super::credential::Credential> {
    credentials.of(&bench.account).unwrap()
}

fn asks(bench: &Bench, outcome: &str) -> i64 {
    let series = format!("token_service_asks_total{{account=\"acme\",outcome=\"{outcome}\"}}");
    bench.metric(&series)
}

#[tokio::test(start_paused = true)]
async fn a_hundred_at_once_share_one_ask_and_its_failure() {
    let fake = Fake::new([Gives(MINUTE / 20, 10 * MINUTE)]);
    let shared = bench(&fake);
    for number in join_all((0..100).map(|_| token(&shared))).await {
        assert_eq!(number.unwrap(), 1);
    }
    assert_eq!((fake.asks(), asks(&shared, "ok")), (1, 1));
    let expires = shared.metric(r#"token_expires_timestamp_seconds{account="acme"}"#);
    assert_eq!(expires, 1_800_000_000 + 603);
    assert_eq!(shared.minted(), 0, "nothing is signed");

    let fake = Fake::new([Hangs]);
    let shared = bench(&fake);
    let began = time::Instant::now();
    for outcome in join_all((0..100).map(|_| token(&shared))).await {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), Kind::TokenServiceUnavailable);
        assert_eq!(error.detail(), Failure::Timeout.detail());
        assert_eq!(error.wait(), Some(Duration::from_secs(1)));
        assert!(error.is_unsent() && error.again().is_none());
    }
    assert_eq!(began.elapsed(), Duration::from_secs(5), "the first byte's");
    assert_eq!((fake.asks(), asks(&shared, "timeout")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_asked_for_anew_at_half_its_own_life_and_nobody_waits_for_it() {
    let fake = Fake::new([Gives(Duration::ZERO, 10 * MINUTE)]);
    let bench = bench(&fake);
    assert_eq!(token(&bench).await.unwrap(), 1);
    time::advance(5 * MINUTE - Duration::from_secs(1)).await;
    assert_eq!(token(&bench).await.unwrap(), 1);
    assert_eq!(fake.asks(), 1);
    // A slow service holds nobody up, whoever came first included.
    fake.then(Gives(Duration::from_secs(4), 10 * MINUTE));
    time::advance(Duration::from_secs(2)).await;
    let began = time::Instant::now();
    for number in join_all((0..100).map(|_| token(&bench))).await {
        assert_eq!(number.unwrap(), 1);
    }
    assert_eq!(began.elapsed(), Duration::ZERO);
    time::sleep(Duration::from_secs(5)).await;
    assert_eq!(token(&bench).await.unwrap(), 2);
    assert_eq!(fake.asks(), 2);
}

/// K8.
#[tokio::test(start_paused = true)]
async fn a_valid_token_is_used_to_its_end_and_a_service_that_fails_is_left_alone() {
    for (does, word) in [
        (Hangs, "timeout"),
        (Refuses, "unreachable"),
        (Answers(500, "CANARY"), "status"),
        (Answers(401, "CANARY"), "status"),
        (Answers(204, ""), "status"),
        (Answers(302, "CANARY"), "redirect"),
        (Answers(200, "CANARY"), "nonsense"),
        (Answers(200, r#"{"jwt":"CANARY"}"#), "nonsense"),
        (Gives(Duration::ZERO, Duration::ZERO), "expired"),
    ] {
        let fake = Fake::new([Gives(Duration::ZERO, 10 * MINUTE)]);
        let bench = bench(&fake);
        assert_eq!(token(&bench).await.unwrap(), 1);
        fake.then(does);
        // To half a minute before its end: it must arrive, too.
        for _ in 0..9 * 60 + 29 {
            time::sleep(Duration::from_secs(1)).await;
            assert_eq!(token(&bench).await.unwrap(), 1, "{word}");
        }
        // From its half on in growing distances: 1, 2, 4, 8, 16, 32 s, then a minute.
        assert!((9..=11).contains(&fake.asks()), "{word}: {}", fake.asks());
        time::sleep(Duration::from_secs(1)).await;
        let error = token(&bench).await.unwrap_err();
        assert_eq!(error.kind(), Kind::TokenServiceUnavailable, "{word}");
        let wait = error.wait().unwrap();
        assert!(wait > Duration::ZERO && wait <= MINUTE, "{wait:?}");
        assert!(
            !format!("{error:?} {error}").contains("CANARY"),
            "{error:?}"
        );
        assert_eq!(asks(&bench, word), fake.asks() as i64 - 1);
        // It is asked again as soon as that is over, and works.
        fake.then(Gives(Duration::ZERO, 10 * MINUTE));
        time::sleep(wait).await;
        assert!(token(&bench).await.unwrap() > 1);
    }
}

/// K1 with this source.
#[tokio::test(start_paused = true)]
async fn a_refused_token_is_asked_for_anew_once() {
    let fake = Fake::new([Gives(Duration::ZERO, 10 * MINUTE)]);
    let bench = bench(&fake);
    let credential = of(&bench.credentials, &bench).clone();
    let refuse = async || {
        let token = credential.token(&stream(), wall).await.unwrap();
        credential.refused(&stream(), &token, Reason::Unsaid, time::Instant::now())
    };
    let first = credential.token(&stream(), wall).await.unwrap();
    credential.accepted(&stream(), &first);
    for _ in 0..100 {
        let error = credential.refused(&stream(), &first, Reason::Unsaid, time::Instant::now());
        assert!(error.again().is_some());
    }
    assert!(refuse().await.again().is_none(), "the second one, too");
    assert_eq!(fake.asks(), 2);
    let now = super::super::testing::now();
    let rests = credential.admit(&stream(), None, now).unwrap_err();
    assert_eq!(rests.kind(), Kind::UpstreamAuthRejected);
}

#[tokio::test(start_paused = true)]
async fn per_request_each_attempt_has_its_own_token_and_a_few_are_asked_for_at_once() {
    let fake = Fake::new([Gives(Duration::from_secs(1), 10 * MINUTE)]);
    let service = TokenService::over(&told(|_| ()), None, fake.transport());
    let bench = Bench::asking(service, |told| told.jti = Jti::PerRequest);
    let mut numbers: Vec<_> = join_all((0..100).map(|_| token(&bench)))
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=100).collect::<Vec<_>>());
    // Nothing to prepare for what is not shared.
    let credential = of(&bench.credentials, &bench);
    credential.prepare(&stream(), wall).await.unwrap();
    assert_eq!(fake.asks(), 100);
}

#[tokio::test(start_paused = true)]
async fn an_ask_that_is_waited_for_no_more_is_finished_and_kept() {
    let fake = Fake::new([Gives(Duration::from_secs(2), 10 * MINUTE)]);
    let bench = bench(&fake);
    let left = time::timeout(Duration::from_secs(1), token(&bench)).await;
    assert!(left.is_err());
    assert_eq!(token(&bench).await.unwrap(), 1);
    assert_eq!(fake.asks(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_read_to_its_bounds() {
    let large = Box::leak(format!("{{\"x\":\"{}\"}}", "y".repeat(64 * 1024)).into_boxed_str());
    let fake = Fake::new([Answers(200, large)]);
    let bench = bench(&fake);
    token(&bench).await.unwrap_err();
    assert_eq!(asks(&bench, "too_large"), 1);

    // Drips for ever, each piece in time.
    let drip = service_fn(|_| async {
        let pieces = futures_util::stream::unfold((), |()| async {
            time::sleep(Duration::from_secs(1)).await;
            Some((Ok(http_body::Frame::data(Bytes::from_static(b" "))), ()))
        });
        let body = http_body_util::StreamBody::new(pieces);
        Ok(Response::new(body.boxed_unsync()))
    });
    let service = TokenService::over(&told(|_| ()), None, Transport::new(drip));
    let bench = Bench::asking(service, |_| ());
    let began = time::Instant::now();
    token(&bench).await.unwrap_err();
    assert_eq!(began.elapsed(), Duration::from_secs(10));
    assert_eq!(asks(&bench, "timeout"), 1);
}

/// What the service is sent.
async fn sent(
    change: impl FnOnce(&mut Config),
    secret: Option<Source>,
) -> (Method, String, HeaderMap, String) {
    let fake = Fake::new([Gives(Duration::ZERO, 10 * MINUTE)]);
    let service = TokenService::over(&told(change), secret, fake.transport());
    token(&Bench::asking(service, |_| ())).await.unwrap();
    let (head, body) = fake.seen.lock().unwrap().remove(0);
    let text = String::from_utf8(body.to_vec()).unwrap();
    (head.method, head.uri.to_string(), head.headers, text)
}

#[tokio::test(start_paused = true)]
async fn a_request_is_what_the_configuration_says() {
    let account = crate::contacts::testing::account("acme");
    let (id, client) = (account.id.as_str(), account.client.as_str());
    let secret = Source::Read(Ok(Secret::new("Bearer of-the-gateway")));
    let (method, url, headers, body) = sent(|_| (), Some(secret)).await;
    assert_eq!(
        (method, &*url),
        (Method::POST, "https://tokens.example/jwt")
    );
    let expected = json!({ "clientId": client, "accountId": id });
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&body).unwrap(),
        expected
    );
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["authorization"], "Bearer of-the-gateway");
    assert!(headers["authorization"].is_sensitive());

    let change = |config: &mut Config| {
        config.method = Verb::Get;
        config.url = "https://tokens.example/{account_id}?c={client_id}".to_owned();
        config.headers = [("x-team", "contacts")].into();
        config.secret_header = "x-api-key".to_owned();
    };
    let secret = Source::Read(Ok(Secret::new("k")));
    let (method, url, headers, body) = sent(change, Some(secret)).await;
    let expected = format!("https://tokens.example/{id}?c={client}");
    assert_eq!((method, url), (Method::GET, expected));
    assert_eq!(
        (&headers["x-team"], &headers["x-api-key"]),
        (&"contacts".parse().unwrap(), &"k".parse().unwrap())
    );
    assert!(body.is_empty() && !headers.contains_key("content-type"));

    let change = |config: &mut Config| {
        config.body_type = BodyType::Form;
        config.body = "client={client_id}".to_owned();
    };
    let (_, _, headers, body) = sent(change, None).await;
    assert_eq!(body, format!("client={client}"));
    assert_eq!(headers["content-type"], "application/x-www-form-urlencoded");
    assert!(!headers.contains_key("authorization"));
}

#[tokio::test]
async fn its_secret_is_read_each_time_and_none_is_asked_for_without() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let fake = Fake::new([Gives(Duration::ZERO, 10 * MINUTE)]);
    let secret = Some(Source::File(path.clone()));
    let service = TokenService::over(&told(|_| ()), secret, fake.transport());
    let account = crate::contacts::testing::account("acme");
    for (content, good) in [("one\n", true), ("two", true), ("", false), ("a\nb", false)] {
        std::fs::write(&path, content).unwrap();
        let before = fake.asks();
        let outcome = service.ask(&account, wall).await;
        assert_eq!(outcome.is_ok(), good, "{content:?}");
        assert_eq!(fake.asks() - before, usize::from(good));
        if good {
            let (head, _) = fake.seen.lock().unwrap().pop().unwrap();
            assert_eq!(head.headers["authorization"], content.trim());
            fake.seen.lock().unwrap().clear();
        }
    }
}
