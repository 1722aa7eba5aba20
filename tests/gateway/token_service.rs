//! Tokens from a company's own service: a small one of the tests' own, which can be told to misbehave.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use contacts_gateway::{
    config::Config,
    contacts::account::Jti,
    simulator::{AccountSettings, DEMO_ACCOUNT_ID},
    upstream::token::TokenSource,
};
use futures_util::future::join_all;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::support::{World, fault, until};

/// What the service does on each connection, once it has read a request.
#[derive(Clone, Debug)]
pub(crate) enum Does {
    /// Gives a token that lives for so long.
    Gives(Duration),
    /// Gives one that is good for one call.
    GivesOnce,
    /// Writes this and closes.
    Writes(String),
    Hangs,
    /// Closes without a word.
    Closes,
    /// Sends a head, and then a byte at a time.
    Drips,
}

impl Does {
    /// Answers with this status and body.
    pub(crate) fn answers(status: &str, more: &str, body: &str) -> Self {
        let length = body.len();
        Self::Writes(format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n{body}"
        ))
    }
}

/// Knows the secret of one account, and signs with it whatever the body asks for.
pub(crate) struct TokenService {
    pub(crate) address: SocketAddr,
    does: Arc<Mutex<Does>>,
    /// Heads and bodies, in order.
    pub(crate) asks: Arc<Mutex<Vec<(String, String)>>>,
    accepting: JoinHandle<()>,
}

impl TokenService {
    pub(crate) async fn start(account: &AccountSettings) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let does = Arc::new(Mutex::new(Does::Gives(Duration::from_secs(600))));
        let asks = Arc::new(Mutex::new(Vec::new()));
        let (told, seen, account) = (does.clone(), asks.clone(), account.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (told, seen, account) = (told.clone(), seen.clone(), account.clone());
                tokio::spawn(async move {
                    let Some((head, body)) = read(&mut stream).await else {
                        return;
                    };
                    seen.lock().unwrap().push((head, body.clone()));
                    let does = told.lock().unwrap().clone();
                    act(stream, does, &account, &body).await;
                });
            }
        });
        Self {
            address,
            does,
            asks,
            accepting,
        }
    }

    pub(crate) fn then(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    pub(crate) fn asked(&self) -> usize {
        self.asks.lock().unwrap().len()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/jwt", self.address)
    }
}

impl Drop for TokenService {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The head and the body of a request.
async fn read(stream: &mut TcpStream) -> Option<(String, String)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        (name == "content-length").then(|| value.parse().unwrap())
    });
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, String::from_utf8(body).unwrap()))
}

async fn act(mut stream: TcpStream, does: Does, account: &AccountSettings, body: &str) {
    let text = match does {
        Does::Gives(_) | Does::GivesOnce => {
            let once = matches!(does, Does::GivesOnce);
            let life = match does {
                Does::Gives(life) => life,
                _ => Duration::from_secs(600),
            };
            let asked: Value = serde_json::from_str(body).unwrap();
            assert_eq!(asked["accountId"], *account.account_id);
            let answer = json!({ "jwt": token(account, life, once) }).to_string();
            let Does::Writes(text) = Does::answers("200 OK", "", &answer) else {
                unreachable!("it answers")
            };
            text
        }
        Does::Writes(text) => text,
        Does::Hangs => return std::future::pending().await,
        Does::Closes => String::new(),
        Does::Drips => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            return;
        }
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.shutdown().await;
}

fn token(account: &AccountSettings, life: Duration, once: bool) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let mut claims = json!({
        "appId": account.client_id,
        "sub": "the-token-service",
        "exp": (now + life).as_secs(),
    });
    if once {
        claims["jti"] = NEXT.fetch_add(1, Ordering::Relaxed).to_string().into();
    }
    let key =
        jsonwebtoken::EncodingKey::from_secret(account.client_secret.expose_secret().as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

fn asks_of(config: &mut Config, service: &TokenService) {
    config.token.source = TokenSource::Service;
    config.token.service.url = service.url();
    config.token.service.first_byte_timeout = Duration::from_millis(500);
    config.token.service.total_timeout = Duration::from_secs(1);
}

async fn asks(world: &World, outcome: &str) -> f64 {
    let series = format!("token_service_asks_total{{account=\"account-0\",outcome=\"{outcome}\"}}");
    world.gateway.metric(&series).await
}

/// Catches a token for each call, an ask that costs the budget, and a gateway that still wants a secret.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_callers_cost_one_ask_and_no_secret() {
    let account = AccountSettings::demo().others(1_000);
    let service = TokenService::start(&account).await;
    let world = World::with(|_| (), |config| asks_of(config, &service)).await;
    let asking = (0..100).map(async |skip| world.get(&format!("?skip={skip}&limit=1")).await);
    for answer in join_all(asking).await {
        answer.ok();
    }
    world.get("?all=true").await.ok();
    assert_eq!((service.asked(), asks(&world, "ok").await), (1, 1.0));
    assert_eq!(
        world
            .gateway
            .metric("tokens_minted_total{account=\"account-0\"}")
            .await,
        0.0
    );
    let taken = world
        .gateway
        .metric("budget_taken_calls{account=\"account-0\"}")
        .await;
    assert_eq!(taken as u64, world.calls(), "an ask is no call");
    let seen = world.kore.requests();
    assert!(
        seen.iter()
            .all(|request| request.header("auth") == seen[0].header("auth"))
    );
    let (head, body) = service.asks.lock().unwrap()[0].clone();
    assert!(head.starts_with("POST /jwt HTTP/1.1\r\n"), "{head}");
    let expected = json!({ "clientId": account.client_id, "accountId": DEMO_ACCOUNT_ID });
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), expected);
}

