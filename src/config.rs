//! Files and environment become one [`Config`].
//!
//! [`load`] is all or nothing, and says everything that is wrong at once: an operator with five mistakes should need
//! one run, not five. In order:
//!
//! 1. the file is parsed by `toml`, which alone knows positions (`document`); a syntax error ends it here;
//! 2. each key and value is judged by the tree of keys (`keys`, `kind`), which is asked from the `Config` structs;
//! 3. so is each variable (`variables`);
//! 4. what is good is merged by the `config` crate and read by serde; what was bad has its default meanwhile;
//! 5. each module states which of its rules are broken (`rules`), except where that only follows from a bad value;
//! 6. all is sorted by position, and shown without anything that may be a secret (`problem`, `excerpt`).
//!
//! Secrets are not part of a `Config`: [`secrets`] reads them, since one that cannot be read concerns its account alone.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::Read,
    net::SocketAddr,
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    admin, contacts, edge,
    edge::key::Digest,
    telemetry, upstream,
    upstream::secret::{Secret, Source, Sources},
};

use examine::{Examined, Secrets, examine};
use problem::{Fault, Place};
use variables::Variables;

mod document;
pub mod duration;
mod effective;
mod examine;
mod excerpt;
mod findings;
mod keys;
mod kind;
mod problem;
mod rules;
pub mod size;
mod variables;

#[cfg(test)]
mod default_file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) use keys::every_key;
pub(crate) use keys::nearest;
pub use problem::{Problem, Problems};
#[cfg(test)]
pub(crate) use rules::Broken;
pub use rules::{Quantity, Rules};

/// The largest file that is read, in bytes. A thousand accounts need a quarter of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Everything the gateway can be told, made of each module's own part.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub listen: edge::server::Config,
    pub admin: admin::Config,
    pub edge: edge::route::Config,
    pub upstream: upstream::Config,
    pub token: upstream::token::Config,
    pub budget: upstream::budget::Config,
    pub accounts: Vec<contacts::account::Config>,
    pub callers: Vec<edge::caller::Config>,
    pub cache: contacts::cache::Config,
    pub merge: contacts::walk::Config,
    pub log: telemetry::Config,
}

impl Config {
    /// All rules: each module's own, and those between modules.
    pub fn check(&self, rules: &mut Rules) {
        rules.section("listen", |rules| self.listen.check(rules));
        rules.section("admin", |rules| self.admin.check(rules));
        rules.section("edge", |rules| self.edge.check(rules));
        rules.section("upstream", |rules| self.upstream.check(rules));
        rules.section("token", |rules| self.token.check(rules));
        rules.section("budget", |rules| self.budget.check(rules));
        rules.section("cache", |rules| self.cache.check(rules));
        rules.section("merge", |rules| self.merge.check(rules));
        rules.section("log", |rules| self.log.check(rules));
        for (index, account) in self.accounts.iter().enumerate() {
            let signs = self.token.source == upstream::token::TokenSource::Sign;
            rules.section(&format!("accounts[{index}]"), |rules| {
                account.check(signs, rules);
            });
        }
        let accounts = || self.accounts.iter();
        rules.unique(
            "accounts",
            "name",
            accounts().map(|account| account.name.as_str()),
        );
        rules.unique(
            "accounts",
            "account_id",
            accounts().map(|account| account.account_id.as_str()),
        );
        if self.accounts.is_empty() {
            rules.broken(
                &["accounts"],
                "there is none: write one [[accounts]] for each Kore.ai account".to_owned(),
            );
        }
        edge::caller::check(&self.callers, &self.accounts, rules);
        self.check_keys(rules);
        let port = self.listen.address.port();
        if port != 0 && port == self.admin.address.port() {
            rules.broken(
                &["admin.address", "listen.address"],
                format!("the port {port} is also that of listen.address"),
            );
        }
    }

    /// Who may come from other machines must show a key, and each key is one's own.
    fn check_keys(&self, rules: &mut Rules) {
        let away = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
        if away(self.listen.address) && self.callers.is_empty() {
            let message = "is not a loopback address: without [[callers]] whoever connects may read every account, so only loopback is allowed";
            rules.broken(&["listen.address", "callers"], message.to_owned());
        }
        if away(self.admin.address) && self.admin.token_sha256.is_empty() {
            let message = "is not a loopback address: without token_sha256 whoever connects may operate the gateway, so only loopback is allowed";
            rules.broken(&["admin.address", "admin.token_sha256"], message.to_owned());
        }
        let tokens = self.admin.token_sha256.iter().enumerate();
        let tokens = tokens.map(|(index, token)| (format!("admin.token_sha256[{index}]"), token));
        let callers = self.callers.iter().enumerate();
        let keys = callers.flat_map(|(caller, config)| {
            let keys = config.key_sha256.iter().enumerate();
            keys.map(move |(index, key)| (format!("callers[{caller}].key_sha256[{index}]"), key))
        });
        rules.distinct(
            tokens
                .chain(keys)
                .filter_map(|(place, digest)| Some((place, Digest::parse(digest)?))),
            str::to_owned,
            |first| format!("is already {first}: each key belongs to one"),
        );
    }
}

