//! Signs each attempt: a JWT minted from the account's own secret, reused until half its life.
//!
//! A mint is a few microseconds under a lock, so whoever waits for the lock finds the new token. The clock is the
//! wall's, because upstream compares with its own; a token minted in the future, after the clock was set back, is not
//! used either.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body_util::Empty;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use prometheus::{IntCounter, IntCounterVec};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tower::{Layer, Service, layer::layer_fn};

use super::{Attempt, secret::Secret};
use crate::{
    config::Rules,
    contacts::{
        account::Account,
        ids::{AccountId, ClientId},
        spent::{Phase, Spent},
    },
    error::{Error, Kind, Result},
    metrics::{self, Registry},
};

/// `[token]`: the JWTs signed for upstream.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// From `now` to `exp`; 10 s to 1 h (Kore.ai refuses more when `jti` is enforced).
    #[serde(with = "crate::config::duration")]
    pub lifetime: Duration,
    /// How far `iat` is set back, for clocks that differ; 0 s to 60 s.
    #[serde(with = "crate::config::duration")]
    pub backdate: Duration,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        let hour = Duration::from_secs(3600);
        rules.range("lifetime", self.lifetime, Duration::from_secs(10)..=hour);
        rules.range(
            "backdate",
            self.backdate,
            Duration::ZERO..=Duration::from_secs(60),
        );
        if self.lifetime <= hour && self.lifetime.saturating_add(self.backdate) > hour {
            let message =
                "and backdate are more than 1h together, from iat to exp, which Kore.ai may refuse";
            rules.broken(&["lifetime", "backdate"], message.to_owned());
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(10 * 60),
            backdate: Duration::from_secs(30),
        }
    }
}

/// The header that carries the token: the bare JWT, without `Bearer`.
const AUTH: HeaderName = HeaderName::from_static("auth");

/// The credentials of all accounts.
#[derive(Debug, Default)]
pub struct Credentials(HashMap<AccountId, Credential>);

/// What signs for one account.
#[derive(Debug)]
struct Credential {
    client: ClientId,
    /// `None` where it could not be read: the account is disabled, the others are not.
    secret: Option<Secret>,
    config: Config,
    current: Mutex<Option<Token>>,
    minted: IntCounter,
}

#[derive(Clone, Debug)]
struct Token {
    /// Marked as sensitive, so that its `Debug` shows nothing.
    header: HeaderValue,
    minted_at: SystemTime,
    reuse_until: SystemTime,
}

/// What Kore.ai reads in a token for its public APIs; `appId` in exactly this spelling.
#[derive(Serialize)]
struct Claims<'a> {
    #[serde(rename = "appId")]
    app_id: &'a str,
    sub: &'static str,
    iat: u64,
    exp: u64,
}

impl Credentials {
    /// Credentials for accounts whose secrets were read, or could not be.
    pub fn new<'a>(
        accounts: impl IntoIterator<Item = (&'a Arc<Account>, Option<Secret>)>,
        config: &Config,
        metrics: &Metrics,
    ) -> Self {
        let credential = |(account, secret): (&Arc<Account>, _)| {
            let credential = Credential {
                client: account.client.clone(),
                secret,
                config: config.clone(),
                current: Mutex::new(None),
                minted: metrics.minted.with_label_values(&[&account.label]),
            };
            (account.id.clone(), credential)
        };
        Self(accounts.into_iter().map(credential).collect())
    }

    fn of(&self, account: &Account) -> Result<&Credential> {
        self.0.get(&account.id).ok_or_else(|| {
            Error::new(Kind::Internal, "the account has no credential").because(&account.name)
        })
    }
}

