//! Any body: what is taken for a page is what another reader reads in it, and its own bytes.
//!
//! The other reader is serde_json's `Value`. Where it takes less (numbers beyond all range, half of a surrogate pair), which
//! pass here unread, what `IgnoredAny` says of the grammar is the measure.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde_json::{Value, value::RawValue};
use tokio::time::Instant;

use super::{Numbers, Page, Window, contact::Tenant, decode::Asked, envelope::Envelope, span};
use crate::error::Kind;

const TENANT: Tenant<'_> = Tenant {
    account: "acme",
    stream: "st-1",
};

/// What stands in a body and may never be in a complaint about it.
const CANARY: &str = "CANARY";

/// Reads a body. A first line of two numbers (`skip limit`, with `pages` behind them for a window of an upstream that counts
/// in pages) says what was asked for; else it is what a caller gets who says nothing.
///
/// # Panics
/// If a property does not hold.
pub fn check(bytes: &[u8]) {
    let (asked, body) = asked(bytes);
    let grammar = serde_json::from_slice::<IgnoredAny>(body);
    let page = match Page::decode(Bytes::copy_from_slice(body), asked, Instant::now()) {
        Ok(page) => page,
        Err(error) => {
            let kinds = [Kind::UpstreamInvalidBody, Kind::UpstreamSchema];
            assert!(kinds.contains(&error.kind()));
            for told in [error.to_string(), format!("{error:?}")] {
                assert!(!told.contains(CANARY), "{told}");
            }
            return;
        }
    };
    assert!(grammar.is_ok(), "a page that is not JSON");
    assert_eq!(page.body, body);
    let mut end = 0;
    for record in &page.records {
        assert!(record.at.start >= end && record.at.end <= body.len() as u32);
        assert!(record.id.start >= record.at.start && record.id.end <= record.at.end);
        end = record.at.end;
    }
    assert!(page.records.len() <= page.limit as usize && page.limit <= asked.window.limit);
    if let Ok(document) = serde_json::from_slice::<Value>(body) {
        reads_as(&page, &document);
    }
    rewritten(&page, asked);
}

fn asked(bytes: &[u8]) -> (Asked<'static>, &[u8]) {
    let told = || {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let mut words = std::str::from_utf8(&bytes[..end]).ok()?.split(' ');
        let window = Window {
            skip: words.next()?.parse().ok()?,
            limit: words.next()?.parse().ok().filter(|limit| *limit > 0)?,
        };
        let pages = words.next() == Some("pages");
        (window.skip <= Window::SKIP_MAX).then_some((window, pages, end + 1))
    };
    let (window, pages, start) = told().unwrap_or((Window { skip: 0, limit: 10 }, false, 0));
    let asked = Asked {
        window,
        pages,
        tenant: TENANT,
    };
    (asked, &bytes[start..])
}

/// The other reader agrees.
fn reads_as(page: &Page, document: &Value) {
    assert_eq!(document["limit"].as_u64(), Some(page.limit.into()));
    assert_eq!(document["totalResults"].as_u64(), page.total);
    assert_eq!(document["hasMore"].as_bool(), page.has_more);
    let results = document["results"].as_array().expect("an array");
    assert_eq!(results.len(), page.records.len());
    let mut foreign = 0;
    for (record, result) in page.records.iter().zip(results) {
        let own: Value = serde_json::from_slice(page.record(record)).expect("a record");
        assert_eq!(own, *result);
        let id: Value = serde_json::from_slice(page.id(record)).expect("an id");
        assert!(id.is_string() && id == result["id"]);
        // Of two members of one name it sees the last one only.
        let names = |key: &str, own: &str| {
            result
                .get(key)
                .is_some_and(|name| !name.is_null() && name != own)
        };
        foreign += usize::from(
            names("accountId", TENANT.account) || names("instanceBotId", TENANT.stream),
        );
    }
    assert!(page.foreign >= foreign && page.foreign <= page.records.len());
}

/// The same records within an envelope that is written anew, as lists and slices are.
fn rewritten(page: &Page, asked: Asked<'_>) {
    let text = std::str::from_utf8(&page.body).expect("it is JSON");
    let template = Envelope::read(text).expect("it was read before").template();
    let numbers = Numbers {
        skip: asked.window.skip,
        limit: asked.window.limit.into(),
        has_more: true,
        total_pages: 7,
        total: 77,
    };
    let mut body = Vec::new();
    template.write(&numbers, &mut body, |out| {
        for (place, record) in page.records.iter().enumerate() {
            if place > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&page.body[span(&record.at)]);
        }
    });
    assert!(serde_json::from_slice::<&RawValue>(&body).is_ok());
    let again = Page::decode(
        body.into(),
        Asked {
            pages: false,
            ..asked
        },
        Instant::now(),
    );
    let again = again.expect("a page once more");
    let records = |page: &Page| -> Vec<Vec<u8>> {
        page.records
            .iter()
            .map(|record| page.record(record).to_vec())
            .collect()
    };
    assert_eq!(records(&again), records(page));
    assert_eq!(
        (again.foreign, again.limit),
        (page.foreign, asked.window.limit)
    );
}
