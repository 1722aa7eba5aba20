//! What a reload changes: the handles that the running gateway reads, and the one place that writes them.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    admin::guard::Tokens,
    app::StartError,
    config::Config,
    contacts::{
        account::{self, Accounts},
        tally,
    },
    edge::{
        caller::{self, Roster},
        server::tls::{Certificate, Reread},
    },
    metrics::{self, Registry},
    upstream::{
        budget::Budgets,
        fetch, retry,
        token::{Complaint, Credentials, Secrets},
    },
};

/// The parts of a running gateway that follow its configuration. Everything else stays as it was built.
///
/// A request reads the [`Roster`] once, and carries what it found: so it ends on the configuration that it began with.
/// Below, an account is known by its epoch or by its id, and is found there for as long as a request may be under way.
pub struct Live {
    pub callers: Roster,
    pub accounts: account::Current,
    pub tokens: Tokens,
    pub credentials: Arc<Credentials>,
    pub budgets: Arc<Budgets>,
    pub certificates: Vec<Arc<Certificate>>,
    /// What the callers' requests are counted by.
    pub counted: caller::Metrics,
    pub series: Series,
    pub registry: Registry,
}

/// What is there for each account before it counts anything, so that the first of what it counts is seen to be one more
/// than none.
pub struct Series {
    pub attempted: fetch::Metrics,
    pub retried: retry::Metrics,
    pub tallied: Arc<tally::Families>,
}

impl Series {
    pub fn new(registry: &Registry, accounts: &Accounts) -> metrics::Result<Self> {
        let series = Self {
            attempted: fetch::Metrics::new(registry)?,
            retried: retry::Metrics::new(registry)?,
            tallied: Arc::new(tally::Families::new(registry)?),
        };
        series.show(accounts);
        Ok(series)
    }

    fn show(&self, accounts: &Accounts) {
        self.attempted.show(accounts);
        self.retried.show(accounts);
        self.tallied.show(accounts);
    }
}

impl Live {
    /// Follows a configuration that differs in nothing but what can change. `secrets` are those of its accounts, in their
    /// order; with a token service they are not looked at. Returns what is wrong with them. Blocking.
    ///
    /// # Errors
    /// If something in it cannot be what it says. Nothing has changed then.
    pub(super) fn follow(
        &self,
        config: &Config,
        secrets: Secrets,
    ) -> Result<Vec<Complaint>, StartError> {
        let (before, callers_before) = (self.accounts.load_full(), self.callers.load_full());
        let accounts = Arc::new(before.next(&config.accounts)?);
        let callers =
            callers_before.next(&config.callers, &config.accounts, &accounts, &self.counted)?;
        let tokens = config.admin.tokens().ok_or(StartError::Token)?;

        // From here on nothing fails. What is new is there before anybody is told of it.
        let told = config.accounts.iter().zip(secrets.accounts);
        let told = accounts
            .iter()
            .zip(told)
            .map(|(account, (told, secrets))| (account, told, secrets));
        let complaints = self
            .credentials
            .update(told, Instant::now() + longest_request(config));
        let allowances = config.accounts.iter();
        let allowances = allowances.map(|account| account.calls_per_minute);
        self.budgets.update(
            accounts.iter().zip(allowances),
            &config.budget,
            config.merge.refresh_share,
            Instant::now(),
        );
        self.tokens.store(Arc::new(tokens));
        self.callers.store(Arc::new(callers));
        self.accounts.store(accounts.clone());

        // And what is gone is unreachable after nobody is told of it any more.
        before.give_way_to(&accounts);
        self.forget_series();
        self.series.show(&accounts);
        Ok(complaints)
    }

    /// Takes away the series of whoever is not there: not only of those that have just left, so that what a call that
    /// ended at that very moment brought back is gone with the next reload.
    fn forget_series(&self) {
        let (accounts, callers) = (self.accounts.load(), self.callers.load());
        self.registry
            .retain("account", |label| accounts.need_label(label));
        self.registry
            .retain("caller", |label| callers.need_label(label));
    }

    /// Reads the certificates again. Returns what became of those that are others now, or could not be taken. Blocking.
    pub(super) fn reread_certificates(&self) -> Vec<Reread> {
        let certificates = self.certificates.iter();
        certificates
            .filter_map(|certificate| certificate.reread())
            .collect()
    }
}

/// How long a request may be under way: one for the lines of a list is for as long as its walk.
fn longest_request(config: &Config) -> Duration {
    let waiting = config.edge.request_timeout.max(config.merge.wait_max);
    waiting.max(config.merge.walk_max)
}
