//! What looks like an encrypted payload where a page should be: so that an operator hears of the one setting to change.
//!
//! Kore.ai documents that a JWT app may enforce payload encryption, but neither its envelope's keys nor its cipher. So
//! what counts is the shape: no records, and a member that calls itself encrypted or a long text that nobody wrote.

use serde_json::Value;

use crate::error::{Error, Kind};

/// The shortest text that is taken for one: 48 bytes in base64, fewer than any wrapped key has.
const TEXT_MIN: usize = 64;

/// Members of an envelope and what is below them, at most: what is larger is something else.
const VALUES_MAX: usize = 32;

/// The fault that an answer has instead of a page, told so that it can be cured if the answer looks encrypted.
pub(super) fn recognise(error: Error, body: &[u8]) -> Error {
    let may_be = matches!(
        error.kind(),
        Kind::UpstreamSchema | Kind::UpstreamInvalidBody
    );
    if !may_be || !std::str::from_utf8(body).is_ok_and(is_likely) {
        return error;
    }
    let detail = "upstream's answer looks encrypted: the account's JWT app must not enforce payload encryption, which is not supported";
    Error::new(error.kind(), detail).because("no page, but a long coded text")
}

/// Whether a body that is no page looks like an encrypted one.
fn is_likely(body: &str) -> bool {
    let Ok(body) = serde_json::from_str::<Value>(body) else {
        // Not even JSON: a JWE in its compact form says so by its header.
        return body.starts_with("eyJ")
            && body.split('.').count() == 5
            && is_coded(body.trim_end());
    };
    if body.get("results").is_some_and(Value::is_array) {
        return false;
    }
    let mut values = vec![&body];
    for at in 0..VALUES_MAX {
        let Some(value) = values.get(at).copied() else {
            return false;
        };
        match value {
            Value::String(text) if is_coded(text) => return true,
            Value::Object(members) if members.iter().any(says_so) => return true,
            Value::Object(members) => values.extend(members.values().take(VALUES_MAX)),
            Value::Array(items) => values.extend(items.iter().take(VALUES_MAX)),
            _ => {}
        }
    }
    false
}

/// A member whose name says what its text is.
fn says_so((name, value): (&String, &Value)) -> bool {
    let name = name.to_ascii_lowercase();
    value.is_string()
        && ["encrypted", "cipher"]
            .iter()
            .any(|word| name.contains(word))
}

/// Base64 in any alphabet, hexadecimal, or several of them with points between.
fn is_coded(text: &str) -> bool {
    let fits =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_' | b'.');
    text.len() >= TEXT_MIN && text.bytes().all(fits) && text.bytes().any(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_that_nobody_wrote_are_known() {
        let coded = "bm90IHJlYWxseSBlbmNyeXB0ZWQsIGJ1dCBpdCBsb29rcyBhcyBpZiBpdCB3ZXJlIDEyMw==";
        let jwe = format!("eyJhbGciOiJSU0EtT0FFUCJ9.{coded}.aXY.dGV4dA.dGFn");
        let records = format!(r#"{{"results":[{{"_id":"1","note":"{coded}"}}]}}"#);
        for (body, expected) in [
            (format!(r#"{{"encryptedKey":"{coded}","payload":"{coded}"}}"#), true),
            (r#"{"encryptedKey":"3q2+7w==","iv":"AAAA"}"#.to_owned(), true),
            (r#"{"encrypted":false}"#.to_owned(), false),
            (format!(r#"{{"results":"{coded}","skip":0,"limit":10}}"#), true),
            (format!(r#"{{"data":{{"iv":"aXY=","x":["{coded}"]}}}}"#), true),
            (format!("\"{coded}\""), true),
            (format!("\"{}\"", "0123456789abcdef".repeat(4)), true),
            (jwe, true),
            (records, false),
            (r#"{"errors":[{"msg":"Something that somebody wrote, and that is longer than sixty-four characters","code":1}]}"#.to_owned(), false),
            (format!(r#"{{"id":"{}"}}"#, "x".repeat(100)), false),
            (format!(r#"{{"id":"{}"}}"#, &coded[..40]), false),
            ("<html>".to_owned(), false),
            ("null".to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(is_likely(&body), expected, "{body}");
        }
    }

    #[test]
    fn the_code_stays_and_the_detail_says_what_to_do() {
        let coded = "0123456789abcdef".repeat(4);
        let body = format!(r#"{{"key":"{coded}"}}"#);
        for kind in [Kind::UpstreamSchema, Kind::UpstreamTooLarge] {
            let error = recognise(Error::new(kind, "before"), body.as_bytes());
            assert_eq!(error.kind(), kind);
            let named = kind == Kind::UpstreamSchema;
            assert_eq!(error.detail().contains("looks encrypted"), named);
            assert!(!format!("{error:?}").contains(&coded));
        }
    }
}
