//! What to ask next, when all answers of a reading are there.
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

use std::collections::BTreeSet;

use super::{Pass, too_large};
use crate::{
    contacts::walk::parts::{Part, Shape, seam_holds},
    error::{Error, Kind, Result},
};

impl Pass {
    /// All answers are there: what is to be asked next, if anything.
    pub(super) fn look(&mut self) -> Result<()> {
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
}
