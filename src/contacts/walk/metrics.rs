//! What the walks tell.

use std::{sync::Arc, time::Duration};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::{
    contacts::{collection::Collection, list::List, verdict::Verdict},
    error::{Error, Kind, Result},
    metrics::{self, ByKind, Registry},
};

/// Pages of a list, up to those of the largest that are kept.
const PAGES: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0,
];

/// Seconds: a list may take many of an account's minutes.
const SECONDS: &[f64] = &[
    0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// What lists come to: a verdict that is accepted unless a caller says otherwise, or the code of an error.
#[derive(Clone, Debug)]
pub(super) struct Outcomes {
    accepted: [IntCounter; Verdict::ACCEPTED.len()],
    failed: Arc<ByKind>,
}

impl Outcomes {
    /// All that can be, there from the start.
    pub(super) fn new(outcomes: &IntCounterVec) -> Self {
        let outcomes = outcomes.clone();
        Self {
            accepted: Verdict::ACCEPTED.map(|word| outcomes.with_label_values(&[word])),
            failed: Arc::new(ByKind::new(
                move |code| outcomes.with_label_values(&[code]),
                Kind::ends_a_fetch,
            )),
        }
    }

    pub(super) fn count(&self, outcome: std::result::Result<Verdict, &Error>) {
        let accepted = |verdict: Verdict| {
            Verdict::ACCEPTED
                .iter()
                .position(|word| *word == verdict.word())
        };
        match outcome.map(accepted) {
            Ok(Some(place)) => self.accepted[place].inc(),
            Ok(None) => self.failed.of(Kind::MergeDrifting).inc(),
            Err(error) => self.failed.of(error.kind()).inc(),
        }
    }
}

/// What the walks tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    outcomes: Outcomes,
    pages: Histogram,
    pub(super) changes: IntCounter,
    pub(super) repairs: IntCounter,
    pub(super) rests: IntCounter,
    pub(super) running: IntGauge,
    pub(super) duration: Histogram,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let walks = registry.counter(
            "walks_total",
            "Whole lists read from upstream, by verdict (verified, consistent, settled), or by the code of what ended the walk.",
            &["outcome"],
        )?;
        let pages = registry.histogram(
            "walk_pages",
            "Pages of the lists that were read.",
            &[],
            PAGES,
        )?;
        let changes = registry.counter(
            "walk_changes_total",
            "Walks under which the list was seen to change.",
            &[],
        )?;
        let repairs = registry.counter(
            "walk_repairs_total",
            "How often a list that changed while it was read was mended by reading parts of it again.",
            &[],
        )?;
        let rests = registry.counter(
            "walk_rests_total",
            "How often a walk rested after a page had failed, and went on.",
            &[],
        )?;
        let running = registry.gauge("walks_running", "Whole lists that are being read.", &[])?;
        let duration = registry.histogram(
            "walk_duration_seconds",
            "From a walk's first call to its verdict, waits for the budget included.",
            &[],
            SECONDS,
        )?;
        Ok(Self {
            outcomes: Outcomes::new(&walks),
            pages: pages.with_label_values::<&str>(&[]),
            changes: changes.with_label_values::<&str>(&[]),
            repairs: repairs.with_label_values::<&str>(&[]),
            rests: rests.with_label_values::<&str>(&[]),
            running: running.with_label_values::<&str>(&[]),
            duration: duration.with_label_values::<&str>(&[]),
        })
    }

    pub(super) fn count(&self, collection: &Collection, outcome: &Result<List>, took: Duration) {
        let verdict = outcome.as_ref().map(|list| list.verdict);
        self.outcomes.count(verdict);
        count_list(collection, verdict);
        if let Ok(list) = outcome {
            self.pages.observe(list.walked.pages as f64);
        }
        self.duration.observe(took.as_secs_f64());
    }
}

/// Counts a list among those of its stream.
pub(super) fn count_list(collection: &Collection, outcome: std::result::Result<Verdict, &Error>) {
    if let Some(counts) = &*collection.counts.load() {
        counts.list(outcome.map_err(Error::kind));
    }
}
