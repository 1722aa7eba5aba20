//! `reload`: has a running gateway read its configuration again.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use http::Method;

use super::{
    Failure,
    ask::{Admin, AskError, Question},
    check::EXIT_CONFIG,
};
use crate::error::Kind;

const EXAMPLES: &str = "\
Examples:
  contacts-gateway reload
      prints which accounts, callers and keys changed, and which secrets and certificates cannot be used
  kill -HUP PID
      the same, told in the log alone

Exit codes: 0 it is in force, 78 the configuration is wrong, 1 anything else: a key that needs a restart, or no gateway.
Whatever is refused changes nothing.";

/// Has the configuration read again: all of it, or nothing.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    pub admin: Admin,
}

/// Prints what changed on standard output, or every problem on standard error.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    let question = Question {
        method: Method::POST,
        ..Question::get("/api/reload")
    };
    match args.admin.ask(question).await {
        Ok(document) => {
            writeln!(io::stdout(), "{document:#}")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(AskError::Refused { code, detail }) if code == Kind::ConfigurationRefused.code() => {
            // With standard error closed, the exit code still tells.
            let _ = writeln!(io::stderr(), "{detail}");
            Ok(ExitCode::from(EXIT_CONFIG))
        }
        Err(error) => Err(error.into()),
    }
}
