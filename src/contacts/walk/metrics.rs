//! What the walks tell.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::{
    contacts::{
        list::List,
        verdict::{Handling, Verdict},
    },
    error::{Kind, Result},
    metrics::{self, Registry},
};

/// What the walks tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(super) walks: IntCounterVec,
    pub(super) repairs: IntCounter,
    pub(super) rests: IntCounter,
    pub(super) running: IntGauge,
    pub(super) duration: Histogram,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let walks = registry.counter(
            "walks_total",
            "Whole lists read from upstream, by verdict, or by the code of what ended the walk.",
            &["outcome"],
        )?;
        for word in Verdict::ACCEPTED {
            walks.with_label_values(&[word]);
        }
        walks.with_label_values(&[Kind::MergeDrifting.code()]);
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
        let duration = registry.seconds(
            "walk_duration_seconds",
            "From a walk's first call to its verdict.",
            &[],
        )?;
        Ok(Self {
            walks,
            repairs: repairs.with_label_values::<&str>(&[]),
            rests: rests.with_label_values::<&str>(&[]),
            running: running.with_label_values::<&str>(&[]),
            duration: duration.with_label_values::<&str>(&[]),
        })
    }

    /// Counts a walk as under way until what is returned is dropped.
    pub(super) fn under_way(&self) -> impl Drop + use<> {
        counted(&self.running)
    }

    pub(super) fn count(&self, outcome: &Result<List>, took: Duration) {
        let word = match outcome {
            Ok(list) => match Handling::Default.accept(list.verdict) {
                Ok(()) => list.verdict.word(),
                Err(error) => error.kind().code(),
            },
            Err(error) => error.kind().code(),
        };
        self.walks.with_label_values(&[word]).inc();
        self.duration.observe(took.as_secs_f64());
    }
}

/// Counts one more until what is returned is dropped, be it by a panic.
pub(super) fn counted(gauge: &IntGauge) -> impl Drop + use<> {
    struct Counted(IntGauge);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.dec();
        }
    }
    gauge.inc();
    Counted(gauge.clone())
}
