//! What an answer from the cache says of itself: where it came from, how old it is, and what of it the caller may have.

use std::{
    io::{Cursor, Write},
    sync::LazyLock,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{AGE, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG, VARY},
};

use super::{REQUEST_ID, conditions::Conditions};
use crate::{
    contacts::{
        cache::encoding::{Content, Encoded},
        etag::ETag,
        follow::Running,
        list::List,
        request::{Coding, RequestId},
        spent::Timing,
        verdict::Verdict,
    },
    edge::lines,
    served::{Answer, Served},
};

pub(super) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const MERGE_STATUS: HeaderName = HeaderName::from_static("merge-status");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const PRIVATE: HeaderValue = HeaderValue::from_static("private, no-cache");
const VARY_BY: HeaderValue = HeaderValue::from_static("Accept, Accept-Encoding, Prefer");

/// What every answer from the cache has, with nothing yet where one differs from another. A map hashes each name that is put
/// into it; in a clone of this one they all have their places.
static EVERY: LazyLock<HeaderMap> = LazyLock::new(|| {
    let differs = HeaderValue::from_static("");
    let all = [
        (CONTENT_TYPE, JSON),
        (CONTENT_LENGTH, differs.clone()),
        (ETAG, differs.clone()),
        (AGE, differs.clone()),
        (CACHE_CONTROL, PRIVATE),
        (CACHE_STATUS, differs.clone()),
        (VARY, VARY_BY),
        (REQUEST_ID, differs),
    ];
    all.into_iter().collect()
});

/// The headers of an answer from the cache.
pub(super) fn describe<V: Content>(
    answer: &Answer<V>,
    encoded: Option<&Encoded>,
    conditions: &Conditions,
    id: &RequestId,
) -> HeaderMap {
    let (mut etag, length) = match encoded {
        Some(encoded) => (encoded.etag.clone(), encoded.body.len() as u64),
        None => (answer.copy.etag().clone(), answer.copy.length()),
    };
    let mut coding = encoded.map_or(Coding::Identity, |_| Coding::Gzip);
    // Whoever has it compressed is told that it still holds, also where it would not be compressed now: a list that was
    // read again has no encoding yet, a slice never.
    if answer.coding == Coding::Gzip && coding == Coding::Identity && !conditions.are_none() {
        let gzipped = etag.gzipped();
        if conditions.name(gzipped.as_bytes()) {
            (etag, coding) = (gzipped, Coding::Gzip);
        }
    }
    let mut headers = EVERY.clone();
    for (name, value) in &mut headers {
        if *name == CONTENT_LENGTH {
            *value = number(length);
        } else if *name == ETAG {
            *value = shared(etag.as_bytes().clone());
        } else if *name == AGE {
            *value = number(answer.age.as_secs());
        } else if *name == CACHE_STATUS {
            *value = cache_status(answer);
        } else if *name == REQUEST_ID {
            *value = shared(id.to_bytes());
        }
    }
    if coding == Coding::Gzip {
        headers.insert(CONTENT_ENCODING, GZIP);
    }
    if let Served::Fetched(_) | Served::Joined(_) = answer.served {
        headers.insert(SERVER_TIMING, server_timing(answer.copy.timing));
    }
    headers
}

/// RFC 9211, as far as one cache can tell.
fn cache_status<V>(answer: &Answer<V>) -> HeaderValue {
    let ttl = answer.ttl;
    match answer.served {
        Served::Hit => hit(ttl),
        Served::Slice => text(format_args!(
            "contacts-gateway; hit; ttl={ttl}; detail=slice"
        )),
        Served::Floor => text(format_args!(
            "contacts-gateway; hit; ttl={ttl}; detail=refresh_floor"
        )),
        Served::Stale(None) => hit(ttl),
        Served::Stale(Some(failure)) => {
            let code = failure.code();
            text(format_args!(
                "contacts-gateway; hit; ttl={ttl}; detail={code}"
            ))
        }
        Served::Fetched(forward) => {
            let why = forward.word();
            let stored = if answer.copy.is_kept() {
                "; stored"
            } else {
                ""
            };
            text(format_args!(
                "contacts-gateway; fwd={why}; fwd-status=200{stored}"
            ))
        }
        Served::Joined(forward) => text(format_args!(
            "contacts-gateway; fwd={}; collapsed",
            forward.word()
        )),
    }
}

