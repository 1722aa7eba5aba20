//! The configuration file: its values, where each of them stands, and what is wrong with it.
//!
//! The tree that `toml` parses knows the position of everything, and [`keys::tree`](super::keys) knows what may stand
//! where. One walk over both finds every unknown key and every bad value, leaves them out, and keeps the rest. So a
//! first problem never hides a second.

use std::{collections::BTreeMap, ops::Range};

use config::{Value, ValueKind};
use toml::{
    Spanned,
    de::{DeString, DeTable, DeValue},
};

use super::{
    excerpt::Piece,
    findings::Findings,
    keys::{self, Shape},
    kind::{self, Kind},
    problem::{Fault, quoted},
};

pub(crate) type Table = config::Map<String, Value>;

/// The values of a file that are good.
pub(crate) struct Document {
    pub(crate) values: Table,
    /// All keys and values, also of unknown keys, in order.
    pub(crate) pieces: Vec<Piece>,
}

/// Walks over a parsed file.
pub(crate) fn read(root: &DeTable<'_>, source: &str, findings: &mut Findings) -> Document {
    let mut walk = Walk {
        source,
        findings,
        pieces: Vec::new(),
    };
    let values = match keys::tree() {
        Shape::Section(keys) => walk.section(keys, root, ""),
        _ => Table::new(),
    };
    let mut pieces = walk.pieces;
    pieces.sort_by_key(|piece| (piece.span.start, piece.span.end));
    // No two should overlap. If they ever do, what either hides stays hidden.
    pieces.dedup_by(|later, earlier| {
        let overlap = later.span.start < earlier.span.end;
        if overlap {
            earlier.span.end = earlier.span.end.max(later.span.end);
            earlier.shown &= later.shown;
        }
        overlap
    });
    Document { values, pieces }
}

struct Walk<'a> {
    source: &'a str,
    findings: &'a mut Findings,
    pieces: Vec<Piece>,
}

impl Walk<'_> {
    fn section(
        &mut self,
        keys: &BTreeMap<&'static str, Shape>,
        table: &DeTable<'_>,
        path: &str,
    ) -> Table {
        let mut good = Table::new();
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            self.piece(key.span(), true);
            let Some(shape) = keys.get(name) else {
                self.hide(value);
                self.unknown(keys, table, (name, value.get_ref()), key.span(), path);
                continue;
            };
            if let Some(value) = self.value(shape, value, &join(path, name), key.span()) {
                good.insert(name.to_owned(), value);
            }
        }
        good
    }

    fn value(
        &mut self,
        shape: &Shape,
        value: &Spanned<DeValue<'_>>,
        path: &str,
        key: Range<usize>,
    ) -> Option<Value> {
        // A table has a span of its own, but what an operator looks for is its name.
        let span = if value.get_ref().is_table() {
            key
        } else {
            value.span()
        };
        self.findings
            .places
            .insert(path.to_owned(), span.clone().into());
        let kind = match (shape, value.get_ref()) {
            (Shape::Section(keys), DeValue::Table(table)) => {
                Some(self.section(keys, table, path).into())
            }
            (Shape::List(item), DeValue::Array(items)) => {
                let items = items
                    .iter()
                    .enumerate()
                    .map(|(index, value)| self.item(item, value, &format!("{path}[{index}]")));
                Some(ValueKind::Array(items.collect()))
            }
            (Shape::Section(_), _) => {
                self.hide(value);
                let name = without_indices(path);
                let fault = if path.ends_with(']') {
                    Fault::Item(name)
                } else {
                    Fault::Section(name)
                };
                self.findings.report(span, path, fault);
                None
            }
            (Shape::List(_), _) => {
                self.hide(value);
                self.findings
                    .report(span, path, Fault::List(without_indices(path)));
                None
            }
            (Shape::Value(kind), inner) => {
                self.scalar(*kind, value, path);
                match kind.accepts(inner) {
                    Ok(()) => plain(inner),
                    Err(wanted) => {
                        let shown = self.shown(*kind, value);
                        self.findings
                            .report(span, path, Fault::Value { shown, wanted });
                        None
                    }
                }
            }
        };
        kind.map(|kind| Value::new(None, kind))
    }

    /// An item is never left out, or those behind it would be counted wrongly.
    fn item(&mut self, shape: &Shape, value: &Spanned<DeValue<'_>>, path: &str) -> Value {
        self.value(shape, value, path, value.span())
            .unwrap_or_else(|| Value::new(None, ValueKind::Table(Table::new())))
    }

    fn unknown(
        &mut self,
        keys: &BTreeMap<&'static str, Shape>,
        table: &DeTable<'_>,
        (name, value): (&str, &DeValue<'_>),
        span: Range<usize>,
        path: &str,
    ) {
        let full = join(
            path,
            &if is_bare(name) {
                name.to_owned()
            } else {
                quoted(name)
            },
        );
        let fault = if let Some(meant) = keys::nearest(name, keys.keys().copied()) {
            // That the key which was meant is missing follows from this.
            if !table.contains_key(meant) {
                self.findings.spoil(join(path, meant));
            }
            Fault::Misspelt(meant.to_owned())
        } else if is_secret(name, value) {
            for key in ["client_secret_file", "client_secret_env"] {
                self.findings.spoil(join(path, key));
            }
            Fault::SecretInFile
        } else {
            Fault::Unknown(list(keys))
        };
        self.findings.report(span, &full, fault);
    }

    fn scalar(&mut self, kind: Kind, value: &Spanned<DeValue<'_>>, path: &str) {
        let text = value.get_ref().as_str();
        match value.get_ref() {
            DeValue::Array(items) if kind == Kind::Texts => {
                for (index, item) in items.iter().enumerate() {
                    let place = format!("{path}[{index}]");
                    self.findings.places.insert(place, item.span().into());
                    self.scalar(Kind::Text, item, path);
                }
            }
            DeValue::Array(_) | DeValue::Table(_) => self.hide(value),
            _ => self.piece(value.span(), may_be_shown(kind, path, text)),
        }
    }

    fn piece(&mut self, span: Range<usize>, shown: bool) {
        self.pieces.push(Piece { span, shown });
    }

    /// Notes everything below as not to be shown.
    fn hide(&mut self, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => {
                for (key, value) in table {
                    self.piece(key.span(), true);
                    self.hide(value);
                }
            }
            DeValue::Array(items) => items.iter().for_each(|item| self.hide(item)),
            _ => self.piece(value.span(), false),
        }
    }

    fn shown(&self, kind: Kind, value: &Spanned<DeValue<'_>>) -> String {
        match value.get_ref() {
            DeValue::String(text) if kind.is_harmless() => quoted(text),
            DeValue::Array(_) | DeValue::Table(_) => kind::noun(value.get_ref()).to_owned(),
            _ if kind.is_harmless() => {
                let text = self.source.get(value.span()).unwrap_or_default();
                text.chars().take(48).filter(|c| !c.is_control()).collect()
            }
            other => kind::noun(other).to_owned(),
        }
    }
}

