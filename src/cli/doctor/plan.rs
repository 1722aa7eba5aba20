//! What an examination will ask for, known before it begins: the streams, the limits, and the most calls that they cost.

use super::finding::{Code, Finding, Status, Step};
use crate::{
    config::Config,
    contacts::{account, ids::StreamId},
};

/// Calls for one page: with the shared token, with a new one (or the second secret), and with one that has a `jti`.
pub(super) const TRIES: u32 = 3;

/// The limits that are tried, largest first: what a caller may ask for, what a walk asks for, and what is known of Kore.ai.
pub(super) fn limits(config: &Config) -> Vec<u32> {
    let walks = config.merge.page_limit_max;
    let mut limits = vec![walks.max(config.edge.limit_max), walks, 100, 50, 10];
    limits.sort_unstable_by(|one, other| other.cmp(one));
    limits.dedup();
    let most = walks.max(config.edge.limit_max);
    limits.retain(|limit| *limit <= most);
    limits
}

/// The most calls that an account with so many streams can cost.
pub(super) fn calls_max(config: &Config, streams: usize) -> u32 {
    let pages = TRIES * u32::try_from(streams).unwrap_or(u32::MAX / TRIES);
    // The second page, and then either the same in the other style or the limits.
    let more = 1 + u32::try_from(limits(config).len())
        .unwrap_or(u32::MAX)
        .max(1);
    if streams == 0 {
        0
    } else {
        pages.saturating_add(more)
    }
}

/// The streams of an account that are asked for: those it lists, or of them the one that was named; else what was named.
pub(super) fn streams(
    told: &account::Config,
    named: Option<&str>,
) -> Result<Vec<StreamId>, Finding> {
    let usage = |code, detail: &str, advice: &str| {
        Err(Finding::new(Step::Stream, Status::Usage, code, detail).advise(advice))
    };
    let listed = told.streams.iter();
    let wanted = listed.filter(|stream| {
        named.is_none_or(|named| named == stream.name || named == stream.stream_id)
    });
    let found: Vec<_> = wanted
        .filter_map(|stream| StreamId::parse(&stream.stream_id))
        .collect();
    match (&found[..], named) {
        ([_, ..], _) => Ok(found),
        ([], Some(id)) if told.streams.is_empty() => match StreamId::parse(id) {
            Some(id) => Ok(vec![id]),
            None => usage(
                Code::NoStream,
                "--stream is no stream id: 1 to 128 of A-Z, a-z, 0-9, _ and -",
                "Copy the stream id (st-...) from the console.",
            ),
        },
        ([], Some(_)) => usage(
            Code::OtherStream,
            "--stream names none of the streams that the account lists",
            "Name one of them, by name or id, or leave --stream out to ask for each.",
        ),
        ([], None) => usage(
            Code::NoStream,
            "the account lists no streams, so that there is none to ask for",
            "Name one with --stream ID.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contacts::account::StreamConfig;

    proptest! {
        /// The largest comes first, none comes twice, and all of them are counted.
        #[test]
        fn limits_go_down_from_the_largest_that_is_ever_asked_for(callers in 1..10_000_u32, walks in 2..10_000_u32, streams in 1..50_usize) {
            let mut config = Config::default();
            (config.edge.limit_max, config.merge.page_limit_max) = (callers, walks);
            let limits = limits(&config);
            prop_assert_eq!(limits[0], callers.max(walks));
            prop_assert!(limits.is_sorted_by(|one, other| one > other));
            prop_assert!(limits.contains(&walks));
            let pages = TRIES * u32::try_from(streams).unwrap();
            prop_assert_eq!(calls_max(&config, streams), pages + 1 + u32::try_from(limits.len()).unwrap());
        }
    }

    #[test]
    fn streams_are_those_that_are_listed_or_the_one_that_is_named() {
        let stream = |name: &str| StreamConfig {
            name: name.to_owned(),
            stream_id: format!("st-{name}"),
        };
        let account = |names: &[&str]| account::Config {
            streams: names.iter().map(|name| stream(name)).collect(),
            ..account::Config::default()
        };
        for (listed, named, expected) in [
            (&["a", "b"][..], None, Ok(&["st-a", "st-b"][..])),
            (&["a", "b"], Some("b"), Ok(&["st-b"])),
            (&["a", "b"], Some("st-b"), Ok(&["st-b"])),
            (&["a", "b"], Some("st-c"), Err(Code::OtherStream)),
            (&[], Some("st-c"), Ok(&["st-c"])),
            (&[], Some("st/c"), Err(Code::NoStream)),
            (&[], None, Err(Code::NoStream)),
        ] {
            let found = streams(&account(listed), named);
            let found = found.map_err(|usage| usage.code);
            let ids: Result<Vec<_>, _> =
                found.map(|ids| ids.iter().map(ToString::to_string).collect());
            let expected = expected.map(|ids| ids.iter().map(ToString::to_string).collect());
            assert_eq!(ids, expected, "{listed:?} {named:?}");
        }
    }
}
