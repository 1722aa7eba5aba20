//! What a signature is checked with: a shared secret, or the public half of an RSA key.

use std::sync::atomic::{AtomicU64, Ordering};

use jsonwebtoken::{DecodingKey, EncodingKey, jwk::Jwk};
use secrecy::{ExposeSecret, SecretString};

/// How an app's tokens are signed. For the public APIs only HS256 is documented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "verbatim")]
pub enum Algorithm {
    /// A shared secret, with SHA-256.
    #[default]
    HS256,
    /// A shared secret, with SHA-512.
    HS512,
    /// An RSA key whose public half was uploaded, with SHA-256.
    RS256,
    /// The same, with SHA-512.
    RS512,
}

impl Algorithm {
    /// What it is called in the header of a token.
    pub fn name(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::HS512 => "HS512",
            Self::RS256 => "RS256",
            Self::RS512 => "RS512",
        }
    }

    /// Whether a key is an RSA key, and not a secret that both sides have.
    pub fn is_rsa(self) -> bool {
        matches!(self, Self::RS256 | Self::RS512)
    }

    pub(super) fn jwt(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::HS256 => jsonwebtoken::Algorithm::HS256,
            Self::HS512 => jsonwebtoken::Algorithm::HS512,
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
        }
    }
}

/// One secret of an app while it holds.
pub(super) struct Key {
    text: SecretString,
    pub(super) decoding: DecodingKey,
    /// Missing where only the public half is known.
    pub(super) encoding: Option<EncodingKey>,
    /// How many calls brought a token that it signed.
    opened: AtomicU64,
}

impl Key {
    /// `None` for a text that is empty, or no RSA key in PEM where one is needed. A private key stands for its public half.
    pub(super) fn new(algorithm: Algorithm, text: &SecretString) -> Option<Self> {
        let bytes = text.expose_secret().as_bytes();
        if bytes.is_empty() {
            return None;
        }
        let (decoding, encoding) = if !algorithm.is_rsa() {
            // The secret's text is the key, although it looks like base64.
            let encoding = EncodingKey::from_secret(bytes);
            (DecodingKey::from_secret(bytes), Some(encoding))
        } else if text.expose_secret().contains("PRIVATE KEY-----") {
            let encoding = EncodingKey::from_rsa_pem(bytes).ok()?;
            let public = Jwk::from_encoding_key(&encoding, algorithm.jwt()).ok()?;
            (DecodingKey::from_jwk(&public).ok()?, Some(encoding))
        } else {
            let decoding = DecodingKey::from_rsa_pem(bytes).ok()?;
            // What PEM wraps is looked at only here.
            Jwk::from_decoding_key(&decoding, Some(algorithm.jwt())).ok()?;
            (decoding, None)
        };
        Some(Self {
            text: text.clone(),
            decoding,
            encoding,
            opened: AtomicU64::new(0),
        })
    }

    /// Whether it was made from this text.
    pub(super) fn is(&self, text: &SecretString) -> bool {
        self.text.expose_secret() == text.expose_secret()
    }

    pub(super) fn opens(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}
