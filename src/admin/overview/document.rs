//! The document of `GET /api/status`: what the ops page draws and `status` prints.
//!
//! One JSON object, made anew for each question. Times are seconds (`_s`) or milliseconds (`_ms`), `at_s` are seconds since
//! 1970, `ago_s` are seconds before the document's own `at_s`. Ratios are from 0 to 1. What is `null` is not known. Ids of
//! accounts and streams are in it, since it is the operators'; contacts, secrets and upstream's own words never are. Lists
//! in it have a bound, and where that may cut something off the whole number stands beside it. Fields may join it.

use serde::{Deserialize, Serialize};

/// The whole document.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Status {
    pub version: String,
    /// When this was so.
    pub at_s: u64,
    pub uptime_s: u64,
    pub phase: Phase,
    /// Whether callers are served, in words.
    pub summary: Summary,
    pub totals: Totals,
    pub history: History,
    pub upstream: Upstream,
    pub accounts: Few<Account>,
    pub collections: Few<Collection>,
    pub walks: Few<Walk>,
    /// The latest first.
    pub faults: Vec<Fault>,
    /// The last time that the configuration was read again; `null` before the first.
    #[serde(default)]
    pub reload: Option<Reload>,
    #[serde(default)]
    pub log: Log,
}

/// What the gateway does with callers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Starting,
    Serving,
    /// Those in flight are finished, and nobody new is let in.
    Draining,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    #[default]
    Ok,
    /// Callers are served, and an operator should look.
    Warning,
    /// Some callers are not.
    Bad,
}

/// The first thing to be read.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Summary {
    pub level: Level,
    /// One sentence.
    pub text: String,
    /// One sentence for each thing that is wrong, the worst first.
    pub reasons: Vec<String>,
}

/// A list that was cut at its bound.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Few<T> {
    /// How many there are.
    pub total: usize,
    pub shown: Vec<T>,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self {
            total: 0,
            shown: Vec::new(),
        }
    }
}

/// Counts since the start: the same as in `/metrics`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq)]
pub struct Totals {
    /// Callers' requests that were answered: `requests_total` of the traffic listener.
    pub requests: u64,
    /// Of them, those with a status from 400 to 499.
    pub refused: u64,
    /// Of them, those with a status from 500.
    pub failed: u64,
    /// Requests that a cache answered: `cache_requests_total`.
    pub asked: u64,
    /// Of them, those that a copy answered.
    pub hits: u64,
    pub hit_ratio: Option<f64>,
    /// Calls to upstream: `upstream_attempts_total`.
    pub calls: u64,
    /// Of them, those that brought what was asked for.
    pub calls_ok: u64,
    /// Requests whose answer is not there yet.
    pub waiting: u64,
    /// Callers' connections.
    pub connections: u64,
    /// Lists too large to be kept that are being sent.
    pub streams: u64,
    pub cache_bytes: u64,
    pub pages: u64,
    pub lists: u64,
}

/// The last 15 minutes, as columns: the same place in each is the same moment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct History {
    /// How far apart the moments are.
    pub every_s: u64,
    /// How many moments there are at most.
    pub moments_max: usize,
    /// The end of each step.
    pub at_s: Vec<u64>,
    /// Requests a second.
    pub rate: Vec<f64>,
    /// Of them, answers with a status from 500, a second.
    pub failed_rate: Vec<f64>,
    pub hit_ratio: Vec<Option<f64>>,
    /// From a request's head read to its response's head ready, estimated within the histogram's buckets.
    pub p50_ms: Vec<Option<f64>>,
    pub p99_ms: Vec<Option<f64>>,
}

/// The breaker before upstream.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Upstream {
    /// `closed`: calls are made; `open`: none is; `half_open`: one finds out.
    pub breaker: String,
    /// How long no call is made.
    pub rest_s: Option<f64>,
}

/// An account.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Account {
    pub name: String,
    pub level: Level,
    /// `well`, `unasked`, `spent`, `paused`, `failing`, `refused` or `disabled`.
    pub state: String,
    /// The same in a few words.
    pub brief: String,
    /// The same in a sentence, with the reason.
    pub words: String,
    /// What to do about it.
    pub advice: Option<String>,
    pub budget: Budget,
    pub token: Token,
    /// When upstream last gave something of it.
    pub answered_ago_s: Option<f64>,
    pub last_fault: Option<LastFault>,
}

/// The calls of an account.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Budget {
    /// Calls a minute, as configured.
    pub per_minute: u32,
    /// The same, as learned from upstream's refusals.
    pub allowance: u32,
    /// Calls of the last minute: `budget_taken_calls`.
    pub taken: u32,
    pub left: u32,
    /// Calls that wait for their turn.
    pub waiting: usize,
    /// How long upstream wants no call.
    pub paused_s: Option<f64>,
}

/// The token of an account.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Token {
    /// `shared`, `once` (one for each call) or `service`.
    pub mode: String,
    /// Until the one that calls share expires; `null` where there is none.
    pub expires_s: Option<i64>,
}

/// What was last wrong.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct LastFault {
    /// As in the table of errors.
    pub code: String,
    pub words: String,
    pub ago_s: f64,
}

/// A collection: the contacts of one stream.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Collection {
    pub account: String,
    /// The stream's id.
    pub stream: String,
    /// Its configured name.
    pub name: Option<String>,
    /// Requests since it is remembered.
    pub requests: u64,
    /// Requests a second, about the last minute.
    pub rate: f64,
    pub hit_ratio: Option<f64>,
    /// The list that is held.
    pub list: Option<List>,
    /// When upstream last gave something of it.
    pub answered_ago_s: Option<f64>,
    /// What was wrong since then.
    pub fault: Option<LastFault>,
}

/// A list that is held.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct List {
    pub verdict: String,
    pub records: u64,
    /// Of its oldest page.
    pub age_s: f64,
    /// `fresh`, `stale` or `expired`.
    pub freshness: String,
}

/// A list that is being read.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Walk {
    pub account: String,
    pub stream: String,
    pub name: Option<String>,
    pub running_s: f64,
    pub pages_done: usize,
    /// `null` before the first page has told it.
    pub pages_needed: Option<usize>,
    pub records: u64,
    pub estimate_s: Option<f64>,
    /// Why it rests, if it does.
    pub held_up: Option<String>,
}

/// The configuration, read again.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Reload {
    pub ago_s: f64,
    /// Who wanted it: `signal` or `admin`.
    pub trigger: String,
    /// Whether it is in force; else the one before it is.
    pub applied: bool,
    /// What changed, or what is wrong with it, line by line.
    pub words: Few<String>,
}

/// What is written to the log.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Log {
    /// The least important events that are written: `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    pub configured: String,
    /// When the configured level is in force again, in seconds since 1970; `null` while it is.
    pub until_s: Option<u64>,
}

/// Something that went wrong.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Fault {
    pub account: String,
    pub stream: String,
    pub name: Option<String>,
    /// As in the table of errors.
    pub code: String,
    /// What happened.
    pub words: String,
    /// What to do about it.
    pub advice: Option<String>,
    /// The last time.
    pub ago_s: f64,
    pub times: u64,
}
