//! A transfer's bytes become lines, and a line becomes a contact or a record of the gateway's own.
//!
//! A contact is passed on as it is. A record of the gateway's own is an object with a single key that begins with `$`;
//! no contact is taken for one, since a contact has an `id`.

use std::fmt;

use bytes::{Buf, BytesMut};
use indexmap::IndexMap;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

/// The longest line, in bytes. A contact cannot be longer than the page that it stands on, and upstream's pages have 8 MiB
/// at most by default.
pub(super) const LINE_BYTES_MAX: usize = 16 << 20;

/// Cuts bytes into lines. Holds the unfinished one alone.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: BytesMut,
    /// So many of them are known to hold no line's end.
    seen: usize,
}

/// A line has more bytes than are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

impl Lines {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
    }

    /// The next whole line, without its end.
    pub(super) fn next(&mut self) -> Result<Option<BytesMut>, TooLong> {
        let end = self.rest[self.seen..]
            .iter()
            .position(|byte| *byte == b'\n');
        let Some(end) = end.map(|end| end + self.seen) else {
            self.seen = self.rest.len();
            return self.short(self.seen).map(|()| None);
        };
        self.short(end)?;
        self.seen = 0;
        let line = self.rest.split_to(end);
        self.rest.advance(1);
        Ok(Some(line))
    }

    /// What came after the last line's end: a last line that has none.
    pub(super) fn rest(self) -> BytesMut {
        self.rest
    }

    fn short(&self, bytes: usize) -> Result<(), TooLong> {
        if bytes > LINE_BYTES_MAX {
            return Err(TooLong);
        }
        Ok(())
    }
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Contact,
    Progress(Progress),
    End(End),
    Error(Problem),
}

/// How far the gateway is. What it does not know, it does not say.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Progress {
    pub pages_done: Option<u64>,
    pub pages_needed: Option<u64>,
    /// In seconds.
    pub estimate_s: Option<u64>,
    /// How long the gateway waits for the account's budget, in seconds.
    pub budget_wait_s: Option<u64>,
}

/// The list is whole.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
pub(super) struct End {
    pub verdict: Verdict,
    #[serde(default)]
    pub checks: Option<String>,
    pub records: u64,
    #[serde(default)]
    pub pages: Option<u64>,
    #[serde(default)]
    pub calls: Option<u64>,
    /// The age of the oldest page, in seconds.
    #[serde(default)]
    pub oldest_s: Option<u64>,
    /// What upstream says less what it sent, in contacts; told of a settled list.
    #[serde(default)]
    pub gap: Option<i64>,
}

/// What the gateway vouches for. One that is not known here is no end.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Verified,
    Consistent,
    Settled,
    Drifting,
}

