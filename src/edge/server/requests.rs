//! Each request of a connection is noted: that it was asked, that its answer goes on (over HTTP/2, where the socket cannot
//! tell), that it is over.

use std::{
    cell::RefCell,
    convert::Infallible,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header::CONNECTION};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::Service;

use super::{piece::Piece, pulse::Pulse};

/// What an answer over HTTP/2 hands on at once, in bytes. That a piece is taken is seen only when all of it is; so this is
/// what a caller has to take within the deadline. It is also the size of the frames that h2 makes of it.
const PIECE: usize = 16 * 1024;

/// A service whose requests feed a pulse. It must be always ready: what cannot be served is an answer as well.
///
/// Hyper calls a service by reference, one request after the other. So there is one for each connection and none for each
/// request, whose copy would touch a dozen reference counts that all connections share.
#[derive(Debug)]
pub(super) struct Noted<S> {
    inner: RefCell<S>,
    pulse: Arc<Pulse>,
}

impl<S> Noted<S> {
    pub(super) fn new(inner: S, pulse: Arc<Pulse>) -> Self {
        let inner = RefCell::new(inner);
        Self { inner, pulse }
    }
}

impl<S, R, B> hyper::service::Service<Request<R>> for Noted<S>
where
    S: Service<Request<R>, Response = Response<B>, Error = Infallible>,
    R: Body,
    B: Body<Data = Bytes>,
{
    type Response = Response<NotedBody<B>>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        let http2 = request.version() == Version::HTTP_2;
        let has_body = !request.body().is_end_stream();
        let number = self.pulse.asked(http2, has_body);
        let mut inner = self.inner.borrow_mut();
        let ready = inner.poll_ready(&mut Context::from_waker(Waker::noop()));
        debug_assert!(ready.is_ready(), "what a listener serves is always ready");
        Answering {
            running: Some(Running {
                pulse: self.pulse.clone(),
                number,
                http2,
                whole: false,
            }),
            inner: inner.call(request),
        }
    }
}

/// A request that is not over yet.
#[derive(Debug)]
struct Running {
    pulse: Arc<Pulse>,
    /// Among those of its connection.
    number: u64,
    http2: bool,
    /// All of its answer was handed on.
    whole: bool,
}

impl Running {
    /// A piece of its answer is there.
    fn piece(&self, bytes: Bytes) -> Piece {
        match self.http2 {
            true => Piece::noted(bytes, self.pulse.clone(), self.number, self.now()),
            // Over HTTP/1.1 it is the socket's to say what was taken.
            false => Piece::plain(bytes),
        }
    }

    /// HTTP/2's requests have tasks of their own, beside the connection's.
    fn now(&self) -> Instant {
        match self.http2 {
            true => Instant::now(),
            false => self.pulse.now(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.pulse.ended(self.whole, self.now());
    }
}

pin_project! {
    /// An answer to come.
    pub(super) struct Answering<F> {
        running: Option<Running>,
        #[pin]
        inner: F,
    }
}

impl<F, B> Future for Answering<F>
where
    F: Future<Output = Result<Response<B>, Infallible>>,
    B: Body<Data = Bytes>,
{
    type Output = Result<Response<NotedBody<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.inner.poll(cx));
        let mut running = this.running.take().expect("polled once more after its end");
        if !running.http2 && running.pulse.is_stopping() {
            // The caller sees that it is the last answer here, and hyper ends the connection after it.
            let close = HeaderValue::from_static("close");
            response.headers_mut().insert(CONNECTION, close);
        }
        running.whole = response.body().is_end_stream();
        Poll::Ready(Ok(response.map(|inner| NotedBody {
            rest: Bytes::new(),
            running,
            inner,
        })))
    }
}

pin_project! {
    /// An answer's body.
    pub(super) struct NotedBody<B> {
        // What is left of a piece that was too large.
        rest: Bytes,
        running: Running,
        #[pin]
        inner: B,
    }
}

impl<B: Body<Data = Bytes>> Body for NotedBody<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let mut this = self.project();
        if this.rest.is_empty() {
            let frame = ready!(this.inner.as_mut().poll_frame(cx));
            match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => *this.rest = data,
                Some(Ok(Err(other))) => {
                    let other = other.map_data(|data| this.running.piece(data));
                    return Poll::Ready(Some(Ok(other)));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.running.whole = true;
                    return Poll::Ready(None);
                }
            }
        }
        let bytes = if this.running.http2 && this.rest.len() > PIECE {
            this.rest.split_to(PIECE)
        } else {
            mem::take(this.rest)
        };
        this.running.whole = this.rest.is_empty() && this.inner.is_end_stream();
        Poll::Ready(Some(Ok(Frame::data(this.running.piece(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}
