//! Contacts become CSV (RFC 4180), in two passes: a header names all columns, and the last contact may bring a new one.
//!
//! Columns stand in the order in which they were first met. What a contact does not have is an empty cell.

use std::{
    borrow::Cow,
    io::{self, BufRead, Write},
};

use csv::{Terminator, WriterBuilder};
use indexmap::IndexSet;

use super::cell;

/// The columns of a table, at most.
pub(super) const COLUMNS_MAX: usize = 1_000;

/// The names of all columns together, in bytes, at most.
const NAMES_BYTES_MAX: usize = 1 << 20;

/// The columns that were met.
#[derive(Debug, Default)]
pub(super) struct Columns {
    names: IndexSet<String>,
    bytes: usize,
}

/// There are more columns than a table may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooWide;

impl Columns {
    /// Adds those of a contact.
    pub(super) fn meet(&mut self, contact: &str) -> Result<(), TooWide> {
        cell::flatten(contact, &mut |column, _| {
            if self.names.contains(column) {
                return Ok(());
            }
            self.bytes += column.len();
            if self.names.len() == COLUMNS_MAX || self.bytes > NAMES_BYTES_MAX {
                return Err(TooWide);
            }
            self.names.insert(column.to_owned());
            Ok(())
        })
    }

    /// Writes contacts, one on each line, as a table. All of them must have been met. Blocking.
    pub(super) fn write(&self, contacts: impl BufRead, csv: impl Write) -> io::Result<()> {
        let mut csv = WriterBuilder::new()
            .terminator(Terminator::CRLF)
            .from_writer(csv);
        // A list without a contact has no columns, and its table no line.
        if !self.names.is_empty() {
            csv.write_record(&self.names)?;
        }
        let mut row = vec![String::new(); self.names.len()];
        for contact in contacts.lines() {
            // New ones: kept buffers would grow to a long contact in every column.
            row.fill_with(String::new);
            cell::flatten(&contact?, &mut |column, cell: Cow<'_, str>| {
                let unmet = || io::Error::other("a contact with a column that was not met");
                let place = self.names.get_index_of(column).ok_or_else(unmet)?;
                row[place].push_str(&cell);
                Ok::<_, io::Error>(())
            })?;
            csv.write_record(&row)?;
        }
        csv.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::cli::export::cell::is_formula;

    fn table(contacts: &[String]) -> String {
        let mut columns = Columns::default();
        for contact in contacts {
            columns.meet(contact).unwrap();
        }
        let (lines, mut csv) = (contacts.join("\n"), Vec::new());
        columns.write(lines.as_bytes(), &mut csv).unwrap();
        String::from_utf8(csv).unwrap()
    }

    #[test]
    fn a_table_has_all_columns_in_the_order_of_their_coming() {
        let contacts = [
            r#"{"id":"1","fullName":"Ada, \"the\" Countess","cellPhone":{"phoneNumber":"+4412"}}"#,
            r#"{"id":"2","fullName":"two\nlines","address":[{"city":"Köln"}],"score":-5}"#,
        ];
        let expected = "id,fullName,cellPhone.phoneNumber,address,score\r\n\
            1,\"Ada, \"\"the\"\" Countess\",'+4412,,\r\n\
            2,\"two\nlines\",,\"[{\"\"city\"\":\"\"Köln\"\"}]\",-5\r\n";
        assert_eq!(table(&contacts.map(str::to_owned)), expected);
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn columns_have_a_bound() {
        let mut columns = Columns::default();
        for number in 0..COLUMNS_MAX {
            columns
                .meet(&json!({ format!("c{number}"): 1 }).to_string())
                .unwrap();
        }
        assert_eq!(columns.meet(r#"{"c0":1}"#), Ok(()));
        assert_eq!(columns.meet(r#"{"one-more":1}"#), Err(TooWide));
        // A long way with many members does not become as many long names.
        let many: Map<_, _> = (0..900)
            .map(|number| (number.to_string(), json!(1)))
            .collect();
        let contact = json!({ "x".repeat(NAMES_BYTES_MAX / 100): many });
        assert_eq!(Columns::default().meet(&contact.to_string()), Err(TooWide));
    }

    /// What is hidden behind a `'` is what it was before.
    fn undone(cell: &str) -> &str {
        match cell.strip_prefix('\'') {
            Some(text) if is_formula(text.trim_start_matches('\'')) => text,
            _ => cell,
        }
    }

    /// The way that a column's name tells.
    fn way(column: &str) -> Vec<String> {
        let (mut way, mut characters) = (vec![String::new()], column.chars());
        while let Some(character) = characters.next() {
            match character {
                '.' => way.push(String::new()),
                '\\' => way.last_mut().unwrap().push(characters.next().unwrap()),
                other => way.last_mut().unwrap().push(other),
            }
        }
        way
    }

    /// Each value that has a cell, by its way: found by other means than the table's.
    fn values(value: &Value, way: &[String], into: &mut BTreeMap<Vec<String>, Value>) {
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (key, value) in members {
                    values(value, &[way, std::slice::from_ref(key)].concat(), into);
                }
            }
            other => drop(into.insert(way.to_vec(), other.clone())),
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[=+@'\t\r\n,;\"\\\\. a-]{0,5}",
            any::<String>(),
            "[a-c.\\\\]{0,3}"
        ]
    }

    fn contact() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            text().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            Just(Value::Null),
        ];
        let value = leaf.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(text(), inner, 0..5)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        });
        proptest::collection::btree_map(text(), value, 1..6).prop_map(|mut members| {
            members.insert("id".to_owned(), json!("1"));
            Value::Object(members.into_iter().collect())
        })
    }

    proptest! {
        /// A table that is read again has the same cells, each where it belongs, and nothing in it is a formula.
        #[test]
        fn a_table_is_read_again_as_it_was(contacts in proptest::collection::vec(contact(), 1..5)) {
            let lines: Vec<_> = contacts.iter().map(Value::to_string).collect();
            let csv = table(&lines);
            let mut reader = csv::Reader::from_reader(csv.as_bytes());
            let header = reader.headers().unwrap().clone();
            let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
            prop_assert_eq!(rows.len(), contacts.len());
            for (row, contact) in rows.iter().zip(&contacts) {
                prop_assert_eq!(row.len(), header.len());
                let mut expected = BTreeMap::new();
                values(contact, &[], &mut expected);
                for (column, cell) in header.iter().zip(row) {
                    prop_assert!(!is_formula(column), "{column:?}");
                    let value = expected.remove(&way(undone(column)));
                    prop_assert!(
                        !is_formula(cell) || value.as_ref().is_some_and(Value::is_number),
                        "{cell:?}"
                    );
                    match value {
                        None | Some(Value::Null) => prop_assert_eq!(cell, ""),
                        Some(Value::String(text)) => prop_assert_eq!(undone(cell), text),
                        Some(other) => prop_assert_eq!(cell, other.to_string()),
                    }
                }
                prop_assert!(expected.is_empty(), "{expected:?}");
            }
        }
    }
}
