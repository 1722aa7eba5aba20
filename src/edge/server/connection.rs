//! One connection, HTTP/1.1 or HTTP/2, to its end.

use std::{
    convert::Infallible,
    error::Error,
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Poll, ready},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service};

use super::{Limits, metrics::Cut, pulse::Pulse, requests::Noted, socket::Clear};

/// What an HTTP/2 stream's pending writes may hold, in bytes.
const BUFFER_MAX: usize = 64 * 1024;

/// What an HTTP/2 caller may send of bodies before it is told to go on, in bytes, for a stream and for all of them. No
/// request here has one: this is what a refused one may have under way.
const WINDOW: u32 = 65_535;

/// Streams that an HTTP/2 caller may take back before they were looked at, and those that may be ended because they
/// broke the protocol.
const STREAM_RESETS_MAX: usize = 20;

/// Why a connection ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("{0:?}")]
    Cut(Cut),
    #[error("{0}")]
    Http(BoxError),
}

impl Ended {
    /// Whether what came was no HTTP.
    pub(super) fn is_malformed(&self) -> bool {
        let Self::Http(error) = self else {
            return false;
        };
        let Some(hyper) = error.downcast_ref::<hyper::Error>() else {
            return false;
        };
        // Of HTTP/2: what h2 itself found wrong, and not what the peer said or the network did.
        let h2 = hyper
            .source()
            .and_then(|source| source.downcast_ref::<h2::Error>());
        hyper.is_parse() || h2.is_some_and(h2::Error::is_library)
    }
}

/// Serves until the connection ends, by itself, by its deadlines, or after `stop` as soon as its requests are answered.
pub(super) async fn serve<I, S, B>(
    socket: I,
    service: S,
    limits: &Limits,
    pulse: Arc<Pulse>,
    stop: CancellationToken,
) -> Result<(), Ended>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let builder = builder(limits);
    let service = Noted::new(service, pulse.clone());
    let socket = TokioIo::new(Clear::new(socket, pulse.clone()));
    let mut connection = pin!(builder.serve_connection(socket, service));
    let mut stopped = pin!(stop.cancelled());
    let mut timer = pin!(time::sleep(limits.deadlines.first_byte));
    let (mut stopping, mut said_goodbye) = (false, false);
    poll_fn(|cx| {
        let mut now = Instant::now();
        pulse.polled(now);
        // The stop first, so that an answer which becomes ready after it says that it is the last one here.
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            pulse.stop(now);
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(Ended::Http));
            }
            // HTTP/2 can say which request is the last. An idle connection of HTTP/1 is closed by hyper instead, and a
            // request that is on its way would be lost: there the next answer says it.
            if stopping && !said_goodbye && pulse.is_http2() {
                said_goodbye = true;
                connection.as_mut().graceful_shutdown();
                continue;
            }
            let due = pulse.due(&limits.deadlines, limits.http2_resets_max);
            // An answer over HTTP/2 has a task of its own, which may begin to wait for the caller and not wake this one.
            let look = (now + limits.deadlines.stall, Cut::Stall);
            let Some((due, why)) = due.or_else(|| pulse.is_http2().then_some(look)) else {
                return Poll::Pending;
            };
            if due > now {
                // Moved only to an earlier time. One that fires too early is set again.
                if due < timer.deadline() || timer.is_elapsed() {
                    timer.as_mut().reset(due);
                }
                ready!(timer.as_mut().poll(cx));
                now = Instant::now();
                pulse.polled(now);
            } else if why == Cut::Idle && !stopping && pulse.is_http2() {
                stopping = true;
                pulse.stop(now);
            } else {
                return Poll::Ready(Err(Ended::Cut(why)));
            }
        }
    })
    .await
}

fn builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // The pulse has a deadline for it, and takes no timer for each request.
        .header_read_timeout(None)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams_max)
        .max_header_list_size(limits.http2_head_bytes_max)
        .max_pending_accept_reset_streams(STREAM_RESETS_MAX)
        .max_local_error_reset_streams(STREAM_RESETS_MAX)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(BUFFER_MAX);
    builder
}

#[cfg(test)]
mod tests;
