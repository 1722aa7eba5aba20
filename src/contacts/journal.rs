//! The journal: what went wrong lately, for operators who ask. A stage that looks at what passes and changes nothing.
//!
//! It stands where flights begin, above the retries, so that what a retry has cured is not in it. The same fault of the
//! same stream is one entry, however often it happens: one that never ends must not push out all others.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::Instant;
use tower::{Layer, Service, layer::layer_fn};

use super::{account::Account, cache::Key, ids::StreamId, request::Fetch};
use crate::error::{Error, Kind, Result};

/// Entries; beyond them the one goes that happened longest ago.
pub const ENTRIES_MAX: usize = 50;

/// What went wrong lately.
#[derive(Debug, Default)]
pub struct Journal(Mutex<VecDeque<Entry>>);

/// A fault, as often as it happened.
#[derive(Clone, Debug)]
pub struct Entry {
    pub account: Arc<Account>,
    pub stream: StreamId,
    pub error: Error,
    /// The last time.
    pub at: Instant,
    pub times: u64,
}

impl Journal {
    /// The entries, the latest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().iter().rev().cloned().collect()
    }

    fn note(&self, account: &Arc<Account>, stream: &StreamId, error: &Error, now: Instant) {
        let mut entries = self.lock();
        let same = |entry: &Entry| {
            Arc::ptr_eq(&entry.account, account)
                && entry.stream == *stream
                && entry.error.kind() == error.kind()
        };
        let before = entries.iter().position(same);
        let before = before.and_then(|place| entries.remove(place));
        if entries.len() >= ENTRIES_MAX {
            entries.pop_front();
        }
        entries.push_back(Entry {
            account: account.clone(),
            stream: stream.clone(),
            error: error.clone(),
            at: now,
            times: before.map_or(0, |before| before.times) + 1,
        });
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stage.
#[derive(Clone, Debug)]
pub struct Noting<S> {
    journal: Arc<Journal>,
    inner: S,
}

/// Notes what goes wrong below, and on each collection how it was last answered.
pub fn layer<S>(journal: Arc<Journal>) -> impl Layer<S, Service = Noting<S>> {
    layer_fn(move |inner| Noting {
        journal: journal.clone(),
        inner,
    })
}

impl<K, S> Service<Fetch<K>> for Noting<S>
where
    K: Key,
    S: Service<Fetch<K>, Error = Error, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = Error;
    type Future = BoxFuture<'static, Result<S::Response>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, fetch: Fetch<K>) -> Self::Future {
        let (collection, journal) = (fetch.key.collection().clone(), self.journal.clone());
        let fetching = self.inner.call(fetch);
        async move {
            let outcome = fetching.await;
            let now = Instant::now();
            match &outcome {
                Ok(_) => {
                    collection.seen.upstream.note(Ok(()), now);
                    collection.account.upstream.note(Ok(()), now);
                }
                // An answer, too: a caller may ask for streams that there are not, as many as it likes.
                Err(error) if error.kind() == Kind::StreamNotFound => {
                    collection.account.upstream.note(Ok(()), now);
                }
                Err(error) => {
                    collection.seen.upstream.note(Err(error.kind()), now);
                    collection.account.upstream.note(Err(error.kind()), now);
                    journal.note(&collection.account, &collection.stream, error, now);
                }
            }
            outcome
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::contacts::{page::PageKey, testing};

    async fn fail(journal: &Arc<Journal>, key: PageKey, kind: Kind) {
        let inner = service_fn(move |_: Fetch<PageKey>| {
            std::future::ready(Err::<(), _>(Error::new(kind, "it failed")))
        });
        let stage = layer(journal.clone()).layer(inner);
        let outcome = stage.oneshot(testing::fetch(key)).await;
        assert_eq!(outcome.unwrap_err().kind(), kind);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_that_goes_on_is_one_entry_and_pushes_out_no_other() {
        let journal = Arc::new(Journal::default());
        let key = testing::page_key("st-1", 0, 10);
        let other = PageKey {
            window: crate::contacts::page::Window {
                skip: 10,
                limit: 10,
            },
            ..key.clone()
        };
        fail(&journal, key.clone(), Kind::UpstreamTimeout).await;
        for _ in 0..2 * ENTRIES_MAX {
            tokio::time::advance(Duration::from_secs(1)).await;
            fail(&journal, other.clone(), Kind::Upstream5xx).await;
        }
        fail(&journal, key.clone(), Kind::StreamNotFound).await;
        let entries = journal.entries();
        let told: Vec<_> = entries
            .iter()
            .map(|entry| {
                (
                    entry.error.kind(),
                    entry.times,
                    entry.at.elapsed().as_secs(),
                )
            })
            .collect();
        assert_eq!(
            told,
            [(Kind::Upstream5xx, 100, 0), (Kind::UpstreamTimeout, 1, 100)]
        );
        let (kind, _) = key.collection.seen.upstream.last().fault().unwrap();
        assert_eq!(kind, Kind::Upstream5xx);
    }

    #[tokio::test]
    async fn it_has_a_bound() {
        let journal = Arc::new(Journal::default());
        for number in 0..2 * ENTRIES_MAX {
            let key = testing::page_key(&format!("st-{number}"), 0, 10);
            fail(&journal, key, Kind::UpstreamTimeout).await;
        }
        let entries = journal.entries();
        assert_eq!(entries.len(), ENTRIES_MAX);
        assert_eq!(entries[0].stream.as_str(), "st-99");
    }
}
