//! What was found on the way: problems, where each key was set, and which keys nothing more need be said about.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

use super::problem::Fault;

/// A problem before it is rendered.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) at: At,
    pub(crate) key: String,
    pub(crate) fault: Fault,
}

/// Where something was set. In the order in which problems are reported.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum At {
    /// From this byte of the file to that one.
    File(usize, usize),
    /// In the file, but nowhere in particular.
    WholeFile,
    Variable(String),
}

impl From<Range<usize>> for At {
    fn from(span: Range<usize>) -> Self {
        Self::File(span.start, span.end)
    }
}

/// What was found so far, in the file and then in the environment.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<Raw>,
    /// Where each key was set, by its full name (`accounts[0].name`).
    pub(crate) places: HashMap<String, At>,
    /// Keys that have a problem, so that no later rule reports what only follows from it.
    spoilt: HashSet<String>,
}

impl Findings {
    pub(crate) fn report(&mut self, at: impl Into<At>, key: &str, fault: Fault) {
        self.spoil(key.to_owned());
        self.problems.push(Raw {
            at: at.into(),
            key: key.to_owned(),
            fault,
        });
    }

    /// Nothing more is to be said about `key`.
    pub(crate) fn spoil(&mut self, key: String) {
        self.spoilt.insert(key);
    }

    /// True if `key` or something that it is part of was reported.
    pub(crate) fn is_spoilt(&self, key: &str) -> bool {
        lineage(key).any(|key| self.spoilt.contains(key))
    }

    /// The place of `key`, or of what it is part of.
    pub(crate) fn place(&self, key: &str) -> At {
        lineage(key)
            .find_map(|key| self.places.get(key))
            .cloned()
            .unwrap_or(At::WholeFile)
    }
}

/// A key, and then each key that it is part of.
fn lineage(key: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(key), |key| {
        key.rfind(['.', '[']).map(|end| &key[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_spoilt_with_what_it_is_part_of_and_has_its_place() {
        let mut findings = Findings::default();
        findings
            .places
            .insert("accounts[1]".to_owned(), At::File(5, 9));
        findings.report(7..8, "accounts[1].streams", Fault::NotUtf8);
        for (key, spoilt, place) in [
            ("accounts[1].streams[0].name", true, At::File(5, 9)),
            ("accounts[1].streams", true, At::File(5, 9)),
            ("accounts[1].name", false, At::File(5, 9)),
            ("accounts[10].streams", false, At::WholeFile),
            ("accounts", false, At::WholeFile),
        ] {
            assert_eq!(
                (findings.is_spoilt(key), findings.place(key)),
                (spoilt, place),
                "{key}"
            );
        }
    }

    #[test]
    fn the_file_comes_before_variables() {
        let mut places = [
            At::Variable("A".to_owned()),
            At::WholeFile,
            At::File(10, 11),
            At::File(9, 20),
        ];
        places.sort();
        assert_eq!(
            places,
            [
                At::File(9, 20),
                At::File(10, 11),
                At::WholeFile,
                At::Variable("A".to_owned())
            ]
        );
    }
}
