//! Who may call, judged as Kore.ai's public API is seen to judge: everything about a call that does not fit together gets one
//! and the same answer, and only what is no JWT at all, a used `jti` and a missing scope get others.
//!
//! A token is judged in this order: signature, app, `exp`, `jti`, scope; the stream comes after it. What has a `jti` must end
//! within an hour, and opens once, whether the app enforces a `jti` or not; without an `exp` it never ends, and is refused as
//! one that ends too late. A `jti` is used up by the first call whose token is otherwise right, whatever becomes of that call.
//!
//! What happens to an `accountId` that is unknown, missing or there twice is documented nowhere. The simulator answers it as
//! it answers a wrong stream: from outside, both are an app that may not read what it asks for.

mod denial;
mod key;
mod seen;
#[cfg(test)]
pub(super) mod tests;

use std::{
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::HeaderMap;
use jsonwebtoken::{Header, Validation};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use denial::Denial;
pub use key::Algorithm;

use super::settings::AccountSettings;
use key::Key;
use seen::{SEEN_MAX, Seen};

/// The most secrets that an app has at the same time.
pub const SECRETS_MAX: usize = 8;

/// How far away the `exp` of a token with a `jti` may be.
const JTI_LIFETIME_MAX: Duration = Duration::from_secs(3600);

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

/// A secret that an app cannot take or give up. None of them shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("an app of {name} needs {need}", name = .0.name(), need = need(*.0))]
    Unusable(Algorithm),
    #[error("the app has no such secret")]
    Unknown,
    #[error("an app has at most {SECRETS_MAX} secrets: revoke one first")]
    TooMany,
}

fn need(algorithm: Algorithm) -> &'static str {
    if algorithm.is_rsa() {
        "an RSA key in PEM, the public one or the private one"
    } else {
        "a secret that is not empty"
    }
}

/// The JWT app of one account.
pub(super) struct Credential {
    client_id: String,
    algorithm: Algorithm,
    enforce_jti: bool,
    scope: bool,
    validation: Validation,
    /// Oldest first; at most `SECRETS_MAX`.
    keys: RwLock<Vec<Key>>,
    memory: Mutex<Memory>,
    minted: AtomicU64,
}

struct Memory {
    tokens: Seen,
    jtis: Seen,
    tally: Tally,
}

/// What an app's tokens came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Different tokens that were signed for the app and had not expired.
    pub(super) tokens: u64,
    /// Calls whose `jti` had been used.
    pub(super) replays: u64,
}

/// Times are numbers of any kind, as the platform is seen to accept fractions and milliseconds.
#[derive(Deserialize)]
struct Claims {
    #[serde(rename = "appId")]
    app_id: String,
    exp: Option<f64>,
    jti: Option<String>,
}

#[derive(Serialize)]
struct Minted<'a> {
    sub: &'static str,
    #[serde(rename = "appId")]
    app_id: &'a str,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
}

impl Credential {
    /// The app of these settings, with all its secrets.
    pub(super) fn new(account: &AccountSettings) -> Result<Self, SecretError> {
        let mut validation = Validation::new(account.algorithm.jwt());
        // Only `exp` is judged, below: tokens without any of these claims are the vendor's own default.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        validation.validate_aud = false;
        let credential = Self {
            client_id: account.client_id.clone(),
            algorithm: account.algorithm,
            enforce_jti: account.enforce_jti,
            scope: account.scope,
            validation,
            keys: RwLock::default(),
            memory: Mutex::new(Memory {
                tokens: Seen::new(SEEN_MAX),
                jtis: Seen::new(SEEN_MAX),
                tally: Tally::default(),
            }),
            minted: AtomicU64::new(0),
        };
        let secrets = std::iter::once(&account.client_secret).chain(&account.more_secrets);
        for secret in secrets {
            credential.add(secret)?;
        }
        Ok(credential)
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// One more secret opens the account. One that does already goes on.
    pub(super) fn add(&self, secret: &SecretString) -> Result<(), SecretError> {
        let key = Key::new(self.algorithm, secret).ok_or(SecretError::Unusable(self.algorithm))?;
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if keys.iter().any(|key| key.is(secret)) {
            return Ok(());
        }
        if keys.len() == SECRETS_MAX {
            return Err(SecretError::TooMany);
        }
        keys.push(key);
        Ok(())
    }

    /// What this secret signed opens nothing from now on. It may be the last one.
    pub(super) fn revoke(&self, secret: &SecretString) -> Result<(), SecretError> {
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let found = keys.iter().position(|key| key.is(secret));
        keys.remove(found.ok_or(SecretError::Unknown)?);
        Ok(())
    }

    /// How many calls each secret opened, the oldest first: secrets are told apart by nothing else.
    pub(super) fn opened(&self) -> Vec<u64> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().map(Key::opened).collect()
    }

    pub(super) fn tally(&self) -> Tally {
        let memory = self.memory.lock();
        memory.unwrap_or_else(PoisonError::into_inner).tally
    }

    /// Whether this token opens the account, at this moment. It remembers the token and its `jti`.
    pub(super) fn check(&self, token: &str, now: SystemTime) -> Result<(), Denial> {
        let Some(claims) = self.claims(token) else {
            // The same bytes tell a broken token from a wrong one; only this slow path asks which.
            is_token(token)?;
            return Err(Denial::Credentials);
        };
        let ends_in = claims.exp.map(|exp| exp - unix(now).as_secs_f64());
        if claims.app_id != self.client_id || ends_in.is_some_and(|left| left <= 0.0) {
            return Err(Denial::Credentials);
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.tally.tokens += u64::from(memory.tokens.is_new(token, now));
        match &claims.jti {
            None if self.enforce_jti => return Err(Denial::NoJti),
            None => {}
            Some(_) if ends_in.is_none_or(|left| left > JTI_LIFETIME_MAX.as_secs_f64()) => {
                return Err(Denial::JtiExpiry);
            }
            Some(jti) if !memory.jtis.is_new(jti, now) => {
                memory.tally.replays += 1;
                return Err(Denial::Replay);
            }
            Some(_) => {}
        }
        if self.scope {
            Ok(())
        } else {
            Err(Denial::Scope)
        }
    }

    /// What a token says that one of the secrets signed.
    fn claims(&self, token: &str) -> Option<Claims> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.iter().find_map(|key| {
            let decoded = jsonwebtoken::decode(token, &key.decoding, &self.validation).ok()?;
            key.opens();
            Some(decoded.claims)
        })
    }

    /// A token that opens the account for so long from `now`, signed with the newest secret that can; with a `jti` of its
    /// own where one is enforced. `None` if none can: all were revoked, or are public keys.
    pub(super) fn mint(&self, now: SystemTime, lifetime: Duration) -> Option<String> {
        let jti = || {
            let number = self.minted.fetch_add(1, Ordering::Relaxed);
            format!("simulator-{number}")
        };
        let claims = Minted {
            sub: "simulator",
            app_id: &self.client_id,
            iat: unix(now).as_secs(),
            exp: unix(now).saturating_add(lifetime).as_secs(),
            jti: self.enforce_jti.then(jti),
        };
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.iter().rev().find_map(|key| key.encoding.as_ref())?;
        jsonwebtoken::encode(&Header::new(self.algorithm.jwt()), &claims, key).ok()
    }
}

fn unix(now: SystemTime) -> Duration {
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}
