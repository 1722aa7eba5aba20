//! What to ask for next: windows in order behind what was given away, and only so many ahead of whoever reads.

use super::{Ask, Flow, Slot};
use crate::contacts::{
    page::Window,
    walk::parts::{Part, Shape},
};

/// Pages are not asked for while those that wait hold more bytes than this.
const AHEAD_BYTES_MAX: usize = 8 * 1024 * 1024;

impl Flow {
    /// The next page to ask for; `None` while there are enough.
    pub(in crate::contacts::walk) fn next_ask(&mut self) -> Option<Ask> {
        if self.verdict.is_some() || self.outstanding >= self.bounds.width {
            return None;
        }
        while let Some(again) = self.again.pop() {
            let wanted = |number| self.ahead.iter().any(|slot| slot.number == number);
            if again.slot.is_none_or(wanted) {
                return Some(self.ask(again.window.skip, again.slot));
            }
        }
        if self.ended && self.ahead.is_empty() && !self.closing {
            self.closing = true;
            return Some(self.ask(0, None));
        }
        let waiting = self.ahead.iter().filter_map(|slot| slot.part.page.as_ref());
        let bytes: usize = waiting.map(|page| page.body.len()).sum();
        let full =
            self.ahead.len() > self.bounds.width || self.ahead.len() > 1 && bytes > AHEAD_BYTES_MAX;
        let skip = self.next_skip().filter(|_| !full)?;
        let number = self.slots;
        self.slots += 1;
        self.ahead.push_back(Slot {
            number,
            part: Part::at(skip),
        });
        Some(self.ask(skip, Some(number)))
    }

    fn ask(&mut self, skip: u64, slot: Option<u64>) -> Ask {
        self.calls += 1;
        self.outstanding += 1;
        let limit = self.shape.map_or(self.bounds.limit, |shape| shape.limit);
        Ask {
            window: Window { skip, limit },
            slot,
        }
    }

    /// Where the window behind the last one begins, if there is one.
    fn next_skip(&self) -> Option<u64> {
        if self.ended {
            return None;
        }
        let Some(shape) = self.shape else {
            return self.ahead.is_empty().then_some(0);
        };
        let overlap = u64::from(shape.overlap);
        let Some(Slot { part, .. }) = self.ahead.back() else {
            return Some(self.given - overlap.min(self.given));
        };
        match &part.page {
            None => {
                let more = part.skip + u64::from(shape.limit) < self.total;
                more.then_some(part.skip + shape.stride())
            }
            Some(_) if self.is_end(part, shape) => None,
            Some(_) if self.bounds.pages => Some(part.skip + shape.stride()),
            // Forward by what came, and not by what was asked for.
            Some(_) => Some(part.end() - overlap),
        }
    }

    /// Whether the list ends with a page.
    pub(super) fn is_end(&self, part: &Part, shape: Shape) -> bool {
        let short = part.records().len() < shape.limit as usize;
        let all = part.end() >= part.total().unwrap_or(0);
        let says_more = part.says_more() == Some(true);
        let has_news = part.records().len() > shape.overlap as usize;
        (short || all) && !(says_more && has_news)
    }
}
