//! The names of things upstream: parsed once, at the edge or in the configuration, and trusted from there.

use std::{
    borrow::Borrow,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// Whether `text` may name an account or a stream: 1 to 128 of `[A-Za-z0-9_-]`, which is safe in a URL as it stands.
pub fn is_plain(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

/// Kore.ai's id of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountId(Arc<str>);

/// Kore.ai's id of a stream, also called bot or instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StreamId(Arc<str>);

/// The client id of a JWT app: the identity of a credential, which a rotated secret does not change.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientId(Arc<str>);

macro_rules! id {
    ($id:ident, $well_formed:expr) => {
        impl $id {
            /// `None` unless the text is well-formed.
            pub fn parse(text: &str) -> Option<Self> {
                $well_formed(text).then(|| Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $id {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(AccountId, is_plain);
id!(StreamId, is_plain);
id!(ClientId, |text: &str| (1..=256).contains(&text.len())
    && text.bytes().all(|byte| byte.is_ascii_graphic()));

/// A generation of copies. It stands in every key, so ending one makes all its copies unreachable at once.
/// Numbers are process-wide and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(u64);

impl Epoch {
    /// One that was never used before.
    pub fn begin() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// As a number, for whoever keeps it in an atomic.
    pub(super) fn number(self) -> u64 {
        self.0
    }

    pub(super) fn numbered(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_hold_what_a_url_may() {
        for good in ["st-1", "A_b-9", &"x".repeat(128)] {
            assert!(StreamId::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "a/b",
            "a.b",
            "a%2f",
            "a b",
            "é",
            "a\0",
            "a;b",
            &"x".repeat(129),
        ] {
            assert!(StreamId::parse(bad).is_none(), "{bad:?}");
        }
        assert!(ClientId::parse("cs-1 2").is_none());
        assert!(ClientId::parse("cs-7dc994f0.x").is_some());
    }

    #[test]
    fn an_epoch_is_never_used_again() {
        assert!(Epoch::begin() < Epoch::begin());
    }
}
