//! Why an answer would be what it is: for operators who ask, without asking upstream.

use std::time::Duration;

use tokio::time::Instant;

use super::entry::{Cached, Entry, Freshness};
use crate::error::Kind;

/// What would become of a request.
#[derive(Clone, Debug)]
pub struct Explanation {
    pub outcome: Outcome,
    pub copy: Option<HeldCopy>,
    /// What the key rests from, and for how long.
    pub rest: Option<(Kind, Duration)>,
    /// What it failed with last, resting or not.
    pub last_failure: Option<Kind>,
    /// A flight is on its way.
    pub in_flight: bool,
}

/// The copy that is held.
#[derive(Clone, Debug)]
pub struct HeldCopy {
    pub freshness: Freshness,
    pub age: Duration,
    /// In seconds, as in `Cache-Status`.
    pub ttl: i64,
    /// What memory it weighs, in bytes.
    pub weight: usize,
}

impl HeldCopy {
    pub fn of<V: Cached>(copy: &Entry<V>, now: Instant) -> Self {
        Self {
            freshness: copy.freshness(now),
            age: copy.age(now),
            ttl: copy.ttl(now),
            weight: copy.weight(),
        }
    }
}

/// Writes the enum, its texts and its list from one table.
macro_rules! outcomes {
    ($($outcome:ident $code:literal $text:literal;)+) => {
        /// Each way a request can go.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Outcome {
            $(#[doc = $text] $outcome,)+
        }

        impl Outcome {
            pub const ALL: &[Self] = &[$(Self::$outcome,)+];

            /// The stable word for it.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$outcome => $code,)+ }
            }

            /// The same for people.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$outcome => $text,)+ }
            }
        }
    };
}

outcomes! {
    Slice        "slice"          "cut out of the fresh, verified list that is held: no call";
    Hit          "hit"            "the fresh copy: no call";
    Stale        "stale"          "the stale copy at once, and one call in the background unless it rests";
    Miss         "miss"           "no copy is held: one call";
    Expired      "expired"        "the copy held may not be answered any more, or the request will not have a stale one: one call";
    Forced       "forced"         "the copy is fresh, but the request will not have it: one call, if the account has one of these left in this minute";
    RefreshFloor "refresh_floor"  "the copy is fresh and young, so that it is the answer although the request will not have it: no call";
    Joined       "joined"         "another request's call is on its way, and is waited for";
    Resting      "resting"        "the last call failed a moment ago, and its error is the answer: no call";
    OnlyIfCached "only_if_cached" "no copy will do, and the request wants nothing else: 504, no call";
}

impl Freshness {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
        }
    }
}
