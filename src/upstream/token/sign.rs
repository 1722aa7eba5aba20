//! A signer: a secret that is good for its algorithm, and the JWTs that it makes.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand;
use jsonwebtoken::{EncodingKey, Header};
use serde::Serialize;

use crate::{
    contacts::account::{Algorithm, Claims},
    upstream::secret::{Secret, SecretProblem, Source},
};

/// Signs with one secret.
#[derive(Debug)]
pub(crate) struct Signer {
    algorithm: jsonwebtoken::Algorithm,
    /// Wiped when it is dropped, and its `Debug` shows nothing.
    key: EncodingKey,
    /// Kept to know it again.
    secret: Secret,
}

/// The secret cannot sign with this algorithm.
#[derive(Debug, thiserror::Error)]
#[error("is no RSA private key of at least 2048 bits in PEM (PKCS#8 or PKCS#1), which {0:?} needs")]
pub(crate) struct Unusable(Algorithm);

/// The time does not fit into a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsigned {
    #[error("the clock stands before 1970")]
    Clock,
    #[error("the system has no random numbers")]
    Random,
    #[error("the claims could not be signed")]
    Signature,
}

/// What is to stand in a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    /// The client id.
    pub(super) app: &'a str,
    pub(super) issued: SystemTime,
    pub(super) expires: SystemTime,
    /// Whether it gets a `jti`, so that it is good for one call.
    pub(super) once: bool,
    pub(super) claims: &'a Claims,
}

/// What Kore.ai reads in a token for its public APIs; `appId` in exactly this spelling.
#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "appId")]
    app: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'static str>,
    iat: u64,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    #[serde(flatten)]
    claims: &'a Claims,
}

impl Signer {
    /// # Errors
    /// If the secret is no key of the algorithm. Any text is one for HS256 and HS512.
    pub(crate) fn new(secret: &Secret, algorithm: Algorithm) -> Result<Self, Unusable> {
        let bytes = secret.expose().as_bytes();
        let unusable = || Unusable(algorithm);
        let key = match algorithm {
            // The literal string: what looks like base64 is not decoded.
            Algorithm::HS256 | Algorithm::HS512 => EncodingKey::from_secret(bytes),
            Algorithm::RS256 | Algorithm::RS512 => {
                EncodingKey::from_rsa_pem(bytes).map_err(|_| unusable())?
            }
        };
        let algorithm = match algorithm {
            Algorithm::HS256 => jsonwebtoken::Algorithm::HS256,
            Algorithm::HS512 => jsonwebtoken::Algorithm::HS512,
            Algorithm::RS256 => jsonwebtoken::Algorithm::RS256,
            Algorithm::RS512 => jsonwebtoken::Algorithm::RS512,
        };
        // Reading a PEM does not look at the key in it; signing does.
        jsonwebtoken::encode(&Header::new(algorithm), &(), &key).map_err(|_| unusable())?;
        Ok(Self {
            algorithm,
            key,
            secret: secret.clone(),
        })
    }

    /// The signer for what is in a place now. Blocking.
    ///
    /// # Errors
    /// If the secret cannot be read or used.
    pub(crate) fn read(source: &Source, algorithm: Algorithm) -> Result<Self, SecretProblem> {
        let unusable = |why: Unusable| source.unusable(why.to_string());
        Self::new(&source.read()?, algorithm).map_err(unusable)
    }

    /// Whether both were made of one secret.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        self.secret.expose() == other.secret.expose()
    }

    /// A JWT. Some microseconds with HS256, a millisecond or two with RS512.
    pub(super) fn sign(&self, order: Order<'_>) -> Result<String, Unsigned> {
        let seconds = |time: SystemTime| match time.duration_since(UNIX_EPOCH) {
            Ok(since) => Ok(since.as_secs()),
            Err(_) => Err(Unsigned::Clock),
        };
        let payload = Payload {
            app: order.app,
            sub: (!order.claims.contains("sub")).then_some("contacts-gateway"),
            iat: seconds(order.issued)?,
            exp: seconds(order.expires)?,
            jti: if order.once { Some(jti()?) } else { None },
            claims: order.claims,
        };
        jsonwebtoken::encode(&Header::new(self.algorithm), &payload, &self.key)
            .map_err(|_| Unsigned::Signature)
    }
}

/// 128 random bits as text: no two are the same.
fn jti() -> Result<String, Unsigned> {
    let mut bits = [0; 16];
    rand::fill(&mut bits).map_err(|_| Unsigned::Random)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bits)))
}

#[cfg(test)]
mod tests;
