//! `Cache-Control` of a request: read leniently, as HTTP wants it. What is unknown or malformed says nothing.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header::CACHE_CONTROL};

use crate::contacts::directives::Directives;

/// What a request says about copies. Of a directive that is there twice the first counts.
pub(super) fn read(headers: &HeaderMap) -> Directives {
    let mut read = Directives::default();
    for directive in headers.get_all(CACHE_CONTROL).iter().flat_map(split) {
        let (name, value) = match directive.split_once('=') {
            Some((name, value)) => (name.trim_end(), Some(value.trim_start())),
            None => (directive, None),
        };
        let delta = value.and_then(delta);
        match name.to_ascii_lowercase().as_str() {
            "no-cache" => read.no_cache = true,
            "only-if-cached" => read.only_if_cached = true,
            "max-age" => first(&mut read.max_age, delta),
            "min-fresh" => first(&mut read.min_fresh, delta),
            "max-stale" if value.is_none() => first(&mut read.max_stale, Some(Duration::MAX)),
            "max-stale" => first(&mut read.max_stale, delta),
            "stale-if-error" => first(&mut read.stale_if_error, delta),
            _ => {}
        }
    }
    read
}

fn first(place: &mut Option<Duration>, value: Option<Duration>) {
    *place = place.or(value);
}

/// A header's directives. A comma inside quotes separates nothing.
fn split(value: &HeaderValue) -> impl Iterator<Item = &str> {
    let text = value.to_str().unwrap_or_default();
    let mut quoted = false;
    let separates = move |character| {
        quoted ^= character == '"';
        character == ',' && !quoted
    };
    text.split(separates).map(str::trim)
}

/// Seconds (RFC 9111, section 1.2.2): also in quotes, and more than can be counted is as much as can be.
fn delta(text: &str) -> Option<Duration> {
    let text = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => text,
    };
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(Duration::from_secs(text.parse().unwrap_or(1 << 31)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&'static str]) -> Directives {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
        }
        read(&headers)
    }

    fn seconds(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn what_is_said_is_read() {
        let none = Directives::default();
        for (lines, expected) in [
            (&[][..], none),
            (&[""], none),
            (
                &["no-cache"],
                Directives {
                    no_cache: true,
                    ..none
                },
            ),
            (
                &["No-Cache"],
                Directives {
                    no_cache: true,
                    ..none
                },
            ),
            (
                &["only-if-cached"],
                Directives {
                    only_if_cached: true,
                    ..none
                },
            ),
            (
                &["max-age=0"],
                Directives {
                    max_age: seconds(0),
                    ..none
                },
            ),
            (
                &["max-age=\"60\""],
                Directives {
                    max_age: seconds(60),
                    ..none
                },
            ),
            (
                &["max-age=60, max-age=5"],
                Directives {
                    max_age: seconds(60),
                    ..none
                },
            ),
            (
                &["max-age=99999999999999999999"],
                Directives {
                    max_age: seconds(1 << 31),
                    ..none
                },
            ),
            (
                &["max-stale"],
                Directives {
                    max_stale: Some(Duration::MAX),
                    ..none
                },
            ),
            (
                &["min-fresh=1 ,max-stale=2", "stale-if-error=3"],
                Directives {
                    min_fresh: seconds(1),
                    max_stale: seconds(2),
                    stale_if_error: seconds(3),
                    ..none
                },
            ),
            // Unknown, malformed, or inside quotes.
            (&["no-store, no-transform, public"], none),
            (
                &[
                    "max-age",
                    "max-age=",
                    "max-age=-1",
                    "max-age=+1",
                    "max-age=1.5",
                    "max-age=x",
                ],
                none,
            ),
            (&["max-stale=x"], none),
            (&["max-age=\"60"], none),
            (
                &["private=\"a, no-cache\", max-age=7"],
                Directives {
                    max_age: seconds(7),
                    ..none
                },
            ),
        ] {
            assert_eq!(of(lines), expected, "{lines:?}");
        }
    }
}
