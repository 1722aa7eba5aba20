//! The registry that every module declares its metrics in, and the text that Prometheus reads.
//!
//! Names begin with `contacts_gateway_`, units are base units, labels come from closed sets. Handles are resolved when
//! the app is built, so that counting on a request's way is one atomic addition.

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    TextEncoder, core::Collector, proto::MetricFamily,
};

pub use prometheus::{Error, Result};

/// Seconds, from a hit's hundred microseconds to a caller's longest wait.
pub const SECONDS: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// All metrics of one gateway.
#[derive(Clone, Debug)]
pub struct Registry(prometheus::Registry);

impl Registry {
    /// A registry that knows the process and the build.
    pub fn new() -> Result<Self> {
        let registry = Self(prometheus::Registry::new_custom(
            Some("contacts_gateway".to_owned()),
            None,
        )?);
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.0.register(Box::new(process))?;
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
        self.keep(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
        self.keep(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    /// One that is counted elsewhere, for the whole process.
    pub fn show(&self, counter: &IntCounter) -> Result<()> {
        self.keep(counter.clone()).map(drop)
    }

    /// A histogram of seconds.
    pub fn seconds(&self, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec> {
        let options = HistogramOpts::new(name, help).buckets(SECONDS.to_vec());
        self.keep(HistogramVec::new(options, labels)?)
    }

    /// Everything as it stands now, by its full name: what [`render`](Self::render) writes.
    pub fn gather(&self) -> Vec<MetricFamily> {
        self.0.gather()
    }

    /// The text format, version 0.0.4.
    pub fn render(&self) -> Result<Vec<u8>> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.0.gather(), &mut text)?;
        Ok(text)
    }

    fn keep<C: Collector + Clone + 'static>(&self, collector: C) -> Result<C> {
        self.0.register(Box::new(collector.clone()))?;
        Ok(collector)
    }
}
