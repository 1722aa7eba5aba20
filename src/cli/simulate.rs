//! `contacts-gateway simulate`: the simulator alone, to be broken from another terminal.

mod app;
mod lines;
#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use bytes::Bytes;
use clap::{Args as ClapArgs, ValueEnum};

use super::signals::Signals;
use crate::simulator::{
    AccountSettings, CONTACTS_MAX, Change, ChangeError, ChangeKind, Churn, DEMO_ACCOUNT_ID,
    DEMO_CONTACTS, DEMO_STREAM_ID, Fault, LimitMax, Paging, RateLimit, Rule, RuleError, Settings,
    Simulator, StartError, Window, fault_guide, parse_clock_offset,
};
use crate::upstream::secret::SecretProblem;
use app::AppArgs;

const EXAMPLES: &str = "\
Examples:
  contacts-gateway simulate
      the demo's account on port 9000, with ready curl lines
  contacts-gateway simulate --stream st-large=1000000 --limit-max 50 --over-limit refuse
      a stream of a million contacts, in pages of at most 50
  contacts-gateway simulate --calls-per-minute off --latency 200ms --jitter 100ms
      slow, and never refusing
  contacts-gateway simulate --fault status=503 --fault-share 0.2
      one call in five fails
  contacts-gateway simulate --fault delay=2s --fault truncate --fault-next 3
      the first three answers come late and end too early
  contacts-gateway simulate --change 2:insert=0 --change 4:delete=70
      a record comes after the first page was read, and another one goes after the third
  contacts-gateway simulate --churn 0.5 --churn-kind insert --churn-kind delete
      records come and go at random, before every second call
  contacts-gateway simulate --algorithm RS256 --public-key-file kore.pub
      tokens signed with an RSA key; a new one: openssl genrsa -out kore.pem && openssl rsa -in kore.pem -pubout -out kore.pub
  contacts-gateway simulate --enforce-jti --clock-offset -90s
      each token opens once, and the clock is behind
  contacts-gateway simulate --fault denied=scope --fault-next 5
      the app lacks its scope for the first five calls
  curl -X POST 'http://127.0.0.1:9000/_simulator/faults?fault=status=503&next=5'
  curl -X DELETE http://127.0.0.1:9000/_simulator/faults
      break one that is running, and heal it";

/// Plays Kore.ai on a local port.
#[derive(Clone, Debug, ClapArgs)]
#[command(after_help = EXAMPLES, after_long_help = format!("{EXAMPLES}\n\nFaults:\n{}", fault_guide()))]
pub struct Args {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,

    /// The account that exists.
    #[arg(long, value_name = "ID", default_value = DEMO_ACCOUNT_ID)]
    pub account_id: String,
    #[command(flatten)]
    pub app: AppArgs,

    /// A stream and how many contacts it has, to 1000000. May be repeated; the demo's stream when left out.
    #[arg(long = "stream", value_name = "ID=COUNT", value_parser = stream)]
    pub streams: Vec<(String, u64)>,
    /// Every other stream id exists too, with so many contacts.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(..=CONTACTS_MAX))]
    pub other_streams: Option<u64>,
    /// A stream that answers every call with the contents of a file. May be repeated.
    #[arg(long = "fixture", value_name = "ID=FILE", value_parser = fixture)]
    pub fixtures: Vec<(String, PathBuf)>,
    /// Indent the JSON, as the documentation prints it.
    #[arg(long)]
    pub pretty: bool,

    /// Which query parameters mean something.
    #[arg(long, value_enum, default_value_t = Paging::SkipLimit)]
    pub paging: Paging,
    /// The limit of a call that names none.
    #[arg(long, value_name = "RECORDS", default_value_t = 10)]
    pub limit_default: u32,
    /// The largest limit; `off` for no other than 10000.
    #[arg(long, value_name = "RECORDS|off", default_value = "100")]
    pub limit_max: NumberOrOff,
    /// What happens to a larger one.
    #[arg(long, value_enum, default_value_t = OverLimit::Clamp)]
    pub over_limit: OverLimit,

    /// Calls a minute for the account, 1 to 60000; `off` counts and refuses none.
    #[arg(long, value_name = "CALLS|off", default_value = "60")]
    pub calls_per_minute: NumberOrOff,
    /// Where a minute begins.
    #[arg(long, value_enum, default_value_t = Window::Sliding)]
    pub window: Window,
    /// Refusals say when to come back.
    #[arg(long)]
    pub retry_after: bool,

    /// How long every answer takes, such as 20ms.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub latency: Duration,
    /// Up to so much is added to it.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    pub jitter: Duration,
    /// How far the clock is ahead, such as 90s, or behind, such as -2m: what `Date` says and expiry is judged by.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_clock_offset, allow_hyphen_values = true)]
    pub clock_offset: i64,
    /// What jitter, shares and changes are drawn from: the same seed, the same run.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Change the records of each stream at random, so often before each call, 0 to 100; such as 0.2.
    #[arg(long, value_name = "CHANGES")]
    pub churn: Option<f64>,
    /// Only so; insert, delete, update and swap when left out. May be repeated.
    #[arg(
        long = "churn-kind",
        value_enum,
        value_name = "KIND",
        requires = "churn"
    )]
    pub churn_kinds: Vec<ChangeKind>,
    /// Change the records of each stream just before one of its calls, such as 2:insert=0; also delete=N, update=N, swap=N,N and
    /// reverse. May be repeated.
    #[arg(long = "change", value_name = "CALL:CHANGE", value_parser = change)]
    pub changes: Vec<(u64, Change)>,

    /// What is wrong with the answers; `--help` lists the faults. Repeated ones act together.
    #[arg(long = "fault", value_name = "FAULT")]
    pub faults: Vec<Fault>,
    /// Only with the next so many calls.
    #[arg(
        long,
        value_name = "CALLS",
        requires = "faults",
        conflicts_with = "fault_share"
    )]
    pub fault_next: Option<u64>,
    /// Only with a share of the calls, from 0 to 1.
    #[arg(long, value_name = "SHARE", requires = "faults")]
    pub fault_share: Option<f64>,
    /// Only with calls to this stream.
    #[arg(long, value_name = "ID", requires = "faults")]
    pub fault_stream: Option<String>,
}

