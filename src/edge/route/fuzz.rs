//! Any target of a request: what is read of a path and a query is exactly what stands there, within its ranges.

use super::{
    path,
    query::{Query, Style},
};
use crate::{
    contacts::{
        ids::is_plain,
        page::{LIMIT_DEFAULT, Window},
    },
    error::Kind,
};

/// Reads a target, `PATH` or `PATH?QUERY`.
///
/// # Panics
/// If a property does not hold.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    check_path(path);
    for limit_max in [1, 10, 1000, 10_000] {
        check_query(query, Style::Skip, limit_max);
        check_query(query, Style::Page, limit_max);
    }
}

fn check_path(path: &str) {
    let written = |id: &str| format!("/agentassist/api/v1/public/{id}/contacts");
    match path::stream(path) {
        Ok(id) => {
            assert!(is_plain(&id) && (1..=128).contains(&id.len()));
            assert!(
                id.bytes()
                    .all(|byte| b"-_".contains(&byte) || byte.is_ascii_alphanumeric())
            );
            assert_eq!(path::stream(&written(&id)).ok().as_deref(), Some(&*id));
            // Each character stands there as itself or as two digits, so that no other reader reads another one.
            let mut rest = path;
            for character in written(&id).chars() {
                let escaped = [
                    format!("%{:02x}", u32::from(character)),
                    format!("%{:02X}", u32::from(character)),
                ];
                rest = rest
                    .strip_prefix(character)
                    .or_else(|| {
                        let head = rest.get(..3)?;
                        let same = escaped
                            .iter()
                            .any(|escape| escape.eq_ignore_ascii_case(head));
                        same.then(|| &rest[3..])
                    })
                    .unwrap_or_else(|| panic!("{path:?} is read as {id:?}"));
            }
            assert_eq!(rest, "");
        }
        Err(error) => assert!(matches!(error.kind(), Kind::BadStream | Kind::NotFound)),
    }
}

fn check_query(query: &str, style: Style, limit_max: u32) {
    let read = Query::parse(Some(query), style, limit_max);
    let pairs = || query.split('&').filter(|pair| !pair.is_empty());
    match read {
        Ok(Query::List { progress }) => {
            let mut given: Vec<_> = pairs().collect();
            given.sort_unstable();
            let expected: &[_] = if progress {
                &["all=true", "progress=true"]
            } else {
                &["all=true"]
            };
            assert_eq!(given, expected);
        }
        Ok(Query::Page(window)) => {
            let Window { skip, limit } = window;
            assert!((1..=limit_max).contains(&limit) && skip <= Window::SKIP_MAX);
            let first = match style {
                Style::Skip => format!("skip={skip}"),
                Style::Page => {
                    assert_eq!(skip % u64::from(limit), 0);
                    format!("page={}", skip / u64::from(limit) + 1)
                }
            };
            // Each number is written as it would be written again, and what is not there is the default.
            let second = format!("limit={limit}");
            let mut given: Vec<_> = pairs().collect();
            given.sort_unstable();
            given.dedup();
            assert_eq!(given.len(), pairs().count());
            assert!(
                given.iter().all(|pair| *pair == first || *pair == second),
                "{query:?}: {window:?}"
            );
            assert!(given.contains(&&*first) || skip == 0);
            assert!(given.contains(&&*second) || limit == LIMIT_DEFAULT.min(limit_max));
            let again = Query::parse(Some(&format!("{first}&{second}")), style, limit_max);
            assert_eq!(again.ok(), Some(Query::Page(window)));
        }
        Err(error) => assert_eq!(error.kind(), Kind::BadParameter),
    }
}
