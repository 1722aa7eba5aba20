//! A company's own token service: asked for an account's token where the gateway does not sign itself.
//!
//! It is believed as little as upstream is: its answers are bounded in size and time, its redirects are refused, and of a
//! token no more is read than when it ends. Nothing that it says is shown: neither to callers nor in the log, where a
//! status is the most. Its calls are not Kore.ai's: they cost no slot, and neither retry nor breaker hears of them.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use tokio::{sync::Semaphore, task, time};
use tower::{ServiceExt, util::BoxCloneSyncService};

pub(super) use self::config::Config;
pub(super) use self::{answer::Issued, backoff::Backoff};
use crate::{
    contacts::account::Account,
    error::{Error, Kind},
    upstream::{
        body::{self, Bounds, Coding},
        client,
        secret::{SecretProblem, Source, Sources},
    },
};
use config::{BodyType, Verb};

mod answer;
mod backoff;
mod config;
pub(crate) mod headers;
mod template;

/// Calls at once, all accounts together. Others wait for their turn.
const CALLS_MAX: usize = 32;

/// The secrets that a gateway needs: those of `config.accounts`, in their order, and what the token service wants to see.
#[derive(Debug)]
pub struct Secrets {
    pub accounts: Vec<Sources>,
    /// The value of its secret header, if it has one.
    pub service: Option<Source>,
}

impl<S: Into<Sources>> From<Vec<S>> for Secrets {
    fn from(accounts: Vec<S>) -> Self {
        Self {
            accounts: accounts.into_iter().map(Into::into).collect(),
            service: None,
        }
    }
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    Unreachable,
    Timeout,
    Tls,
    /// No HTTP, or not all of it.
    Broken,
    Redirect,
    Status,
    TooLarge,
    /// No JSON, or no token in it.
    Nonsense,
    /// A token that has ended, or is about to.
    Expired,
    /// What its secret header holds cannot be read.
    Secret,
}

impl Failure {
    /// Every failure there is.
    pub(super) const ALL: [Self; 10] = [
        Self::Unreachable,
        Self::Timeout,
        Self::Tls,
        Self::Broken,
        Self::Redirect,
        Self::Status,
        Self::TooLarge,
        Self::Nonsense,
        Self::Expired,
        Self::Secret,
    ];

    /// The word in logs and metrics.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
            Self::Broken => "broken",
            Self::Redirect => "redirect",
            Self::Status => "status",
            Self::TooLarge => "too_large",
            Self::Nonsense => "nonsense",
            Self::Expired => "expired",
            Self::Secret => "secret",
        }
    }

    /// The sentence that callers read.
    pub(super) const fn detail(self) -> &'static str {
        match self {
            Self::Unreachable => "the token service cannot be reached",
            Self::Timeout => "the token service did not answer in time",
            Self::Tls => "no trusted connection to the token service could be made",
            Self::Broken => "the token service's answer is not valid HTTP, or ended early",
            Self::Redirect => "the token service redirects, which is never followed",
            Self::Status => "the token service failed, or refused to give a token",
            Self::TooLarge => "the token service's answer is too large",
            Self::Nonsense => {
                "the token service's answer has no token where the configuration says"
            }
            Self::Expired => "the token service gave a token that has ended or is about to",
            Self::Secret => {
                "the secret for the token service could not be read; the gateway's operator can see why"
            }
        }
    }

    /// The failure, with what the log may say of it.
    fn because(self, cause: impl std::fmt::Display) -> Failed {
        Failed {
            failure: self,
            cause: cause.to_string(),
        }
    }
}

/// A failure, and what only the log may say of it: nothing that the service sent.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) failure: Failure,
    pub(super) cause: String,
}

impl From<Error> for Failed {
    /// From what the shared reading of HTTP says, in upstream's terms.
    fn from(error: Error) -> Self {
        let failure = match error.kind() {
            Kind::UpstreamUnreachable | Kind::Overloaded => Failure::Unreachable,
            Kind::UpstreamTimeout => Failure::Timeout,
            Kind::UpstreamTls => Failure::Tls,
            Kind::UpstreamTooLarge => Failure::TooLarge,
            _ => Failure::Broken,
        };
        failure.because(error.cause().unwrap_or_default())
    }
}

type AnswerBody = UnsyncBoxBody<Bytes, hyper::Error>;

/// What sends a request to the service.
pub(super) type Transport = BoxCloneSyncService<Request<Full<Bytes>>, Response<AnswerBody>, Error>;

/// The service, and what is said to it.
#[derive(Debug)]
pub struct TokenService {
    config: Config,
    /// Of a token without an end of its own.
    lifetime: Duration,
    secret: Option<Arc<Source>>,
    transport: Transport,
    calls: Semaphore,
}