impl Credential {
    /// The current token, or a new one where that has lived half its life.
    fn token(&self, now: SystemTime) -> Result<HeaderValue> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = current.as_ref().filter(|token| token.is_usable(now)) {
            return Ok(token.header.clone());
        }
        let secret = self.secret.as_ref().ok_or_else(|| {
            let detail =
                "the secret of this account could not be read; the gateway's operator can see why";
            Error::new(Kind::CredentialsUnavailable, detail)
        })?;
        let token = Token::mint(&self.client, secret, &self.config, now)?;
        self.minted.inc();
        Ok(current.insert(token).header.clone())
    }

    /// Gives up a token that upstream refused, unless another has taken its place.
    fn discard(&self, refused: &HeaderValue) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current
            .as_ref()
            .is_some_and(|token| token.header == refused)
        {
            *current = None;
        }
    }
}

impl Token {
    fn mint(client: &ClientId, secret: &Secret, config: &Config, now: SystemTime) -> Result<Self> {
        let unsigned =
            |cause: &str| Error::new(Kind::Internal, "no token could be signed").because(cause);
        let seconds = now
            .duration_since(UNIX_EPOCH)
            .map_err(|_| unsigned("the clock stands before 1970"))?
            .as_secs();
        let claims = Claims {
            app_id: client.as_str(),
            sub: "contacts-gateway",
            iat: seconds.saturating_sub(config.backdate.as_secs()),
            exp: seconds + config.lifetime.as_secs(),
        };
        // The secret is the literal string: what looks like base64 is not decoded.
        let key = EncodingKey::from_secret(secret.expose().as_bytes());
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
            .map_err(|_| unsigned("HS256 refused the secret"))?;
        let mut header =
            HeaderValue::try_from(token).map_err(|_| unsigned("not a header value"))?;
        header.set_sensitive(true);
        Ok(Self {
            header,
            minted_at: now,
            reuse_until: now + config.lifetime / 2,
        })
    }

    fn is_usable(&self, now: SystemTime) -> bool {
        (self.minted_at..self.reuse_until).contains(&now)
    }
}

/// The stage.
#[derive(Clone, Debug)]
pub struct Sign<S> {
    credentials: Arc<Credentials>,
    clock: fn() -> SystemTime,
    inner: S,
}

/// Puts the account's token on each attempt; `clock` tells the wall's time.
pub fn layer<S>(
    credentials: Arc<Credentials>,
    clock: fn() -> SystemTime,
) -> impl Layer<S, Service = Sign<S>> {
    layer_fn(move |inner| Sign {
        credentials: credentials.clone(),
        clock,
        inner,
    })
}

impl<S, B> Service<Attempt> for Sign<S>
where
    S: Service<
            http::Request<Empty<bytes::Bytes>>,
            Response = http::Response<B>,
            Error = Error,
            Future: Send + 'static,
        >,
{
    type Response = http::Response<B>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<http::Response<B>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let Attempt {
            account,
            mut request,
        } = attempt;
        let (now, began) = ((self.clock)(), Instant::now());
        let token = match self
            .credentials
            .of(&account)
            .and_then(|credential| credential.token(now))
        {
            Ok(token) => token,
            Err(error) => return async { Err(error) }.boxed(),
        };
        if let Some(spent) = request.extensions().get::<Arc<Spent>>() {
            spent.add(Phase::Token, began.elapsed());
        }
        request.headers_mut().insert(AUTH, token.clone());
        let answer = self.inner.call(request);
        let credentials = self.credentials.clone();
        async move {
            let response = answer.await?;
            if response.status() == StatusCode::UNAUTHORIZED
                && let Ok(credential) = credentials.of(&account)
            {
                credential.discard(&token);
            }
            Ok(response)
        }
        .boxed()
    }
}

