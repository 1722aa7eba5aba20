//! How far an export is, in words for people and as JSON for programs. Pure.

use std::time::Duration;

use humantime::format_duration;
use indicatif::HumanCount;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::export::line::{End, Progress};

/// What the command is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No answer yet.
    Asking,
    /// Refused for now, and until when.
    Waiting { code: String, until: Instant },
    /// Contacts come, since when.
    Reading { since: Instant },
    /// All are here, and are written to their place.
    Writing,
}

/// How far it is.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) begun: Instant,
    pub(super) phase: Phase,
    pub(super) progress: Progress,
    pub(super) records: u64,
    pub(super) bytes: u64,
    /// Known where the gateway has the list at hand.
    pub(super) bytes_total: Option<u64>,
}

impl State {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            phase: Phase::Asking,
            progress: Progress::default(),
            records: 0,
            bytes: 0,
            bytes_total: None,
        }
    }

    /// So much is done, of so much.
    pub(super) fn share(&self) -> Option<(u64, u64)> {
        let Progress {
            pages_done,
            pages_needed,
            ..
        } = self.progress;
        let bytes = self.bytes_total.map(|total| (self.bytes, total));
        pages_done
            .zip(pages_needed)
            .or(bytes)
            .filter(|(_, of)| *of > 0)
    }

    /// Contacts in a second, since the first could come.
    fn rate(&self, now: Instant) -> Option<u64> {
        let Phase::Reading { since } = self.phase else {
            return None;
        };
        let millis = now.saturating_duration_since(since).as_millis();
        // The first moment tells nothing.
        let millis = u64::try_from(millis)
            .ok()
            .filter(|millis| *millis >= 1_000)?;
        Some(self.records.saturating_mul(1_000) / millis)
    }

    /// For a program.
    pub(super) fn event(&self, now: Instant) -> Value {
        let (event, code, wait) = match &self.phase {
            Phase::Asking => ("asking", None, None),
            Phase::Waiting { code, until } => ("waiting", Some(code), Some(*until - now)),
            Phase::Reading { .. } => ("reading", None, None),
            Phase::Writing => ("writing", None, None),
        };
        known(json!({
            "event": event,
            "code": code,
            "ask_again_s": wait.map(|wait| wait.as_secs()),
            "pages_done": self.progress.pages_done,
            "pages_needed": self.progress.pages_needed,
            "records": self.records,
            "records_per_s": self.rate(now),
            "estimate_s": self.progress.estimate_s,
            "budget_wait_s": self.progress.budget_wait_s,
            "elapsed_s": (now - self.begun).as_secs(),
        }))
    }

    /// For people.
    pub(super) fn sentence(&self, now: Instant) -> String {
        let of = |done: u64| match self.progress.pages_needed {
            Some(needed) => format!("{} of {} pages", HumanCount(done), HumanCount(needed)),
            None => format!("{} pages", HumanCount(done)),
        };
        let seconds = |seconds: u64| format_duration(Duration::from_secs(seconds));
        let mut said = Vec::new();
        match &self.phase {
            Phase::Asking => said.push("asking the gateway".to_owned()),
            Phase::Waiting { code, until } => {
                let wait = until.saturating_duration_since(now).as_secs_f64().ceil();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "whole seconds of a wait that is bounded"
                )]
                let wait = seconds(wait as u64);
                said.push(format!("{code}: asking again in {wait}"));
                said.extend(self.progress.pages_done.map(of));
            }
            Phase::Reading { .. } => {
                said.extend(self.progress.pages_done.map(of));
                said.push(format!("{} contacts", HumanCount(self.records)));
                let rate = self
                    .rate(now)
                    .map(|rate| format!("{} a second", HumanCount(rate)));
                said.extend(rate);
            }
            Phase::Writing => said.push(format!("writing {} contacts", HumanCount(self.records))),
        }
        if self.phase != Phase::Writing {
            let left = self
                .progress
                .estimate_s
                .map(|left| format!("about {} left", seconds(left)));
            said.extend(left);
            let budget = self.progress.budget_wait_s.filter(|wait| *wait > 0);
            let budget =
                budget.map(|wait| format!("{} until the next call is allowed", seconds(wait)));
            said.extend(budget);
        }
        said.join(", ")
    }
}

/// An event without what is not known.
fn known(mut event: Value) -> Value {
    if let Value::Object(members) = &mut event {
        members.retain(|_, value| !value.is_null());
    }
    event
}

