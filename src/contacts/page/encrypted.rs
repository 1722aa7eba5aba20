//! What looks like an encrypted payload where a page should be: so that an operator hears of the one setting to change.
//!
//! Kore.ai documents that a JWT app may enforce payload encryption, but neither its envelope's keys nor its cipher. So
//! what counts is the shape: no records, and a long text that nobody wrote.

use serde_json::Value;

/// The shortest text that is taken for one: 48 bytes in base64, fewer than any wrapped key has.
const TEXT_MIN: usize = 64;

/// Members of an envelope and what is below them, at most: what is larger is something else.
const VALUES_MAX: usize = 32;

/// Whether a body that is no page looks like an encrypted one.
pub(super) fn is_likely(body: &str) -> bool {
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
            Value::Object(members) => values.extend(members.values().take(VALUES_MAX)),
            Value::Array(items) => values.extend(items.iter().take(VALUES_MAX)),
            _ => {}
        }
    }
    false
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
}
