//! Upstream's body becomes a [`Page`]: valid JSON of the documented shape, that answers what was asked.
//!
//! Nothing is re-serialised: a page keeps upstream's bytes, and each record is a range of them. What is refused here
//! is never kept, and no complaint quotes the body.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{error::Category, value::RawValue};
use tokio::time::Instant;

use super::{Page, Record, Window, envelope::Envelope};
use crate::{
    contacts::etag::ETag,
    error::{Error, Kind, Result},
};

/// How deep arrays and objects may stand in each other.
const NESTING_MAX: usize = 64;

impl Page {
    /// Checks and takes apart a body that upstream sent for `asked`.
    ///
    /// `pages` says that upstream counts in pages, so that a smaller limit also moves the first record.
    ///
    /// # Errors
    /// [`Kind::UpstreamInvalidBody`] for what is not JSON, [`Kind::UpstreamSchema`] for JSON that is not a page of
    /// contacts, or not the one that was asked for.
    pub fn decode(body: Bytes, asked: Window, pages: bool, read_at: Instant) -> Result<Self> {
        let text = std::str::from_utf8(&body)
            .map_err(|error| invalid(format!("not UTF-8 at byte {}", error.valid_up_to())))?;
        if let Some(at) = nested_too_deep(text.as_bytes()) {
            return Err(invalid(format!(
                "nested deeper than {NESTING_MAX} at byte {at}"
            )));
        }
        let envelope = Envelope::read(text).map_err(|error| json(&error))?;
        if envelope.has_repeated_key() {
            return Err(invalid("a key of the envelope stands twice"));
        }
        let number = |key: &str| -> Result<Option<u64>> {
            let value = envelope.get(key).map(|raw| serde_json::from_str(raw.get()));
            value
                .transpose()
                .map_err(|_| schema(format!("{key} is not a whole number")))
        };
        let echoed = |key: &str| number(key)?.ok_or_else(|| schema(format!("{key} is missing")));
        let skip = echoed("skip")?;
        let limit = echoed("limit")?;
        let total = number("totalResults")?;
        let has_more = envelope
            .get("hasMore")
            .map(|raw| serde_json::from_str(raw.get()));
        let has_more = has_more
            .transpose()
            .map_err(|_| schema("hasMore is not a boolean"))?;
        let results = envelope
            .get("results")
            .ok_or_else(|| schema("results is missing"))?;
        let records = records(text, results)?;

        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        if limit == 0 || limit > asked.limit {
            return Err(echo(format!(
                "asked for limit {}, echoed {limit}",
                asked.limit
            )));
        }
        let first = if pages {
            asked.skip / u64::from(asked.limit) * u64::from(limit)
        } else {
            asked.skip
        };
        if skip != first {
            return Err(echo(format!("asked to skip {first}, echoed {skip}")));
        }
        if records.len() > limit as usize {
            return Err(echo(format!(
                "{} records under limit {limit}",
                records.len()
            )));
        }
        Ok(Self {
            etag: ETag::of([&body[..]]),
            limit,
            total,
            has_more,
            records,
            read_at,
            body,
        })
    }
}

/// Where each record of `results` lies in `body`.
fn records(body: &str, results: &RawValue) -> Result<Box<[Record]>> {
    #[derive(Deserialize)]
    struct Contact<'a> {
        #[serde(borrow)]
        id: &'a RawValue,
    }

    let raw: Vec<&RawValue> =
        serde_json::from_str(results.get()).map_err(|_| schema("results is not an array"))?;
    let place = |part: &RawValue| {
        let start = part.get().as_ptr() as usize - body.as_ptr() as usize;
        let end = start + part.get().len();
        let narrow = |at| u32::try_from(at).map_err(|_| schema("the body is larger than 4 GiB"));
        Ok(narrow(start)?..narrow(end)?)
    };
    let record = |raw: &&RawValue| {
        // A record must be an object: serde would take an array for one.
        let object = raw.get().starts_with('{');
        let contact = object.then(|| serde_json::from_str::<Contact<'_>>(raw.get()));
        match contact {
            Some(Ok(contact)) if contact.id.get().starts_with('"') => Ok(Record {
                at: place(raw)?,
                id: place(contact.id)?,
            }),
            _ => Err(schema("a record has no id, or two")),
        }
    };
    raw.iter().map(record).collect()
}

