//! Whether what the gateway may come to hold fits the memory that it is given: the sum of its caps against the limit of
//! its control group. Beyond that the kernel ends the process, which no cap of ours can see coming.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bytesize::ByteSize;
use tracing::warn;

use crate::config::Config;

/// What the process needs beside all caps, in bytes: code, threads, connections to upstream, what allocators round up.
const PROCESS: u64 = 64 << 20;

/// What a record of a list that is too large to be kept leaves behind, in bytes.
const STREAMED_RECORD: u64 = 20;

/// Warns if the caps come to more than the limit.
pub fn compare(config: &Config) {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = limit(&own, |file| fs::read_to_string(file).ok());
    let Some((limit, file)) = limit else {
        return;
    };
    let parts = parts(config);
    let sum = sum(&parts);
    if sum > limit {
        warn!(
            caps = %ByteSize::b(sum),
            limit = %ByteSize::b(limit),
            limit_from = %file.display(),
            parts = told(&parts),
            "the configured caps come to more memory than there is: lower them, or raise the limit"
        );
    }
}

/// The most that may be held at once, by the keys that say so, in bytes and largest first.
fn parts(config: &Config) -> Vec<(&'static str, u64)> {
    let (cache, merge) = (&config.cache, &config.merge);
    let page = config.upstream.page_bytes_max.as_u64();
    let list = merge.bytes_max.min(cache.lists_max_bytes).as_u64();
    let times = |number: usize, bytes: u64| (number as u64).saturating_mul(bytes);
    // Of a stream: what was asked for at once, and what is remembered of each record.
    let stream = times(merge.width, page)
        .saturating_add(merge.stream_records_max.saturating_mul(STREAMED_RECORD));
    let heads = config.listen.head_bytes_max.as_u64();
    let mut parts = vec![
        // What copies weigh is known to a seventh.
        ("cache.max_bytes", cache.max_bytes.as_u64() / 100 * 115),
        ("merge.walks_max", times(merge.walks_max, list)),
        ("merge.streams_max", times(merge.streams_max, stream)),
        (
            "listen.connections_max",
            times(config.listen.connections_max, heads),
        ),
        ("the process", PROCESS),
    ];
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    parts
}

fn sum(parts: &[(&str, u64)]) -> u64 {
    parts
        .iter()
        .fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
}

/// The parts in words.
fn told(parts: &[(&str, u64)]) -> String {
    let part = |(key, bytes): &(&str, u64)| format!("{key} {}", ByteSize::b(*bytes));
    parts.iter().map(part).collect::<Vec<_>>().join(", ")
}

