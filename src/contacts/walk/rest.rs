//! When a walk that has read something rests, and when it gives up: pure, and told the time.
//!
//! A hundred pages that were read are worth more than the moment in which the next one fails. So a failure that may pass
//! is no end of the walk: it rests for 1, 2, 4 and so on up to 30 seconds, or for as long as it was told if that is longer,
//! keeps what it has, and asks again. Calls that fail together, and those that fail while it rests, say one thing and
//! count once. A page that comes ends the row of failures; so many of them in a row end the walk, with the last one's
//! error.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, Kind, Result};

/// The longest rest that the walk takes of itself.
const LONGEST: Duration = Duration::from_secs(30);

/// The failures in a row, and the rest after the last of them.
#[derive(Debug, Default)]
pub(super) struct Rest {
    failures: u32,
    until: Option<Instant>,
    because: Option<Kind>,
}

impl Rest {
    /// Until when nothing new is asked for, and why.
    pub(super) fn until(&self, now: Instant) -> Option<(Instant, Kind)> {
        let until = self.until.filter(|until| *until > now)?;
        Some((until, self.because?))
    }

    /// A page has come. One that comes while it rests was asked for before.
    pub(super) fn succeeded(&mut self, now: Instant) {
        if self.until(now).is_none() {
            self.failures = 0;
        }
    }

    /// A call has failed. Whether a rest begins with that.
    ///
    /// # Errors
    /// The error itself, if it will not pass, or if it is one in a row of `failures_max`.
    pub(super) fn failed(&mut self, error: Error, failures_max: u32, now: Instant) -> Result<bool> {
        if !may_pass(error.kind()) {
            return Err(error);
        }
        let told = error.told_to_wait().unwrap_or_default();
        if self.until(now).is_some() {
            self.until = self.until.max(Some(now + told));
            return Ok(false);
        }
        self.failures += 1;
        if self.failures >= failures_max {
            return Err(error);
        }
        let growing = Duration::from_secs(1 << (self.failures - 1).min(5)).min(LONGEST);
        self.until = Some(now + growing.max(told));
        self.because = Some(error.kind());
        Ok(true)
    }
}

/// Whether what failed may succeed a little later, with nobody doing anything about it.
const fn may_pass(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::UpstreamUnreachable
            | Kind::Upstream5xx
            | Kind::UpstreamTimeout
            | Kind::UpstreamTruncated
            | Kind::UpstreamProtocol
            | Kind::UpstreamRateLimited
            | Kind::UpstreamUnavailable
            | Kind::BudgetExhausted
            | Kind::TokenServiceUnavailable
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn error(kind: Kind) -> Error {
        Error::new(kind, "for a test")
    }

    #[test]
    fn rests_grow_and_have_an_end() {
        let (mut rest, mut now) = (Rest::default(), Instant::now());
        for length in [1, 2, 4, 8, 16, 30, 30] {
            assert!(rest.until(now).is_none());
            assert!(rest.failed(error(Kind::Upstream5xx), 8, now).unwrap());
            let end = now + length * SECOND;
            assert_eq!(rest.until(now), Some((end, Kind::Upstream5xx)));
            now = end;
        }
        let last = rest.failed(error(Kind::UpstreamTruncated), 8, now);
        assert_eq!(last.unwrap_err().kind(), Kind::UpstreamTruncated);
        // With one allowed, it is as if there were no rests.
        assert!(
            Rest::default()
                .failed(error(Kind::Upstream5xx), 1, now)
                .is_err()
        );
    }

    #[test]
    fn a_page_ends_the_row() {
        let (mut rest, mut now) = (Rest::default(), Instant::now());
        for _ in 0..10 {
            assert!(rest.failed(error(Kind::UpstreamTimeout), 2, now).unwrap());
            assert_eq!(rest.until(now).unwrap().0, now + SECOND);
            rest.succeeded(now);
            now += SECOND;
            rest.succeeded(now);
        }
    }

    /// Catches pages that were under way when the first one failed, and undo what it said.
    #[test]
    fn a_page_of_before_ends_no_row() {
        let (mut rest, mut now) = (Rest::default(), Instant::now());
        for _ in 0..2 {
            assert!(rest.failed(error(Kind::Upstream5xx), 3, now).unwrap());
            rest.succeeded(now);
            now += 2 * SECOND;
        }
        assert!(rest.failed(error(Kind::Upstream5xx), 3, now).is_err());
    }

    #[test]
    fn what_was_told_is_obeyed() {
        let (mut rest, now) = (Rest::default(), Instant::now());
        let refused = error(Kind::UpstreamRateLimited).retry_after(40 * SECOND);
        assert!(rest.failed(refused, 5, now).unwrap());
        let end = now + 40 * SECOND;
        assert_eq!(rest.until(now), Some((end, Kind::UpstreamRateLimited)));
        // Seven more of the same moment, of which one knows better.
        let later = now + SECOND;
        for _ in 0..6 {
            assert!(
                !rest
                    .failed(error(Kind::UpstreamRateLimited), 5, later)
                    .unwrap()
            );
        }
        let longer = error(Kind::UpstreamRateLimited).retry_after(50 * SECOND);
        assert!(!rest.failed(longer, 5, later).unwrap());
        assert_eq!(rest.until(later).unwrap().0, later + 50 * SECOND);
    }

    #[test]
    fn what_will_not_pass_ends_it_at_once() {
        for kind in Kind::ALL {
            let failed = Rest::default().failed(error(*kind), 5, Instant::now());
            let ends = !kind.retryable()
                || matches!(
                    kind,
                    Kind::CallerThrottled
                        | Kind::UpstreamAuthRejected
                        | Kind::MergeInProgress
                        | Kind::MergeDrifting
                        | Kind::MergeBusy
                        | Kind::Overloaded
                        | Kind::Draining
                );
            assert_eq!(failed.is_err(), ends, "{kind:?}");
        }
    }
}
