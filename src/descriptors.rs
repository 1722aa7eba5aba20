//! As many descriptors as the configured connections need. Shells and service managers often begin a process with 1,024,
//! though it may have many more: below `listen.connections_max` a single peer could then take them all, and no other
//! caller, no probe and no call to upstream would get one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

use crate::config::Config;

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
    // In use, and about as many that are kept for the next calls.
    let upstream = 2 * config.upstream.calls_max as u64;
    callers + upstream + PROCESS
}
