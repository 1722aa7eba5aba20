//! What a socket does in place of sending an answer as HTTP would have it: bytes, pauses, and an end.
//!
//! A script is a value, made from the answer that faults above HTTP have left and one fault below it; what plays it knows
//! nothing of faults.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, StatusCode};

use super::fault::Fault;

/// Between the last byte and a reset, which would otherwise overtake it.
const BEFORE_RESET: Duration = Duration::from_millis(20);

/// The longest time that a body drips.
const DRIP_MAX: Duration = Duration::from_secs(600);

/// How long a peer may take to receive what is sent, all pauses aside.
const SEND_MAX: Duration = Duration::from_secs(60);

/// A script is made in memory: what a test asks for directly is bounded as what is parsed.
const HEADERS_MAX: u32 = 100_000;
const HEADER_BYTES_MAX: u64 = 64 << 20;

const GARBAGE: &[u8] = b"\x16\x03\x01\x00\xa5this is no status line\r\n\r\n\0\xff\r\n";

/// A page that cannot be taken for the right one.
const UNASKED: &str = r#"{"results":[],"skip":0,"limit":10,"hasMore":false,"totalPages":0,"totalResults":0,"unasked":true}"#;

/// What is sent, and what becomes of the connection then.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    pub(super) end: End,
    /// Whether it means the same over HTTP/2.
    pub(super) any_version: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Send(Bytes),
    /// The same bytes, so many times.
    Repeat(Bytes, u32),
    /// Byte by byte.
    Drip(Bytes, Duration),
    Pause(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The next request is read.
    Keep,
    Close,
    Reset,
}

impl Script {
    /// Whether a fault needs the socket.
    pub(super) fn is_for(fault: &Fault) -> bool {
        use Fault as F;
        matches!(
            fault,
            F::Reset
                | F::ResetReused
                | F::ResetBody { .. }
                | F::Close
                | F::Stall(_)
                | F::StallHead(_)
                | F::StallBody(_)
                | F::Drip(_)
                | F::LongLength(_)
                | F::ShortLength(_)
                | F::TwoLengths
                | F::LengthAndChunks
                | F::BadChunk
                | F::NoLastChunk
                | F::ManyHeaders(_)
                | F::HugeHeader { .. }
                | F::Informational(_)
                | F::Switching(_)
                | F::Garbage
                | F::NoHead
                | F::SecondAnswer(_)
        )
    }

