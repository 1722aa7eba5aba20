//! A list that is too large to be kept, read once from front to back: a pure state machine, without I/O.
//!
//! A page is given away as soon as the one behind it begins with its last record, and nothing of it is kept but the id at
//! that seam and a 64-bit hash of each id, keyed anew for each list. So a list that moves can be mended only ahead of what
//! was given away: from the seam on it is read again, and where the seam itself is gone the list is drifting. At the end
//! the first page is read again, as [`judge`] argues.
//!
//! It always ends: it goes on from page to page only by records that are new, and there are only so many repairs.

use std::{
    collections::{HashSet, VecDeque},
    hash::RandomState,
};

use tokio::time::Instant;

use super::{
    judge,
    parts::{Part, Shape, same_records, seam_holds},
};
use crate::{
    contacts::{
        page::{Page, Window},
        verdict::Verdict,
        walking::Progress,
    },
    error::{Error, Kind, Result},
};

/// Room for so many ids is made at once where upstream says that there are as many; for more it is made as they come.
const RESERVED_MAX: u64 = 1 << 20;

/// What a reading keeps to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The `limit` of the first page; upstream may clamp it.
    pub limit: u32,
    /// Upstream counts in pages, so that windows cannot overlap.
    pub pages: bool,
    /// The longest list, in records.
    pub records_max: u64,
    /// Pages asked for at once, and pages that wait for a reader.
    pub width: usize,
    pub repairs_max: u32,
}

/// One page to ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    pub window: Window,
    /// Of its slot; `None` for the first page at last.
    slot: Option<u64>,
}

/// A reading under way.
#[derive(Debug)]
pub(super) struct Flow {
    bounds: Bounds,
    /// What upstream's total is known to be off by.
    gap: i64,
    /// Learned from the first page.
    shape: Option<Shape>,
    /// What upstream said last.
    total: u64,
    /// It has said something else before.
    drifted: bool,
    /// The windows behind what was given away.
    ahead: VecDeque<Slot>,
    slots: u64,
    outstanding: usize,
    /// What was asked for, and did not come.
    again: Vec<Ask>,
    /// There is nothing behind the last window.
    ended: bool,
    /// The id of the last record that was given away.
    seam: Option<Box<[u8]>>,
    /// Records that were given away.
    given: u64,
    /// The total that the last page to be given away told: whether it is the end, only it can say.
    told: u64,
    pages: usize,
    seen: HashSet<u64>,
    keys: RandomState,
    /// Stands for all ids in their order.
    order: u64,
    /// The ids of the first page.
    first: Vec<u64>,
    closing: bool,
    verdict: Option<Verdict>,
    repairs: u32,
    calls: usize,
    oldest: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    part: Part,
}

impl Flow {
    /// `gap` is what upstream's total is known to be off by. Two readings can be compared if they have the same `keys`.
    pub(super) fn new(bounds: Bounds, gap: i64, keys: RandomState) -> Self {
        Self {
            bounds,
            gap,
            shape: None,
            total: 0,
            drifted: false,
            ahead: VecDeque::new(),
            slots: 0,
            outstanding: 0,
            again: Vec::new(),
            ended: false,
            seam: None,
            given: 0,
            told: 0,
            pages: 0,
            seen: HashSet::new(),
            keys,
            order: 0,
            first: Vec::new(),
            closing: false,
            verdict: None,
            repairs: 0,
            calls: 0,
            oldest: None,
        }
    }

    /// Whether nothing is known yet.
    pub(super) fn at_first(&self) -> bool {
        self.shape.is_none()
    }

    /// Starts with a smaller first page, because upstream refused the one asked for.
    pub(super) fn ask_for_less(&mut self, limit: u32) {
        self.bounds.limit = limit;
        self.outstanding = 0;
        self.ahead.clear();
    }

