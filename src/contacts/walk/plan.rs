//! Which windows a walk asks for, and what it makes of the answers: a pure state machine, without I/O.
//!
//! The first page tells the total and the largest `limit` that upstream honours. Where upstream counts in records,
//! each further page then begins with the record that ended the one before it. If the two are not the same, the list
//! moved in between, and something may be missing or twice. When all pages are there, the first is asked for again.

use std::{borrow::Cow, ops::Range};

use tokio::time::Instant;

use super::verdict;
use crate::{
    contacts::{
        list::{List, Verdict, Walked},
        page::{Page, Window, envelope::Envelope},
    },
    error::{Error, Kind, Result},
};

/// What a walk keeps to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The `limit` of the first page; upstream may clamp it.
    pub limit: u32,
    /// Upstream counts in pages, so that windows cannot overlap.
    pub pages: bool,
    /// The longest list, in records.
    pub records_max: u64,
    /// The largest list, in bytes of its pages.
    pub bytes_max: u64,
}

/// One page to ask for, and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    pub window: Window,
    role: Role,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The list's part with this number.
    Part(usize),
    /// Behind the end, which upstream says is not the end.
    Beyond,
    /// The first page once more.
    Again,
}

/// A walk under way.
#[derive(Debug)]
pub struct Plan {
    bounds: Bounds,
    started: Instant,
    /// Learned from the first page.
    shape: Option<Shape>,
    parts: Vec<Option<Page>>,
    /// What is to be asked for next.
    next: Range<usize>,
    closing: Vec<Ask>,
    closed: bool,
    /// There were records behind the end.
    more_than_said: bool,
    missing: usize,
    bytes: u64,
    calls: usize,
    foreign: usize,
    no_store: bool,
}

/// How the collection lies in pages.
#[derive(Clone, Copy, Debug)]
struct Shape {
    total: u64,
    limit: u32,
    /// Records that each page shares with the one before: 1 or 0.
    overlap: u32,
}

