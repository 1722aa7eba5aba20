//! What becomes of the calls to upstream, in numbers.

use std::{sync::Arc, time::Duration};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::{
    contacts::{
        account::{Account, Accounts},
        page::Page,
    },
    error::{Kind, Result},
    metrics::{self, ByKind, Registry},
};

/// What the attempts tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) attempts: IntCounterVec,
    ok: IntCounter,
    failed: Arc<ByKind>,
    pub(super) running: IntGauge,
    pub(super) tenant_mismatches: IntCounterVec,
    pub(super) duration: Histogram,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let attempts = registry.counter(
            "upstream_attempts_total",
            "Calls to upstream, by account and by what came of them: ok, or the code of the fault. There with the first one.",
            &["account", "outcome"],
        )?;
        let outcomes = registry.counter(
            "upstream_outcomes_total",
            "Calls to upstream of all accounts, by what came of them: ok, or the code of the fault. There from the start.",
            &["outcome"],
        )?;
        let ok = outcomes.with_label_values(&["ok"]);
        let failed = ByKind::new(
            move |code| outcomes.with_label_values(&[code]),
            Kind::ends_an_attempt,
        );
        let running = registry.gauge(
            "upstream_attempts_running",
            "Calls to upstream that are under way.",
            &[],
        )?;
        let tenant_mismatches = registry.counter(
            "upstream_tenant_mismatches_total",
            "Answers with contacts that say that they are another account's or stream's.",
            &["account"],
        )?;
        let duration = registry.seconds(
            "upstream_attempt_duration_seconds",
            "From a call sent to its page decoded, or to its fault.",
            &[],
        )?;
        Ok(Self {
            attempts,
            ok,
            failed: Arc::new(failed),
            running: running.with_label_values::<&str>(&[]),
            tenant_mismatches,
            duration: duration.with_label_values::<&str>(&[]),
        })
    }

    /// Those that should always be 0 are there for each of these accounts.
    pub fn show(&self, accounts: &Accounts) {
        for account in accounts.iter() {
            let _ = self.tenant_mismatches.with_label_values(&[&*account.label]);
        }
    }

    pub(super) fn count(&self, account: &Account, outcome: &Result<Page>, took: Duration) {
        let (word, total) = match outcome {
            Ok(_) => ("ok", &self.ok),
            Err(error) if error.is_unsent() => return,
            Err(error) => (error.kind().code(), self.failed.of(error.kind())),
        };
        total.inc();
        self.duration.observe(took.as_secs_f64());
        let Some(account) = account.counted_as() else {
            return;
        };
        let foreign = match outcome {
            Ok(page) => page.foreign > 0,
            Err(error) => error.kind() == Kind::UpstreamTenantMismatch,
        };
        if foreign {
            self.tenant_mismatches.with_label_values(&[account]).inc();
        }
        self.attempts.with_label_values(&[account, word]).inc();
    }
}
