//! The metrics of the budgets, by account.

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};

use super::Standing;
use crate::metrics::{self, Registry};

/// Seconds: a call waits not at all, or for slots that are free again after a minute. Few, since each is a series for
/// each account.
const WAITS: &[f64] = &[0.001, 1.0, 5.0, 15.0, 30.0, 60.0];

/// What the budgets tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) standing: Gauges,
    waited: HistogramVec,
    exhausted: IntCounterVec,
    refused: IntCounterVec,
}

/// How the accounts stand, which time alone changes: looked at when somebody wants to know.
#[derive(Clone, Debug)]
pub(super) struct Gauges {
    allowance: IntGaugeVec,
    taken: IntGaugeVec,
    left: IntGaugeVec,
    waiting: IntGaugeVec,
}

/// What the budget of one account tells.
#[derive(Debug)]
pub(super) struct AccountMetrics {
    /// What they call the account.
    pub(super) label: Box<str>,
    pub(super) waited: Histogram,
    pub(super) exhausted: IntCounter,
    pub(super) refused: IntCounter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let standing = Gauges {
            allowance: registry.gauge(
                "budget_allowance_calls",
                "Calls a minute that the account can make: those configured, or fewer, as learned from upstream's refusals.",
                &["account"],
            )?,
            taken: registry.gauge(
                "budget_taken_calls",
                "Calls of the last minute that count against the allowance, those under way included.",
                &["account"],
            )?,
            left: registry.gauge(
                "budget_left_calls",
                "Calls that the account could make at once; 0 while it pauses after a refusal.",
                &["account"],
            )?,
            waiting: registry.gauge(
                "budget_waiting_calls",
                "Calls that wait for their turn.",
                &["account"],
            )?,
        };
        Ok(Self {
            standing,
            waited: registry.histogram(
                "budget_wait_seconds",
                "How long calls waited for their turn.",
                &["account"],
                WAITS,
            )?,
            exhausted: registry.counter(
                "budget_exhausted_total",
                "Calls refused because their turn would have come after their deadline.",
                &["account"],
            )?,
            refused: registry.counter(
                "budget_refused_total",
                "Calls that upstream refused because of its rate limit; the account then pauses, and its allowance drops.",
                &["account"],
            )?,
        })
    }

    pub(super) fn of(&self, account: &str) -> AccountMetrics {
        AccountMetrics {
            label: account.into(),
            waited: self.waited.with_label_values(&[account]),
            exhausted: self.exhausted.with_label_values(&[account]),
            refused: self.refused.with_label_values(&[account]),
        }
    }
}

impl Gauges {
    /// Shows how these accounts stand, and no others. Those that share a label are added up.
    pub(super) fn show(&self, accounts: impl IntoIterator<Item = (Box<str>, Standing)>) {
        let Self {
            allowance,
            taken,
            left,
            waiting,
        } = self;
        for gauge in [allowance, taken, left, waiting] {
            gauge.reset();
        }
        for (account, standing) in accounts {
            let add = |gauge: &IntGaugeVec, calls| gauge.with_label_values(&[&account]).add(calls);
            add(allowance, standing.allowance.into());
            add(taken, standing.taken.into());
            add(left, standing.left.into());
            add(waiting, i64::try_from(standing.waiting).unwrap_or(i64::MAX));
        }
    }
}
