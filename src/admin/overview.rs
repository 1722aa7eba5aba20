//! Everything at one look: the document of `GET /api/status`, which the ops page draws and `status` prints.
//!
//! It is put together when somebody asks, out of what the stages hold anyway and of the metrics. A request of a caller's
//! pays for it with one or two additions ([`Seen`](crate::contacts::seen::Seen)). One background task looks in every five
//! seconds, for the charts of the last quarter of an hour.

use std::{
    cmp::Reverse,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    task,
    time::{self, Instant},
};
use tracing::warn;

use self::{
    document::{
        Account, Budget, Fault, Few, LastFault, Log, Phase, Reload, Status, Token, Upstream,
    },
    figures::Figures,
    ring::{EVERY, Ring, seconds_of},
    signs::Signs,
    words::{Around, Condition, Known},
};
use crate::{
    contacts::{
        account,
        ids::StreamId,
        journal::{Entry, Journal},
    },
    edge::route::Resolver,
    metrics::Registry,
    upstream::{
        advice,
        breaker::Breaker,
        budget::Budgets,
        token::{Credentials, Tokens},
    },
};

mod collections;
pub mod document;
mod figures;
mod reload;
mod ring;
mod signs;
mod words;

/// Accounts that are shown: those with the worst news first.
const ACCOUNTS_MAX: usize = 200;

/// What the document is made of.
pub struct Sources {
    pub registry: Registry,
    pub accounts: account::Current,
    pub resolver: Arc<Resolver>,
    pub credentials: Arc<Credentials>,
    pub budgets: Arc<Budgets>,
    pub breaker: Arc<Breaker>,
    pub journal: Arc<Journal>,
}

/// Looks at everything. Clones share it.
#[derive(Clone)]
pub struct Overview(Arc<Shared>);

struct Shared {
    sources: Sources,
    started: Instant,
    ring: Mutex<Ring>,
    signs: Mutex<Signs>,
}

impl Overview {
    pub fn new(sources: Sources) -> Self {
        Self(Arc::new(Shared {
            sources,
            started: Instant::now(),
            ring: Mutex::default(),
            signs: Mutex::default(),
        }))
    }

    /// Looks in from time to time, for as long as it is polled.
    pub async fn watch(self) {
        let mut ticks = time::interval(EVERY);
        // What was missed is no reason to hurry: a step is as long as it was.
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut last = ticks.tick().await;
        self.look_in(Duration::ZERO);
        loop {
            let now = ticks.tick().await;
            let (overview, elapsed) = (self.clone(), now - last);
            // There may be a million collections.
            let looking = task::spawn_blocking(move || overview.look_in(elapsed));
            if looking.await.is_err() {
                warn!("the figures of the last seconds are missing");
            }
            last = now;
        }
    }

    fn look_in(&self, elapsed: Duration) {
        let Shared { sources, .. } = &*self.0;
        for collection in sources.resolver.collections().iter() {
            collection.seen.tick(elapsed);
        }
        let (families, now) = (sources.registry.gather(), Instant::now());
        self.signs().look(&families, now);
        self.ring()
            .push(Figures::read(&families, now), SystemTime::now());
    }