/// K8. Catches an outage of the service that costs calls, or callers who have a copy or a valid token, and one that is
/// taken for upstream's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_fails_is_told_apart_or_not_seen_at_all() {
    let secret = "CANARY";
    let expired = token(&AccountSettings::demo(), Duration::ZERO, false);
    let redirect = format!("location: http://127.0.0.1:9/{secret}\r\n");
    let rows = [
        ("timeout", Does::Hangs),
        ("timeout", Does::Drips),
        ("broken", Does::Closes),
        ("broken", Does::Writes("CANARY\r\n\r\n".to_owned())),
        ("status", Does::answers("500 CANARY", "", secret)),
        ("status", Does::answers("403 Forbidden", "", secret)),
        (
            "redirect",
            Does::answers("307 Temporary Redirect", &redirect, ""),
        ),
        ("nonsense", Does::answers("200 OK", "", "<html>CANARY")),
        (
            "nonsense",
            Does::answers("200 OK", "", r#"{"jwt":{"CANARY":1}}"#),
        ),
        (
            "too_large",
            Does::answers("200 OK", "", &"CANARY".repeat(20_000)),
        ),
        (
            "expired",
            Does::answers("200 OK", "", &json!({ "jwt": expired }).to_string()),
        ),
        // Nobody is there any more.
        ("unreachable", Does::Closes),
    ];
    join_all(rows.map(async |(outcome, does)| {
        let account = AccountSettings::demo().others(1_000);
        let service = TokenService::start(&account).await;
        let change = |config: &mut Config| {
            asks_of(config, &service);
            config.cache.fresh_for = Duration::from_millis(1);
        };
        let world = World::with(|_| (), change).await;
        world.get("").await.ok();
        if outcome == "unreachable" {
            service.accepting.abort();
            until("it is gone", async || {
                TcpStream::connect(service.address).await.is_err()
            })
            .await;
        }
        service.then(does);
        // Its token is good, whatever the service does now; until upstream refuses it.
        world.get("?skip=10").await.ok();
        world.kore.fault_next(1, fault("denied=credentials"));
        assert_eq!(world.stream("st-other", "").await.status, 502, "{outcome}");
        let calls = world.calls();
        let answer = world.get("?skip=30").await;
        answer.is_problem(503, "token_service_unavailable");
        assert!(!answer.text().contains(secret));
        world
            .get("?all=true")
            .await
            .is_problem(503, "token_service_unavailable");
        until("a stale copy says why", async || {
            let stale = world.get("").await.ok();
            let status = stale.header("cache-status");
            status.contains("; ttl=-") && status.ends_with("; detail=token_service_unavailable")
        })
        .await;
        assert_eq!(
            world.calls(),
            calls,
            "{outcome}: no call is made without a token"
        );
        assert!(asks(&world, outcome).await >= 1.0, "{outcome}");
        assert_eq!(
            world.gateway.attempts("token_service_unavailable").await,
            0.0
        );
        let closed = "upstream_breaker_state{state=\"closed\"}";
        assert_eq!(world.gateway.metric(closed).await, 1.0);
        if outcome != "unreachable" {
            service.then(Does::Gives(Duration::from_secs(600)));
            until("it recovers by itself", async || {
                world.get("?skip=50").await.status == 200
            })
            .await;
        }
    }))
    .await;
}

/// K1 and K2 with this source. Catches a refused token that is used again, and a `jti` that is sent twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_asked_for_anew_when_refused_and_each_time_where_a_jti_is_enforced() {
    let account = AccountSettings::demo().others(1_000);
    let service = TokenService::start(&account).await;
    let world = World::with(|_| (), |config| asks_of(config, &service)).await;
    world.get("").await.ok();
    world.kore.fault_next(1, fault("denied=credentials"));
    world.get("?skip=10").await.ok();
    assert_eq!(service.asked(), 2);

    for jti in [Jti::Auto, Jti::PerRequest] {
        let service = TokenService::start(&account).await;
        service.then(Does::GivesOnce);
        let enforced = AccountSettings {
            enforce_jti: true,
            ..account.clone()
        };
        let change = |config: &mut Config| {
            asks_of(config, &service);
            config.accounts[0].jti = jti;
        };
        let world = World::with(|settings| settings.accounts = vec![enforced], change).await;
        for skip in 0..20 {
            world.get(&format!("?skip={skip}&limit=1")).await.ok();
        }
        let counts = world.kore.calls(DEMO_ACCOUNT_ID);
        assert_eq!(counts.served, 20);
        // The first token was used twice, and upstream said so; after that none was.
        assert_eq!(counts.denied, u64::from(jti == Jti::Auto));
        assert_eq!(service.asked(), 20);
    }
}
