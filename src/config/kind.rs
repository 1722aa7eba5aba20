//! What a key may hold, in an operator's words.
//!
//! serde would refuse a bad value too, but in Rust's words (`expected usize`) and with the value in the text. Here
//! each kind says what it wants and how to write it, and whether a value of it may be shown at all: free text never
//! is, since it may be a secret that went into the wrong key.

use std::net::SocketAddr;

use bytesize::ByteSize;
use toml::de::DeValue;

/// The kind of a key that holds one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Switch,
    /// A whole number from 0 to `max`, which is the type's own limit and not the key's range.
    Number {
        max: u64,
    },
    /// A part of something: with a point or whole.
    Share,
    Duration,
    Size,
    Address,
    Choice(&'static [&'static str]),
    Text,
    /// An array of texts.
    Texts,
    File,
    /// A table of plain values, whatever their names.
    Claims,
    /// A table of texts, whatever their names.
    Headers,
}

impl Kind {
    /// True if no value of this kind can be a secret.
    pub(crate) fn is_harmless(self) -> bool {
        !matches!(
            self,
            Self::Text | Self::Texts | Self::File | Self::Claims | Self::Headers
        )
    }

    /// Reads a value of the file. The error is the end of a sentence that begins with the value.
    pub(crate) fn accepts(self, value: &DeValue<'_>) -> Result<(), String> {
        match (self, value) {
            (Self::Switch, DeValue::Boolean(_)) => Ok(()),
            (Self::Number { .. } | Self::Size, DeValue::Integer(number)) => {
                match i128::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => self.fits(number),
                    Err(_) => Err("is too large".to_owned()),
                }
            }
            (Self::Claims, DeValue::Table(table)) => {
                let plain = |value: &DeValue<'_>| match value {
                    DeValue::Integer(number) => {
                        i64::from_str_radix(number.as_str(), number.radix()).is_ok()
                    }
                    DeValue::String(_) | DeValue::Float(_) | DeValue::Boolean(_) => true,
                    _ => false,
                };
                let all = table.iter().all(|(_, value)| plain(value.get_ref()));
                if all { Ok(()) } else { Err(self.wanted()) }
            }
            (Self::Headers, DeValue::Table(table)) => {
                if table.iter().all(|(_, value)| value.get_ref().is_str()) {
                    Ok(())
                } else {
                    Err(self.wanted())
                }
            }
            (Self::Texts, DeValue::Array(items)) => {
                if items.iter().all(|item| item.get_ref().is_str()) {
                    Ok(())
                } else {
                    Err(self.wanted())
                }
            }
            // A quoted number or switch in the file is a mistake worth a word; in a variable it is the only way.
            (Self::Share, DeValue::Float(_) | DeValue::Integer(_)) => Ok(()),
            (
                Self::Number { .. }
                | Self::Share
                | Self::Switch
                | Self::Texts
                | Self::Claims
                | Self::Headers,
                _,
            ) => Err(self.wanted()),
            (_, DeValue::String(text)) => self.accepts_text(text),
            _ => Err(self.wanted()),
        }
    }

    /// Reads a value written as text, as in a variable.
    pub(crate) fn accepts_text(self, text: &str) -> Result<(), String> {
        let good = match self {
            Self::Switch => matches!(text, "true" | "false"),
            Self::Number { .. } => {
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                match text.parse::<i128>() {
                    Ok(number) if digits => return self.fits(number),
                    Err(_) if digits => return Err("is too large".to_owned()),
                    _ => false,
                }
            }
            Self::Share => text.parse::<f64>().is_ok(),
            Self::Duration => humantime::parse_duration(text).is_ok(),
            Self::Size => text.parse::<ByteSize>().is_ok(),
            Self::Address => text.parse::<SocketAddr>().is_ok(),
            Self::Choice(choices) => choices.contains(&text),
            Self::Text | Self::File => true,
            Self::Texts | Self::Claims | Self::Headers => false,
        };
        if good { Ok(()) } else { Err(self.wanted()) }
    }

    fn fits(self, number: i128) -> Result<(), String> {
        let max = match self {
            Self::Number { max } => max,
            _ => u64::MAX,
        };
        if number < 0 {
            Err("is below zero".to_owned())
        } else if number > i128::from(max) {
            Err("is too large".to_owned())
        } else {
            Ok(())
        }
    }

    fn wanted(self) -> String {
        match self {
            Self::Switch => "is not true or false".to_owned(),
            Self::Number { .. } => "is not a whole number".to_owned(),
            Self::Share => "is not a number (write 0.5)".to_owned(),
            Self::Duration => r#"is not a length of time (write "5m" or "1h 30m")"#.to_owned(),
            Self::Size => r#"is not a size (write "256MiB" or a whole number of bytes)"#.to_owned(),
            Self::Address => r#"is not an address and port (write "127.0.0.1:8080")"#.to_owned(),
            Self::Choice([only]) => format!("is not {only:?}, which is the only choice"),
            Self::Choice(choices) => {
                let list: Vec<_> = choices.iter().map(|choice| format!("{choice:?}")).collect();
                format!("is not one of {}", list.join(", "))
            }
            Self::Text => "is not text (write it in quotes)".to_owned(),
            Self::Texts => r#"is not a list of texts (write ["one", "two"])"#.to_owned(),
            Self::File => "is not the name of a file (write it in quotes)".to_owned(),
            Self::Claims => {
                r#"is not a table of texts, numbers, true and false (write { iss = "cs-1" })"#
                    .to_owned()
            }
            Self::Headers => {
                r#"is not a table of texts (write { x-team = "contacts" })"#.to_owned()
            }
        }
    }
}

