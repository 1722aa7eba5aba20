//! The end of the process, as what is under way sees it: until when everybody is to be answered, and which lists are
//! being read.
//!
//! Whoever waits is waited for, but not longer than the drain lasts. A walk whose own estimate goes beyond that is
//! abandoned as soon as this is known: what more it read would be thrown away, and its calls are taken from the account
//! whose next gateway has to read the list anew. The others go on, and are abandoned when the time is up or nobody is
//! left who waits.

use std::{
    fmt, future,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    select,
    sync::watch,
    time::{self, Instant},
};

use super::{collection::Collection, walking::Progress};
use crate::error::{Error, Kind};

/// Collections that are told by name; of more only their number.
const NAMES_MAX: usize = 20;

/// Whether the process is about to end. Clones are one.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// When everybody is to be answered; `None` while the process goes on.
    by: watch::Sender<Option<Instant>>,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    running: Vec<Arc<Collection>>,
    abandoned: Vec<Arc<Collection>>,
}

impl Drain {
    /// The process is about to end: everybody is to be answered by then.
    pub fn begin(&self, by: Instant) {
        self.0.by.send_replace(Some(by));
    }

    /// Ends when everybody is to be answered, with what those are told who are not.
    pub async fn over(&self) -> Error {
        time::sleep_until(self.begun().await).await;
        draining()
    }

    /// Ends when the drain begins, with its end.
    async fn begun(&self) -> Instant {
        let mut by = self.0.by.subscribe();
        match by.wait_for(Option::is_some).await.map(|by| *by) {
            Ok(Some(by)) => by,
            _ => future::pending().await,
        }
    }

    /// A list is being read, until what is returned is dropped.
    pub fn reading(&self, collection: &Arc<Collection>) -> Reading {
        self.0.lists().running.push(collection.clone());
        Reading {
            drain: self.clone(),
            collection: collection.clone(),
        }
    }

    /// The lists that were abandoned, those included that are still being read.
    pub fn abandoned(&self) -> Abandoned {
        let lists = self.0.lists();
        let all = lists.abandoned.iter().chain(&lists.running);
        Abandoned(all.cloned().collect())
    }
}

impl Shared {
    fn lists(&self) -> std::sync::MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A list that is being read.
#[derive(Debug)]
pub struct Reading {
    drain: Drain,
    collection: Arc<Collection>,
}

impl Reading {
    /// Ends when the list is to be abandoned, with what those are told who wait for it: the process ends before it is
    /// read, by its own estimate or because the time is up.
    pub async fn abandoned(&self, mut progress: watch::Receiver<Progress>) -> Error {
        let by = self.drain.begun().await;
        let comes_too_late = async {
            let too_late = |known: &Progress| known.ends_at.is_some_and(|end| end > by);
            if progress.wait_for(too_late).await.is_err() {
                // Nobody tells any more.
                future::pending().await
            }
        };
        select! {
            () = comes_too_late => {}
            () = time::sleep_until(by) => {}
        }
        let mut lists = self.drain.0.lists();
        lists.abandoned.push(self.collection.clone());
        draining()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut lists = self.drain.0.lists();
        let own = |running: &Arc<Collection>| Arc::ptr_eq(running, &self.collection);
        if let Some(place) = lists.running.iter().position(own) {
            lists.running.swap_remove(place);
        }
    }
}

fn draining() -> Error {
    let detail = "the gateway is stopping before it has this; ask again in a moment";
    Error::new(Kind::Draining, detail)
}

/// Lists that nobody will have read.
#[derive(Clone, Debug)]
pub struct Abandoned(Vec<Arc<Collection>>);

impl Abandoned {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Abandoned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, collection) in self.0.iter().take(NAMES_MAX).enumerate() {
            let separator = if place == 0 { "" } else { ", " };
            let stream = collection.account.stream_name(&collection.stream);
            write!(f, "{separator}{}/{stream}", collection.account.name)?;
        }
        match self.len().saturating_sub(NAMES_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests;
