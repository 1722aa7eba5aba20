//! Which pages of a reading can be laid out for readers before its verdict: pure.
//!
//! A page is confirmed once the page behind it begins with the record that ended it. What it does not say is that the list
//! did not change elsewhere: that is found out later, and told then. Where pages do not overlap, or the whole list is
//! read twice in any case, nothing is confirmed before the verdict.

use super::{
    judge,
    parts::{Part, Shape, seam_holds},
};
use crate::contacts::{etag::ETag, lines::Run, page::Page, trail::Laid};

/// Makes what is laid out agree with what was read. `reached` is how far any reader has come. Whether anything changed for
/// readers.
pub(super) fn lay_out(laid: &mut Laid, reached: usize, parts: &[Part], shape: Shape) -> bool {
    let (before, mut is_known) = (laid.len(), true);
    let mut place = 0;
    while let Some((run, ids)) = laid.get(place) {
        match parts.get(place).map(|part| part.page.as_ref()) {
            Some(Some(page)) if page.body.as_ptr() == run.body.as_ptr() => {}
            Some(Some(page)) if *ids == ids_of(page) => laid.renew(place, own(page, place, shape)),
            // It is being read again. Until it has come, only those who have it need to know it.
            Some(None) if place < reached => is_known = false,
            _ => laid.cut(place),
        }
        place += 1;
    }
    let cut = laid.len() < before;
    if !is_known || shape.overlap == 0 {
        return cut;
    }
    let kept = laid.len();
    while let Some([part, next]) = parts.get(laid.len()..laid.len() + 2)
        && let Some(page) = &part.page
        && seam_holds(part, next)
    {
        let run = own(page, laid.len(), shape);
        if run.at.is_empty() {
            break;
        }
        laid.push(run, ids_of(page));
    }
    cut || laid.len() > kept
}

/// A page's own records: all but those that the page before it has too.
pub(super) fn own(page: &Page, place: usize, shape: Shape) -> Run {
    let shared = if place == 0 {
        0
    } else {
        shape.overlap as usize
    };
    let records = page.records.get(shared..).unwrap_or_default();
    Run {
        body: page.body.clone(),
        at: records.iter().map(|record| record.at.clone()).collect(),
    }
}

fn ids_of(page: &Page) -> ETag {
    let ids: Vec<_> = judge::ids(page).collect();
    ETag::of(ids.iter().map(|id| &**id))
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::contacts::testing;

    /// Catches a page that readers have before the one behind it has come, or although that begins elsewhere.
    #[test]
    fn a_page_is_laid_out_once_its_right_seam_matched() {
        let shape = Shape::new(10, false);
        let part = |skip, read: Option<u64>| Part {
            page: read.map(|skip| testing::page(skip, 10, 100, Instant::now())),
            ..Part::at(skip)
        };
        for (behind, expected) in [(None, 0), (Some(10), 0), (Some(9), 1)] {
            let parts = [part(0, Some(0)), part(9, behind), part(18, None)];
            let mut laid = Laid::default();
            let changed = lay_out(&mut laid, 0, &parts, shape);
            assert_eq!(
                (laid.len(), changed),
                (expected, expected > 0),
                "{behind:?}"
            );
        }
    }
}