/// What happens to a limit that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OverLimit {
    /// So many records are given as may be.
    Clamp,
    /// 400.
    Refuse,
}

/// A number, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NumberOrOff(pub Option<u32>);

impl FromStr for NumberOrOff {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|number| Self(Some(number)))
                .map_err(|_| "a whole number, or `off`"),
        }
    }
}

/// Why the simulator did not run.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Secret(#[from] SecretProblem),
    #[error("--public-key-file goes with --algorithm RS256 or RS512")]
    KeyOfNoUse,
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot write to standard output: {0}")]
    Write(io::Error),
    #[error("cannot wait for a signal: {0}")]
    Signal(io::Error),
}

/// Runs until it is interrupted.
pub async fn run(args: Args) -> Result<(), SimulateError> {
    let mut signals = Signals::hear().map_err(SimulateError::Signal)?;
    let settings = settings(&args)?;
    let example = settings
        .accounts
        .first()
        .and_then(|account| account.streams.first());
    let example = example.map_or_else(|| "ANY".to_owned(), |stream| stream.stream_id.clone());
    let simulator = Simulator::start(settings).await?;
    let lines = lines::lines(&simulator, &args, &example)?;
    writeln!(io::stdout(), "{lines}").map_err(SimulateError::Write)?;
    signals.next().await;
    simulator.stop().await;
    Ok(())
}

fn settings(args: &Args) -> Result<Settings, SimulateError> {
    let mut account = AccountSettings {
        account_id: args.account_id.clone(),
        ..AccountSettings::numbered(0)
    };
    args.app.apply(&mut account)?;
    account.other_streams = args.other_streams;
    for (stream_id, contacts) in &args.streams {
        account = account.stream(stream_id, *contacts);
    }
    for (stream_id, path) in &args.fixtures {
        account = account.fixed(stream_id, vec![Bytes::from(read(path)?)]);
    }
    if account.streams.is_empty() && account.other_streams.is_none() {
        account = account.stream(DEMO_STREAM_ID, DEMO_CONTACTS);
    }

    Ok(Settings {
        listen: args.listen,
        accounts: vec![account],
        paging: args.paging,
        limit_default: args.limit_default,
        limit_max: match (args.limit_max.0, args.over_limit) {
            (None, _) => LimitMax::Unlimited,
            (Some(max), OverLimit::Clamp) => LimitMax::Clamp(max),
            (Some(max), OverLimit::Refuse) => LimitMax::Refuse(max),
        },
        rate_limit: args.calls_per_minute.0.map(|per_minute| RateLimit {
            per_minute,
            window: args.window,
            retry_after: args.retry_after,
        }),
        latency: args.latency,
        jitter: args.jitter,
        clock_offset: args.clock_offset,
        seed: args.seed,
        pretty: args.pretty,
        faults: rule(args)?.into_iter().collect(),
        churn: churn(args)?,
        changes: args.changes.clone(),
        requests_max: 0,
        ..Settings::default()
    })
}

fn rule(args: &Args) -> Result<Option<Rule>, RuleError> {
    let mut faults = args.faults.iter().cloned();
    let Some(first) = faults.next() else {
        return Ok(None);
    };
    let mut rule = faults.fold(Rule::always(first), Rule::and);
    if let Some(calls) = args.fault_next {
        rule = rule.next(calls);
    }
    if let Some(share) = args.fault_share {
        rule = rule.share(share)?;
    }
    if let Some(stream_id) = &args.fault_stream {
        rule = rule.stream(stream_id);
    }
    Ok(Some(rule))
}

fn churn(args: &Args) -> Result<Option<Churn>, ChangeError> {
    let churn = args.churn.map(Churn::new).transpose()?;
    Ok(churn.map(|churn| {
        if args.churn_kinds.is_empty() {
            churn
        } else {
            churn.only(&args.churn_kinds)
        }
    }))
}

fn read(path: &Path) -> Result<Vec<u8>, SimulateError> {
    fs::read(path).map_err(|source| SimulateError::Read {
        path: path.to_owned(),
        source,
    })
}

fn stream(text: &str) -> Result<(String, u64), String> {
    let (stream_id, contacts) = text.split_once('=').ok_or("a stream is written ID=COUNT")?;
    let contacts = contacts
        .parse()
        .map_err(|_| format!("`{contacts}` is no number of contacts"))?;
    Ok((stream_id.to_owned(), contacts))
}

fn change(text: &str) -> Result<(u64, Change), String> {
    let (call, change) = text
        .split_once(':')
        .ok_or("a change is written CALL:CHANGE, such as 2:insert=0")?;
    let call = call.parse().ok().filter(|&call| call > 0);
    let call = call.ok_or("calls are counted from 1")?;
    let change = change
        .parse()
        .map_err(|error: ChangeError| error.to_string())?;
    Ok((call, change))
}

fn fixture(text: &str) -> Result<(String, PathBuf), &'static str> {
    let (stream_id, path) = text.split_once('=').ok_or("a fixture is written ID=FILE")?;
    Ok((stream_id.to_owned(), path.into()))
}