/// What the flight that fetched it spent its time on, in milliseconds (W3C Server Timing).
fn server_timing(timing: Timing) -> HeaderValue {
    let told: Vec<_> = timing
        .phases()
        .map(|(phase, tenths)| format!("{};dur={}.{}", phase.word(), tenths / 10, tenths % 10))
        .collect();
    text(format_args!("{}", told.join(", ")))
}

/// Those of a copy's lines. Their ETag is of the last line too, which tells how the list was read.
pub(super) fn describe_lines(
    answer: &Answer<List>,
    conditions: &Conditions,
    id: &RequestId,
) -> HeaderMap {
    let mut headers = describe(answer, None, conditions, id);
    describe_list(&mut headers, answer);
    let (list, end) = (&answer.copy, lines::last_line(&answer.copy));
    let length = list.lines_length() + end.len() as u64;
    headers.insert(CONTENT_TYPE, NDJSON);
    headers.insert(CONTENT_LENGTH, number(length));
    let etag = ETag::of([&list.etag.as_bytes()[..], &end[..]]);
    headers.insert(ETAG, shared(etag.as_bytes().clone()));
    headers
}

/// Those of lines that are sent as they come: of what is not whole yet, neither length nor verdict is known.
pub(super) fn describe_running(headers: &mut HeaderMap, running: &Running) {
    let (forward, how) = match running.joined {
        true => (running.forward, "collapsed"),
        // Whether it will be stored, its verdict decides.
        false => (running.forward, "fwd-status=200"),
    };
    let why = forward.word();
    let status = text(format_args!("contacts-gateway; fwd={why}; {how}"));
    headers.insert(CONTENT_TYPE, NDJSON);
    headers.insert(AGE, HeaderValue::from(running.age.as_secs()));
    headers.insert(CACHE_CONTROL, PRIVATE);
    headers.insert(CACHE_STATUS, status);
    headers.insert(VARY, VARY_BY);
}

/// How a list was read.
pub(super) fn describe_list(headers: &mut HeaderMap, answer: &Answer<List>) {
    headers.insert(MERGE_STATUS, merge_status(answer));
}

fn merge_status(answer: &Answer<List>) -> HeaderValue {
    let list = &answer.copy;
    let checks = match list.verdict.checks() {
        Some(checks) => format!("checks={checks}; "),
        None => String::new(),
    };
    let gap = match list.verdict {
        Verdict::Settled => format!("; gap={}", list.walked.gap),
        _ => String::new(),
    };
    text(format_args!(
        "{}; {checks}pages={}; records={}; calls={}; oldest={}{gap}",
        list.verdict,
        list.walked.pages,
        list.len(),
        list.walked.calls,
        answer.age.as_secs(),
    ))
}

/// What nearly all answers are. Formatting it would be the dearest part of their headers.
fn hit(ttl: i64) -> HeaderValue {
    const TEXT: &[u8] = b"contacts-gateway; hit; ttl=";
    let (mut whole, mut digits) = ([0; TEXT.len() + 20], itoa::Buffer::new());
    let digits = digits.format(ttl).as_bytes();
    let length = TEXT.len() + digits.len();
    whole[..TEXT.len()].copy_from_slice(TEXT);
    whole[TEXT.len()..length].copy_from_slice(digits);
    written(&whole[..length])
}

/// A number; without the room to spare, and the block to count its clones, that `HeaderValue`'s own conversion takes.
fn number(number: u64) -> HeaderValue {
    written(itoa::Buffer::new().format(number).as_bytes())
}

/// A text that was put together. It is written before memory is asked for, so that it takes one block of its own length:
/// `Bytes` with room to spare take another to count their clones.
pub(super) fn text(arguments: std::fmt::Arguments<'_>) -> HeaderValue {
    let mut short = Cursor::new([0; 96]);
    match short.write_fmt(arguments) {
        Ok(()) => {
            let length = usize::try_from(short.position()).unwrap_or_default();
            written(&short.get_ref()[..length])
        }
        Err(_) => written(arguments.to_string().as_bytes()),
    }
}

fn written(text: &[u8]) -> HeaderValue {
    // Nothing but ASCII is.
    HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static(""))
}

/// A text that is held already, or is the value's alone.
pub(super) fn shared(text: Bytes) -> HeaderValue {
    // Tags and ids are of visible ASCII.
    HeaderValue::from_maybe_shared(text).unwrap_or(HeaderValue::from_static(""))
}
