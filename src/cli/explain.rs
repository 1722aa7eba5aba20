//! `explain URL`: why a running gateway would answer a request as it would.

use std::io::{self, Write};

use http::{Method, Uri};

use super::{
    Failure,
    ask::{Admin, Question, header},
};
use crate::contacts::cache::explanation::Outcome;

const EXAMPLES: &str = "\
Examples:
  contacts-gateway explain 'http://127.0.0.1:8080/agentassist/api/v1/public/st-1/contacts?skip=20'
  contacts-gateway explain --account 65f7d49a5dd06e2cefa00000 '/agentassist/api/v1/public/st-1/contacts?all=true'
  contacts-gateway explain --as crm --admin https://gateway.internal:8081 --token-file token '/agentassist/api/v1/public/st-1/contacts'
  contacts-gateway explain --cache-control no-cache '/agentassist/api/v1/public/st-1/contacts'";

/// Asks why a request would be answered as it would be now: nobody is asked for it, and nothing changes.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = after_help())]
pub struct Args {
    /// The request's URL; its host is not looked at.
    #[arg(value_name = "URL")]
    pub url: Uri,
    /// The request's accountId header.
    #[arg(long, value_name = "ID", value_parser = header)]
    pub account: Option<String>,
    /// The request's Cache-Control header.
    #[arg(long, value_name = "DIRECTIVES", value_parser = header)]
    pub cache_control: Option<String>,
    /// Ask as one of the configured callers would, by its name: would it be let in?
    #[arg(long = "as", value_name = "CALLER", value_parser = header)]
    pub caller: Option<String>,
    #[command(flatten)]
    pub admin: Admin,
}

fn after_help() -> String {
    let decisions = Outcome::ALL
        .iter()
        .map(|outcome| format!("\n  {:14} {}", outcome.code(), outcome.text()));
    let decisions: String = decisions.collect();
    format!("Decisions:{decisions}\n\n{EXAMPLES}")
}

/// Prints the explanation on standard output.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let target = args
        .url
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let question = Question {
        method: Method::GET,
        target: &format!("/api/explain{target}"),
        account: args.account.as_deref(),
        cache_control: args.cache_control.as_deref(),
        caller: args.caller.as_deref(),
    };
    let document = args.admin.ask(question).await?;
    writeln!(io::stdout(), "{document:#}")?;
    Ok(())
}
