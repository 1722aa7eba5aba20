//! Who may call, judged as Kore.ai's public API is seen to judge: everything about a call that does not fit together gets one
//! and the same answer, and only what is no JWT at all gets another.
//!
//! What happens to an `accountId` that is unknown, missing or there twice is documented nowhere. The simulator answers it as
//! it answers a wrong stream: from outside, both are an app that may not read what it asks for.
//!
//! Each check is a line in [`Credential::check`]: further algorithms, the refusal of a used `jti` and the one-hour rule
//! that comes with it join there.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, StatusCode};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

/// Why a call is not answered with contacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denial {
    /// No token, a tampered or expired one, another app's, an unknown account, or a stream that the app may not read.
    Credentials,
    /// What the header `auth` holds is no JWT.
    NotAToken,
}

impl Denial {
    pub(super) fn status(self) -> StatusCode {
        StatusCode::UNAUTHORIZED
    }

    pub(super) fn body(self) -> &'static str {
        match self {
            Self::Credentials => r#"{"errors":[{"msg":"Invalid SDK credentials","code":4002}]}"#,
            Self::NotAToken => r#"{"errors":[{"msg":"Invalid JWT token","code":4002}]}"#,
        }
    }
}

/// The token of a call: what its one `auth` header holds.
pub(super) fn token(headers: &HeaderMap) -> Result<&str, Denial> {
    let mut all = headers.get_all("auth").iter();
    match (all.next(), all.next()) {
        (Some(token), None) if !token.is_empty() => token.to_str().map_err(|_| Denial::NotAToken),
        _ => Err(Denial::Credentials),
    }
}

/// Whether this is a JWT at all, told before anything about accounts or streams is.
pub(super) fn is_token(token: &str) -> Result<(), Denial> {
    let claims = jsonwebtoken::dangerous::insecure_decode::<
        serde_json::Map<String, serde_json::Value>,
    >(token);
    claims.map(drop).map_err(|_| Denial::NotAToken)
}

/// The JWT app of one account.
pub(super) struct Credential {
    client_id: String,
    client_secret: SecretString,
    key: DecodingKey,
    validation: Validation,
}

/// Times are numbers of any kind, as the platform is seen to accept fractions and milliseconds.
#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "appId")]
    app_id: String,
    exp: Option<f64>,
}

#[derive(Serialize)]
struct Minted<'a> {
    sub: &'static str,
    #[serde(rename = "appId")]
    app_id: &'a str,
    iat: u64,
    exp: u64,
}

impl Credential {
    pub(super) fn new(client_id: &str, client_secret: &SecretString) -> Self {
        let mut validation = Validation::new(Algorithm::HS256);
        // Only `exp` is judged, below: tokens without any of these claims are the vendor's own default.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        Self {
            client_id: client_id.to_owned(),
            // The secret's text is the key, although it looks like base64.
            key: DecodingKey::from_secret(client_secret.expose_secret().as_bytes()),
            client_secret: client_secret.clone(),
            validation,
        }
    }

    /// Whether this token opens the account, at this moment.
    pub(super) fn check(&self, token: &str, now: SystemTime) -> Result<(), Denial> {
        let decoded = jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation);
        let Ok(decoded) = decoded else {
            // The same bytes tell a broken token from a wrong one; only this slow path asks which.
            is_token(token)?;
            return Err(Denial::Credentials);
        };
        let expired = decoded
            .claims
            .exp
            .is_some_and(|exp| exp <= unix(now).as_secs_f64());
        if decoded.claims.app_id != self.client_id || expired {
            return Err(Denial::Credentials);
        }
        Ok(())
    }

    /// A token that opens the account for so long from `now`.
    pub(super) fn mint(&self, now: SystemTime, lifetime: Duration) -> String {
        let claims = Minted {
            sub: "simulator",
            app_id: &self.client_id,
            iat: unix(now).as_secs(),
            exp: unix(now).saturating_add(lifetime).as_secs(),
        };
        let key = EncodingKey::from_secret(self.client_secret.expose_secret().as_bytes());
        // An HMAC over claims of our own cannot fail; if it ever did, an empty token would be refused and seen.
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap_or_default()
    }
}

fn unix(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "c2VjcmV0IHRoYXQgbG9va3MgbGlrZSBiYXNlNjQ=";

    fn credential() -> Credential {
        Credential::new("cs-1", &SecretString::from(SECRET))
    }

    fn signed(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
        jsonwebtoken::encode(
            &Header::new(algorithm),
            claims,
            &EncodingKey::from_secret(secret),
        )
        .unwrap()
    }

    fn check(token: &str) -> Result<(), Denial> {
        credential().check(token, UNIX_EPOCH + Duration::from_secs(1_000))
    }

    #[test]
    fn what_it_mints_opens_until_it_expires() {
        let token = credential().mint(
            UNIX_EPOCH + Duration::from_secs(900),
            Duration::from_secs(60),
        );
        let at = |seconds| credential().check(&token, UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(959), Ok(()));
        assert_eq!(at(960), Err(Denial::Credentials));
    }

    #[test]
    fn only_the_app_and_its_own_signature_open() {
        let hs256 = |claims| check(&signed(Algorithm::HS256, SECRET.as_bytes(), &claims));
        assert_eq!(
            hs256(json!({"appId": "cs-1"})),
            Ok(()),
            "claims of time are optional"
        );
        assert_eq!(hs256(json!({"appId": "cs-1", "exp": 1_000_500.5})), Ok(()));
        assert_eq!(
            hs256(json!({"appId": "cs-1", "exp": 999})),
            Err(Denial::Credentials)
        );
        assert_eq!(
            hs256(json!({"appId": "cs-1", "exp": "soon"})),
            Err(Denial::Credentials)
        );
        assert_eq!(hs256(json!({"appId": "cs-2"})), Err(Denial::Credentials));
        assert_eq!(hs256(json!({"appid": "cs-1"})), Err(Denial::Credentials));
        let app = json!({"appId": "cs-1"});
        assert_eq!(
            check(&signed(Algorithm::HS512, SECRET.as_bytes(), &app)),
            Err(Denial::Credentials)
        );
        assert_eq!(
            check(&signed(Algorithm::HS256, b"other", &app)),
            Err(Denial::Credentials)
        );
        let decoded = b"secret that looks like base64";
        assert_eq!(
            check(&signed(Algorithm::HS256, decoded, &app)),
            Err(Denial::Credentials)
        );
    }

    #[test]
    fn a_tampered_token_is_wrong_and_a_text_is_no_token() {
        let token = signed(
            Algorithm::HS256,
            SECRET.as_bytes(),
            &json!({"appId": "cs-1"}),
        );
        let (head, signature) = token.rsplit_once('.').unwrap();
        let tampered = format!("{head}.{}", signature.chars().rev().collect::<String>());
        assert_eq!(check(&tampered), Err(Denial::Credentials));
        for text in ["x", "a.b.c", "Bearer x", ".."] {
            assert_eq!(check(text), Err(Denial::NotAToken), "{text}");
        }
    }
}
