//! `CONTACTS_GATEWAY__SECTION__KEY`: variables that are laid over the file.
//!
//! Names with one underscore (`CONTACTS_GATEWAY_PORT`) are not ours: Kubernetes sets such for every service in reach.

use std::{collections::BTreeMap, ffi::OsString};

use super::{
    document::{join, list},
    findings::{At, Findings},
    keys::{self, Shape},
    kind::Kind,
    problem::{Fault, quoted},
};

pub(crate) const PREFIX: &str = "CONTACTS_GATEWAY";
const SEPARATOR: &str = "__";

/// The environment, or what stands for it in a test.
pub(crate) struct Variables(BTreeMap<OsString, OsString>);

impl Variables {
    pub(crate) fn new(
        env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
    ) -> Self {
        Self(
            env.into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(std::ffi::OsStr::new(name))
    }

    /// The good ones of ours, as a source for the `config` crate. The others are reported.
    pub(crate) fn overlay(&self, findings: &mut Findings) -> config::Environment {
        let mut good = config::Map::new();
        for (name, value) in &self.0 {
            // A name that is not UTF-8 is not one of ours either.
            let Some(name) = name.to_str() else { continue };
            let Some(path) = name
                .strip_prefix(PREFIX)
                .and_then(|rest| rest.strip_prefix(SEPARATOR))
            else {
                continue;
            };
            let at = At::Variable(name.to_owned());
            match judge(path, value) {
                Ok((key, value)) => {
                    findings.places.insert(key, at);
                    good.insert(name.to_owned(), value);
                }
                Err((key, fault)) => findings.report(at, &key, fault),
            }
        }
        config::Environment::with_prefix(PREFIX)
            .separator(SEPARATOR)
            .source(Some(good))
    }
}

/// The key that a variable sets, and its value; or the key that it spoils, and why.
fn judge(path: &str, value: &OsString) -> Result<(String, String), (String, Fault)> {
    let mut shape = keys::tree();
    let mut key = String::new();
    let mut parents = PREFIX.to_owned();
    for part in path.split(SEPARATOR) {
        let keys = match shape {
            Shape::Section(keys) => keys,
            Shape::List(_) => return Err((String::new(), Fault::ListInVariable)),
            Shape::Value(_) => {
                return Err((String::new(), Fault::Unknown(format!("{parents} itself"))));
            }
        };
        let found = keys.get_key_value(part.to_lowercase().as_str());
        let Some((name, below)) = found.filter(|_| !part.contains(char::is_lowercase)) else {
            let fault = match keys::nearest(part, keys.keys().copied()) {
                Some(meant) => {
                    Fault::Misspelt(format!("{parents}{SEPARATOR}{}", meant.to_uppercase()))
                }
                None => Fault::Unknown(list(keys)),
            };
            return Err((String::new(), fault));
        };
        key = join(&key, name);
        parents = format!("{parents}{SEPARATOR}{part}");
        shape = below;
    }
    let kind = match shape {
        Shape::Value(Kind::Texts) | Shape::List(_) => {
            return Err((String::new(), Fault::ListInVariable));
        }
        Shape::Value(kind) => *kind,
        Shape::Section(keys) => return Err((String::new(), Fault::SectionInVariable(list(keys)))),
    };
    let Some(text) = value.to_str() else {
        return Err((key, Fault::NotUtf8));
    };
    match kind.accepts_text(text) {
        Ok(()) => Ok((key, text.to_owned())),
        Err(wanted) => {
            let shown = if kind.is_harmless() {
                quoted(text)
            } else {
                "text".to_owned()
            };
            Err((key, Fault::Value { shown, wanted }))
        }
    }
}
