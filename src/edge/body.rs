//! The bodies that callers get: never copied together, and of known length but for lists that are still being read.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::lines::{BrokenOff, Kept, Running};
use crate::contacts::{cache::entry::Entry, list::List};

/// A response's body.
#[derive(Debug)]
pub enum Body {
    Empty,
    Whole(Bytes),
    /// A list's document from this piece on; so many bytes are left.
    Document {
        list: Arc<Entry<List>>,
        next: usize,
        left: u64,
    },
    /// A list's lines.
    Lines(Box<Kept>),
    /// The lines of a list that is still being read.
    Running(Box<Running>),
}

impl Body {
    pub fn document(list: Arc<Entry<List>>) -> Self {
        let left = list.document_length();
        Self::Document {
            list,
            next: 0,
            left,
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let data = match &mut *self {
            Self::Empty => None,
            Self::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Some(bytes).filter(|bytes| !bytes.is_empty())
            }
            Self::Document { list, next, left } => {
                let piece = list.document().get(*next).cloned();
                *next += 1;
                *left -= piece.as_ref().map_or(0, |piece| piece.len() as u64);
                piece
            }
            Self::Lines(lines) => lines.next(),
            Self::Running(lines) => {
                let frame = lines.poll_next(cx);
                return frame.map(|frame| frame.map(|frame| frame.map(Frame::data)));
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Document { left, .. } => *left == 0,
            Self::Lines(lines) => lines.left() == 0,
            Self::Running(lines) => lines.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Self::Empty => 0,
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Document { left, .. } => *left,
            Self::Lines(lines) => lines.left(),
            Self::Running(_) => return SizeHint::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use http_body::Body as _;
    use http_body_util::BodyExt;
    use tokio::time::Instant;

    use super::*;
    use crate::contacts::testing;

    #[tokio::test]
    async fn a_document_comes_whole_and_says_its_length() {
        let now = Instant::now();
        let pages = [0, 7, 14].map(|skip| testing::page(skip, 7, 20, now));
        let list = testing::kept(testing::splice(pages.into(), now), now);
        let body = Body::document(list.clone());
        assert_eq!(body.size_hint().exact(), Some(list.document_length()));
        let sent = body.collect().await.unwrap().to_bytes();
        assert_eq!(sent, list.document().concat());
    }

    #[tokio::test]
    async fn whole_and_empty() {
        let body = Body::Whole(Bytes::from_static(b"{}"));
        assert_eq!(body.size_hint().exact(), Some(2));
        assert_eq!(body.collect().await.unwrap().to_bytes(), "{}");
        assert!(Body::Empty.is_end_stream());
    }
}
