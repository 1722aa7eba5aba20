use std::{net::SocketAddr, time::Duration};

use serde::Deserialize;

use crate::config::Rules;

/// `[listen]`: the traffic listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where callers connect. Loopback only, until callers can be configured.
    pub address: SocketAddr,
    /// Threads that serve callers; 1 to 64.
    pub workers: usize,
    /// Connections open at once, all callers together; 1 to 100,000.
    pub connections_max: usize,
    /// How long a caller may take to send a request's head; 100 ms to 5 min.
    #[serde(with = "crate::config::duration")]
    pub header_timeout: Duration,
    /// How long requests in flight may go on after a signal to stop; 0 s to 10 min.
    #[serde(with = "crate::config::duration")]
    pub drain_timeout: Duration,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        rules.loopback("address", self.address);
        rules.range("workers", self.workers, 1..=64);
        rules.range("connections_max", self.connections_max, 1..=100_000);
        rules.range(
            "header_timeout",
            self.header_timeout,
            Duration::from_millis(100)..=Duration::from_secs(5 * 60),
        );
        rules.range(
            "drain_timeout",
            self.drain_timeout,
            Duration::ZERO..=Duration::from_secs(10 * 60),
        );
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            workers: 2,
            connections_max: 10_000,
            header_timeout: Duration::from_secs(10),
            drain_timeout: Duration::from_secs(30),
        }
    }
}
