//! Flights: one running fetch for each key, however many wait for it.
//!
//! A flight is a task of its own, and a waiter's deadline bounds its own wait only. Once a call was made for it, a flight
//! goes on whoever leaves; one that still queues for a call when its last waiter leaves is dropped, and nothing is spent. All waiters get the flight's one outcome at once. What it fetched is stored *before* the flight is taken off
//! the board, and whoever boards looks at the store once more under the board's lock: between the two there is no
//! moment in which a second flight for the key could start.

use std::{
    collections::{HashMap, hash_map},
    hash::Hash,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{select, sync::watch, time};

use super::entry::Entry;
use crate::{
    contacts::request::{Fetch, Request, Terms, Urgency},
    error::{Error, Kind, Result},
    served::Served,
};

/// What a flight comes back with.
pub type Outcome<V> = Result<Arc<Entry<V>>>;

/// The flights that are on their way.
pub struct Board<K, V>(Arc<Mutex<HashMap<K, Flight<V>>>>);

struct Flight<V> {
    urgency: Arc<Urgency>,
    landing: watch::Sender<Option<Outcome<V>>>,
}

/// How a request came to wait, or that it need not.
pub enum Boarded<V> {
    /// A copy after all, and how it is served: a flight had just landed, or none may start.
    Landed(Arc<Entry<V>>, Served),
    /// This request's own flight has started.
    Leader(Waiter<V>),
    /// Another request's flight was on its way.
    Joined(Waiter<V>),
}

impl<K, V> Default for Board<K, V> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Clone + Eq + Hash + Send + 'static, V: Send + Sync + 'static> Board<K, V> {
    /// Waits for the key's flight, starting one if there is none and `look` still finds no copy.
    ///
    /// `fetch` must store what it fetched before it ends.
    pub fn board<F>(
        &self,
        request: Request<K>,
        look: impl FnOnce(&K) -> Option<(Arc<Entry<V>>, Served)>,
        fetch: impl FnOnce(Fetch<K>) -> F,
    ) -> Boarded<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let Request { key, terms } = request;
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = match flights.entry(key) {
            hash_map::Entry::Occupied(flight) => {
                let flight = flight.get();
                flight.urgency.raise(&terms);
                return Boarded::Joined(Waiter::new(flight.landing.subscribe(), &terms));
            }
            hash_map::Entry::Vacant(slot) => slot,
        };
        if let Some((copy, served)) = look(slot.key()) {
            return Boarded::Landed(copy, served);
        }
        let key = slot.key().clone();
        let urgency = Urgency::of(&terms);
        let (landing, outcome) = watch::channel(None);
        let waiter = Waiter::new(outcome, &terms);
        slot.insert(Flight {
            urgency: urgency.clone(),
            landing: landing.clone(),
        });
        drop(flights);

        let mut strip = Strip {
            board: self.0.clone(),
            key: Some(key.clone()),
        };
        let fetching = fetch(Fetch {
            key,
            urgency: urgency.clone(),
            spent: Arc::default(),
            afresh: false,
        });
        tokio::spawn(async move {
            let mut fetching = pin!(fetching);
            loop {
                select! {
                    biased;
                    outcome = &mut fetching => {
                        drop(strip);
                        landing.send_replace(Some(outcome));
                        break;
                    }
                    () = landing.closed(), if !urgency.has_departed() => {
                        if strip.abandon() {
                            break;
                        }
                    }
                }
            }
        });
        Boarded::Leader(waiter)
    }

    /// Whether one is on its way for this key.
    pub fn has(&self, key: &K) -> bool {
        let flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.contains_key(key)
    }

    /// How many are on their way.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Takes the flight off the board when its task ends, by whatever end.
struct Strip<K: Eq + Hash, V> {
    board: Arc<Mutex<HashMap<K, Flight<V>>>>,
    /// `None` once it is off: another flight may have taken its place.
    key: Option<K>,
}

impl<K: Eq + Hash, V> Strip<K, V> {
    /// Takes the flight off the board if nobody waits for it and no call was made.
    fn abandon(&mut self) -> bool {
        let mut flights = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let unwanted = |flight: &mut Flight<V>| {
            flight.landing.receiver_count() == 0 && !flight.urgency.has_departed()
        };
        let taken = self
            .key
            .take_if(|key| flights.get_mut(key).is_some_and(unwanted));
        taken.is_some_and(|key| flights.remove(&key).is_some())
    }
}

impl<K: Eq + Hash, V> Drop for Strip<K, V> {
    fn drop(&mut self) {
        let mut flights = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &self.key {
            flights.remove(key);
        }
    }
}

/// One request's wait for a flight.
pub struct Waiter<V> {
    outcome: watch::Receiver<Option<Outcome<V>>>,
    deadline: time::Instant,
}

impl<V> Waiter<V> {
    fn new(outcome: watch::Receiver<Option<Outcome<V>>>, terms: &Terms) -> Self {
        Self {
            outcome,
            deadline: terms.deadline,
        }
    }

    /// The flight's outcome, or [`Kind::UpstreamTimeout`] at this request's own deadline.
    pub async fn wait(mut self) -> Outcome<V> {
        let landed = self.outcome.wait_for(Option::is_some);
        match time::timeout_at(self.deadline, landed).await {
            Ok(Ok(outcome)) => outcome.clone().unwrap_or_else(|| Err(lost())),
            Ok(Err(_)) => Err(lost()),
            Err(_) => Err(Error::new(
                Kind::UpstreamTimeout,
                "upstream did not answer before the request's deadline; the fetch goes on and its result is kept",
            )),
        }
    }
}

/// The flight's task ended without an outcome: it panicked.
fn lost() -> Error {
    Error::new(Kind::Internal, "the fetch ended unexpectedly")
}
