//! The tree of all keys, asked from the `Config` structs themselves.
//!
//! Unknown keys, wrong values and variables are all judged by this tree, so it must never differ from what serde
//! reads. A list kept by hand would: instead, a deserializer that holds no data asks `Config` at one path after the
//! other what it would like to read there, writes the answer down and stops.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, Error as _, Expected, IntoDeserializer, MapAccess, SeqAccess, Visitor,
        value,
    },
};

use super::{Config, kind::Kind};

/// What stands at a key.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    /// A table with these keys.
    Section(BTreeMap<&'static str, Shape>),
    /// An array of tables.
    List(Box<Shape>),
    Value(Kind),
}

/// The whole tree.
pub(crate) fn tree() -> &'static Shape {
    static TREE: LazyLock<Shape> = LazyLock::new(|| ask(&mut Vec::new()));
    &TREE
}

/// Whether no value of the key or section `name` may be a secret, wherever it stands; `None` if there is no such key.
pub(crate) fn harmless(name: &str) -> Option<bool> {
    fn search(shape: &Shape, name: &str, found: &mut Option<bool>) {
        match shape {
            Shape::Section(keys) => {
                for (key, below) in keys {
                    if *key == name {
                        let harmless = matches!(below, Shape::Value(kind) if kind.is_harmless());
                        *found = Some(harmless && found.unwrap_or(true));
                    }
                    search(below, name, found);
                }
            }
            Shape::List(item) => search(item, name, found),
            Shape::Value(_) => {}
        }
    }
    let mut found = None;
    search(tree(), name, &mut found);
    found
}

/// The known name that was probably meant by `unknown`.
pub(crate) fn nearest<'a>(
    unknown: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // Names of ours are short, and comparing costs the product of both lengths.
    if unknown.len() > 64 {
        return None;
    }
    let unknown = unknown.to_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|name| (strsim::osa_distance(&unknown, name), name))
        .filter(|&(distance, name)| distance <= (name.len() / 4).clamp(1, 3))
        .min()
        .map(|(_, name)| name)
}

/// A step from a key to one below it.
#[derive(Clone, Copy)]
enum Step {
    Key(&'static str),
    Item,
}

/// Builds the tree below `path`. It ends because a struct of configuration cannot contain itself but through a
/// list, and no list of ours does.
fn ask(path: &mut Vec<Step>) -> Shape {
    let mut answer = None;
    // Always an error: the question is never answered with a value.
    let _ = Config::deserialize(Question {
        path,
        answer: &mut answer,
    });
    match answer {
        Some(Answer::Keys(keys)) => Shape::Section(
            keys.iter()
                .map(|&key| {
                    path.push(Step::Key(key));
                    let shape = ask(path);
                    path.pop();
                    (key, shape)
                })
                .collect(),
        ),
        Some(Answer::List) => {
            path.push(Step::Item);
            let item = ask(path);
            path.pop();
            match item {
                Shape::Value(Kind::Text) => Shape::Value(Kind::Texts),
                item => Shape::List(Box::new(item)),
            }
        }
        Some(Answer::Value(kind)) => Shape::Value(kind),
        None => Shape::Value(Kind::Text),
    }
}

enum Answer {
    Keys(&'static [&'static str]),
    List,
    Value(Kind),
}

/// A deserializer that goes down `path` and notes what is asked of it at the end.
struct Question<'a> {
    path: &'a [Step],
    answer: &'a mut Option<Answer>,
}

impl<'a> Question<'a> {
    fn note(self, answer: Answer) -> value::Error {
        if self.path.is_empty() {
            *self.answer = Some(answer);
        }
        value::Error::custom("noted")
    }

    fn down(self) -> Option<(Step, Self)> {
        let (&step, path) = self.path.split_first()?;
        Some((
            step,
            Question {
                path,
                answer: self.answer,
            },
        ))
    }
}

/// Texts of several meanings all ask for a string; what they call themselves tells them apart.
fn text_kind(visitor: &dyn Expected) -> Kind {
    struct Name<'a>(&'a dyn Expected);
    impl fmt::Display for Name<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }
    match Name(visitor).to_string().as_str() {
        super::duration::EXPECTED => Kind::Duration,
        "an integer or string" => Kind::Size,
        "socket address" => Kind::Address,
        "path string" => Kind::File,
        crate::contacts::account::claims::EXPECTED => Kind::Claims,
        crate::upstream::token::headers::EXPECTED => Kind::Headers,
        _ => Kind::Text,
    }
}

macro_rules! numbers {
    ($($method:ident: $max:expr),*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
            Err(self.note(Answer::Value(Kind::Number { max: $max })))
        }
    )*};
}

