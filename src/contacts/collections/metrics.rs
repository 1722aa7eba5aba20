//! What all collections of an account tell together, found out when somebody wants to know.

use std::{collections::BTreeMap, sync::Arc};

use prometheus::{GaugeVec, IntGaugeVec};
use tokio::time::Instant;

use crate::{
    contacts::{account::Account, collection::Collection},
    metrics::{self, Registry},
};

/// What collections tell, by account.
#[derive(Clone, Debug)]
pub struct Metrics {
    runway: GaugeVec,
    gap: IntGaugeVec,
}

/// What the collections of one account come to.
#[derive(Clone, Copy, Debug)]
struct Sum {
    /// The first one's end, in seconds.
    runway: f64,
    /// In contacts.
    gap: u64,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            runway: f64::INFINITY,
            gap: 0,
        }
    }
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        Ok(Self {
            runway: registry.float_gauge(
                "stale_runway_seconds",
                "How long, while upstream fails, stale copies still last: until the first collection has none that may be answered, of those whose last fetch failed and which callers wanted in the last 15 minutes. 0: callers get errors. +Inf: none of them failed.",
                &["account"],
            )?,
            gap: registry.gauge(
                "list_gap_contacts",
                "By how many contacts upstream's totals are off, as two walks have found: of all settled lists of the account together.",
                &["account"],
            )?,
        })
    }

    /// Shows how the collections of these accounts stand, and no others.
    pub(super) fn show<'a>(
        &self,
        accounts: impl IntoIterator<Item = &'a Arc<Account>>,
        collections: impl IntoIterator<Item = Arc<Collection>>,
        now: Instant,
    ) {
        let accounts = accounts.into_iter();
        let mut sums: BTreeMap<&str, Sum> = accounts
            .map(|account| (&*account.label, Sum::default()))
            .collect();
        for collection in collections {
            let Some(sum) = sums.get_mut(&*collection.account.label) else {
                continue;
            };
            if let Some(left) = collection.runway.left(collection.epoch(), now) {
                sum.runway = sum.runway.min(left.as_secs_f64());
            }
            sum.gap += collection.gap.known().unsigned_abs();
        }
        self.runway.reset();
        self.gap.reset();
        for (account, Sum { runway, gap }) in sums {
            self.runway.with_label_values(&[account]).set(runway);
            let gap = i64::try_from(gap).unwrap_or(i64::MAX);
            self.gap.with_label_values(&[account]).set(gap);
        }
    }
}
