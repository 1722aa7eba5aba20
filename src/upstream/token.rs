use std::time::Duration;

use serde::Deserialize;

/// `[token]`: the JWTs signed for upstream.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// From `now` to `exp`; 10 s to 1 h (Kore.ai refuses more when `jti` is enforced).
    #[serde(with = "crate::config::duration")]
    pub lifetime: Duration,
    /// How far `iat` is set back, for clocks that differ; 0 s to 60 s.
    #[serde(with = "crate::config::duration")]
    pub backdate: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(10 * 60),
            backdate: Duration::from_secs(30),
        }
    }
}
