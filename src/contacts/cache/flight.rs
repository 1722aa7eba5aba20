//! Flights: one running fetch for each key, however many wait for it.
//!
//! A flight is a task of its own, and a waiter's deadline bounds its own wait only. Once a call was made for it, a flight
//! goes on whoever leaves; one that still queues for a call when its last waiter leaves is dropped, and nothing is spent. All waiters get the flight's one outcome at once. What it fetched is stored *before* the flight is taken off
//! the board, and whoever boards looks at the store once more under the board's lock: between the two there is no
//! moment in which a second flight for the key could start.
//!
//! A purge may disown a flight: its waiters, who asked before, still get its outcome, but it is not stored, and whoever asks
//! next has a flight of its own.
//!
//! A flight [`alone`](Board::alone) is on no board: nobody joins it, so that several for one key go side by side. No purge
//! can disown it, so it stores nothing if there was one meanwhile, of whatever key.

use std::{
    collections::{HashMap, hash_map},
    hash::Hash,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
pub struct Board<K, V> {
    flights: Arc<Mutex<HashMap<K, Flight<V>>>>,
    /// How often a key was purged.
    purges: Arc<AtomicU64>,
}

struct Flight<V> {
    /// Tells it from another one for the same key.
    number: u64,
    urgency: Arc<Urgency>,
    landing: watch::Sender<Option<Outcome<V>>>,
    /// A purge since it began: what it brings is stale.
    outdated: bool,
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
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
        Self {
            flights: Arc::default(),
            purges: Arc::default(),
        }
    }
}

impl<K: Clone + Eq + Hash + Send + 'static, V: Send + Sync + 'static> Board<K, V> {
    /// Waits for the key's flight, starting one if there is none and `look` still finds no copy.
    ///
    /// `keep` stores what was fetched, and is told whether that is outdated already.
    pub fn board<F>(
        &self,
        request: Request<K>,
        look: impl FnOnce(&K) -> Option<(Arc<Entry<V>>, Served)>,
        fetch: impl FnOnce(Fetch<K>) -> F,
        keep: impl FnOnce(K, Arc<Entry<V>>, bool) + Send + 'static,
    ) -> Boarded<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let Request { key, terms } = request;
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
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
        let (landing, outcome) = watch::channel(None);
        let waiter = Waiter::new(outcome, &terms);
        let began = Fetch::of(Request {
            key: key.clone(),
            terms,
        });
        let urgency = began.urgency.clone();
        let number = next_number();
        slot.insert(Flight {
            number,
            urgency: urgency.clone(),
            landing: landing.clone(),
            outdated: false,
        });
        drop(flights);

        let strip = Strip {
            board: self.flights.clone(),
            number,
            key: Some(key),
        };
        tokio::spawn(fly(fetch(began), urgency, landing, Some((strip, keep))));
        Boarded::Leader(waiter)
    }

    /// Waits for a flight of this request's own, beside any other for its key.
    pub fn alone<F>(
        &self,
        request: Request<K>,
        fetch: impl FnOnce(Fetch<K>) -> F,
        keep: impl FnOnce(K, Arc<Entry<V>>) + Send + 'static,
    ) -> Waiter<V>
    where
        F: Future<Output = Outcome<V>> + Send + 'static,
    {
        let (landing, outcome) = watch::channel(None);
        let waiter = Waiter::new(outcome, &request.terms);
        let (flights, purges) = (self.flights.clone(), self.purges.clone());
        let before = purges.load(Ordering::Relaxed);
        let kept_as = request.key.clone();
        let began = Fetch::of(request);
        let urgency = began.urgency.clone();
        let fetching = fetch(began);
        let fetching = async move {
            let outcome = fetching.await;
            // Under the lock that purges take as well.
            let _no_purge = flights.lock().unwrap_or_else(PoisonError::into_inner);
            if let Ok(copy) = &outcome
                && purges.load(Ordering::Relaxed) == before
            {
                keep(kept_as, copy.clone());
            }
            outcome
        };
        let off_the_board = None::<(Strip<K, V>, fn(K, Arc<Entry<V>>, bool))>;
        tokio::spawn(fly(fetching, urgency, landing, off_the_board));
        waiter
    }

    /// Whether one is on its way for this key.
    pub fn has(&self, key: &K) -> bool {
        let flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        flights.contains_key(key)
    }

    /// Disowns the key's flight, if there is one.
    pub fn disown(&self, key: &K) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        self.purges.fetch_add(1, Ordering::Relaxed);
        flights.remove(key);
    }

    /// Makes stale what the key's flight will bring, if there is one.
    pub fn outdate(&self, key: &K) {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        self.purges.fetch_add(1, Ordering::Relaxed);
        if let Some(flight) = flights.get_mut(key) {
            flight.outdated = true;
        }
    }

    /// How many are on their way.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

/// A flight's task: to its landing, or to the moment in which nobody waits for it and no call was made. `place` is its
/// place on the board, if it has one, and what then stores what it brings.
async fn fly<K: Eq + Hash, V>(
    fetching: impl Future<Output = Outcome<V>>,
    urgency: Arc<Urgency>,
    landing: watch::Sender<Option<Outcome<V>>>,
    mut place: Option<(Strip<K, V>, impl FnOnce(K, Arc<Entry<V>>, bool))>,
) {
    let mut fetching = pin!(fetching);
    loop {
        select! {
            biased;
            outcome = &mut fetching => {
                if let Some((strip, keep)) = place {
                    strip.land(&outcome, keep);
                }
                landing.send_replace(Some(outcome));
                break;
            }
            () = landing.closed(), if !urgency.has_departed() => {
                // It may have departed in this very poll.
                if urgency.has_departed() {
                    continue;
                }
                // Off the board nobody can come back; on it somebody may just have joined.
                if place.as_mut().is_none_or(|(strip, _)| strip.abandon()) {
                    break;
                }
            }
        }
    }
}

/// Takes the flight off the board when its task ends, by whatever end.
struct Strip<K: Eq + Hash, V> {
    board: Arc<Mutex<HashMap<K, Flight<V>>>>,
    number: u64,
    /// `None` once it is off.
    key: Option<K>,
}

impl<K: Eq + Hash, V> Strip<K, V> {
    /// Takes the flight off the board if nobody waits for it and no call was made. `false`: somebody does, or one was.
    fn abandon(&mut self) -> bool {
        let Some(key) = &self.key else {
            return true;
        };
        let mut flights = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        // One that was disowned is off it already, and nobody can join it any more.
        let own = flights
            .get(key)
            .filter(|flight| flight.number == self.number);
        if let Some(flight) = own {
            if flight.landing.receiver_count() > 0 || flight.urgency.has_departed() {
                return false;
            }
            flights.remove(key);
        }
        drop(flights);
        self.key = None;
        true
    }

    /// Stores what was fetched and takes the flight off the board, in one. A flight that was disowned stores nothing.
    fn land(mut self, outcome: &Result<Arc<Entry<V>>>, keep: impl FnOnce(K, Arc<Entry<V>>, bool)) {
        let Some(key) = self.key.take() else {
            return;
        };
        let mut flights = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let hash_map::Entry::Occupied(flight) = flights.entry(key) else {
            return;
        };
        if flight.get().number != self.number {
            return;
        }
        let (key, flight) = flight.remove_entry();
        if let Ok(copy) = outcome {
            keep(key, copy.clone(), flight.outdated);
        }
    }
}

impl<K: Eq + Hash, V> Drop for Strip<K, V> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else {
            return;
        };
        let mut flights = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        if flights
            .get(&key)
            .is_some_and(|flight| flight.number == self.number)
        {
            flights.remove(&key);
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
