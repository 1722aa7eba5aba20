//! What each collection's callers get: the three metrics that know streams.
//!
//! Whoever is answerable for one collection asks three things, and none of them can be seen in a sum over all: are those
//! who ask for it answered (`collection_requests_total`), how old is what they get (`collection_age_seconds`), and does
//! its list hold (`collection_lists_total`, which the walks count). Everything else is about a cache, an account or
//! upstream, and is told of those. A stream is told apart if it is configured, and only the first [`LABELS_MAX`] of all
//! accounts together; the rest are `other`, so that callers who make ids up make no series.
//!
//! The stage stands above the copies, and below whatever refuses. A collection's counters are resolved with its first
//! request and lie on it, and again with the first one after a reload.

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};
use tokio::time::Instant;
use tower::{Layer, Service, layer::layer_fn};

use super::{
    account::{Account, Accounts},
    cache::{Key, entry::Cached},
    collection::Collection,
    follow::{LinesRequest, Told},
    request::Request,
    verdict::Verdict,
};
use crate::{
    error::{Error, Kind, Result, Side},
    metrics::{self, Registry},
    served::{Answer, Served},
};

/// How many streams metrics tell apart, of all accounts together.
pub const LABELS_MAX: usize = 20;

/// What metrics call the streams beyond those, and those that nobody configured.
const OTHER: &str = "other";

/// Seconds: fresh pages and fresh lists as they are by default, and what is left of a stale window. Few, since each is a
/// series for each collection.
const AGES: &[f64] = &[60.0, 300.0, 900.0, 3_900.0];

/// The stage.
#[derive(Clone, Debug)]
pub struct Tally<S> {
    families: Arc<Families>,
    inner: S,
}

/// Counts what becomes of requests.
pub fn layer<S>(families: Arc<Families>) -> impl Layer<S, Service = Tally<S>> {
    layer_fn(move |inner| Tally {
        families: families.clone(),
        inner,
    })
}

/// What is about a collection.
pub trait About {
    fn collection(&self) -> &Arc<Collection>;
}

impl<K: Key> About for Request<K> {
    fn collection(&self) -> &Arc<Collection> {
        self.key.collection()
    }
}

impl About for LinesRequest {
    fn collection(&self) -> &Arc<Collection> {
        &self.list.key.collection
    }
}

/// What says how it came about, and how old it is.
pub trait Aged {
    fn served(&self) -> Served;
    fn age(&self) -> Duration;
}

impl<V: Cached> Aged for Answer<V> {
    fn served(&self) -> Served {
        self.served
    }

    fn age(&self) -> Duration {
        self.age
    }
}

impl Aged for Told {
    fn served(&self) -> Served {
        match self {
            Self::Kept(answer) => answer.served,
            Self::Running(running) => running.served(),
        }
    }

    fn age(&self) -> Duration {
        match self {
            Self::Kept(answer) => answer.age,
            Self::Running(running) => running.age,
        }
    }
}

impl<R: About, S: Service<R, Response: Aged, Error = Error>> Service<R> for Tally<S> {
    type Response = S::Response;
    type Error = Error;
    type Future = Tallying<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let collection = request.collection().clone();
        self.families.resolve(&collection);
        Tallying {
            inner: self.inner.call(request),
            collection,
        }
    }
}

pin_project! {
    /// An outcome to come.
    pub struct Tallying<F> {
        #[pin]
        inner: F,
        collection: Arc<Collection>,
    }
}

impl<F: Future<Output = Result<T>>, T: Aged> Future for Tallying<F> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        let this = self.project();
        let outcome = ready!(this.inner.poll(cx));
        let came_to = CameTo::of(&outcome);
        // Only of those who had no fresh answer it need be known when they asked.
        if matches!(came_to, CameTo::Stale | CameTo::Failed) {
            this.collection.runway.wanted(Instant::now());
        }
        if let Some(counts) = &*this.collection.counts.load() {
            counts.requests[came_to as usize].inc();
            if let Ok(answer) = &outcome {
                counts.age.observe(answer.age().as_secs_f64());
            }
        }
        Poll::Ready(outcome)
    }
}

/// What a request for a collection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CameTo {
    /// From memory, and fresh, or as fresh as it could be had.
    Hit,
    /// Upstream was asked for it.
    Fetched,
    Stale,
    /// Not as it was asked for: there is no such stream, no copy where only a copy was wanted, or the list is too large or
    /// not there yet.
    Refused,
    Failed,
}

impl CameTo {
    const ALL: [Self; 5] = [
        Self::Hit,
        Self::Fetched,
        Self::Stale,
        Self::Refused,
        Self::Failed,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Fetched => "fetched",
            Self::Stale => "stale",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }

    fn of<T: Aged>(outcome: &Result<T>) -> Self {
        match outcome {
            Ok(answer) => match answer.served() {
                Served::Hit | Served::Slice | Served::Floor => Self::Hit,
                Served::Stale(_) => Self::Stale,
                Served::Fetched(_) | Served::Joined(_) => Self::Fetched,
            },
            Err(error) => match (error.kind(), error.kind().side()) {
                (Kind::MergeInProgress, _) | (_, Side::Caller) => Self::Refused,
                _ => Self::Failed,
            },
        }
    }
}

/// Written out, since optimised code cannot have a type whose size depends on a call: the compiler goes in circles.
const LISTS_LEN: usize = 5;

/// What the list of a collection came to.
const LISTS: [&str; LISTS_LEN] = {
    let [verified, consistent, settled] = Verdict::ACCEPTED;
    [verified, consistent, settled, DRIFTING, "failed"]
};

