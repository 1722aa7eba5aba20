//! What a reload came to, in sentences: for whoever asked for it, for the ops page and for `status`. Pure.

use super::{Applied, Status};
use crate::{edge::server::tls::Reread, upstream::token::Complaint};

/// Names in a sentence; of more, it tells how many.
const NAMED_MAX: usize = 20;

impl Status {
    /// A sentence for each kind of change and for each secret; of a refusal its problems, line by line as `check` tells
    /// them. Then one for each certificate. Neither a value nor a secret is in them.
    pub fn words(&self) -> Vec<String> {
        let mut certificates = self.certificates.iter();
        let mut words = match &self.outcome {
            Ok(applied) => sentences(applied, certificates.any(|reread| reread.outcome.is_ok())),
            Err(refused) => refused.to_string().lines().map(str::to_owned).collect(),
        };
        words.extend(self.certificates.iter().map(certificate));
        words
    }
}

fn sentences(applied: &Applied, taken: bool) -> Vec<String> {
    let Applied {
        changes,
        complaints,
    } = applied;
    let mut sentences: Vec<_> = changes
        .kinds()
        .map(|(kind, names)| format!("{}: {}.", capitalised(kind), listed(names)))
        .collect();
    if sentences.is_empty() && !taken {
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

fn certificate(reread: &Reread) -> String {
    let listener = reread.listener;
    match &reread.outcome {
        Ok(()) => format!("The {listener} listener has another certificate."),
        Err(problem) => {
            format!("The {listener} listener keeps the certificate that it had: {problem}")
        }
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
    use crate::{
        edge::server::tls,
        reload::{AccountChanges, CallerChanges, Changes, Refused, Trigger},
    };

    fn words(outcome: Result<Applied, Refused>) -> Vec<String> {
        let status = Status {
            at: SystemTime::UNIX_EPOCH,
            trigger: Trigger::Admin,
            outcome,
            certificates: Vec::new(),
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

    /// Catches a certificate that is refused and "Nothing changed.", and one that is taken and told as nothing.
    #[test]
    fn certificates_are_told_whatever_became_of_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let tls = tls::Config {
            certificate_file: folder.path().join("none"),
            ..tls::Config::default()
        };
        let problem = tls.read().unwrap_err();
        let refused = format!("The admin listener keeps the certificate that it had: {problem}");
        let taken = "The traffic listener has another certificate.";
        let reread = |listener, outcome| Reread { listener, outcome };
        let none = || Ok(applied(Changes::default()));
        for (outcome, certificates, expected) in [
            (none(), vec![reread("traffic", Ok(()))], vec![taken]),
            (
                none(),
                vec![reread("admin", Err(problem.clone()))],
                vec!["Nothing changed.", &refused],
            ),
            (
                Err(Refused::Problems("no\n1 problem".to_owned())),
                vec![reread("traffic", Ok(())), reread("admin", Err(problem))],
                vec!["no", "1 problem", taken, &refused],
            ),
        ] {
            let status = Status {
                at: SystemTime::UNIX_EPOCH,
                trigger: Trigger::Admin,
                outcome,
                certificates,
            };
            assert_eq!(status.words(), expected);
            let is_refused = status.outcome.is_err();
            let told = status.error().map(|error| error.detail().to_owned());
            assert_eq!(told, is_refused.then(|| expected.join("\n")));
        }
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
