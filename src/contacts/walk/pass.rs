//! One reading of a list, mended where the list changes meanwhile: a pure state machine, without I/O.
//!
//! The first page tells the total and the largest `limit` that upstream honours. Where upstream counts in records, each
//! further page then begins with the record that ended the one before it. When all have come, they are [looked at](look),
//! and perhaps some are asked for again.

use std::{borrow::Cow, collections::VecDeque};

use super::{
    judge,
    parts::{Part, Shape, same_records},
};
use crate::{
    contacts::{
        page::{Page, Window},
        walking::Progress,
    },
    error::{Error, Kind, Result},
};

pub mod look;

/// What a reading keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The `limit` of the first page; upstream may clamp it.
    pub limit: u32,
    /// Upstream counts in pages, so that windows cannot overlap.
    pub pages: bool,
    /// The longest list, in records.
    pub records_max: u64,
    /// The largest list, in bytes of its pages.
    pub bytes_max: u64,
    /// Repairs of a walk, all its readings together.
    pub repairs_max: u32,
}

/// One page to ask for, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub window: Window,
    part: usize,
    /// The first page at last.
    closing: bool,
}

/// A reading under way.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) bounds: Bounds,
    /// Learned from the first page.
    pub(super) shape: Option<Shape>,
    /// What upstream said last.
    pub(super) total: u64,
    pub(super) parts: Vec<Part>,
    /// Repairs that were begun.
    pub(super) repairs: u32,
    /// The list was seen to change.
    pub(super) drifted: bool,
    /// It changed too often.
    pub(super) given_up: bool,
    /// What is to be asked for next.
    queue: VecDeque<usize>,
    outstanding: usize,
    bytes: u64,
    /// Behind the parts before this one there is more, whatever the total says.
    floor: usize,
    /// It was looked up that there is nothing behind the last part.
    ended: bool,
    /// Upstream honours a smaller `limit` than it did.
    narrower: bool,
    /// Two neighbours are one and the same page.
    stuck: bool,
    /// The first page was asked for again, and was still the same.
    closed: bool,
    /// It is being asked for again.
    closing: bool,
}

