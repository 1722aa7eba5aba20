//! `health`: whether a running gateway serves callers, as an exit code. For containers that have no `curl`.

use std::{
    io::{self, Write},
    time::Duration,
};

use super::{
    Failure,
    ask::{Admin, Question, refusal},
};

const EXAMPLES: &str = "\
Examples:
  contacts-gateway health
      0 while callers are served, 1 while it starts, drains or does not answer
  contacts-gateway health --live --timeout 500ms
      0 while the process answers at all

In a Dockerfile:
  HEALTHCHECK CMD [\"contacts-gateway\", \"health\"]

Exit codes: 0 healthy, 1 not, 2 wrong usage. No token is needed.";

/// Asks whether a running gateway serves callers.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only whether the process answers.
    #[arg(long)]
    pub live: bool,
    /// How long an answer may take.
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    pub timeout: Duration,
    #[command(flatten)]
    pub admin: Admin,
}

/// Prints a word on standard output, or fails.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let target = if args.live { "/livez" } else { "/readyz" };
    let (status, body) = args
        .admin
        .reach(Question::get(target), args.timeout)
        .await?;
    if !status.is_success() {
        let document = serde_json::from_slice(&body).unwrap_or_default();
        return Err(refusal(&document).into());
    }
    // The exit code says it to whoever has no use for the word.
    let _ = io::stdout().write_all(&body);
    Ok(())
}
