//! The commands, one file each.

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use tokio::runtime::Builder;

use crate::{
    app::{Lost, StartError},
    config::Problems,
};

pub mod ask;
pub mod check;
pub mod completions;
pub mod demo;
pub mod doctor;
pub mod explain;
pub mod export;
pub mod health;
pub mod key;
pub mod log;
pub mod print;
pub mod purge;
mod reach;
pub mod reload;
pub mod serve;
mod signals;
pub mod simulate;
pub mod status;

/// The exit code of what was asked for wrongly, as clap has it.
const EXIT_USAGE: u8 = 2;

/// A caching reverse proxy in front of Kore.ai's contacts API.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Begin with `contacts-gateway demo`: it needs no configuration and no Kore.ai account.

Exit codes: 0 fine, 1 failed while running, 2 wrong usage, 78 wrong configuration; `export` has more, for its verdicts.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a simulated Kore.ai and a gateway in front of it, and print lines to try
    Demo(demo::Args),
    /// Run the gateway
    Serve(serve::Args),
    /// Report everything that is wrong with a configuration
    Check(check::Args),
    /// Show what a configuration comes to
    #[command(subcommand)]
    Config(print::Command),
    /// Examine each account: connection, token, scope, a real page, paging, limits, clock
    Doctor(doctor::Args),
    /// Ask a running gateway why it would answer a request as it would
    Explain(explain::Args),
    /// Write a whole list of a running gateway to a file, as NDJSON or CSV
    Export(export::Args),
    /// Make copies of a running gateway go
    Purge(purge::Args),
    /// Have a running gateway read its configuration again
    Reload(reload::Args),
    /// Have a running gateway write more or less to its log, for a while
    Log(log::Args),
    /// Show how a running gateway is: accounts, budgets, collections, walks, faults
    Status(status::Args),
    /// Ask whether a running gateway serves callers: a probe for containers
    Health(health::Args),
    /// Make a key for a caller or an operator, and its hash for the configuration
    Key(key::Args),
    /// Print what a shell needs to complete these commands
    Completions(completions::Args),
    /// Play Kore.ai alone, with its limits and faults
    Simulate(Box<simulate::Args>),
}

impl Cli {
    /// Runs the command to its end.
    pub fn run(self) -> ExitCode {
        let outcome = match self.command {
            Command::Check(args) => return check::run(&args),
            Command::Doctor(args) => return ended(wait_for(doctor::run(args))),
            Command::Export(args) => return ended(wait_for(export::run(args))),
            Command::Reload(args) => return ended(wait_for(reload::run(args))),
            Command::Config(command) => print::run(&command),
            Command::Key(args) => key::run(&args),
            Command::Completions(args) => completions::run(args),
            Command::Demo(args) => wait_for(demo::run(args)),
            Command::Serve(args) => wait_for(serve::run(args)),
            Command::Explain(args) => wait_for(explain::run(args)),
            Command::Purge(args) => wait_for(purge::run(args)),
            Command::Log(args) => wait_for(log::run(args)),
            Command::Status(args) => wait_for(status::run(args)),
            Command::Health(args) => wait_for(health::run(args)),
            Command::Simulate(args) => wait_for(async { Ok(simulate::run(*args).await?) }),
        };
        ended(outcome.map(|()| ExitCode::SUCCESS))
    }
}

/// The exit code; of a failure, after it was told.
fn ended(outcome: Result<ExitCode, Failure>) -> ExitCode {
    outcome.unwrap_or_else(|failure| {
        if failure.is_an_end() {
            return ExitCode::SUCCESS;
        }
        // With standard error closed, the exit code still tells.
        let _ = writeln!(io::stderr(), "{failure}");
        failure.exit_code()
    })
}

/// What is wrong with how a command was asked for, told with that command's own usage.
fn misused(command: &str, kind: ErrorKind, message: impl fmt::Display) -> clap::Error {
    let mut whole = Cli::command();
    // Only then does a command below know by which words it is called.
    whole.build();
    let below = whole.find_subcommand_mut(command);
    below.unwrap_or(&mut Cli::command()).error(kind, message)
}

