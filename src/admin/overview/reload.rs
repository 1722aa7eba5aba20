//! The last reload, as the document has it.

use std::time::SystemTime;

use super::document::{Few, Reload};
use crate::reload::Status;

/// Lines that are shown. What is wrong has three each; `check` tells all of it.
const LINES_MAX: usize = 30;

impl Reload {
    pub(in crate::admin) fn of(last: &Status, now: SystemTime) -> Self {
        let mut words = last.words();
        let total = words.len();
        words.truncate(LINES_MAX);
        Self {
            // A clock that was set back makes it just now.
            ago_s: now
                .duration_since(last.at)
                .unwrap_or_default()
                .as_secs_f64(),
            trigger: last.trigger.word().to_owned(),
            applied: last.outcome.is_ok(),
            words: Few {
                total,
                shown: words,
            },
        }
    }

    /// `applied` or `refused`.
    pub fn word(&self) -> &'static str {
        if self.applied { "applied" } else { "refused" }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::reload::{Refused, Trigger};

    /// Catches a document that grows with a file's problems, and one that hides how many there are.
    #[test]
    fn of_many_lines_the_first_are_shown() {
        let lines: Vec<_> = (0..90).map(|line| format!("line {line}")).collect();
        let refused = Status {
            at: SystemTime::UNIX_EPOCH + Duration::from_secs(100),
            trigger: Trigger::Signal,
            outcome: Err(Refused::Problems(lines.join("\n"))),
            certificates: Vec::new(),
        };
        let at = |seconds| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            Reload::of(&refused, now)
        };
        let shown = at(160);
        assert_eq!((shown.ago_s, shown.word()), (60.0, "refused"));
        let Few { total, shown } = shown.words;
        assert_eq!((total, shown.len()), (90, LINES_MAX));
        assert_eq!(shown[LINES_MAX - 1], "line 29");
        assert_eq!(at(10).ago_s, 0.0);
    }
}