impl Verdict {
    pub(super) const ALL: [Self; 4] = [
        Self::Verified,
        Self::Consistent,
        Self::Settled,
        Self::Drifting,
    ];

    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Verified => "verified",
            Self::Consistent => "consistent",
            Self::Settled => "settled",
            Self::Drifting => "drifting",
        }
    }

    /// What the command exits with, once the list is written. 1 and 2 are failures, of which nothing is written.
    pub(super) const fn exit_code(self) -> u8 {
        match self {
            Self::Verified => 0,
            Self::Consistent => 3,
            Self::Settled => 4,
            Self::Drifting => 5,
        }
    }

    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Verified => "no contact that was there throughout is missing, none is twice",
            Self::Consistent => {
                "as many as upstream says, none twice; its pages cannot overlap, so no seam was compared"
            }
            Self::Settled => "read twice with the same outcome, but not as many as upstream says",
            Self::Drifting => {
                "the list kept changing while it was read (only with --accept lenient)"
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A problem document, as far as it is looked at.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Problem {
    pub code: String,
    pub detail: String,
    pub retryable: bool,
    #[serde(flatten)]
    pub progress: Progress,
}

/// The only member of a contact that is looked for. Of the others, each is well-formed.
#[derive(Deserialize)]
struct Contact {
    #[serde(rename = "id")]
    _id: IgnoredAny,
}

impl Line {
    /// `None` for what is neither a contact nor known here.
    pub(super) fn read(line: &str) -> Option<Self> {
        if line.starts_with("{\"$") {
            let members: IndexMap<&str, &RawValue> = serde_json::from_str(line).unwrap_or_default();
            if members.len() == 1 {
                let (key, value) = members.first()?;
                return Self::own(key, value.get());
            }
        }
        // An array of one would be read as a contact, too.
        let contact = line.starts_with('{').then(|| serde_json::from_str(line));
        contact?.ok().map(|Contact { .. }| Self::Contact)
    }

    fn own(key: &str, value: &str) -> Option<Self> {
        match key {
            // What cannot be read of it is not shown; the contacts are as good.
            "$progress" => serde_json::from_str(value)
                .or(Ok::<_, ()>(Progress::default()))
                .map(Self::Progress)
                .ok(),
            "$end" => serde_json::from_str(value).ok().map(Self::End),
            "$error" => {
                let problem = serde_json::from_str(value);
                Some(Self::Error(problem.unwrap_or_default()))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_is_a_contact_or_one_of_ours() {
        let end = r#"{"$end":{"verdict":"verified","checks":"seam","pages":101,"records":10000,"calls":102,"oldest_s":4}}"#;
        let expected = End {
            verdict: Verdict::Verified,
            checks: Some("seam".to_owned()),
            records: 10_000,
            pages: Some(101),
            calls: Some(102),
            oldest_s: Some(4),
            gap: None,
        };
        assert_eq!(Line::read(end), Some(Line::End(expected.clone())));
        let end = end
            .replace("verified\",\"checks\":\"seam", "settled")
            .replace("4}", "4,\"gap\":-3}");
        let expected = End {
            verdict: Verdict::Settled,
            checks: None,
            gap: Some(-3),
            ..expected
        };
        assert_eq!(Line::read(&end), Some(Line::End(expected)));
        let progress = r#"{"$progress":{"pages_done":12,"pages_needed":null,"records":1188,"budget_wait_s":3}}"#;
        let expected = Progress {
            pages_done: Some(12),
            budget_wait_s: Some(3),
            ..Progress::default()
        };
        assert_eq!(Line::read(progress), Some(Line::Progress(expected)));
        let error = r#"{"$error":{"status":503,"code":"merge_drifting","detail":"it moves","retryable":true,"errors":[]}}"#;
        let expected = Problem {
            code: "merge_drifting".to_owned(),
            detail: "it moves".to_owned(),
            retryable: true,
            ..Problem::default()
        };
        assert_eq!(Line::read(error), Some(Line::Error(expected)));
        for contact in [
            r#"{"id":"1"}"#,
            r#"{"$end":{"verdict":"verified","records":0},"id":"1"}"#,
            r#"{"$new":1,"id":"1"}"#,
            r#"{"a":"$end","id":"1"}"#,
        ] {
            assert_eq!(Line::read(contact), Some(Line::Contact), "{contact}");
        }
        // Broken progress is no reason to give a list up; an error is one, whatever it says.
        let odd = r#"{"$progress":{"pages_done":-1}}"#;
        let nothing = Line::Progress(Progress::default());
        assert_eq!(Line::read(odd), Some(nothing));
        let unknown = Line::Error(Problem::default());
        assert_eq!(Line::read(r#"{"$error":7}"#), Some(unknown));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for line in [
            "null",
            "[]",
            r#"["1"]"#,
            "{}",
            "<html>",
            r#"{"_id":"1"}"#,
            r#"{"id":"1","id":"2"}"#,
            r#"{"id":"1""#,
            r#"{"id":"1"} {"id":"2"}"#,
            r#"{"$new":1}"#,
            r#"{"$end":null}"#,
            r#"{"$end":{"verdict":"verified"}}"#,
            r#"{"$end":{"verdict":"excellent","records":1}}"#,
        ] {
            assert_eq!(Line::read(line), None, "{line}");
        }
    }

    #[test]
    fn a_line_has_an_end() {
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; LINE_BYTES_MAX]);
        assert_eq!(lines.next(), Ok(None));
        lines.push(b"\nx");
        assert_eq!(lines.next().unwrap().unwrap().len(), LINE_BYTES_MAX);
        assert_eq!(lines.next(), Ok(None));
        lines.push(&vec![b'x'; LINE_BYTES_MAX]);
        assert_eq!(lines.next(), Err(TooLong));
    }

    proptest! {
        /// Wherever the network cuts, the lines are the same.
        #[test]
        fn lines_are_cut_at_their_ends(
            lines in proptest::collection::vec("[a-z]{0,9}", 0..20),
            rest in "[a-z]{0,9}",
            piece in 1_usize..12,
        ) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let (mut cutter, mut found) = (Lines::default(), Vec::new());
            for bytes in format!("{text}{rest}").as_bytes().chunks(piece) {
                cutter.push(bytes);
                while let Some(line) = cutter.next().unwrap() {
                    found.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            prop_assert_eq!(found, lines);
            prop_assert_eq!(cutter.rest(), rest.as_bytes());
        }

        #[test]
        fn any_line_is_answered(line in "\\PC{0,60}") {
            let _ = Line::read(&line);
            let _ = Line::read(&format!("{{\"$end\":{line}}}"));
        }
    }
}