impl Plan {
    pub fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            bounds,
            started: now,
            shape: None,
            parts: vec![None],
            next: 0..1,
            closing: Vec::new(),
            closed: false,
            more_than_said: false,
            missing: 1,
            bytes: 0,
            calls: 0,
            foreign: 0,
            no_store: false,
        }
    }

    /// The next page to ask for; `None` while answers are outstanding, or when there are no more.
    pub fn next_ask(&mut self) -> Option<Ask> {
        let ask = match self.next.next() {
            Some(number) => Some(Ask {
                window: self.window(number),
                role: Role::Part(number),
            }),
            None => self.closing.pop(),
        };
        self.calls += usize::from(ask.is_some());
        ask
    }

    /// Starts anew with a smaller first page, because upstream refused the one asked for.
    pub fn ask_for_less(&mut self, limit: u32) {
        self.bounds.limit = limit;
        self.next = 0..1;
    }

    /// Whether nothing is known yet.
    pub fn at_first(&self) -> bool {
        self.shape.is_none()
    }

    /// Takes the answer to one ask.
    ///
    /// # Errors
    /// Whatever makes the list not worth finishing.
    pub fn take(&mut self, ask: Ask, page: Page) -> Result<()> {
        self.foreign += page.foreign;
        self.no_store |= page.no_store;
        let total = page
            .total
            .ok_or_else(|| unverified("upstream does not say how many contacts there are"))?;
        match self.shape {
            None => self.learn(&page, total)?,
            Some(shape) if shape.total != total => {
                return Err(unverified(
                    "the number of contacts changed while the list was read",
                ));
            }
            Some(_) => {}
        }
        match ask.role {
            Role::Part(number) => {
                self.bytes += page.body.len() as u64;
                if self.bytes > self.bounds.bytes_max {
                    let most = self.bounds.bytes_max;
                    return Err(too_large(format!("the list is larger than {most} bytes")));
                }
                self.parts[number] = Some(page);
                self.missing -= 1;
                if self.missing == 0 && !self.closed {
                    self.close();
                }
            }
            // Judged after the parts: that they repeat each other says more.
            Role::Beyond => self.more_than_said = !page.records.is_empty(),
            Role::Again => {
                let first = self.parts.first().and_then(Option::as_ref);
                if !first.is_some_and(|first| verdict::ids(first).eq(verdict::ids(&page))) {
                    return Err(unverified("the first page changed while the list was read"));
                }
            }
        }
        Ok(())
    }

    /// What the first page tells about all others.
    fn learn(&mut self, first: &Page, total: u64) -> Result<()> {
        let limit = first.limit;
        // A page of one record cannot overlap and still make progress.
        let overlap = u32::from(!self.bounds.pages && limit > 1);
        let further = total
            .saturating_sub(u64::from(limit))
            .div_ceil(u64::from(limit - overlap));
        if total > self.bounds.records_max {
            let (most, pages) = (self.bounds.records_max, further + 1);
            return Err(too_large(format!(
                "the list has {total} contacts on {pages} pages, more than the {most} that are kept"
            )));
        }
        if (first.records.len() as u64) < total.min(u64::from(limit)) {
            return Err(unverified(
                "the first page has fewer contacts than upstream says",
            ));
        }
        self.shape = Some(Shape {
            total,
            limit,
            overlap,
        });
        // At most `records_max` pages of one record each.
        let count = further as usize + 1;
        self.parts.resize(count, None);
        self.next = 1..count;
        self.missing = count;
        Ok(())
    }

    /// All parts are there: what is left to ask before the list can be believed.
    fn close(&mut self) {
        self.closed = true;
        let last = self.parts.last().and_then(Option::as_ref);
        if last.is_some_and(|page| page.has_more == Some(true)) {
            self.closing.push(Ask {
                window: self.window(self.parts.len()),
                role: Role::Beyond,
            });
        }
        let overlap = self.shape.map_or(0, |shape| shape.overlap);
        if self.parts.len() > 1 && overlap > 0 {
            self.closing.push(Ask {
                window: self.window(0),
                role: Role::Again,
            });
        }
    }

    fn window(&self, number: usize) -> Window {
        match self.shape {
            None => Window {
                skip: 0,
                limit: self.bounds.limit,
            },
            Some(shape) => {
                let skip = number as u64 * u64::from(shape.limit - shape.overlap);
                let beyond = number == self.parts.len();
                Window {
                    // Behind the end nothing overlaps; upstream that counts in pages needs a whole number of them.
                    skip: if beyond && !self.bounds.pages {
                        shape.total
                    } else {
                        skip
                    },
                    limit: shape.limit,
                }
            }
        }
    }

    /// The verdict, and the list if it is a good one. Takes time in proportion to the list's bytes.
    ///
    /// # Errors
    /// [`Kind::MergeUnverified`] and [`Kind::PaginationInconsistent`] for pages that do not make one list.
    pub fn finish(self, now: Instant) -> Result<List> {
        let pages: Vec<Page> = self.parts.into_iter().flatten().collect();
        let (Some(shape), Some(first)) = (self.shape, pages.first()) else {
            return Err(Error::new(
                Kind::Internal,
                "the walk ended before its first page",
            ));
        };
        verdict::check(&pages, shape.overlap, shape.total)?;
        if self.more_than_said {
            return Err(unverified("upstream has more contacts than it says"));
        }
        let text = std::str::from_utf8(&first.body).unwrap_or_default();
        let template = Envelope::read(text)
            .map_err(|_| {
                Error::new(
                    Kind::Internal,
                    "the first page's envelope cannot be read again",
                )
            })?
            .template();
        let walked = Walked {
            pages: pages.len(),
            calls: self.calls,
            oldest: pages.iter().map(|page| page.read_at).min().unwrap_or(now),
            took: now.saturating_duration_since(self.started),
            foreign: self.foreign,
            no_store: self.no_store,
        };
        // One page is read at one moment, so it has no seams and needs none.
        let verdict = if shape.overlap > 0 || (pages.len() == 1 && !self.bounds.pages) {
            Verdict::Verified
        } else {
            Verdict::Consistent
        };
        let own = |(number, page): (usize, Page)| {
            let shared = if number == 0 {
                0
            } else {
                shape.overlap as usize
            };
            (page.body, page.records.into_vec().split_off(shared))
        };
        let parts = pages.into_iter().enumerate().map(own).collect();
        Ok(List::splice(parts, template, verdict, walked))
    }
}

pub(super) fn unverified(detail: impl Into<Cow<'static, str>>) -> Error {
    Error::new(Kind::MergeUnverified, detail)
}