    fn signs(&self) -> MutexGuard<'_, Signs> {
        self.0.signs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The document. The last reload and the log's level are known to whoever asks for it.
    pub fn status(&self, phase: Phase, reload: Option<Reload>, log: Log) -> Status {
        let Shared {
            sources, started, ..
        } = &*self.0;
        let (now, wall) = (Instant::now(), SystemTime::now());
        let entries = sources.journal.entries();
        let (collections, walks) = collections::look(sources.resolver.collections().iter(), now);
        let mut accounts: Vec<_> = sources
            .accounts
            .load()
            .iter()
            .map(|account| self.account(account, &entries, now, wall))
            .collect();
        let (word, rest) = sources.breaker.standing(now);
        let families = sources.registry.gather();
        let mut signs = signs::ends(&families, seconds_of(wall) as f64);
        {
            let mut seen = self.signs();
            seen.look(&families, now);
            signs.extend(seen.reasons(now));
        }
        let around = Around {
            phase,
            breaker: (word != "closed").then(|| rest.unwrap_or_default()),
            last_minute: self.ring().last_minute(),
            signs,
            reload_refused: reload.as_ref().is_some_and(|last| !last.applied),
        };
        let summary = words::summary(&around, &accounts);
        let total = accounts.len();
        // Stable: where the news is the same, the configured order stays.
        accounts.sort_by_key(|account| Reverse(account.level));
        accounts.truncate(ACCOUNTS_MAX);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at_s: seconds_of(wall),
            uptime_s: now.saturating_duration_since(*started).as_secs(),
            phase,
            summary,
            totals: Figures::read(&families, now).totals,
            history: self.ring().history(),
            upstream: Upstream {
                breaker: word.to_owned(),
                rest_s: rest.map(|rest| rest.as_secs_f64()),
            },
            accounts: Few {
                total,
                shown: accounts,
            },
            collections,
            walks,
            faults: entries.iter().map(|entry| fault(entry, now)).collect(),
            reload,
            log,
        }
    }

    fn account(
        &self,
        account: &Arc<account::Account>,
        entries: &[Entry],
        now: Instant,
        wall: SystemTime,
    ) -> Account {
        let Sources {
            credentials,
            budgets,
            ..
        } = &self.0.sources;
        let credential = credentials.standing(account, now).unwrap_or_default();
        let budget = budgets.standing(account, now);
        let last = account.upstream.last();
        let fault = entries
            .iter()
            .find(|entry| entry.account.epoch == account.epoch);
        let ago = |at: Instant| now.saturating_duration_since(at);
        let Condition {
            level,
            state,
            brief,
            words,
            advice,
        } = words::condition(&Known {
            credential: &credential,
            budget: budget.as_ref(),
            failing: fault
                .filter(|_| last.fault().is_some())
                .map(|entry| (&entry.error, ago(entry.at))),
            asked: last.answered.is_some() || last.failed.is_some(),
            name: &|stream| {
                let stream = StreamId::parse(stream);
                let name = |stream: StreamId| account.stream_name(&stream).to_string();
                stream.map(name).unwrap_or_default()
            },
        });
        let token = Token {
            mode: match credential.tokens {
                Tokens::Shared => "shared",
                Tokens::Once => "once",
                Tokens::Service => "service",
            }
            .to_owned(),
            expires_s: credential.expires.map(|expires| {
                let epoch = |at: SystemTime| at.duration_since(UNIX_EPOCH).unwrap_or_default();
                let (end, wall) = (epoch(expires).as_secs(), epoch(wall).as_secs());
                end.cast_signed() - wall.cast_signed()
            }),
        };
        let budget = budget.map(|budget| Budget {
            per_minute: budget.configured,
            allowance: budget.allowance,
            taken: budget.taken,
            left: budget.left,
            waiting: budget.waiting,
            paused_s: budget.paused.map(|left| left.as_secs_f64()),
        });
        Account {
            name: account.name.to_string(),
            level,
            state: state.to_owned(),
            brief: brief.to_owned(),
            words,
            advice,
            budget: budget.unwrap_or_default(),
            token,
            answered_ago_s: last.answered.map(|at| ago(at).as_secs_f64()),
            last_fault: fault.map(|entry| LastFault {
                code: entry.error.kind().code().to_owned(),
                words: entry.error.detail().to_owned(),
                ago_s: ago(entry.at).as_secs_f64(),
            }),
        }
    }
}

fn fault(entry: &Entry, now: Instant) -> Fault {
    let (account, stream, name) = names(&entry.account, &entry.stream);
    let kind = entry.error.kind();
    Fault {
        account,
        stream,
        name,
        code: kind.code().to_owned(),
        words: entry.error.detail().to_owned(),
        advice: advice::about(kind).map(str::to_owned),
        ago_s: now.saturating_duration_since(entry.at).as_secs_f64(),
        times: entry.times,
    }
}

/// What operators call an account, a stream's id, and its configured name.
fn names(account: &account::Account, stream: &StreamId) -> (String, String, Option<String>) {
    let name = account.listed_as(stream).map(|name| name.to_string());
    (account.name.to_string(), stream.as_str().to_owned(), name)
}

#[cfg(test)]
pub(crate) mod tests;
