//! A whole collection, merged: every record as upstream sent it, in upstream's order, each once.
//!
//! A list keeps the bodies of the pages it was read from. The document that callers get is those bodies' own records
//! between a rewritten envelope, and a window is a slice of the same bytes: nothing is parsed or copied together.

use std::{
    ops::Range,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    cache::{
        Key,
        encoding::Content,
        entry::{Cached, block, shared},
    },
    collection::Collection,
    etag::ETag,
    ids::Epoch,
    lines::{self, Ending, Run},
    page::{Numbers, Page, Record, Window, envelope::Template, span},
    patience,
    request::Terms,
    verdict::{Handling, Verdict},
};
use crate::error::{Error, Result};

/// What a list is looked up by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListKey {
    pub collection: Arc<Collection>,
    pub epoch: Epoch,
}

impl Key for ListKey {
    fn collection(&self) -> &Arc<Collection> {
        &self.collection
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }

    fn outlasted(&self, terms: &Terms) -> impl Future<Output = Error> + Send {
        patience::outlasted(self, terms)
    }

    fn overdue(&self) -> Option<Error> {
        patience::overdue(self)
    }
}

/// A merged collection.
#[derive(Debug)]
pub struct List {
    /// The bodies of the pages, in order.
    pages: Box<[Bytes]>,
    /// Where each record lies: the page it is in, and its range there.
    records: Box<[Place]>,
    template: Template,
    /// The document, in pieces that are written one after another.
    document: Box<[Bytes]>,
    /// How long it is as lines, once somebody has wanted to know.
    lines_length: OnceLock<u64>,
    pub etag: ETag,
    pub verdict: Verdict,
    pub walked: Walked,
}

#[derive(Clone, Debug)]
struct Place {
    page: u32,
    at: Range<u32>,
}

/// How a list was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    pub pages: usize,
    /// Upstream calls, the checking ones included.
    pub calls: usize,
    /// When the oldest page was asked for.
    pub oldest: Instant,
    /// From the first call to the last answer.
    pub took: Duration,
    /// What upstream says less what it sent, in records.
    pub gap: i64,
    /// How many records, those read twice included, say that they are another account's or stream's.
    pub foreign: usize,
    /// Upstream says of one of its pages that it must not be kept.
    pub no_store: bool,
}

impl List {
    /// Splices pages together. `parts` are each page's body and those of its records that belong to the list.
    pub fn splice(
        parts: Vec<(Bytes, Vec<Record>)>,
        template: Template,
        verdict: Verdict,
        walked: Walked,
    ) -> Self {
        let mut pages = Vec::with_capacity(parts.len());
        let mut places = Vec::new();
        let mut runs: Vec<Bytes> = Vec::with_capacity(2 * parts.len() + 1);
        for (body, records) in parts {
            let page = pages.len() as u32;
            if let (Some(first), Some(last)) = (records.first(), records.last()) {
                if !runs.is_empty() {
                    runs.push(Bytes::from_static(b","));
                }
                // One run, upstream's own separators included.
                runs.push(body.slice(span(&(first.at.start..last.at.end))));
            }
            places.extend(records.into_iter().map(|record| Place {
                page,
                at: record.at,
            }));
            pages.push(body);
        }
        let count = places.len() as u64;
        let numbers = Numbers {
            skip: 0,
            limit: count,
            has_more: false,
            total_pages: 1,
            total: count,
        };
        let (mut envelope, mut records_at) = (Vec::new(), 0);
        template.write(&numbers, &mut envelope, |out| records_at = out.len());
        let mut before = Bytes::from(envelope);
        let after = before.split_off(records_at);
        let document: Box<[Bytes]> = [before].into_iter().chain(runs).chain([after]).collect();
        Self {
            etag: ETag::of(document.iter().map(|piece| &piece[..])),
            pages: pages.into(),
            records: places.into(),
            template,
            document,
            lines_length: OnceLock::new(),
            verdict,
            walked,
        }
    }

    /// How many contacts it holds.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The document in its pieces.
    pub fn document(&self) -> &[Bytes] {
        &self.document
    }

    /// The document's length in bytes.
    pub fn document_length(&self) -> u64 {
        self.document.iter().map(|piece| piece.len() as u64).sum()
    }

    /// A record's bytes, as upstream sent them.
    pub fn record(&self, place: usize) -> Option<&[u8]> {
        let Place { page, at } = self.records.get(place)?;
        Some(&self.pages[*page as usize][span(at)])
    }