    /// What is done about an answer under a fault. One that needs no socket sends it as it is.
    pub(super) fn new(
        fault: &Fault,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Self {
        let head = |more: &str| head(status, headers, more);
        let length = |length: u64| head(&format!("content-length: {length}\r\n"));
        let (bytes, right) = (body.len() as u64, || length(body.len() as u64));
        let half = body.slice(..body.len() / 2);
        let chunked = "transfer-encoding: chunked\r\n";
        let (steps, end) = match fault {
            Fault::Reset | Fault::ResetReused => (vec![], End::Reset),
            Fault::ResetBody { keep } => {
                let kept = keep.map_or(half, |keep| body.slice(..keep.min(body.len())));
                let pause = Step::Pause(BEFORE_RESET);
                (vec![send(right()), send(kept), pause], End::Reset)
            }
            Fault::Close => (vec![], End::Close),
            Fault::Stall(pause) => (vec![Step::Pause(*pause)], End::Close),
            Fault::StallHead(pause) => {
                let head = right();
                let half = head.slice(..head.len() / 2);
                (vec![send(half), Step::Pause(*pause)], End::Close)
            }
            Fault::StallBody(pause) => {
                let pause = Step::Pause(*pause);
                (vec![send(right()), send(half), pause], End::Close)
            }
            Fault::Drip(every) => {
                let drops = (DRIP_MAX.as_nanos() / every.as_nanos().max(1)) as u64;
                let drops = body.slice(..drops.min(bytes) as usize);
                let end = if drops.len() == body.len() {
                    End::Keep
                } else {
                    End::Close
                };
                (vec![send(right()), Step::Drip(drops, *every)], end)
            }
            Fault::LongLength(more) => {
                let head = length(bytes + u64::from(*more));
                (vec![send(head), send(body.clone())], End::Close)
            }
            Fault::ShortLength(less) => {
                let head = length(bytes.saturating_sub((*less).into()));
                (vec![send(head), send(body.clone())], End::Keep)
            }
            Fault::TwoLengths => {
                let head = head(&format!(
                    "content-length: {bytes}\r\ncontent-length: {}\r\n",
                    bytes + 1
                ));
                (vec![send(head), send(body.clone())], End::Keep)
            }
            Fault::LengthAndChunks => {
                let head = head(&format!("content-length: {bytes}\r\n{chunked}"));
                let body = [chunk(body), Bytes::from_static(b"0\r\n\r\n")].concat();
                (vec![send(head), send(body.into())], End::Keep)
            }
            Fault::BadChunk => {
                let rest = [b"zz\r\n", &body[half.len()..], b"\r\n0\r\n\r\n"].concat();
                let steps = vec![send(head(chunked)), send(chunk(&half)), send(rest.into())];
                (steps, End::Keep)
            }
            Fault::NoLastChunk => (vec![send(head(chunked)), send(chunk(body))], End::Close),
            Fault::ManyHeaders(count) => {
                let many: String = (0..(*count).min(HEADERS_MAX))
                    .map(|number| format!("x-many-{number}: {number}\r\n"))
                    .collect();
                let head = head(&format!("{many}content-length: {bytes}\r\n"));
                (vec![send(head), send(body.clone())], End::Keep)
            }
            Fault::HugeHeader { bytes: size } => {
                // Before the empty line that ends the head, and not in memory.
                let begun = head("x-huge: ");
                let begun = begun.slice(..begun.len() - 2);
                let ended = format!("\r\ncontent-length: {bytes}\r\n\r\n");
                let size = (*size).min(HEADER_BYTES_MAX) as u32;
                let huge = vec![
                    send(begun),
                    Step::Repeat(Bytes::from_static(b"x"), size),
                    send(ended.into()),
                    send(body.clone()),
                ];
                (huge, End::Keep)
            }
            Fault::Informational(count) => {
                let two = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </>; rel=preload\r\n\r\n";
                let one = b"HTTP/1.1 100 Continue\r\n\r\n";
                let flood = vec![
                    Step::Repeat(Bytes::from_static(two), count / 2),
                    Step::Repeat(Bytes::from_static(one), count % 2),
                    send(right()),
                    send(body.clone()),
                ];
                (flood, End::Keep)
            }
            Fault::Switching(pause) => {
                let head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                let steps = vec![send(Bytes::from_static(head)), Step::Pause(*pause)];
                (steps, End::Close)
            }
            Fault::Garbage => (vec![send(Bytes::from_static(GARBAGE))], End::Close),
            Fault::NoHead => (vec![send(body.clone())], End::Close),
            Fault::SecondAnswer(pause) => {
                let unasked = self::head(
                    StatusCode::OK,
                    headers,
                    &format!("content-length: {}\r\n", UNASKED.len()),
                );
                let unasked = [unasked, Bytes::from_static(UNASKED.as_bytes())].concat();
                let mut steps = vec![send(right()), send(body.clone())];
                if !pause.is_zero() {
                    steps.push(Step::Pause(*pause));
                }
                steps.push(send(unasked.into()));
                (steps, End::Keep)
            }
            _ => (vec![send(right()), send(body.clone())], End::Keep),
        };
        let any_version = matches!(
            fault,
            Fault::Reset | Fault::ResetReused | Fault::Close | Fault::Stall(_)
        );
        Self {
            steps,
            end,
            any_version,
        }
    }

    /// When it is over at the latest.
    pub(super) fn longest(&self) -> Duration {
        let pauses = self.steps.iter().map(|step| match step {
            Step::Send(_) | Step::Repeat(..) => Duration::ZERO,
            Step::Drip(bytes, every) => every.saturating_mul(bytes.len() as u32),
            Step::Pause(pause) => *pause,
        });
        pauses.fold(SEND_MAX, Duration::saturating_add)
    }
}

fn send(bytes: Bytes) -> Step {
    Step::Send(bytes)
}

/// A head with these headers and the lines of `more`.
fn head(status: StatusCode, headers: &HeaderMap, more: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(256 + more.len());
    let reason = status.canonical_reason().unwrap_or_default();
    out.put_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
    for (name, value) in headers {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(more.as_bytes());
    out.put_slice(b"\r\n");
    out.freeze()
}

/// The bytes as one chunk. No bytes are no chunk, since an empty one would be the last.
fn chunk(bytes: &[u8]) -> Bytes {
    if bytes.is_empty() {
        return Bytes::new();
    }
    let size = format!("{:x}\r\n", bytes.len());
    [size.as_bytes(), bytes, b"\r\n"].concat().into()
}
