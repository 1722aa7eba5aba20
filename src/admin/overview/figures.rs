//! The counts of the metrics at one moment: what is drawn here and what Prometheus reads are the same numbers.
//!
//! They are read by name and summed over all labels that are not asked for, so that a label more changes nothing here.

use std::time::Duration;

use prometheus::proto::{Metric, MetricFamily};
use tokio::time::Instant;

use super::document::Totals;
use crate::served::Served;

/// The counts at one moment.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) at: Instant,
    pub(super) totals: Totals,
    /// How long callers' requests took: each bucket's upper bound, and how many were not longer.
    pub(super) took: Vec<(f64, u64)>,
}

impl Figures {
    pub(super) fn read(families: &[MetricFamily], now: Instant) -> Self {
        let all = |name: &str| of(families, name);
        let requests =
            || all("requests_total").filter(|metric| says(metric, "listener", "traffic"));
        let with_status = |class: &'static [u8]| {
            let fits = move |metric: &&Metric| {
                let first = label(metric, "status").and_then(|status| status.bytes().next());
                first.is_some_and(|first| class.contains(&first))
            };
            count(requests().filter(fits))
        };
        let served = || all("cache_requests_total");
        let from_a_copy = |metric: &&Metric| {
            let mut words = Served::ALL.iter().filter(|served| served.is_from_a_copy());
            words.any(|served| says(metric, "result", served.word()))
        };
        let (asked, hits) = (count(served()), count(served().filter(from_a_copy)));
        let entries = |cache: &'static str| {
            gauge(all("cache_entries").filter(move |metric| says(metric, "cache", cache)))
        };
        Self {
            at: now,
            totals: Totals {
                requests: count(requests()),
                refused: with_status(b"4"),
                failed: with_status(b"5"),
                asked,
                hits,
                hit_ratio: ratio(hits, asked),
                calls: count(all("upstream_attempts_total")),
                calls_ok: count(
                    all("upstream_attempts_total").filter(|metric| says(metric, "outcome", "ok")),
                ),
                waiting: gauge(all("requests_waiting")),
                connections: gauge(
                    all("connections").filter(|metric| says(metric, "listener", "traffic")),
                ),
                streams: gauge(all("streams_open")),
                cache_bytes: gauge(all("cache_bytes")),
                pages: entries("pages"),
                lists: entries("lists"),
            },
            took: buckets(
                all("request_duration_seconds")
                    .filter(|metric| says(metric, "listener", "traffic")),
            ),
        }
    }

    /// How long the requests between two moments took, in milliseconds, but for a share of `1 - quantile`; `None` if there
    /// were none. Estimated within a bucket as if they were spread evenly in it; beyond the last bound, that bound.
    pub(super) fn quantile_ms(&self, before: Option<&Self>, quantile: f64) -> Option<f64> {
        let before = |place: usize| {
            let counts = before.and_then(|before| before.took.get(place));
            counts.map_or(0, |(_, count)| *count)
        };
        let counts = self.took.iter().enumerate();
        let counts =
            counts.map(|(place, (bound, count))| (*bound, count.saturating_sub(before(place))));
        let counts: Vec<_> = counts.collect();
        let all = counts.last()?.1;
        if all == 0 {
            return None;
        }
        let wanted = quantile * all as f64;
        let (mut lower, mut below) = (0.0, 0);
        for (bound, count) in counts {
            if count as f64 >= wanted {
                if bound.is_infinite() {
                    break;
                }
                let inside = (wanted - below as f64) / (count - below).max(1) as f64;
                return Some(1e3 * (lower + (bound - lower) * inside.clamp(0.0, 1.0)));
            }
            (lower, below) = (bound, count);
        }
        Some(1e3 * lower)
    }

    /// How long after another moment this one is.
    pub(super) fn since(&self, before: &Self) -> Duration {
        self.at.saturating_duration_since(before.at)
    }
}

pub(super) fn ratio(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

pub(super) fn of<'a>(
    families: &'a [MetricFamily],
    name: &str,
) -> impl Iterator<Item = &'a Metric> + use<'a> {
    let named = families.iter().find(|family| {
        let short = family.name().strip_prefix("contacts_gateway_");
        short == Some(name)
    });
    named.into_iter().flat_map(MetricFamily::get_metric)
}

