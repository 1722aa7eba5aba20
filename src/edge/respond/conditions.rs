//! Conditional requests: whether the caller has it already (RFC 9110, section 13.1.2).

use http::{HeaderMap, HeaderValue, header::IF_NONE_MATCH};

/// What a caller says that it has. Absent from nearly all requests, and then nothing is kept.
#[derive(Debug, Default)]
pub(super) struct Conditions(Option<Box<[HeaderValue]>>);

impl Conditions {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let said = || headers.get_all(IF_NONE_MATCH).iter().cloned().collect();
        Self(headers.contains_key(IF_NONE_MATCH).then(said))
    }

    pub(super) fn are_none(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the caller has what this strong ETag names. Weak ones count as well (section 8.8.3.2): a body that is as
    /// good need not be sent either.
    pub(super) fn met_by(&self, etag: &[u8]) -> bool {
        let mut lines = self.lines();
        lines.any(|line| line.trim_ascii() == b"*") || self.name(etag)
    }

    /// Whether it is this very tag that the caller has.
    pub(super) fn name(&self, etag: &[u8]) -> bool {
        self.lines().any(|line| tags(line).any(|tag| tag == etag))
    }

    fn lines(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().flatten().map(HeaderValue::as_bytes)
    }
}

/// The tags of a list with their quotes, without what makes them weak. What is no tag ends it.
fn tags(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = line;
    std::iter::from_fn(move || {
        let start = rest.iter().position(|byte| !b" \t,".contains(byte))?;
        let tag = &rest[start..];
        let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
        let opaque = tag.strip_prefix(b"\"")?;
        let length = opaque.iter().position(|byte| *byte == b'"')? + 2;
        rest = &tag[length..];
        Some(&tag[..length])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_wherever_it_stands() {
        for (lines, met) in [
            (&[][..], false),
            (&["*"], true),
            (&[" * "], true),
            (&["\"a\""], true),
            (&["W/\"a\""], true),
            (&["\"b\", \"a\""], true),
            (&["\"b\",W/\"a\""], true),
            (&["\"b\"", "\"a\""], true),
            (&[",, \"a\""], true),
            // A comma and a star may stand inside a tag.
            (&["\"x,\", \"a\""], true),
            (&["\"*\""], false),
            (&["\"A\""], false),
            (&["a"], false),
            (&["\"a"], false),
            (&["\"\""], false),
            (&["w/\"a\""], false),
            (&["\"b\" x, \"a\""], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(IF_NONE_MATCH, HeaderValue::from_static(line));
            }
            let met_by = Conditions::of(&headers).met_by(b"\"a\"");
            assert_eq!(met_by, met, "{lines:?}");
        }
    }
}
