//! The outermost stage: names each request and whoever asks, counts it, and writes its access line.
//!
//! Who asks is found out here and judged below ([`caller`](super::caller)), so that the line of a refused request says it too.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use pin_project_lite::pin_project;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use tokio::time::Instant;
use tower::{Layer, Service, layer::layer_fn};
use tracing::{Level, enabled, info};

use super::{
    Inbound, Resource,
    body::Body,
    caller::{Caller, Roster},
    respond::{self, REQUEST_ID, Responded},
};
use crate::{
    contacts::request::RequestId,
    metrics::{self, ByKind, Registry},
    telemetry::ACCESS,
    traceparent::TraceContext,
};

/// The stage.
#[derive(Clone, Debug)]
pub struct Trace<S> {
    shared: Arc<Shared>,
    inner: S,
}

#[derive(Debug)]
struct Shared {
    /// Tells this process's requests from those of another.
    start: u32,
    count: AtomicU64,
    sample: Sample,
    callers: Roster,
    metrics: Metrics,
}

/// Names, counts and logs requests. Who asks is looked up once, so that a request ends on the configuration that it began
/// with. `start` should differ from process to process; `share` of the access lines are written, from 0 to 1.
pub fn layer<S>(
    start: u32,
    share: f64,
    callers: Roster,
    metrics: Metrics,
) -> impl Layer<S, Service = Trace<S>> {
    let shared = Arc::new(Shared {
        start,
        count: AtomicU64::new(0),
        sample: Sample::new(share),
        callers,
        metrics,
    });
    layer_fn(move |inner| Trace {
        shared: shared.clone(),
        inner,
    })
}

impl<S, B> Service<Request<B>> for Trace<S>
where
    S: Service<Inbound, Response = Responded, Error = Infallible>,
    B: http_body::Body,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Tracing<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let started = Instant::now();
        let has_body = !request.body().is_end_stream();
        let (mut head, _) = request.into_parts();
        let header_lines = head.headers.len();
        let asker = self.shared.callers.load().identify(&mut head.headers);
        let own = head
            .headers
            .get(REQUEST_ID)
            .and_then(|id| RequestId::parse(id.as_bytes()));
        let id = own.unwrap_or_else(|| {
            let count = self.shared.count.fetch_add(1, Ordering::Relaxed);
            RequestId::number(self.shared.start, count)
        });
        let trace = TraceContext::of(&head.headers);
        let access = enabled!(target: ACCESS, Level::INFO).then(|| Access {
            id: id.clone(),
            trace,
            method: head.method.clone(),
            target: head.uri.path_and_query().map(|it| it.as_str().into()),
        });
        Tracing {
            caller: asker.caller().cloned(),
            inner: self.inner.call(Inbound {
                head,
                has_body,
                header_lines,
                id,
                trace,
                asker,
            }),
            shared: self.shared.clone(),
            started,
            access,
        }
    }
}

/// What the access line will say.
struct Access {
    id: RequestId,
    trace: Option<TraceContext>,
    method: Method,
    /// A copy: the request's own shares its memory with the whole head, which would then be held as long as this is.
    target: Option<Box<str>>,
}

pin_project! {
    /// A response to come.
    pub struct Tracing<F> {
        #[pin]
        inner: F,
        shared: Arc<Shared>,
        caller: Option<Arc<Caller>>,
        started: Instant,
        access: Option<Access>,
    }
}

impl<F: Future<Output = Result<Responded, Infallible>>> Future for Tracing<F> {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(responded) = ready!(this.inner.poll(cx));
        let took = this.started.elapsed();
        let status = responded.response.status();
        this.shared.metrics.count(&responded, took);
        if let Some(caller) = this.caller {
            caller.count(status);
        }
        if let Some(access) = this.access.take()
            && this.shared.sample.takes(status)
        {
            access.write(
                this.caller.as_deref().map(|caller| &**caller.name()),
                &responded,
                took,
            );
        }
        Poll::Ready(Ok(responded.response))
    }
}

/// Which access lines are written. What failed on this side always is.
#[derive(Debug)]
struct Sample {
    /// Of 2^64.
    share: u64,
    seen: AtomicU64,
}

impl Sample {
    fn new(share: f64) -> Self {
        Self {
            // Saturates at both ends, and 1 is all of them.
            share: (share * 2_f64.powi(64)) as u64,
            seen: AtomicU64::new(0),
        }
    }

    fn takes(&self, status: StatusCode) -> bool {
        if self.share == u64::MAX || status.is_server_error() {
            return true;
        }
        // Multiples of the golden ratio lie evenly between 0 and 1: the share is kept in any stretch of requests, and
        // requests that come in turns are not all left out.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        seen.wrapping_mul(GOLDEN) < self.share
    }
}

impl Access {
    fn write(&self, caller: Option<&str>, responded: &Responded, took: Duration) {
        // A path or a query that made no sense here may hold anything, a person's name included.
        let target = match &self.target {
            Some(target) if !responded.refused => target,
            _ => "-",
        };
        // So may a method, which can be any word.
        let method = match self.method {
            Method::GET | Method::HEAD | Method::POST | Method::PUT | Method::DELETE => {
                self.method.as_str()
            }
            _ => "-",
        };
        info!(
            target: ACCESS,
            request = %self.id,
            trace = self.trace.map(display),
            caller,
            method,
            path = target,
            status = responded.response.status().as_u16(),
            cache = responded.word,
            bytes = responded.response.body().size_hint().exact(),
            duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        );
    }
}

/// What one listener's requests tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: IntCounterVec,
    listener: &'static str,
    /// Those answered and those whose copy still holds, by resource, resolved once: nearly every request is one.
    succeeded: [IntCounter; Resource::ALL.len()],
    unchanged: [IntCounter; Resource::ALL.len()],
    duration: [Histogram; Resource::ALL.len()],
    problems: Arc<ByKind>,
}

