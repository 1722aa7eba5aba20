//! The bodies that the simulator sends: whole ones, ones that end too early, and ones that are too large to hold.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

/// Between the last byte of a cut body and the end of its connection. Without it the error would overtake the bytes, and
/// the peer would see a connection that never answered, which is another fault. A peer that reads slower than this, and a
/// body that fills the socket's buffers, lose more than they should.
const BEFORE_CUT: Duration = Duration::from_millis(20);

/// How much of a body's run is in memory.
const FILLER_BYTES: u64 = 64 << 10;

const PADDED_HEAD: &[u8] =
    br#"{"results":[],"skip":0,"limit":10,"hasMore":false,"totalPages":0,"totalResults":0,"padding":""#;
const PADDED_TAIL: &[u8] = b"\"}";

/// Bytes that need not be held: one of them comes `count` times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) head: Bytes,
    pub(super) byte: u8,
    pub(super) count: u64,
    pub(super) tail: Bytes,
}

impl Run {
    /// A valid page without records, padded to exactly `bytes` (but never shorter than it is without padding).
    pub(super) fn page(bytes: u64) -> Self {
        Self {
            head: Bytes::from_static(PADDED_HEAD),
            byte: b'x',
            count: bytes.saturating_sub((PADDED_HEAD.len() + PADDED_TAIL.len()) as u64),
            tail: Bytes::from_static(PADDED_TAIL),
        }
    }

    /// Bytes that are held.
    pub(super) fn held(bytes: Bytes) -> Self {
        Self {
            head: bytes,
            byte: 0,
            count: 0,
            tail: Bytes::new(),
        }
    }
}

/// A response body.
#[derive(Debug)]
pub(super) enum Body {
    Whole(Option<Bytes>),
    Cut {
        kept: Option<Bytes>,
        /// What `Content-Length` says, if anything.
        announced: Option<u64>,
        pause: Pin<Box<Sleep>>,
    },
    Padded {
        head: Option<Bytes>,
        filler: Bytes,
        padding: u64,
        tail: Option<Bytes>,
        announced: bool,
    },
}

impl Body {
    pub(super) fn cut(whole: &Bytes, keep: Option<usize>, announce: bool) -> Self {
        // One byte less at most, or nothing would be missing.
        let most = whole.len().saturating_sub(1);
        let kept = whole.slice(..keep.unwrap_or(whole.len() / 2).min(most));
        Self::Cut {
            announced: announce.then_some(whole.len() as u64),
            kept: Some(kept).filter(|kept| !kept.is_empty()),
            pause: Box::pin(sleep(BEFORE_CUT)),
        }
    }

    pub(super) fn run(run: Run, announced: bool) -> Self {
        Self::Padded {
            filler: vec![run.byte; run.count.min(FILLER_BYTES) as usize].into(),
            head: Some(run.head).filter(|head| !head.is_empty()),
            padding: run.count,
            tail: Some(run.tail).filter(|tail| !tail.is_empty()),
            announced,
        }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = match self.get_mut() {
            Self::Whole(bytes) => bytes.take(),
            Self::Cut { kept, pause, .. } => match kept.take() {
                Some(kept) => {
                    let until = tokio::time::Instant::now() + BEFORE_CUT;
                    pause.as_mut().reset(until);
                    Some(kept)
                }
                None => {
                    std::task::ready!(pause.as_mut().poll(cx));
                    let cut = io::Error::new(io::ErrorKind::ConnectionAborted, "cut, as asked");
                    return Poll::Ready(Some(Err(cut)));
                }
            },
            Self::Padded {
                head,
                filler,
                padding,
                tail,
                ..
            } => match head.take() {
                Some(head) => Some(head),
                None if *padding > 0 => {
                    let size = (*padding).min(filler.len() as u64);
                    *padding -= size;
                    Some(filler.slice(..size as usize))
                }
                None => tail.take(),
            },
        };
        Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    /// What hyper announces as `Content-Length`; unknown makes it chunked.
    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Cut { announced, .. } => {
                announced.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Self::Padded {
                head,
                padding,
                tail,
                announced: true,
                ..
            } => {
                let ends = [head, tail]
                    .iter()
                    .filter_map(|end| end.as_ref())
                    .map(Bytes::len)
                    .sum::<usize>();
                SizeHint::with_exact(padding + ends as u64)
            }
            Self::Padded { .. } => SizeHint::default(),
        }
    }
}
