//! Claims that an operator adds to an account's tokens: a small table of plain values.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor},
};

use crate::config::Rules;

/// What the visitor says it expects, by which the configuration's tree of keys knows such a table.
pub(crate) const EXPECTED: &str = "a table of claims";

/// At most so many claims, with names and texts of at most so many characters.
const CLAIMS_MAX: usize = 16;
const NAME_MAX: usize = 64;
const TEXT_MAX: usize = 256;

/// Claims that the gateway sets itself.
const RESERVED: [&str; 4] = ["appId", "iat", "exp", "jti"];

/// Claims by name.
#[derive(Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Claims(BTreeMap<String, Claim>);

/// The value of a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Claim {
    Switch(bool),
    Integer(i64),
    Number(f64),
    Text(String),
}

impl Claims {
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// States which rules are broken. Neither names nor values are repeated: somebody may have put a secret here.
    pub(super) fn check(&self, rules: &mut Rules) {
        let mut broken = |message: String| rules.broken(&["claims"], message);
        if self.0.len() > CLAIMS_MAX {
            broken(format!("are more than {CLAIMS_MAX}"));
        }
        for name in RESERVED {
            if self.contains(name) {
                broken(format!(
                    "may not have {name}, which the gateway sets itself"
                ));
            }
        }
        let good = |name: &String| {
            (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !self.0.keys().all(good) {
            broken(format!(
                "have a name that is not 1 to {NAME_MAX} visible ASCII characters"
            ));
        }
        let fits = |claim: &Claim| match claim {
            Claim::Text(text) => text.chars().count() <= TEXT_MAX,
            Claim::Number(number) => number.is_finite(),
            Claim::Switch(_) | Claim::Integer(_) => true,
        };
        if !self.0.values().all(fits) {
            broken(format!(
                "have a text of more than {TEXT_MAX} characters, or a number without end"
            ));
        }
    }
}

impl<const N: usize> From<[(&str, Claim); N]> for Claims {
    fn from(claims: [(&str, Claim); N]) -> Self {
        let named = |(name, claim): (&str, _)| (name.to_owned(), claim);
        Self(claims.into_iter().map(named).collect())
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claims({} of them)", self.0.len())
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(EXPECTED)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = BTreeMap::new();
                while let Some((name, claim)) = map.next_entry()? {
                    claims.insert(name, claim);
                }
                Ok(Claims(claims))
            }
        }
        deserializer.deserialize_map(Table)
    }
}
