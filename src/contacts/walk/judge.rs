//! Whether pages are one whole list.
//!
//! What `verified` guarantees: **while the records that stay keep their order, no record that was there throughout is
//! missing, none is twice, and they stand in upstream's order.**
//!
//! Suppose that such a record fell between two pages. When the first of them was read, it stood behind that page's last
//! record; when the second was read, it stood before that page's first record. The seam says that the two are one and the
//! same record, so the order changed. Before the first page there is nothing, and behind the last one neither: it reaches
//! the total that it tells itself. The same holds for two records that stand in the wrong order: from page to page, the
//! one that comes first upstream stays before the seam, so that no later page can begin with it. Twice a record cannot
//! be, since ids are unique.
//!
//! The argument needs each page to be read at one moment, and does not ask which moment, nor which page was read first.
//! That is why a page may be kept when others are read again. It is kept in a stretch of neighbours, and a stretch only
//! if both its ends were read again after the list was seen to change: the seams on its two sides by the pages beside it,
//! and the list's own beginning by the first page, which is always read last. Then the stretch still has as many records
//! as upstream has there, and the count of the whole is the total that upstream says now.
//!
//! What it cannot know:
//!
//! - It is no snapshot. A record inserted or deleted during the walk may be in the list or not, and one that was updated may
//!   be there in its old form.
//! - If records that stay change places while they are read, one of them may be missed although every seam holds: it only
//!   takes one to be inserted and one deleted, or two to be swapped, so that the total stays the same. `merge.verify =
//!   "twice"` reads the list twice and compares: if upstream stood still during either walk, the list is exactly what was
//!   there then, whatever happened during the other. If it was reordered during both, each time so that the two look
//!   the same, no reading can tell.
//! - Where pages cannot overlap (upstream counts in pages, or honours only one record a page) there are no seams to compare,
//!   and one walk is `consistent`: its totals are equal, its ids unique and as many. A deletion and an insertion during
//!   the walk can hide a record from it.

use std::{borrow::Cow, collections::HashSet};

use bytes::Bytes;

use super::parts::Part;
use crate::{
    contacts::{
        etag::ETag,
        page::{Page, Record},
    },
    error::{Error, Kind},
};

/// What parts that were read come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How many different records there are.
    pub found: u64,
    /// Some are there more than once, beyond the overlaps.
    pub doubled: bool,
    /// The first page that holds nothing which those before it did not.
    pub idle: Option<usize>,
    /// Stands for all ids in their order, so that two walks can be compared without both being held.
    pub fingerprint: ETag,
}

/// Looks at all ids.
pub(super) fn examine(parts: &[Part], overlap: u32) -> Finding {
    let (mut seen, mut order) = (HashSet::new(), Vec::new());
    let (mut doubled, mut idle) = (false, None);
    for (number, page) in pages(parts).enumerate() {
        let shared = if number == 0 { 0 } else { overlap as usize };
        let (mut fresh, mut own) = (0_usize, 0_usize);
        for id in ids(page).skip(shared) {
            own += 1;
            if seen.insert(id.clone()) {
                fresh += 1;
                order.push(id);
            }
        }
        if own > 0 && fresh == 0 {
            idle.get_or_insert(number);
        }
        doubled |= fresh < own;
    }
    Finding {
        found: order.len() as u64,
        doubled,
        idle,
        // Each id is in its quotes, so that no two lists look the same.
        fingerprint: ETag::of(order.iter().map(|id| &**id)),
    }
}

/// Upstream does not get on: what is no list that moves.
pub(super) fn no_progress(page: usize) -> Error {
    Error::new(
        Kind::PaginationInconsistent,
        format!("page {page} holds nothing that the pages before it did not"),
    )
}

/// Of parts that do not fit together, each record once, where it is met first: runs of neighbours in one page's body.
pub(super) fn each_once(parts: &[Part]) -> Vec<(Bytes, Vec<Record>)> {
    let (mut seen, mut runs) = (HashSet::new(), Vec::new());
    for page in pages(parts) {
        let runs_of_page = page
            .records
            .split(|record| !seen.insert(id(page, record)))
            .filter(|run| !run.is_empty());
        runs.extend(runs_of_page.map(|run| (page.body.clone(), run.to_vec())));
    }
    runs
}

/// Of parts that fit together, all records, those that two pages share once.
pub(super) fn joined(parts: &[Part], overlap: u32) -> Vec<(Bytes, Vec<Record>)> {
    let own = |(number, page): (usize, &Page)| {
        let shared = if number == 0 { 0 } else { overlap as usize };
        let own = page.records.get(shared..).unwrap_or_default();
        (page.body.clone(), own.to_vec())
    };
    pages(parts).enumerate().map(own).collect()
}

/// The pages that were read, in order.
pub(super) fn pages(parts: &[Part]) -> impl Iterator<Item = &Page> {
    parts.iter().filter_map(|part| part.page.as_ref())
}

/// The ids of a page, in order and without escapes.
pub(super) fn ids(page: &Page) -> impl Iterator<Item = Cow<'_, [u8]>> {
    page.records.iter().map(|record| id(page, record))
}

/// A record's id as a JSON string without escapes.
pub(super) fn id<'a>(page: &'a Page, record: &Record) -> Cow<'a, [u8]> {
    let raw = page.id(record);
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    // Decoding checked that it is a JSON string; one with a lone surrogate stays as it was written.
    let text = serde_json::from_slice::<String>(raw);
    text.map_or(Cow::Borrowed(raw), |text| {
        Cow::Owned(format!("\"{text}\"").into_bytes())
    })
}
