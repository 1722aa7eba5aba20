//! What travels between the stages: a caller's [`Request`] above the cache, a flight's [`Fetch`] below it.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, futures::Notified},
    time::Instant,
};

use super::{directives::Directives, spent::Spent, verdict::Handling};
use crate::traceparent::TraceContext;

/// What logs call a caller. Its clones share it.
pub type CallerName = Arc<str>;

/// What one caller asks for. The key alone decides what is looked up; the terms are never compared or hashed.
#[derive(Clone, Debug)]
pub struct Request<K> {
    pub key: K,
    pub terms: Terms,
}

/// On what terms a caller asks.
#[derive(Clone, Debug)]
pub struct Terms {
    /// Until when the caller waits. It bounds this caller's wait, never the flight.
    pub deadline: Instant,
    /// How soon upstream should be asked.
    pub class: Class,
    /// What it says about copies.
    pub directives: Directives,
    /// How it would have the content.
    pub coding: Coding,
    /// Which lists it accepts.
    pub handling: Handling,
    /// It need not wait: what it asks for is to be fetched even if nobody does.
    pub respond_async: bool,
    /// It takes what it asks for in pieces, as they come, and waits only for the first.
    pub in_pieces: bool,
    /// To whom it is counted what is read for this, where callers are known.
    pub caller: Option<CallerName>,
    /// What the logs call the request.
    pub id: RequestId,
    /// The caller's own trace.
    pub trace: Option<TraceContext>,
}

/// What one flight fetches, for however many callers wait for it.
#[derive(Clone, Debug)]
pub struct Fetch<K> {
    pub key: K,
    pub urgency: Arc<Urgency>,
    /// What the flight spends its time on.
    pub spent: Arc<Spent>,
    /// The trace of the request that began the flight.
    pub trace: Option<TraceContext>,
    /// On a connection of its own, because the one before it failed.
    pub afresh: bool,
}

impl<K> Fetch<K> {
    /// What a flight fetches that this request begins.
    pub fn of(request: Request<K>) -> Self {
        let Request { key, terms } = request;
        Self {
            key,
            urgency: Urgency::of(&terms),
            spent: Arc::default(),
            trace: terms.trace,
            afresh: false,
        }
    }
}

/// How a content is written: a content coding (RFC 9110, section 8.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coding {
    #[default]
    Identity,
    Gzip,
}

/// How soon upstream should be asked, least urgent first.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Nobody waits.
    Background,
    /// Somebody waits for a whole list.
    Bulk,
    /// Somebody waits for a page.
    Interactive,
}

impl Class {
    pub const ALL: [Self; 3] = [Self::Background, Self::Bulk, Self::Interactive];
}

/// The most that any waiter of a flight wants: the highest class and the latest deadline, and who they are. Whoever joins
/// may raise it.
///
/// A flight that needs many calls has one of its own for each of them, which wants what the flight wants.
#[derive(Debug)]
pub struct Urgency {
    wanted: Arc<Wanted>,
    /// A call was made, or somebody need not wait, so that it is worth finishing whoever still waits.
    departed: AtomicBool,
    /// Of its parts, how many have departed.
    parts_departed: AtomicUsize,
    whole: Option<Arc<Self>>,
}

#[derive(Debug)]
struct Wanted {
    most: Mutex<Most>,
    raised: Notify,
}

#[derive(Debug)]
struct Most {
    class: Class,
    deadline: Instant,
    /// Those of the waiters that are known, in the order in which they came.
    callers: Vec<CallerName>,
}

impl Urgency {
    pub fn of(terms: &Terms) -> Arc<Self> {
        Arc::new(Self {
            wanted: Arc::new(Wanted {
                most: Mutex::new(Most {
                    class: terms.class,
                    deadline: terms.deadline,
                    callers: terms.caller.iter().cloned().collect(),
                }),
                raised: Notify::new(),
            }),
            departed: AtomicBool::new(terms.respond_async),
            parts_departed: AtomicUsize::new(0),
            whole: None,
        })
    }

    /// That of one call of many.
    pub fn part(self: &Arc<Self>) -> Arc<Self> {
        Arc::new(Self {
            wanted: self.wanted.clone(),
            departed: AtomicBool::new(false),
            parts_departed: AtomicUsize::new(0),
            whole: Some(self.clone()),
        })
    }

    /// Takes another waiter's terms into account.
    pub fn raise(&self, terms: &Terms) {
        {
            let mut most = self.most();
            most.class = most.class.max(terms.class);
            most.deadline = most.deadline.max(terms.deadline);
            if let Some(caller) = &terms.caller
                && !most.callers.contains(caller)
            {
                most.callers.push(caller.clone());
            }
        }
        self.departed
            .fetch_or(terms.respond_async, Ordering::AcqRel);
        self.wanted.raised.notify_waiters();
    }

