//! `[[accounts]]`: what the configuration says of an account, and what it must keep to.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::claims::Claims;
use crate::config::Rules;

/// One `[[accounts]]` table: a Kore.ai account and the credential that reads it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What logs and metrics call it: `[a-z0-9_-]{1,64}`, unique. Required.
    pub name: String,
    /// Kore.ai's id for it: 1 to 128 of `[A-Za-z0-9_-]`, unique. Required.
    pub account_id: String,
    /// The JWT app's client id (`cs-...`): 1 to 256 visible ASCII characters. Required.
    pub client_id: String,
    /// A file that holds the client secret; one trailing newline is dropped. Relative to the configuration file.
    pub client_secret_file: Option<PathBuf>,
    /// The environment variable that holds the client secret. Exactly one of the two is required, if tokens are signed here.
    pub client_secret_env: Option<String>,
    /// A file that holds a second client secret, tried when the first is refused: for the time of a rotation.
    pub next_secret_file: Option<PathBuf>,
    /// The environment variable that holds a second client secret. At most one of the two.
    pub next_secret_env: Option<String>,
    /// How tokens are signed.
    pub algorithm: Algorithm,
    /// Whether tokens are good for one call each.
    pub jti: Jti,
    /// More claims for each token, or another `sub`. Not shown, since somebody may have put a secret here.
    #[serde(skip_serializing)]
    pub claims: Claims,
    /// Calls that Kore.ai allows the account in a minute; 1 to 60,000.
    pub calls_per_minute: u32,
    /// The streams that may be asked for. None listed: every stream of the account is open.
    pub streams: Vec<StreamConfig>,
}

impl Config {
    /// States which rules are broken within this account. `signs` tells whether the gateway signs its tokens.
    pub fn check(&self, signs: bool, rules: &mut Rules) {
        rules.name("name", &self.name);
        rules.id("account_id", &self.account_id);
        rules.text(
            "client_id",
            &self.client_id,
            256,
            |c| c.is_ascii_graphic(),
            "visible ASCII",
        );
        if signs {
            self.check_secret(rules);
            self.check_next_secret(rules);
            self.claims.check(rules);
        } else {
            self.check_superfluous(rules);
        }
        rules.range("calls_per_minute", self.calls_per_minute, 1..=60_000);
        for (index, stream) in self.streams.iter().enumerate() {
            rules.section(&format!("streams[{index}]"), |rules| {
                rules.name("name", &stream.name);
                rules.id("stream_id", &stream.stream_id);
            });
        }
        let streams = || self.streams.iter();
        rules.unique(
            "streams",
            "name",
            streams().map(|stream| stream.name.as_str()),
        );
        rules.unique(
            "streams",
            "stream_id",
            streams().map(|stream| stream.stream_id.as_str()),
        );
    }

    /// What would only mislead where a token service decides it.
    fn check_superfluous(&self, rules: &mut Rules) {
        let set = [
            ("client_secret_file", self.client_secret_file.is_some()),
            ("client_secret_env", self.client_secret_env.is_some()),
            ("next_secret_file", self.next_secret_file.is_some()),
            ("next_secret_env", self.next_secret_env.is_some()),
            ("algorithm", self.algorithm != Algorithm::default()),
            ("claims", self.claims != Claims::default()),
        ];
        for (key, _) in set.into_iter().filter(|(_, set)| *set) {
            let message = "is not used while token.source is \"service\": remove it";
            rules.broken(&[key], message.to_owned());
        }
    }

    fn check_secret(&self, rules: &mut Rules) {
        let both = ["client_secret_file", "client_secret_env"];
        match (&self.client_secret_file, &self.client_secret_env) {
            (Some(_), Some(_)) => rules.broken(
                &both,
                "and client_secret_env are both set: keep one".to_owned(),
            ),
            (None, None) => rules.broken(&both, "or client_secret_env is required".to_owned()),
            (Some(file), None) if file.as_os_str().is_empty() => {
                rules.broken(&["client_secret_file"], "names no file".to_owned());
            }
            (Some(_), None) => {}
            (None, Some(name)) => rules.variable("client_secret_env", name),
        }
    }

    fn check_next_secret(&self, rules: &mut Rules) {
        match (&self.next_secret_file, &self.next_secret_env) {
            (Some(_), Some(_)) => rules.broken(
                &["next_secret_file", "next_secret_env"],
                "and next_secret_env are both set: keep one".to_owned(),
            ),
            (Some(file), None) if file.as_os_str().is_empty() => {
                rules.broken(&["next_secret_file"], "names no file".to_owned());
            }
            (_, None) => {}
            (None, Some(name)) => rules.variable("next_secret_env", name),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: String::new(),
            account_id: String::new(),
            client_id: String::new(),
            client_secret_file: None,
            client_secret_env: None,
            next_secret_file: None,
            next_secret_env: None,
            algorithm: Algorithm::default(),
            jti: Jti::default(),
            claims: Claims::default(),
            calls_per_minute: 60,
            streams: Vec::new(),
        }
    }
}

/// The signature of the JWTs. HS256 is the one that Kore.ai documents for this API.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum Algorithm {
    #[default]
    HS256,
    HS512,
    /// The secret is an RSA private key in PEM, as are those of RS512.
    RS256,
    RS512,
}

/// Whether tokens carry a `jti`, and so are good for one call each.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Jti {
    /// As soon as upstream asks for it.
    #[default]
    Auto,
    Off,
    PerRequest,
}

/// One `[[accounts.streams]]` table.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamConfig {
    /// What logs call it: `[a-z0-9_-]{1,64}`, unique within the account. Required.
    pub name: String,
    /// Kore.ai's id for it: 1 to 128 of `[A-Za-z0-9_-]`, unique within the account. Required.
    pub stream_id: String,
}
