//! The simulator's clock: the machine's, set ahead or behind, so that a gateway can be seen to meet one that differs from its own.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime},
};

use super::settings::SettingsError;

/// How far the simulator's clock may be set off, in seconds: a year.
pub const CLOCK_OFFSET_MAX: i64 = 365 * 24 * 3600;

/// What `Date` says, and what `exp` is compared with.
pub(super) struct Clock {
    /// Seconds ahead, or behind if negative.
    offset: AtomicI64,
}

impl Clock {
    pub(super) fn new(offset: i64) -> Self {
        Self {
            offset: AtomicI64::new(offset),
        }
    }

    pub(super) fn now(&self) -> SystemTime {
        let offset = self.offset();
        let by = Duration::from_secs(offset.unsigned_abs());
        let now = SystemTime::now();
        let moved = if offset < 0 {
            now.checked_sub(by)
        } else {
            now.checked_add(by)
        };
        moved.unwrap_or(now)
    }

    pub(super) fn offset(&self) -> i64 {
        self.offset.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, seconds: i64) -> Result<(), SettingsError> {
        check(seconds)?;
        self.offset.store(seconds, Ordering::Relaxed);
        Ok(())
    }
}

/// Whether the clock may be set off by so many seconds.
pub(super) fn check(seconds: i64) -> Result<(), SettingsError> {
    if (-CLOCK_OFFSET_MAX..=CLOCK_OFFSET_MAX).contains(&seconds) {
        Ok(())
    } else {
        Err(SettingsError::ClockOffset(seconds))
    }
}

/// Reads how far a clock is off: whole seconds, ahead or (with `-`) behind.
pub(crate) fn parse_clock_offset(text: &str) -> Result<i64, &'static str> {
    let accepted = "a time of whole seconds such as 90s, or -2m for a clock that is behind";
    let (sign, time) = match text.strip_prefix('-') {
        Some(time) => (-1, time),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let time = humantime::parse_duration(time).map_err(|_| accepted)?;
    let seconds = i64::try_from(time.as_secs()).map_err(|_| accepted)?;
    if time.subsec_nanos() > 0 {
        return Err(accepted);
    }
    Ok(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind_by_whole_seconds() {
        for (text, seconds) in [("90s", 90), ("+1m", 60), ("-1h 1s", -3_601), ("0s", 0)] {
            assert_eq!(parse_clock_offset(text), Ok(seconds), "{text}");
        }
        for text in ["", "-", "90", "--1s", "1500ms", "-s", "999999999999years"] {
            assert!(parse_clock_offset(text).is_err(), "{text}");
        }
    }
}
