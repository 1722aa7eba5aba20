//! `config/default.toml` is what an operator trusts: here it is held against the structs, key by key.

use std::path::Path;

use super::{
    Config, Problems,
    keys::{self, Shape},
    parse,
};
use crate::edge::caller;

const FILE: &str = include_str!("../../config/default.toml");

fn read(text: &str) -> Result<Config, Problems> {
    parse(
        Path::new("default.toml"),
        text.as_bytes(),
        Vec::<(String, String)>::new(),
    )
}

/// The line without its comment mark, if it holds a key or a table and not prose.
fn setting(line: &str) -> Option<&str> {
    let line = line.strip_prefix("# ").unwrap_or(line);
    let key = line
        .split(" = ")
        .next()
        .filter(|key| key.len() < line.len());
    let is_key = key.is_some_and(|key| {
        key.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    });
    (is_key || line.starts_with('[') && line.ends_with(']')).then_some(line)
}

/// The file with nothing commented out but prose.
fn uncommented() -> String {
    FILE.lines()
        .map(|line| setting(line).unwrap_or(""))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Each key as (section, key, value, the comment above it).
fn settings() -> Vec<(String, String, String, String)> {
    let (mut section, mut comment, mut found) = (String::new(), String::new(), Vec::new());
    for line in FILE.lines() {
        let line = line.strip_prefix("#or ").unwrap_or(line);
        match setting(line) {
            Some(line) => match line.split_once(" = ") {
                Some((key, value)) => {
                    found.push((
                        section.clone(),
                        key.to_owned(),
                        value.to_owned(),
                        std::mem::take(&mut comment),
                    ));
                }
                None => section = line.trim_matches(['[', ']']).to_owned(),
            },
            None if line.is_empty() => comment.clear(),
            None => comment.extend([line.trim_start_matches('#').trim(), "\n"]),
        }
    }
    found
}

/// A file with one account and a caller, so that nothing is missing, and `more` before it.
fn with_account(more: &str) -> String {
    let example = FILE.split_once("# [[accounts]]").expect("the example").1;
    let example: Vec<_> = example.lines().filter_map(setting).collect();
    format!("{more}\n[[accounts]]\n{}", example.join("\n"))
}

#[test]
fn as_it_is_it_lacks_nothing_but_an_account() {
    let problems = read(FILE).expect_err("no account").to_string();
    assert_eq!(
        problems,
        "default.toml: accounts: there is none: write one [[accounts]] for each Kore.ai account"
    );
}

#[test]
fn uncommented_it_gives_the_defaults_and_the_example() {
    let mut config = read(&uncommented()).unwrap_or_else(|problems| panic!("{problems}"));
    let accounts = std::mem::take(&mut config.accounts);
    let callers = std::mem::take(&mut config.callers);
    assert_eq!(format!("{config:#?}"), format!("{:#?}", Config::default()));
    assert_eq!(accounts.len(), 1);
    assert_eq!(accounts[0].name, "acme");
    assert_eq!(accounts[0].streams.len(), 1);
    let default = caller::Config::default();
    let [caller] = &callers[..] else {
        panic!("{callers:?}")
    };
    assert_eq!(
        (&*caller.name, &*caller.accounts),
        ("crm", &["acme".to_owned()][..])
    );
    assert_eq!(caller.requests_per_minute, default.requests_per_minute);
    assert_eq!(caller.requests_at_once, default.requests_at_once);
    assert_eq!(caller.urgency_max, default.urgency_max);
    let other = uncommented().replace(
        "client_secret_file = \"secrets/acme\"",
        "client_secret_env = \"ACME_SECRET\"",
    );
    let config = read(&other).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(
        config.accounts[0].client_secret_env.as_deref(),
        Some("ACME_SECRET")
    );
}

#[test]
fn no_key_is_missing_and_none_is_unknown() {
    fn known(shape: &Shape, section: &str, out: &mut Vec<String>) {
        match shape {
            Shape::Section(keys) => {
                for (key, shape) in keys {
                    known(
                        shape,
                        format!("{section}.{key}").trim_start_matches('.'),
                        out,
                    );
                }
            }
            Shape::List(item) => known(item, section, out),
            Shape::Value(_) => out.push(section.to_owned()),
        }
    }
    let mut expected = Vec::new();
    known(keys::tree(), "", &mut expected);
    let mut found: Vec<_> = settings()
        .into_iter()
        .map(|(section, key, ..)| format!("{section}.{key}"))
        .collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn each_key_is_explained() {
    for (section, key, _, comment) in settings() {
        assert!(comment.trim().len() > 20, "{section}.{key} has no comment");
    }
}

/// A step outwards from one end of a range, in the unit it is written in.
fn beyond(bound: &str, step: i64) -> Option<String> {
    let digits = bound
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(bound.len());
    let number = bound[..digits].parse::<i64>().expect("a number") + step;
    (number >= 0).then(|| format!("{number}{}", &bound[digits..]))
}

#[test]
fn the_ranges_are_those_that_are_checked() {
    let mut ranges = 0;
    for (section, key, default, comment) in settings() {
        let Some(range) = comment
            .lines()
            .find_map(|line| line.strip_prefix("Range: "))
        else {
            continue;
        };
        let (low, high) = range
            .trim_end_matches('.')
            .split_once(" to ")
            .expect("two ends");
        let told = |value: &str| {
            let quote = if default.starts_with('"') { "\"" } else { "" };
            let text = with_account(&format!("[{section}]\n{key} = {quote}{value}{quote}"));
            read(&text)
                .err()
                .map_or_else(String::new, |problems| problems.to_string())
        };
        for (bound, step) in [(low, -1), (high, 1)] {
            assert!(
                !told(bound).contains("is out of range"),
                "{section}.{key} = {bound}: {}",
                told(bound)
            );
            if let Some(beyond) = beyond(bound, step) {
                let expected = format!("is out of range: {low} to {high}\n");
                assert!(
                    told(&beyond).contains(&expected),
                    "{section}.{key} = {beyond}: {}",
                    told(&beyond)
                );
            }
        }
        ranges += 1;
    }
    assert_eq!(
        ranges, 58,
        "each number, length of time and size but lists_max_bytes has a range"
    );
}

#[test]
fn every_number_length_and_size_names_its_range() {
    for (section, key, default, comment) in settings() {
        let quantity = default
            .trim_matches('"')
            .starts_with(|c: char| c.is_ascii_digit());
        let in_list = ["accounts", "callers"]
            .iter()
            .any(|list| section.starts_with(list));
        let ids = in_list || key == "address" || key == "lists_max_bytes";
        assert_eq!(
            quantity && !ids,
            comment.contains("Range: "),
            "{section}.{key}"
        );
    }
}