/// A good value of the file as the `config` crate holds it.
fn plain(value: &DeValue<'_>) -> Option<ValueKind> {
    match value {
        DeValue::Boolean(value) => Some(ValueKind::Boolean(*value)),
        DeValue::String(text) => Some(ValueKind::String(text.clone().into_owned())),
        DeValue::Integer(number) => {
            let number = i128::from_str_radix(number.as_str(), number.radix()).ok()?;
            let signed = i64::try_from(number).map(ValueKind::I64);
            signed
                .or_else(|_| u64::try_from(number).map(ValueKind::U64))
                .ok()
        }
        DeValue::Float(number) => number.as_str().parse().ok().map(ValueKind::Float),
        DeValue::Array(items) => {
            let good = |item: &Spanned<DeValue<'_>>| Some(Value::new(None, plain(item.get_ref())?));
            let items = items.iter().map(good).collect::<Option<_>>();
            items.map(ValueKind::Array)
        }
        DeValue::Table(table) => {
            let named = |(name, inner): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
                let value = Value::new(None, plain(inner.get_ref())?);
                Some((name.get_ref().to_string(), value))
            };
            table
                .iter()
                .map(named)
                .collect::<Option<Table>>()
                .map(ValueKind::Table)
        }
        _ => None,
    }
}

/// Of texts, only names and ids are known not to be secrets; an address is none if it has no room for one.
fn may_be_shown(kind: Kind, path: &str, text: Option<&str>) -> bool {
    let name = path.rsplit('.').next().unwrap_or(path);
    match (name, text) {
        _ if kind.is_harmless() => true,
        ("name" | "account_id" | "stream_id" | "accounts" | "streams", _) => true,
        ("base_url", Some(url)) => !url.contains(['@', '?', '#']),
        _ => false,
    }
}

/// True if an unknown key is named as if it held a secret.
fn is_secret(name: &str, value: &DeValue<'_>) -> bool {
    let name = name.to_lowercase();
    let named = |words: &[&str]| words.iter().any(|word| name.contains(word));
    named(&["secret", "password", "passwd"])
        || value.is_str() && named(&["token", "api_key", "private_key"])
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The keys of a section, for a message.
pub(crate) fn list(keys: &BTreeMap<&'static str, Shape>) -> String {
    keys.keys().copied().collect::<Vec<_>>().join(", ")
}

/// `accounts[0].streams` is written as `[[accounts.streams]]`.
fn without_indices(path: &str) -> String {
    let parts = path
        .split('.')
        .map(|part| part.split('[').next().unwrap_or(part));
    parts.collect::<Vec<_>>().join(".")
}

fn is_bare(name: &str) -> bool {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    (1..=48).contains(&name.len()) && name.bytes().all(bare)
}
