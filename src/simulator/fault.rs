//! What can be wrong with an answer, as far as HTTP itself can say it. Faults below HTTP (resets, stalls, drips, broken
//! framing) are not here: they need the socket.
//!
//! A fault has one written form, `name`, `name=value` or `name=value;key=value`, which flags, the control interface and
//! serde share; [`Fault::GUIDE`] lists them all. Several faults may bend one answer: they are applied in the order given, those
//! of the page before those of the body, and [`Fault::Status`] and the like replace whatever was there.

mod show;
mod text;

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

pub use text::ParseFaultError;

/// One thing wrong with an answer. The code in brackets is the row of the fault table that a gateway answers it by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Fault {
    /// Another status than 200, with a body of the kind that goes with it unless one is given \[U4, U5, U14, U23, K1\].
    Status {
        /// 200 to 599.
        status: StatusCode,
        headers: HeaderMap,
        body: Option<String>,
    },
    /// The text of the rate limit, under any status: also 200, where only the text tells \[U5\].
    RateLimited { status: StatusCode },
    /// Nothing, for so long; then the answer \[U2\].
    Delay(Duration),
    /// Another `Content-Type`, or none \[U9\].
    ContentType(Option<HeaderValue>),

    /// The last brace is a bracket \[U8\].
    InvalidJson,
    /// A byte that is not UTF-8 inside the first text \[U8\].
    BadUtf8,
    /// Brackets in the first record (or the envelope, without one) so that the document nests so deep; 4 to 100,000 \[U8\].
    Nesting(u32),
    /// An envelope key comes a second time, with another value \[U8\].
    RepeatedKey(String),
    /// More bytes after the document \[U8\].
    TrailingBytes(String),
    /// No body at all \[U8\].
    EmptyBody,

    /// A web page, with its type \[U9\].
    Html,
    /// `null` \[U10\].
    Null,
    /// A bare list of records \[U10\].
    Array,
    /// `results` has another name \[U10\].
    NoResults,
    /// `results` is an object \[U10\].
    ResultsObject,
    /// Records that say `_id` in place of `id` \[U10\].
    NoIds,
    /// An envelope as of an encrypted payload \[U10\].
    Encrypted,

    /// `hasMore` says this, whatever is true \[U18\].
    HasMore(bool),
    /// `totalResults` says this \[U17, U19\].
    Total(Claim),
    /// `totalPages` says this.
    TotalPages(Claim),
    /// The page has no records, while its numbers stay \[U18\].
    NoRecords,

    /// The echoed `skip` says this \[U16\].
    EchoSkip(Claim),
    /// The echoed `limit` says this \[U16\].
    EchoLimit(Claim),
    /// So many records more than asked for, to 10,000, where the stream has them \[U16\].
    ExtraRecords(u32),
    /// Records from so far before (a record comes twice) or behind (one is missing) the window \[U19, U20\].
    Shift(i64),
    /// Always the records of the first page, whatever is asked: the list never ends \[U16\].
    Stuck,
    /// The page's first record is also its second \[U20\].
    Twice,
    /// The first record says that it is another account's \[U22\].
    OtherAccount,
    /// The first record says that it is another stream's \[U22\].
    OtherStream,

    /// The announced length is not reached: the connection ends after so many bytes (default: half) \[U7\].
    Truncate { keep: Option<usize> },
    /// No length is announced, and the last chunk never comes \[U7\].
    TruncateChunked { keep: Option<usize> },
    /// A valid page of so many bytes, announced; 1 KiB to 16 GiB \[U11\].
    Oversize { bytes: u64 },
    /// The same without a length \[U11\].
    OversizeChunked { bytes: u64 },

    /// Somewhere else \[U13\].
    Redirect {
        location: HeaderValue,
        /// 300 to 399.
        status: StatusCode,
    },
    /// A `Content-Encoding` that the body does not have \[U12\].
    Encoding(HeaderValue),
}

/// A number in the place of the true one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This number. Written `7`.
    Exactly(u64),
    /// The true one and so many, never below 0. Written `+1` or `-1`.
    Off(i64),
}

impl Claim {
    pub(super) fn instead_of(self, truth: u64) -> u64 {
        match self {
            Self::Exactly(number) => number,
            Self::Off(by) => truth.saturating_add_signed(by),
        }
    }
}

impl Fault {
    /// How each fault is written, and what it does. The first column can be parsed.
    pub const GUIDE: &[(&str, &str)] = &[
        (
            "status=503",
            "this status (200 to 599); also `status=503;header=Retry-After: 7;body=TEXT`",
        ),
        (
            "rate-limited=429",
            "the text of the rate limit under this status",
        ),
        ("delay=2s", "nothing for so long, then the answer"),
        (
            "content-type=text/html",
            "this type; `content-type=none` for no header",
        ),
        ("invalid-json", "the last brace is a bracket"),
        ("bad-utf8", "a byte that is not UTF-8"),
        ("nesting=65", "brackets nested so deep"),
        ("repeated-key=skip", "this envelope key comes twice"),
        ("trailing-bytes={}", "this text after the document"),
        ("empty-body", "no body"),
        ("html", "a web page with its type"),
        ("null", "null as a body"),
        ("array", "a bare list as a body"),
        ("no-results", "the list has another name"),
        ("results-object", "the list is an object"),
        ("no-ids", "records without an id"),
        ("encrypted", "an envelope as of an encrypted payload"),
        ("has-more=true", "hasMore says this"),
        (
            "total=+1",
            "totalResults is off by this; `total=7` for a number",
        ),
        ("total-pages=0", "the same for totalPages"),
        ("no-records", "an empty page, its numbers unchanged"),
        ("echo-skip=+1", "another skip in the answer"),
        ("echo-limit=+1", "another limit in the answer"),
        ("extra-records=1", "more records than asked for"),
        (
            "shift=-1",
            "a record that the page before had; `shift=1` leaves one out",
        ),
        ("stuck", "always the records of the first page"),
        ("twice", "the first record twice"),
        ("other-account", "the first record is another account's"),
        ("other-stream", "the first record is another stream's"),
        (
            "truncate",
            "the connection ends inside the body; `truncate=100` after so many bytes",
        ),
        ("truncate-chunked", "the same without a length"),
        ("oversize=9MiB", "a body of this size"),
        ("oversize-chunked=9MiB", "the same without a length"),
        (
            "redirect=http://127.0.0.1:9/",
            "elsewhere, 302; also `redirect=URL;status=307`",
        ),
        ("encoding=gzip", "a Content-Encoding that does not fit"),
    ];

    /// An answer with this status and the body that goes with it.
    pub fn status(status: StatusCode) -> Self {
        Self::Status {
            status,
            headers: HeaderMap::new(),
            body: None,
        }
    }
}
