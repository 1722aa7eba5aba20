//! Refusals that only their text tells: Kore.ai documents the words of its rate limit, but neither a status nor a shape.
//!
//! What looks like a page is never read this way, however broken it is: a contact may be called anything.

use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Kind};

/// How much of an answer that is no page is read for its words, in bytes.
pub(super) const TEXT_MAX: u64 = 4 * 1024;

/// Whether an answer with this fault may be a refusal in disguise.
pub(super) fn may_tell(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::Upstream4xx
            | Kind::Upstream5xx
            | Kind::UpstreamWrongType
            | Kind::UpstreamSchema
            | Kind::UpstreamInvalidBody
    )
}

/// The fault, or that it was the rate limit's doing.
///
/// `told` is upstream's own word for how long to wait.
pub(super) fn recognise(error: Error, text: &Bytes, told: Option<Duration>) -> Error {
    if !may_tell(&error) || !says_rate_limit(text) {
        return error;
    }
    let limited = Error::new(
        Kind::UpstreamRateLimited,
        "the account's calls in this minute are used up",
    );
    match told {
        Some(wait) => limited.retry_after(wait),
        None => limited,
    }
}

/// Whether a text has the documented words, and is not a page that happens to hold them.
fn says_rate_limit(text: &[u8]) -> bool {
    let text = text.to_ascii_lowercase();
    let has = |words: &[u8]| text.windows(words.len()).any(|window| window == words);
    text.len() as u64 <= TEXT_MAX && has(b"rate limit") && !has(b"\"results\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_words_are_known_and_pages_are_left_alone() {
        for (text, expected) in [
            (
                r#"{"errors":[{"msg":"You've exceeded the per-minute rate limit. Please wait for sometime before retrying."}]}"#,
                true,
            ),
            (
                "Rate limit for this API has been reached. Please try again after some time.",
                true,
            ),
            (
                r#"{"status":"error","message":"You've exceeded the hourly rate limit."}"#,
                true,
            ),
            (
                r#"{"errors":[{"msg":"Invalid StreamId","code":400}]}"#,
                false,
            ),
            (r#"{"results":[{"firstName":"rate limit"}]}"#, false),
            ("", false),
        ] {
            assert_eq!(says_rate_limit(text.as_bytes()), expected, "{text}");
        }
        let long = format!("rate limit{}", " ".repeat(5000));
        assert!(!says_rate_limit(long.as_bytes()));
    }

    #[test]
    fn only_what_may_be_a_refusal_is_read_as_one() {
        let text = Bytes::from_static(b"rate limit");
        for kind in Kind::ALL {
            let read = recognise(Error::new(*kind, ""), &text, None).kind();
            let expected = if may_tell(&Error::new(*kind, "")) {
                Kind::UpstreamRateLimited
            } else {
                *kind
            };
            assert_eq!(read, expected);
        }
    }
}
