//! What a reload came to, in sentences: for whoever asked for it, for the ops page and for `status`. Pure.

use super::{Applied, Status};
use crate::upstream::token::Complaint;

/// Names in a sentence; of more, it tells how many.
const NAMED_MAX: usize = 20;

impl Status {
    /// A sentence for each kind of change and for each secret; of a refusal its problems, line by line as `check` tells
    /// them. Neither a value nor a secret is in them.
    pub fn words(&self) -> Vec<String> {
        match &self.outcome {
            Ok(applied) => sentences(applied),
            Err(refused) => refused.to_string().lines().map(str::to_owned).collect(),
        }
    }
}

fn sentences(applied: &Applied) -> Vec<String> {
    let Applied {
        changes,
        complaints,
    } = applied;
    let mut sentences: Vec<_> = changes
        .kinds()
        .map(|(kind, names)| format!("{}: {}.", capitalised(kind), listed(names)))
        .collect();
    if sentences.is_empty() {
        sentences.push("Nothing changed.".to_owned());
    }
    sentences.extend(complaints.iter().map(complaint));
    sentences
}

fn complaint(complaint: &Complaint) -> String {
    let Complaint {
        account, problem, ..
    } = complaint;
    match complaint.is_disabled {
        true => format!("The account {account} has no usable secret, and is disabled: {problem}"),
        false => format!("The account {account} keeps the secret that it had: {problem}"),
    }
}

fn capitalised(words: &str) -> String {
    let (first, rest) = words.split_at(1);
    first.to_uppercase() + rest
}

fn listed(names: &[String]) -> String {
    let shown = &names[..names.len().min(NAMED_MAX)];
    match names.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{}, and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::reload::{AccountChanges, CallerChanges, Changes, Refused, Trigger};

    fn words(outcome: Result<Applied, Refused>) -> Vec<String> {
        let status = Status {
            at: SystemTime::UNIX_EPOCH,
            trigger: Trigger::Admin,
            outcome,
        };
        status.words()
    }

    fn applied(changes: Changes) -> Applied {
        Applied {
            changes,
            complaints: Vec::new(),
        }
    }

    /// Catches a kind of change that nobody is told of.
    #[test]
    fn every_kind_of_change_has_its_sentence() {
        let one = |name: &str| vec![name.to_owned()];
        let all = Changes {
            accounts: AccountChanges {
                added: vec!["a".to_owned(), "b".to_owned()],
                removed: one("c"),
                remapped: one("d"),
                changed: one("e"),
            },
            callers: CallerChanges {
                added: one("f"),
                removed: one("g"),
                changed: one("h"),
            },
            keys: one("budget.reserve"),
        };
        assert_eq!(
            words(Ok(applied(all))),
            [
                "Accounts added: a, b.",
                "Accounts removed: c.",
                "Accounts that are others now: d.",
                "Accounts changed: e.",
                "Callers added: f.",
                "Callers removed: g.",
                "Callers changed: h.",
                "Keys changed: budget.reserve.",
            ]
        );
        assert_eq!(words(Ok(applied(Changes::default()))), ["Nothing changed."]);
    }

    #[test]
    fn a_sentence_ends_and_the_lines_of_a_refusal_stay() {
        let names = (0..23).map(|number| format!("account-{number}"));
        let keys = Changes {
            keys: names.collect(),
            ..Changes::default()
        };
        let [sentence] = &words(Ok(applied(keys)))[..] else {
            panic!()
        };
        assert!(sentence.ends_with("account-19, and 3 more."), "{sentence}");
        let text = "gw.toml:2:9: no\n  |\n2 | x = ***\n  |     ^\n1 problem".to_owned();
        let lines = words(Err(Refused::Problems(text)));
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[3], "  |     ^");
    }

    #[test]
    fn secrets_are_told_also_where_nothing_else_changed() {
        let complaint = |account: &str, is_disabled| Complaint {
            account: account.into(),
            is_disabled,
            problem: "/none cannot be read".to_owned(),
        };
        let told = words(Ok(Applied {
            changes: Changes::default(),
            complaints: vec![complaint("new", true), complaint("old", false)],
        }));
        assert_eq!(
            told,
            [
                "Nothing changed.",
                "The account new has no usable secret, and is disabled: /none cannot be read",
                "The account old keeps the secret that it had: /none cannot be read",
            ]
        );
    }
}