pub(super) fn label<'a>(metric: &'a Metric, name: &str) -> Option<&'a str> {
    let mut labels = metric.get_label().iter();
    labels
        .find(|label| label.name() == name)
        .map(|label| label.value())
}

pub(super) fn says(metric: &Metric, name: &str, value: &str) -> bool {
    label(metric, name) == Some(value)
}

pub(super) fn count<'a>(metrics: impl Iterator<Item = &'a Metric>) -> u64 {
    metrics
        .map(|metric| metric.get_counter().get_value() as u64)
        .sum()
}

fn gauge<'a>(metrics: impl Iterator<Item = &'a Metric>) -> u64 {
    // A negative one would be a moment between two of its changes.
    metrics
        .map(|metric| metric.get_gauge().get_value().max(0.0) as u64)
        .sum()
}

fn buckets<'a>(metrics: impl Iterator<Item = &'a Metric>) -> Vec<(f64, u64)> {
    let mut sum: Vec<(f64, u64)> = Vec::new();
    let mut all = 0;
    for metric in metrics {
        let histogram = metric.get_histogram();
        all += histogram.get_sample_count();
        let finite = histogram.get_bucket().iter();
        for (place, bucket) in finite
            .filter(|bucket| bucket.upper_bound().is_finite())
            .enumerate()
        {
            match sum.get_mut(place) {
                Some((_, count)) => *count += bucket.cumulative_count(),
                None => sum.push((bucket.upper_bound(), bucket.cumulative_count())),
            }
        }
    }
    sum.push((f64::INFINITY, all));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    fn figures(took: &[(f64, u64)]) -> Figures {
        Figures {
            at: Instant::now(),
            totals: Totals::default(),
            took: took.to_vec(),
        }
    }

    #[test]
    fn quantiles_are_estimated_within_their_bucket() {
        let infinite = f64::INFINITY;
        let before = figures(&[(0.001, 1_000), (0.01, 1_000), (infinite, 1_000)]);
        let after = figures(&[(0.001, 1_050), (0.01, 1_090), (infinite, 1_100)]);
        for (quantile, expected) in [
            (0.25, 0.5),
            (0.5, 1.0),
            (0.7, 5.5),
            (0.9, 10.0),
            (0.99, 10.0),
        ] {
            let told = after.quantile_ms(Some(&before), quantile).unwrap();
            assert!((told - expected).abs() < 1e-9, "{quantile}: {told}");
        }
        assert_eq!(after.quantile_ms(Some(&after), 0.5), None);
        assert_eq!(before.quantile_ms(None, 0.5), Some(0.5));
        assert_eq!(figures(&[]).quantile_ms(None, 0.5), None);
    }

    /// Catches a metric that was given another name, and listeners and labels that are mixed up.
    #[test]
    fn they_are_what_the_metrics_say() {
        let registry = Registry::new().unwrap();
        let labels = ["listener", "resource", "status"];
        let requests = registry.counter("requests_total", "-", &labels).unwrap();
        for (listener, status, count) in [
            ("traffic", "200", 7),
            ("traffic", "304", 1),
            ("traffic", "404", 2),
            ("traffic", "502", 3),
            ("admin", "500", 100),
        ] {
            let labels = [listener, "page", status];
            requests.with_label_values(&labels).inc_by(count);
        }
        let took = registry.seconds("request_duration_seconds", "-", &["listener", "resource"]);
        let took = took.unwrap();
        took.with_label_values(&["traffic", "page"]).observe(0.0002);
        took.with_label_values(&["traffic", "list"]).observe(99.0);
        took.with_label_values(&["admin", "other"]).observe(99.0);
        let served = registry
            .counter("cache_requests_total", "-", &["cache", "result"])
            .unwrap();
        for (cache, result, count) in [
            ("pages", "hit", 6),
            ("lists", "stale", 1),
            ("pages", "miss", 1),
        ] {
            served.with_label_values(&[cache, result]).inc_by(count);
        }
        let Figures { totals, took, .. } = Figures::read(&registry.gather(), Instant::now());
        let expected = Totals {
            requests: 13,
            refused: 2,
            failed: 3,
            asked: 8,
            hits: 7,
            hit_ratio: Some(0.875),
            ..Totals::default()
        };
        assert_eq!(totals, expected);
        assert_eq!(took[0], (0.0001, 0));
        assert_eq!(took[1], (0.0005, 1));
        assert_eq!(took.last(), Some(&(f64::INFINITY, 2)));
    }
}
