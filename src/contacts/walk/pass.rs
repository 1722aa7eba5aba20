//! One reading of a list, mended where the list changes meanwhile: a pure state machine, without I/O.
//!
//! The first page tells the total and the largest `limit` that upstream honours. Where upstream counts in records, each
//! further page then begins with the record that ended the one before it. When all have come, they are looked at:
//!
//! 1. What lies behind the list's end is dropped.
//! 2. If two neighbours do not share a record, the list moved between them. A **repair** reads both again, and goes on to
//!    their neighbours until all seams hold. It reads no page twice: if a seam is broken between two pages of one repair,
//!    the list has moved again, and that takes another repair. There are only so many.
//! 3. Pages that are still missing are asked for: upstream may say another total by now.
//! 4. If upstream says that there is more behind the end, that is looked at, page by page.
//! 5. At last the first page is asked for again, so that whatever moved all of the list is seen.
//!
//! Where pages cannot overlap, only the totals can tell, and a repair reads all of them again.
//!
//! It always ends: between two repairs each window is asked for once, the first one twice, and there are never more windows
//! than the longest list that is kept would have.

use std::{
    borrow::Cow,
    collections::{BTreeSet, VecDeque},
};

use super::{
    judge,
    parts::{Part, Shape, same_records, seam_holds},
};
use crate::{
    contacts::page::{Page, Window},
    error::{Error, Kind, Result},
};

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
            closing: std::mem::take(&mut self.closing),
        })
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

    /// All answers are there: what is to be asked next, if anything.
    fn look(&mut self) -> Result<()> {
        let Some(shape) = self.shape.filter(|_| !self.given_up) else {
            return Ok(());
        };
        if self.narrower {
            if self.repair_all() {
                self.shape = None;
            }
            return Ok(());
        }
        self.drop_what_lies_behind(shape);
        let torn = self.torn(shape);
        if !torn.is_empty() {
            self.mend(torn, shape);
            return Ok(());
        }
        self.lay_out(shape)?;
        if self.queue.is_empty() && !self.look_behind(shape)? {
            self.close(shape);
        }
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

    /// Whether the list can end with a part.
    fn is_end(&self, part: &Part, shape: Shape) -> bool {
        part.skip + u64::from(shape.limit) >= self.total || self.is_short(part)
    }

    fn drop_what_lies_behind(&mut self, shape: Shape) {
        let mut parts = self.parts.iter().enumerate().skip(self.floor);
        if let Some((end, _)) = parts.find(|(_, part)| self.is_end(part, shape)) {
            self.drop_from(end + 1);
        }
    }

    fn drop_from(&mut self, number: usize) {
        for part in self.parts.drain(number.min(self.parts.len())..) {
            self.bytes -= part.page.map_or(0, |page| page.body.len() as u64);
        }
    }

    /// The parts between which something may be missing or twice.
    fn torn(&mut self, shape: Shape) -> BTreeSet<usize> {
        let parts = self.parts.iter().enumerate();
        let read = parts.filter(|(_, part)| part.page.is_some());
        if shape.overlap == 0 {
            let stuck = std::mem::take(&mut self.stuck);
            let old = read.filter(|(_, part)| stuck || part.total() != Some(self.total));
            return old.map(|(number, _)| number).collect();
        }
        let mut torn: BTreeSet<_> = (self.parts.windows(2).enumerate())
            .filter(|(_, pair)| pair.iter().all(|part| part.page.is_some()))
            .filter(|(_, pair)| !seam_holds(&pair[0], &pair[1]))
            .flat_map(|(number, _)| [number, number + 1])
            .collect();
        // Whether it still is the end, only it can say.
        let last = self.parts.len() - 1;
        let outdated = |part: &Part| part.page.is_some() && part.total() != Some(self.total);
        if self.is_end(&self.parts[last], shape) && outdated(&self.parts[last]) {
            torn.insert(last);
        }
        torn
    }

    /// Asks again for what is torn, unless it was only just read: then the list has moved again.
    fn mend(&mut self, torn: BTreeSet<usize>, shape: Shape) {
        self.closed = false;
        if shape.overlap == 0 {
            self.repair_all();
            return;
        }
        let older = |number: &usize| self.parts[*number].read_in < self.repairs;
        let mut again: Vec<_> = torn.iter().copied().filter(older).collect();
        if again.is_empty() {
            if !self.begin_repair() {
                return;
            }
            again.extend(torn);
        }
        self.queue.extend(again);
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

    /// Asks for what is missing up to the total.
    fn lay_out(&mut self, shape: Shape) -> Result<()> {
        while let Some(last) = self.parts.last()
            && !self.is_end(last, shape)
        {
            let next = last.skip + shape.stride();
            self.add(next, shape)?;
        }
        let parts = self.parts.iter().enumerate();
        let missing = parts.filter(|(_, part)| part.page.is_none());
        self.queue.extend(missing.map(|(number, _)| number));
        Ok(())
    }

    /// Looks behind the end if upstream says that there is more. Whether it does.
    fn look_behind(&mut self, shape: Shape) -> Result<bool> {
        let number = self.parts.len() - 1;
        let last = &self.parts[number];
        let nothing_new = last.records().len() <= shape.overlap as usize;
        if number > 0 && number == self.floor && nothing_new {
            self.drop_from(number);
            self.ended = true;
            return Ok(false);
        }
        if self.ended || nothing_new || last.says_more() != Some(true) {
            return Ok(false);
        }
        let next = match self.bounds.pages {
            true => last.skip + shape.stride(),
            // Forward by what came, and not by what was asked for.
            false => last.end() - u64::from(shape.overlap),
        };
        if last.end() > self.bounds.records_max {
            let most = self.bounds.records_max;
            return Err(too_large(format!(
                "the list has more than the {most} contacts that are kept"
            )));
        }
        self.add(next, shape)?;
        self.floor = number + 1;
        self.queue.push_back(number + 1);
        Ok(true)
    }

    fn add(&mut self, skip: u64, shape: Shape) -> Result<()> {
        if self.parts.len() as u64 > shape.count(self.bounds.records_max) {
            return Err(Error::new(
                Kind::PaginationInconsistent,
                "upstream's pages do not come to an end",
            ));
        }
        self.parts.push(Part::at(skip));
        Ok(())
    }

    /// The first page at last, unless it alone is the list.
    fn close(&mut self, shape: Shape) {
        if shape.overlap > 0 && self.parts.len() > 1 && !self.closed {
            self.closing = true;
            self.queue.push_back(0);
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
