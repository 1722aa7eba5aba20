//! From a file's content and the variables to a `Config`, or to everything that is wrong: the steps in their order.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{
    Config, Problem, Problems, Rules, client_secret, document, excerpt,
    findings::{At, Findings, Raw},
    folder, keys, next_secret,
    problem::{Fault, Place},
    secret_header,
    variables::Variables,
};
use crate::upstream::{
    secret::Source,
    token::{self, Signer, TokenSource},
};

/// Whether secrets are read too, and are problems if they cannot be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    Read,
    Unread,
}

/// A configuration without problems, and where each key of it was set.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) config: Config,
    pub(crate) places: HashMap<String, At>,
}

pub(crate) fn examine(
    path: &Path,
    content: &[u8],
    env: &Variables,
    secrets: Secrets,
) -> Result<Examined, Problems> {
    let file = || path.to_owned();
    let Ok(source) = std::str::from_utf8(content) else {
        let place = Place::File(file());
        return Err(Problems::one(Problem {
            place,
            key: String::new(),
            fault: Fault::NotUtf8,
        }));
    };
    let root = DeTable::parse(source).map_err(|error| syntax(file(), source, &error))?;
    let mut findings = Findings::default();
    let document = document::read(root.get_ref(), source, &mut findings);
    let overlay = env.overlay(&mut findings);
    let config = merge(document.values, overlay, &mut findings);
    if let Some(config) = &config {
        apply_rules(config, source, &mut findings);
        if secrets == Secrets::Read {
            find_secrets(config, folder(path), env, &mut findings);
        }
    }
    findings
        .problems
        .sort_by(|one, other| one.at.cmp(&other.at));
    match config {
        Some(config) if findings.problems.is_empty() => Ok(Examined {
            config,
            places: findings.places,
        }),
        _ => Err(Problems::new(
            findings.problems,
            |Raw { at, key, fault }| {
                let place = match at {
                    At::File(start, end) => Place::Line(
                        file(),
                        excerpt::excerpt(source, &document.pieces, &(start..end)),
                    ),
                    At::WholeFile => Place::File(file()),
                    At::Variable(name) => Place::Variable(name),
                };
                Problem { place, key, fault }
            },
        )),
    }
}

fn syntax(file: PathBuf, source: &str, error: &toml::de::Error) -> Problems {
    let span = error.span().unwrap_or(0..0);
    let line = excerpt::unparsed(source, &span, keys::harmless);
    let fault = Fault::Syntax(error.message().replace('\n', " "));
    Problems::one(Problem {
        place: Place::Line(file, line),
        key: String::new(),
        fault,
    })
}

/// The good values of a file, for the `config` crate.
#[derive(Clone, Debug)]
struct Values(document::Table);

impl config::Source for Values {
    fn clone_into_box(&self) -> Box<dyn config::Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<document::Table, config::ConfigError> {
        Ok(self.0.clone())
    }
}

fn merge(
    values: document::Table,
    overlay: config::Environment,
    findings: &mut Findings,
) -> Option<Config> {
    let merged = config::Config::builder()
        .add_source(Values(values))
        .add_source(overlay)
        .build();
    let read = merged.map_err(|_| String::new()).and_then(|merged| {
        serde_path_to_error::deserialize::<_, Config>(merged)
            .map_err(|error| error.path().to_string())
    });
    // The cause is dropped: its text has the value in it. That it never comes to this is a property test.
    read.map_err(|key| findings.report(findings.place(&key), &key, Fault::Refused))
        .ok()
}

fn apply_rules(config: &Config, source: &str, findings: &mut Findings) {
    let mut rules = Rules::default();
    config.check(&mut rules);
    // Once, not for each of what may be a hundred thousand duplicates.
    let line_ends: Vec<usize> = source.match_indices('\n').map(|(at, _)| at).collect();
    for broken in rules.into_broken() {
        if broken.keys.iter().any(|key| findings.is_spoilt(key)) {
            continue;
        }
        let Some(key) = broken.keys.first() else {
            continue;
        };
        // Of keys that do not go together, the one that was written is the one to show.
        let written = broken
            .keys
            .iter()
            .find(|key| findings.places.contains_key(*key))
            .unwrap_or(key);
        let at = findings.place(written);
        let message = broken.message;
        let fault = match broken.same_as.map(|key| findings.place(&key)) {
            Some(At::File(start, _)) => {
                let line = line_ends.partition_point(|&end| end < start) + 1;
                Fault::Duplicate { message, line }
            }
            _ => Fault::Rule(message),
        };
        // Not reported as spoilt: two rules about one key are two problems.
        findings.problems.push(Raw {
            at,
            key: key.clone(),
            fault,
        });
    }
}

fn find_secrets(config: &Config, folder: &Path, env: &Variables, findings: &mut Findings) {
    // What stands at a key with a broken rule is not looked for: it may be the secret itself, and would be named.
    let broken: HashSet<String> = findings
        .problems
        .iter()
        .map(|raw| raw.key.clone())
        .collect();
    for (section, tls) in [("listen", &config.listen.tls), ("admin", &config.admin.tls)] {
        let key = |name: &str| format!("{section}.tls.{name}");
        let is_good = |key: String| !broken.contains(&key) && !findings.is_spoilt(&key);
        let keys = ["certificate_file", "key_file"].map(key);
        let good = tls.is_on() && keys.into_iter().all(is_good);
        if let Some(Err(problem)) = good.then(|| tls.within(folder).read()) {
            let key = key(problem.key());
            findings.report(findings.place(&key), &key, Fault::Certificate(problem));
        }
    }
    if let Some(source) = secret_header(&config.token, folder, env) {
        let in_file = matches!(source, Source::File(_));
        let name = if in_file { "file" } else { "env" };
        let key = format!("token.service.secret_header_{name}");
        let good = !broken.contains(&key) && !findings.is_spoilt(&key);
        if let Err(problem) = token::read_header(&source)
            && good
        {
            findings.report(findings.place(&key), &key, Fault::Secret(problem));
        }
    }
    if config.token.source == TokenSource::Service {
        return;
    }
    for (index, account) in config.accounts.iter().enumerate() {
        let secrets = [
            (
                (&account.client_secret_file, "client_secret_file"),
                (&account.client_secret_env, "client_secret_env"),
                client_secret(account, folder, env),
            ),
            (
                (&account.next_secret_file, "next_secret_file"),
                (&account.next_secret_env, "next_secret_env"),
                next_secret(account, folder, env),
            ),
        ];
        for ((file, file_key), (variable, variable_key), source) in secrets {
            let name = if file.is_some() {
                file_key
            } else {
                variable_key
            };
            let key = format!("accounts[{index}].{name}");
            let decided = file.is_some() != variable.is_some();
            let Some(source) = source.filter(|_| decided) else {
                continue;
            };
            if broken.contains(&key) || findings.is_spoilt(&key) {
                continue;
            }
            if let Err(problem) = Signer::read(&source, account.algorithm) {
                findings.report(findings.place(&key), &key, Fault::Secret(problem));
            }
        }
    }
}
