//! Giving pages away, and what the list is when all of them were.

use std::hash::BuildHasher;

use tokio::time::Instant;

use super::{Flow, drifting};
use crate::{
    contacts::{
        lines::{Ending, Run},
        page::Page,
        verdict::{Checks, Verdict},
        walk::{confirm::own, judge, parts::Shape},
    },
    error::{Error, Kind, Result},
};

impl Flow {
    /// Whether a page can be given away.
    pub(in crate::contacts::walk) fn is_ready(&self) -> bool {
        let Some(shape) = self.shape else {
            return false;
        };
        let mut slots = self.ahead.iter();
        let front = slots.next().map(|slot| &slot.part);
        let Some(front) = front.filter(|front| front.page.is_some()) else {
            return false;
        };
        match slots.next() {
            // They were compared when the later one came.
            Some(next) => next.part.page.is_some(),
            None => self.ended || self.is_end(front, shape),
        }
    }

    /// Gives away the page that is ready.
    ///
    /// # Errors
    /// [`Kind::MergeDrifting`] if some of it was given away before, [`Kind::PaginationInconsistent`] if all was.
    pub(in crate::contacts::walk) fn give(&mut self) -> Result<Option<Run>> {
        let Some(shape) = self.shape.filter(|_| self.is_ready()) else {
            return Ok(None);
        };
        let Some(slot) = self.ahead.pop_front() else {
            return Ok(None);
        };
        self.ended |= self.ahead.is_empty();
        let Some(page) = slot.part.page else {
            return Ok(None);
        };
        let shared = if self.pages == 0 {
            0
        } else {
            shape.overlap as usize
        };
        let (mut fresh, mut count) = (0_u64, 0_u64);
        for id in judge::ids(&page).skip(shared) {
            let hash = self.keys.hash_one(&id);
            fresh += u64::from(self.seen.insert(hash));
            count += 1;
            self.order = self.keys.hash_one((self.order, hash));
        }
        if fresh < count {
            return Err(match fresh {
                0 => judge::no_progress(self.pages),
                _ => drifting(),
            });
        }
        if self.pages == 0 {
            self.first = self.hashes(&page);
        }
        self.seam = judge::ids(&page).last().map(|id| id.into_owned().into());
        self.given += count;
        self.told = page.total.unwrap_or(0);
        self.oldest = self.oldest.into_iter().chain([page.read_at]).min();
        let run = own(&page, self.pages, shape);
        // A look behind the end is no page of the list.
        self.pages += usize::from(count > 0 || self.pages == 0);
        if self.ended && self.ahead.is_empty() && (shape.overlap == 0 || self.pages == 1) {
            self.conclude(shape)?;
        }
        Ok(Some(run))
    }

    fn hashes(&self, page: &Page) -> Vec<u64> {
        judge::ids(page).map(|id| self.keys.hash_one(&id)).collect()
    }

    /// Compares the first page, read again, with what it was.
    pub(super) fn close(&mut self, page: &Page) -> Result<()> {
        let Some(shape) = self.shape.filter(|_| self.hashes(page) == self.first) else {
            return Err(drifting());
        };
        self.total = page.total.unwrap_or(0);
        if self.total == self.told {
            return self.conclude(shape);
        }
        match self.total >= self.given {
            // There may be more by now.
            true => self.repair(),
            false => Err(drifting()),
        }
    }

    /// All was read: what it comes to.
    fn conclude(&mut self, shape: Shape) -> Result<()> {
        // Not what came later: where nothing is left behind the last page, it may be that all before it went.
        let total = i64::try_from(self.told).unwrap_or(i64::MAX);
        let gap = total.saturating_sub_unsigned(self.given);
        let known = gap == self.gap;
        self.gap = gap;
        self.verdict = Some(match gap {
            0 if shape.overlap > 0 || self.pages == 1 && !self.bounds.pages => {
                Verdict::Verified(Checks::Seam)
            }
            0 => Verdict::Consistent,
            _ if known => Verdict::Settled,
            _ if self.drifted => return Err(drifting()),
            _ => {
                let given = self.given;
                let detail = format!("upstream says {total} contacts, and sent {given}");
                return Err(Error::new(Kind::MergeUnverified, detail));
            }
        });
        Ok(())
    }

    /// What the list is, once all of it was given away.
    pub(in crate::contacts::walk) fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// What upstream's total is off by, as far as is known.
    pub(in crate::contacts::walk) fn gap(&self) -> i64 {
        self.gap
    }

    /// Stands for all ids in their order.
    pub(in crate::contacts::walk) fn order(&self) -> u64 {
        self.order
    }

    pub(in crate::contacts::walk) fn ending(&self, verdict: Verdict, now: Instant) -> Ending {
        let oldest = self.oldest.unwrap_or(now);
        Ending {
            verdict,
            pages: self.pages,
            records: self.given,
            calls: self.calls,
            gap: self.gap,
            oldest: now.saturating_duration_since(oldest),
        }
    }
}
