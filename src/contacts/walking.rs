//! What a walk under way tells those who wait for its list: that it has begun, how far it is, and how it ended.
//!
//! The walk writes it, whoever waits reads it, and neither waits for the other. A collection has a [`Current`] for the walk
//! that is under way, so that one can wait for it to begin.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use tokio::{sync::watch, time::Instant};

use super::{
    ids::Epoch,
    request::{Class, Urgency},
    trail::Trail,
};
use crate::error::{Error, Kind, Result};

/// A walk under way.
#[derive(Debug)]
pub struct Walking {
    /// That of its key: whoever asks in another one waits for another walk.
    pub epoch: Epoch,
    pub started: Instant,
    /// What of its list is confirmed.
    pub trail: Trail,
    /// What all who wait for it want.
    pub urgency: Arc<Urgency>,
    progress: watch::Sender<Progress>,
}

/// How far a walk is. A reading that is begun anew, or mended, goes back.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Pages that are read and kept so far.
    pub pages_done: usize,
    /// Pages that the list has; `None` before the first one has come.
    pub pages_needed: Option<usize>,
    /// Calls that are still to come, those under way included, as far as is known.
    pub calls_left: usize,
    /// Contacts on the pages that are read.
    pub records: u64,
    /// When it will be over, if all goes on as it does, pauses included; before the first page, when that will have come.
    /// `None` before it was first told.
    pub ends_at: Option<Instant>,
    /// When the account's budget lets its next call go; `None` as long as `ends_at` is, and where none is still to come.
    pub next_call_at: Option<Instant>,
    /// The class of calls for which that was estimated.
    pub class: Class,
    /// Why it rests, if it does.
    pub held_up: Option<Kind>,
    /// `None` while it goes on.
    pub end: Option<Result<()>>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            pages_done: 0,
            pages_needed: None,
            calls_left: 0,
            records: 0,
            ends_at: None,
            next_call_at: None,
            class: Class::Background,
            held_up: None,
            end: None,
        }
    }
}

impl Walking {
    /// How far it is, now and whenever that changes.
    pub fn watch(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Tells how far it is.
    pub fn tell(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }
}

/// The walk that is under way for one collection, if there is one. Made when somebody asks for it: of most collections
/// nobody ever reads the list.
#[derive(Debug, Default)]
pub struct Current(OnceLock<watch::Sender<Option<Arc<Walking>>>>);

impl Current {
    fn slot(&self) -> &watch::Sender<Option<Arc<Walking>>> {
        self.0.get_or_init(|| watch::channel(None).0)
    }

    /// The walk at this moment. For whoever looks at all collections: of those that have none, nothing is made.
    pub fn peek(&self) -> Option<Arc<Walking>> {
        self.0.get()?.borrow().clone()
    }

    /// The walk, now and whenever another one begins or it ends.
    pub fn watch(&self) -> watch::Receiver<Option<Arc<Walking>>> {
        self.slot().subscribe()
    }

    /// Whether there is one.
    pub fn is_under_way(&self) -> bool {
        self.0.get().is_some_and(|slot| slot.borrow().is_some())
    }

    /// Makes a walk known until what is returned is dropped. The last one to begin is the one that is known: one of an
    /// older epoch is waited for by nobody who comes now.
    pub fn begin(&self, epoch: Epoch, urgency: Arc<Urgency>, now: Instant) -> Begun<'_> {
        let walking = Arc::new(Walking {
            epoch,
            started: now,
            trail: Trail::default(),
            urgency,
            progress: watch::channel(Progress::default()).0,
        });
        self.slot().send_replace(Some(walking.clone()));
        Begun {
            current: self,
            walking,
        }
    }
}

/// A walk that is known to be under way, until this is dropped.
#[derive(Debug)]
pub struct Begun<'a> {
    current: &'a Current,
    walking: Arc<Walking>,
}

impl Begun<'_> {
    /// Tells how it ended.
    pub fn end(self, outcome: Result<()>) {
        self.walking.end(outcome);
    }
}

impl Walking {
    fn end(&self, outcome: Result<()>) {
        if let Err(error) = &outcome {
            self.trail.fail(error.clone());
        }
        self.progress
            .send_modify(|progress| progress.end = Some(outcome));
    }
}

impl Deref for Begun<'_> {
    type Target = Walking;

    fn deref(&self) -> &Walking {
        &self.walking
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if self.walking.progress.borrow().end.is_none() {
            // It was dropped, with the flight that nobody waited for, or it panicked.
            self.walking
                .end(Err(Error::new(Kind::Internal, "the walk was given up")));
        }
        self.current.slot().send_if_modified(|current| {
            let own = current
                .as_ref()
                .is_some_and(|current| Arc::ptr_eq(current, &self.walking));
            if own {
                *current = None;
            }
            own
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contacts::testing;

    fn begin(current: &Current, epoch: Epoch) -> Begun<'_> {
        let urgency = Urgency::of(&testing::request(()).terms);
        current.begin(epoch, urgency, Instant::now())
    }

    #[tokio::test]
    async fn a_walk_is_known_from_its_beginning_to_its_end() {
        let (current, epoch) = (Current::default(), Epoch::begin());
        let mut seen = current.watch();
        assert!(seen.borrow_and_update().is_none());
        let begun = begin(&current, epoch);
        let walking = seen.wait_for(Option::is_some).await.unwrap().clone();
        let walking = walking.unwrap();
        assert_eq!(walking.epoch, epoch);
        let mut progress = walking.watch();
        begun.tell(Progress {
            pages_done: 1,
            pages_needed: Some(3),
            ..Progress::default()
        });
        let told = progress.wait_for(|told| told.pages_done == 1).await;
        assert_eq!(told.unwrap().pages_needed, Some(3));
        begun.end(Ok(()));
        assert!(matches!(progress.borrow().end, Some(Ok(()))));
        assert!(seen.borrow().is_none());
    }

    #[test]
    fn one_that_is_dropped_has_failed() {
        let current = Current::default();
        let begun = begin(&current, Epoch::begin());
        let progress = begun.watch();
        drop(begun);
        assert!(matches!(progress.borrow().end, Some(Err(_))));
        assert!(current.watch().borrow().is_none());
    }

    /// Catches an old walk that takes a new one back.
    #[test]
    fn the_end_of_one_is_not_the_end_of_the_next() {
        let current = Current::default();
        let old = begin(&current, Epoch::begin());
        let new = begin(&current, Epoch::begin());
        drop(old);
        let known = current.watch().borrow().clone();
        assert_eq!(known.unwrap().epoch, new.epoch);
        drop(new);
        assert!(current.watch().borrow().is_none());
    }
}
