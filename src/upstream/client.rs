//! The HTTP client: pooled connections to the one upstream, and hyper's errors in our own words.

use std::{
    error::Error as StdError,
    io,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{
        self,
        connect::{HttpConnector, capture_connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt;
use tokio::{net::TcpStream, time::Instant};
use tower::{Service, util::MapResponse};

use super::{
    Config,
    aging::{self, Aging, Born, IDLE_FOR},
};
use crate::error::{Again, Error, Kind, Result};

/// The header lines of a response, at most.
const HEADERS_MAX: usize = 100;

/// The stage at the very bottom.
#[derive(Clone, Debug)]
pub struct Client {
    pooled: Http,
    /// Keeps no connection, so that each of its requests has a new one.
    unpooled: Http,
}

type Http = legacy::Client<Connector, Empty<Bytes>>;
type Https = HttpsConnector<HttpConnector>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Connector = MapResponse<Https, fn(Stream) -> Aging<Stream>>;

/// Marks a request that must have a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Afresh;

impl Client {
    /// A client that trusts what the operating system trusts. Opens no connection yet.
    ///
    /// # Errors
    /// If the operating system's certificates cannot be loaded for an `https` upstream.
    pub fn new(config: &Config) -> std::result::Result<Self, rustls::Error> {
        let plaintext = config.base_url.starts_with("http://");
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
        tcp.set_connect_timeout(Some(config.connect_timeout));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let builder = if plaintext {
            builder.https_or_http()
        } else {
            builder.https_only()
        };
        let connector = aging::stamped(builder.enable_http1().wrap_connector(tcp));
        let keeping = |idle_max| {
            legacy::Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE_FOR)
                .pool_max_idle_per_host(idle_max)
                .http1_max_headers(HEADERS_MAX)
                .build(connector.clone())
        };
        Ok(Self {
            pooled: keeping(config.idle_connections_max),
            unpooled: keeping(0),
        })
    }
}

impl Service<http::Request<Empty<Bytes>>> for Client {
    type Response = http::Response<Incoming>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Empty<Bytes>>) -> Self::Future {
        let client = match request.extensions().get::<Afresh>() {
            Some(Afresh) => &self.unpooled,
            None => &self.pooled,
        };
        let connection = capture_connection(&mut request);
        let answer = client.request(request);
        async move {
            let response = answer.await.map_err(|error| curable(classify(&error)))?;
            let born = response.extensions().get::<Born>();
            if born.is_some_and(|born| !born.is_young(Instant::now()))
                && let Some(connection) = &*connection.connection_metadata()
            {
                connection.poison();
            }
            Ok(response)
        }
        .boxed()
    }
}

/// What may help when no head came.
fn curable(error: Error) -> Error {
    match error.kind() {
        Kind::UpstreamUnreachable | Kind::UpstreamTimeout => error.again_by(Again::Later),
        // Most likely a kept connection that upstream gave up at this moment.
        Kind::UpstreamTruncated => error.again_by(Again::Afresh),
        _ => error,
    }
}

/// What an error of the client or of a response's body means.
pub(super) fn classify(error: &(dyn StdError + 'static)) -> Error {
    let causes: Vec<_> = std::iter::successors(Some(error), |&cause| cause.source()).collect();
    let io = |wanted: &[io::ErrorKind]| {
        let mut kinds = causes
            .iter()
            .filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
        kinds.any(|kind| wanted.contains(&kind))
    };
    let connecting = {
        let mut clients = causes.iter().filter_map(|cause| cause.downcast_ref());
        clients.any(legacy::Error::is_connect)
    };
    let unparsable = {
        let mut parsers = causes.iter().filter_map(|cause| cause.downcast_ref());
        parsers.any(hyper::Error::is_parse)
    };
    let tls = causes.iter().any(|cause| {
        let inner = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        cause.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>())
    });
    let (kind, detail) = if tls {
        (
            Kind::UpstreamTls,
            "no trusted connection to upstream could be made",
        )
    } else if io(&[io::ErrorKind::TimedOut]) {
        (Kind::UpstreamTimeout, "upstream did not answer in time")
    } else if connecting {
        (Kind::UpstreamUnreachable, "upstream cannot be reached")
    } else if unparsable || io(&[io::ErrorKind::InvalidData, io::ErrorKind::InvalidInput]) {
        (
            Kind::UpstreamProtocol,
            "upstream's answer is not valid HTTP",
        )
    } else {
        // Closed or reset before the head, or inside the body.
        (Kind::UpstreamTruncated, "upstream's answer ended early")
    };
    let told: Vec<_> = causes.iter().map(ToString::to_string).collect();
    Error::new(kind, detail).because(told.join(": "))
}
