//! Answers and errors become HTTP here, and nowhere else.
//!
//! A fresh page costs no formatting but of three numbers: the rest was made when it was stored or stands in the program.

use std::{
    collections::BTreeSet,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode,
    header::{
        ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, ETAG, RETRY_AFTER,
        WWW_AUTHENTICATE,
    },
};
use pin_project_lite::pin_project;
use serde_json::{Value, json};
use tower::{Layer, Service, layer::layer_fn};
use tracing::error;

use self::{
    conditions::Conditions,
    headers::{
        CACHE_STATUS, describe, describe_lines, describe_list, describe_running, shared, text,
    },
};
use super::{
    Inbound, Reply, Resource,
    body::Body,
    lines::{Kept, Running},
    prefer::{PREFERENCE_APPLIED, Preferences},
};
use crate::{
    contacts::{follow::Told, request::RequestId},
    error::{Error, Kind, Result, Side, Underway},
    served::Served,
};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A response, and what the log and the metrics say of it.
#[derive(Debug)]
pub struct Responded {
    pub response: Response<Body>,
    pub resource: Resource,
    /// How it was served, or the code of its error.
    pub word: &'static str,
    /// The error that it tells.
    pub problem: Option<Kind>,
    /// The caller's own doing: what it sent need not be repeated anywhere.
    pub refused: bool,
}

/// The stage.
#[derive(Clone, Debug)]
pub struct Respond<S> {
    wait_max: Duration,
    inner: S,
}

/// Turns every outcome into a response. Whoever prefers to wait for a list longer than `wait_max` waits so long.
pub fn layer<S>(wait_max: Duration) -> impl Layer<S, Service = Respond<S>> {
    layer_fn(move |inner| Respond { wait_max, inner })
}

impl<S: Service<Inbound, Response = Reply, Error = Error>> Service<Inbound> for Respond<S> {
    type Response = Responded;
    type Error = Infallible;
    type Future = Responding<S::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        // What is not ready below answers with an error of its own.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, inbound: Inbound) -> Self::Future {
        Responding {
            id: inbound.id.clone(),
            head_only: inbound.head.method == Method::HEAD,
            conditions: Conditions::of(&inbound.head.headers),
            preferences: Preferences::of(&inbound.head.headers),
            wait_max: self.wait_max,
            inner: self.inner.call(inbound),
        }
    }
}

pin_project! {
    /// A response to come.
    pub struct Responding<F> {
        id: RequestId,
        head_only: bool,
        conditions: Conditions,
        preferences: Preferences,
        wait_max: Duration,
        #[pin]
        inner: F,
    }
}

impl<F: Future<Output = Result<Reply>>> Future for Responding<F> {
    type Output = std::result::Result<Responded, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut responded = match ready!(this.inner.poll(cx)) {
            Ok(reply) => succeed(reply, this.conditions, this.id),
            Err(error) => match error.is_underway() {
                Some(underway) if this.preferences.respond_async => {
                    accept(&error, underway, this.id)
                }
                _ => fail(&error, this.id),
            },
        };
        let response = &mut responded.response;
        let accepted = response.status() == StatusCode::ACCEPTED;
        let of_a_list =
            responded.resource == Resource::List || responded.word == Kind::MergeInProgress.code();
        if of_a_list && let Some(applied) = this.preferences.applied(*this.wait_max, accepted) {
            response.headers_mut().insert(PREFERENCE_APPLIED, applied);
        }
        if let Some(etag) = response.headers().get(ETAG)
            && this.conditions.met_by(etag.as_bytes())
        {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.body_mut() = Body::Empty;
            response.headers_mut().remove(CONTENT_LENGTH);
        }
        if *this.head_only {
            *responded.response.body_mut() = Body::Empty;
        }
        Poll::Ready(Ok(responded))
    }
}

