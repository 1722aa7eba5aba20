//! What the tests of the stages share: a small upstream in memory.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    account::Account,
    cache::{
        Families, Key, Metrics,
        entry::{Cached, Entry, Lifetime},
    },
    collection::Collection,
    directives::Directives,
    ids::{AccountId, ClientId, StreamId},
    list::{List, ListKey, Walked},
    page::{Page, PageKey, Window, contact::Tenant, decode::Asked, envelope::Envelope},
    request::{Class, Coding, Fetch, Request, RequestId, Terms},
    verdict::{Checks, Handling, Verdict},
};
use crate::{
    metrics::Registry,
    service::{Calls, Forecast},
};

pub(crate) fn account(id: &str) -> Arc<Account> {
    Arc::new(Account::new(
        id,
        id,
        AccountId::parse(id).unwrap(),
        ClientId::parse(&format!("cs-{id}")).unwrap(),
        &[],
    ))
}

pub(crate) fn collection(stream: &str) -> Arc<Collection> {
    Arc::new(Collection::new(
        account("acme"),
        StreamId::parse(stream).unwrap(),
    ))
}

pub(crate) fn list_key(stream: &str) -> ListKey {
    let collection = collection(stream);
    ListKey {
        epoch: collection.epoch(),
        collection,
    }
}

pub(crate) fn page_key(stream: &str, skip: u64, limit: u32) -> PageKey {
    let ListKey { collection, epoch } = list_key(stream);
    PageKey {
        collection,
        epoch,
        window: Window { skip, limit },
    }
}

/// A request that waits thirty seconds.
pub(crate) fn request<K>(key: K) -> Request<K> {
    Request {
        key,
        terms: Terms {
            deadline: Instant::now() + Duration::from_secs(30),
            class: Class::Interactive,
            directives: Directives::default(),
            coding: Coding::Identity,
            handling: Handling::Default,
            respond_async: false,
            in_pieces: false,
            caller: None,
            id: RequestId::number(0, 0),
            trace: None,
        },
    }
}

/// The record at a place of the collection that all pages here are cut from.
pub(crate) fn record(place: u64) -> String {
    format!(r#"{{"firstName":"Zo\u00eb {place}","id":"{place:024x}"}}"#)
}

/// The body of a page of a collection of so many records.
pub(crate) fn body(skip: u64, limit: u32, total: u64) -> String {
    let last = skip.saturating_add(u64::from(limit)).min(total);
    let records: Vec<_> = (skip..last).map(record).collect();
    let (results, has_more) = (records.join(","), last < total);
    let pages = total.div_ceil(u64::from(limit));
    format!(
        r#"{{"results":[{results}],"skip":{skip},"limit":{limit},"hasMore":{has_more},"totalPages":{pages},"totalResults":{total}}}"#
    )
}

/// A window of the collection that all tests are about.
pub(crate) fn asked(window: Window, pages: bool) -> Asked<'static> {
    let tenant = Tenant {
        account: "acme",
        stream: "st-1",
    };
    Asked {
        window,
        pages,
        tenant,
    }
}

pub(crate) fn decode(body: &str, skip: u64, limit: u32) -> Page {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let asked = asked(Window { skip, limit }, false);
    Page::decode(body, asked, Instant::now()).unwrap()
}

pub(crate) fn page(skip: u64, limit: u32, total: u64, read_at: Instant) -> Page {
    Page {
        read_at,
        ..decode(&body(skip, limit, total), skip, limit)
    }
}

/// Pages that do not overlap, as one verified list.
pub(crate) fn splice(pages: Vec<Page>, oldest: Instant) -> List {
    let first = std::str::from_utf8(&pages[0].body).unwrap();
    let template = Envelope::read(first).unwrap().template();
    let walked = Walked {
        pages: pages.len(),
        calls: pages.len(),
        oldest,
        took: Duration::ZERO,
        gap: 0,
        foreign: 0,
        no_store: false,
    };
    let parts = pages
        .into_iter()
        .map(|page| (page.body, page.records.into_vec()));
    List::splice(
        parts.collect(),
        template,
        Verdict::Verified(Checks::Seam),
        walked,
    )
}

pub(crate) fn list(records: usize, oldest: Instant) -> List {
    let total = records as u64;
    splice(vec![page(0, records.max(1) as u32, total, oldest)], oldest)
}

pub(crate) fn metrics(cache: &str) -> Metrics {
    Families::new(&Registry::new().unwrap()).unwrap().of(cache)
}

/// The forecast for an account whose calls need not wait.
#[derive(Debug)]
pub(crate) struct Unbounded;

impl Forecast for Unbounded {
    fn ends_at(&self, _: &Collection, _: Class, calls: Calls, now: Instant) -> Instant {
        now + calls.each * calls.number.div_ceil(calls.width) as u32
    }
}

/// What a flight of one waiter fetches.
pub(crate) fn fetch<K>(key: K) -> Fetch<K> {
    Fetch::of(request(key))
}

/// Fresh for a minute and of no use after it.
pub(crate) const LIFETIME: Lifetime = Lifetime {
    fresh_for: Duration::from_secs(60),
    stale_for: Duration::ZERO,
};

/// A copy that became whole now, of whatever collection.
pub(crate) fn kept<V: Cached>(value: V, now: Instant) -> Arc<Entry<V>> {
    kept_as(&list_key("st-1"), value, now)
}

/// A copy that became whole now.
pub(crate) fn kept_as<V: Cached>(key: &impl Key, value: V, now: Instant) -> Arc<Entry<V>> {
    let copy = Entry::new(value, key, now, LIFETIME, 0.0);
    copy.keep();
    Arc::new(copy)
}
