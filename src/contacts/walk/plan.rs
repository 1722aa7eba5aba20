//! How often a list is read until it can be believed, and what it is then: a pure state machine, without I/O.
//!
//! Once is enough where nothing speaks against it. If the records that were found are not as many as upstream says, the
//! list is read a second time: the same again is *settled*, and the difference is remembered, so that a later walk which
//! finds it again need not do so. With `merge.verify = "twice"` every list is read until two readings in a row are equal.
//! Readings that differ are repairs like any other; when there have been too many, the list is *drifting*.

use tokio::time::Instant;

use super::{
    config::Verify,
    confirm,
    judge::{self, Finding},
    pass::{Ask, Bounds, Pass},
};
use crate::{
    contacts::{
        list::{List, Walked},
        page::{Page, envelope::Envelope},
        trail::Trail,
        verdict::{Checks, Verdict},
        walking::Progress,
    },
    error::{Error, Kind, Result},
};

/// A walk under way.
#[derive(Debug)]
pub(super) struct Plan {
    pass: Pass,
    verify: Verify,
    /// What upstream says less what it sends, in records: what was known, or was found now.
    gap: i64,
    /// The reading before this one.
    before: Option<Finding>,
    started: Instant,
    calls: usize,
    foreign: usize,
    no_store: bool,
}

impl Plan {
    /// `gap` is what upstream's total is known to be off by.
    pub(super) fn new(bounds: Bounds, verify: Verify, gap: i64, now: Instant) -> Self {
        Self {
            pass: Pass::new(bounds),
            verify,
            gap,
            before: None,
            started: now,
            calls: 0,
            foreign: 0,
            no_store: false,
        }
    }

    /// The next page to ask for; `None` while answers are outstanding, or when the reading is over.
    pub(super) fn next_ask(&mut self) -> Option<Ask> {
        let ask = self.pass.next_ask();
        self.calls += usize::from(ask.is_some());
        ask
    }

    /// Starts with a smaller first page, because upstream refused the one asked for.
    pub(super) fn ask_for_less(&mut self, limit: u32) {
        self.pass.ask_for_less(limit);
    }

    /// Whether nothing is known yet.
    pub(super) fn at_first(&self) -> bool {
        self.pass.shape.is_none()
    }

    /// Whether the list was seen to change.
    pub(super) fn has_drifted(&self) -> bool {
        self.pass.drifted
    }

    /// How often it was mended so far.
    pub(super) fn repairs(&self) -> u32 {
        self.pass.repairs
    }

    /// Asks once more for what has not come.
    pub(super) fn ask_again(&mut self, ask: Ask) {
        self.pass.ask_again(ask);
    }

    /// How far it is.
    pub(super) fn progress(&self) -> Progress {
        let mut progress = self.pass.progress();
        if self.verify == Verify::Twice && self.before.is_none() {
            progress.calls_left += self.pass.calls_of(progress.pages_needed.unwrap_or(0));
        }
        progress
    }

    /// Lays out what is confirmed.
    pub(super) fn lay_out(&self, trail: &Trail) {
        if let Some(shape) = self.pass.shape
            && self.verify == Verify::Seam
        {
            let parts = &self.pass.parts;
            trail.lay(|laid, reached| confirm::lay_out(laid, reached, parts, shape));
        }
    }

    /// What upstream's total is off by.
    pub(super) fn gap(&self) -> i64 {
        self.gap
    }

    /// Takes the answer to one ask.
    ///
    /// # Errors
    /// Whatever makes the list not worth finishing.
    pub(super) fn take(&mut self, ask: Ask, page: Page) -> Result<()> {
        self.foreign += page.foreign;
        self.no_store |= page.no_store;
        self.pass.take(ask, page)
    }

    /// The list, now that a reading is over; `None` if another one has begun. Takes time in proportion to the list's
    /// bytes.
    ///
    /// # Errors
    /// [`Kind::PaginationInconsistent`] for pages that do not get on.
    pub(super) fn judge(&mut self, now: Instant) -> Result<Option<List>> {
        let Some(shape) = self.pass.shape else {
            return Err(internal("the walk ended before its first page"));
        };
        if self.pass.given_up {
            return self.list(Verdict::Drifting, now).map(Some);
        }
        let finding = judge::examine(&self.pass.parts, shape.overlap);
        if finding.doubled {
            self.before = None;
            return match (self.repair_all(now), finding.idle) {
                (Ok(Some(_)), Some(page)) => Err(judge::no_progress(page)),
                (outcome, _) => outcome,
            };
        }
        let total = i64::try_from(self.pass.total).unwrap_or(i64::MAX);
        let gap = total.saturating_sub_unsigned(finding.found);
        let twice = self.verify == Verify::Twice;
        let equal = self.before.as_ref() == Some(&finding);
        if !equal && (twice || gap != 0 && gap != self.gap) {
            let other = self.before.replace(finding).is_some();
            // The first reading is only one half of the check. If the second is another, the list has changed.
            if other {
                return self.repair_all(now);
            }
            self.pass.read_anew();
            return Ok(None);
        }
        self.gap = gap;
        let verdict = if gap != 0 {
            Verdict::Settled
        } else if twice {
            Verdict::Verified(Checks::Twice)
        } else if shape.overlap > 0 || (self.pass.parts.len() == 1 && !self.pass.bounds.pages) {
            // One page is read at one moment, so it has no seams and needs none.
            Verdict::Verified(Checks::Seam)
        } else {
            Verdict::Consistent
        };
        self.list(verdict, now).map(Some)
    }

    fn repair_all(&mut self, now: Instant) -> Result<Option<List>> {
        match self.pass.repair_all() {
            true => Ok(None),
            false => self.list(Verdict::Drifting, now).map(Some),
        }
    }

    /// The list of what was read.
    fn list(&mut self, verdict: Verdict, now: Instant) -> Result<List> {
        let overlap = self.pass.shape.map_or(0, |shape| shape.overlap);
        let parts = std::mem::take(&mut self.pass.parts);
        let runs = match verdict {
            Verdict::Drifting => judge::each_once(&parts),
            _ => judge::joined(&parts, overlap),
        };
        let pages: Vec<&Page> = judge::pages(&parts).collect();
        let first = pages
            .first()
            .ok_or_else(|| internal("the walk has no page"))?;
        let text = std::str::from_utf8(&first.body).unwrap_or_default();
        let template = Envelope::read(text)
            .map_err(|_| internal("the first page's envelope cannot be read again"))?
            .template();
        let walked = Walked {
            pages: pages.len(),
            calls: self.calls,
            oldest: pages.iter().map(|page| page.read_at).min().unwrap_or(now),
            took: now.saturating_duration_since(self.started),
            gap: self.gap,
            foreign: self.foreign,
            no_store: self.no_store,
        };
        Ok(List::splice(runs, template, verdict, walked))
    }
}

fn internal(detail: &'static str) -> Error {
    Error::new(Kind::Internal, detail)
}

#[cfg(test)]
pub(super) mod changing;
#[cfg(test)]
mod readers;
#[cfg(test)]
mod tests;
