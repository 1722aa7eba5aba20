//! Whether to ask again after a refusal, and when. Pure.
//!
//! Two kinds of refusal get better by waiting. A *turn* comes for sure: the gateway is reading the list, or its calls for
//! this minute are spent. It is waited for as long as was said. A *fault* may last: after a few in a row it is reported.

use std::time::Duration;

use tokio::time::Instant;

/// What is waited for: the codes whose end is only a matter of time.
const TURNS: [&str; 6] = [
    "merge_in_progress",
    "merge_busy",
    "budget_exhausted",
    "upstream_rate_limited",
    "overloaded",
    "caller_throttled",
];

/// Faults in a row after which nobody waits for the next.
pub(super) const FAULTS_MAX: u32 = 5;

/// The wait after a refusal that says that waiting helps, but not for how long.
const WAIT: Duration = Duration::from_secs(5);

/// The shortest wait, whatever is said: who is told not to wait at all would ask without end.
const WAIT_MIN: Duration = Duration::from_secs(1);

/// A refusal, as far as it decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused<'a> {
    pub code: &'a str,
    pub retryable: bool,
    /// The `Retry-After`.
    pub after: Option<Duration>,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    AskAgain(Duration),
    /// Waiting does not help, or has not.
    GiveUp,
    /// It would help, but for longer than was asked for.
    TooLong(Duration),
}

/// How much longer is waited.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    until: Instant,
    faults: u32,
}

impl Patience {
    pub(super) fn new(now: Instant, wait: Duration) -> Self {
        Self {
            until: now + wait,
            faults: 0,
        }
    }

    pub(super) fn decide(&mut self, refused: Refused<'_>, now: Instant) -> Decision {
        if !refused.retryable {
            return Decision::GiveUp;
        }
        if TURNS.contains(&refused.code) {
            self.faults = 0;
        } else {
            self.faults += 1;
            if self.faults == FAULTS_MAX {
                return Decision::GiveUp;
            }
        }
        let wait = refused.after.unwrap_or(WAIT).max(WAIT_MIN);
        if wait > self.until.saturating_duration_since(now) {
            return Decision::TooLong(wait);
        }
        Decision::AskAgain(wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn refused(code: &str, after: Option<u64>) -> Refused<'_> {
        Refused {
            code,
            retryable: true,
            after: after.map(Duration::from_secs),
        }
    }

    fn again(seconds: u64) -> Decision {
        Decision::AskAgain(Duration::from_secs(seconds))
    }

    #[test]
    fn a_turn_is_waited_for_as_long_as_was_said() {
        let begun = Instant::now();
        let mut patience = Patience::new(begun, HOUR);
        for minute in 0..60 {
            let now = begun + Duration::from_secs(60 * minute);
            let decision = patience.decide(refused("merge_in_progress", Some(60)), now);
            assert_eq!(decision, again(60), "{minute}");
        }
        let late = begun + HOUR - Duration::from_secs(59);
        for (after, expected) in [
            (59, again(59)),
            (60, Decision::TooLong(Duration::from_secs(60))),
        ] {
            let decision = patience.decide(refused("merge_busy", Some(after)), late);
            assert_eq!(decision, expected);
        }
        let decision = patience.decide(refused("merge_busy", None), begun + 2 * HOUR);
        assert_eq!(decision, Decision::TooLong(WAIT));
    }

    #[test]
    fn a_fault_is_waited_out_a_few_times() {
        let now = Instant::now();
        let mut patience = Patience::new(now, HOUR);
        let fault = refused("upstream_timeout", Some(2));
        for _ in 1..FAULTS_MAX {
            assert_eq!(patience.decide(fault, now), again(2));
        }
        assert_eq!(patience.decide(fault, now), Decision::GiveUp);
        // A turn between them shows that the gateway gets on.
        let mut patience = Patience::new(now, HOUR);
        for _ in 0..4 * FAULTS_MAX {
            assert_eq!(patience.decide(fault, now), again(2));
            assert_eq!(
                patience.decide(refused("merge_in_progress", Some(3)), now),
                again(3)
            );
        }
    }

    #[test]
    fn nobody_asks_without_end_or_reason() {
        let now = Instant::now();
        let mut patience = Patience::new(now, HOUR);
        let gone = Refused {
            retryable: false,
            ..refused("stream_not_found", Some(1))
        };
        assert_eq!(patience.decide(gone, now), Decision::GiveUp);
        assert_eq!(
            patience.decide(refused("overloaded", Some(0)), now),
            again(1)
        );
        assert_eq!(patience.decide(refused("overloaded", None), now), again(5));
    }
}