    /// Asks once more for what has not come.
    pub(super) fn ask_again(&mut self, ask: Ask) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.again.push(ask);
    }

    /// Takes the answer to one ask.
    ///
    /// # Errors
    /// Whatever makes the list not worth going on with.
    pub(super) fn take(&mut self, ask: Ask, page: Page) -> Result<()> {
        self.outstanding = self.outstanding.saturating_sub(1);
        let Some(slot) = ask.slot else {
            self.closing = false;
            return self.close(&page);
        };
        let Some(place) = self.ahead.iter().position(|own| own.number == slot) else {
            // It was asked for before a repair.
            return Ok(());
        };
        let total = page.total.ok_or_else(|| {
            let detail = "upstream does not say how many contacts there are";
            Error::new(Kind::MergeUnverified, detail)
        })?;
        let shape = self.learn(&page, total)?;
        if page.limit < shape.limit
            && page.records.len() as u64 + self.ahead[place].part.skip < total
        {
            // Upstream honours less than it did.
            let narrower = Shape::new(page.limit, self.bounds.pages);
            let goes_on = self.given == 0 || narrower.overlap > 0 && shape.overlap > 0;
            self.shape = Some(narrower);
            return if goes_on {
                self.repair()
            } else {
                Err(drifting())
            };
        }
        if page.records.is_empty() && (place > 0 || self.given > 0) {
            // There is nothing behind the one before.
            self.ahead.truncate(place);
            self.ended = true;
            return Ok(());
        }
        if page.records.len() < shape.limit as usize {
            self.ahead.truncate(place + 1);
        }
        self.ahead[place].part.page = Some(page);
        self.compare(shape)
    }

    /// What a page tells about all others.
    fn learn(&mut self, page: &Page, total: u64) -> Result<Shape> {
        self.drifted |= total != self.total && self.shape.is_some();
        self.total = total;
        if total > self.bounds.records_max {
            let most = self.bounds.records_max;
            let detail =
                format!("the list has {total} contacts, more than the {most} that are sent");
            return Err(Error::new(Kind::MergeTooLarge, detail));
        }
        let pages = self.bounds.pages;
        Ok(*self.shape.get_or_insert_with(|| {
            self.seen.reserve(total.min(RESERVED_MAX) as usize);
            // Some servers cut down the records and not the echo.
            let given = page.records.len() as u32;
            let more = page.has_more != Some(false) && u64::from(given) < total;
            Shape::new(if more && given > 0 { given } else { page.limit }, pages)
        }))
    }

    /// Compares pages where they meet.
    fn compare(&mut self, shape: Shape) -> Result<()> {
        let meets = |one: &Part, next: &Part| match shape.overlap {
            0 => one.total() == next.total(),
            _ => seam_holds(one, next),
        };
        if let Some(seam) = &self.seam
            && let Some(Slot { part, .. }) = self.ahead.front()
            && let Some(page) = &part.page
            && shape.overlap > 0
            && judge::ids(page).next().as_deref() != Some(&**seam)
        {
            return Err(drifting());
        }
        let parts = self.ahead.iter().map(|slot| &slot.part);
        let mut pairs = parts.clone().zip(parts.skip(1));
        let broken = pairs.find_map(|(one, next)| {
            let (page, other) = (one.page.as_ref()?, next.page.as_ref()?);
            (!meets(one, next)).then(|| same_records(page, other))
        });
        match broken {
            None => Ok(()),
            Some(true) if self.repairs > 0 || self.bounds.repairs_max == 0 => {
                Err(judge::no_progress(self.pages + 1))
            }
            // What cannot be mended there, where pages do not overlap, can be only before anything was given away.
            Some(_) if shape.overlap == 0 && self.given > 0 => Err(drifting()),
            Some(_) => self.repair(),
        }
    }

    /// Reads on from what was given away, as if nothing had been read beyond.
    fn repair(&mut self) -> Result<()> {
        if self.repairs == self.bounds.repairs_max {
            return Err(drifting());
        }
        self.repairs += 1;
        self.ahead.clear();
        self.ended = false;
        if self.given == 0 {
            self.shape = None;
        }
        Ok(())
    }

    /// The calls of a reading of so many pages.
    pub(super) fn calls_of(&self, pages: usize) -> usize {
        let overlaps = self.shape.is_some_and(|shape| shape.overlap > 0);
        pages + usize::from(overlaps && pages > 1)
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        let waiting = self.ahead.iter().filter(|slot| slot.part.page.is_some());
        let pages_done = self.pages + waiting.count();
        let pages_needed = self.shape.map(|shape| shape.count(self.total) as usize);
        let left =
            pages_needed.map_or(1, |needed| self.calls_of(needed).saturating_sub(pages_done));
        Progress {
            pages_done,
            pages_needed,
            calls_left: if self.verdict.is_some() { 0 } else { left },
            records: self.given,
            ..Progress::default()
        }
    }
}

fn drifting() -> Error {
    let detail = "the list changed behind what was sent of it already";
    Error::new(Kind::MergeDrifting, detail)
}

mod asking;
mod giving;
#[cfg(test)]
mod tests;
