//! The registry that every module declares its metrics in, and the text that Prometheus reads.
//!
//! Names begin with `contacts_gateway_`, units are base units, labels come from closed sets. Handles are resolved when
//! the app is built, so that counting on a request's way is one atomic addition.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    TextEncoder,
    core::{Collector, MetricVec, MetricVecBuilder},
};

pub use prometheus::{Error, Result};

/// Seconds, from a hit's hundred microseconds to a caller's longest wait.
pub const SECONDS: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// All metrics of one gateway.
#[derive(Clone, Debug)]
pub struct Registry {
    registry: prometheus::Registry,
    /// Those with labels, whose series can go.
    families: Arc<Mutex<Vec<Box<dyn Family>>>>,
}

impl Registry {
    /// A registry that knows the process and the build.
    pub fn new() -> Result<Self> {
        let prefix = Some("contacts_gateway".to_owned());
        let registry = Self {
            registry: prometheus::Registry::new_custom(prefix, None)?,
            families: Arc::default(),
        };
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.registry.register(Box::new(process))?;
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
        self.family(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.family(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// One that is counted elsewhere, for the whole process.
    pub fn show(&self, counter: &IntCounter) -> Result<()> {
        self.keep(counter.clone()).map(drop)
    }

    /// A histogram of seconds.
    pub fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.family(HistogramVec::new(options, labels)?)
    }

    /// The text format, version 0.0.4.
    pub fn render(&self) -> Result<Vec<u8>> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Takes away every series whose `label` has this value. Handles of them count on, unseen.
    pub fn forget(&self, label: &str, value: &str) {
        let families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        for family in &*families {
            family.forget(label, value);
        }
    }

    fn family<T: MetricVecBuilder + 'static>(&self, family: MetricVec<T>) -> Result<MetricVec<T>> {
        let family = self.keep(family)?;
        let mut families = self.families.lock().unwrap_or_else(PoisonError::into_inner);
        families.push(Box::new(family.clone()));
        Ok(family)
    }

    fn keep<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C> {
        self.registry.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}

/// Series that differ in their labels.
trait Family: Send + Sync {
    fn forget(&self, label: &str, value: &str);
}

impl<T: MetricVecBuilder> Family for MetricVec<T> {
    fn forget(&self, label: &str, value: &str) {
        for family in self.collect() {
            for metric in family.get_metric() {
                let pairs = metric.get_label().iter();
                let labels: HashMap<_, _> = pairs.map(|pair| (pair.name(), pair.value())).collect();
                if labels.get(label) == Some(&value) {
                    // It may be gone already.
                    let _ = self.remove(&labels);
                }
            }
        }
    }
}

impl fmt::Debug for dyn Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Family")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_of_one_value_go_and_no_others() {
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
        registry.forget("account", "acme");
        registry.forget("account", "nobody");
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
