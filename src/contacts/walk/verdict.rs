//! Whether pages are one whole list.
//!
//! What `verified` guarantees: **while the records that stay keep their order, no record that was there throughout is
//! missing, and none is twice.** Suppose that one fell between two pages. When the first of them was read, it stood
//! behind that page's last record; when the second was read, it stood before that page's first record. The seam says
//! that the two are one and the same record, so the order changed. Before the first page there is nothing, and the
//! last one reaches the total that it tells itself. Twice it cannot be, since ids are unique. What it is not is a
//! snapshot: a record inserted or deleted during the walk may be in the list or not, and a record that was updated may
//! be there in its old form. Where pages cannot overlap (upstream counts in pages, or honours only one record a page)
//! there are no seams to compare, and the verdict is `consistent`.

use std::{borrow::Cow, collections::HashSet};

use super::plan::unverified;
use crate::{
    contacts::page::Page,
    error::{Error, Kind, Result},
};

/// Seams match, ids are unique, and there are as many as upstream says.
pub(super) fn check(pages: &[Page], overlap: u32, total: u64) -> Result<()> {
    let mut seen = HashSet::new();
    let mut last = None;
    for (number, page) in pages.iter().enumerate() {
        let mut own = ids(page);
        let seam = number == 0 || overlap == 0 || (own.next() == last && last.is_some());
        let (mut fresh, mut count) = (0_usize, 0_usize);
        for id in own {
            count += 1;
            last = Some(id.clone());
            fresh += usize::from(seen.insert(id));
        }
        // Before the seam: an upstream that does not get on is no list that moves.
        if count > 0 && fresh == 0 {
            return Err(Error::new(
                Kind::PaginationInconsistent,
                format!("page {number} holds nothing that the pages before it did not"),
            ));
        }
        if !seam {
            return Err(unverified(format!(
                "page {number} does not begin where the one before it ended: the list changed while it was read"
            )));
        }
        if fresh < count {
            return Err(unverified(format!(
                "page {number} holds a contact that was there before"
            )));
        }
    }
    let found = seen.len() as u64;
    if found != total {
        return Err(unverified(format!(
            "upstream says {total} contacts and sent {found}"
        )));
    }
    Ok(())
}

/// The ids of a page, in order and without escapes.
pub(super) fn ids(page: &Page) -> impl Iterator<Item = Cow<'_, [u8]>> {
    page.records.iter().map(|record| {
        let raw = page.id(record);
        if raw.contains(&b'\\') {
            // Decoding checked that it is a JSON string; one with a lone surrogate stays as it was written.
            let text = serde_json::from_slice::<String>(raw);
            text.map_or(Cow::Borrowed(raw), |text| {
                Cow::Owned(format!("\"{text}\"").into_bytes())
            })
        } else {
            Cow::Borrowed(raw)
        }
    })
}