/// What the tokens tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    minted: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        Ok(Self {
            minted: registry.counter(
                "tokens_minted_total",
                "Tokens signed for upstream.",
                &["account"],
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Duration,
    };

    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::contacts::testing;

    const SECRET: &str = "canary-secret-MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=";

    static NOW: AtomicU64 = AtomicU64::new(0);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn credentials(secret: Option<&str>) -> (Arc<Account>, Credentials) {
        let account = testing::account("acme");
        let metrics = Metrics::new(&Registry::new().unwrap()).unwrap();
        let credentials = Credentials::new(
            [(&account, secret.map(Secret::new))],
            &Config::default(),
            &metrics,
        );
        (account, credentials)
    }

    #[test]
    fn the_claims_are_those_that_kore_ai_reads() {
        let (account, credentials) = credentials(Some(SECRET));
        let token = credentials.of(&account).unwrap().token(at(0)).unwrap();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        let key = DecodingKey::from_secret(SECRET.as_bytes());
        let claims = jsonwebtoken::decode::<Value>(token.to_str().unwrap(), &key, &validation)
            .unwrap()
            .claims;
        assert_eq!(claims["appId"], "cs-acme");
        assert_eq!(claims["iat"], 1_800_000_000 - 30);
        assert_eq!(claims["exp"], 1_800_000_000 + 600);
    }

    #[test]
    fn a_token_is_reused_until_half_its_life() {
        let (account, credentials) = credentials(Some(SECRET));
        let credential = credentials.of(&account).unwrap();
        let first = credential.token(at(0)).unwrap();
        assert_eq!(credential.token(at(299)).unwrap(), first);
        let second = credential.token(at(300)).unwrap();
        assert_ne!(second, first);
        // A clock that was set back by an hour finds a token from the future.
        assert_ne!(
            credential
                .token(at(300) - Duration::from_secs(3600))
                .unwrap(),
            second
        );
        assert_eq!(credential.minted.get(), 3);
    }

    #[test]
    fn a_hundred_at_once_share_one_mint() {
        let (account, credentials) = credentials(Some(SECRET));
        let credential = credentials.of(&account).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| credential.token(at(0)).unwrap());
            }
        });
        assert_eq!(credential.minted.get(), 1);
    }

    #[test]
    fn a_refused_token_is_discarded_once() {
        let (account, credentials) = credentials(Some(SECRET));
        let credential = credentials.of(&account).unwrap();
        let refused = credential.token(at(0)).unwrap();
        credential.discard(&refused);
        let next = credential.token(at(1)).unwrap();
        // Others that were refused together do not take the new one down.
        credential.discard(&refused);
        assert_eq!(credential.token(at(2)).unwrap(), next);
        assert_eq!(credential.minted.get(), 2);
    }

    #[tokio::test]
    async fn upstreams_refusal_discards_and_another_answer_does_not() {
        let (account, credentials) = credentials(Some(SECRET));
        let credentials = Arc::new(credentials);
        let upstream = service_fn(async |request: http::Request<Empty<bytes::Bytes>>| {
            assert!(request.headers()[AUTH].is_sensitive());
            let mut response = http::Response::new(());
            *response.status_mut() = match request.uri().path() {
                "/401" => StatusCode::UNAUTHORIZED,
                _ => StatusCode::OK,
            };
            Ok::<_, Error>(response)
        });
        NOW.store(0, Ordering::Relaxed);
        let stage = layer(credentials.clone(), || at(NOW.load(Ordering::Relaxed))).layer(upstream);
        let ask = async |path: &str| {
            let attempt = Attempt {
                account: account.clone(),
                request: http::Request::get(path).body(Empty::new()).unwrap(),
            };
            stage.clone().oneshot(attempt).await.unwrap()
        };
        let minted = || credentials.of(&account).unwrap().minted.get();
        for (path, mints) in [("/", 1), ("/", 1), ("/401", 1), ("/", 2), ("/", 2)] {
            ask(path).await;
            assert_eq!(minted(), mints, "{path}");
        }
    }

    #[test]
    fn an_account_without_its_secret_says_so() {
        let (account, credentials) = credentials(None);
        let error = credentials.of(&account).unwrap().token(at(0)).unwrap_err();
        assert_eq!(error.kind(), Kind::CredentialsUnavailable);
    }

    #[test]
    fn debug_shows_neither_secret_nor_token() {
        let (account, credentials) = credentials(Some(SECRET));
        let token = credentials.of(&account).unwrap().token(at(0)).unwrap();
        let shown = format!("{credentials:?}");
        assert!(
            !shown.contains("canary") && !shown.contains(token.to_str().unwrap()),
            "{shown}"
        );
    }
}
