//! How an answer came about: one enum, whose words stand in the log, in the metrics and in `Cache-Status`.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::{self, Instant};

use crate::{
    contacts::{
        cache::{
            encoding::Encoded,
            entry::{Cached, Entry},
        },
        request::Coding,
    },
    error::Kind,
};

/// How an answer came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Served {
    /// From a fresh copy.
    Hit,
    /// Cut out of a fresh, verified list.
    Slice,
    /// From a copy that is no longer fresh, while it is fetched anew; with what that last failed with.
    Stale(Option<Kind>),
    /// From a copy that the caller would not have, because it was fetched anew a moment ago or often enough.
    Floor,
    /// This request's own flight fetched it.
    Fetched(Forward),
    /// Another request's flight was already on its way.
    Joined(Forward),
}

/// Why the cache had to ask upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// No copy was held.
    Miss,
    /// The copy held was no longer fresh.
    Stale,
    /// The copy held was fresh, and the request would not have it.
    Request,
}

impl Served {
    /// Every way there is, for metrics that are present from the start.
    pub const ALL: [Self; 10] = [
        Self::Hit,
        Self::Slice,
        Self::Stale(None),
        Self::Fetched(Forward::Miss),
        Self::Fetched(Forward::Stale),
        Self::Joined(Forward::Miss),
        Self::Joined(Forward::Stale),
        Self::Floor,
        Self::Fetched(Forward::Request),
        Self::Joined(Forward::Request),
    ];

    /// The word for it in logs and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Slice => "slice",
            Self::Stale(_) => "stale",
            Self::Fetched(Forward::Miss) => "miss",
            Self::Fetched(Forward::Stale) => "expired",
            Self::Joined(Forward::Miss) => "miss_joined",
            Self::Joined(Forward::Stale) => "expired_joined",
            Self::Floor => "floor",
            Self::Fetched(Forward::Request) => "forced",
            Self::Joined(Forward::Request) => "forced_joined",
        }
    }

    /// Whether a copy was the answer, and nobody had to be waited for.
    pub const fn is_from_a_copy(self) -> bool {
        match self {
            Self::Hit | Self::Slice | Self::Stale(_) | Self::Floor => true,
            Self::Fetched(_) | Self::Joined(_) => false,
        }
    }

    /// Its place in [`Served::ALL`].
    pub const fn index(self) -> usize {
        match self {
            Self::Hit => 0,
            Self::Slice => 1,
            Self::Stale(_) => 2,
            Self::Fetched(Forward::Miss) => 3,
            Self::Fetched(Forward::Stale) => 4,
            Self::Joined(Forward::Miss) => 5,
            Self::Joined(Forward::Stale) => 6,
            Self::Floor => 7,
            Self::Fetched(Forward::Request) => 8,
            Self::Joined(Forward::Request) => 9,
        }
    }
}

impl Forward {
    /// The value of `fwd` in `Cache-Status` (RFC 9211, section 2.2).
    pub const fn word(self) -> &'static str {
        match self {
            Self::Miss => "uri-miss",
            Self::Stale => "stale",
            Self::Request => "request",
        }
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A copy, with how it came about and how old it was at that moment.
#[derive(Debug)]
pub struct Answer<V> {
    pub copy: Arc<Entry<V>>,
    pub served: Served,
    /// Since upstream was asked for it; of a list's oldest page.
    pub age: Duration,
    /// In seconds, how long it is still fresh; negative: since when it is not.
    pub ttl: i64,
    /// How the caller would have the content.
    pub coding: Coding,
    /// Its encoding is being made, and the caller waits for it until then.
    pub encoded_by: Option<Instant>,
}

impl<V: Cached> Answer<V> {
    pub fn new(copy: Arc<Entry<V>>, served: Served, now: Instant) -> Self {
        Self {
            age: copy.age(now),
            ttl: copy.ttl(now),
            copy,
            served,
            coding: Coding::Identity,
            encoded_by: None,
        }
    }

    /// The same, once the encoding is there that the caller waits for. Who waits no longer has the content as it is.
    pub async fn complete(mut self) -> Self {
        if let Some(deadline) = self.encoded_by.take() {
            let _ = time::timeout_at(deadline, self.copy.encoding.ended()).await;
        }
        self
    }

    /// What is sent in place of the content itself, if it is there at this moment.
    pub fn encoded(&self) -> Option<&Encoded> {
        match self.coding {
            Coding::Identity => None,
            Coding::Gzip => self.copy.encoding.made(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_knows_its_place() {
        for (index, served) in Served::ALL.into_iter().enumerate() {
            assert_eq!(served.index(), index);
        }
    }
}
