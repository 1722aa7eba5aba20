//! One answer on its way out, and what faults make of it once its page is written.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION},
};

use super::{
    auth::Denial,
    body::{Body, Run},
    fault::Fault,
    gzip::gzip,
    script::Script,
};

/// What Kore.ai says to the sixty-first call of a minute. The status and the `code` are inferred.
pub(super) const RATE_LIMITED: &str = r#"{"errors":[{"msg":"You've exceeded the per-minute rate limit. Please wait for sometime before retrying.","code":429}]}"#;

const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

const WEB_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Maintenance</title></head><body><h1>We will be back soon</h1></body></html>\n";
const ENCRYPTED: &str = r#"{"encryptedKey":"3q2+7wAAAAAAAAAAAAAAAA==","iv":"AAAAAAAAAAAAAAAA","encryptedData":"8J+UkvCflJLwn5SS8J+Ukg=="}"#;
const RESULTS_OBJECT: &str =
    r#"{"results":{},"skip":0,"limit":10,"hasMore":false,"totalPages":1,"totalResults":1}"#;

/// One answer before it is sent.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// How long nothing is sent.
    pub(super) delay: Duration,
    framing: Framing,
    /// What the socket does in place of sending it.
    script: Option<Fault>,
}

#[derive(Clone, Debug)]
enum Framing {
    Whole,
    Cut { keep: Option<usize>, announce: bool },
    Run { run: Run, announce: bool },
}

impl Answer {
    pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(CONTENT_TYPE, JSON);
        Self {
            status,
            headers,
            body: body.into(),
            delay: Duration::ZERO,
            framing: Framing::Whole,
            script: None,
        }
    }

    /// An error in the shape of the platform's own.
    pub(super) fn error(status: StatusCode) -> Self {
        Self::json(status, error_body(status))
    }

    /// What the socket does, if the answer is not simply sent.
    pub(super) fn script(&self) -> Option<Script> {
        let fault = self.script.as_ref()?;
        Some(Script::new(fault, self.status, &self.headers, &self.body))
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let body = match self.framing {
            Framing::Whole => Body::from(self.body),
            Framing::Cut { keep, announce } => Body::cut(&self.body, keep, announce),
            Framing::Run { run, announce } => Body::run(run, announce),
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }

    /// Makes the answer wrong in one way. Faults of the page itself were applied when it was written.
    pub(super) fn bend(&mut self, fault: &Fault) {
        match fault {
            Fault::Status {
                status,
                headers,
                body,
            } => {
                self.status = *status;
                self.body = body
                    .clone()
                    .map_or_else(|| error_body(*status), Bytes::from);
                // Replaces ours, and keeps a header that is given twice.
                for name in headers.keys() {
                    self.headers.remove(name);
                }
                self.headers.extend(headers.clone());
            }
            Fault::RateLimited { status } => {
                self.status = *status;
                self.body = Bytes::from_static(RATE_LIMITED.as_bytes());
            }
            Fault::Denied(denial) => {
                self.status = denial.status();
                self.body = Bytes::from_static(denial.body().as_bytes());
            }
            Fault::Redirect { location, status } => {
                self.status = *status;
                self.headers.insert(LOCATION, location.clone());
                self.body = Bytes::new();
            }
            Fault::Delay(delay) => self.delay = self.delay.saturating_add(*delay),
            Fault::ContentType(Some(value)) => {
                drop(self.headers.insert(CONTENT_TYPE, value.clone()))
            }
            Fault::ContentType(None) => drop(self.headers.remove(CONTENT_TYPE)),
            Fault::Encoding(value) => drop(self.headers.insert(CONTENT_ENCODING, value.clone())),
            Fault::Html => {
                self.headers.insert(CONTENT_TYPE, HTML);
                self.body = Bytes::from_static(WEB_PAGE.as_bytes());
            }
            Fault::Truncate { keep } => {
                self.framing = Framing::Cut {
                    keep: *keep,
                    announce: true,
                }
            }
            Fault::TruncateChunked { keep } => {
                self.framing = Framing::Cut {
                    keep: *keep,
                    announce: false,
                }
            }
            Fault::Oversize { bytes } => {
                self.framing = Framing::Run {
                    run: Run::page(*bytes),
                    announce: true,
                }
            }
            Fault::OversizeChunked { bytes } => {
                self.framing = Framing::Run {
                    run: Run::page(*bytes),
                    announce: false,
                }
            }
            Fault::Gzip => {
                let page = Run::held(std::mem::take(&mut self.body));
                self.coded("gzip", gzip(&page));
            }
            Fault::GzipTwice => {
                let page = Run::held(std::mem::take(&mut self.body));
                self.coded("gzip, gzip", gzip(&gzip(&page)));
            }
            Fault::GzipBomb { bytes } => self.coded("gzip", gzip(&Run::page(*bytes))),
            Fault::GzipBombTwice { bytes } => {
                self.coded("gzip, gzip", gzip(&gzip(&Run::page(*bytes))));
            }
            _ if Script::is_for(fault) => self.script = Some(fault.clone()),
            _ => {
                let mut body = std::mem::take(&mut self.body).into();
                bend_body(&mut body, fault);
                self.body = body.into();
            }
        }
    }

    fn coded(&mut self, coding: &'static str, run: Run) {
        self.headers
            .insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        self.framing = Framing::Run {
            run,
            announce: true,
        };
    }
}