impl<'de> Deserializer<'de> for Question<'_> {
    type Error = value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        keys: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        if self.path.is_empty() {
            return Err(self.note(Answer::Keys(keys)));
        }
        visitor.visit_map(Below(self.down()))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        if self.path.is_empty() {
            return Err(self.note(Answer::List));
        }
        visitor.visit_seq(Below(self.down()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, value::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        choices: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, value::Error> {
        Err(self.note(Answer::Value(Kind::Choice(choices))))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        Err(self.note(Answer::Value(Kind::Switch)))
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, value::Error> {
        Err(self.note(Answer::Value(text_kind(&visitor))))
    }

    fn deserialize_f64<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        Err(self.note(Answer::Value(Kind::Share)))
    }

    numbers! {
        deserialize_u8: u64::from(u8::MAX),
        deserialize_u16: u64::from(u16::MAX),
        deserialize_u32: u64::from(u32::MAX),
        deserialize_u64: u64::MAX
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u128 f32 char str string bytes byte_buf unit unit_struct tuple tuple_struct map
        identifier ignored_any
    }
}

/// A table or list with one entry: the next step of the path.
struct Below<'a>(Option<(Step, Question<'a>)>);

impl<'a> Below<'a> {
    fn answer<'de, T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, value::Error> {
        match self.0.take() {
            Some((_, question)) => seed.deserialize(question),
            None => Err(value::Error::custom("asked twice")),
        }
    }
}

impl<'de> MapAccess<'de> for Below<'_> {
    type Error = value::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, value::Error> {
        match &self.0 {
            Some((Step::Key(key), _)) => {
                let key: value::StrDeserializer<'_, value::Error> = (*key).into_deserializer();
                seed.deserialize(key).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<T::Value, value::Error> {
        self.answer(seed)
    }
}

impl<'de> SeqAccess<'de> for Below<'_> {
    type Error = value::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, value::Error> {
        self.answer(seed).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(shape: &Shape, path: &str, out: &mut Vec<String>) {
        match shape {
            Shape::Section(keys) => {
                for (key, shape) in keys {
                    lines(shape, format!("{path}.{key}").trim_start_matches('.'), out);
                }
            }
            Shape::List(item) => lines(item, &format!("{path}[]"), out),
            Shape::Value(kind) => out.push(format!("{path} {kind:?}")),
        }
    }

    /// If serde or a type's own crate words its wish anew, kinds would silently become `Text`: here it shows.
    #[test]
    fn the_structs_tell_every_key_and_its_kind() {
        let mut found = Vec::new();
        lines(tree(), "", &mut found);
        for expected in [
            "accounts[].name Text",
            "accounts[].client_secret_file File",
            "accounts[].client_secret_env Text",
            "accounts[].next_secret_file File",
            "accounts[].algorithm Choice([\"HS256\", \"HS512\", \"RS256\", \"RS512\"])",
            "accounts[].jti Choice([\"auto\", \"off\", \"per_request\"])",
            "accounts[].claims Claims",
            "accounts[].streams[].stream_id Text",
            "admin.token_sha256 Texts",
            "budget.start_share Share",
            "callers[].key_sha256 Texts",
            "callers[].streams Texts",
            "callers[].urgency_max Choice([\"background\", \"bulk\", \"interactive\"])",
            "cache.fresh_for Duration",
            "cache.max_bytes Size",
            "edge.limit_max Number { max: 4294967295 }",
            "edge.uri_max Size",
            "listen.address Address",
            "listen.workers Number { max: 18446744073709551615 }",
            "log.access Switch",
            "token.source Choice([\"sign\", \"service\"])",
            "token.service.headers Headers",
            "token.service.method Choice([\"POST\", \"GET\"])",
            "token.service.secret_header_file File",
            "upstream.paging Choice([\"skip_limit\", \"page_limit\"])",
        ] {
            assert!(
                found.iter().any(|line| line == expected),
                "{expected} in {found:#?}"
            );
        }
        for line in &found {
            assert_eq!(
                line.ends_with(" Duration"),
                line.contains("_timeout ")
                    || line.contains("fresh_for ")
                    || line.contains("stale_for ")
                    || line.starts_with("listen.drain_delay ")
                    || line.starts_with("merge.walk_max ")
                    || line.starts_with("merge.wait_max ")
                    || ["lifetime", "backdate", "secret_poll"]
                        .iter()
                        .any(|key| line.starts_with(&format!("token.{key} "))),
                "{line}"
            );
            assert_eq!(
                line.ends_with(" Size"),
                line.contains("bytes") && !line.contains("timeout") || line.contains("uri_max"),
                "{line}"
            );
        }
    }

    #[test]
    fn names_are_harmless_if_they_are_everywhere() {
        for (name, expected) in [
            ("fresh_for", Some(true)),
            ("client_secret_env", Some(false)),
            ("cache", Some(false)),
            ("token", Some(false)),
            ("client_secret", None),
        ] {
            assert_eq!(harmless(name), expected, "{name}");
        }
    }

    #[test]
    fn a_near_name_is_found_and_a_far_one_is_not() {
        let known = ["fresh_for", "max_bytes", "lists_max_bytes"];
        for (unknown, meant) in [
            ("fresh_fro", Some("fresh_for")),
            ("fresh-for", Some("fresh_for")),
            ("FRESH_FOR", Some("fresh_for")),
            ("max_byte", Some("max_bytes")),
            ("stale_for", None),
            ("x", None),
        ] {
            assert_eq!(nearest(unknown, known), meant, "{unknown}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
