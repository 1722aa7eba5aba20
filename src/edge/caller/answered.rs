//! What callers' requests came to, counted.

use http::StatusCode;
use prometheus::{IntCounter, IntCounterVec};

use crate::metrics::{self, Registry};

/// How many callers metrics tell apart.
const LABELS_MAX: usize = 20;

/// What metrics call the callers beyond those.
pub(super) const OTHER: &str = "other";

/// What a caller's request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    /// Its own doing.
    Refused,
    Forbidden,
    Throttled,
    /// The gateway's or upstream's.
    Failed,
}

impl Outcome {
    const ALL: [Self; 5] = [
        Self::Ok,
        Self::Refused,
        Self::Forbidden,
        Self::Throttled,
        Self::Failed,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Refused => "refused",
            Self::Forbidden => "forbidden",
            Self::Throttled => "throttled",
            Self::Failed => "failed",
        }
    }

    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::FORBIDDEN => Self::Forbidden,
            StatusCode::TOO_MANY_REQUESTS => Self::Throttled,
            _ if status.is_client_error() => Self::Refused,
            _ if status.is_server_error() => Self::Failed,
            _ => Self::Ok,
        }
    }
}

/// What requests of callers came to.
#[derive(Clone, Debug)]
pub struct Metrics {
    answered: IntCounterVec,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let metrics = Self {
            answered: registry.counter(
                "caller_requests_total",
                "Requests of configured callers, by what they came to: ok, refused (their own doing), forbidden, throttled (more than their rate), failed. The first 20 have their name, all others are other.",
                &["caller", "outcome"],
            )?,
        };
        // There from the start, also if nobody needs it.
        metrics.labelled(OTHER);
        Ok(metrics)
    }

    /// The counters of one caller, after so many others that are told apart.
    pub(super) fn of(&self, others: usize, name: &str) -> Answered {
        self.labelled(if others < LABELS_MAX { name } else { OTHER })
    }

    fn labelled(&self, label: &str) -> Answered {
        let counter = |outcome: Outcome| {
            let labels = [label, outcome.word()];
            self.answered.with_label_values(&labels)
        };
        Answered {
            label: label.into(),
            counters: Outcome::ALL.map(counter),
        }
    }
}

/// What the requests of one caller came to.
#[derive(Debug)]
pub(super) struct Answered {
    /// What metrics call the caller: its name, or `other`.
    pub(super) label: Box<str>,
    counters: [IntCounter; Outcome::ALL.len()],
}

impl Answered {
    pub(super) fn count(&self, status: StatusCode) {
        self.counters[Outcome::of(status) as usize].inc();
    }

    /// Whether metrics tell the caller apart.
    pub(super) fn is_labelled(&self) -> bool {
        *self.label != *OTHER
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn twenty_callers_are_told_apart_and_what_their_requests_came_to() {
        let registry = Registry::new().unwrap();
        let metrics = Metrics::new(&registry).unwrap();
        let answered: Vec<_> = (0..25)
            .map(|place| metrics.of(place, &format!("n{place}")))
            .collect();
        for status in [200, 304, 403, 429, 400, 502] {
            answered[0].count(StatusCode::from_u16(status).unwrap());
        }
        answered[20].count(StatusCode::OK);
        answered[24].count(StatusCode::OK);
        let text = String::from_utf8(registry.render().unwrap()).unwrap();
        let series: HashSet<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("contacts_gateway_caller_requests_total"))
            .collect();
        assert_eq!(series.len(), (LABELS_MAX + 1) * Outcome::ALL.len());
        for expected in [
            "{caller=\"n0\",outcome=\"ok\"} 2",
            "{caller=\"n0\",outcome=\"forbidden\"} 1",
            "{caller=\"n0\",outcome=\"throttled\"} 1",
            "{caller=\"n0\",outcome=\"refused\"} 1",
            "{caller=\"n0\",outcome=\"failed\"} 1",
            "{caller=\"other\",outcome=\"ok\"} 2",
        ] {
            assert!(series.contains(expected), "{expected}: {series:?}");
        }
        for (place, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
        }
    }
}