/// For a program: the list is in its place.
pub(super) fn closing_event(end: &End, took: Duration) -> Value {
    known(json!({
        "event": "end",
        "verdict": end.verdict.word(),
        "checks": end.checks,
        "gap": end.gap,
        "records": end.records,
        "pages": end.pages,
        "calls": end.calls,
        "oldest_s": end.oldest_s,
        "elapsed_s": took.as_secs(),
    }))
}

/// For people: the list is in its place, and how far it can be trusted.
pub(super) fn closing_sentence(end: &End, output: &str, took: Duration) -> String {
    let remark = match (&end.checks, end.gap) {
        (_, Some(gap)) if gap != 0 => {
            let which = if gap > 0 { "more" } else { "fewer" };
            let gap = HumanCount(gap.unsigned_abs());
            format!(" (upstream says {gap} {which})")
        }
        (Some(checks), _) => format!(" ({checks})"),
        (None, _) => String::new(),
    };
    format!(
        "{} contacts, {}{remark}, in {}: {output}",
        HumanCount(end.records),
        end.verdict,
        format_duration(Duration::from_secs(took.as_secs())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(phase: Phase, begun: Instant) -> State {
        State {
            begun,
            phase,
            progress: Progress {
                pages_done: Some(12),
                pages_needed: Some(101),
                estimate_s: Some(97),
                budget_wait_s: Some(0),
            },
            records: 1_188,
            bytes: 5,
            bytes_total: Some(10),
        }
    }

    #[test]
    fn what_is_known_is_said() {
        let begun = Instant::now();
        let now = begun + Duration::from_secs(24);
        let mut reading = state(Phase::Reading { since: begun }, begun);
        assert_eq!(
            reading.sentence(now),
            "12 of 101 pages, 1,188 contacts, 49 a second, about 1m 37s left"
        );
        assert_eq!(reading.share(), Some((12, 101)));
        assert_eq!(
            reading.event(now),
            json!({"event": "reading", "pages_done": 12, "pages_needed": 101, "records": 1188, "records_per_s": 49,
                "estimate_s": 97, "budget_wait_s": 0, "elapsed_s": 24})
        );
        reading.progress.budget_wait_s = Some(9);
        assert!(
            reading
                .sentence(now)
                .ends_with("left, 9s until the next call is allowed")
        );
        reading.progress = Progress::default();
        assert_eq!(reading.sentence(begun), "1,188 contacts");
        assert_eq!(reading.share(), Some((5, 10)));
        let phase = Phase::Waiting {
            code: "merge_in_progress".to_owned(),
            until: now + Duration::from_millis(4_200),
        };
        let waiting = state(phase, begun);
        assert_eq!(
            waiting.sentence(now),
            "merge_in_progress: asking again in 5s, 12 of 101 pages, about 1m 37s left"
        );
        assert_eq!(waiting.event(now)["ask_again_s"], 4);
        assert_eq!(waiting.event(now)["code"], "merge_in_progress");
        assert_eq!(
            state(Phase::Writing, begun).sentence(now),
            "writing 1,188 contacts"
        );
    }

    /// Catches a list that is off upstream's total, and nobody is told by how much.
    #[test]
    fn the_last_words_say_how_far_a_list_can_be_trusted() {
        let took = Duration::from_millis(61_500);
        let end = |told: &str| {
            let end = format!(r#"{{"verdict":{told},"records":1188}}"#);
            serde_json::from_str::<End>(&end).unwrap()
        };
        for (told, expected) in [
            (r#""verified","checks":"seam""#, "verified (seam)"),
            (r#""consistent""#, "consistent"),
            (
                r#""settled","gap":2000"#,
                "settled (upstream says 2,000 more)",
            ),
            (r#""settled","gap":-3"#, "settled (upstream says 3 fewer)"),
            // As an older gateway says it.
            (r#""settled""#, "settled"),
        ] {
            let sentence = closing_sentence(&end(told), "a.csv", took);
            assert_eq!(
                sentence,
                format!("1,188 contacts, {expected}, in 1m 1s: a.csv")
            );
        }
        assert_eq!(
            closing_event(&end(r#""settled","gap":-3"#), took),
            json!({"event": "end", "verdict": "settled", "gap": -3, "records": 1188, "elapsed_s": 61})
        );
    }
}
