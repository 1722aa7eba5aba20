//! The envelope around the records: read from upstream's body, and written again around other records with the same
//! keys in the same order.

use std::io::Write;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Numbers;
use crate::contacts::cache::entry::block;

/// The members of an envelope as they stand in its body.
#[derive(Debug)]
pub struct Envelope<'a> {
    members: Vec<(String, &'a RawValue)>,
}

impl<'a> Envelope<'a> {
    /// Reads the outermost object. An error of the `data` category means JSON that is no object.
    pub fn read(body: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(body)
    }

    /// A key that stands twice: parsers disagree about which one counts, so neither does.
    pub fn has_repeated_key(&self) -> bool {
        let mut keys: Vec<_> = self.members.iter().map(|(key, _)| key).collect();
        keys.sort_unstable();
        keys.windows(2).any(|pair| pair[0] == pair[1])
    }

    pub fn get(&self, key: &str) -> Option<&'a RawValue> {
        let found = self.members.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| *value)
    }

    /// The same keys in the same order, ready to be written around other records.
    pub fn template(&self) -> Template {
        let mut parts = Vec::with_capacity(2 * self.members.len() + 1);
        for (place, (key, value)) in self.members.iter().enumerate() {
            let separator = if place == 0 { '{' } else { ',' };
            // A key is written as JSON again; of a string that cannot fail.
            let name = serde_json::to_string(key).unwrap_or_default();
            parts.push(Part::Text(format!("{separator}{name}:")));
            parts.push(match key.as_str() {
                "results" => Part::Results,
                "skip" => Part::Skip,
                "limit" => Part::Limit,
                "hasMore" => Part::HasMore,
                "totalPages" => Part::TotalPages,
                "totalResults" => Part::Total,
                _ => Part::Text(value.get().to_owned()),
            });
        }
        parts.push(Part::Text("}".to_owned()));
        Template(parts)
    }
}

/// An envelope without its values.
#[derive(Debug)]
pub struct Template(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    Results,
    Skip,
    Limit,
    HasMore,
    TotalPages,
    Total,
}

impl Template {
    /// Writes an envelope with these numbers around whatever `records` writes.
    pub fn write(
        &self,
        numbers: &Numbers,
        out: &mut Vec<u8>,
        mut records: impl FnMut(&mut Vec<u8>),
    ) {
        for part in &self.0 {
            let written = match part {
                Part::Text(text) => out.write_all(text.as_bytes()),
                Part::Results => {
                    out.push(b'[');
                    records(out);
                    out.push(b']');
                    Ok(())
                }
                Part::Skip => write!(out, "{}", numbers.skip),
                Part::Limit => write!(out, "{}", numbers.limit),
                Part::HasMore => write!(out, "{}", numbers.has_more),
                Part::TotalPages => write!(out, "{}", numbers.total_pages),
                Part::Total => write!(out, "{}", numbers.total),
            };
            debug_assert!(written.is_ok(), "writing to memory does not fail");
        }
    }

    /// What it holds, in bytes.
    pub fn weight(&self) -> usize {
        let text = |part: &Part| match part {
            Part::Text(text) => block(text.capacity()),
            _ => 0,
        };
        block(self.0.capacity() * size_of::<Part>()) + self.0.iter().map(text).sum::<usize>()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Envelope { members })
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_keys_in_the_same_order() {
        let body = r#"{ "limit":10, "extra": {"a": 1}, "results": [ {"id":"1"} ], "skip": 7, "totalResults": 1 }"#;
        let numbers = Numbers {
            skip: 0,
            limit: 2,
            has_more: true,
            total_pages: 3,
            total: 5,
        };
        let template = Envelope::read(body).unwrap().template();
        let mut written = Vec::new();
        template.write(&numbers, &mut written, |out| {
            out.extend_from_slice(b"{\"id\":\"9\"}")
        });
        assert_eq!(
            String::from_utf8(written).unwrap(),
            r#"{"limit":2,"extra":{"a": 1},"results":[{"id":"9"}],"skip":0,"totalResults":5}"#
        );
    }

    #[test]
    fn repeated_keys_are_seen_through_escapes() {
        let twice = Envelope::read(r#"{"skip":1,"sk\u0069p":2}"#).unwrap();
        assert!(twice.has_repeated_key());
        let once = Envelope::read(r#"{"skip":1,"limit":{"skip":2,"skip":3}}"#).unwrap();
        assert!(!once.has_repeated_key());
    }
}
