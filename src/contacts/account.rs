use std::path::PathBuf;

use serde::Deserialize;

use crate::config::Rules;

/// One `[[accounts]]` table: a Kore.ai account and the credential that reads it.
#[derive(Clone, Debug, Default, Deserialize)]
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
    /// The environment variable that holds the client secret. Exactly one of the two is required.
    pub client_secret_env: Option<String>,
    /// How tokens are signed.
    pub algorithm: Algorithm,
    /// The streams that may be asked for. None listed: every stream of the account is open.
    pub streams: Vec<StreamConfig>,
}

impl Config {
    /// States which rules are broken within this account.
    pub fn check(&self, rules: &mut Rules) {
        rules.name("name", &self.name);
        rules.id("account_id", &self.account_id);
        rules.text(
            "client_id",
            &self.client_id,
            256,
            |c| c.is_ascii_graphic(),
            "visible ASCII",
        );
        self.check_secret(rules);
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
            // Capitals only, so that a secret put here by mistake is refused and not later named as a variable.
            (None, Some(name)) => rules.text(
                "client_secret_env",
                name,
                128,
                |c| matches!(c, 'A'..='Z' | '0'..='9' | '_'),
                "A-Z, 0-9 and _: the name of an environment variable, not the secret itself",
            ),
        }
    }
}

/// The signature of the JWTs. HS256 is the one that Kore.ai documents for this API.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum Algorithm {
    #[default]
    HS256,
}

/// One `[[accounts.streams]]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamConfig {
    /// What logs call it: `[a-z0-9_-]{1,64}`, unique within the account. Required.
    pub name: String,
    /// Kore.ai's id for it: 1 to 128 of `[A-Za-z0-9_-]`, unique within the account. Required.
    pub stream_id: String,
}
