//! Headers that a token service wants to see: a small table of texts, none of them a secret.

use std::{collections::BTreeMap, fmt};

use http::{HeaderName, header};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use crate::config::Rules;

/// What the visitor says it expects, by which the configuration's tree of keys knows such a table.
pub(crate) const EXPECTED: &str = "a table of headers";

/// At most so many headers, with values of at most so many characters.
const HEADERS_MAX: usize = 16;
const VALUE_MAX: usize = 1024;

/// Headers that the gateway sets itself, or that change how a message is read.
const RESERVED: [HeaderName; 10] = [
    header::ACCEPT_ENCODING,
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Parts of names whose values are secrets.
const SECRET: [&str; 7] = [
    "auth",
    "cookie",
    "key",
    "password",
    "secret",
    "signature",
    "token",
];

/// Headers by name.
#[derive(Clone, Default, PartialEq)]
pub struct Headers(BTreeMap<String, String>);

impl Headers {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Whether there is one of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.keys().any(|other| other.eq_ignore_ascii_case(name))
    }

    /// States which rules are broken. Neither names nor values are repeated: somebody may have put a secret here.
    pub(super) fn check(&self, rules: &mut Rules) {
        let mut broken = |message: String| rules.broken(&["headers"], message);
        if self.0.len() > HEADERS_MAX {
            broken(format!("are more than {HEADERS_MAX}"));
        }
        if !self.0.keys().all(|name| is_free(name)) {
            broken("have a name that is none, or that the gateway sets itself".to_owned());
        }
        let is_secret = |name: &String| {
            let name = name.to_ascii_lowercase();
            SECRET.iter().any(|word| name.contains(word))
        };
        if self.0.keys().any(is_secret) {
            broken(
                "have one that is named like a secret: name it in secret_header, and put its value into a file or a variable"
                    .to_owned(),
            );
        }
        let visible = |value: &String| {
            value.len() <= VALUE_MAX && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        };
        if !self.0.values().all(visible) {
            broken(format!(
                "have a value that is not up to {VALUE_MAX} visible ASCII characters"
            ));
        }
    }
}

/// Whether a header's name is one, and not the gateway's own.
pub(super) fn is_free(name: &str) -> bool {
    HeaderName::try_from(name).is_ok_and(|name| !RESERVED.contains(&name))
}

impl<const N: usize> From<[(&str, &str); N]> for Headers {
    fn from(headers: [(&str, &str); N]) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Self(headers.into_iter().map(owned).collect())
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Headers({} of them)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    headers.insert(name, value);
                }
                Ok(Headers(headers))
            }
        }
        deserializer.deserialize_map(Table)
    }
}
