//! Takes a connection back from hyper in the middle of a request, and plays a script on it.
//!
//! The answer to a faulted call is made like every other, by the service that hyper calls; so keep-alive, counting, the token
//! and the limit have one path. Only when it says that the socket must misbehave does the service hand a script to the
//! connection's own task ([`Takeover`]) and wait for ever: that task drops hyper, which gives the stream back ([`Lent`]), plays,
//! and may begin anew with the same stream. What hyper had read of a next request is lost.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, oneshot},
    time::{Instant, sleep, sleep_until, timeout},
};

use super::script::{End, Script, Step};

/// How long a peer is listened to after the end, so that unread bytes of its own do not turn it into a reset.
const LINGER: Duration = Duration::from_secs(1);

/// The most repetitions that are written at once.
const REPEATED_BYTES: usize = 64 << 10;

/// How the service of a connection asks for its socket.
#[derive(Debug)]
pub(super) struct Takeover(mpsc::Sender<Script>);

impl Takeover {
    /// For one connection: of several scripts, as HTTP/2 may ask for, the first is played.
    pub(super) fn new() -> (Self, mpsc::Receiver<Script>) {
        let (sender, scripts) = mpsc::channel(1);
        (Self(sender), scripts)
    }

    /// Never returns: the connection is taken from whoever waits here.
    pub(super) async fn play(&self, script: Script) -> Infallible {
        // Full or closed, the connection is about to end anyway.
        let _ = self.0.try_send(script);
        std::future::pending().await
    }
}

/// A stream that is given back when its borrower is dropped.
pub(super) struct Lent {
    stream: Option<TcpStream>,
    back: Option<oneshot::Sender<TcpStream>>,
}

impl Lent {
    pub(super) fn new(stream: TcpStream) -> (Self, oneshot::Receiver<TcpStream>) {
        let (back, returned) = oneshot::channel();
        let lent = Self {
            stream: Some(stream),
            back: Some(back),
        };
        (lent, returned)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        let stream = self.stream.as_mut().map(Pin::new);
        stream.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(stream), Some(back)) = (self.stream.take(), self.back.take()) {
            // Nobody waits for it when hyper ended by itself.
            let _ = back.send(stream);
        }
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

/// Plays a script to its end; the stream comes back if the connection goes on.
pub(super) async fn play(mut stream: TcpStream, script: Script) -> Option<TcpStream> {
    let (longest, end) = (script.longest(), script.end);
    let (mut reader, mut writer) = stream.split();
    let played = tokio::select! {
        played = timeout(longest, steps(&mut writer, script.steps)) => matches!(played, Ok(Ok(()))),
        () = left(&mut reader, end) => false,
    };
    match (played, end) {
        (true, End::Keep) => return Some(stream),
        (true, End::Close) => {
            let _ = writer.shutdown().await;
            let _ = timeout(LINGER, left(&mut reader, end)).await;
        }
        // A socket that cannot be told to reset is closed, and a test that waits for a reset says so.
        (true, End::Reset) => drop(stream.set_zero_linger()),
        (false, _) => {}
    }
    None
}

async fn steps(writer: &mut WriteHalf<'_>, steps: Vec<Step>) -> io::Result<()> {
    for step in steps {
        match step {
            Step::Send(bytes) => writer.write_all(&bytes).await?,
            Step::Repeat(bytes, times) => repeat(writer, &bytes, times as usize).await?,
            Step::Drip(bytes, every) => {
                let mut next = Instant::now();
                for byte in bytes {
                    next += every;
                    sleep_until(next).await;
                    writer.write_all(&[byte]).await?;
                }
            }
            Step::Pause(pause) => sleep(pause).await,
        }
    }
    Ok(())
}

async fn repeat(writer: &mut WriteHalf<'_>, bytes: &Bytes, mut times: usize) -> io::Result<()> {
    let most = (REPEATED_BYTES / bytes.len().max(1)).max(1);
    let block = bytes.repeat(most.min(times));
    while times > 0 {
        let now = times.min(most);
        writer.write_all(&block[..now * bytes.len()]).await?;
        times -= now;
    }
    Ok(())
}

/// Returns when the peer has left. What it sends is read away, unless it may be a next request: then nothing can be said
/// before that is read.
async fn left(reader: &mut ReadHalf<'_>, end: End) {
    let mut bytes = [0; 1024];
    loop {
        match (end, reader.peek(&mut bytes).await) {
            (_, Ok(0) | Err(_)) => return,
            (End::Keep, Ok(_)) => std::future::pending().await,
            (End::Close | End::Reset, Ok(_)) => {
                if reader.read(&mut bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}
