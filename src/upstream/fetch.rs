//! One page from upstream: the request built from parsed values alone, the answer judged before it is believed.
//!
//! An answer is judged from the outside in: status, type, coding, size, JSON, shape, echo. What fails is never kept,
//! and nothing of its text reaches a caller.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{
    HeaderName, HeaderValue, Request, StatusCode, Uri,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE},
};
use http_body::Body;
use http_body_util::Empty;
use tokio::{
    select,
    sync::{Semaphore, oneshot},
    time::Instant,
};
use tower::{Layer, Service, ServiceExt, layer::layer_fn};

use self::head::{forbids_to_keep, judge, pause};
pub use self::metrics::Metrics;
use super::{
    Attempt, Config, Paging, TenantCheck,
    body::{self, Bounds, Coding},
    client::{Afresh, Connection, Lane},
    encrypted, refusal,
};
use crate::{
    contacts::{
        page::{Page, PageKey, Window, contact::Tenant, decode::Asked},
        request::Fetch,
        spent::Phase,
    },
    error::{Error, Kind, Result},
    metrics::Counted,
    traceparent::TRACEPARENT,
};

mod head;
mod metrics;

const ACCOUNT_ID: HeaderName = HeaderName::from_static("accountid");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The stage.
#[derive(Clone, Debug)]
pub struct FetchPages<S> {
    shared: Arc<Shared>,
    inner: S,
}

#[derive(Debug)]
struct Shared {
    /// One for each call that may be under way.
    calls: Semaphore,
    config: Config,
    metrics: Metrics,
}

/// Fetches pages through whatever sends attempts.
pub fn layer<S>(config: Config, metrics: Metrics) -> impl Layer<S, Service = FetchPages<S>> {
    let shared = Arc::new(Shared {
        calls: Semaphore::new(config.calls_max),
        config,
        metrics,
    });
    layer_fn(move |inner| FetchPages {
        shared: shared.clone(),
        inner,
    })
}

impl<S, B> Service<Fetch<PageKey>> for FetchPages<S>
where
    S: Service<Attempt, Response = http::Response<B>, Error = Error, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Send + Unpin + 'static,
{
    type Response = Page;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Page>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        // The turn is waited for in each call, and so is whatever is below.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, fetch: Fetch<PageKey>) -> Self::Future {
        let PageKey {
            collection, window, ..
        } = fetch.key;
        let account = collection.account.clone();
        let mut request = match request(
            &self.shared.config,
            account.id.as_str(),
            collection.stream.as_str(),
            window,
        ) {
            Ok(request) => request,
            Err(error) => return async { Err(error) }.boxed(),
        };
        request.extensions_mut().insert(Lane {
            account: account.id.clone(),
            stream: collection.stream.clone(),
        });
        if let Some(trace) = fetch.trace {
            request.headers_mut().insert(TRACEPARENT, trace.next());
        }
        if fetch.afresh {
            request.extensions_mut().insert(Afresh);
        }
        let (began, beginning) = oneshot::channel();
        let attempt = Attempt {
            collection: collection.clone(),
            request,
            began,
        };
        let (shared, inner) = (self.shared.clone(), self.inner.clone());
        async move {
            let config = &shared.config;
            // Never closed, so this only ever waits. A call that waits for its turn has not begun.
            let waits_from = Instant::now();
            let _turn = shared.calls.acquire().await.ok();
            let turn = Instant::now();
            let mut answer = pin!(inner.oneshot(attempt));
            // A token that is waited for is nothing that upstream takes its time for.
            let unsigned = select! {
                biased;
                _ = beginning => None,
                answered = &mut answer => Some(answered),
            };
            let asked_at = Instant::now();
            let _running = Counted::new(&shared.metrics.running);
            fetch.spent.add(Phase::Queue, turn - waits_from);
            fetch.spent.add(Phase::Token, asked_at - turn);
            let read = async {
                let answer = async {
                    match unsigned {
                        Some(answered) => answered,
                        None => answer.await,
                    }
                };
                let response = body::within(config.first_byte_timeout, answer).await??;
                let asked = Asked {
                    window,
                    pages: config.paging == Paging::PageLimit,
                    tenant: Tenant {
                        account: account.id.as_str(),
                        stream: collection.stream.as_str(),
                    },
                };
                read(response, config, asked, asked_at).await
            };
            let outcome = body::within(config.page_timeout, read).await.flatten();
            let took = asked_at.elapsed();
            fetch.spent.add(Phase::Upstream, took);
            shared.metrics.count(&account, &outcome, took);
            if let Ok(page) = &outcome {
                collection.limits.learn(window, page);
            }
            outcome
        }
        .boxed()
    }
}

