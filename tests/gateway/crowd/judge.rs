//! What callers of a crowd ask, and whether each answer is what its caller is due.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    time::Duration,
};

use contacts_gateway::simulator::{AccountSettings, Contacts};
use http_body_util::BodyExt;
use tokio::time;

use super::plan::{Asked, Dice, Due, History, STREAMS, key};
use crate::support::{Answer, Gateway, list, page, path};

/// Contacts of each collection.
pub(super) const CONTACTS: u64 = 30;

/// What callers got.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) unauthorized: Cell<u64>,
    pub(super) forbidden: Cell<u64>,
    pub(super) failed: Cell<u64>,
    pub(super) right: Cell<u64>,
    /// Lines that ended in an error.
    pub(super) broken: Cell<u64>,
    pub(super) left: Cell<u64>,
    pub(super) rotated: Cell<u64>,
    pub(super) reloaded: Cell<u64>,
    /// Reloads that were refused.
    pub(super) refused: Cell<u64>,
}

pub(super) fn count(what: &Cell<u64>) {
    what.set(what.get() + 1);
}

/// How a collection is asked for.
#[derive(Clone, Copy, Debug)]
enum Form {
    Page(&'static str, u64, u64),
    List,
    Lines(&'static str),
}

const FORMS: [Form; 6] = [
    Form::Page("", 0, 10),
    Form::Page("?skip=10", 10, 10),
    Form::Page("?skip=20&limit=7", 20, 7),
    Form::List,
    Form::Lines("?all=true"),
    Form::Lines("?all=true&progress=true"),
];

impl Form {
    const fn query(self) -> &'static str {
        match self {
            Self::Page(query, ..) | Self::Lines(query) => query,
            Self::List => "?all=true",
        }
    }

    /// Every byte of its answer; of lines, those of the contacts.
    fn answer(self, account: &str, stream: &str) -> String {
        match self {
            Self::Page(_, skip, limit) => page(account, stream, CONTACTS, skip, limit),
            Self::List => list(account, stream, CONTACTS),
            Self::Lines(_) => {
                let contacts = Contacts::new(account, stream);
                let mut lines = Vec::new();
                for index in 0..CONTACTS {
                    contacts.write(index, &mut lines);
                    lines.push(b'\n');
                }
                String::from_utf8(lines).unwrap()
            }
        }
    }
}

/// The callers, and what their answers are judged by.
pub(super) struct Crowd<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) accounts: &'a [AccountSettings],
    pub(super) history: &'a History,
    pub(super) seen: &'a Seen,
    /// A refusal of each status, as everybody must have it.
    pub(super) refusals: RefCell<HashMap<u16, String>>,
}

impl Crowd<'_> {
    /// One request of a caller, and whether its answer is what it may have: by the configuration when it began, or by one
    /// that came before it ended.
    pub(super) async fn ask(&self, caller: usize, dice: &mut Dice) {
        let began = self.history.now();
        let asked = Asked {
            caller,
            key: began.plan.shown(caller, dice),
            account: began.plan.wanted(caller, dice),
            stream: dice.below(STREAMS),
        };
        let form = FORMS[dice.below(FORMS.len())];
        let (id, stream) = (
            &*self.accounts[asked.account].account_id,
            format!("st-{}", asked.stream),
        );
        let mut request = self
            .gateway
            .request(&path(&stream, form.query()))
            .header("auth", key(caller, asked.key))
            .header("accountId", id)
            .header("cache-control", ["max-age=60", "no-cache"][dice.below(2)]);
        if let Form::Lines(_) = form {
            request = request.header("accept", "application/x-ndjson");
        }
        let patience =
            Duration::from_millis([5, 30, 60_000, 60_000, 60_000, 60_000][dice.below(6)]);
        let Ok((answer, whole)) = time::timeout(patience, read(self.gateway, request)).await else {
            return count(&self.seen.left);
        };
        let due: Vec<_> = began.since().map(|plan| plan.due(&asked)).collect();
        let what = format!("caller-{caller} {id} {stream} {form:?}, due {due:?}");
        let got = match answer.status {
            401 => Due::Unauthorized,
            403 => Due::Forbidden,
            200 | 500.. => Due::Contacts,
            _ => panic!("{what}: {}", answer.text()),
        };
        assert!(due.contains(&got), "{what}: {}", answer.text());
        match (got, answer.status, form) {
            (_, 200, Form::Lines(_)) => {
                self.judge_lines(&answer, whole, &form.answer(id, &stream), &what)
            }
            (_, 200, _) => {
                assert!(whole, "{what}");
                assert_eq!(answer.text(), form.answer(id, &stream), "{what}");
                count(&self.seen.right);
            }
            (Due::Contacts, ..) => {
                self.tells_nothing(&answer, &what);
                count(&self.seen.failed);
            }
            (Due::Unauthorized, ..) => {
                self.judge_refusal(&answer, "unauthorized", &self.seen.unauthorized)
            }
            (Due::Forbidden, ..) => self.judge_refusal(&answer, "forbidden", &self.seen.forbidden),
        }
    }

    /// The contacts' lines are those of the list; all of them before the last line says so, else as many as there are.
    fn judge_lines(&self, answer: &Answer, whole: bool, expected: &str, what: &str) {
        let lines = answer.text().split_inclusive('\n');
        let lines = lines.filter(|line| !line.starts_with("{\"$progress\":"));
        let mut lines: Vec<_> = lines.collect();
        let last = lines.pop().unwrap_or_default();
        let contacts = lines.concat();
        if whole {
            assert!(last.starts_with("{\"$end\":"), "{what}: {last}");
            assert_eq!(contacts, expected, "{what}");
            count(&self.seen.right);
        } else {
            assert!(last.starts_with("{\"$error\":"), "{what}: {last}");
            assert!(expected.starts_with(&contacts), "{what}: {contacts}");
            self.tells_no_account(last, what);
            count(&self.seen.broken);
        }
    }

    /// A refusal is the same whoever is refused, and whatever exists.
    fn judge_refusal(&self, answer: &Answer, code: &str, counted: &Cell<u64>) {
        answer.is_problem(answer.status, code);
        self.tells_nothing(answer, code);
        let text = answer.text().replace(answer.header("x-request-id"), "ID");
        let mut refusals = self.refusals.borrow_mut();
        let same = refusals
            .entry(answer.status)
            .or_insert_with(|| text.clone());
        assert_eq!(text, *same);
        count(counted);
    }

    /// Each record has its account's id in it.
    fn tells_nothing(&self, answer: &Answer, what: &str) {
        self.tells_no_account(answer.text(), what);
        for value in answer.headers.values() {
            self.tells_no_account(value.to_str().unwrap(), what);
        }
    }

    fn tells_no_account(&self, text: &str, what: &str) {
        for account in self.accounts {
            assert!(!text.contains(&account.account_id), "{what}: {text}");
        }
    }
}

/// An answer, and whether its body came to its end.
async fn read(gateway: &Gateway, request: http::request::Builder) -> (Answer, bool) {
    let (head, mut body) = gateway.open(request, false).await.into_parts();
    let (mut bytes, mut whole) = (Vec::new(), true);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => bytes.extend(frame.into_data().unwrap_or_default()),
            Err(_) => {
                whole = false;
                break;
            }
        }
    }
    let answer = Answer {
        status: head.status.as_u16(),
        version: head.version,
        headers: head.headers,
        body: bytes.into(),
    };
    (answer, whole)
}
