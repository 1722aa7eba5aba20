//! Which calls a fault falls on: the next few, a share of them, or all; perhaps of one account or stream only.

use serde::Serialize;

use super::{fault::Fault, noise};

/// The most rules that hold at the same time.
pub const RULES_MAX: usize = 256;

/// Faults, and the calls that they fall on.
#[derive(Clone, Debug, Serialize)]
pub struct Rule {
    faults: Vec<Fault>,
    #[serde(flatten)]
    when: When,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    /// How many calls it fell on.
    hits: u64,
    /// How many calls it could have fallen on: what its share is drawn by.
    #[serde(skip)]
    seen: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
enum When {
    Always,
    /// How many are left.
    Next(u64),
    Share(f64),
}

/// A rule that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum RuleError {
    #[error("a share of calls is a number from 0 to 1, not {0}")]
    Share(f64),
    #[error("no more than {RULES_MAX} rules hold at the same time: clear them first")]
    TooMany,
}

impl Rule {
    /// This fault on every call, until it is cleared.
    pub fn always(fault: Fault) -> Self {
        Self {
            faults: vec![fault],
            when: When::Always,
            account: None,
            stream: None,
            hits: 0,
            seen: 0,
        }
    }

    /// One more fault on the same calls.
    #[must_use]
    pub fn and(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Only the next `calls` calls.
    #[must_use]
    pub fn next(self, calls: u64) -> Self {
        Self {
            when: When::Next(calls),
            ..self
        }
    }

    /// Only this share of the calls, 0 to 1. Which ones follows from the simulator's seed.
    pub fn share(self, share: f64) -> Result<Self, RuleError> {
        if (0.0..=1.0).contains(&share) {
            Ok(Self {
                when: When::Share(share),
                ..self
            })
        } else {
            Err(RuleError::Share(share))
        }
    }

    /// Only calls to this account.
    #[must_use]
    pub fn account(self, account_id: &str) -> Self {
        Self {
            account: Some(account_id.to_owned()),
            ..self
        }
    }

    /// Only calls to this stream.
    #[must_use]
    pub fn stream(self, stream_id: &str) -> Self {
        Self {
            stream: Some(stream_id.to_owned()),
            ..self
        }
    }

    fn falls_on(&mut self, account_id: &str, stream_id: &str, reused: bool, seed: u64) -> bool {
        let matches =
            |wanted: &Option<String>, id| wanted.as_deref().is_none_or(|wanted| wanted == id);
        if !matches(&self.account, account_id) || !matches(&self.stream, stream_id) {
            return false;
        }
        if !reused && self.faults.contains(&Fault::ResetReused) {
            return false;
        }
        self.seen += 1;
        let falls = match &mut self.when {
            When::Always => true,
            When::Next(left) => {
                let any = *left > 0;
                *left = left.saturating_sub(1);
                any
            }
            When::Share(share) => noise::fraction(noise::mix(seed) ^ self.seen) < *share,
        };
        self.hits += u64::from(falls);
        falls
    }
}

/// The rules that hold, oldest first. The first that falls on a call decides it.
#[derive(Debug)]
pub(super) struct Plan {
    seed: u64,
    /// How many rules there ever were: two shares are drawn independently.
    added: u64,
    rules: Vec<(u64, Rule)>,
}

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            added: 0,
            rules: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, rule: Rule) -> Result<(), RuleError> {
        if self.rules.len() == RULES_MAX {
            return Err(RuleError::TooMany);
        }
        self.added += 1;
        self.rules.push((noise::mix(self.seed ^ self.added), rule));
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(super) fn rules(&self) -> Vec<Rule> {
        self.rules.iter().map(|(_, rule)| rule.clone()).collect()
    }

    /// The faults of this call: none, most of the time.
    pub(super) fn faults(&mut self, account_id: &str, stream_id: &str, reused: bool) -> Vec<Fault> {
        if self.rules.is_empty() {
            return Vec::new();
        }
        let hit = self.rules.iter_mut().find_map(|(seed, rule)| {
            rule.falls_on(account_id, stream_id, reused, *seed)
                .then(|| rule.faults.clone())
        });
        self.rules
            .retain(|(_, rule)| !matches!(rule.when, When::Next(0)));
        hit.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_calls_then_no_more() {
        let mut plan = Plan::new(0);
        plan.add(Rule::always(Fault::Null).next(2)).unwrap();
        plan.add(Rule::always(Fault::Html).next(1)).unwrap();
        let seen: Vec<Vec<Fault>> = (0..4).map(|_| plan.faults("a", "s", false)).collect();
        assert_eq!(
            seen,
            [
                vec![Fault::Null],
                vec![Fault::Null],
                vec![Fault::Html],
                vec![]
            ]
        );
        assert!(
            plan.rules().is_empty(),
            "a rule that is used up makes place"
        );
    }

    #[test]
    fn only_the_calls_that_are_meant() {
        let mut plan = Plan::new(0);
        plan.add(
            Rule::always(Fault::Null)
                .account("a")
                .stream("s")
                .and(Fault::Twice),
        )
        .unwrap();
        assert_eq!(plan.faults("a", "s", false), [Fault::Null, Fault::Twice]);
        assert_eq!(plan.faults("a", "t", false), []);
        assert_eq!(plan.faults("b", "s", false), []);
        plan.clear();
        assert_eq!(plan.faults("a", "s", false), []);
    }

    #[test]
    fn a_share_is_kept_and_repeats_with_its_seed() {
        let run = |seed| {
            let mut plan = Plan::new(seed);
            plan.add(Rule::always(Fault::Null).share(0.2).unwrap())
                .unwrap();
            (0..1_000)
                .map(|_| !plan.faults("a", "s", false).is_empty())
                .collect::<Vec<bool>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let hits = run(1).into_iter().filter(|&hit| hit).count();
        assert!((160..240).contains(&hits), "{hits}");
        for share in [-0.1, 1.1, f64::NAN] {
            assert!(Rule::always(Fault::Null).share(share).is_err());
        }
    }

    #[test]
    fn rules_are_bounded() {
        let mut plan = Plan::new(0);
        for _ in 0..RULES_MAX {
            plan.add(Rule::always(Fault::Null)).unwrap();
        }
        assert_eq!(plan.add(Rule::always(Fault::Null)), Err(RuleError::TooMany));
    }
}
