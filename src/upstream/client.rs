//! The HTTP client: pooled connections to the one upstream.
//!
//! On a connection that is out of step, an answer may be taken for the next request's, and HTTP/1.1 has nothing to tell
//! them apart by. So a connection serves one collection only, and is given up after whatever is not plainly an answer.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http::{
    StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{
        self,
        connect::{CaptureConnection, HttpConnector, capture_connection},
    },
    rt::{TokioExecutor, TokioTimer},
};
use lru::LruCache;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt;
use tokio::{select, time::Instant};
use tower::{Service, ServiceExt};

use self::{
    connector::{Born, Connector, IDLE_FOR},
    interim::Interim,
};
use super::Config;
use crate::{
    contacts::ids::{AccountId, StreamId},
    error::{Error, Kind, Result},
};

mod connector;
mod faults;
mod interim;
mod reach;

pub(super) use faults::classify;
pub use reach::{Hop, Unreached};

/// The header lines of a response, at most.
const HEADERS_MAX: usize = 100;

/// Collections whose connections are kept. Beyond it, those of the one that waited longest are closed.
const LANES_MAX: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// Connections that are kept for the next calls, at most, whatever the accounts.
pub fn idle_max(config: &Config) -> u64 {
    LANES_MAX.get() as u64 * config.idle_connections_max as u64
}

/// The stage at the very bottom.
#[derive(Clone, Debug)]
pub struct Client {
    lanes: Arc<Mutex<LruCache<Lane, Http>>>,
    /// Keeps no connection, so that each of its requests has a new one.
    unpooled: Http,
    connector: Connector,
    idle_max: usize,
}

type Http = legacy::Client<Connector, Empty<Bytes>>;

/// Whose connections a request may use: those of its own collection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Lane {
    pub account: AccountId,
    pub stream: StreamId,
}

/// Marks a request that must have a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Afresh;

/// The connection that a response came on.
#[derive(Clone, Debug)]
pub(super) struct Connection(Arc<CaptureConnection>);

impl Connection {
    /// Sees to it that no other request is sent on it.
    pub(super) fn give_up(&self) {
        if let Some(connection) = &*self.0.connection_metadata() {
            connection.poison();
        }
    }
}

impl Client {
    /// A client that trusts what the operating system trusts. Opens no connection yet.
    ///
    /// # Errors
    /// If the operating system's certificates cannot be loaded for an `https` upstream.
    pub fn new(config: &Config) -> std::result::Result<Self, rustls::Error> {
        let plaintext = config.base_url.starts_with("http://");
        let connector = connector(plaintext, config.connect_timeout)?;
        Ok(Self {
            lanes: Arc::new(Mutex::new(LruCache::new(LANES_MAX))),
            unpooled: pool(connector.clone(), 0),
            connector,
            idle_max: config.idle_connections_max,
        })
    }

    /// The connections that a request may use.
    fn connections(&self, request: &http::Request<Empty<Bytes>>) -> Http {
        let extensions = request.extensions();
        match (extensions.get::<Afresh>(), extensions.get::<Lane>()) {
            (None, Some(lane)) => {
                let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
                let new = || pool(self.connector.clone(), self.idle_max);
                lanes.get_or_insert(lane.clone(), new).clone()
            }
            // Without a lane there is nobody to keep a connection for.
            _ => self.unpooled.clone(),
        }
    }
}

/// A client for somebody else than upstream, with the same trust and few connections: for one host that is asked rarely.
///
/// # Errors
/// As [`Client::new`].
pub(super) fn aside(
    plaintext: bool,
    connect_timeout: Duration,
) -> std::result::Result<
    impl Service<
        http::Request<Full<Bytes>>,
        Response = http::Response<Incoming>,
        Error = Error,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + 'static,
    rustls::Error,
> {
    let client: legacy::Client<_, Full<Bytes>> = pool(connector(plaintext, connect_timeout)?, 2);
    Ok(client.map_err(|error| faults::classify(&error)))
}

/// Makes connections that trust what the operating system trusts.
fn connector(plaintext: bool, timeout: Duration) -> std::result::Result<Connector, rustls::Error> {
    let tls = if plaintext {
        // Never used; a machine without certificates can still reach a plaintext upstream.
        ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth()
    } else {
        ClientConfig::with_platform_verifier()?
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
    let builder = if plaintext {
        builder.https_or_http()
    } else {
        builder.https_only()
    };
    let https = builder.enable_http1().wrap_connector(tcp.clone());
    Ok(Connector::new(tcp, https, timeout))
}

/// Connections to one host, so many of them kept while they are idle.
fn pool<B>(connector: Connector, idle_max: usize) -> legacy::Client<Connector, B>
where
    B: http_body::Body<Data: Send> + Send,
{
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(idle_max)
        .http1_max_headers(HEADERS_MAX)
        .build(connector)
}

impl Service<http::Request<Empty<Bytes>>> for Client {
    type Response = http::Response<Incoming>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The response's extensions hold the connection that it came on.
    fn call(&mut self, mut request: http::Request<Empty<Bytes>>) -> Self::Future {
        let client = self.connections(&request);
        let connection = Connection(Arc::new(capture_connection(&mut request)));
        let interim = Interim::of(&mut request);
        let answer = client.request(request);
        async move {
            let answered = select! {
                biased;
                flooded = interim.flood() => return Err(flooded),
                answered = answer => answered,
            };
            let mut response =
                answered.map_err(|error| faults::curable(faults::classify(&error)))?;
            let fault = interim.flooded().or_else(|| misframed(&response));
            let born = response.extensions().get::<Born>();
            if fault.is_some() || born.is_some_and(|born| !born.is_young(Instant::now())) {
                connection.give_up();
            }
            response.extensions_mut().insert(connection);
            fault.map_or(Ok(response), Err)
        }
        .boxed()
    }
}

/// Why a response's end cannot be relied on: it has two of them (RFC 9112, section 6.3), or nobody knows what its status
/// means here.
fn misframed<B>(response: &http::Response<B>) -> Option<Error> {
    let protocol = |detail| {
        let status = response.status();
        Error::new(Kind::UpstreamProtocol, detail).because(format!("status {status}"))
    };
    let headers = response.headers();
    if headers.contains_key(CONTENT_LENGTH) && headers.contains_key(TRANSFER_ENCODING) {
        return Some(protocol("upstream's answer has two lengths"));
    }
    match response.status() {
        StatusCode::OK => None,
        // No request of ours asks for it: some of them end at once, whatever their headers say.
        status if status.as_u16() < 300 || status == StatusCode::NOT_MODIFIED => {
            let odd = protocol("upstream answered with an unexpected status");
            Some(odd.from_a_host_that_is_well())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