    /// Ends when somebody raises it after this was called.
    pub fn raised(&self) -> Notified<'_> {
        self.wanted.raised.notified()
    }

    /// The highest class of any waiter so far.
    pub fn class(&self) -> Class {
        self.most().class
    }

    /// The latest deadline of any waiter so far.
    pub fn deadline(&self) -> Instant {
        self.most().deadline
    }

    /// Who waits or has waited, of those who are known.
    pub fn callers(&self) -> Vec<CallerName> {
        self.most().callers.clone()
    }

    /// Whether it is for somebody like that, or for somebody unknown.
    pub fn is_for(&self, is_like_that: impl Fn(&CallerName) -> bool) -> bool {
        let callers = &self.most().callers;
        callers.is_empty() || callers.iter().any(is_like_that)
    }

    /// The first of them: who began it, unless nobody knows who that is.
    pub fn beginner(&self) -> Option<CallerName> {
        self.most().callers.first().cloned()
    }

    /// Until when a call may wait for its turn: somebody must still wait for the flight. `None` for one of many, once a
    /// first one was made, or somebody need not wait: then the flight is worth what they cost together, however long that
    /// takes.
    pub fn patience(&self) -> Option<Instant> {
        match &self.whole {
            Some(whole) if whole.has_departed() => None,
            _ => Some(self.deadline()),
        }
    }

    /// A call is about to be made: from now on it is worth finishing, and so is the flight that it is a part of.
    pub fn depart(&self) {
        let again = self.departed.swap(true, Ordering::AcqRel);
        if let Some(whole) = &self.whole {
            let parts = usize::from(!again);
            whole.parts_departed.fetch_add(parts, Ordering::AcqRel);
            whole.depart();
        }
    }

    /// Of its parts, how many have departed, each counted once.
    pub fn parts_departed(&self) -> usize {
        self.parts_departed.load(Ordering::Acquire)
    }

    /// Whether it is that of one call of many.
    pub fn is_part(&self) -> bool {
        self.whole.is_some()
    }

    /// Whether it is worth finishing.
    pub fn has_departed(&self) -> bool {
        self.departed.load(Ordering::Acquire)
    }

    fn most(&self) -> MutexGuard<'_, Most> {
        let most = self.wanted.most.lock();
        most.unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request is called in `X-Request-Id`, logs and problem documents: 1 to 64 of `[A-Za-z0-9-]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Id);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Id {
    Own(Bytes),
    /// Written out where it is told, so that it travels as two numbers.
    Ours {
        start: u32,
        count: u64,
    },
}

impl RequestId {
    pub const LENGTH_MAX: usize = 64;

    /// The caller's own, if it is well-formed.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let well_formed = (1..=Self::LENGTH_MAX).contains(&text.len())
            && text
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-');
        well_formed.then(|| Self(Id::Own(Bytes::copy_from_slice(text))))
    }

    /// One of ours: `start` tells processes apart, `count` the requests of one process, up to 2^48 of them.
    pub fn number(start: u32, count: u64) -> Self {
        Self(Id::Ours { start, count })
    }

    /// Its text.
    pub fn to_bytes(&self) -> Bytes {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let (start, count) = match &self.0 {
            Id::Own(text) => return text.clone(),
            Id::Ours { start, count } => (start, count),
        };
        let mut text = [b'-'; 8 + 1 + 12];
        for (place, byte) in text[..8].iter_mut().enumerate() {
            *byte = HEX[(start >> (28 - 4 * place)) as usize & 0xf];
        }
        for (place, byte) in text[9..].iter_mut().enumerate() {
            *byte = HEX[(count >> (44 - 4 * place)) as usize & 0xf];
        }
        Bytes::copy_from_slice(&text)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both constructors admit ASCII alone.
        f.write_str(str::from_utf8(&self.to_bytes()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::contacts::testing;

    #[test]
    fn a_joiner_raises_but_never_lowers() {
        let now = Instant::now();
        let terms = |class, seconds| Terms {
            deadline: now + Duration::from_secs(seconds),
            class,
            ..testing::request(()).terms
        };
        let urgency = Urgency::of(&terms(Class::Bulk, 10));
        urgency.raise(&terms(Class::Background, 20));
        assert_eq!(urgency.class(), Class::Bulk);
        urgency.raise(&terms(Class::Interactive, 5));
        assert_eq!(urgency.class(), Class::Interactive);
        assert_eq!(urgency.deadline(), now + Duration::from_secs(20));
    }

    #[test]
    fn one_call_of_many_is_as_urgent_as_the_whole_and_departs_alone() {
        let now = Instant::now();
        let terms = |class| Terms {
            deadline: now,
            class,
            ..testing::request(()).terms
        };
        let whole = Urgency::of(&terms(Class::Background));
        let (one, other) = (whole.part(), whole.part());
        assert_eq!(one.patience(), Some(now));
        whole.raise(&terms(Class::Bulk));
        assert_eq!(one.class(), Class::Bulk);
        one.depart();
        one.depart();
        assert!(one.has_departed() && whole.has_departed() && !other.has_departed());
        assert_eq!(whole.parts_departed(), 1);
        assert_eq!((one.patience(), other.patience()), (None, None));
        // A flight of one call is worth no more than somebody waits for it.
        assert_eq!(whole.patience(), Some(now));
    }

    #[test]
    fn request_ids() {
        for good in ["a", "A-1", &"x".repeat(64)] {
            assert_eq!(RequestId::parse(good.as_bytes()).unwrap().to_string(), good);
        }
        for bad in ["", "a b", "a\"", "é", "a\n", &"x".repeat(65)] {
            assert_eq!(RequestId::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(
            RequestId::number(0xdead_beef, 0x1_0000_000a).to_string(),
            "deadbeef-00010000000a"
        );
    }
}