/// The metrics of both listeners.
struct Families {
    requests: IntCounterVec,
    duration: HistogramVec,
    problems: IntCounterVec,
}

impl Families {
    fn of(&self, listener: &'static str, resources: [Resource; 3]) -> Metrics {
        let requests = |status: StatusCode| {
            resources.map(|resource| {
                let labels = [listener, resource.word(), status.as_str()];
                self.requests.with_label_values(&labels)
            })
        };
        let duration = |resource: Resource| {
            let labels = [listener, resource.word()];
            self.duration.with_label_values(&labels)
        };
        let problems = self.problems.clone();
        // All that callers can be told is there from the start.
        let expects_all = listener == TRAFFIC;
        if expects_all {
            for status in respond::statuses() {
                let labels = [listener, Resource::Other.word(), status.as_str()];
                self.requests.with_label_values(&labels);
            }
        }
        Metrics {
            requests: self.requests.clone(),
            listener,
            succeeded: requests(StatusCode::OK),
            unchanged: requests(StatusCode::NOT_MODIFIED),
            duration: resources.map(duration),
            problems: Arc::new(ByKind::new(
                move |code| problems.with_label_values(&[listener, code]),
                |_| expects_all,
            )),
        }
    }
}

const TRAFFIC: &str = "traffic";

impl Metrics {
    /// The metrics of the traffic and of the admin listener.
    pub fn new(registry: &Registry) -> metrics::Result<[Self; 2]> {
        let families = Families {
            requests: registry.counter(
                "requests_total",
                "Requests answered, by what they were about (page, list, or other: errors, and the gateway's own) and by status.",
                &["listener", "resource", "status"],
            )?,
            duration: registry.seconds(
                "request_duration_seconds",
                "From a request's head to its response's head.",
                &["listener", "resource"],
            )?,
            problems: registry.counter(
                "problems_total",
                "Errors that requests were answered with, by the code in them.",
                &["listener", "code"],
            )?,
        };
        Ok([
            families.of(TRAFFIC, Resource::ALL),
            // It has no pages and no lists, and should not show them as never asked for.
            families.of("admin", [Resource::Other; 3]),
        ])
    }

    fn count(&self, responded: &Responded, took: Duration) {
        let (resource, status) = (responded.resource, responded.response.status());
        let place = resource as usize;
        match status {
            StatusCode::OK => self.succeeded[place].inc(),
            StatusCode::NOT_MODIFIED => self.unchanged[place].inc(),
            _ => {
                let labels = [self.listener, resource.word(), status.as_str()];
                self.requests.with_label_values(&labels).inc();
            }
        }
        if let Some(kind) = responded.problem {
            self.problems.of(kind).inc();
        }
        self.duration[place].observe(took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tower::{ServiceExt, service_fn};

    use super::*;

    fn stage()
    -> impl Service<Request<Empty<bytes::Bytes>>, Response = Response<Body>, Error = Infallible>
    {
        let [metrics, _] = Metrics::new(&Registry::new().unwrap()).unwrap();
        let inner = service_fn(async |inbound: Inbound| {
            let mut response = Response::new(Body::Empty);
            let id = inbound.id.to_string().parse().unwrap();
            response.headers_mut().insert("x-request-id", id);
            Ok(Responded {
                response,
                resource: Resource::Page,
                word: "hit",
                problem: None,
                refused: false,
            })
        });
        layer(7, 1.0, Roster::default(), metrics).layer(inner)
    }

    async fn id_of(request: http::request::Builder) -> String {
        let request = request.body(Empty::new()).unwrap();
        let response = stage().oneshot(request).await.unwrap();
        response.headers()["x-request-id"]
            .to_str()
            .unwrap()
            .to_owned()
    }

    #[tokio::test]
    async fn a_well_formed_id_of_the_callers_own_is_kept() {
        assert_eq!(
            id_of(Request::get("/").header("x-request-id", "abc-1")).await,
            "abc-1"
        );
        for bad in ["a b", "x/y", ""] {
            let given = id_of(Request::get("/").header("x-request-id", bad)).await;
            assert!(given.starts_with("00000007-"), "{given}");
        }
    }

    #[test]
    fn the_share_is_kept_in_any_stretch_and_failures_are_always_written() {
        let lines = |share, status: StatusCode, of: usize| {
            let sample = Sample::new(share);
            let taken: Vec<_> = (0..of).map(|_| sample.takes(status)).collect();
            taken
        };
        let count = |taken: &[bool]| taken.iter().filter(|taken| **taken).count();
        for (share, expected) in [(0.0, 0), (0.01, 10), (0.25, 250), (0.5, 500), (1.0, 1000)] {
            let taken = lines(share, StatusCode::OK, 1000);
            assert!(count(&taken).abs_diff(expected) <= 2, "{share}");
            // Every second request is of the same kind.
            let [even, odd] = [0, 1].map(|first| {
                let every: Vec<_> = taken.iter().skip(first).step_by(2).copied().collect();
                count(&every)
            });
            assert!(even.abs_diff(odd) <= expected / 5, "{share}: {even} {odd}");
            for taken in taken.chunks(100) {
                assert!(count(taken).abs_diff(expected / 10) <= 2, "{share}");
            }
            let failed = lines(share, StatusCode::SERVICE_UNAVAILABLE, 100);
            assert_eq!(count(&failed), 100);
        }
    }

    #[test]
    fn resources_stand_in_their_order() {
        for (place, resource) in Resource::ALL.into_iter().enumerate() {
            assert_eq!(resource as usize, place);
        }
    }
}
