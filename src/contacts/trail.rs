//! The trail of a walk: what of its list is confirmed so far, for readers who do not wait for the verdict.
//!
//! The walk lays out pages, each once its right seam was matched by the page behind it. Each reader goes along them at its
//! own pace: it is an index, shares the pages' bytes, and no walk ever waits for it. When the walk ends, the rest of the
//! list is laid out too, and what was laid out before is compared with the list once more.
//!
//! A list that moves can take a page back. Readers that have not come so far never notice; for one that has, the trail is
//! *torn*, and all it can be told is that the list is drifting.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use super::{
    etag::ETag,
    lines::{Ending, Line, Lines, Run},
    list::List,
    verdict::Handling,
};
use crate::error::{Error, Kind, Result};

/// What of a walk's list is confirmed.
#[derive(Debug)]
pub struct Trail {
    laid: watch::Sender<Laid>,
    /// How far the reader in front has come.
    reached: Arc<AtomicUsize>,
}

/// Pages in order, without gaps.
#[derive(Debug, Default)]
pub struct Laid {
    pieces: Vec<Piece>,
    /// The number of the next piece; none is used twice.
    next: u64,
    end: Option<Result<Ending>>,
}

/// One page, and what tells it from another in its place.
#[derive(Clone, Debug)]
struct Piece {
    number: u64,
    run: Arc<Run>,
    /// Stands for its ids in their order.
    ids: ETag,
}

impl Laid {
    pub fn len(&self) -> usize {
        self.pieces.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// A page, and what stands for its ids in their order.
    pub fn get(&self, place: usize) -> Option<(&Run, &ETag)> {
        let piece = self.pieces.get(place)?;
        Some((&piece.run, &piece.ids))
    }

    /// Adds the page behind the last one.
    pub fn push(&mut self, run: Run, ids: ETag) {
        self.pieces.push(Piece {
            number: self.next,
            run: Arc::new(run),
            ids,
        });
        self.next += 1;
    }

    /// Puts a page in the place of one that says the same.
    pub fn renew(&mut self, place: usize, run: Run) {
        if let Some(piece) = self.pieces.get_mut(place) {
            piece.run = Arc::new(run);
        }
    }

    /// Takes back the pages from this one on.
    pub fn cut(&mut self, place: usize) {
        self.pieces.truncate(place);
    }

    /// Makes it the whole list: what is no beginning of it is taken back, and the rest of it added.
    fn complete(&mut self, list: &List) {
        let mut runs = list.runs();
        let mut rest = runs.next();
        let mut agreed = 0;
        while let (Some(piece), Some(run)) = (self.pieces.get(agreed), &rest) {
            // The same bytes, and not only equal ones: what came in their place was renewed here as well.
            if piece.run.body.as_ptr() != run.body.as_ptr() || piece.run.at != run.at {
                break;
            }
            agreed += 1;
            rest = runs.next();
        }
        self.cut(agreed);
        for run in rest.into_iter().chain(runs) {
            // Nothing comes in the place of what the verdict is about.
            self.push(run, ETag::of([]));
        }
    }
}

impl Default for Trail {
    fn default() -> Self {
        Self {
            laid: watch::channel(Laid::default()).0,
            reached: Arc::default(),
        }
    }
}

impl Trail {
    /// Changes what is laid out. `change` is told how far the reader in front has come, and says whether it did anything.
    pub fn lay(&self, change: impl FnOnce(&mut Laid, usize) -> bool) {
        let reached = &self.reached;
        self.laid
            .send_if_modified(|laid| change(laid, reached.load(Ordering::Relaxed)));
    }

    /// Lays out all of the list.
    pub fn complete(&self, list: &List, ending: Ending) {
        self.laid.send_modify(|laid| {
            laid.complete(list);
            laid.end = Some(Ok(ending));
        });
    }

    /// Ends it without a list, unless it has ended.
    pub fn fail(&self, error: Error) {
        self.laid.send_if_modified(|laid| {
            let open = laid.end.is_none();
            laid.end.get_or_insert(Err(error));
            open
        });
    }

    /// A reader, at the beginning.
    pub fn reader(&self, handling: Handling) -> Reader {
        Reader {
            laid: self.laid.subscribe(),
            reached: self.reached.clone(),
            handling,
            next: 0,
            last: 0,
        }
    }
}

/// One that goes along a trail.
#[derive(Debug)]
pub struct Reader {
    laid: watch::Receiver<Laid>,
    reached: Arc<AtomicUsize>,
    handling: Handling,
    /// The place of its next page.
    next: usize,
    /// The number of the page before it.
    last: u64,
}

impl Reader {
    /// Waits until there is a page. `false`: there will be none without the verdict.
    pub async fn has_begun(&mut self) -> bool {
        let begun = self
            .laid
            .wait_for(|laid| !laid.is_empty() || laid.end.is_some());
        begun.await.is_ok_and(|laid| laid.end.is_none())
    }

    /// All that comes.
    pub fn lines(self) -> Lines {
        stream::unfold(Some(self), async |reader| {
            let mut reader = reader?;
            let line = reader.next().await;
            let goes_on = matches!(line, Ok(Line::Contacts(_)));
            Some((line, goes_on.then_some(reader)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Line> {
        loop {
            if let Some(line) = self.look()? {
                return Ok(line);
            }
            if self.laid.changed().await.is_err() {
                return Err(Error::new(Kind::Internal, "the walk was given up"));
            }
        }
    }

    /// What is there for it now.
    fn look(&mut self) -> Result<Option<Line>> {
        let laid = self.laid.borrow_and_update();
        let before = self.next.checked_sub(1);
        if before.is_some_and(|before| {
            let last = laid.pieces.get(before);
            last.is_none_or(|piece| piece.number != self.last)
        }) {
            let detail = "the list changed behind what was sent of it already";
            return Err(Error::new(Kind::MergeDrifting, detail));
        }
        if let Some(end) = &laid.end {
            let ending = end.clone()?;
            self.handling.accept(ending.verdict)?;
            if self.next == laid.pieces.len() {
                return Ok(Some(Line::End(ending)));
            }
        }
        let Some(piece) = laid.pieces.get(self.next).cloned() else {
            return Ok(None);
        };
        self.next += 1;
        self.last = piece.number;
        // Under the lock of the look, so that no cut comes in between.
        self.reached.fetch_max(self.next, Ordering::Relaxed);
        drop(laid);
        Ok(Some(Line::Contacts(piece.run)))
    }
}
