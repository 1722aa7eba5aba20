//! The one path there is: `/agentassist/api/v1/public/{streamId}/contacts`.

use std::borrow::Cow;

use crate::{
    contacts::ids::is_plain,
    error::{Error, Kind, Result},
};

/// The stream's id, decoded exactly once. A slash that was encoded stays part of the id, and makes it a bad one.
pub(super) fn stream(path: &str) -> Result<Cow<'_, str>> {
    let id = path
        .strip_prefix("/agentassist/api/v1/public/")
        .and_then(|rest| rest.strip_suffix("/contacts"))
        .filter(|id| !id.contains('/'))
        .ok_or_else(|| {
            Error::new(
                Kind::NotFound,
                "contacts are at /agentassist/api/v1/public/{streamId}/contacts",
            )
        })?;
    decode(id).filter(|id| is_plain(id)).ok_or_else(bad_stream)
}

pub(super) fn bad_stream() -> Error {
    Error::new(
        Kind::BadStream,
        "a stream id is 1 to 128 of A-Z, a-z, 0-9, - and _",
    )
}

/// Undoes percent-encoding of ASCII, once; `None` for anything else that is encoded.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut pieces = text.split('%');
    let mut decoded = pieces.next()?.to_owned();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        // `from_str_radix` would take a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let byte = u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)?;
        decoded.push(char::from(byte));
        decoded.push_str(rest);
    }
    Some(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(id: &str) -> std::result::Result<String, Kind> {
        let path = format!("/agentassist/api/v1/public/{id}/contacts");
        stream(&path)
            .map(Cow::into_owned)
            .map_err(|error| error.kind())
    }

    #[test]
    fn ids_are_decoded_exactly_once() {
        assert_eq!(outcome("st-1"), Ok("st-1".to_owned()));
        assert_eq!(outcome("s%74-1"), Ok("st-1".to_owned()));
        assert_eq!(outcome("%73%74%2D1"), Ok("st-1".to_owned()));
        assert_eq!(outcome("s%2574-1"), Err(Kind::BadStream));
    }

    #[test]
    fn nothing_else_is_an_id() {
        let long = "x".repeat(129);
        for id in [
            "", "..%2f", "%2e%2e", "%00", "%0d%0a", "%252f", "a;b", "a\\b", "a b", "%c3%a9", "é",
            "a%", "a%2", "a%+1", "a%zz", "*", "a.b", &long,
        ] {
            assert_eq!(outcome(id), Err(Kind::BadStream), "{id}");
        }
    }

    #[test]
    fn no_other_path() {
        for path in [
            "/",
            "",
            "*",
            "/agentassist/api/v1/public/st-1/contacts/",
            "/agentassist/api/v1/public/st-1/contacts.css",
            "/agentassist/api/v1/public/st-1/contacts;x",
            "/agentassist/api/v1/public/st-1/Contacts",
            "/agentassist/api/v1/public/st-1/contacts/667e48",
            "/agentassist/api/v1/public/../public/st-1/contacts",
            "//agentassist/api/v1/public/st-1/contacts",
            "/agentassist/api/v1/public/a/b/contacts",
            "/agentassist/api/v1/public/contacts",
        ] {
            assert_eq!(stream(path).unwrap_err().kind(), Kind::NotFound, "{path}");
        }
    }
}
