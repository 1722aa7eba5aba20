//! One request to the gateway's traffic listener, and its answer: a refusal, or lines.

use std::{error::Error, iter, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Request, Response, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, USER_AGENT},
};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use tokio::time;
use zeroize::Zeroizing;

use super::{ExportError, line::Problem};
use crate::{
    cli::reach::{GatewayClient, Trust},
    contacts::ids::is_plain,
    upstream::secret::Secret,
};

/// How long the gateway may take to begin an answer. By default it gives a request 30 s.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// The longest problem document that is read, in bytes.
const PROBLEM_BYTES_MAX: usize = 64 << 10;

/// The longest detail that is repeated, in characters.
const DETAIL_MAX: usize = 400;

const NDJSON: &str = "application/x-ndjson";

/// What is asked for, besides the address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wishes<'a> {
    /// The `accountId` header.
    pub account: Option<&'a str>,
    pub key: Option<&'a Secret>,
    pub cache_control: Option<&'a str>,
    pub prefer: Option<&'a str>,
}

/// A list that can be asked for.
#[derive(Debug)]
pub(super) struct Source {
    client: GatewayClient,
    request: Request<Empty<Bytes>>,
}

/// What the gateway says at first.
#[derive(Debug)]
pub(super) enum Answer {
    Lines(Response<Incoming>),
    Refused(Refusal),
}

/// No list, for now or for good.
#[derive(Debug)]
pub(super) struct Refusal {
    pub problem: Problem,
    pub after: Option<Duration>,
}

impl Source {
    pub(super) fn new(list: Uri, trust: &Trust, wishes: Wishes<'_>) -> Result<Self, ExportError> {
        let client = trust.client(&list)?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = list;
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static(NDJSON));
        let agent = concat!("contacts-gateway-export/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        for (name, value) in [
            ("accountid", wishes.account),
            (CACHE_CONTROL.as_str(), wishes.cache_control),
            ("prefer", wishes.prefer),
        ] {
            if let Some(value) = value.and_then(|value| value.parse().ok()) {
                headers.insert(http::HeaderName::from_static(name), value);
            }
        }
        if let Some(key) = wishes.key {
            let bearer = Zeroizing::new(format!("Bearer {}", key.expose()));
            let mut bearer: HeaderValue = bearer.parse().map_err(|_| ExportError::KeyNoHeader)?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(Self { client, request })
    }

    /// Asks once.
    pub(super) async fn ask(&self) -> Result<Answer, ExportError> {
        let unanswered = |cause: &dyn Error| ExportError::Unanswered(chain(cause));
        let answer = time::timeout(HEAD_TIMEOUT, self.client.request(self.request.clone()));
        let response = answer
            .await
            .map_err(|_| ExportError::Unanswered(format!("nothing came within {HEAD_TIMEOUT:?}")))?
            .map_err(|error| unanswered(&error))?;
        if response.status() == StatusCode::OK {
            return match is(response.headers(), NDJSON) {
                true => Ok(Answer::Lines(response)),
                false => Err(ExportError::NotNdjson),
            };
        }
        let (head, body) = response.into_parts();
        let body = Limited::new(body, PROBLEM_BYTES_MAX).collect();
        let body = time::timeout(HEAD_TIMEOUT, body).await;
        // Without a document, the status still tells.
        let document = body.ok().and_then(Result::ok).map(|body| body.to_bytes());
        let document = document.filter(|_| is(&head.headers, "application/problem+json"));
        let problem = document.and_then(|body| serde_json::from_slice(&body).ok());
        Ok(Answer::Refused(Refusal::new(
            head.status,
            problem.unwrap_or_default(),
            &head.headers,
        )))
    }
}

impl Refusal {
    fn new(status: StatusCode, problem: Problem, headers: &HeaderMap) -> Self {
        let after = headers
            .get(RETRY_AFTER)
            .and_then(|after| after.to_str().ok());
        let after = after
            .and_then(|after| after.parse().ok())
            .map(Duration::from_secs);
        let mut problem = problem.printable();
        if problem.code.is_empty() {
            // Something between here and the gateway, which may say that it will be back.
            problem.code = format!("status {}", status.as_u16());
            problem.retryable = after.is_some() && matches!(status.as_u16(), 429 | 502..=504);
        }
        Self { problem, after }
    }
}

impl Problem {
    /// The same, fit for a terminal whoever wrote it.
    pub(super) fn printable(mut self) -> Self {
        if !is_plain(&self.code) {
            self.code.clear();
        }
        let seen = self.detail.chars().filter(|c| !c.is_control());
        self.detail = seen.take(DETAIL_MAX).collect();
        if self.detail.is_empty() {
            self.detail.push_str("it does not say why");
        }
        self
    }
}

/// Whether a body is of this type.
fn is(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case(media_type))
}

/// An error with what is behind it.
fn chain(error: &dyn Error) -> String {
    let causes = iter::successors(Some(error), |&cause| cause.source());
    let causes: Vec<_> = causes.map(ToString::to_string).collect();
    causes.join(": ")
}