/// Reads the file at `path`, with the variables of `env` laid over it. Blocking.
///
/// `env` is usually [`std::env::vars_os`]; of it only names beginning with `CONTACTS_GATEWAY__` are looked at.
///
/// # Errors
/// Everything that is wrong, at once. Secrets are not looked at; see [`secrets`] and [`check`].
pub fn load(
    path: &Path,
    env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
) -> Result<Config, Problems> {
    let mut config = parse(path, &read(path)?, env)?;
    for tls in [&mut config.listen.tls, &mut config.admin.tls] {
        *tls = tls.within(folder(path));
    }
    Ok(config)
}

/// As [`load`], while the gateway runs: of a regular file alone. Opening a pipe would wait for its writer, and whoever
/// reloads next would wait as well.
///
/// # Errors
/// As [`load`].
pub fn load_again(
    path: &Path,
    env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
) -> Result<Config, Problems> {
    let found = fs::metadata(path);
    let found = found.map_err(|error| of_file(path, Fault::Unreadable(error)))?;
    if !found.is_file() {
        return Err(of_file(path, Fault::NotAFile));
    }
    load(path, env)
}

/// As [`load`], with the file's content given. `path` is only named, and files stay relative to its folder.
///
/// # Errors
/// As [`load`].
pub fn parse(
    path: &Path,
    content: &[u8],
    env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
) -> Result<Config, Problems> {
    examine(path, content, &Variables::new(env), Secrets::Unread).map(|examined| examined.config)
}

/// As [`load`], and reads every secret too, so that a missing one is found before the start and not at it.
///
/// # Errors
/// As [`load`], and each secret that cannot be read.
pub fn check(
    path: &Path,
    env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
) -> Result<Config, Problems> {
    examine(path, &read(path)?, &Variables::new(env), Secrets::Read).map(|examined| examined.config)
}

/// What a configuration comes to, as TOML that [`load`] reads as the same: with every default, and where each value is from.
/// No secret is in it, and no claims are.
///
/// # Errors
/// As [`load`].
pub fn effective(
    path: &Path,
    env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
) -> Result<String, Problems> {
    let content = read(path)?;
    let Examined { config, places } =
        examine(path, &content, &Variables::new(env), Secrets::Unread)?;
    let origins = effective::Origins::new(places, &content);
    effective::write(&config, &origins, path).map_err(|error| {
        let fault = Fault::Rule(format!("cannot be written as TOML: {error}"));
        of_file(path, fault)
    })
}

/// Where each account's secrets are, in the order of `config.accounts`. Files are relative to `folder` (that of the
/// configuration file); variables are those of `env`.
///
/// An account whose secrets cannot be had starts disabled; the others are not concerned.
pub fn secrets(
    config: &Config,
    folder: &Path,
    env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
) -> Vec<Sources> {
    let env = Variables::new(env);
    let sources = |account: &contacts::account::Config| {
        let none = || Source::Read(Secret::from_variable("", None));
        Sources {
            first: client_secret(account, folder, &env).unwrap_or_else(none),
            next: next_secret(account, folder, &env),
        }
    };
    config.accounts.iter().map(sources).collect()
}

/// Where the secret is that the token service wants to see; `None` if it wants none, or is not used.
pub fn service_secret(
    config: &Config,
    folder: &Path,
    env: impl IntoIterator<Item = (impl Into<OsString>, impl Into<OsString>)>,
) -> Option<Source> {
    secret_header(&config.token, folder, &Variables::new(env))
}

/// The folder that the paths in a configuration file are relative to.
pub fn folder(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn client_secret(
    account: &contacts::account::Config,
    folder: &Path,
    env: &Variables,
) -> Option<Source> {
    let (file, name) = (&account.client_secret_file, &account.client_secret_env);
    source(file.as_deref(), name.as_deref(), folder, env)
}

fn next_secret(
    account: &contacts::account::Config,
    folder: &Path,
    env: &Variables,
) -> Option<Source> {
    let (file, name) = (&account.next_secret_file, &account.next_secret_env);
    source(file.as_deref(), name.as_deref(), folder, env)
}

fn secret_header(
    config: &upstream::token::Config,
    folder: &Path,
    env: &Variables,
) -> Option<Source> {
    let service = &config.service;
    let file = Some(&*service.secret_header_file).filter(|file| !file.as_os_str().is_empty());
    let name = Some(&*service.secret_header_env).filter(|name| !name.is_empty());
    let used = config.source == upstream::token::TokenSource::Service;
    source(file, name, folder, env).filter(|_| used)
}

fn source(
    file: Option<&Path>,
    variable: Option<&str>,
    folder: &Path,
    env: &Variables,
) -> Option<Source> {
    let read = |name| Secret::from_variable(name, env.get(name).map(OsString::as_os_str));
    match (file, variable) {
        (Some(file), _) => Some(Source::File(folder.join(file))),
        (None, Some(name)) => Some(Source::Read(read(name))),
        (None, None) => None,
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Problems> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content))
        .map_err(|error| of_file(path, Fault::Unreadable(error)))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(of_file(path, Fault::TooLarge(FILE_BYTES_MAX)));
    }
    Ok(content)
}

/// A problem of the file as a whole.
fn of_file(path: &Path, fault: Fault) -> Problems {
    Problems::one(Problem {
        place: Place::File(path.to_owned()),
        key: String::new(),
        fault,
    })
}
