//! The written form of a fault, written: what the parser beside it reads back.

use std::{fmt, time::Duration};

use http::HeaderValue;

use super::{Claim, Fault};

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(number) => write!(f, "{number}"),
            Self::Off(by) => write!(f, "{by:+}"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let keep = |keep: &Option<usize>| keep.map_or(String::new(), |bytes| format!("={bytes}"));
        match self {
            Self::Status {
                status,
                headers,
                body,
            } => {
                write!(f, "status={}", status.as_u16())?;
                for (name, value) in headers {
                    write!(f, ";header={name}: {}", shown(value))?;
                }
                body.as_ref()
                    .map_or(Ok(()), |body| write!(f, ";body={body}"))
            }
            Self::RateLimited { status } => write!(f, "rate-limited={}", status.as_u16()),
            Self::Denied(denial) => write!(f, "denied={}", denial.name()),
            Self::Delay(delay) => write!(f, "delay={}", time(delay)),
            Self::ContentType(None) => write!(f, "content-type=none"),
            Self::ContentType(Some(value)) => write!(f, "content-type={}", shown(value)),
            Self::InvalidJson => write!(f, "invalid-json"),
            Self::BadUtf8 => write!(f, "bad-utf8"),
            Self::Nesting(depth) => write!(f, "nesting={depth}"),
            Self::RepeatedKey(key) => write!(f, "repeated-key={key}"),
            Self::TrailingBytes(bytes) => write!(f, "trailing-bytes={bytes}"),
            Self::EmptyBody => write!(f, "empty-body"),
            Self::Html => write!(f, "html"),
            Self::Null => write!(f, "null"),
            Self::Array => write!(f, "array"),
            Self::NoResults => write!(f, "no-results"),
            Self::ResultsObject => write!(f, "results-object"),
            Self::NoIds => write!(f, "no-ids"),
            Self::Encrypted => write!(f, "encrypted"),
            Self::HasMore(more) => write!(f, "has-more={more}"),
            Self::Total(claim) => write!(f, "total={claim}"),
            Self::TotalPages(claim) => write!(f, "total-pages={claim}"),
            Self::NoRecords => write!(f, "no-records"),
            Self::EchoSkip(claim) => write!(f, "echo-skip={claim}"),
            Self::EchoLimit(claim) => write!(f, "echo-limit={claim}"),
            Self::ExtraRecords(more) => write!(f, "extra-records={more}"),
            Self::Shift(by) => write!(f, "shift={by}"),
            Self::Stuck => write!(f, "stuck"),
            Self::Twice => write!(f, "twice"),
            Self::OtherAccount => write!(f, "other-account"),
            Self::OtherStream => write!(f, "other-stream"),
            Self::Truncate { keep: bytes } => write!(f, "truncate{}", keep(bytes)),
            Self::TruncateChunked { keep: bytes } => write!(f, "truncate-chunked{}", keep(bytes)),
            Self::Oversize { bytes } => write!(f, "oversize={bytes}B"),
            Self::OversizeChunked { bytes } => write!(f, "oversize-chunked={bytes}B"),
            Self::Redirect { location, status } => {
                write!(f, "redirect={};status={}", shown(location), status.as_u16())
            }
            Self::Encoding(value) => write!(f, "encoding={}", shown(value)),
            Self::Gzip => write!(f, "gzip"),
            Self::GzipTwice => write!(f, "gzip-twice"),
            Self::GzipBomb { bytes } => write!(f, "gzip-bomb={bytes}B"),
            Self::GzipBombTwice { bytes } => write!(f, "gzip-bomb-twice={bytes}B"),
            Self::Reset => write!(f, "reset"),
            Self::ResetReused => write!(f, "reset-reused"),
            Self::ResetBody { keep: bytes } => write!(f, "reset-body{}", keep(bytes)),
            Self::Close => write!(f, "close"),
            Self::Stall(pause) => write!(f, "stall={}", time(pause)),
            Self::StallHead(pause) => write!(f, "stall-head={}", time(pause)),
            Self::StallBody(pause) => write!(f, "stall-body={}", time(pause)),
            Self::Drip(every) => write!(f, "drip={}", time(every)),
            Self::LongLength(bytes) => write!(f, "long-length={bytes}"),
            Self::ShortLength(bytes) => write!(f, "short-length={bytes}"),
            Self::TwoLengths => write!(f, "two-lengths"),
            Self::LengthAndChunks => write!(f, "length-and-chunks"),
            Self::BadChunk => write!(f, "bad-chunk"),
            Self::NoLastChunk => write!(f, "no-last-chunk"),
            Self::ManyHeaders(count) => write!(f, "many-headers={count}"),
            Self::HugeHeader { bytes } => write!(f, "huge-header={bytes}B"),
            Self::Informational(count) => write!(f, "informational={count}"),
            Self::Switching(pause) => write!(f, "switching={}", time(pause)),
            Self::Garbage => write!(f, "garbage"),
            Self::NoHead => write!(f, "no-head"),
            Self::SecondAnswer(pause) => write!(f, "second-answer={}", time(pause)),
        }
    }
}

fn time(time: &Duration) -> String {
    humantime::format_duration(*time)
        .to_string()
        .replace(' ', "")
}
