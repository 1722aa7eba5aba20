//! Keys: how they are shown, and how their owner is found without holding one.
//!
//! A key is 256 random bits, so its SHA-256 gives nothing away: no dictionary holds it, and a salt or a slow hash would
//! only cost each request something. What is configured, printed and compared is that digest alone.

use std::fmt;

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
    rand,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use prometheus::IntCounter;
use zeroize::Zeroizing;

use crate::{
    error::{Error, Kind},
    metrics::{self, Registry},
};

/// What every key that is made here begins with, so that scanners for secrets know one when they see it.
pub const PREFIX: &str = "cgk_";

/// The longest key, in bytes. What is longer is not even hashed.
pub const LENGTH_MAX: usize = 256;

/// Whether a text can be a key: 1 to [`LENGTH_MAX`] visible ASCII characters, since it travels in a header.
pub fn is_well_formed(text: &str) -> bool {
    (1..=LENGTH_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A new key; `None` if the system has no random numbers.
pub fn generate() -> Option<Zeroizing<String>> {
    let mut bits = Zeroizing::new([0; 32]);
    rand::fill(&mut *bits).ok()?;
    let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bits));
    Some(Zeroizing::new([PREFIX, text.as_str()].concat()))
}

/// The SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(key: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
        Self(bytes)
    }

    /// Reads 64 hexadecimal digits, in capitals or not.
    pub fn parse(hex: &str) -> Option<Self> {
        if hex.len() != 64 {
            return None;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
        }
        Some(Self(bytes))
    }

    fn beginning(&self) -> &[u8] {
        &self.0[..8]
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Shortened: enough to tell two apart.
impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, two, three, ..] = self.0;
        write!(f, "Digest({one:02x}{two:02x}{three:02x}..)")
    }
}

/// Why a request's key opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is none.
    Missing,
    /// What is shown cannot be a key: another scheme than `Bearer`, empty, too long.
    Malformed,
    /// Two are shown, and they differ. Which one counts would be a guess.
    Ambiguous,
    /// Nobody's.
    Unknown,
}

impl Refusal {
    pub const ALL: [Self; 4] = [
        Self::Missing,
        Self::Malformed,
        Self::Ambiguous,
        Self::Unknown,
    ];

    /// The word for it in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Ambiguous => "ambiguous",
            Self::Unknown => "unknown",
        }
    }

    /// What is answered. It says nothing that whoever asks does not know already.
    pub fn error(self) -> Error {
        let detail = match self {
            Self::Missing => "a key is needed, as \"Authorization: Bearer KEY\" or \"auth: KEY\"",
            Self::Malformed => {
                "what stands in Authorization or auth is no key: \"Authorization: Bearer KEY\" or \"auth: KEY\""
            }
            Self::Ambiguous => "there are two different keys",
            Self::Unknown => "the key is not known here",
        };
        Error::new(Kind::Unauthorized, detail)
    }
}

/// The key that a request shows, in either header. Both may be there, with the same key.
pub fn shown(headers: &HeaderMap) -> Result<&str, Refusal> {
    let bearer = headers.get_all(AUTHORIZATION).iter().map(bearer);
    let plain = headers
        .get_all("auth")
        .iter()
        .map(|value| value.to_str().ok());
    let mut keys = bearer.chain(plain).map(|key| {
        let key = key.filter(|key| is_well_formed(key));
        key.ok_or(Refusal::Malformed)
    });
    let first = keys.next().ok_or(Refusal::Missing)??;
    for other in keys {
        if other? != first {
            return Err(Refusal::Ambiguous);
        }
    }
    Ok(first)
}

/// RFC 6750, section 2.1.
fn bearer(value: &HeaderValue) -> Option<&str> {
    let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| key.trim_start_matches(' '))
}

/// Digests, each with whose key it is of.
#[derive(Debug)]
pub struct Keys<T> {
    /// In order.
    known: Box<[(Digest, T)]>,
}

impl<T> Keys<T> {
    pub fn new(known: impl IntoIterator<Item = (Digest, T)>) -> Self {
        let mut known: Vec<_> = known.into_iter().collect();
        known.sort_unstable_by_key(|(digest, _)| *digest);
        Self {
            known: known.into(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whose keys they are; whoever has several is told several times.
    pub fn owners(&self) -> impl Iterator<Item = &T> {
        self.known.iter().map(|(_, owner)| owner)
    }

    /// Whose key a request shows.
    ///
    /// All digests that begin with the same eight bytes as the shown key's are compared with it, in constant time. Where
    /// those stand is searched for, and that time may tell something of them. Of a thousand keys to compare each would
    /// cost more than a cached page does, and there is nothing to win: what could be learned is the beginning of a
    /// digest, which is no secret, and from which no key of 256 random bits can be computed.
    pub fn owner(&self, headers: &HeaderMap) -> Result<&T, Refusal> {
        let shown = Digest::of(shown(headers)?);
        let start = self
            .known
            .partition_point(|(known, _)| known.beginning() < shown.beginning());
        let near = self.known[start..]
            .iter()
            .take_while(|(known, _)| known.beginning() == shown.beginning());
        near.filter(|(known, _)| verify_slices_are_equal(&known.0, &shown.0).is_ok())
            .map(|(_, owner)| owner)
            .next()
            .ok_or(Refusal::Unknown)
    }
}

/// What a listener refuses for want of a key.
#[derive(Clone, Debug)]
pub struct Metrics {
    refused: [IntCounter; Refusal::ALL.len()],
}

impl Metrics {
    /// The metrics of the traffic and of the admin listener.
    pub fn new(registry: &Registry) -> metrics::Result<[Self; 2]> {
        let refused = registry.counter(
            "unauthorized_requests_total",
            "Requests refused for want of a good key, by what was wrong with it.",
            &["listener", "reason"],
        )?;
        Ok(["traffic", "admin"].map(|listener| Self {
            refused: Refusal::ALL
                .map(|refusal| refused.with_label_values(&[listener, refusal.word()])),
        }))
    }

    pub fn count(&self, refusal: Refusal) {
        self.refused[refusal as usize].inc();
    }
}

#[cfg(test)]
mod tests;
