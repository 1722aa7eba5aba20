//! Connections know when they were made, so that none is used for long: a host that moves to another address is found
//! there within a minute.
//!
//! The pool has no such limit itself. A connection that is [`YOUNG_FOR`] old is not kept after its next answer, and an
//! idle one is dropped after [`IDLE_FOR`]; so whatever is reused is younger than the two together.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use tokio::time::Instant;
use tower::{Service, util::MapResponse};

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

/// Notes the birth of each connection that a connector makes.
pub(super) fn stamped<C, I>(connector: C) -> MapResponse<C, fn(I) -> Aging<I>>
where
    C: Service<http::Uri, Response = I>,
{
    MapResponse::new(connector, |io| Aging {
        io,
        born: Born(Instant::now()),
    })
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