/// The least limit of the groups that a process is in, and the file that says it. `own` is its `/proc/self/cgroup`.
///
/// Of version 2 and of version 1: where both are mounted, the memory controller is in one of them. A group is limited by
/// those above it too. In a container the root that is seen may be the group itself.
fn limit(own: &str, read: impl Fn(&Path) -> Option<String>) -> Option<(u64, PathBuf)> {
    let mut files = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(group)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (root, name) = if number == "0" && controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers
            .split(',')
            .any(|controller| controller == "memory")
        {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let group = Path::new(group.trim_start_matches('/'));
        files.extend(
            group
                .ancestors()
                .map(|above| Path::new(root).join(above).join(name)),
        );
    }
    // `max` is no number; version 1 says "none" with the largest one.
    let limits = files.into_iter().filter_map(|file| {
        let limit = read(&file)?.trim().parse::<u64>().ok()?;
        (limit < 1 << 62).then_some((limit, file))
    });
    limits.min_by_key(|(limit, _)| *limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        const UNIFIED: &str = "0::/system.slice/gateway.service\n";
        const SPLIT: &str = "12:cpu,cpuacct:/docker/abc\n9:memory:/docker/abc\n0::/\n";
        let (v2, v1) = ("/sys/fs/cgroup", "/sys/fs/cgroup/memory");
        let (max, largest) = ("max\n", "9223372036854771712\n");
        for (own, files, expected) in [
            (UNIFIED, vec![], None),
            ("", vec![(format!("{v2}/memory.max"), "5\n")], None),
            (
                "nonsense\n0:\n",
                vec![(format!("{v2}/memory.max"), "5\n")],
                None,
            ),
            (
                "0::/\n",
                vec![(format!("{v2}/memory.max"), "536870912\n")],
                Some((0, 536_870_912)),
            ),
            ("0::/\n", vec![(format!("{v2}/memory.max"), max)], None),
            (
                UNIFIED,
                vec![
                    (format!("{v2}/system.slice/gateway.service/memory.max"), max),
                    (format!("{v2}/system.slice/memory.max"), "2000\n"),
                    (format!("{v2}/memory.max"), "3000\n"),
                ],
                Some((1, 2000)),
            ),
            // Another group's is not looked at.
            (
                UNIFIED,
                vec![(format!("{v2}/user.slice/memory.max"), "5\n")],
                None,
            ),
            (
                SPLIT,
                vec![(format!("{v1}/docker/abc/memory.limit_in_bytes"), "1000\n")],
                Some((0, 1000)),
            ),
            // In a container the path is the host's, and the root is its own.
            (
                SPLIT,
                vec![(format!("{v1}/memory.limit_in_bytes"), "700\n")],
                Some((0, 700)),
            ),
            (
                SPLIT,
                vec![(format!("{v1}/docker/abc/memory.limit_in_bytes"), largest)],
                None,
            ),
            (
                SPLIT,
                vec![(format!("{v2}/memory.max"), "600\n")],
                Some((0, 600)),
            ),
        ] {
            let read = |asked: &Path| {
                let found = files.iter().find(|(file, _)| Path::new(file) == asked);
                found.map(|(_, content)| (*content).to_owned())
            };
            let expected = expected
                .map(|(number, limit): (usize, _)| (limit, PathBuf::from(&files[number].0)));
            assert_eq!(limit(own, read), expected, "{own}{files:?}");
        }
    }

    #[test]
    fn the_sum_follows_every_cap() {
        let of = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            sum(&parts(&config))
        };
        const MIB: u64 = 1 << 20;
        // 294 of copies, 1,024 of lists being read, 408 of streams, 1,250 of heads, 64 of the process.
        let default = of(|_| ());
        assert_eq!(default / MIB, 3040);
        for (change, difference) in [
            (
                (|config| config.cache.max_bytes = ByteSize::mib(356)) as fn(&mut Config),
                115,
            ),
            // A list is no larger than what may be kept of lists.
            (|config| config.merge.bytes_max = ByteSize::gib(1), 0),
            (
                |config| config.cache.lists_max_bytes = ByteSize::mib(64),
                -8 * 64,
            ),
            (|config| config.merge.walks_max = 9, 128),
            (|config| config.merge.width = 9, 4 * 8),
            (
                |config| config.upstream.page_bytes_max = ByteSize::mib(9),
                4 * 8,
            ),
            (|config| config.merge.streams_max = 8, 408),
            (|config| config.listen.connections_max = 2_000, -1000),
            (
                |config| config.listen.head_bytes_max = ByteSize::kib(256),
                1250,
            ),
        ] {
            let moved = (of(change) as i64 - default as i64) / MIB as i64;
            assert!((moved - difference).abs() <= 1, "{moved} for {difference}");
        }
        let endless = of(|config| {
            config.merge.walks_max = usize::MAX;
            config.listen.connections_max = usize::MAX;
        });
        assert_eq!(endless, u64::MAX);
    }

    #[test]
    fn the_largest_is_named_first() {
        let told = told(&parts(&Config::default()));
        assert!(
            told.starts_with("listen.connections_max 1.2 GiB, merge.walks_max 1.0 GiB"),
            "{told}"
        );
    }
}