impl Pass {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            shape: None,
            total: 0,
            parts: vec![Part::at(0)],
            repairs: 0,
            drifted: false,
            given_up: false,
            queue: VecDeque::from([0]),
            outstanding: 0,
            bytes: 0,
            floor: 0,
            ended: false,
            narrower: false,
            stuck: false,
            closed: false,
            closing: false,
        }
    }

    /// Starts with a smaller first page, because upstream refused the one asked for.
    pub(super) fn ask_for_less(&mut self, limit: u32) {
        self.bounds.limit = limit;
        self.outstanding = 0;
        self.queue.push_back(0);
    }

    /// Begins another reading, whose pages lie as those before.
    pub(super) fn read_anew(&mut self) {
        self.parts = vec![Part::at(0)];
        self.bytes = 0;
        (self.floor, self.ended) = (0, false);
        (self.narrower, self.stuck, self.closed) = (false, false, false);
        self.queue = VecDeque::from([0]);
    }

    /// Begins another reading, because this one could not be mended. `false`: there have been too many repairs.
    pub(super) fn repair_all(&mut self) -> bool {
        let may = self.begin_repair();
        if may {
            self.read_anew();
        }
        may
    }

    /// The next page to ask for; `None` while answers are outstanding, or when there are no more.
    pub(super) fn next_ask(&mut self) -> Option<Ask> {
        let part = self.queue.pop_front()?;
        self.outstanding += 1;
        let first = Window {
            skip: 0,
            limit: self.bounds.limit,
        };
        let window = |shape: Shape| shape.window(&self.parts[part]);
        Some(Ask {
            window: self.shape.map_or(first, window),
            part,
            // Where it is the first page's turn again, nothing else is asked for.
            closing: self.closing,
        })
    }

    /// The calls of a reading of so many pages.
    pub(super) fn calls_of(&self, pages: usize) -> usize {
        let overlaps = self.shape.is_some_and(|shape| shape.overlap > 0);
        pages + usize::from(overlaps && pages > 1)
    }

    /// Asks once more for what has not come.
    pub(super) fn ask_again(&mut self, ask: Ask) {
        self.outstanding -= 1;
        self.queue.push_front(ask.part);
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        let read = || self.parts.iter().filter(|part| part.page.is_some());
        let (done, records) = (
            read().count(),
            read().map(|part| part.records().len()).sum::<usize>(),
        );
        let overlap = self.shape.map_or(0, |shape| shape.overlap as usize);
        let doubled = overlap * done.saturating_sub(1);
        let needed = match self.shape {
            // Of a reading that is begun anew, nothing is laid out yet.
            Some(shape) if done == 0 => shape.count(self.total) as usize,
            _ => self.parts.len(),
        };
        let to_close = overlap > 0 && needed > 1 && !self.closed && !self.closing;
        let asked_for = self.queue.len() + self.outstanding;
        Progress {
            pages_done: done,
            pages_needed: self.shape.map(|_| needed),
            calls_left: asked_for.max(needed - done) + usize::from(to_close),
            records: records.saturating_sub(doubled) as u64,
            ..Progress::default()
        }
    }

    /// Takes the answer to one ask.
    ///
    /// # Errors
    /// Whatever makes the list not worth finishing.
    pub(super) fn take(&mut self, ask: Ask, page: Page) -> Result<()> {
        self.outstanding -= 1;
        let total = page.total.ok_or_else(|| {
            let detail = "upstream does not say how many contacts there are";
            Error::new(Kind::MergeUnverified, detail)
        })?;
        if total != self.total || self.shape.is_none() {
            self.drifted |= self.shape.is_some();
            self.learn(&page, total)?;
            if self.shape.is_some_and(|shape| shape.overlap == 0) {
                // All will be read again, so what is left of this reading would be wasted.
                self.queue.clear();
            }
        }
        if ask.closing {
            self.closing = false;
            let first = self.parts[0].page.as_ref();
            self.closed = first.is_some_and(|first| same_records(first, &page));
            if !self.closed {
                self.begin_repair();
            }
        }
        let echoed = page.limit;
        self.put(ask.part, page)?;
        self.narrower |= self.is_cut_down(ask.part, echoed);
        if self.repeats_a_neighbour(ask.part) {
            if self.repairs > 0 || self.bounds.repairs_max == 0 {
                return Err(judge::no_progress(ask.part));
            }
            // Once it may be chance. More of the same would only cost calls.
            self.stuck = true;
            self.queue.clear();
        }
        if self.narrower || self.is_short(&self.parts[ask.part]) {
            self.queue.retain(|next| *next < ask.part);
        }
        if self.outstanding == 0 && self.queue.is_empty() {
            self.look()?;
        }
        Ok(())
    }

    /// What a page tells about all others.
    fn learn(&mut self, page: &Page, total: u64) -> Result<()> {
        let shape = *self.shape.get_or_insert_with(|| {
            // Some servers cut down the records and not the echo.
            let given = page.records.len() as u32;
            let more = page.has_more != Some(false) && u64::from(given) < total;
            let limit = if more && given > 0 { given } else { page.limit };
            Shape::new(limit, self.bounds.pages)
        });
        self.total = total;
        if total > self.bounds.records_max {
            let (most, pages) = (self.bounds.records_max, shape.count(total));
            return Err(too_large(format!(
                "the list has {total} contacts on {pages} pages, more than the {most} that are kept"
            )));
        }
        Ok(())
    }

    /// Puts a page in its place.
    fn put(&mut self, number: usize, page: Page) -> Result<()> {
        let part = &mut self.parts[number];
        let before = part.page.as_ref().map_or(0, |page| page.body.len() as u64);
        self.bytes = self.bytes - before + page.body.len() as u64;
        if self.bytes > self.bounds.bytes_max {
            let most = self.bounds.bytes_max;
            return Err(too_large(format!("the list is larger than {most} bytes")));
        }
        part.page = Some(page);
        part.read_in = self.repairs;
        Ok(())
    }

    /// Whether a page has fewer records than were asked for, and that is not old news.
    fn is_short(&self, part: &Part) -> bool {
        let limit = self.shape.map_or(0, |shape| shape.limit as usize);
        part.total() == Some(self.total) && part.records().len() < limit
    }

    /// Whether a page that is not the last echoes a smaller limit than all before it.
    fn is_cut_down(&self, number: usize, echoed: u32) -> bool {
        let part = &self.parts[number];
        let limit = self.shape.map_or(0, |shape| shape.limit);
        echoed < limit && part.end() < part.total().unwrap_or(0)
    }

    /// Whether there may be one more repair. If not, the reading is over.
    fn begin_repair(&mut self) -> bool {
        self.drifted = true;
        (self.floor, self.ended) = (0, false);
        if self.repairs < self.bounds.repairs_max {
            self.repairs += 1;
            return true;
        }
        self.given_up = true;
        self.queue.clear();
        let read = self.parts.iter().take_while(|part| part.page.is_some());
        self.drop_from(read.count());
        false
    }

    fn drop_from(&mut self, number: usize) {
        for part in self.parts.drain(number.min(self.parts.len())..) {
            self.bytes -= part.page.map_or(0, |page| page.body.len() as u64);
        }
    }

    /// Whether a page is the same as one beside it that was read at about the same time.
    fn repeats_a_neighbour(&self, number: usize) -> bool {
        let overlap = self.shape.map_or(0, |shape| shape.overlap as usize);
        let part = &self.parts[number];
        let before = number
            .checked_sub(1)
            .and_then(|before| self.parts.get(before));
        let beside = before.into_iter().chain(self.parts.get(number + 1));
        let same = |other: &Part| match (&part.page, &other.page) {
            (Some(page), Some(beside)) => {
                other.read_in == part.read_in
                    && page.total == beside.total
                    && page.records.len() > overlap
                    && same_records(page, beside)
            }
            _ => false,
        };
        beside.into_iter().any(same)
    }
}

fn too_large(detail: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Kind::MergeTooLarge, detail)
}
