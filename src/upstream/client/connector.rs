//! Connections are made in time or not at all, and know when they were made, so that none is used for long: a host that
//! moves to another address is found there within a minute.
//!
//! The pool has no such limit itself. A connection that is [`YOUNG_FOR`] old is not kept after its next answer, and an
//! idle one is dropped after [`IDLE_FOR`]; so whatever is reused is younger than the two together.

use std::{
    error::Error,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::connect::{Connected, Connection, HttpConnector},
    rt::TokioIo,
};
use tokio::{
    net::TcpStream,
    time::{self, Instant},
};
use tower::Service;

/// How old a connection may be and still be kept after an answer.
pub(super) const YOUNG_FOR: Duration = Duration::from_secs(30);

/// How long a connection is kept without a request.
pub(super) const IDLE_FOR: Duration = Duration::from_secs(30);

/// When the connection was made that a response came on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Born(Instant);

impl Born {
    pub(super) fn is_young(self, now: Instant) -> bool {
        now < self.0 + YOUNG_FOR
    }
}

/// A connection with its birth.
#[derive(Debug)]
pub(super) struct Aging<I> {
    io: I,
    born: Born,
}

/// Makes connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    tcp: HttpConnector,
    https: HttpsConnector<HttpConnector>,
    timeout: Duration,
}

impl Connector {
    /// Each connection has so long for its name, TCP and TLS together.
    pub(super) fn new(
        tcp: HttpConnector,
        https: HttpsConnector<HttpConnector>,
        timeout: Duration,
    ) -> Self {
        Self {
            tcp,
            https,
            timeout,
        }
    }

    /// What makes a connection of TCP alone.
    pub(super) fn tcp(&self) -> HttpConnector {
        self.tcp.clone()
    }

    /// What makes a whole connection, however long that takes.
    pub(super) fn https(&self) -> HttpsConnector<HttpConnector> {
        self.https.clone()
    }

    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }
}

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Service<http::Uri> for Connector {
    type Response = Aging<Stream>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.https.poll_ready(cx)
    }

    fn call(&mut self, host: http::Uri) -> Self::Future {
        let (connecting, timeout) = (self.https.call(host), self.timeout);
        async move {
            let late = |_| {
                let told = format!("no connection within {timeout:?}");
                io::Error::new(io::ErrorKind::TimedOut, told)
            };
            let io = time::timeout(timeout, connecting).await.map_err(late)??;
            Ok(Aging {
                io,
                born: Born(Instant::now()),
            })
        }
        .boxed()
    }
}

impl<I: Connection> Connection for Aging<I> {
    fn connected(&self) -> Connected {
        self.io.connected().extra(self.born)
    }
}

impl<I: Read + Unpin> Read for Aging<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: Write + Unpin> Write for Aging<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }
}
