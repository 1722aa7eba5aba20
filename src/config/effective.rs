//! What a configuration comes to, as a file that would say the same: with every default, each variable, and where each
//! value is from.
//!
//! No secret is in it, since none is in a [`Config`]; what operators may have put a secret into (`claims`) is left out where
//! it is declared (`skip_serializing`), and only counted here.

use std::{collections::HashMap, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Config, document::join, findings::At};

/// Where each key was set.
pub(super) struct Origins {
    places: HashMap<String, At>,
    /// Where the lines of the file end.
    line_ends: Vec<usize>,
}

impl Origins {
    pub(super) fn new(places: HashMap<String, At>, source: &[u8]) -> Self {
        let ends = source.iter().enumerate();
        let ends = ends.filter_map(|(at, byte)| (*byte == b'\n').then_some(at));
        Self {
            places,
            line_ends: ends.collect(),
        }
    }

    fn of(&self, key: &str) -> String {
        match self.places.get(key) {
            Some(At::File(start, _)) => {
                let before = self.line_ends.partition_point(|end| end < start);
                format!("line {}", before + 1)
            }
            Some(At::Variable(name)) => name.clone(),
            Some(At::WholeFile) | None => "default".to_owned(),
        }
    }
}

/// The text of such a file.
///
/// # Errors
/// If a value has no form in TOML, which none that was read from it lacks.
pub(super) fn write(
    config: &Config,
    origins: &Origins,
    path: &Path,
) -> Result<String, toml::ser::Error> {
    let text = toml::to_string(config)?;
    // Read again for the places: a value may have several lines, and look like anything.
    let root = DeTable::parse(&text).map_err(<toml::ser::Error as serde::ser::Error>::custom)?;
    let mut ends = Vec::new();
    ends_of(root.get_ref(), "", &mut ends);
    ends.sort_unstable();
    let mut out = format!(
        "# What {} and the environment come to. Behind each value: its line, its variable, or that it is the default.\n\n",
        path.display().to_string().replace(char::is_control, "?")
    );
    let mut written = 0;
    for (end, key) in ends {
        out += &text[written..end];
        out += &format!("  # {}", origins.of(&key));
        if let Some((count, claims)) = claims(config, &key) {
            out += &format!(
                "\n# claims: {count}, which are not shown  # {}",
                origins.of(&claims)
            );
        }
        written = end;
    }
    out += &text[written..];
    Ok(out)
}

/// Where each value ends, and its full name.
fn ends_of(table: &DeTable<'_>, path: &str, ends: &mut Vec<(usize, String)>) {
    for (key, value) in table {
        let key = join(path, key.get_ref());
        match value.get_ref() {
            DeValue::Table(below) => ends_of(below, &key, ends),
            DeValue::Array(items) if items.iter().any(is_table) => {
                for (number, item) in items.iter().enumerate() {
                    if let DeValue::Table(below) = item.get_ref() {
                        ends_of(below, &format!("{key}[{number}]"), ends);
                    }
                }
            }
            _ => ends.push((value.span().end, key)),
        }
    }
}

fn is_table(value: &Spanned<DeValue<'_>>) -> bool {
    value.get_ref().is_table()
}

/// How many claims an account has, whose `name` this is, and their full name.
fn claims(config: &Config, key: &str) -> Option<(usize, String)> {
    let account = key.strip_suffix(".name")?;
    let number = account.strip_prefix("accounts[")?.strip_suffix(']')?;
    let claims = &config.accounts.get(number.parse::<usize>().ok()?)?.claims;
    (claims.count() > 0).then(|| (claims.count(), join(account, "claims")))
}

#[cfg(test)]
mod tests;
