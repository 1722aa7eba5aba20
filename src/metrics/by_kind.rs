//! What is counted by the kind of an error.

use std::{fmt, sync::OnceLock};

use prometheus::IntCounter;

use crate::error::Kind;

/// A counter for each kind of error, found by its place.
pub struct ByKind {
    counters: [OnceLock<IntCounter>; Kind::ALL.len()],
    counter: Box<dyn Fn(&'static str) -> IntCounter + Send + Sync>,
}

impl ByKind {
    /// `counter` resolves the one for a code. Those that are expected are there from the start, so that their first event
    /// is seen to be one more than none; any other, should there be one, with its first event.
    pub fn new(
        counter: impl Fn(&'static str) -> IntCounter + Send + Sync + 'static,
        expected: impl Fn(Kind) -> bool,
    ) -> Self {
        let this = Self {
            counters: [const { OnceLock::new() }; Kind::ALL.len()],
            counter: Box::new(counter),
        };
        for kind in Kind::ALL.iter().filter(|kind| expected(**kind)) {
            this.of(*kind);
        }
        this
    }

    pub fn of(&self, kind: Kind) -> &IntCounter {
        self.counters[kind as usize].get_or_init(|| (self.counter)(kind.code()))
    }
}

impl fmt::Debug for ByKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByKind").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Registry;

    #[test]
    fn each_kind_has_a_counter_and_the_expected_ones_from_the_start() {
        let registry = Registry::new().unwrap();
        let counters = registry
            .counter("x_total", "For a test.", &["code"])
            .unwrap();
        let family = counters.clone();
        let by_kind = ByKind::new(
            move |code| family.with_label_values(&[code]),
            Kind::ends_a_fetch,
        );
        let text = String::from_utf8(registry.render().unwrap()).unwrap();
        for kind in Kind::ALL {
            let series = format!("contacts_gateway_x_total{{code=\"{}\"}} 0", kind.code());
            assert_eq!(text.contains(&series), kind.ends_a_fetch(), "{series}");
            by_kind.of(*kind).inc();
            assert_eq!(counters.with_label_values(&[kind.code()]).get(), 1);
        }
    }
}
