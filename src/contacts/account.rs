use std::path::PathBuf;

use serde::Deserialize;

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
