//! Listens, and speaks HTTP/1.1 and HTTP/2 on each connection until it ends or the process stops.

use std::{
    convert::Infallible,
    future, io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use prometheus::IntCounter;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service, ServiceExt};
use tracing::{debug, error, warn};

use super::body::Body;
use crate::{
    config::Rules,
    metrics::{self, Registry},
};

/// `[listen]`: the traffic listener.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where callers connect. Loopback only, unless callers are configured.
    pub address: SocketAddr,
    /// Threads that serve callers; 1 to 64.
    pub workers: usize,
    /// Connections open at once, all callers together; 1 to 100,000.
    pub connections_max: usize,
    /// How long a caller may take to send a request's head; 100 ms to 5 min.
    #[serde(with = "crate::config::duration")]
    pub header_timeout: Duration,
    /// How long requests in flight may go on after a signal to stop; 0 s to 10 min.
    #[serde(with = "crate::config::duration")]
    pub drain_timeout: Duration,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        rules.range("workers", self.workers, 1..=64);
        rules.range("connections_max", self.connections_max, 1..=100_000);
        rules.range(
            "header_timeout",
            self.header_timeout,
            Duration::from_millis(100)..=Duration::from_secs(5 * 60),
        );
        rules.range(
            "drain_timeout",
            self.drain_timeout,
            Duration::ZERO..=Duration::from_secs(10 * 60),
        );
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            workers: 2,
            connections_max: 10_000,
            header_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
        }
    }
}

/// A bound listener, and what its connections are held to.
#[derive(Debug)]
pub struct Server {
    listener: std::net::TcpListener,
    header_timeout: Duration,
    connections: Arc<Semaphore>,
    metrics: Metrics,
}

/// What a listener's connections tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    malformed: IntCounter,
}

impl Metrics {
    /// The metrics of the traffic and of the admin listener.
    pub fn new(registry: &Registry) -> metrics::Result<[Self; 2]> {
        let malformed = registry.counter(
            "malformed_requests_total",
            "Requests that were no HTTP: answered with a bare status and the end of the connection.",
            &["listener"],
        )?;
        Ok(["traffic", "admin"].map(|listener| Self {
            malformed: malformed.with_label_values(&[listener]),
        }))
    }
}

/// The header lines of a request, at most; beyond it 431.
const HEADERS_MAX: usize = 100;

/// The head of an HTTP/1.1 request, in bytes; beyond it 431. Twice what hyper takes for a target, so that one which is
/// too long is told as that, with 414, and the longest that can be configured leaves room for headers.
const HEAD_MAX: usize = 128 * 1024;

/// What an HTTP/2 stream's pending writes may hold, in bytes.
const BUFFER_MAX: usize = 64 * 1024;

/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 128;

/// The header block of an HTTP/2 request, in bytes.
const HEADER_LIST_MAX: u32 = 16 * 1024;

/// How long accepting rests when the system has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Server {
    /// Binds an address. Port 0 takes a free one.
    ///
    /// # Errors
    /// If the address is taken or not this machine's.
    pub async fn bind(
        address: SocketAddr,
        connections_max: usize,
        header_timeout: Duration,
        metrics: Metrics,
    ) -> io::Result<Self> {
        // Taken off this runtime: the one that serves may be another.
        let listener = TcpListener::bind(address).await?.into_std()?;
        Ok(Self {
            listener,
            header_timeout,
            connections: Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS))),
            metrics,
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves on the current runtime until `stop`, then finishes the requests in flight, with no deadline of its own.
    pub async fn serve<S>(self, service: S, stop: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        let listener = match TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => {
                return error!(cause = %error, "the listener cannot be served on this runtime");
            }
        };
        let open = TaskTracker::new();
        loop {
            let accepted = select! {
                biased;
                () = stop.cancelled() => break,
                accepted = accept(&listener, &self.connections) => accepted,
            };
            let Some((stream, permit)) = accepted else {
                time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (service, stop) = (service.clone(), stop.clone());
            let (header_timeout, metrics) = (self.header_timeout, self.metrics.clone());
            open.spawn(async move {
                if let Err(error) = converse(stream, service, header_timeout, stop).await {
                    let hyper = error.downcast_ref::<hyper::Error>();
                    if hyper.is_some_and(hyper::Error::is_parse) {
                        metrics.malformed.inc();
                    }
                    debug!(cause = %error, "a connection ended early");
                }
                drop(permit);
            });
        }
        drop(listener);
        open.close();
        open.wait().await;
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            warn!(cause = %error, "no connection could be accepted");
            None
        }
    }
}

/// One connection, HTTP/1.1 or HTTP/2, to its end.
async fn converse<S>(
    stream: TcpStream,
    service: S,
    header_timeout: Duration,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
{
    stream.set_nodelay(true)?;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_LIST_MAX)
        .max_send_buf_size(BUFFER_MAX);
    let asked = Arc::new(AtomicBool::new(false));
    let asking = asked.clone();
    let service = service.map_request(move |request| {
        asking.store(true, Ordering::Relaxed);
        request
    });
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    // Hyper times the heads of HTTP/1 once it knows the protocol. The first request of any protocol is timed here.
    let mut silence = pin!(async {
        time::sleep(header_timeout).await;
        if asked.load(Ordering::Relaxed) {
            future::pending::<()>().await;
        }
    });
    let mut stopping = false;
    loop {
        select! {
            // The stop first, so that an answer which becomes ready after it says that it is the last one here.
            biased;
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            ended = connection.as_mut() => return ended,
            () = silence.as_mut() => return Err("no request came in time".into()),
        }
    }
}

#[cfg(test)]
mod tests;
