//! `check --config FILE`: says everything that is wrong with a configuration, without running it.
//!
//! It goes as far as a start does before the first socket, and one step further: an account whose secret cannot be read
//! only starts disabled, but here it fails the check, since this is where one wants to hear of it.

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use crate::{
    config::{self, Config, Problems},
    words::numbered,
};

/// The exit code of a configuration with problems: `EX_CONFIG` of sysexits.
pub const EXIT_CONFIG: u8 = 78;

const EXAMPLES: &str = "\
Examples:
  contacts-gateway check --config gateway.toml
      everything that is wrong with it, with line and caret; exit code 78 if anything is
  contacts-gateway check --config gateway.toml && systemctl restart contacts-gateway
      before what is running is stopped for it";

/// Loads a configuration with its secrets, opens nothing, and reports every problem.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Says on standard output what a good configuration holds; else every problem on standard error, with exit code 78.
pub fn run(args: &Args) -> ExitCode {
    // Nobody is left to tell if a standard stream is closed; the exit code still counts.
    match check(&args.config, std::env::vars_os()) {
        Ok(sentence) => {
            let _ = writeln!(std::io::stdout(), "{sentence}");
            ExitCode::SUCCESS
        }
        Err(problems) => {
            let _ = writeln!(
                std::io::stderr(),
                "{problems}\n{}",
                verdict(&args.config, problems.count())
            );
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn check(
    path: &Path,
    env: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<String, Problems> {
    config::check(path, env).map(|config| found(path, &config))
}

fn found(path: &Path, config: &Config) -> String {
    let open = config
        .accounts
        .iter()
        .filter(|account| account.streams.is_empty())
        .count();
    let streams = config
        .accounts
        .iter()
        .map(|account| account.streams.len())
        .sum();
    let streams = match (open, streams) {
        (0, listed) => numbered(listed, "stream", "streams"),
        (open, 0) if open == config.accounts.len() => "every stream open".to_owned(),
        (open, listed) => format!(
            "{} and every stream of {}",
            numbered(listed, "stream", "streams"),
            numbered(open, "other", "others")
        ),
    };
    let callers = match config.callers.len() {
        0 => String::new(),
        count => format!(" for {}", numbered(count, "caller", "callers")),
    };
    format!(
        "{} is fine: {} ({streams}){callers}, callers on {}, operators on {}.",
        path.display(),
        numbered(config.accounts.len(), "account", "accounts"),
        config.listen.address,
        config.admin.address,
    )
}

fn verdict(path: &Path, count: usize) -> String {
    format!(
        "{}: {}",
        path.display(),
        numbered(count, "problem", "problems")
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const LISTED: &str = "[[accounts.streams]]\nname = 's'\nstream_id = '1'\n[[accounts.streams]]\nname = 't'\nstream_id = '2'\n";

    fn told(accounts: &[&str]) -> String {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gateway.toml");
        let account = |(index, streams): (usize, &&str)| {
            format!(
                "[[accounts]]\nname = 'a{index}'\naccount_id = '{index}'\nclient_id = 'c'\nclient_secret_file = 's'\n{streams}"
            )
        };
        fs::write(
            &path,
            accounts.iter().enumerate().map(account).collect::<String>(),
        )
        .expect("a file");
        fs::write(folder.path().join("s"), "s3cret").expect("a file");
        match check(&path, []) {
            Ok(sentence) => sentence.replace(&folder.path().display().to_string(), "DIR"),
            Err(problems) => panic!("{problems}"),
        }
    }

    #[test]
    fn a_good_file_is_told_in_one_sentence() {
        for (accounts, expected) in [
            (&[""][..], "1 account (every stream open)"),
            (&["", ""], "2 accounts (every stream open)"),
            (&[LISTED], "1 account (2 streams)"),
            (
                &[LISTED, ""],
                "2 accounts (2 streams and every stream of 1 other)",
            ),
            (
                &[LISTED, LISTED, "", ""],
                "4 accounts (4 streams and every stream of 2 others)",
            ),
        ] {
            assert_eq!(
                told(accounts),
                format!(
                    "DIR/gateway.toml is fine: {expected}, callers on 127.0.0.1:8080, operators on 127.0.0.1:8081."
                )
            );
        }
    }

    #[test]
    fn problems_are_counted_in_words() {
        assert_eq!(verdict(Path::new("a"), 1), "a: 1 problem");
        assert_eq!(verdict(Path::new("a"), 2), "a: 2 problems");
    }

    #[test]
    fn the_file_is_a_flag() {
        use clap::{Args as _, FromArgMatches as _};
        let command = Args::augment_args(clap::Command::new("check"));
        let parse = |arguments: &[&str]| command.clone().try_get_matches_from(arguments);
        let matches = parse(&["check", "--config", "a.toml"]).expect("good arguments");
        assert_eq!(
            Args::from_arg_matches(&matches)
                .expect("good arguments")
                .config,
            Path::new("a.toml")
        );
        assert!(parse(&["check"]).is_err());
    }
}
