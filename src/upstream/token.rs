//! Puts a token of its account's on each attempt, and answers for what upstream thinks of it. Tokens are signed here with
//! the account's secret, or asked for from a company's own [`service`](TokenService).
//!
//! A 401 ends here: its words are read and dropped, the credential learns from it, and what goes up is an error of our own
//! that says whether another token may help. Two stages know the credentials: this one at the very bottom, and the
//! [`gate`] above the budget.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{HeaderName, StatusCode};
use http_body::Body;
use http_body_util::Empty;
use serde::{Deserialize, Serialize};
use tokio::time::{self, Instant};
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

pub use self::{
    accounts::{Complaint, Credentials},
    metrics::Metrics,
    service::{Secrets, TokenService},
    words::Reason,
};
pub(crate) use self::{
    service::{headers, read_header},
    sign::Signer,
};
use super::{
    Attempt,
    body::{self, Bounds, Coding},
};
use crate::{
    config::Rules,
    contacts::ids::StreamId,
    error::{Error, Result},
};

mod accounts;
mod credential;
pub mod gate;
mod keyring;
mod metrics;
mod refusals;
mod service;
mod sign;
#[cfg(test)]
mod testing;
mod watch;
mod words;

/// `[token]`: the JWTs for upstream.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where they come from.
    pub source: TokenSource,
    /// From `now` to `exp`; 10 s to 1 h (Kore.ai refuses more when `jti` is enforced). Also how long a token of the service
    /// is used that does not say when it ends.
    #[serde(with = "crate::config::duration")]
    pub lifetime: Duration,
    /// How far `iat` is set back, for clocks that differ; 0 s to 60 s.
    #[serde(with = "crate::config::duration")]
    pub backdate: Duration,
    /// How often secret files are looked at; 1 s to 1 h.
    #[serde(with = "crate::config::duration")]
    pub secret_poll: Duration,
    /// The other source.
    pub service: service::Config,
}

/// Where tokens come from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// Each account's secret signs them.
    #[default]
    Sign,
    /// A service is asked for them.
    Service,
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
        rules.range(
            "secret_poll",
            self.secret_poll,
            Duration::from_secs(1)..=hour,
        );
        if self.lifetime <= hour && self.lifetime.saturating_add(self.backdate) > hour {
            let message =
                "and backdate are more than 1h together, from iat to exp, which Kore.ai may refuse";
            rules.broken(&["lifetime", "backdate"], message.to_owned());
        }
        let used = self.source == TokenSource::Service;
        rules.section("service", |rules| self.service.check(used, rules));
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            source: TokenSource::Sign,
            lifetime: Duration::from_secs(10 * 60),
            backdate: Duration::from_secs(30),
            secret_poll: Duration::from_secs(10),
            service: service::Config::default(),
        }
    }
}

/// The header that carries the token: the bare JWT, without `Bearer`.
const AUTH: HeaderName = HeaderName::from_static("auth");

/// How much of a 401 is read for its words, and for how long.
const TEXT_MAX: u64 = 4 * 1024;
const TEXT_WITHIN: Duration = Duration::from_secs(2);

/// How one credential is, for whoever looks into it.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// What is wrong with where its secrets are. Names places, never contents.
    pub complaints: Vec<String>,
    /// Whether each call gets a token of its own, with a `jti`.
    pub once: bool,
    /// Why upstream refused its last token, if it did.
    pub refused: Option<Reason>,
    /// Whether it is the account's second secret that signs.
    pub second: bool,
}

/// How one credential stands, for operators.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// There is no secret that can be used.
    pub disabled: bool,
    /// What is wrong with where its secrets are. Names places, never contents.
    pub complaints: Vec<String>,
    /// Whether upstream has ever taken a token of it.
    pub worked: bool,
    /// Why it rests as a whole, and for how long, if upstream refuses it.
    pub resting: Option<(Reason, Duration)>,
    /// Streams that upstream refuses it for, with why, and how long they rest.
    pub refused: Vec<(StreamId, Reason, Duration)>,
    /// How its tokens are come by.
    pub tokens: Tokens,
    /// When the token that its calls share expires, if there is one.
    pub expires: Option<SystemTime>,
}

/// How tokens are come by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tokens {
    /// Signed here, and used again.
    #[default]
    Shared,
    /// One for each call.
    Once,
    /// Asked for from the token service.
    Service,
}

/// The stage.
#[derive(Clone, Debug)]
pub struct Sign<S> {
    credentials: Arc<Credentials>,
    clock: fn() -> SystemTime,
    inner: S,
}

/// Puts a token on each attempt; `clock` tells the wall's time.
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
            http::Request<Empty<Bytes>>,
            Response = http::Response<B>,
            Error = Error,
            Future: Send,
        > + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Send + Unpin + 'static,
{
    type Response = http::Response<B>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<http::Response<B>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        // A token may have to be waited for, and is below by then.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Self::Future {
        let Attempt {
            collection,
            mut request,
            began,
        } = attempt;
        let credential = match self.credentials.of(&collection.account) {
            Ok(credential) => credential,
            Err(error) => return async { Err(error) }.boxed(),
        };
        let (clock, inner) = (self.clock, self.inner.clone());
        async move {
            let stream = &collection.stream;
            let token = credential.token(stream, clock).await?;
            request.headers_mut().insert(AUTH, token.header.clone());
            let _ = began.send(());
            let response = inner.oneshot(request).await?;
            match response.status() {
                StatusCode::OK => credential.accepted(stream, &token),
                StatusCode::UNAUTHORIZED => {
                    let reason = Reason::read(&text(response).await);
                    return Err(credential.refused(stream, &token, reason, Instant::now()));
                }
                _ => {}
            }
            Ok(response)
        }
        .boxed()
    }
}

/// The text of a refusal, as far as it comes in time and is no larger than any that is known.
async fn text<B>(response: http::Response<B>) -> Bytes
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    let bounds = Bounds {
        cap: TEXT_MAX,
        between_bytes: TEXT_WITHIN,
    };
    let Ok(coding) = Coding::of(response.headers()) else {
        return Bytes::new();
    };
    let reading = body::collect(response.into_body(), coding, bounds);
    let read = time::timeout(TEXT_WITHIN, reading).await;
    read.ok().and_then(Result::ok).unwrap_or_default()
}

#[cfg(test)]
mod tests;
