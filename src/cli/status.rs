//! `status`: how a running gateway is, as a table for people or as the document that the ops page draws.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use serde_json::Value;
use tokio::time;

use self::table::Table;
use super::{
    Failure,
    ask::{Admin, AskError, Question},
};
use crate::{admin::overview::document::Status, telemetry::has_colours};

mod table;

const EXAMPLES: &str = "\
Examples:
  contacts-gateway status
      which account is refused and why, budgets, collections, walks, recent faults
  contacts-gateway status --watch
      the same, every two seconds, until Ctrl-C
  contacts-gateway status --json | jq '.accounts.shown[] | {name, state, words}'
      the document behind it, with the charts' figures of the last 15 minutes

Colours are left out where NO_COLOR is set or the output is no terminal.
Exit codes: 0 answered, 1 not, 2 wrong usage. Whether callers are served is what `health` tells.";

/// Shows how a running gateway is.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Again and again, so many seconds apart.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub watch: Option<u64>,
    /// The document as it is; with --watch, one on each line.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub admin: Admin,
}

/// Clears the terminal and begins at its top.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";

/// Prints what there is to see on standard output.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let terminal = io::stdout().is_terminal();
    let colours = has_colours(&io::stdout());
    let Some(seconds) = args.watch else {
        let document = ask(&args.admin).await?;
        let text = match args.json {
            true => format!("{document:#}\n"),
            false => table(&args.admin, document, colours)?,
        };
        io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    };
    loop {
        let shown = ask(&args.admin).await.and_then(|document| match args.json {
            true => Ok(format!("{document}\n")),
            false => table(&args.admin, document, colours),
        });
        let text = match shown {
            Ok(text) if terminal && !args.json => format!("{CLEAR}{text}"),
            Ok(text) => text,
            // It may come back.
            Err(error @ AskError::Unanswered { .. }) if terminal && !args.json => {
                format!("{CLEAR}{error}\n")
            }
            Err(error @ AskError::Unanswered { .. }) => {
                let _ = writeln!(io::stderr(), "contacts-gateway: {error}");
                String::new()
            }
            Err(error) => return Err(error.into()),
        };
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        drop(out);
        time::sleep(Duration::from_secs(seconds)).await;
    }
}

async fn ask(admin: &Admin) -> Result<Value, AskError> {
    admin.ask(Question::get("/api/status")).await
}

fn table(admin: &Admin, document: Value, colours: bool) -> Result<String, AskError> {
    let status: Status = serde_json::from_value(document).map_err(|error| admin.no(error))?;
    Ok(Table { colours }.of(&status))
}
