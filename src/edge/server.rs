//! Listens, and speaks HTTP/1.1 and HTTP/2 on each connection until it ends or the process stops.

use std::{
    convert::Infallible, io, net::SocketAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration,
};

use bytes::Bytes;
use bytesize::ByteSize;
use futures_util::FutureExt;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    time::{self, Instant},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{BoxError, Service};
use tracing::{debug, error};

use self::{accept::Acceptor, connection::Ended, metrics::Cut, pulse::Pulse, socket::Socket};
pub use self::{metrics::Metrics, pulse::Deadlines};
use crate::config::Rules;

mod accept;
mod connection;
mod metrics;
mod peers;
mod piece;
mod pulse;
mod requests;
mod socket;
pub mod tls;

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
    /// Connections open at once from one address, or one /64 of IPv6; 1 to 100,000.
    pub peer_connections_max: usize,
    /// How long a new connection may send nothing; 100 ms to 5 min.
    #[serde(with = "crate::config::duration")]
    pub first_byte_timeout: Duration,
    /// How long a caller may take to send a request's head, from its first byte or the end of the answer before it; 100 ms to
    /// 5 min.
    #[serde(with = "crate::config::duration")]
    pub header_timeout: Duration,
    /// How long a connection is kept between two requests; 100 ms to 1 h.
    #[serde(with = "crate::config::duration")]
    pub idle_timeout: Duration,
    /// How long a caller may take nothing of its answer, over HTTP/2 of any one; 100 ms to 10 min.
    #[serde(with = "crate::config::duration")]
    pub stall_timeout: Duration,
    /// The header lines of a request; 10 to 1,000.
    pub headers_max: usize,
    /// The head of an HTTP/1.1 request; 16 KiB to 256 KiB.
    #[serde(serialize_with = "crate::config::size::serialize")]
    pub head_bytes_max: ByteSize,
    /// The header block of an HTTP/2 request; 4 KiB to 256 KiB.
    #[serde(serialize_with = "crate::config::size::serialize")]
    pub http2_head_bytes_max: ByteSize,
    /// Requests at once on one HTTP/2 connection; 1 to 1,000.
    pub http2_streams_max: u32,
    /// Requests that an HTTP/2 caller may give up, beyond as many as it let be answered; 10 to 100,000.
    pub http2_resets_max: usize,
    /// How long everybody is still let in after a signal to stop, while `/readyz` says that it stops; 0 s to 5 min.
    #[serde(with = "crate::config::duration")]
    pub drain_delay: Duration,
    /// How long requests in flight may go on after that; 0 s to 10 min.
    #[serde(with = "crate::config::duration")]
    pub drain_timeout: Duration,
    /// How long an idle connection may bring one more request after it; 0 s to 1 min.
    #[serde(with = "crate::config::duration")]
    pub drain_idle_timeout: Duration,
    pub tls: tls::Config,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        rules.range("workers", self.workers, 1..=64);
        rules.range("connections_max", self.connections_max, 1..=100_000);
        rules.range(
            "peer_connections_max",
            self.peer_connections_max,
            1..=100_000,
        );
        let (least, minute) = (Duration::from_millis(100), Duration::from_secs(60));
        for (key, timeout, range) in [
            (
                "first_byte_timeout",
                self.first_byte_timeout,
                least..=5 * minute,
            ),
            ("header_timeout", self.header_timeout, least..=5 * minute),
            ("idle_timeout", self.idle_timeout, least..=60 * minute),
            ("stall_timeout", self.stall_timeout, least..=10 * minute),
            ("drain_delay", self.drain_delay, Duration::ZERO..=5 * minute),
            (
                "drain_timeout",
                self.drain_timeout,
                Duration::ZERO..=10 * minute,
            ),
            (
                "drain_idle_timeout",
                self.drain_idle_timeout,
                Duration::ZERO..=minute,
            ),
        ] {
            rules.range(key, timeout, range);
        }
        rules.range("headers_max", self.headers_max, 10..=1_000);
        for (key, size, least) in [
            ("head_bytes_max", self.head_bytes_max, 16),
            ("http2_head_bytes_max", self.http2_head_bytes_max, 4),
        ] {
            rules.range(key, size, ByteSize::kib(least)..=ByteSize::kib(256));
        }
        rules.range("http2_streams_max", self.http2_streams_max, 1..=1_000);
        rules.range("http2_resets_max", self.http2_resets_max, 10..=100_000);
        rules.section("tls", |rules| self.tls.check(rules));
    }

    /// What the connections of the traffic listener are held to.
    pub fn limits(&self) -> Limits {
        let bytes = |size: ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        Limits {
            connections_max: self.connections_max,
            peer_connections_max: self.peer_connections_max,
            deadlines: Deadlines {
                first_byte: self.first_byte_timeout,
                header: self.header_timeout,
                idle: self.idle_timeout,
                stall: self.stall_timeout,
                drain_idle: self.drain_idle_timeout,
            },
            headers_max: self.headers_max,
            head_bytes_max: bytes(self.head_bytes_max),
            http2_head_bytes_max: self
                .http2_head_bytes_max
                .as_u64()
                .try_into()
                .unwrap_or(u32::MAX),
            http2_streams_max: self.http2_streams_max,
            http2_resets_max: self.http2_resets_max,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            workers: 2,
            connections_max: 10_000,
            peer_connections_max: 2_500,
            first_byte_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            headers_max: 100,
            // Twice what hyper takes for a target, so that one which is too long is told as that, with 414, and the
            // longest that can be configured leaves room for headers.
            head_bytes_max: ByteSize::kib(128),
            http2_head_bytes_max: ByteSize::kib(16),
            http2_streams_max: 128,
            http2_resets_max: 500,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            drain_idle_timeout: Duration::from_secs(5),
            tls: tls::Config::default(),
        }
    }
}