/// Why a command failed, in words for the one who typed it.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Config(#[from] Problems),
    #[error("contacts-gateway: {0}")]
    Start(#[from] StartError),
    #[error("contacts-gateway: {0}")]
    Lost(#[from] Lost),
    #[error("contacts-gateway: ended at once by a second signal; requests in flight had no answer")]
    AtOnce,
    #[error("contacts-gateway: {0}")]
    Simulate(#[from] simulate::SimulateError),
    #[error("contacts-gateway: {0}")]
    Simulator(#[from] crate::simulator::StartError),
    #[error(transparent)]
    Usage(#[from] clap::Error),
    #[error("contacts-gateway: {0}")]
    Ask(#[from] ask::AskError),
    #[error("contacts-gateway: {0}")]
    Export(#[from] export::ExportError),
    #[error("contacts-gateway: {0}")]
    Log(#[from] crate::telemetry::StartError),
    #[error("contacts-gateway: {0}")]
    System(#[from] io::Error),
}

impl Failure {
    /// Whether whoever read what was printed has seen enough, as `head` does.
    fn is_an_end(&self) -> bool {
        matches!(self, Self::System(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Config(_) => ExitCode::from(check::EXIT_CONFIG),
            Self::Start(error) if error.is_of_the_configuration() => {
                ExitCode::from(check::EXIT_CONFIG)
            }
            Self::Usage(_) => ExitCode::from(EXIT_USAGE),
            _ => ExitCode::FAILURE,
        }
    }
}

/// Runs a command on the main thread. Callers are served by threads of their own.
fn wait_for<T>(command: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(command);
    // A secret or a configuration on a disk that hangs is still being read, perhaps for ever: dropping the runtime would
    // wait for it, and no signal would be heard any more.
    runtime.shutdown_background();
    outcome
}

/// Turns core dumps off: one of this process would hold every secret and every contact in memory, and lie about on a disk.
///
/// A core that is piped to a program (`core_pattern`) is that program's affair, which is told the limit; systemd-coredump
/// keeps none.
fn forbid_core_dumps() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    Ok(setrlimit(Resource::Core, none)?)
}

#[cfg(test)]
mod tests {
    use clap::Command;

    use super::*;

    /// All commands that do something, with their words.
    fn leaves(command: &Command, words: &str, found: &mut Vec<(String, Command)>) {
        if !command.has_subcommands() {
            found.push((words.to_owned(), command.clone()));
        }
        for below in command.get_subcommands() {
            leaves(below, &format!("{words} {}", below.get_name()), found);
        }
    }

    /// Catches a process that cannot be stopped, since it reads a file on a disk that hangs.
    #[test]
    fn the_end_waits_for_nobody_who_still_reads() {
        use std::{sync::mpsc, thread, time::Duration};
        let (release, hangs) = mpsc::sync_channel::<()>(1);
        let (ended, end) = mpsc::sync_channel(1);
        thread::spawn(move || {
            let outcome = wait_for(async {
                let (begun, begins) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    let _ = begun.send(());
                    hangs.recv()
                });
                let _ = begins.await;
                Ok(())
            });
            let _ = ended.send(outcome.is_ok());
        });
        let told = end.recv_timeout(Duration::from_secs(30));
        drop(release);
        assert_eq!(told, Ok(true), "it waits for ever");
    }

    /// Catches a complaint that shows how some other command is used.
    #[test]
    fn what_is_wrong_is_told_with_the_commands_own_usage() {
        let error = misused("key", ErrorKind::ValueValidation, "too short").to_string();
        assert!(error.starts_with("error: too short\n"), "{error}");
        assert!(
            error.contains("Usage: contacts-gateway key [OPTIONS]"),
            "{error}"
        );
    }

    /// Catches a command whose help shows none, and an example that is of another command.
    #[test]
    fn every_help_has_examples() {
        Cli::command().debug_assert();
        let mut found = Vec::new();
        leaves(&Cli::command(), "contacts-gateway", &mut found);
        assert!(found.len() > 9);
        for (words, mut command) in found {
            let help = command.render_long_help().to_string();
            let examples = help.split("Examples:").nth(1);
            let examples = examples.unwrap_or_else(|| panic!("{words} shows none"));
            assert!(examples.contains(&words), "{words}: {examples}");
        }
    }
}
