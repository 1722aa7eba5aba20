//! The JWT app of the one account: how tokens are signed, and with what.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::SimulateError;
use crate::{
    simulator::{AccountSettings, Algorithm},
    upstream::secret::Secret,
};

/// What the flags say of the JWT app.
#[derive(Clone, Debug, clap::Args)]
pub struct AppArgs {
    /// The client id of its JWT app; the demo's own when left out.
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// How tokens are signed.
    #[arg(long, value_enum, default_value_t = Algorithm::HS256)]
    pub algorithm: Algorithm,
    /// A file that holds the client secret; one trailing newline is dropped. The demo's own when left out. May be repeated, as
    /// while secrets rotate: all of them open.
    #[arg(long = "client-secret-file", value_name = "FILE")]
    pub client_secret_files: Vec<PathBuf>,
    /// In its place, for RS256 and RS512: a file that holds the public key in PEM. Given the private one, the printed lines hold
    /// a token. May be repeated.
    #[arg(
        long = "public-key-file",
        value_name = "FILE",
        conflicts_with = "client_secret_files",
        required_if_eq_any([("algorithm", "RS256"), ("algorithm", "RS512")])
    )]
    pub public_key_files: Vec<PathBuf>,
    /// Refuse tokens without a `jti`; each opens once.
    #[arg(long)]
    pub enforce_jti: bool,
    /// Refuse every call: the app lacks the scope.
    #[arg(long)]
    pub no_scope: bool,
}

impl AppArgs {
    /// Makes the account's app what the flags say. Blocking: it reads files.
    pub(super) fn apply(&self, account: &mut AccountSettings) -> Result<(), SimulateError> {
        if !self.public_key_files.is_empty() && !self.algorithm.is_rsa() {
            return Err(SimulateError::KeyOfNoUse);
        }
        if let Some(client_id) = &self.client_id {
            account.client_id.clone_from(client_id);
        }
        account.algorithm = self.algorithm;
        account.enforce_jti = self.enforce_jti;
        account.scope = !self.no_scope;
        let files = self.client_secret_files.iter();
        let mut secrets = Vec::new();
        for file in files.chain(&self.public_key_files) {
            secrets.push(SecretString::from(Secret::from_file(file)?.expose()));
        }
        if !secrets.is_empty() {
            account.client_secret = secrets.remove(0);
            account.more_secrets = secrets;
        }
        Ok(())
    }

    /// The file of the newest secret, if there is any.
    pub(super) fn newest_file(&self) -> Option<&Path> {
        let files = self
            .client_secret_files
            .iter()
            .chain(&self.public_key_files);
        files.last().map(PathBuf::as_path)
    }
}
