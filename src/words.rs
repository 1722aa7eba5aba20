//! Numbers and lengths of time, as sentences tell them.

use std::{fmt, time::Duration};

/// So many of something, as in `1 call` and `2 calls`.
pub fn numbered<N>(count: N, one: &str, many: &str) -> String
where
    N: Copy + fmt::Display + From<u8> + PartialEq,
{
    let what = if count == N::from(1) { one } else { many };
    format!("{count} {what}")
}

/// A length of time, to the second.
pub fn in_words(length: Duration) -> String {
    // A rest of a fraction of a second is not over yet.
    let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
    humantime::format_duration(Duration::from_secs(seconds)).to_string()
}