fn succeed(reply: Reply, conditions: &Conditions, id: &RequestId) -> Responded {
    let (resource, served) = (reply.resource(), reply.served());
    let (headers, body) = match reply {
        Reply::Page(answer) => {
            let encoded = answer.encoded();
            let headers = describe(&answer, encoded, conditions, id);
            let body = encoded.map_or(&answer.copy.body, |encoded| &encoded.body);
            (headers, Body::Whole(body.clone()))
        }
        Reply::List(answer) => {
            let encoded = answer.encoded();
            let mut headers = describe(&answer, encoded, conditions, id);
            describe_list(&mut headers, &answer);
            let body = match encoded {
                Some(encoded) => Body::Whole(encoded.body.clone()),
                None => Body::document(answer.copy),
            };
            (headers, body)
        }
        Reply::Lines(Told::Kept(answer)) => {
            let headers = describe_lines(&answer, conditions, id);
            (headers, Body::Lines(Box::new(Kept::new(answer.copy))))
        }
        Reply::Lines(Told::Running(running)) => {
            let mut headers = of_request(id);
            describe_running(&mut headers, &running);
            let lines = Running::new(running.lines, id.clone(), problem);
            (headers, Body::Running(Box::new(lines)))
        }
        Reply::Text(media_type, text) => {
            let mut headers = of_request(id);
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
            headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
            headers.insert(CACHE_CONTROL, NO_STORE);
            (headers, Body::Whole(text))
        }
        Reply::File(file) => {
            let mut headers = of_request(id);
            file.describe(&mut headers);
            (headers, Body::Whole(file.content().clone()))
        }
    };
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    Responded {
        response,
        resource,
        word: served.map_or("ok", Served::word),
        problem: None,
        refused: false,
    }
}

/// What tells whom an answer is to, for headers of which there are more to come.
fn of_request(id: &RequestId) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(16);
    headers.insert(REQUEST_ID, shared(id.to_bytes()));
    headers
}

/// The status of each kind of error.
pub(crate) const fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::BadStream
        | Kind::BadAccount
        | Kind::BadParameter
        | Kind::BadHost
        | Kind::BodyNotAllowed => StatusCode::BAD_REQUEST,
        Kind::Unauthorized => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound | Kind::UnknownAccount | Kind::StreamNotFound => StatusCode::NOT_FOUND,
        Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Kind::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Kind::UriTooLong => StatusCode::URI_TOO_LONG,
        Kind::MergeTooLarge | Kind::ConfigurationRefused => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::RestartNeeded => StatusCode::CONFLICT,
        Kind::CallerThrottled => StatusCode::TOO_MANY_REQUESTS,
        Kind::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Kind::UpstreamUnreachable
        | Kind::Upstream5xx
        | Kind::UpstreamTruncated
        | Kind::UpstreamInvalidBody
        | Kind::UpstreamWrongType
        | Kind::UpstreamSchema
        | Kind::UpstreamTooLarge
        | Kind::UpstreamEncoding
        | Kind::UpstreamRedirect
        | Kind::UpstreamProtocol
        | Kind::Upstream4xx
        | Kind::UpstreamTls
        | Kind::UpstreamAuthRejected
        | Kind::UpstreamTenantMismatch
        | Kind::PaginationInconsistent
        | Kind::MergeUnverified => StatusCode::BAD_GATEWAY,
        Kind::UpstreamRateLimited
        | Kind::UpstreamUnavailable
        | Kind::BudgetExhausted
        | Kind::CredentialsUnavailable
        | Kind::TokenServiceUnavailable
        | Kind::MergeInProgress
        | Kind::MergeDrifting
        | Kind::MergeBusy
        | Kind::Overloaded
        | Kind::Draining => StatusCode::SERVICE_UNAVAILABLE,
        Kind::UpstreamTimeout | Kind::OnlyIfCached => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// Every status that an error can be told with, each once.
pub(super) fn statuses() -> BTreeSet<StatusCode> {
    Kind::ALL.iter().map(|kind| status(*kind)).collect()
}