impl TokenService {
    /// A service that nothing is sent to yet; `None` if tokens are signed here. `secret` is what its secret header holds.
    ///
    /// # Errors
    /// If the operating system's certificates cannot be loaded for an `https` service.
    pub fn new(
        config: &super::Config,
        secret: Option<Source>,
    ) -> Result<Option<Arc<Self>>, rustls::Error> {
        if config.source == super::TokenSource::Sign {
            return Ok(None);
        }
        let plaintext = config.service.is_plaintext();
        let http = client::aside(plaintext, config.service.connect_timeout)?;
        let boxed = |answer: Response<Incoming>| answer.map(BodyExt::boxed_unsync);
        let transport = Transport::new(http.map_response(boxed));
        Ok(Some(Arc::new(Self::over(config, secret, transport))))
    }

    pub(super) fn over(
        config: &super::Config,
        secret: Option<Source>,
        transport: Transport,
    ) -> Self {
        Self {
            config: config.service.clone(),
            lifetime: config.lifetime,
            secret: secret.map(Arc::new),
            transport,
            calls: Semaphore::new(CALLS_MAX),
        }
    }

    /// Asks once for a token of the account. `clock` tells the wall's time.
    pub(super) async fn ask(
        &self,
        account: &Account,
        clock: fn() -> SystemTime,
    ) -> Result<Issued, Failed> {
        // Never closed, so this only ever waits.
        let _turn = self.calls.acquire().await.ok();
        let secret = self.secret().await?;
        let request = self.request(account, secret).ok_or_else(|| {
            Failure::Secret.because("its request cannot be written with this secret")
        })?;
        let asking = time::timeout(self.config.total_timeout, self.exchange(request));
        let body = asking
            .await
            .map_err(|_| Failure::Timeout.because("no whole answer within total_timeout"))??;
        answer::read(&body, &self.config.pointer, self.lifetime, clock())
    }

    /// What its secret header holds now: read each time, so that a new one needs nothing but its file.
    async fn secret(&self) -> Result<Option<HeaderValue>, Failed> {
        let Some(source) = self.secret.clone() else {
            return Ok(None);
        };
        let read = task::spawn_blocking(move || read_header(&source));
        let read = read.await.map_err(|error| Failure::Secret.because(error))?;
        read.map(Some)
            .map_err(|problem| Failure::Secret.because(problem))
    }

    fn request(
        &self,
        account: &Account,
        secret: Option<HeaderValue>,
    ) -> Option<Request<Full<Bytes>>> {
        let (account_id, client_id) = (account.id.as_str(), account.client.as_str());
        let url = template::fill(&self.config.url, template::url, account_id, client_id);
        let mut request = match self.config.method {
            Verb::Get => Request::new(Full::default()),
            Verb::Post => {
                let (escape, kind): (template::Escape, _) = match self.config.body_type {
                    BodyType::Json => (template::json, "application/json"),
                    BodyType::Form => (template::url, "application/x-www-form-urlencoded"),
                };
                let body = template::fill(&self.config.body, escape, account_id, client_id);
                let mut request = Request::new(Full::from(body));
                *request.method_mut() = Method::POST;
                let kind = HeaderValue::from_static(kind);
                request.headers_mut().insert(CONTENT_TYPE, kind);
                request
            }
        };
        *request.uri_mut() = url.parse().ok()?;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        for (name, value) in self.config.headers.iter() {
            let mut value = HeaderValue::from_str(value).ok()?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(name).ok()?, value);
        }
        if let Some(secret) = secret {
            let name = HeaderName::try_from(&self.config.secret_header).ok()?;
            headers.insert(name, secret);
        }
        Some(request)
    }

    /// Sends the request, and reads the body of an answer that may hold a token.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Bytes, Failed> {
        let first_byte = self.config.first_byte_timeout;
        let answer = self.transport.clone().oneshot(request);
        let (head, body) = body::within(first_byte, answer).await??.into_parts();
        match head.status {
            StatusCode::OK | StatusCode::CREATED => {}
            status if status.is_redirection() => {
                return Err(Failure::Redirect.because(format_args!("status {}", status.as_u16())));
            }
            status => {
                return Err(Failure::Status.because(format_args!("status {}", status.as_u16())));
            }
        }
        let bounds = Bounds {
            cap: self.config.answer_bytes_max.as_u64(),
            between_bytes: self.config.total_timeout,
        };
        let coding = Coding::of(&head.headers)?;
        Ok(body::collect(body, coding, bounds).await?)
    }
}

/// The secret in a place, as the value of a header. Blocking.
///
/// # Errors
/// If it cannot be read, or cannot stand in a header.
pub(crate) fn read_header(source: &Source) -> Result<HeaderValue, SecretProblem> {
    let secret = source.read()?;
    let mut value = HeaderValue::from_str(secret.expose())
        .map_err(|_| source.unusable("cannot stand in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests;
