//! The credentials of all accounts, as these come and go.

use std::{
    collections::{HashMap, hash_map::Entry},
    mem,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use tokio::{
    task,
    time::{self, Instant},
};
use tracing::warn;

use super::{
    Condition, Config, Metrics, Standing, TokenService,
    credential::{Credential, Settings},
    watch::Watched,
};
use crate::{
    contacts::{
        account::{self, Account, Claims, Jti},
        ids::{Epoch, StreamId},
    },
    error::{Error, Kind, Result},
    upstream::secret::Sources,
};

/// The credentials of all accounts, by the epochs that tell these apart at all times.
#[derive(Debug)]
pub struct Credentials {
    all: RwLock<HashMap<Epoch, Arc<Credential>>>,
    pub(super) files: Mutex<Files>,
    /// For all accounts the same, but for what each says of its own.
    settings: Settings,
    metrics: Metrics,
}

#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) watched: Vec<Watched>,
    retired: Vec<Retired>,
}

/// An account that is not configured any more, and for which requests may still be under way.
#[derive(Debug)]
struct Retired {
    account: Arc<Account>,
    /// Sooner it is not looked at: who was let in just before may not have set out yet.
    from: Instant,
    /// Later nothing can be under way.
    until: Instant,
}

impl Retired {
    fn is_over(&self, now: Instant) -> bool {
        now >= self.until || (now >= self.from && !self.account.is_under_way())
    }
}

/// How long an account that has left signs in any case.
const SIGNS_FOR: Duration = Duration::from_secs(60);

/// What is wrong with where an account's secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    pub account: Box<str>,
    /// Nothing can be signed for it; else it keeps the secret that it has.
    pub is_disabled: bool,
    /// Names places, never contents.
    pub problem: String,
}

