//! The query: one page or the whole list, in plain decimals, or a refusal that names the parameter.
//!
//! It is read as bytes: in texts, characters would be searched for, and that is dear where each page has a query.

use crate::{
    contacts::page::{LIMIT_DEFAULT, Window},
    error::{Error, Kind, Result},
};

/// How callers name pages: as upstream does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// `?skip=N&limit=N`
    Skip,
    /// `?page=N&limit=N`, pages counted from 1.
    Page,
}

/// What a query asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    Page(Window),
    /// With news of how far it is, or without.
    List {
        progress: bool,
    },
}

impl Query {
    /// Reads a query. Absent numbers mean upstream's defaults.
    ///
    /// # Errors
    /// [`Kind::BadParameter`] for whatever is unknown, repeated, malformed or out of range.
    pub fn parse(query: Option<&str>, style: Style, limit_max: u32) -> Result<Self> {
        let (mut skip, mut page, mut limit) = (None, None, None);
        let (mut all, mut progress) = (None, None);
        for pair in query
            .into_iter()
            .filter(|query| !query.is_empty())
            .flat_map(|query| query.as_bytes().split(|byte| *byte == b'&'))
        {
            let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
                Some(end) => (&pair[..end], &pair[end + 1..]),
                None => (pair, &b""[..]),
            };
            let slot = match (name, style) {
                (b"skip", Style::Skip) => &mut skip,
                (b"page", Style::Page) => &mut page,
                (b"limit", _) => &mut limit,
                (b"all", _) => &mut all,
                (b"progress", _) => &mut progress,
                _ => return Err(unknown(style)),
            };
            if slot.replace(value).is_some() {
                return Err(bad(format!("{} is there twice", known(name))));
            }
        }
        if let Some(value) = all {
            if value != b"true" {
                return Err(bad("all takes only the value true"));
            }
            if skip.or(page).or(limit).is_some() {
                return Err(bad("all=true asks for the whole list and has no page"));
            }
            if progress.is_some_and(|value| value != b"true") {
                return Err(bad("progress takes only the value true"));
            }
            let progress = progress.is_some();
            return Ok(Self::List { progress });
        }
        if progress.is_some() {
            return Err(bad("progress=true belongs to all=true"));
        }
        let limit = match limit {
            None => LIMIT_DEFAULT.min(limit_max),
            Some(digits) => decimal(digits)
                .and_then(|limit| u32::try_from(limit).ok())
                .filter(|limit| (1..=limit_max).contains(limit))
                .ok_or_else(|| bad(format!("limit is a plain number from 1 to {limit_max}")))?,
        };
        let skip = match (skip, page) {
            (None, None) => 0,
            (Some(digits), _) => decimal(digits)
                .filter(|skip| *skip <= Window::SKIP_MAX)
                .ok_or_else(|| {
                    bad(format!(
                        "skip is a plain number from 0 to {}",
                        Window::SKIP_MAX
                    ))
                })?,
            (None, Some(digits)) => decimal(digits)
                .and_then(|page| page.checked_sub(1)?.checked_mul(u64::from(limit)))
                .filter(|skip| *skip <= Window::SKIP_MAX)
                .ok_or_else(|| bad("page is a plain number from 1"))?,
        };
        Ok(Self::Page(Window { skip, limit }))
    }
}

/// Digits and nothing else: no sign, no leading zero, no exponent.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    let plain = matches!(digits, [b'0'] | [b'1'..=b'9', ..]);
    let append = |number: u64, digit: &u8| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    };
    plain.then(|| digits.iter().try_fold(0, append)).flatten()
}

fn bad(detail: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Kind::BadParameter, detail)
}

fn unknown(style: Style) -> Error {
    bad(match style {
        Style::Skip => "the parameters are skip and limit, or all=true",
        Style::Page => "the parameters are page and limit, or all=true",
    })
}

/// A parameter's name from the program rather than from the request.
fn known(name: &[u8]) -> &'static str {
    match name {
        b"skip" => "skip",
        b"page" => "page",
        b"limit" => "limit",
        b"progress" => "progress",
        _ => "all",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(query: &str, style: Style) -> Option<Query> {
        Query::parse(Some(query), style, 1000).ok()
    }

    fn page(skip: u64, limit: u32) -> Option<Query> {
        Some(Query::Page(Window { skip, limit }))
    }

    #[test]
    fn absent_means_upstreams_default() {
        assert_eq!(Query::parse(None, Style::Skip, 1000).ok(), page(0, 10));
        for (query, expected) in [
            ("", page(0, 10)),
            ("skip=20", page(20, 10)),
            ("limit=1000", page(0, 1000)),
            ("limit=5&skip=0", page(0, 5)),
            ("skip=9007199254740991&limit=1", page((1 << 53) - 1, 1)),
            ("all=true", Some(Query::List { progress: false })),
            (
                "all=true&progress=true",
                Some(Query::List { progress: true }),
            ),
            (
                "progress=true&all=true",
                Some(Query::List { progress: true }),
            ),
        ] {
            assert_eq!(parse(query, Style::Skip), expected, "{query}");
        }
    }

    #[test]
    fn pages_are_counted_from_one() {
        for (query, expected) in [
            ("page=1", page(0, 10)),
            ("page=3&limit=100", page(200, 100)),
            ("limit=7", page(0, 7)),
            ("page=0", None),
            ("page=9007199254740991&limit=1000", None),
            ("page=18446744073709551615&limit=1000", None),
            ("skip=0", None),
        ] {
            assert_eq!(parse(query, Style::Page), expected, "{query}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for query in [
            "skip=-1",
            "skip=+1",
            "skip=1e3",
            "skip=01",
            "skip=",
            "skip",
            "skip=%31",
            "skip=1 ",
            "skip=0x1",
            "skip=9007199254740992",
            "skip=9223372036854775808",
            "skip=99999999999999999999",
            "limit=0",
            "limit=1001",
            "limit=4294967297",
            "limit=٣",
            "skip=1&skip=1",
            "limit=1&limit=2",
            "page=1",
            "Skip=1",
            "sort=x",
            "&",
            "skip=1&",
            "&skip=1",
            "all",
            "all=",
            "all=1",
            "all=TRUE",
            "all=true&all=true",
            "all=true&limit=1",
            "all=true&skip=0",
            "progress=true",
            "progress=true&skip=0",
            "all=true&progress=1",
            "all=true&progress=",
            "all=true&progress=true&progress=true",
            "skip=1;limit=1",
            "skip=1#x",
        ] {
            assert_eq!(parse(query, Style::Skip), None, "{query}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(query in ".{0,60}") {
            let _ = parse(&query, Style::Skip);
            let _ = parse(&query, Style::Page);
        }

        /// Catches a number that is cut, that wraps around, or that is written in more than one way.
        #[test]
        fn a_decimal_is_read_as_a_number_is_written(number: u64, text in "[0-9+ -]{0,4}|[0-9]{17,21}") {
            prop_assert_eq!(decimal(number.to_string().as_bytes()), Some(number));
            let same = text.parse().ok().filter(|number: &u64| number.to_string() == text);
            prop_assert_eq!(decimal(text.as_bytes()), same);
        }

        #[test]
        fn what_is_written_is_read(skip in 0..=Window::SKIP_MAX, limit in 1_u32..=1000) {
            prop_assert_eq!(parse(&format!("skip={skip}&limit={limit}"), Style::Skip), page(skip, limit));
        }
    }
}
