//! One page of a collection: the window that names it, and what upstream sent for it.

use std::{ops::Range, slice, sync::Arc};

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
};

pub mod contact;
pub mod decode;
pub mod envelope;
#[cfg(any(test, fuzzing))]
pub mod fuzz;

/// What upstream's default `limit` is, when none is asked for.
pub const LIMIT_DEFAULT: u32 = 10;

/// One (skip, limit) of a collection, whichever way upstream counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Records before the first one asked for; 0 to 2^53 - 1.
    pub skip: u64,
    /// Records asked for; from 1.
    pub limit: u32,
}

impl Window {
    /// The largest `skip` that a JSON number can echo exactly.
    pub const SKIP_MAX: u64 = (1 << 53) - 1;
}

/// What a page is looked up by. Nothing else decides.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PageKey {
    pub collection: Arc<Collection>,
    pub epoch: Epoch,
    pub window: Window,
}

impl Key for PageKey {
    fn collection(&self) -> &Arc<Collection> {
        &self.collection
    }

    fn epoch(&self) -> Epoch {
        self.epoch
    }
}

/// The numbers of an envelope, as echoed or computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    pub skip: u64,
    pub limit: u64,
    pub has_more: bool,
    pub total_pages: u64,
    pub total: u64,
}

/// A page as upstream sent it, checked.
#[derive(Clone, Debug)]
pub struct Page {
    /// Upstream's bytes, or a slice's.
    pub body: Bytes,
    pub etag: ETag,
    /// The echoed `limit`: what upstream applied, at most what was asked.
    pub limit: u32,
    /// `totalResults`, where upstream says it.
    pub total: Option<u64>,
    pub has_more: Option<bool>,
    /// Where each record lies in the body, in upstream's order.
    pub records: Box<[Record]>,
    /// How many records say that they are another account's or stream's.
    pub foreign: usize,
    /// Upstream says that it must not be kept (`Cache-Control: no-store`).
    pub no_store: bool,
    /// When upstream was asked.
    pub read_at: Instant,
}

/// Where a record lies in its page's body, and its id in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub at: Range<u32>,
    /// The id's JSON string with its quotes.
    pub id: Range<u32>,
}

impl Page {
    /// A record's bytes, as upstream sent them.
    pub fn record(&self, record: &Record) -> &[u8] {
        &self.body[span(&record.at)]
    }

    /// A record's id as it stands in the body, escapes and all.
    pub fn id(&self, record: &Record) -> &[u8] {
        &self.body[span(&record.id)]
    }
}

/// A range of a body as an index.
pub fn span(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}

impl Cached for Page {
    fn weight(&self) -> usize {
        // A body that is read has no room to spare: `Bytes` would not tell.
        shared(self.body.len()) + block(size_of_val(&*self.records)) + ETag::WEIGHT
    }

    fn read_at(&self) -> Instant {
        self.read_at
    }

    fn foreign(&self) -> usize {
        self.foreign
    }

    fn no_store(&self) -> bool {
        self.no_store
    }
}

impl Content for Page {
    fn pieces(&self) -> &[Bytes] {
        slice::from_ref(&self.body)
    }

    fn etag(&self) -> &ETag {
        &self.etag
    }
}