/// The request for a window. Nothing that a caller sent is in it but the stream's id and the two numbers; beside them goes
/// the id of its trace.
fn request(
    config: &Config,
    account: &str,
    stream: &str,
    window: Window,
) -> Result<Request<Empty<Bytes>>> {
    let base = config.base_url.trim_end_matches('/');
    let Window { skip, limit } = window;
    let query = match config.paging {
        Paging::SkipLimit => format!("skip={skip}&limit={limit}"),
        Paging::PageLimit => format!("page={}&limit={limit}", skip / u64::from(limit) + 1),
    };
    let uri = Uri::try_from(format!(
        "{base}/agentassist/api/v1/public/{stream}/contacts?{query}"
    ));
    let unsendable = |cause: &dyn std::fmt::Display| {
        Error::new(Kind::Internal, "no request to upstream could be made")
            .because(cause)
            .unsent()
    };
    Request::get(uri.map_err(|error| unsendable(&error))?)
        .header(ACCOUNT_ID, account)
        .header(CONTENT_TYPE, JSON)
        .header(ACCEPT, JSON)
        .header(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))
        .body(Empty::new())
        .map_err(|error| unsendable(&error))
}

/// Reads an answer as a page. What says that it is one and is none may have been meant for somebody else, so that its
/// connection is not used again.
async fn read<B>(
    response: http::Response<B>,
    config: &Config,
    asked: Asked<'_>,
    asked_at: Instant,
) -> Result<Page>
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    let connection = match response.status() {
        StatusCode::OK => response.extensions().get::<Connection>().cloned(),
        _ => None,
    };
    let outcome = page(response, config, asked, asked_at).await;
    if let (Err(_), Some(connection)) = (&outcome, connection) {
        connection.give_up();
    }
    outcome
}

/// The page that an answer holds, or what it is instead.
async fn page<B>(
    response: http::Response<B>,
    config: &Config,
    asked: Asked<'_>,
    asked_at: Instant,
) -> Result<Page>
where
    B: Body<Data = Bytes, Error: std::error::Error + 'static> + Unpin,
{
    let (head, body) = response.into_parts();
    let bounds = |cap| Bounds {
        cap,
        between_bytes: config.between_bytes_timeout,
    };
    let (fault, text) = match judge(head.status, &head.headers) {
        Ok(coding) => {
            let body = body::collect(body, coding, bounds(config.page_bytes_max.as_u64())).await?;
            match Page::decode(body.clone(), asked, asked_at) {
                Ok(page) if page.foreign > 0 && config.tenant_check == TenantCheck::Reject => {
                    return Err(foreign(&page));
                }
                Ok(page) => {
                    let no_store = forbids_to_keep(&head.headers);
                    return Ok(Page { no_store, ..page });
                }
                Err(fault) => (encrypted::recognise(fault, &body), body),
            }
        }
        Err(fault) if refusal::may_tell(&fault) => {
            let coding = Coding::of(&head.headers).unwrap_or(Coding::Identity);
            let text = body::collect(body, coding, bounds(refusal::TEXT_MAX)).await;
            (fault, text.unwrap_or_default())
        }
        Err(fault) => return Err(fault),
    };
    Err(refusal::recognise(fault, &text, pause(&head.headers)))
}

fn foreign(page: &Page) -> Error {
    let (foreign, all) = (page.foreign, page.records.len());
    let detail = "upstream's answer holds contacts of another account or stream";
    Error::new(Kind::UpstreamTenantMismatch, detail).because(format!("{foreign} of {all} records"))
}

#[cfg(test)]
mod tests;