/// What a value of the file is called where the value itself must not be shown.
pub(crate) fn noun(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "a true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kind: Kind, toml: &str) -> String {
        let value = DeValue::parse(toml).expect("the test's own TOML");
        match kind.accepts(value.get_ref()) {
            Ok(()) => "ok".to_owned(),
            Err(wanted) => wanted,
        }
    }

    #[test]
    fn each_kind_takes_its_values_and_says_what_it_wants() {
        let number = Kind::Number { max: 4_294_967_295 };
        let choice = Kind::Choice(&["auto", "human"]);
        for (kind, toml, expected) in [
            (Kind::Switch, "true", "ok"),
            (Kind::Switch, "\"true\"", "is not true or false"),
            (Kind::Switch, "1", "is not true or false"),
            (number, "0", "ok"),
            (number, "0x10", "ok"),
            (number, "1_000", "ok"),
            (number, "4294967296", "is too large"),
            (
                number,
                "99999999999999999999999999999999999999999999",
                "is too large",
            ),
            (number, "-1", "is below zero"),
            (number, "2.0", "is not a whole number"),
            (number, "\"2\"", "is not a whole number"),
            (Kind::Share, "0.5", "ok"),
            (Kind::Share, "1", "ok"),
            (Kind::Share, "\"0.5\"", "is not a number (write 0.5)"),
            (Kind::Duration, "\"1h 30m\"", "ok"),
            (Kind::Duration, "\"0s\"", "ok"),
            (
                Kind::Duration,
                "\"5 parsecs\"",
                r#"is not a length of time (write "5m" or "1h 30m")"#,
            ),
            (
                Kind::Duration,
                "5",
                r#"is not a length of time (write "5m" or "1h 30m")"#,
            ),
            (Kind::Size, "\"256MiB\"", "ok"),
            (Kind::Size, "1024", "ok"),
            (Kind::Size, "-1", "is below zero"),
            (
                Kind::Size,
                "\"many\"",
                r#"is not a size (write "256MiB" or a whole number of bytes)"#,
            ),
            (Kind::Address, "\"[::1]:80\"", "ok"),
            (
                Kind::Address,
                "\"localhost:80\"",
                r#"is not an address and port (write "127.0.0.1:8080")"#,
            ),
            (choice, "\"auto\"", "ok"),
            (choice, "\"AUTO\"", r#"is not one of "auto", "human""#),
            (
                Kind::Choice(&["HS256"]),
                "\"none\"",
                r#"is not "HS256", which is the only choice"#,
            ),
            (Kind::Text, "\"\"", "ok"),
            (Kind::Text, "5", "is not text (write it in quotes)"),
            (Kind::Texts, "[]", "ok"),
            (Kind::Texts, "[\"a\", 'b']", "ok"),
            (
                Kind::Texts,
                "[\"a\", 5]",
                r#"is not a list of texts (write ["one", "two"])"#,
            ),
            (
                Kind::Texts,
                "\"a\"",
                r#"is not a list of texts (write ["one", "two"])"#,
            ),
            (
                Kind::Claims,
                "{ iss = \"x\", a = -1, b = 2.5, c = true }",
                "ok",
            ),
            (
                Kind::Claims,
                "{ a = [] }",
                r#"is not a table of texts, numbers, true and false (write { iss = "cs-1" })"#,
            ),
            (
                Kind::Claims,
                "{ a = 99999999999999999999 }",
                r#"is not a table of texts, numbers, true and false (write { iss = "cs-1" })"#,
            ),
            (
                Kind::File,
                "[]",
                "is not the name of a file (write it in quotes)",
            ),
        ] {
            assert_eq!(verdict(kind, toml), expected, "{kind:?} given {toml}");
        }
    }

    #[test]
    fn numbers_in_variables_are_plain_decimals() {
        let number = Kind::Number { max: u64::MAX };
        for (text, good) in [
            ("0", true),
            ("18446744073709551615", true),
            ("18446744073709551616", false),
            ("+1", false),
            ("-1", false),
            ("0x10", false),
            ("", false),
            (" 1", false),
        ] {
            assert_eq!(number.accepts_text(text).is_ok(), good, "{text:?}");
        }
    }
}
