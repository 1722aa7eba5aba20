//! The registry that every module declares its metrics in, and the text that Prometheus reads.
//!
//! Names begin with `contacts_gateway_`, units are base units, labels come from closed sets. Handles are resolved when
//! the app is built, or once for each collection, so that counting on a request's way is one atomic addition. What
//! changes without an event, as time alone frees a slot, is looked at [before each scrape](Registry::before_scrape).
//!
//! The README's table is made of what is declared here, and a test compares the two.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::{
    Encoder, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, TextEncoder,
    core::{Collector, MetricVec, MetricVecBuilder},
    proto::MetricFamily,
};
use tokio::time::Instant;

pub use self::by_kind::ByKind;
pub use prometheus::{Error, Result};

mod by_kind;

/// Seconds, from a hit's hundred microseconds to a caller's longest wait.
pub const SECONDS: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// All metrics of one gateway.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Shared>);

struct Shared {
    registry: prometheus::Registry,
    families: Mutex<Vec<Family>>,
    /// Those with labels, whose series can go.
    labelled: Mutex<Vec<Box<dyn Labelled>>>,
    refreshing: Mutex<Vec<Refresh>>,
}

/// Brings up to date what no event has.
type Refresh = Box<dyn Fn(Instant) + Send>;

/// What a metric says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// After `contacts_gateway_`.
    pub name: String,
    pub labels: Vec<String>,
    pub help: String,
}

impl Registry {
    /// A registry that knows the process and the build.
    pub fn new() -> Result<Self> {
        let registry = prometheus::Registry::new_custom(Some("contacts_gateway".to_owned()), None)?;
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process))?;
        let registry = Self(Arc::new(Shared {
            registry,
            families: Mutex::default(),
            labelled: Mutex::default(),
            refreshing: Mutex::default(),
        }));
        registry
            .gauge(
                "build_info",
                "Always 1; the label tells the version that runs.",
                &["version"],
            )?
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        Ok(registry)
    }

    pub fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
        self.labelled(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.labelled(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// A gauge of what may be a fraction, or without end.
    pub fn float_gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<GaugeVec> {
        self.labelled(GaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// One that is counted elsewhere, for the whole process.
    pub fn show(&self, counter: &IntCounter) -> Result<()> {
        self.keep(counter.clone()).map(drop)
    }

    /// A histogram of seconds.
    pub fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec> {
        self.histogram(name, help, labels, SECONDS)
    }

    /// A histogram with buckets of its own, each of which is a series for each set of labels.
    pub fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.labelled(HistogramVec::new(options, labels)?)
    }

    /// Has something done before each scrape, which waits for it: work with a bound, and nothing that blocks.
    pub fn before_scrape(&self, refresh: impl Fn(Instant) + Send + 'static) {
        let mut refreshing = self.refreshing();
        refreshing.push(Box::new(refresh));
    }

    /// Everything as it stands now, by its full name: what [`render`](Self::render) writes.
    pub fn gather(&self) -> Vec<MetricFamily> {
        // One at a time, so that none sees what another is about to write.
        let refreshing = self.refreshing();
        let now = Instant::now();
        for refresh in &*refreshing {
            refresh(now);
        }
        self.0.registry.gather()
    }

    /// The text format, version 0.0.4.
    pub fn render(&self) -> Result<Vec<u8>> {
        let mut text = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&self.gather(), &mut text)?;
        Ok(text)
    }

    /// Takes away every series whose `label` has a value that is not to be kept. Handles of them count on, unseen.
    pub fn retain(&self, label: &str, keep: impl Fn(&str) -> bool) {
        for family in &*self.all_labelled() {
            family.retain(label, &keep);
        }
    }

    /// What was declared, in the order of it, but for the process's own.
    pub fn families(&self) -> Vec<Family> {
        let families = self.0.families.lock();
        families.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refreshing(&self) -> MutexGuard<'_, Vec<Refresh>> {
        self.0
            .refreshing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn all_labelled(&self) -> MutexGuard<'_, Vec<Box<dyn Labelled>>> {
        let labelled = self.0.labelled.lock();
        labelled.unwrap_or_else(PoisonError::into_inner)
    }

    fn labelled<T: MetricVecBuilder + 'static>(
        &self,
        family: MetricVec<T>,
    ) -> Result<MetricVec<T>> {
        let family = self.keep(family)?;
        self.all_labelled().push(Box::new(family.clone()));
        Ok(family)
    }

    fn keep<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C> {
        self.0.registry.register(Box::new(collector.clone()))?;
        let mut families = self
            .0
            .families
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        families.extend(collector.desc().into_iter().map(|family| Family {
            name: family.fq_name.clone(),
            labels: family.variable_labels.clone(),
            help: family.help.clone(),
        }));
        Ok(collector)
    }
}

/// Series that differ in their labels.
trait Labelled: Send + Sync {
    fn retain(&self, label: &str, keep: &dyn Fn(&str) -> bool);
}

impl<T: MetricVecBuilder> Labelled for MetricVec<T> {
    fn retain(&self, label: &str, keep: &dyn Fn(&str) -> bool) {
        for family in self.collect() {
            for metric in family.get_metric() {
                let pairs = metric.get_label().iter();
                let labels: HashMap<_, _> = pairs.map(|pair| (pair.name(), pair.value())).collect();
                if labels.get(label).is_some_and(|value| !keep(value)) {
                    // It may be gone already.
                    let _ = self.remove(&labels);
                }
            }
        }
    }
}

/// One of what a gauge counts, for as long as it lives.
#[derive(Debug)]
pub struct Counted(IntGauge);

impl Counted {
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_values_that_are_not_kept_go_and_no_others() {
        let registry = Registry::new().unwrap();
        let labels = ["account", "outcome"];
        let attempts = registry.counter("attempts_total", "x", &labels).unwrap();
        let waits = registry.seconds("wait_seconds", "x", &["account"]).unwrap();
        let other = registry.gauge("others", "x", &["caller"]).unwrap();
        for account in ["acme", "zeta"] {
            for outcome in ["ok", "failed"] {
                attempts.with_label_values(&[account, outcome]).inc();
            }
            waits.with_label_values(&[account]).observe(1.0);
            other.with_label_values(&[account]).set(1);
        }
        registry.retain("account", |account| account != "acme");
        let text = String::from_utf8(registry.render().unwrap()).unwrap();
        assert!(!text.contains("account=\"acme\""), "{text}");
        assert_eq!(
            text.matches("account=\"zeta\",outcome").count(),
            2,
            "{text}"
        );
        assert!(
            text.contains("wait_seconds_sum{account=\"zeta\"} 1"),
            "{text}"
        );
        assert!(text.contains("others{caller=\"acme\"} 1"), "{text}");
    }
}
