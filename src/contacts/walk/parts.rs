//! How a list lies in windows, and what was read of each.

use crate::contacts::page::{Page, Record, Window};

use super::judge;

/// How windows lie, as learned from the first page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Records of a window.
    pub limit: u32,
    /// Records that each window shares with the one before: 1, or 0 where it could not get on then, or where upstream
    /// counts in pages.
    pub overlap: u32,
}

impl Shape {
    pub(super) fn new(limit: u32, pages: bool) -> Self {
        Self {
            limit,
            overlap: u32::from(!pages && limit > 1),
        }
    }

    /// Records from one window's first to the next one's.
    pub(super) fn stride(self) -> u64 {
        u64::from(self.limit - self.overlap)
    }

    /// How many windows a list of so many records needs; 1 for an empty one.
    pub(super) fn count(self, total: u64) -> u64 {
        1 + total
            .saturating_sub(u64::from(self.limit))
            .div_ceil(self.stride())
    }

    pub(super) fn window(self, part: &Part) -> Window {
        Window {
            skip: part.skip,
            limit: self.limit,
        }
    }
}

/// One window, and the page that was read of it last.
#[derive(Debug)]
pub(super) struct Part {
    pub skip: u64,
    pub page: Option<Page>,
    /// In which repair it was read; 0 for none.
    pub read_in: u32,
}

impl Part {
    pub(super) fn at(skip: u64) -> Self {
        Self {
            skip,
            page: None,
            read_in: 0,
        }
    }

    pub(super) fn records(&self) -> &[Record] {
        self.page.as_ref().map_or(&[], |page| &page.records)
    }

    /// The place behind its last record.
    pub(super) fn end(&self) -> u64 {
        self.skip + self.records().len() as u64
    }

    /// The total that its page told.
    pub(super) fn total(&self) -> Option<u64> {
        self.page.as_ref().and_then(|page| page.total)
    }

    pub(super) fn says_more(&self) -> Option<bool> {
        self.page.as_ref().and_then(|page| page.has_more)
    }
}

/// Whether one part ends with the record that the next one begins with.
pub(super) fn seam_holds(one: &Part, next: &Part) -> bool {
    let id = |part: &Part, record: Option<&Record>| {
        Some(judge::id(part.page.as_ref()?, record?).into_owned())
    };
    let last = id(one, one.records().last());
    last.is_some() && last == id(next, next.records().first())
}

/// Whether two pages hold the same records in the same order.
pub(super) fn same_records(one: &Page, other: &Page) -> bool {
    one.records.len() == other.records.len() && judge::ids(one).eq(judge::ids(other))
}
