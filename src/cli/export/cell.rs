//! A contact becomes cells: what stands in a nested object is in a column of its own, named by the way to it.
//!
//! | JSON | Cell |
//! | --- | --- |
//! | a text | its characters; behind a `'` if a spreadsheet would take it for a formula |
//! | a number, `true`, `false` | as upstream wrote it: `-5` is a number and no formula |
//! | `null` | empty, as what is absent and an empty text |
//! | an object | its members, as columns `cellPhone.phoneNumber`; of a key that stands twice the last, as in most parsers |
//! | an array, an empty object | its JSON text |
//! | what is no Unicode, or nested deeper than [`DEPTH_MAX`] | its JSON text |
//!
//! A dot in a key is written `\.`, and a backslash `\\`: no key is taken for a way.

use std::borrow::Cow;

use indexmap::IndexMap;
use serde_json::value::RawValue;

/// How many objects deep columns go. The gateway takes no deeper contact.
pub(super) const DEPTH_MAX: usize = 64;

/// What a spreadsheet takes for the beginning of a formula, also in the wide forms of East Asian keyboards.
const SIGNS: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// Hands each cell of a contact to `found`, with the name of its column, and stops at its first error.
///
/// What `found` refuses is never built up: a long way with many members costs no more memory than the contact.
pub(super) fn flatten<E>(
    contact: &str,
    found: &mut impl FnMut(&str, Cow<'_, str>) -> Result<(), E>,
) -> Result<(), E> {
    object(contact, &mut String::new(), 0, found)
}

/// The members of an object, at the end of the way `column`.
fn object<E>(
    json: &str,
    column: &mut String,
    depth: usize,
    found: &mut impl FnMut(&str, Cow<'_, str>) -> Result<(), E>,
) -> Result<(), E> {
    let members = (depth < DEPTH_MAX)
        .then(|| serde_json::from_str::<IndexMap<String, &RawValue>>(json).ok())
        .flatten()
        .filter(|members| !members.is_empty());
    let Some(members) = members else {
        return found(&harmless(Cow::Borrowed(column)), Cow::Borrowed(json));
    };
    let end = column.len();
    for (key, value) in members {
        if depth > 0 {
            column.push('.');
        }
        for character in key.chars() {
            if matches!(character, '.' | '\\') {
                column.push('\\');
            }
            column.push(character);
        }
        let value = value.get();
        if value.starts_with('{') {
            object(value, column, depth + 1, found)?;
        } else {
            found(&harmless(Cow::Borrowed(column)), scalar(value))?;
        }
        column.truncate(end);
    }
    Ok(())
}

/// The cell of what is no object.
fn scalar(json: &str) -> Cow<'_, str> {
    match json.as_bytes() {
        b"null" => Cow::Borrowed(""),
        // Half a surrogate pair is no text: it stays as it was written.
        [b'"', ..] => serde_json::from_str(json).map_or(Cow::Borrowed(json), |text: String| {
            harmless(Cow::Owned(text))
        }),
        _ => Cow::Borrowed(json),
    }
}

/// The text, behind a `'` if it would be a formula. So is one that has it already: or two texts would be one.
fn harmless(text: Cow<'_, str>) -> Cow<'_, str> {
    if is_formula(text.trim_start_matches('\'')) {
        Cow::Owned(format!("'{text}"))
    } else {
        text
    }
}

/// Whether a spreadsheet may run it. Whatever is not seen before the sign is dropped by some of them.
pub(super) fn is_formula(text: &str) -> bool {
    let unseen = |c: char| c.is_whitespace() || c.is_control() || c == '\u{feff}';
    text.starts_with(['\t', '\r', '\n']) || text.trim_start_matches(unseen).starts_with(SIGNS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(contact: &str) -> Vec<(String, String)> {
        let mut cells = Vec::new();
        let mut found = |column: &str, cell: Cow<'_, str>| {
            cells.push((column.to_owned(), cell.into_owned()));
            Ok::<_, ()>(())
        };
        flatten(contact, &mut found).unwrap();
        cells
    }

    fn is(contact: &str, expected: &[(&str, &str)]) {
        let cells = cells(contact);
        let cells: Vec<_> = cells
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        assert_eq!(cells, expected, "{contact}");
    }

    #[test]
    fn each_kind_of_value_has_its_cell() {
        is(
            r#"{"id":"1","n":-5,"e":1.50e+3,"t":true,"z":null,"s":"","a":[1, "x"],"o":{}}"#,
            &[
                ("id", "1"),
                ("n", "-5"),
                ("e", "1.50e+3"),
                ("t", "true"),
                ("z", ""),
                ("s", ""),
                ("a", r#"[1, "x"]"#),
                ("o", "{}"),
            ],
        );
        is(
            r#"{"cellPhone":{"phoneNumber":"9","x":{"y":"Zo\u00eb"}},"id":"1"}"#,
            &[
                ("cellPhone.phoneNumber", "9"),
                ("cellPhone.x.y", "Zo\u{eb}"),
                ("id", "1"),
            ],
        );
        is(
            r#"{"a":"x\ud800","b":{"\ud800":1}}"#,
            &[("a", r#""x\ud800""#), ("b", r#"{"\ud800":1}"#)],
        );
    }

    #[test]
    fn a_key_is_not_taken_for_a_way() {
        is(
            r#"{"a":{"b":1},"a.b":2,"a\\":{"b":3},"a\\.b":4,"":{"":5},".":6}"#,
            &[
                ("a.b", "1"),
                (r"a\.b", "2"),
                (r"a\\.b", "3"),
                (r"a\\\.b", "4"),
                (".", "5"),
                (r"\.", "6"),
            ],
        );
    }

    #[test]
    fn the_last_of_two_counts() {
        is(r#"{"a":1,"b":2,"a":3}"#, &[("a", "3"), ("b", "2")]);
        is(r#"{"a":{"x":1},"a":{"y":2}}"#, &[("a.y", "2")]);
        is(r#"{"a":1,"\u0061":2}"#, &[("a", "2")]);
    }

    #[test]
    fn no_text_is_a_formula() {
        for (text, expected) in [
            ("=1+1", "'=1+1"),
            ("+91987", "'+91987"),
            ("-5", "'-5"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\\t=1", "'\t=1"),
            ("\\tx", "'\tx"),
            ("\\rx", "'\rx"),
            ("\\nx", "'\nx"),
            ("  =1", "'  =1"),
            ("\u{feff}=1", "'\u{feff}=1"),
            ("\\u0000=1", "'\0=1"),
            ("＝1", "'＝1"),
            // What had a quote before is another text than what got one.
            ("'=1", "''=1"),
            ("''=1", "'''=1"),
            ("'s-Gravenhage", "'s-Gravenhage"),
            ("a=1", "a=1"),
            (" x", " x"),
            ("a@example.org", "a@example.org"),
        ] {
            is(&format!(r#"{{"a":"{text}"}}"#), &[("a", expected)]);
            // Columns' names are upstream's, too.
            if !text.contains('.') {
                is(&format!(r#"{{"{text}":1}}"#), &[(expected, "1")]);
            }
        }
    }

    #[test]
    fn deep_objects_end() {
        let deep = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        let way = vec!["a"; DEPTH_MAX].join(".");
        is(&deep(DEPTH_MAX), &[(&way, "1")]);
        is(&deep(DEPTH_MAX + 1), &[(&way, r#"{"a":1}"#)]);
        cells(&deep(100_000));
    }
}
