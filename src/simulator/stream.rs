//! What a stream answers with: fixed bodies, or records that may change between any two of its calls.
//!
//! A call here is one that is answered with a page: what the account's limit refuses, or what lacks a token, changes nothing.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;

use super::{
    change::{Change, ChangeError, Churn},
    contacts::Contacts,
    noise::{self, Noise},
    records::{Record, Records, Slice},
};

/// The most changes that are scheduled for a stream at the same time.
pub const SCHEDULED_MAX: usize = 10_000;

/// One stream.
pub(super) enum Stream {
    Contacts(Box<Contacts>, Mutex<Live>),
    Fixed(Vec<Bytes>),
}

impl Stream {
    pub(super) fn live(&self) -> Option<LiveStream<'_>> {
        match self {
            Self::Contacts(contacts, live) => Some(LiveStream { contacts, live }),
            Self::Fixed(_) => None,
        }
    }
}

/// The records of a stream, and what will happen to them.
#[derive(Debug)]
pub(super) struct Live {
    records: Records,
    calls: u64,
    /// Before which call, and what; in the order in which they were asked for.
    scheduled: Vec<(u64, Change)>,
    churn: Option<Churn>,
    noise: Noise,
    changed: u64,
    missed: u64,
}

/// What became of a stream, for whoever asks.
#[derive(Debug, Serialize)]
pub(super) struct State {
    records: u64,
    calls: u64,
    changed: u64,
    missed: u64,
    scheduled: Vec<Scheduled>,
    churn: Option<Churn>,
}

#[derive(Debug, Serialize)]
struct Scheduled {
    /// 1 is the next.
    before_call: u64,
    change: Change,
}

impl Live {
    pub(super) fn new(contacts: u64, seed: u64) -> Self {
        Self {
            records: Records::new(contacts),
            calls: 0,
            scheduled: Vec::new(),
            churn: None,
            noise: Noise::new(noise::mix(seed)),
            changed: 0,
            missed: 0,
        }
    }

    /// One more call: what was to happen before it happens.
    pub(super) fn call(&mut self) {
        self.calls += 1;
        if !self.scheduled.is_empty() {
            let now = self.calls;
            let due: Vec<_> = self
                .scheduled
                .extract_if(.., |(at, _)| *at == now)
                .collect();
            due.into_iter().for_each(|(_, change)| self.attempt(change));
        }
        if let Some(churn) = self.churn.take() {
            for _ in 0..churn.count(&mut self.noise) {
                if let Some(change) = churn.change(self.records.len(), &mut self.noise) {
                    self.attempt(change);
                }
            }
            self.churn = Some(churn);
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.records.len()
    }

    pub(super) fn slice(&self, first: u64, count: u64) -> Slice {
        self.records.slice(first, count)
    }

    fn change(&mut self, change: Change) -> Result<(), ChangeError> {
        change.apply(&mut self.records)?;
        self.changed += 1;
        Ok(())
    }

    /// A change that nobody waits for: one that cannot be is counted.
    fn attempt(&mut self, change: Change) {
        if let Err(error) = self.change(change) {
            self.missed += 1;
            tracing::warn!(%change, %error, "a change of the simulator's records is left out");
        }
    }

    fn schedule(&mut self, call: u64, change: Change) -> Result<(), ChangeError> {
        if call == 0 {
            return Err(ChangeError::NoCall);
        }
        if self.scheduled.len() == SCHEDULED_MAX {
            return Err(ChangeError::TooManyScheduled);
        }
        self.scheduled
            .push((self.calls.saturating_add(call), change));
        Ok(())
    }
}

/// A stream of a running simulator: its records as they stand, and changes to them.
#[derive(Clone, Copy)]
pub struct LiveStream<'a> {
    contacts: &'a Contacts,
    live: &'a Mutex<Live>,
}

impl LiveStream<'_> {
    /// How many records there are.
    pub fn len(&self) -> u64 {
        self.lock().records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of the record at a position, as a page would give them.
    pub fn record(&self, position: u64) -> Option<Vec<u8>> {
        let record = self.lock().records.at(position).ok()?;
        let mut bytes = Vec::with_capacity(1024);
        self.contacts.write_revised(record, &mut bytes);
        Some(bytes)
    }

    /// The id of the record at a position.
    pub fn id(&self, position: u64) -> Option<String> {
        let record = self.lock().records.at(position).ok()?;
        Some(self.id_of(record))
    }

    /// All ids, in order: some 50 bytes for each record.
    pub fn ids(&self) -> Vec<String> {
        let all = self.lock().records.slice(0, u64::MAX);
        all.iter().map(|record| self.id_of(record)).collect()
    }

    /// How many calls were answered with a page of it.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// A new record before the one at a position, or at the end; its id.
    ///
    /// # Panics
    ///
    /// As the others here, when there is no such position, or after some 50,000 changes in random places.
    #[track_caller]
    pub fn insert_at(&self, position: u64) -> String {
        let record = self.edit(|records| records.insert_at(position));
        self.id_of(record)
    }

    /// Deletes the record at a position; its id.
    #[track_caller]
    pub fn delete(&self, position: u64) -> String {
        let record = self.edit(|records| records.delete(position));
        self.id_of(record)
    }

    /// Updates the record at a position, which stays where it is; its id.
    #[track_caller]
    pub fn update(&self, position: u64) -> String {
        let record = self.edit(|records| records.update(position));
        self.id_of(record)
    }

    /// Lets two records change places.
    #[track_caller]
    pub fn swap(&self, one: u64, other: u64) {
        self.edit(|records| records.swap(one, other));
    }

    /// Turns the order around.
    pub fn reverse(&self) {
        self.edit(|records| {
            records.reverse();
            Ok(())
        });
    }

    /// One change now.
    pub fn change(&self, change: Change) -> Result<(), ChangeError> {
        self.lock().change(change)
    }

    /// One change just before the call that follows `call - 1` others from now; 1 is the next. One that cannot be by then is
    /// left out, logged and counted.
    pub fn before_call(&self, call: u64, change: Change) -> Result<(), ChangeError> {
        self.lock().schedule(call, change)
    }

    /// Changes at random before each call from now on, or none.
    pub fn churn(&self, churn: Option<Churn>) {
        self.lock().churn = churn;
    }

    /// Forgets what is scheduled, and ends changes at random. The records stay as they are.
    pub fn settle(&self) {
        let mut live = self.lock();
        live.scheduled.clear();
        live.churn = None;
    }

    pub(super) fn state(&self) -> State {
        let live = self.lock();
        let scheduled = live.scheduled.iter().map(|(at, change)| Scheduled {
            before_call: at - live.calls,
            change: *change,
        });
        State {
            records: live.records.len(),
            calls: live.calls,
            changed: live.changed,
            missed: live.missed,
            scheduled: scheduled.collect(),
            churn: live.churn.clone(),
        }
    }

    #[track_caller]
    fn edit<T>(&self, edit: impl FnOnce(&mut Records) -> Result<T, ChangeError>) -> T {
        let mut live = self.lock();
        match edit(&mut live.records) {
            Ok(done) => {
                live.changed += 1;
                done
            }
            Err(error) => {
                drop(live);
                panic!("{error}")
            }
        }
    }

    fn id_of(&self, record: Record) -> String {
        let mut id = Vec::with_capacity(24);
        self.contacts.write_id(record.number.into(), &mut id);
        String::from_utf8_lossy(&id).into_owned()
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        // No change is left half done by a panic.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for LiveStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveStream")
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}
