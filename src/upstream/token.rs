use std::time::Duration;

use serde::Deserialize;

use crate::config::Rules;

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

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        let hour = Duration::from_secs(3600);
        rules.range("lifetime", self.lifetime, Duration::from_secs(10)..=hour);
        rules.range(
            "backdate",
            self.backdate,
            Duration::ZERO..=Duration::from_secs(60),
        );
        if self.lifetime <= hour && self.lifetime.saturating_add(self.backdate) > hour {
            let message =
                "and backdate are more than 1h together, from iat to exp, which Kore.ai may refuse";
            rules.broken(&["lifetime", "backdate"], message.to_owned());
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(10 * 60),
            backdate: Duration::from_secs(30),
        }
    }
}