fn bend_body(body: &mut Vec<u8>, fault: &Fault) {
    let end = body.len().saturating_sub(1);
    match fault {
        Fault::EmptyBody => body.clear(),
        Fault::Null => *body = b"null".to_vec(),
        Fault::Array => *body = br#"[{"id":"000000000000000000000000"}]"#.to_vec(),
        Fault::ResultsObject => *body = RESULTS_OBJECT.into(),
        Fault::Encrypted => *body = ENCRYPTED.into(),
        Fault::TrailingBytes(text) => body.extend_from_slice(text.as_bytes()),
        Fault::InvalidJson => {
            if let Some(last) = body.last_mut() {
                *last = b']';
            }
        }
        Fault::BadUtf8 => {
            let at = find(body, b"\"firstName\"").unwrap_or(0);
            let colon = find(&body[at..], b":").map_or(end, |colon| at + colon);
            match find(&body[colon..], b"\"") {
                Some(quote) => body.insert(colon + quote + 1, 0xff),
                None => body.insert(end, 0xff),
            }
        }
        Fault::RepeatedKey(key) => {
            let value = match key.as_str() {
                "results" => "[]",
                "hasMore" => "true",
                _ => "0",
            };
            insert(body, end, format!(",\"{key}\":{value}").as_bytes());
        }
        Fault::Nesting(depth) => {
            // Inside the first record, or else inside the envelope.
            let record = find(body, b"[")
                .and_then(|list| find(&body[list..], b"{").map(|open| (list + open + 1, 3)));
            let (at, above) = record.unwrap_or((1, 1));
            let levels = (*depth as usize).saturating_sub(above);
            let nested = [
                b"\"nested\":" as &[u8],
                &b"[".repeat(levels),
                &b"]".repeat(levels),
                b",",
            ]
            .concat();
            insert(body, at.min(body.len()), &nested);
        }
        Fault::NoResults => {
            if let Some(at) = find(body, b"\"results\"") {
                body[at..at + 9].copy_from_slice(b"\"records\"");
            }
        }
        Fault::NoIds => {
            while let Some(at) = find(body, b"\"id\"") {
                insert(body, at + 1, b"_");
            }
        }
        _ => {}
    }
}

fn insert(body: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    body.splice(at..at, bytes.iter().copied());
}

fn find(body: &[u8], needle: &[u8]) -> Option<usize> {
    body.windows(needle.len())
        .position(|window| window == needle)
}

/// The body that goes with a status, as far as any was seen.
fn error_body(status: StatusCode) -> Bytes {
    let message = match status {
        StatusCode::UNAUTHORIZED => {
            return Bytes::from_static(Denial::Credentials.body().as_bytes());
        }
        StatusCode::TOO_MANY_REQUESTS => return Bytes::from_static(RATE_LIMITED.as_bytes()),
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => return Bytes::new(),
        StatusCode::BAD_REQUEST => "Validation errors/ Invalid arguments",
        _ => status.canonical_reason().unwrap_or("Error"),
    };
    Bytes::from(format!(
        r#"{{"errors":[{{"msg":"{message}","code":{}}}]}}"#,
        status.as_u16()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const PAGE: &str = r#"{"results":[{"firstName":"a","id":"1"},{"firstName":"b","id":"2"}],"skip":0,"limit":10,"hasMore":false,"totalPages":1,"totalResults":2}"#;
    const EMPTY: &str =
        r#"{"results":[],"skip":0,"limit":10,"hasMore":false,"totalPages":0,"totalResults":0}"#;

    fn bent(page: &'static str, fault: &str) -> Vec<u8> {
        let mut answer = Answer::json(StatusCode::OK, page);
        answer.bend(&fault.parse().unwrap());
        answer.body.into()
    }

    fn depth(body: &[u8]) -> usize {
        let step = |(deep, most): (usize, usize), byte: &u8| match byte {
            b'[' | b'{' => (deep + 1, most.max(deep + 1)),
            b']' | b'}' => (deep - 1, most),
            _ => (deep, most),
        };
        body.iter().fold((0, 0), step).1
    }

    #[test]
    fn broken_json_is_broken_in_exactly_the_named_way() {
        for page in [PAGE, EMPTY] {
            for fault in ["invalid-json", "trailing-bytes", "empty-body", "bad-utf8"] {
                let body = bent(page, fault);
                assert!(serde_json::from_slice::<Value>(&body).is_err(), "{fault}");
            }
            assert!(std::str::from_utf8(&bent(page, "bad-utf8")).is_err());
            for fault in [
                "nesting=65",
                "repeated-key=results",
                "no-results",
                "no-ids",
                "null",
                "array",
                "results-object",
                "encrypted",
            ] {
                let body = bent(page, fault);
                assert!(
                    serde_json::from_slice::<Value>(&body).is_ok(),
                    "{fault} is still JSON"
                );
            }
            assert_eq!(depth(&bent(page, "nesting=65")), 65);
            let repeated = String::from_utf8(bent(page, "repeated-key=skip")).unwrap();
            assert_eq!(repeated.matches("\"skip\"").count(), 2);
        }
        let without = serde_json::from_slice::<Value>(&bent(PAGE, "no-ids")).unwrap();
        assert_eq!(without["results"][1]["_id"], "2");
        assert!(without["results"][1].get("id").is_none());
        assert!(
            serde_json::from_slice::<Value>(&bent(PAGE, "no-results"))
                .unwrap()
                .get("results")
                .is_none()
        );
    }

    #[test]
    fn a_status_brings_the_body_that_goes_with_it() {
        let with = |fault: &str| String::from_utf8(bent(PAGE, fault)).unwrap();
        assert!(with("status=401").contains("4002"));
        assert!(with("status=429").contains("per-minute rate limit"));
        assert!(with("rate-limited=200").contains("per-minute rate limit"));
        assert!(with("status=503").contains("Service Unavailable"));
        assert_eq!(with("status=503;body=x"), "x");
        assert_eq!(with("status=204"), "");
    }
}