/// The first byte at which arrays and objects stand too deep in each other.
fn nested_too_deep(body: &[u8]) -> Option<usize> {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for (at, byte) in body.iter().enumerate() {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => quoted = !quoted,
            (false, b'{' | b'[') if depth == NESTING_MAX => return Some(at),
            (false, b'{' | b'[') => depth += 1,
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

fn invalid(cause: impl Into<String>) -> Error {
    Error::new(
        Kind::UpstreamInvalidBody,
        "upstream's answer is not valid JSON",
    )
    .because(cause.into())
}

fn schema(cause: impl Into<String>) -> Error {
    Error::new(
        Kind::UpstreamSchema,
        "upstream's answer is not a page of contacts",
    )
    .because(cause.into())
}

fn echo(cause: String) -> Error {
    Error::new(
        Kind::UpstreamSchema,
        "upstream answered another window than the one asked for",
    )
    .because(cause)
}

/// serde_json's own messages quote values, so only the place is told.
fn json(error: &serde_json::Error) -> Error {
    let place = format!("line {}, column {}", error.line(), error.column());
    match error.classify() {
        Category::Data => schema(format!("not an object: {place}")),
        _ => invalid(place),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ASKED: Window = Window { skip: 0, limit: 10 };

    fn decode(body: impl AsRef<[u8]>) -> Result<Page> {
        Page::decode(
            Bytes::copy_from_slice(body.as_ref()),
            ASKED,
            false,
            Instant::now(),
        )
    }

    fn kind(body: impl AsRef<[u8]>) -> Kind {
        decode(body).unwrap_err().kind()
    }

    fn with_results(results: &str) -> String {
        format!(r#"{{"results":{results},"skip":0,"limit":10,"hasMore":false,"totalResults":1}}"#)
    }

    #[test]
    fn the_documented_sample() {
        let body = include_str!("../../../tests/fixtures/get-all-contacts.json");
        let page = decode(body).unwrap();
        assert_eq!(page.body, body);
        assert_eq!(page.records.len(), 2);
        // It contradicts itself, and passes as it is.
        assert_eq!(page.total, Some(6));
        assert_eq!(page.id(&page.records[1]), b"\"695e2b7b786560d6a90xxxxx\"");
        let first = page.record(&page.records[0]);
        assert!(first.starts_with(b"{\n") && first.ends_with(b"}"));
    }

    #[test]
    fn not_json() {
        let deep = |levels: usize| {
            let nested = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            // The envelope, `results` and the record are three levels of their own.
            with_results(&format!(r#"[{{"id":"1","a":{nested}}}]"#))
        };
        assert!(decode(deep(61)).is_ok());
        for body in [
            "",
            "<html>",
            "{",
            &with_results("[{]"),
            &format!("{} x", with_results("[]")),
            &format!("{0}{0}", with_results("[]")),
            &deep(62),
            r#"{"results":[],"skip":0,"limit":10,"skip":0}"#,
        ] {
            assert_eq!(kind(body), Kind::UpstreamInvalidBody, "{body}");
        }
        let mut not_utf8 = with_results(r#"[{"id":"1","name":"?"}]"#).into_bytes();
        let at = not_utf8.iter().position(|byte| *byte == b'?').unwrap();
        not_utf8[at] = 0xff;
        assert_eq!(kind(&not_utf8), Kind::UpstreamInvalidBody);
    }

    #[test]
    fn brackets_in_strings_are_not_nesting() {
        let name = "[{\\\"".repeat(100);
        assert!(decode(with_results(&format!(r#"[{{"id":"1","name":"{name}"}}]"#))).is_ok());
    }

    #[test]
    fn json_that_is_no_page() {
        for body in [
            "null",
            "[]",
            "7",
            r#"{"errors":[{"msg":"x","code":1}]}"#,
            r#"{"skip":0,"limit":10}"#,
            &with_results("null"),
            &with_results("{}"),
            &with_results("[null]"),
            &with_results(r#"["1"]"#),
            &with_results(r#"[["1"]]"#),
            &with_results(r#"[{"_id":"1"}]"#),
            &with_results(r#"[{"id":1}]"#),
            &with_results(r#"[{"id":null}]"#),
            &with_results(r#"[{"id":"1","id":"2"}]"#),
            r#"{"results":[],"limit":10}"#,
            r#"{"results":[],"skip":0}"#,
            r#"{"results":[],"skip":-1,"limit":10}"#,
            r#"{"results":[],"skip":0,"limit":"10"}"#,
            r#"{"results":[],"skip":0,"limit":10,"totalResults":"6"}"#,
            r#"{"results":[],"skip":0,"limit":10,"hasMore":0}"#,
        ] {
            assert_eq!(kind(body), Kind::UpstreamSchema, "{body}");
        }
    }

    #[test]
    fn the_echo_must_be_what_was_asked() {
        let echo = |skip: u64, limit: u64, records: usize| {
            let results = vec![r#"{"id":"1"}"#; records].join(",");
            format!(r#"{{"results":[{results}],"skip":{skip},"limit":{limit}}}"#)
        };
        assert!(decode(echo(0, 10, 10)).is_ok());
        // A clamp is passed on.
        assert_eq!(decode(echo(0, 5, 5)).unwrap().limit, 5);
        for wrong in [
            echo(10, 10, 1),
            echo(0, 11, 1),
            echo(0, 0, 0),
            echo(0, 5, 6),
            echo(0, 10, 11),
        ] {
            assert_eq!(kind(&wrong), Kind::UpstreamSchema, "{wrong}");
        }
    }

    #[test]
    fn a_clamped_page_begins_earlier() {
        let asked = Window {
            skip: 200,
            limit: 100,
        };
        let decode = |body: &str, pages| {
            Page::decode(
                Bytes::copy_from_slice(body.as_bytes()),
                asked,
                pages,
                Instant::now(),
            )
        };
        let third_of_ten = r#"{"results":[],"skip":20,"limit":10}"#;
        assert!(decode(third_of_ten, true).is_ok());
        assert!(decode(third_of_ten, false).is_err());
        assert!(decode(r#"{"results":[],"skip":200,"limit":10}"#, false).is_ok());
    }

    #[test]
    fn a_complaint_quotes_nothing() {
        let error = decode(with_results(r#"[{"id":"1","firstName":"canary""#)).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
        let error = decode(r#"{"results":"canary","skip":0,"limit":10}"#).unwrap_err();
        assert!(!error.to_string().contains("canary"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(body in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(body);
        }

        #[test]
        fn a_cut_body_is_never_a_page(cut in 0_usize..1000) {
            let body = with_results(r#"[{"id":"1","firstName":"Zo\u00eb"},{"id":"2","tags":[[],{}]}]"#);
            if cut < body.len() {
                prop_assert_eq!(kind(&body[..cut]), Kind::UpstreamInvalidBody);
            }
        }
    }
}