const DRIFTING: &str = Verdict::Drifting.word();

/// The counters of one collection, or of all that share a name.
#[derive(Debug)]
pub struct Counts {
    /// Whose streams they are, of those that [`Families::show`] was told one after another.
    generation: u64,
    requests: [IntCounter; CameTo::ALL.len()],
    age: Histogram,
    lists: [IntCounter; LISTS_LEN],
}

impl Counts {
    /// A list was read, or should have been.
    pub fn list(&self, outcome: std::result::Result<Verdict, Kind>) {
        let word = match outcome {
            Ok(verdict) => verdict.word(),
            Err(Kind::MergeDrifting) => DRIFTING,
            Err(_) => "failed",
        };
        let place = LISTS.iter().position(|other| *other == word);
        self.lists[place.unwrap_or(LISTS.len() - 1)].inc();
    }
}

/// The names of an account and of a stream.
type Labels = (Box<str>, Box<str>);

/// The metrics of all collections.
#[derive(Debug)]
pub struct Families {
    requests: IntCounterVec,
    age: HistogramVec,
    lists: IntCounterVec,
    generation: AtomicU64,
    /// By the names of account and stream, so that a collection costs one reference.
    shown: Mutex<HashMap<Labels, Arc<Counts>>>,
}

impl Families {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        Ok(Self {
            requests: registry.counter(
                "collection_requests_total",
                "Requests for the contacts of a stream, by what they came to: hit (from memory), fetched, stale, refused (no such stream, or a list that is too large or not there in time), failed. The first 20 configured streams have their name, all others are other.",
                &["account", "stream", "result"],
            )?,
            age: registry.histogram(
                "collection_age_seconds",
                "How long ago upstream had been asked for what was answered, of a list's oldest page. Streams as in collection_requests_total.",
                &["account", "stream"],
                AGES,
            )?,
            lists: registry.counter(
                "collection_lists_total",
                "Whole lists of a stream that were read, by verdict: verified, consistent, settled (upstream says another total), drifting (it kept changing), or failed. Streams as in collection_requests_total.",
                &["account", "stream", "verdict"],
            )?,
            generation: AtomicU64::new(0),
            shown: Mutex::default(),
        })
    }

    /// Has series for these accounts' streams, and for no others. A stream that has a series of its own keeps it; of the
    /// rest the first ones get what is left.
    pub fn show(&self, accounts: &Accounts) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        let wanted = wanted(accounts, |labels| shown.contains_key(labels));
        for labels in shown.keys().filter(|labels| !wanted.contains(*labels)) {
            self.forget(labels);
        }
        let counts = wanted.into_iter().map(|labels| {
            let counts = Arc::new(self.counts(generation, &labels));
            (labels, counts)
        });
        *shown = counts.collect();
        self.generation.store(generation, Ordering::Release);
    }

    /// Sees to it that a collection has its counters.
    fn resolve(&self, collection: &Collection) {
        let generation = self.generation.load(Ordering::Acquire);
        let counts = collection.counts.load();
        if counts
            .as_ref()
            .is_none_or(|counts| counts.generation != generation)
        {
            collection.counts.store(self.of(collection));
        }
    }

    /// None, if its account or its stream has left meanwhile.
    fn of(&self, collection: &Collection) -> Option<Arc<Counts>> {
        let (account, stream) = (&collection.account, &collection.stream);
        account.counted_as()?;
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let own = account.listed_as(stream);
        let own = own.and_then(|name| shown.get(&labels(account, &name)));
        own.or_else(|| shown.get(&labels(account, OTHER))).cloned()
    }

    /// Those of an account that left are gone already.
    fn forget(&self, (account, stream): &Labels) {
        for came_to in CameTo::ALL {
            let labels = [account, stream, came_to.word()];
            let _ = self.requests.remove_label_values(&labels);
        }
        for verdict in LISTS {
            let labels = [account, stream, verdict];
            let _ = self.lists.remove_label_values(&labels);
        }
        let _ = self.age.remove_label_values(&[account, stream]);
    }

    fn counts(&self, generation: u64, (account, stream): &Labels) -> Counts {
        let request = |came_to: CameTo| {
            let labels = [account, stream, came_to.word()];
            self.requests.with_label_values(&labels)
        };
        let list = |verdict: &str| self.lists.with_label_values(&[account, stream, verdict]);
        Counts {
            generation,
            requests: CameTo::ALL.map(request),
            age: self.age.with_label_values(&[account, stream]),
            lists: LISTS.map(list),
        }
    }
}

fn labels(account: &Account, stream: &str) -> Labels {
    (account.label.clone(), stream.into())
}

/// The series that there are to be. The first [`LABELS_MAX`] streams have one of their own, those before all others that
/// have one already; an account has one more for those without.
fn wanted(accounts: &Accounts, has: impl Fn(&Labels) -> bool) -> HashSet<Labels> {
    let listed = accounts.iter().flat_map(|account| {
        let names = account.listed().map(|(_, name)| name);
        names.map(move |name| labels(account, name))
    });
    let (before, new): (Vec<_>, Vec<_>) = listed.partition(has);
    let mut wanted = HashSet::new();
    for labels in before.into_iter().chain(new) {
        if wanted.len() < LABELS_MAX || wanted.contains(&labels) {
            wanted.insert(labels);
        }
    }
    for account in accounts.iter() {
        let mut names = account.listed().map(|(_, name)| name).peekable();
        let is_open = names.peek().is_none();
        if is_open || names.any(|name| !wanted.contains(&labels(account, name))) {
            wanted.insert(labels(account, OTHER));
        }
    }
    wanted
}

#[cfg(test)]
mod tests;
