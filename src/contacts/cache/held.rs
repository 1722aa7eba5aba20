//! What a cache holds, for the stage that answers from it and for operators who ask about it or make it go.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Key,
    decision::{Decision, decide},
    entry::{Cached, Entry},
    explanation::{Explanation, HeldCopy, Outcome},
    flight::Board,
    rest::Resting,
    store::{Store, is_unreachable},
    unkept::Unkept,
};
use crate::{
    contacts::{collection::Collection, request::Request, verdict::Handling},
    served::Forward,
};

/// What a cache holds: copies, flights on their way, and failures that are remembered.
pub struct Held<T: Store> {
    pub(super) store: Arc<T>,
    pub(super) flights: Board<T::Key, T::Value>,
    pub(super) resting: Resting<T::Key>,
    pub(super) unkept: Unkept<T::Key>,
}

impl<T: Store> Held<T> {
    pub fn new(store: Arc<T>) -> Self {
        Self {
            store,
            flights: Board::default(),
            resting: Resting::default(),
            unkept: Unkept::default(),
        }
    }

    /// Makes room for blocks of so many bytes that are to lie beside a copy; whether there is. What was purged meanwhile
    /// does not come back.
    pub fn grow(&self, key: &T::Key, copy: &Arc<Entry<T::Value>>, blocks: usize) -> bool {
        self.store.grow(key, copy, blocks)
    }

    /// Forgets what is of no use any more, and about which nobody has asked since.
    pub fn sweep(&self, now: Instant) {
        self.store.sweep(now);
        self.resting.retain(|key| !is_unreachable(key));
        self.unkept.retain(|key| !is_unreachable(key));
    }

    /// Gives up one key's copy, and what its flight will bring.
    pub fn purge(&self, key: &T::Key) {
        // In this order: what lands in between is removed, and what lands after it is disowned.
        self.flights.disown(key);
        self.store.remove(key);
        self.resting.succeeded(key);
    }

    /// Makes one key's copy stale, and what its flight will bring.
    pub fn outdate(&self, key: &T::Key, now: Instant) {
        self.flights.outdate(key);
        if let Some(copy) = self.store.peek(key) {
            copy.outdate(now);
        }
    }

    /// Whether a copy can still be found.
    pub fn holds(&self, key: &T::Key) -> bool {
        self.store.peek(key).is_some_and(|copy| copy.is_current())
    }

    /// How many copies are about such a collection and can still be found. Looks at all of them.
    pub fn count(&self, about: impl Fn(&Collection) -> bool) -> usize {
        let mut count = 0;
        self.store.each(|key, copy| {
            count += usize::from(copy.is_current() && about(key.collection()));
        });
        count
    }

    /// What would become of a request now, without anything coming of it.
    pub fn explain(&self, request: &Request<T::Key>, now: Instant) -> Explanation {
        let copy = self.store.peek(&request.key);
        let standing = copy.as_ref().map(|copy| copy.standing(now));
        let rest = self.resting.of(&request.key, now);
        let in_flight = self.flights.has(&request.key);
        let outcome = match decide(standing.as_ref(), &request.terms.directives) {
            Decision::Serve if copy.as_ref().is_some_and(|copy| copy.is_fresh(now)) => Outcome::Hit,
            Decision::Serve | Decision::Revalidate => Outcome::Stale,
            Decision::Refuse => Outcome::OnlyIfCached,
            Decision::Fetch { .. } if rest.is_some() => Outcome::Resting,
            Decision::Fetch { .. } if in_flight => Outcome::Joined,
            Decision::Fetch { forward, .. } => {
                match (
                    self.refused(forward, copy.clone(), &request.key, now),
                    forward,
                ) {
                    (Some(refused), _) if refused.is_young(now) => Outcome::RefreshFloor,
                    (Some(_), _) | (None, Forward::Request) => Outcome::Forced,
                    (None, Forward::Stale) => Outcome::Expired,
                    (None, Forward::Miss) => Outcome::Miss,
                }
            }
        };
        Explanation {
            outcome,
            copy: copy.map(|copy| HeldCopy::of(&copy, now)),
            rest: rest.map(|error| (error.kind(), error.wait().unwrap_or_default())),
            last_failure: self.resting.last(&request.key),
            in_flight,
        }
    }

    /// The fresh copy that a request will not have: the key's own, or what is as good.
    pub(super) fn refused(
        &self,
        forward: Forward,
        copy: Option<Arc<Entry<T::Value>>>,
        key: &T::Key,
        now: Instant,
    ) -> Option<Arc<Entry<T::Value>>> {
        match forward {
            Forward::Request => copy,
            Forward::Stale | Forward::Miss => self.store.in_place_of(key, now),
        }
    }

    /// Keeps what a flight has brought, unless its epoch has ended meanwhile.
    pub(super) fn keep(&self, key: T::Key, copy: Arc<Entry<T::Value>>, outdated: bool) {
        if outdated {
            copy.outdate(Instant::now());
        }
        // What is no answer does not take the place of one.
        if !copy.is_current() || copy.good_for(Handling::Default).is_err() {
            return;
        }
        if !copy.no_store() && self.store.keeps(&key, &copy) {
            copy.keep();
            let runway = &key.collection().runway;
            runway.kept(key.epoch(), copy.stale_until());
            self.store.put(key, copy);
        } else {
            // It does not replace the older copy, but outdates it: to go on answering that one, for as long as it may be
            // stale, would hide from callers what upstream says now. RFC 9111 leaves it open.
            self.store.remove(&key);
        }
    }
}