impl Credentials {
    /// Reads the secrets of all accounts; one whose secret cannot be had is disabled, and says so in the log. With a
    /// `service` there is nothing to read. `chance` draws from 0 to 1, evenly. Blocking.
    pub fn new<'a>(
        accounts: impl IntoIterator<Item = (&'a Arc<Account>, &'a account::Config, Sources)>,
        config: &Config,
        service: Option<&Arc<TokenService>>,
        chance: fn() -> f64,
        metrics: &Metrics,
    ) -> Self {
        let credentials = Self {
            all: RwLock::default(),
            files: Mutex::default(),
            settings: Settings {
                lifetime: config.lifetime,
                backdate: config.backdate,
                service: service.cloned(),
                jti: Jti::default(),
                claims: Claims::default(),
                chance,
            },
            metrics: metrics.clone(),
        };
        credentials.update(accounts, Instant::now());
        credentials
    }

    /// These are the accounts from now on. Of those that stay all secrets are read again; one that cannot be read changes
    /// nothing. Those that go sign for whoever is under way, until nobody is, and until `retire_at` at the latest.
    /// Returns what is wrong with secrets. Blocking.
    pub fn update<'a>(
        &self,
        accounts: impl IntoIterator<Item = (&'a Arc<Account>, &'a account::Config, Sources)>,
        retire_at: Instant,
    ) -> Vec<Complaint> {
        // Held throughout, so that files are read by one at a time.
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut kept, mut watched) = (HashMap::new(), Vec::new());
        for (account, told, sources) in accounts {
            let credential = self.credential(account, told);
            kept.insert(account.epoch, credential.clone());
            if self.settings.service.is_none() {
                let account = account.clone();
                watched.push(Watched::new(account, credential, told.algorithm, sources));
            }
        }
        let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
        let retired = files.retired.iter().map(|retired| retired.account.epoch);
        let retired: Vec<_> = retired.collect();
        let from = Instant::now() + SIGNS_FOR;
        for (epoch, credential) in mem::take(&mut *all) {
            let Entry::Vacant(place) = kept.entry(epoch) else {
                continue;
            };
            credential.leave();
            if !retired.contains(&epoch) {
                files.retired.push(Retired {
                    account: credential.account().clone(),
                    from,
                    until: retire_at,
                });
            }
            place.insert(credential);
        }
        *all = kept;
        drop(all);
        self.forget(&mut files, Instant::now());
        files.watched = watched;
        let complaints = files.watched.iter().flat_map(|watched| {
            let complaint = |problem| Complaint {
                account: watched.account().name.clone(),
                is_disabled: watched.is_disabled(),
                problem,
            };
            watched.complaints().into_iter().map(complaint)
        });
        complaints.collect()
    }

    /// The account's credential: the same as before, if its settings are.
    fn credential(&self, account: &Arc<Account>, told: &account::Config) -> Arc<Credential> {
        let settings = Settings {
            jti: told.jti,
            claims: told.claims.clone(),
            ..self.settings.clone()
        };
        let before = self.get(account);
        match before {
            Some(before) if before.is_like(&settings) => before,
            Some(before) => {
                before.leave();
                let metrics = self.metrics.of(account);
                Arc::new(before.succeed(settings, metrics))
            }
            None => {
                let metrics = self.metrics.of(account);
                Arc::new(Credential::new(account.clone(), settings, metrics))
            }
        }
    }

    /// Reads all secret files again, changed or not. Blocking.
    pub fn reread(&self) {
        self.look(true);
    }

    /// Looks at the secret files from time to time, for as long as it is polled.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        loop {
            time::sleep(every).await;
            let credentials = self.clone();
            let looking = task::spawn_blocking(move || credentials.look(false));
            if looking.await.is_err() {
                warn!("the secret files could not be looked at; they are tried again");
            }
        }
    }

    fn look(&self, all: bool) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        for account in &mut files.watched {
            account.look(all, SystemTime::now());
        }
        self.forget(&mut files, Instant::now());
    }

    /// Wipes the secrets of accounts that nobody can be under way for any more.
    fn forget(&self, files: &mut Files, now: Instant) {
        let over = files.retired.extract_if(.., |retired| retired.is_over(now));
        let over: Vec<_> = over.collect();
        if !over.is_empty() {
            let mut all = self.all.write().unwrap_or_else(PoisonError::into_inner);
            for retired in over {
                all.remove(&retired.account.epoch);
            }
        }
    }

    /// Has a token ready for the stream, without sending it.
    ///
    /// # Errors
    /// As an attempt would have it.
    pub async fn prepare(
        &self,
        account: &Account,
        stream: &StreamId,
        clock: fn() -> SystemTime,
    ) -> Result<()> {
        self.of(account)?.token(stream, clock).await.map(drop)
    }

    /// How an account's credential is.
    ///
    /// # Errors
    /// If there is no such account.
    pub fn condition(&self, account: &Account) -> Result<Condition> {
        let mut condition = self.of(account)?.condition();
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut watched = files.watched.iter();
        let own = watched.find(|watched| watched.account().epoch == account.epoch);
        condition.complaints = own.map(Watched::complaints).unwrap_or_default();
        Ok(condition)
    }

    /// How an account's credential stands right now; `None` if there is no such account.
    pub fn standing(&self, account: &Account, now: Instant) -> Option<Standing> {
        let mut standing = self.get(account)?.standing(now);
        // They are being looked at this moment, which may take as long as a disk does.
        if let Ok(files) = self.files.try_lock() {
            let mut watched = files.watched.iter();
            let own = watched.find(|watched| watched.account().epoch == account.epoch);
            standing.complaints = own.map(Watched::complaints).unwrap_or_default();
        }
        Some(standing)
    }

    fn get(&self, account: &Account) -> Option<Arc<Credential>> {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.get(&account.epoch).cloned()
    }

    pub(super) fn of(&self, account: &Account) -> Result<Arc<Credential>> {
        self.get(account).ok_or_else(|| {
            let detail = "the account is not configured any more";
            let error = Error::new(Kind::CredentialsUnavailable, detail);
            error.because(&account.name).unsent()
        })
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        let all = self.all.read().unwrap_or_else(PoisonError::into_inner);
        all.len()
    }
}

#[cfg(test)]
mod tests;