/// A problem document (RFC 9457), which callers written against Kore.ai can read as well.
fn problem(error: &Error, id: &RequestId) -> Value {
    let (kind, status) = (error.kind(), status(error.kind()));
    let mut problem = json!({
        "type": format!("urn:contacts-gateway:problem:{}", kind.code()),
        "title": kind.title(),
        "status": status.as_u16(),
        "detail": error.detail(),
        "code": kind.code(),
        "request_id": id.to_string(),
        "retryable": kind.retryable(),
        "errors": [{ "msg": error.detail(), "code": status.as_u16() }],
    });
    if let Some(underway) = error.is_underway() {
        tell(underway, &mut problem);
    }
    problem
}

/// An error as a response of its own.
fn fail(error: &Error, id: &RequestId) -> Responded {
    // What a flight brings is in the log once, for all who waited. A fault of the gateway's own that is nobody's flight is
    // told here or nowhere.
    if let (Kind::Internal, None, Some(cause)) = (error.kind(), error.how(), error.cause()) {
        error!(
            request = %id,
            code = error.kind().code(),
            cause,
            "{}",
            error.detail()
        );
    }
    Responded {
        problem: Some(error.kind()),
        ..refuse(
            error,
            status(error.kind()),
            (PROBLEM, &problem(error, id)),
            id,
        )
    }
}

/// What is still being fetched, for a caller that need not wait for it (RFC 7240, section 4.1).
fn accept(error: &Error, underway: Underway, id: &RequestId) -> Responded {
    let kind = error.kind();
    let mut told = json!({
        "status": StatusCode::ACCEPTED.as_u16(),
        "detail": error.detail(),
        "code": kind.code(),
        "request_id": id.to_string(),
    });
    tell(underway, &mut told);
    refuse(error, StatusCode::ACCEPTED, (JSON, &told), id)
}

/// How far it is, in a document.
fn tell(underway: Underway, document: &mut Value) {
    document["pages_done"] = underway.pages_done.into();
    document["pages_needed"] = underway.pages_needed.into();
    document["estimate_s"] = seconds(underway.estimate).into();
}

/// Rounded up: who comes back when told to is not told to wait again.
fn seconds(wait: Duration) -> u64 {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    seconds.max(1)
}

/// A document of our own in place of an answer.
fn refuse(
    error: &Error,
    status: StatusCode,
    (media_type, document): (HeaderValue, &Value),
    id: &RequestId,
) -> Responded {
    let kind = error.kind();
    let body = Bytes::from(document.to_string());
    let mut headers = of_request(id);
    headers.insert(CONTENT_TYPE, media_type);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(CACHE_CONTROL, NO_STORE);
    if let Some(wait) = error.wait() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
    }
    match error.how() {
        Some(Served::Fetched(forward)) => {
            headers.insert(
                CACHE_STATUS,
                text(format_args!("contacts-gateway; fwd={}", forward.word())),
            );
        }
        Some(Served::Joined(forward)) => {
            let why = forward.word();
            headers.insert(
                CACHE_STATUS,
                text(format_args!("contacts-gateway; fwd={why}; collapsed")),
            );
        }
        Some(Served::Hit | Served::Slice | Served::Stale(_) | Served::Floor) | None => {}
    }
    match kind {
        Kind::MethodNotAllowed => {
            let methods = error.allows().unwrap_or("GET, HEAD");
            headers.insert(ALLOW, HeaderValue::from_static(methods));
        }
        Kind::Unauthorized => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        // What follows on the connection is that body, or perhaps meant for another host.
        Kind::BodyNotAllowed | Kind::BadHost => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        _ => {}
    }
    let mut response = Response::new(Body::Whole(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Responded {
        response,
        resource: Resource::Other,
        word: kind.code(),
        problem: None,
        refused: kind.side() == Side::Caller,
    }
}

mod conditions;
mod headers;

#[cfg(test)]
mod tests;
