//! The metrics of the budgets, by account.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::metrics::{self, Registry};

/// What the budgets tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    allowance: IntGaugeVec,
    taken: IntGaugeVec,
    waited: HistogramVec,
    exhausted: IntCounterVec,
    refused: IntCounterVec,
}

/// What the budget of one account tells.
#[derive(Debug)]
pub(super) struct AccountMetrics {
    pub(super) allowance: IntGauge,
    pub(super) taken: IntGauge,
    pub(super) waited: Histogram,
    pub(super) exhausted: IntCounter,
    pub(super) refused: IntCounter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        Ok(Self {
            allowance: registry.gauge(
                "budget_allowance_calls",
                "Calls a minute that the account can make, as learned from upstream's refusals.",
                &["account"],
            )?,
            taken: registry.gauge(
                "budget_taken_calls",
                "Calls of the last minute that count against the allowance.",
                &["account"],
            )?,
            waited: registry.seconds(
                "budget_wait_seconds",
                "How long calls waited for their slot.",
                &["account"],
            )?,
            exhausted: registry.counter(
                "budget_exhausted_total",
                "Calls refused because their slot would have come after their deadline.",
                &["account"],
            )?,
            refused: registry.counter(
                "budget_refused_total",
                "Calls that upstream refused because of its rate limit.",
                &["account"],
            )?,
        })
    }

    pub(super) fn of(&self, account: &str) -> AccountMetrics {
        AccountMetrics {
            allowance: self.allowance.with_label_values(&[account]),
            taken: self.taken.with_label_values(&[account]),
            waited: self.waited.with_label_values(&[account]),
            exhausted: self.exhausted.with_label_values(&[account]),
            refused: self.refused.with_label_values(&[account]),
        }
    }
}
