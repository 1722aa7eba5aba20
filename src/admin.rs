use std::net::SocketAddr;

use serde::Deserialize;

use crate::config::Rules;

/// `[admin]`: the second listener.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where operators, probes and Prometheus connect. Loopback only.
    pub address: SocketAddr,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        rules.loopback("address", self.address);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8081)),
        }
    }
}
