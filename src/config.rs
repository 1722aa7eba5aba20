//! Files and environment become one [`Config`].

use serde::Deserialize;

use crate::{admin, contacts, edge, telemetry, upstream};

/// Everything the gateway can be told, made of each module's own part.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub listen: edge::server::Config,
    pub admin: admin::Config,
    pub edge: edge::route::Config,
    pub upstream: upstream::Config,
    pub token: upstream::token::Config,
    pub accounts: Vec<contacts::account::Config>,
    pub cache: contacts::cache::Config,
    pub merge: contacts::walk::Config,
    pub log: telemetry::Config,
}

/// A length of time written as `"5m"` or `"1h 30m"`.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, de::Error};

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(D::Error::custom)
    }
}
