//! What a token service answers: a JSON document with a token in it, of which only the end is read. Pure.
//!
//! The token is not verified, which is upstream's business; but what is no token at all is not sent there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use serde_json::Value;

use super::{Failed, Failure};

/// The longest token that is taken, in bytes: what fits into a header everywhere.
const TOKEN_MAX: usize = 8 * 1024;

/// The longest life that is believed. Longer ones are asked for again by then.
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The shortest that is of use: a token must be sent, and arrive.
const LIFE_MIN: Duration = Duration::from_secs(2);

/// Years beyond 5000: such an `exp` is in milliseconds, as some services write it.
const MILLISECONDS_FROM: f64 = 1e11;

/// A token, and when it ends.
#[derive(Debug)]
pub(in crate::upstream::token) struct Issued {
    /// Marked as sensitive, so that its `Debug` shows nothing.
    pub(in crate::upstream::token) header: HeaderValue,
    pub(in crate::upstream::token) issued: SystemTime,
    pub(in crate::upstream::token) expires: SystemTime,
}

/// Reads an answer. `lifetime` is that of a token without `exp`.
pub(super) fn read(
    body: &[u8],
    pointer: &str,
    lifetime: Duration,
    now: SystemTime,
) -> Result<Issued, Failed> {
    let nonsense = |what: &str| Failure::Nonsense.because(what);
    // The parser's own complaint has a place and may have a word of the answer.
    let answer: Value = serde_json::from_slice(body).map_err(|_| nonsense("no JSON"))?;
    let token = answer.pointer(pointer);
    let token = token.ok_or_else(|| nonsense("nothing at token.service.pointer"))?;
    let token = token.as_str();
    let token = token.ok_or_else(|| nonsense("no text at token.service.pointer"))?;
    let end = match token.split('.').count() {
        _ if !is_compact(token) => return Err(nonsense("no JWT at token.service.pointer")),
        3 => exp(token).ok_or_else(|| nonsense("a JWT whose claims cannot be read"))?,
        // Encrypted (JWE), so that its claims are upstream's alone.
        5 => None,
        _ => return Err(nonsense("no JWT at token.service.pointer")),
    };
    let expires = match end {
        Some(end) => end.min(now + LIFE_MAX),
        None => now + lifetime,
    };
    if expires < now + LIFE_MIN {
        return Err(Failure::Expired.because("compare the clocks, and how long its tokens live"));
    }
    let mut header = HeaderValue::from_str(token).map_err(|_| nonsense("no header value"))?;
    header.set_sensitive(true);
    Ok(Issued {
        header,
        issued: now,
        expires,
    })
}

/// Whether a text may be a JWT or JWE in compact form.
fn is_compact(token: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    token.len() <= TOKEN_MAX && !token.starts_with('.') && token.bytes().all(fits)
}

