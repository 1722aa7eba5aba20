//! As many descriptors as the configured connections need. Shells and service managers often begin a process with 1,024,
//! though it may have many more: below `listen.connections_max` a single peer could then take them all, and no other
//! caller, no probe and no call to upstream would get one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::{config::Config, upstream::client};

/// What the process needs beside connections of callers and to upstream: operators' connections, listeners, threads, files.
const PROCESS: u64 = 256;

/// Raises the process's limit as far as the system lets it, and warns if that is not enough.
pub fn provide(config: &Config) {
    let needed = needed(config);
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Refused nearly nowhere; then what there was is there still.
    let raised = setrlimit(Resource::Nofile, all).is_ok();
    let allowed = if raised { all.current } else { limit.current };
    if let Some(allowed) = allowed.filter(|allowed| *allowed < needed) {
        warn!(
            allowed,
            needed,
            "with all connections open there are too few descriptors, for probes and upstream too: lower listen.connections_max, or raise the limit (LimitNOFILE=, ulimit -Hn)"
        );
    }
}

/// The descriptors with all connections open.
fn needed(config: &Config) -> u64 {
    let callers = config.listen.connections_max as u64;
    // Those in use, and those that are kept for the next calls: each has made a call, and is kept for less than the minute
    // in which an account has so many.
    let accounts = config.accounts.iter();
    let calls = accounts.map(|account| u64::from(account.calls_per_minute));
    let idle = client::idle_max(&config.upstream).min(calls.sum());
    callers + config.upstream.calls_max as u64 + idle + PROCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contacts::account;

    /// Catches connections to upstream that are kept for many collections and are not counted.
    #[test]
    fn what_is_kept_for_the_next_calls_is_counted() {
        let mut config = Config::default();
        let in_use = config.listen.connections_max as u64 + config.upstream.calls_max as u64;
        assert_eq!(needed(&config), in_use + PROCESS);
        let account = |calls_per_minute| account::Config {
            calls_per_minute,
            ..account::Config::default()
        };
        config.accounts = vec![account(60), account(600)];
        assert_eq!(needed(&config), in_use + 660 + PROCESS);
        config.accounts = vec![account(60); 1_000];
        assert_eq!(needed(&config), in_use + 8_000 + PROCESS);
        config.upstream.idle_connections_max = 0;
        assert_eq!(needed(&config), in_use + PROCESS);
    }
}