    /// Its records page by page.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        let pages = self.records.chunk_by(|one, next| one.page == next.page);
        pages.map(|places| Run {
            body: self.pages[places[0].page as usize].clone(),
            at: places.iter().map(|place| place.at.clone()).collect(),
        })
    }

    /// The length of its records as lines, in bytes. To find out, all of them are looked at once.
    pub fn lines_length(&self) -> u64 {
        *self.lines_length.get_or_init(|| {
            let records = (0..self.len()).filter_map(|place| self.record(place));
            records.map(|record| lines::length(record) as u64).sum()
        })
    }

    /// What is said at the end of its lines. `whole_at` is when it became whole.
    pub fn ending(&self, whole_at: Instant) -> Ending {
        Ending {
            verdict: self.verdict,
            pages: self.walked.pages,
            records: self.len() as u64,
            calls: self.walked.calls,
            gap: self.walked.gap,
            oldest: whole_at.saturating_duration_since(self.walked.oldest),
        }
    }

    /// The page that upstream would answer for a window, made of the list's own records.
    pub fn slice(&self, window: Window) -> Page {
        let total = self.len() as u64;
        let first = window.skip.min(total);
        let last = window
            .skip
            .saturating_add(u64::from(window.limit))
            .min(total);
        // Both are at most the number of records, which fits memory.
        let places = &self.records[first as usize..last as usize];
        let numbers = Numbers {
            skip: window.skip,
            limit: u64::from(window.limit),
            has_more: last < total,
            total_pages: total.div_ceil(u64::from(window.limit)),
            total,
        };
        let length: usize = places.iter().map(|place| place.at.len() + 1).sum();
        let mut body = Vec::with_capacity(length + 256);
        self.template.write(&numbers, &mut body, |out| {
            for (number, place) in places.iter().enumerate() {
                if number > 0 {
                    out.push(b',');
                }
                out.extend_from_slice(&self.pages[place.page as usize][span(&place.at)]);
            }
        });
        Page {
            etag: ETag::of([&body[..]]),
            body: body.into(),
            limit: window.limit,
            total: Some(total),
            has_more: Some(numbers.has_more),
            records: Box::default(),
            foreign: 0,
            no_store: false,
            read_at: self.walked.oldest,
        }
    }
}

impl Cached for List {
    /// Walks side by side would take each other's calls.
    const IS_DEAR: bool = true;

    fn weight(&self) -> usize {
        let ends = [self.document.first(), self.document.last()];
        let bodies = self.pages.iter().chain(ends.into_iter().flatten());
        bodies.map(|body| shared(body.len())).sum::<usize>()
            + block(size_of_val(&*self.pages))
            + block(size_of_val(&*self.records))
            + block(size_of_val(&*self.document))
            + self.template.weight()
            + ETag::WEIGHT
    }

    fn read_at(&self) -> Instant {
        self.walked.oldest
    }

    fn foreign(&self) -> usize {
        self.walked.foreign
    }

    fn no_store(&self) -> bool {
        self.walked.no_store
    }

    fn fresh_at_least(&self) -> Duration {
        4 * self.walked.took
    }

    fn good_for(&self, handling: Handling) -> Result<()> {
        handling.accept(self.verdict)
    }
}

impl Content for List {
    fn pieces(&self) -> &[Bytes] {
        self.document()
    }

    fn etag(&self) -> &ETag {
        &self.etag
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::contacts::testing;

    use super::*;

    fn document(list: &List) -> Vec<u8> {
        list.document().concat()
    }

    #[test]
    fn the_documented_sample_is_spliced_byte_for_byte() {
        // Its own total contradicts its two records, so the test sets the total to what is there.
        let body = include_str!("../../tests/fixtures/get-all-contacts.json")
            .replace("\"totalResults\": 6", "\"totalResults\": 2");
        let page = testing::decode(&body, 0, 10);
        let list = testing::splice(vec![page.clone()], Instant::now());
        let document = String::from_utf8(document(&list)).unwrap();
        for record in &page.records {
            let bytes = std::str::from_utf8(page.record(record)).unwrap();
            assert!(document.contains(bytes));
        }
        let run = &body[page.records[0].at.start as usize..page.records[1].at.end as usize];
        assert_eq!(
            document,
            format!(
                r#"{{"results":[{run}],"skip":0,"limit":2,"hasMore":false,"totalPages":1,"totalResults":2}}"#
            )
        );
    }

    #[test]
    fn an_empty_list() {
        let page = testing::page(0, 10, 0, Instant::now());
        let list = testing::splice(vec![page], Instant::now());
        assert_eq!(
            document(&list),
            br#"{"results":[],"skip":0,"limit":0,"hasMore":false,"totalPages":1,"totalResults":0}"#
        );
        assert_eq!(list.slice(Window { skip: 0, limit: 10 }).total, Some(0));
    }

    #[test]
    fn empty_pages_leave_no_comma() {
        let now = Instant::now();
        let pages = [0, 3].map(|skip| testing::page(skip, 3, 3, now));
        let list = testing::splice(pages.into(), now);
        assert!(serde_json::from_slice::<serde_json::Value>(&document(&list)).is_ok());
    }

    proptest! {
        /// Every window of a list is, byte for byte, the page that upstream has for it.
        #[test]
        fn a_slice_is_upstreams_own_page(records in 0_usize..60, page in 1_u32..20, skip in 0_u64..80, limit in 1_u32..40) {
            let now = Instant::now();
            let total = records as u64;
            let skips = (0..total.max(1)).step_by(page as usize);
            let pages: Vec<_> = skips.map(|skip| testing::page(skip, page, total, now)).collect();
            let list = testing::splice(pages, now);
            prop_assert_eq!(list.len(), records);
            prop_assert_eq!(document(&list).len() as u64, list.document_length());
            let slice = list.slice(Window { skip, limit });
            prop_assert_eq!(slice.body, testing::page(skip, limit, total, now).body);
        }
    }
}
