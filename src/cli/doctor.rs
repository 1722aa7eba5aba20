//! `doctor --config FILE`: examines each account from its name lookup to its largest page, and says what to do.
//!
//! It asks through the gateway's own stages, so that what it finds is what the gateway would. It spends real calls, says so
//! first, and takes them from a budget like the gateway's own; but it is a process of its own, and a running gateway does
//! not know of them.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::error::ErrorKind;
use tokio::{net::TcpStream, time};

use self::{
    finding::{Code, Status, any},
    show::{Examined, Show},
};
use super::{EXIT_USAGE, Failure, misused};
use crate::{
    config::{self, Config},
    upstream::token::Secrets,
};

mod diagnosis;
mod exam;
mod finding;
mod pages;
mod plan;
mod show;

/// How long is waited for a running gateway's admin listener.
const RUNNING_TIMEOUT: Duration = Duration::from_millis(500);

const EXAMPLES: &str = "\
Examples:
  contacts-gateway doctor --config gateway.toml
      every account, each with the streams that it lists
  contacts-gateway doctor --config gateway.toml --account acme --stream st-0f1e2d3c-0000-0000-0000-000000000000
      one account; a stream must be named where the account lists none
  contacts-gateway doctor --config gateway.toml --json | jq '.accounts[] | select(.ok | not)'
      the accounts that something is wrong with

It spends calls of the accounts' sixty a minute, and says first how many at most. They are paced as the gateway paces its
own, but a running gateway does not know of them: a quiet time is best.

Exit codes: 0 all is well (perhaps with warnings), 1 something failed, 2 wrong usage or no stream to ask for,
78 wrong configuration.";

const SHAPE: &str = "\
With --json, one document on standard output at the end:
  version 1, ok, calls_max, calls, gateway_running, upstream, accounts
  upstream      base_url, ok, steps
  accounts[]    account, ok, calls_max, calls, largest_limit, clock_ahead_s, steps
  largest_limit null, or limit (records) and exact (whether a larger one was tried)
  clock_ahead_s null, or the seconds that upstream's clock is ahead of this machine's
  steps[]       step, status, code, stream, detail, advice
  step          name, tcp, tls; stream, token, accepted, scope, page, paging, limit, clock
  status        ok, warning, failed, usage, skipped
Steps, states and codes stay as they are; more may join them. detail and advice are for people.";

/// Examines the configured accounts, with real calls: which step fails, and what to do about it.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = after_long_help())]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Only this account, by its name. May be repeated.
    #[arg(long = "account", value_name = "NAME")]
    pub accounts: Vec<String>,
    /// Only this stream: by its id, or by its name where the account lists it.
    #[arg(long, value_name = "ID")]
    pub stream: Option<String>,
    /// One JSON document in place of the checklist.
    #[arg(long)]
    pub json: bool,
}

fn after_long_help() -> String {
    let codes = Code::GUIDE.iter();
    let codes: String = codes
        .map(|(word, meaning)| format!("\n  {word:20} {meaning}"))
        .collect();
    format!("{EXAMPLES}\n\n{SHAPE}\n\nCodes, beside those of the gateway's own errors:{codes}")
}

/// Examines, and says what was found on standard output.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    super::forbid_core_dumps()?;
    let env: Vec<_> = std::env::vars_os().collect();
    let mut config = config::load(&args.config, env.clone())?;
    choose(&mut config, &args.accounts)?;
    let folder = config::folder(&args.config);
    let secrets = Secrets {
        accounts: config::secrets(&config, folder, env.clone()),
        service: config::service_secret(&config, folder, env.clone()),
    };
    let told = config.accounts.clone();
    let (base_url, admin) = (config.upstream.base_url.clone(), config.admin.address);
    let plans: Vec<_> = told
        .iter()
        .filter_map(|account| plan::streams(account, args.stream.as_deref()).ok())
        .map(|streams| plan::calls_max(&config, streams.len()))
        .collect();
    let mut show = Show::new(args.json);
    let running = is_running(admin).await;
    show.announce(&announcement(&plans, running.then_some(admin)));

    let exam = exam::prepare(config, secrets)?;
    show.heading(&base_url);
    let host = exam.host(&mut show).await;
    let broken = host.iter().find(|finding| finding.status == Status::Failed);
    let broken = broken.map(|finding| finding.step);
    let mut records = Vec::new();
    for account in &told {
        show.heading(&account.name);
        let stream = args.stream.as_deref();
        records.push(exam.account(account, stream, broken, &mut show).await);
    }
    let examined = Examined {
        base_url: &base_url,
        host: &host,
        records: &records,
        running,
    };
    show.end(&examined);
    Ok(if examined.any(Status::Failed) {
        ExitCode::FAILURE
    } else if records
        .iter()
        .any(|record| any(&record.findings, Status::Usage))
    {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::SUCCESS
    })
}

/// Leaves only the accounts of these names, or all if none are named.
fn choose(config: &mut Config, names: &[String]) -> Result<(), clap::Error> {
    for name in names {
        if config.accounts.iter().all(|account| account.name != *name) {
            let told = config.accounts.iter().take(20);
            let known: Vec<_> = told.map(|account| account.name.as_str()).collect();
            let message = format!(
                "no account is called {name:?}: the configuration has {}",
                known.join(", ")
            );
            return Err(misused("doctor", ErrorKind::InvalidValue, message));
        }
    }
    if !names.is_empty() {
        config
            .accounts
            .retain(|account| names.contains(&account.name));
    }
    Ok(())
}

/// Says beforehand what it will cost.
fn announcement(plans: &[u32], running: Option<SocketAddr>) -> String {
    let (accounts, calls) = (plans.len(), plans.iter().sum::<u32>());
    let each = plans.iter().max().copied().unwrap_or_default();
    let plural = if accounts == 1 { "" } else { "s" };
    let first = format!(
        "{accounts} account{plural} to examine, with at most {calls} calls to Kore.ai ({each} for one account), paced by each account's budget."
    );
    match running {
        Some(address) => format!(
            "{first}\nA gateway seems to run here (something listens on {address}): it does not know of these calls, so choose a quiet time."
        ),
        None => format!(
            "{first}\nA gateway that runs elsewhere with these accounts does not know of these calls."
        ),
    }
}

/// Whether something listens where the operators of a running gateway would ask.
async fn is_running(admin: SocketAddr) -> bool {
    let connecting = TcpStream::connect(admin);
    admin.port() != 0 && matches!(time::timeout(RUNNING_TIMEOUT, connecting).await, Ok(Ok(_)))
}
