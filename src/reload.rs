//! The configuration, read again while the gateway runs.
//!
//! All or nothing: a file with a problem, or one in which something [cannot change](changes), changes nothing. One reload
//! at a time, and each to its end, whoever asked for it. A secret that cannot be read is no problem of the file's: an
//! account that works keeps the one it has, and a new one is disabled.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use prometheus::{IntCounterVec, IntGauge};
use tokio::{
    sync::{Mutex, Semaphore},
    task,
};
use tracing::{error, info, warn};

pub use self::{
    changes::{AccountChanges, CallerChanges, Changes},
    live::{Live, Series},
    status::{Applied, Refused, Status, Trigger},
};
use crate::{
    config::{Config, Problems},
    edge::server::tls::Reread,
    metrics::{self, Registry},
    upstream::token::Secrets,
};

pub mod changes;
mod live;
mod status;
mod words;

/// Reloads that run or wait at once: one more is refused. A file on a disk that hangs must not gather them.
const WAITING_MAX: usize = 8;

/// Reads the configuration as it is now, and where its secrets are. Blocking.
pub type Source = Box<dyn Fn() -> Result<(Config, Secrets), Problems> + Send + Sync>;

/// What reloads, and remembers how it went.
pub struct Reloader {
    live: Live,
    /// Set once it is known. Without it there is nothing to read.
    source: OnceLock<Source>,
    /// What is in force. Held while a reload runs.
    current: Arc<Mutex<Config>>,
    /// One for each that runs or waits for it.
    places: Arc<Semaphore>,
    last: ArcSwapOption<Status>,
    metrics: Metrics,
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").finish_non_exhaustive()
    }
}

impl Reloader {
    /// For a gateway that was built from `config`.
    pub(crate) fn new(live: Live, config: Config, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            live,
            source: OnceLock::new(),
            current: Arc::new(Mutex::new(config)),
            places: Arc::new(Semaphore::new(WAITING_MAX)),
            last: ArcSwapOption::empty(),
            metrics,
        })
    }

    /// Has the configuration read from there. Only the first source counts.
    pub fn read_from(
        &self,
        source: impl Fn() -> Result<(Config, Secrets), Problems> + Send + Sync + 'static,
    ) {
        let _ = self.source.set(Box::new(source));
    }

    /// Reads the configuration again, and follows it. Goes on to its end also if nobody waits for that.
    pub async fn reload(self: &Arc<Self>, trigger: Trigger) -> Arc<Status> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return self.tell(trigger, Err(Refused::Busy), Vec::new());
        };
        let reloader = self.clone();
        let running = tokio::spawn(async move {
            let mut current = reloader.current.clone().lock_owned().await;
            let now = current.clone();
            let reading = reloader.clone();
            let read = task::spawn_blocking(move || {
                // Whatever becomes of the rest: they are files of their own.
                let certificates = reading.live.reread_certificates();
                (certificates, reading.read_and_follow(&now))
            });
            let lost = |_| (Vec::new(), Err(Refused::Lost));
            let (certificates, read) = read.await.unwrap_or_else(lost);
            let outcome = read.map(|(config, applied)| {
                *current = config;
                applied
            });
            let status = reloader.tell(trigger, outcome, certificates);
            drop((current, place));
            status
        });
        running
            .await
            .unwrap_or_else(|_| self.tell(trigger, Err(Refused::Lost), Vec::new()))
    }

    /// How the last reload went; `None` before the first.
    pub fn status(&self) -> Option<Arc<Status>> {
        self.last.load_full()
    }

    fn read_and_follow(&self, now: &Config) -> Result<(Config, Applied), Refused> {
        let source = self.source.get().ok_or(Refused::NoFile)?;
        let (config, secrets) = source()?;
        let changes = Changes::between(now, &config).map_err(Refused::Restart)?;
        let complaints = self.live.follow(&config, secrets)?;
        let applied = Applied {
            changes,
            complaints,
        };
        Ok((config, applied))
    }

    /// Remembers, counts and logs what a reload came to.
    fn tell(
        &self,
        trigger: Trigger,
        outcome: Result<Applied, Refused>,
        certificates: Vec<Reread>,
    ) -> Arc<Status> {
        let status = Arc::new(Status {
            at: SystemTime::now(),
            trigger,
            outcome,
            certificates,
        });
        let word = status.word();
        self.metrics.reloads.with_label_values(&[word]).inc();
        match &status.outcome {
            Ok(Applied {
                changes,
                complaints,
            }) => {
                self.metrics.succeeded.set(Status::timestamp(status.at));
                info!(trigger = trigger.word(), %changes, "the configuration was reloaded");
                for complaint in complaints {
                    let (account, cause) = (&*complaint.account, &complaint.problem);
                    match complaint.is_disabled {
                        true => error!(account, cause, "after the reload the account is disabled"),
                        false => warn!(
                            account,
                            cause, "after the reload the account keeps the secret it had"
                        ),
                    }
                }
            }
            Err(refused) => error!(
                trigger = trigger.word(),
                cause = %refused,
                "the reload was refused; the configuration before it stays in force"
            ),
        }
        for Reread { listener, outcome } in &status.certificates {
            if let Err(cause) = outcome {
                warn!(listener, %cause, "after the reload the listener keeps the certificate it had");
            }
        }
        self.last.store(Some(status.clone()));
        status
    }
}

/// What reloads tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    reloads: IntCounterVec,
    succeeded: IntGauge,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let reloads = registry.counter(
            "config_reloads_total",
            "Times that the configuration was read again, by what came of it.",
            &["outcome"],
        )?;
        for word in ["applied", "refused"] {
            let _ = reloads.with_label_values(&[word]);
        }
        let succeeded = registry.gauge(
            "config_last_reload_success_timestamp_seconds",
            "When the configuration in force was read, in seconds since 1970.",
            &[],
        )?;
        let succeeded = succeeded.with_label_values::<&str>(&[]);
        succeeded.set(Status::timestamp(SystemTime::now()));
        Ok(Self { reloads, succeeded })
    }
}

#[cfg(test)]
pub(crate) mod tests;
