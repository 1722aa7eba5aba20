//! What goes wrong beside accounts and calls, in sentences: read from the same metrics that the alerts ask. Pure.
//!
//! A count that has grown is told for as long as its alert looks back, and with the time since; so one that is over says so.

use std::{collections::BTreeMap, time::Duration};

use prometheus::proto::{Metric, MetricFamily};
use tokio::time::Instant;

use super::{
    document::Level,
    figures::{count, label, of, says},
};
use crate::words::in_words;

const MINUTE: Duration = Duration::from_secs(60);

/// Copies that last for less have an operator hurry.
const RUNWAY_SHORT: f64 = 900.0;

/// Before a certificate's end, in seconds.
const CERTIFICATE_SOON: f64 = 14.0 * 86_400.0;

/// A count that only trouble moves.
struct Sign {
    metric: &'static str,
    /// Which of its series count.
    tells: fn(&Metric) -> bool,
    /// The labels by which they are told apart.
    by: &'static [&'static str],
    level: Level,
    /// For how long after it grew.
    lasts: Duration,
    /// Without the time since. What it is given is those labels' values.
    words: fn(&str) -> String,
}

const SIGNS: [Sign; 8] = [
    Sign {
        metric: "upstream_tenant_mismatches_total",
        tells: |_| true,
        by: &["account"],
        level: Level::Bad,
        lasts: MINUTE.saturating_mul(60),
        words: |account| {
            format!(
                "{account}: Kore.ai sent contacts that say that they are another account's or stream's"
            )
        },
    },
    Sign {
        metric: "collection_lists_total",
        tells: |metric| says(metric, "verdict", "drifting"),
        by: &["account", "stream"],
        level: Level::Warning,
        lasts: MINUTE.saturating_mul(60),
        words: |whose| {
            format!(
                "{whose}: the list changes faster than it is read, so that callers get an older one or merge_drifting"
            )
        },
    },
    Sign {
        metric: "requests_shed_total",
        tells: |_| true,
        by: &[],
        level: Level::Bad,
        lasts: MINUTE.saturating_mul(2),
        words: |_| {
            "Requests are refused as overloaded: too many wait (edge.waiting_max), or too many of one caller".to_owned()
        },
    },
    Sign {
        metric: "accept_pauses_total",
        tells: |metric| says(metric, "listener", "traffic"),
        by: &["reason"],
        level: Level::Bad,
        lasts: MINUTE.saturating_mul(2),
        words: |reason| match reason {
            "full" => "New callers wait: as many connections are open as listen.connections_max"
                .to_owned(),
            _ => {
                "New callers wait: the system has no descriptor or no memory for another connection"
                    .to_owned()
            }
        },
    },
    Sign {
        metric: "token_service_asks_total",
        tells: |metric| !says(metric, "outcome", "ok"),
        by: &["account"],
        level: Level::Warning,
        lasts: MINUTE.saturating_mul(5),
        words: |account| format!("{account}: the token service gave no token"),
    },
    Sign {
        metric: "cache_evictions_total",
        tells: |metric| says(metric, "cause", "size"),
        by: &["cache"],
        level: Level::Warning,
        lasts: MINUTE.saturating_mul(15),
        words: |cache| {
            format!(
                "Copies of {cache} are given up for want of memory, and asked for again, which costs calls"
            )
        },
    },
    Sign {
        metric: "panics_total",
        tells: |_| true,
        by: &[],
        level: Level::Warning,
        lasts: MINUTE.saturating_mul(15),
        words: |_| {
            "A fault of the gateway's own cost a request or a renewal: report its line in the log"
                .to_owned()
        },
    },
    Sign {
        metric: "log_lines_lost_total",
        tells: |_| true,
        by: &[],
        level: Level::Warning,
        lasts: MINUTE.saturating_mul(15),
        words: |_| "Lines of the log are lost: its output is closed, full or too slow".to_owned(),
    },
];

/// How those counts stood when somebody last looked, and when each was seen to have grown.
#[derive(Debug, Default)]
pub(super) struct Signs {
    seen: BTreeMap<(usize, String), Seen>,
    /// What is there at the first look is nobody's news.
    begun: bool,
}

#[derive(Debug)]
struct Seen {
    count: u64,
    grew: Option<Instant>,
}

impl Signs {
    /// Looks at the metrics. There are as many series as the labels' closed sets allow; one that is gone is forgotten.
    pub(super) fn look(&mut self, families: &[MetricFamily], now: Instant) {
        let mut before = std::mem::take(&mut self.seen);
        for (place, sign) in SIGNS.iter().enumerate() {
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for metric in of(families, sign.metric).filter(|metric| (sign.tells)(metric)) {
                let whose: Vec<_> = sign.by.iter().filter_map(|by| label(metric, by)).collect();
                *counts.entry(whose.join(" / ")).or_default() += count(std::iter::once(metric));
            }
            for (whose, count) in counts {
                let key = (place, whose);
                let (last, grew) = match before.remove(&key) {
                    Some(seen) => (seen.count, seen.grew),
                    None => (if self.begun { 0 } else { count }, None),
                };
                let grew = if count > last { Some(now) } else { grew };
                self.seen.insert(key, Seen { count, grew });
            }
        }
        self.begun = true;
    }

    /// One sentence for each that still counts.
    pub(super) fn reasons(&self, now: Instant) -> impl Iterator<Item = (Level, String)> {
        self.seen.iter().filter_map(move |((place, whose), seen)| {
            let sign = &SIGNS[*place];
            let ago = now.saturating_duration_since(seen.grew?);
            let words = (sign.words)(whose);
            (ago <= sign.lasts)
                .then(|| (sign.level, format!("{words}; last {} ago.", in_words(ago))))
        })
    }
}

/// What will go wrong, of what has an end: stale copies while upstream fails, and certificates. `wall_s` is since 1970.
pub(super) fn ends(families: &[MetricFamily], wall_s: f64) -> Vec<(Level, String)> {
    let left = |seconds: f64| in_words(Duration::from_secs_f64(seconds.clamp(0.0, 1e9)));
    let runways = of(families, "stale_runway_seconds").filter_map(|metric| {
        let (account, seconds) = (label(metric, "account")?, metric.get_gauge().get_value());
        let level = match seconds < RUNWAY_SHORT {
            true => Level::Bad,
            false => Level::Warning,
        };
        let words = match seconds > 0.0 {
            true => format!("{account}: calls fail, and the first stale copies last for {}; then callers get errors.", left(seconds)),
            false => format!("{account}: calls fail, and stale copies that callers want have run out."),
        };
        seconds.is_finite().then_some((level, words))
    });
    let certificates =
        of(families, "tls_certificate_expiry_timestamp_seconds").filter_map(|metric| {
            let (listener, seconds) = (
                label(metric, "listener")?,
                metric.get_gauge().get_value() - wall_s,
            );
            let words = match seconds > 0.0 {
                true => format!(
                    "The certificate of the {listener} listener expires in {}.",
                    left(seconds)
                ),
                false => format!("The certificate of the {listener} listener has expired."),
            };
            (seconds < CERTIFICATE_SOON).then_some((Level::Warning, words))
        });
    runways.chain(certificates).collect()
}

#[cfg(test)]
mod tests;