/// A JWT's `exp`, if it has one; `None` if its claims cannot be read, or `exp` is no time.
fn exp(token: &str) -> Option<Option<SystemTime>> {
    let decoded = jsonwebtoken::dangerous::insecure_decode::<Value>(token).ok()?;
    let Some(exp) = decoded.claims.as_object()?.get("exp") else {
        return Some(None);
    };
    let exp = exp.as_f64().filter(|exp| *exp >= 0.0)?;
    let seconds = if exp < MILLISECONDS_FROM {
        exp
    } else {
        exp / 1000.0
    };
    let since = Duration::try_from_secs_f64(seconds).ok()?;
    UNIX_EPOCH.checked_add(since).map(Some)
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn jwt(claims: &Value) -> String {
        let key = EncodingKey::from_secret(b"s");
        jsonwebtoken::encode(&Header::default(), claims, &key).unwrap()
    }

    /// Seconds that a token is good for, or what is wrong with the answer.
    fn life(body: &str, pointer: &str) -> Result<u64, Failure> {
        let now = UNIX_EPOCH + Duration::from_secs(NOW);
        let read = read(body.as_bytes(), pointer, Duration::from_secs(600), now);
        let life = |issued: Issued| issued.expires.duration_since(now).unwrap().as_secs();
        read.map(life).map_err(|failed| failed.failure)
    }

    #[test]
    fn the_end_is_the_tokens_own_or_the_configured_one() {
        for (claims, expected) in [
            (json!({"exp": NOW + 100}), Ok(100)),
            (json!({"exp": NOW as f64 + 100.5}), Ok(100)),
            (json!({"exp": (NOW + 100) * 1000}), Ok(100)),
            (json!({"sub": "x"}), Ok(600)),
            (json!({"exp": NOW + 10_000_000}), Ok(24 * 3600)),
            (json!({"exp": u64::MAX}), Ok(24 * 3600)),
            (json!({"exp": NOW + 1}), Err(Failure::Expired)),
            (json!({"exp": NOW - 100}), Err(Failure::Expired)),
            (json!({"exp": 0}), Err(Failure::Expired)),
            (json!({"exp": -1}), Err(Failure::Nonsense)),
            (json!({"exp": "soon"}), Err(Failure::Nonsense)),
            (json!({"exp": null}), Err(Failure::Nonsense)),
            (json!({"exp": 1e300}), Err(Failure::Nonsense)),
            (json!([1]), Err(Failure::Nonsense)),
        ] {
            let answer = json!({ "jwt": jwt(&claims) }).to_string();
            assert_eq!(life(&answer, "/jwt"), expected, "{claims}");
        }
    }

    #[test]
    fn the_token_is_where_the_pointer_says_and_looks_like_one() {
        let token = jwt(&json!({"exp": NOW + 100}));
        let long = jwt(&json!({"exp": NOW + 100, "x": "y".repeat(8 * 1024)}));
        let good = |pointer: &str, answer: Value| (pointer.to_owned(), answer.to_string(), Ok(100));
        let bad = |answer: &str| ("/jwt".to_owned(), answer.to_owned(), Err(Failure::Nonsense));
        let jwt = |token: &str| json!({ "jwt": token }).to_string();
        for (pointer, answer, expected) in [
            good("/jwt", json!({"jwt": token})),
            good("/data/tokens/0", json!({"data": {"tokens": [token]}})),
            good("", json!(token)),
            good("/a~1b", json!({"a/b": token})),
            (
                "/jwt".to_owned(),
                jwt("aGVhZA.a2V5.aXY.dGV4dA.dGFn"),
                Ok(600),
            ),
            bad(""),
            bad("<html>"),
            bad(&token),
            bad("{\"jwt\":"),
            bad("null"),
            bad("{}"),
            bad(r#"{"jwt":7}"#),
            bad(r#"{"jwt":null}"#),
            bad(&jwt("")),
            bad(&jwt("secret")),
            bad(&jwt("..")),
            bad(&jwt("a.b.c")),
            bad(&jwt("a.b.c.d")),
            bad(&jwt(&format!("Bearer {token}"))),
            bad(&jwt(&format!("{token}\r\nx: y"))),
            bad(&jwt(&long)),
            bad(&"[".repeat(100_000)),
        ] {
            assert_eq!(life(&answer, &pointer), expected, "{pointer}");
        }
    }

    #[test]
    fn what_is_said_of_a_bad_answer_holds_nothing_of_it() {
        for body in [
            "CANARY",
            r#"{"CANARY":1}"#,
            r#"{"jwt":"CANARY"}"#,
            r#"{"jwt":"CANARY"#,
        ] {
            let failed = read(body.as_bytes(), "/jwt", Duration::ZERO, UNIX_EPOCH).unwrap_err();
            assert!(!format!("{failed:?}").contains("CANARY"), "{failed:?}");
        }
    }

    proptest! {
        /// Whatever comes, nothing panics, and what is taken is of use.
        #[test]
        fn any_answer_is_judged(body: Vec<u8>, text: String, exp in any::<f64>()) {
            let now = UNIX_EPOCH + Duration::from_secs(NOW);
            let claims = json!({ "exp": exp });
            for body in [&body[..], json!({"jwt": text}).to_string().as_bytes(), json!({"jwt": jwt(&claims)}).to_string().as_bytes()] {
                if let Ok(issued) = read(body, "/jwt", Duration::from_secs(600), now) {
                    prop_assert!(issued.expires >= now + LIFE_MIN && issued.expires <= now + LIFE_MAX);
                    prop_assert!(issued.header.is_sensitive());
                }
            }
        }
    }
}