/// What a listener's connections are held to. Sizes are in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub connections_max: usize,
    pub peer_connections_max: usize,
    pub deadlines: Deadlines,
    /// Beyond it 431.
    pub headers_max: usize,
    /// Beyond it 431.
    pub head_bytes_max: usize,
    /// Beyond it 431 or a reset.
    pub http2_head_bytes_max: u32,
    pub http2_streams_max: u32,
    pub http2_resets_max: usize,
}

/// A bound listener, and what its connections are held to.
#[derive(Debug)]
pub struct Server {
    listener: std::net::TcpListener,
    /// Somebody else has the socket as well, and goes on to listen when this process is gone.
    outlived: bool,
    limits: Limits,
    tls: Option<tls::Acceptor>,
    metrics: Metrics,
}

impl Server {
    /// Binds an address. Port 0 takes a free one.
    ///
    /// # Errors
    /// If the address is taken or not this machine's.
    pub async fn bind(address: SocketAddr, limits: Limits, metrics: Metrics) -> io::Result<Self> {
        // Taken off this runtime: the one that serves may be another.
        let listener = TcpListener::bind(address).await?.into_std()?;
        Ok(Self {
            listener,
            outlived: false,
            limits,
            tls: None,
            metrics,
        })
    }

    /// Takes a socket that listens already and that outlives this process: when it stops, whoever connects waits in the
    /// system's queue for the next one.
    ///
    /// # Errors
    /// If the system refuses not to block.
    pub fn inherit(
        listener: std::net::TcpListener,
        limits: Limits,
        metrics: Metrics,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self {
            listener,
            outlived: true,
            limits,
            tls: None,
            metrics,
        })
    }

    /// The same over TLS, if there is an acceptor.
    #[must_use]
    pub fn over(self, tls: Option<tls::Acceptor>) -> Self {
        Self { tls, ..self }
    }

    /// Where it listens.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves on the current runtime until `stop`, then finishes the requests in flight, with no deadline of its own.
    pub async fn serve<S, B>(self, service: S, stop: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
            + Clone
            + Send
            + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let listener = match TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => {
                return error!(cause = %error, "the listener cannot be served on this runtime");
            }
        };
        let acceptor = Acceptor::new(listener, &self.limits, self.metrics.clone());
        let limits = self.limits;
        let open = TaskTracker::new();
        let begin = |(stream, place)| {
            // A token of its own, so that connections do not share the lock that each poll takes.
            let (service, stop) = (service.clone(), stop.child_token());
            let (tls, metrics) = (self.tls.clone(), self.metrics.clone());
            open.spawn(async move {
                // A panic ends this connection alone, and is told by the panic's hook.
                let conversing = AssertUnwindSafe(converse(stream, tls, service, &limits, stop));
                if let Ok(Err(ended)) = conversing.catch_unwind().await {
                    metrics.ended(&ended);
                    debug!(cause = %ended, "a connection ended early");
                }
                drop(place);
            });
        };
        loop {
            select! {
                biased;
                () = stop.cancelled() => break,
                accepted = acceptor.accept() => begin(accepted),
            }
        }
        if self.outlived {
            drop(acceptor);
        } else {
            acceptor.close().into_iter().for_each(begin);
        }
        open.close();
        open.wait().await;
    }
}

/// One connection to its end.
async fn converse<S, B>(
    stream: TcpStream,
    tls: Option<tls::Acceptor>,
    service: S,
    limits: &Limits,
    stop: CancellationToken,
) -> Result<(), Ended>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    stream
        .set_nodelay(true)
        .map_err(|error| Ended::Http(error.into()))?;
    let pulse = Arc::new(Pulse::new(Instant::now()));
    let socket = Socket::new(stream, pulse.clone());
    let Some(tls) = tls else {
        return connection::serve(socket, service, limits, pulse, stop).await;
    };
    let given_up = async {
        stop.cancelled().await;
        time::sleep(limits.deadlines.drain_idle).await;
    };
    let shaken = select! {
        biased;
        shaken = tls.accept(socket) => shaken,
        () = given_up => return Err(Ended::Cut(Cut::Drain)),
    };
    let Some(socket) = shaken else {
        return Err(Ended::Cut(Cut::Handshake));
    };
    pulse.begin(Instant::now());
    connection::serve(socket, service, limits, pulse, stop).await
}

#[cfg(test)]
mod tests;
