//! What a `Config` must keep to beyond its types: ranges, required keys, uniqueness, keys that bear on each other.
//!
//! Each module states its own rules in a `check` beside its `Config`, by key; where in the file or environment that
//! key was written is found out later. So a module knows nothing of files, and rules are tested as values.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::Hash,
    ops::RangeInclusive,
    time::Duration,
};

use bytesize::ByteSize;

/// Collects what is broken. Keys are names within the section that is being checked.
#[derive(Debug, Default)]
pub struct Rules {
    section: String,
    broken: Vec<Broken>,
}

/// One broken rule.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The keys that the rule is about, in full (`accounts[0].name`); the first is where it is reported.
    pub(crate) keys: Vec<String>,
    /// A key elsewhere that has the same value.
    pub(crate) same_as: Option<String>,
    pub(crate) message: String,
}

impl Rules {
    /// Checks a part whose keys stand below `name`, such as `cache` or `accounts[2]`.
    pub fn section(&mut self, name: &str, check: impl FnOnce(&mut Self)) {
        let outer = self.section.len();
        if outer > 0 {
            self.section.push('.');
        }
        self.section.push_str(name);
        check(self);
        self.section.truncate(outer);
    }

    /// `value` must be within `range`.
    pub fn range<T: Quantity>(&mut self, key: &str, value: T, range: RangeInclusive<T>) {
        if !range.contains(&value) {
            let (low, high) = range.into_inner();
            self.broken(
                &[key],
                format!(
                    "{} is out of range: {} to {}",
                    value.text(),
                    low.text(),
                    high.text()
                ),
            );
        }
    }

    /// `value`, a required text, must be 1 to `max` characters that satisfy `allowed`, which `described` tells. The
    /// value itself is never shown.
    pub fn text(
        &mut self,
        key: &str,
        value: &str,
        max: usize,
        allowed: impl Fn(char) -> bool,
        described: &str,
    ) {
        if value.is_empty() {
            self.broken(&[key], "is required".to_owned());
        } else if value.chars().count() > max || !value.chars().all(allowed) {
            self.broken(
                &[key],
                format!("must be 1 to {max} characters, only {described}"),
            );
        }
    }

    /// `value` must be a name as logs and metrics show it: `[a-z0-9_-]{1,64}`.
    pub fn name(&mut self, key: &str, value: &str) {
        self.text(
            key,
            value,
            64,
            |c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-'),
            "a-z, 0-9, _ and -",
        );
    }

    /// `value` must be an id as Kore.ai makes them: `[A-Za-z0-9_-]{1,128}`.
    pub fn id(&mut self, key: &str, value: &str) {
        self.text(
            key,
            value,
            128,
            |c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'),
            "A-Z, a-z, 0-9, _ and -",
        );
    }

    /// `name` must be that of an environment variable. Capitals only, so that a secret put here by mistake is refused and
    /// not later named as a variable.
    pub fn variable(&mut self, key: &str, name: &str) {
        self.text(
            key,
            name,
            128,
            |c| matches!(c, 'A'..='Z' | '0'..='9' | '_'),
            "A-Z, 0-9 and _: the name of an environment variable, not the secret itself",
        );
    }

    /// The values of `key` in the tables of `list` must differ from each other; empty ones are another rule's matter.
    pub fn unique<'a>(&mut self, list: &str, key: &str, values: impl IntoIterator<Item = &'a str>) {
        let values = values.into_iter().enumerate();
        let values = values.filter(|(_, value)| !value.is_empty());
        self.distinct(
            values.map(|(index, value)| (format!("{list}[{index}]"), value)),
            |table| format!("{table}.{key}"),
            |first| format!("is already the {key} of {first}"),
        );
    }

    /// The values at these places must differ from each other. `key` makes a place a key; `message` says what has the
    /// value already.
    pub fn distinct<V: Eq + Hash>(
        &mut self,
        values: impl IntoIterator<Item = (String, V)>,
        key: impl Fn(&str) -> String,
        message: impl Fn(&str) -> String,
    ) {
        let mut seen = HashMap::new();
        for (here, value) in values {
            match seen.entry(value) {
                Entry::Vacant(entry) => {
                    entry.insert(here);
                }
                Entry::Occupied(first) => self.broken.push(Broken {
                    message: message(first.get()),
                    keys: vec![self.full(&key(&here))],
                    same_as: Some(self.full(&key(first.get()))),
                }),
            }
        }
    }

    /// A rule about `keys` is broken. `message` ends a sentence that begins with the first key.
    pub fn broken(&mut self, keys: &[&str], message: String) {
        let broken = Broken {
            keys: keys.iter().map(|key| self.full(key)).collect(),
            same_as: None,
            message,
        };
        self.broken.push(broken);
    }

    pub(crate) fn into_broken(self) -> Vec<Broken> {
        self.broken
    }

    fn full(&self, key: &str) -> String {
        match (self.section.as_str(), key) {
            ("", key) => key.to_owned(),
            (section, key) => format!("{section}.{key}"),
        }
    }
}

