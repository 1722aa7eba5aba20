//! What can be wrong with an answer: what HTTP itself can say, and below it what only a socket can do, such as resets, stalls
//! and lengths that are not true.
//!
//! A fault has one written form, `name`, `name=value` or `name=value;key=value`, which flags, the control interface and
//! serde share; [`Fault::GUIDE`] lists them all. Several faults may bend one answer: they are applied in the order given, those
//! of the page before those of the body, and [`Fault::Status`] and the like replace whatever was there.
//!
//! Of several faults that need the socket, the last one decides how the answer, as the others left it, is sent. They speak
//! HTTP/1.1; over HTTP/2 [`Fault::Reset`], [`Fault::ResetReused`], [`Fault::Close`] and [`Fault::Stall`] befall the whole
//! connection, and all others are answered 505. A request that was pipelined behind such an answer may be lost. Time is bounded everywhere: a stall ends
//! when it says, when the peer leaves, or with the simulator.

mod guide;
mod show;
mod text;

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

pub use text::ParseFaultError;

use super::auth::Denial;

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
    /// A refusal of the token, which was right \[K1, K2\].
    Denied(Denial),
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
    /// A `Content-Encoding` that the body does not have, perhaps one that nobody knows \[U12\].
    Encoding(HeaderValue),
    /// The page, compressed. Nothing is wrong with that, if it was asked for.
    Gzip,
    /// The page, compressed twice, and said to be \[U12\].
    GzipTwice,
    /// A valid page of so many bytes, compressed to a thousandth; 1 KiB to 16 GiB \[U12\].
    GzipBomb { bytes: u64 },
    /// The same, compressed twice, to a millionth \[U12\].
    GzipBombTwice { bytes: u64 },

    /// The connection is reset before any byte of the answer, on a fresh connection too \[U6\].
    Reset,
    /// The same, but only on a connection that carried a request before. It does not fall on other calls \[U6\].
    ResetReused,
    /// A reset after so many bytes of the body (default: half) \[U7\].
    ResetBody { keep: Option<usize> },
    /// The connection ends before any byte of the answer, on a fresh one too \[U6\].
    Close,
    /// Nothing for so long, to 24 h; then the connection ends \[U2\].
    Stall(Duration),
    /// Half of the head, nothing for so long, to 24 h; then the connection ends \[U2\].
    StallHead(Duration),
    /// The head, half of the body, nothing for so long, to 24 h; then the connection ends \[U3\].
    StallBody(Duration),
    /// A byte of the body each so often, 1 ms to 1 h. The connection ends after 10 minutes, finished or not \[U3\].
    Drip(Duration),

    /// `Content-Length` is so many bytes, to 1,000,000, above the body's, and then the connection ends \[U7\].
    LongLength(u32),
    /// `Content-Length` is so many bytes below the body's; all of them come \[U8, U15\].
    ShortLength(u32),
    /// The right `Content-Length`, and one above it \[U15\].
    TwoLengths,
    /// `Content-Length` and `Transfer-Encoding`, and the body in chunks \[U15\].
    LengthAndChunks,
    /// Half of the body in a chunk, then a chunk whose size is no number \[U15\].
    BadChunk,
    /// The whole body in a chunk, and the connection ends without the last one \[U7\].
    NoLastChunk,

    /// So many headers before the page, 1 to 100,000 \[U15\].
    ManyHeaders(u32),
    /// A header of so many bytes before the page, 1 KiB to 64 MiB \[U15\].
    HugeHeader { bytes: u64 },
    /// So many answers 100 and 103, in turn, before the right one; 1 to 1,000,000 \[U14\].
    Informational(u32),
    /// 101, nothing for so long, to 24 h; then the connection ends \[U14\].
    Switching(Duration),
    /// Something else than a status line, and the end \[U15\].
    Garbage,
    /// The body without a head, as in HTTP/0.9, and the end \[U15\].
    NoHead,
    /// An answer that nobody asked for, so long after the right one, to 24 h: before or after the connection is used again
    /// \[U15\].
    SecondAnswer(Duration),
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
    /// An answer with this status and the body that goes with it.
    pub fn status(status: StatusCode) -> Self {
        Self::Status {
            status,
            headers: HeaderMap::new(),
            body: None,
        }
    }
}