fn too_large(detail: String) -> Error {
    Error::new(Kind::MergeTooLarge, detail)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::contacts::testing;

    fn bounds(limit: u32) -> Bounds {
        Bounds {
            limit,
            pages: false,
            records_max: 10_000,
            bytes_max: 1 << 20,
        }
    }

    /// Walks through whatever `upstream` answers, page by page.
    fn walk(bounds: Bounds, mut upstream: impl FnMut(Window) -> String) -> Result<List> {
        let now = Instant::now();
        let mut plan = Plan::new(bounds, now);
        while let Some(ask) = plan.next_ask() {
            assert!(plan.calls < 1000, "the walk does not end");
            let body = upstream(ask.window).into();
            plan.take(
                ask,
                Page::decode(body, testing::asked(ask.window, bounds.pages), now)?,
            )?;
        }
        plan.finish(now)
    }

    fn kind(bounds: Bounds, upstream: impl FnMut(Window) -> String) -> Kind {
        walk(bounds, upstream).unwrap_err().kind()
    }

    fn body(window: Window, total: u64) -> String {
        testing::body(window.skip, window.limit, total)
    }

    /// A page of a collection that is given by its ids.
    fn page_of(ids: &[u64], window: Window, total: u64) -> String {
        let ids = ids
            .iter()
            .skip(window.skip as usize)
            .take(window.limit as usize);
        let records: Vec<_> = ids.map(|id| testing::record(*id)).collect();
        let (skip, limit, results) = (window.skip, window.limit, records.join(","));
        format!(r#"{{"results":[{results}],"skip":{skip},"limit":{limit},"totalResults":{total}}}"#)
    }

    #[test]
    fn calls_stay_within_two_of_the_least() {
        let mut asked = Vec::new();
        let list = walk(bounds(100), |window| {
            asked.push(window.skip);
            body(window, 1000)
        })
        .unwrap();
        assert_eq!(
            asked,
            [0, 99, 198, 297, 396, 495, 594, 693, 792, 891, 990, 0]
        );
        assert_eq!(
            (list.len(), list.walked.pages, list.walked.calls),
            (1000, 11, 12)
        );
        assert_eq!(list.verdict, Verdict::Verified);
    }

    #[test]
    fn one_page_is_one_call() {
        for total in [0, 1, 99, 100] {
            let list = walk(bounds(100), |window| body(window, total)).unwrap();
            assert_eq!((list.len() as u64, list.walked.calls), (total, 1));
            assert_eq!(list.verdict, Verdict::Verified);
        }
    }

    #[test]
    fn a_clamp_is_believed() {
        let list = walk(bounds(100), |window| {
            let limit = window.limit.min(7);
            body(Window { limit, ..window }, 50)
        });
        assert_eq!(list.unwrap().len(), 50);
    }

    #[test]
    fn where_upstream_counts_in_pages_nothing_overlaps() {
        let mut asked = Vec::new();
        let bounds = Bounds {
            pages: true,
            ..bounds(10)
        };
        let list = walk(bounds, |window| {
            asked.push(window.skip);
            body(window, 25)
        })
        .unwrap();
        assert_eq!(asked, [0, 10, 20]);
        assert_eq!((list.len(), list.verdict), (25, Verdict::Consistent));
    }

    #[test]
    fn one_record_a_page_cannot_overlap() {
        let list = walk(bounds(1), |window| body(window, 5)).unwrap();
        assert_eq!((list.len(), list.verdict), (5, Verdict::Consistent));
    }

    #[test]
    fn a_total_that_is_not_the_count_is_not_a_list() {
        let lie = |window: Window| {
            testing::body(window.skip, window.limit, 2)
                .replace(r#""totalResults":2"#, r#""totalResults":6"#)
        };
        assert_eq!(kind(bounds(10), lie), Kind::MergeUnverified);
        let missing = |window: Window| body(window, 2).replace("totalResults", "total");
        assert_eq!(kind(bounds(10), missing), Kind::MergeUnverified);
        let fewer_than_there_are = |window: Window| {
            testing::body(window.skip, window.limit, 30)
                .replace(r#""totalResults":30"#, r#""totalResults":10"#)
        };
        assert_eq!(
            kind(bounds(10), fewer_than_there_are),
            Kind::MergeUnverified
        );
    }

    #[test]
    fn more_at_the_true_end_costs_one_call() {
        let lie = |window| body(window, 25).replace(r#""hasMore":false"#, r#""hasMore":true"#);
        let list = walk(bounds(10), lie).unwrap();
        assert_eq!((list.len(), list.walked.calls), (25, 3 + 1 + 1));
        // Also where upstream counts in pages.
        let list = walk(
            Bounds {
                pages: true,
                ..bounds(10)
            },
            lie,
        )
        .unwrap();
        assert_eq!(list.len(), 25);
    }

    #[test]
    fn a_total_that_changes_is_not_a_list() {
        let mut total = 100;
        let shrinking = |window| {
            total -= 1;
            body(window, total)
        };
        assert_eq!(kind(bounds(10), shrinking), Kind::MergeUnverified);
    }

    #[test]
    fn a_record_that_slips_between_two_pages_is_noticed() {
        // One is deleted before the second page and one appended, so that no count shows it.
        let mut ids: Vec<u64> = (0..20).collect();
        let mut calls = 0;
        let slipping = |window| {
            calls += 1;
            if calls == 2 {
                ids.remove(3);
                ids.push(99);
            }
            page_of(&ids, window, 20)
        };
        assert_eq!(kind(bounds(10), slipping), Kind::MergeUnverified);
    }

    #[test]
    fn a_first_page_that_changes_behind_the_walk_is_noticed() {
        let mut ids: Vec<u64> = (0..19).collect();
        let mut calls = 0;
        let changing = |window| {
            calls += 1;
            if calls == 3 {
                ids[0] = 99;
            }
            page_of(&ids, window, 19)
        };
        assert_eq!(kind(bounds(10), changing), Kind::MergeUnverified);
    }

    #[test]
    fn a_contact_that_is_there_twice_is_noticed() {
        let ids: Vec<u64> = (0..15).chain([3]).chain(16..20).collect();
        assert_eq!(
            kind(bounds(10), |window| page_of(&ids, window, 20)),
            Kind::MergeUnverified
        );
    }

    #[test]
    fn pages_without_progress_end_the_walk() {
        // Upstream ignores where to begin but echoes it.
        let stuck = |window: Window| {
            let first = body(Window { skip: 0, ..window }, 50);
            first.replace(r#""skip":0"#, &format!(r#""skip":{}"#, window.skip))
        };
        let pages = Bounds {
            pages: true,
            ..bounds(10)
        };
        assert_eq!(kind(pages, stuck), Kind::PaginationInconsistent);
        assert_eq!(kind(bounds(10), stuck), Kind::PaginationInconsistent);
    }

    #[test]
    fn caps() {
        let records = Bounds {
            records_max: 49,
            ..bounds(10)
        };
        let error = walk(records, |window| body(window, 50)).unwrap_err();
        assert_eq!(error.kind(), Kind::MergeTooLarge);
        assert!(error.detail().contains("6 pages"), "{error}");
        let bytes = Bounds {
            bytes_max: 1000,
            ..bounds(10)
        };
        assert_eq!(kind(bytes, |window| body(window, 50)), Kind::MergeTooLarge);
        let endless = |window: Window| testing::body(window.skip, window.limit, u64::MAX);
        assert_eq!(kind(bounds(10), endless), Kind::MergeTooLarge);
    }

    #[test]
    fn ids_are_compared_without_their_escapes() {
        let twice =
            r#"{"results":[{"id":"a"},{"id":"\u0061"}],"skip":0,"limit":10,"totalResults":2}"#;
        assert_eq!(
            kind(bounds(10), |_| twice.to_owned()),
            Kind::MergeUnverified
        );
    }

    proptest! {
        /// A list that does not change is always read whole, whatever its size and upstream's clamp.
        #[test]
        fn what_stands_still_is_read_whole(total in 0_u64..300, limit in 1_u32..40, clamp in 1_u32..40, pages: bool) {
            let bounds = Bounds { pages, ..bounds(limit) };
            let list = walk(bounds, |window| {
                let limit = window.limit.min(clamp);
                let skip = if pages { window.skip / u64::from(window.limit) * u64::from(limit) } else { window.skip };
                body(Window { skip, limit }, total)
            })
            .unwrap();
            let expected = testing::body(0, total.max(1) as u32, total);
            let expected = serde_json::from_str::<serde_json::Value>(&expected).unwrap();
            let document: serde_json::Value = serde_json::from_slice(&list.document().concat()).unwrap();
            prop_assert_eq!(&document["results"], &expected["results"]);
        }

        /// Inserts and deletes at random moments: a verified list never lacks what was there throughout.
        #[test]
        fn what_moves_is_never_silently_short(
            total in 2_u64..60,
            limit in 2_u32..12,
            changes in proptest::collection::vec((0_usize..12, any::<bool>(), 0_usize..60), 0..4),
        ) {
            let mut ids: Vec<u64> = (0..total).collect();
            let mut stayed: HashSet<u64> = ids.iter().copied().collect();
            let (mut calls, mut fresh) = (0, 1000);
            let result = walk(bounds(limit), |window| {
                for (_, insert, at) in changes.iter().filter(|change| change.0 == calls) {
                    let at = at % ids.len().max(1);
                    if *insert {
                        ids.insert(at.min(ids.len()), fresh);
                        fresh += 1;
                    } else if !ids.is_empty() {
                        stayed.remove(&ids.remove(at));
                    }
                }
                calls += 1;
                page_of(&ids, window, ids.len() as u64)
            });
            if let Ok(list) = result {
                let document = String::from_utf8(list.document().concat()).unwrap();
                for id in stayed {
                    let found = document.matches(&format!("\"{id:024x}\"")).count();
                    prop_assert_eq!(found, 1, "{} is there {} times", id, found);
                }
            }
        }
    }
}
