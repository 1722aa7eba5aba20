//! What the head of an answer says of it, before its body is read. Pure.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
};

use crate::{
    error::{Again, Error, Kind, Result},
    upstream::body::Coding,
};

/// How an answer's body can be read as a page, if its head lets it be.
pub(super) fn judge(status: StatusCode, headers: &HeaderMap) -> Result<Coding> {
    let refused =
        |kind, detail: &'static str| Error::new(kind, detail).because(format!("status {status}"));
    let told = |error: Error| match pause(headers) {
        Some(pause) => error.retry_after(pause),
        None => error,
    };
    match status.as_u16() {
        200 => {}
        401 => {
            let detail = "upstream refused the credential, its scope or the stream id";
            return Err(refused(Kind::UpstreamAuthRejected, detail).again_by(Again::Resigned));
        }
        404 => {
            return Err(refused(
                Kind::StreamNotFound,
                "upstream knows no such stream",
            ));
        }
        429 => {
            let detail = "the account's calls in this minute are used up";
            return Err(told(refused(Kind::UpstreamRateLimited, detail)));
        }
        300..=303 | 305..=308 => {
            let detail = "upstream redirects, which is never followed";
            return Err(refused(Kind::UpstreamRedirect, detail));
        }
        400..500 => return Err(refused(Kind::Upstream4xx, "upstream refused the request")),
        503 => {
            return Err(told(
                refused(Kind::Upstream5xx, "upstream failed").again_by(Again::Later),
            ));
        }
        500..600 => {
            return Err(refused(Kind::Upstream5xx, "upstream failed").again_by(Again::Later));
        }
        _ => {
            let detail = "upstream answered with an unexpected status";
            return Err(refused(Kind::UpstreamProtocol, detail));
        }
    }
    let coding = Coding::of(headers)?;
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(value), None) if is_json(value) => Ok(coding),
        _ => Err(Error::new(
            Kind::UpstreamWrongType,
            "upstream's answer is not JSON",
        )),
    }
}

/// Whether `Cache-Control` says `no-store`: the one directive that is obeyed, since how long copies live is the operator's
/// to say. A comma in quotes separates too: what is misread that way is not kept, which does no harm.
pub(super) fn forbids_to_keep(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(CACHE_CONTROL).iter();
    let mut directives = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    directives.any(|directive| {
        let name = directive.split(|byte| *byte == b'=').next();
        name.is_some_and(|name| name.trim_ascii().eq_ignore_ascii_case(b"no-store"))
    })
}

/// `application/json`, whatever its parameters.
fn is_json(value: &HeaderValue) -> bool {
    let essence = value
        .as_bytes()
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/json")
}

/// `Retry-After` in seconds, taken as 1 to 60; `None` without one, or with a date.
pub(super) fn pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds.clamp(1, 60)))
}
