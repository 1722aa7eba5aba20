//! The table of faults that `--help`, the control interface and the parser's messages print.

use super::Fault;

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
        (
            "denied=scope",
            "401: credentials, token, scope, scope-message, jti-expiry, replay, no-jti or authenticate",
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
        (
            "encoding=gzip",
            "a Content-Encoding that does not fit; an unknown one: `encoding=x-none`",
        ),
        ("gzip", "the page, compressed"),
        ("gzip-twice", "the page, compressed twice"),
        (
            "gzip-bomb=1GiB",
            "so many bytes, a thousandth of it on the wire",
        ),
        (
            "gzip-bomb-twice=1GiB",
            "so many bytes, a millionth of it on the wire",
        ),
        ("reset", "a reset before any byte"),
        (
            "reset-reused",
            "the same, on a connection that carried a call before; other calls are not counted",
        ),
        (
            "reset-body",
            "a reset inside the body; `reset-body=100` after so many bytes",
        ),
        ("close", "an end before any byte"),
        ("stall=60s", "nothing for so long, then an end"),
        ("stall-head=60s", "the same inside the head"),
        ("stall-body=60s", "the same inside the body"),
        (
            "drip=100ms",
            "a byte of the body each so often, for 10 minutes at most",
        ),
        (
            "long-length=1",
            "a length of so many bytes more than come before the end",
        ),
        ("short-length=1", "a length of so many bytes less than come"),
        ("two-lengths", "two lengths, one of them right"),
        ("length-and-chunks", "a length and chunks"),
        ("bad-chunk", "a chunk's size that is no number"),
        (
            "no-last-chunk",
            "the whole page, and the end where the last chunk belongs",
        ),
        ("many-headers=1000", "so many headers before the page"),
        ("huge-header=1MiB", "a header of this size before the page"),
        (
            "informational=1000",
            "so many answers 100 and 103 before the right one",
        ),
        ("switching=60s", "101, nothing for so long, then an end"),
        ("garbage", "bytes that are no status line, then an end"),
        ("no-head", "a body without a head, then an end"),
        (
            "second-answer=0s",
            "an answer that nobody asked for, so long after the right one",
        ),
    ];
}
