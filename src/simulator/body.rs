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

const PADDING: &[u8] = &[b'x'; 64 << 10];
const PADDED_HEAD: &[u8] =
    br#"{"results":[],"skip":0,"limit":10,"hasMore":false,"totalPages":0,"totalResults":0,"padding":""#;
const PADDED_TAIL: &[u8] = b"\"}";

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

    /// A valid page without records, padded to exactly `bytes` (but never shorter than it is without padding).
    pub(super) fn padded(bytes: u64, announced: bool) -> Self {
        Self::Padded {
            head: Some(Bytes::from_static(PADDED_HEAD)),
            padding: bytes.saturating_sub((PADDED_HEAD.len() + PADDED_TAIL.len()) as u64),
            tail: Some(Bytes::from_static(PADDED_TAIL)),
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
                padding,
                tail,
                ..
            } => match head.take() {
                Some(head) => Some(head),
                None if *padding > 0 => {
                    let size = (*padding).min(PADDING.len() as u64);
                    *padding -= size;
                    Some(Bytes::from_static(&PADDING[..size as usize]))
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