/// A value with an order, written in messages as an operator would write it in the file.
pub trait Quantity: Copy + PartialOrd {
    /// `30s`, `8KiB`, `12`.
    fn text(&self) -> String;
}

macro_rules! plain {
    ($($number:ty),*) => {$(
        impl Quantity for $number {
            fn text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}
plain!(u32, u64, usize, f64);

impl Quantity for Duration {
    fn text(&self) -> String {
        let ms = self.as_millis();
        match ms {
            0 => "0s".to_owned(),
            _ if !self.subsec_nanos().is_multiple_of(1_000_000) => {
                humantime::format_duration(*self).to_string()
            }
            _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
            _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
            _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
            _ => format!("{ms}ms"),
        }
    }
}

impl Quantity for ByteSize {
    fn text(&self) -> String {
        let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
        let whole = |&(shift, _): &(u32, &str)| self.0 != 0 && self.0.trailing_zeros() >= shift;
        match units.into_iter().find(whole) {
            Some((shift, unit)) => format!("{}{unit}", self.0 >> shift),
            None => format!("{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(check: impl FnOnce(&mut Rules)) -> Vec<String> {
        let mut rules = Rules::default();
        check(&mut rules);
        let tell = |broken: Broken| format!("{}: {}", broken.keys.join("+"), broken.message);
        rules.into_broken().into_iter().map(tell).collect()
    }

    #[test]
    fn quantities_read_as_they_are_written() {
        let duration = |text| humantime::parse_duration(text).expect("a duration").text();
        for text in ["0s", "10ms", "1s", "90s", "5m", "24h", "1s 5us"] {
            assert_eq!(duration(text), text);
        }
        for (size, text) in [
            (0, "0B"),
            (1, "1B"),
            (1536, "1536B"),
            (8 << 10, "8KiB"),
            (1 << 40, "1TiB"),
        ] {
            assert_eq!(ByteSize(size).text(), text);
        }
    }

    #[test]
    fn a_range_takes_both_its_ends() {
        let check = |value: u32| {
            told(|rules| rules.section("merge", |rules| rules.range("width", value, 1..=64)))
        };
        assert!(check(1).is_empty() && check(64).is_empty());
        assert_eq!(check(65), ["merge.width: 65 is out of range: 1 to 64"]);
        assert_eq!(check(0), ["merge.width: 0 is out of range: 1 to 64"]);
    }

    #[test]
    fn duplicates_point_at_the_first() {
        let found = told(|rules| {
            rules.section("accounts[0]", |rules| {
                rules.unique("streams", "name", ["a", "", "b", "", "a", "a"]);
            });
        });
        assert_eq!(
            found,
            [
                "accounts[0].streams[4].name: is already the name of streams[0]",
                "accounts[0].streams[5].name: is already the name of streams[0]",
            ]
        );
    }

    #[test]
    fn a_bad_text_is_not_repeated() {
        let found = told(|rules| {
            rules.text("name", "", 3, |c| c == 'a', "a");
            rules.text("name", "aaaa", 3, |c| c == 'a', "a");
            rules.text("name", "CANARY", 9, |c| c == 'a', "a");
            rules.text("name", "aaa", 3, |c| c == 'a', "a");
        });
        assert_eq!(
            found,
            [
                "name: is required",
                "name: must be 1 to 3 characters, only a",
                "name: must be 1 to 9 characters, only a"
            ]
        );
    }
}
