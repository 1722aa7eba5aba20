//! What spares upstream, as it is built, over an upstream in memory: for tests on paused time.

use std::{cell::Cell, sync::Mutex};

use futures_util::FutureExt;
use tokio::time;
use tower::service_fn;

use super::*;
use crate::{
    contacts::{
        account,
        collection::Collection,
        drain::Drain,
        ids::StreamId,
        list::ListKey,
        page::{Page, PageKey, Window},
        request::{Class, Fetch, Request, Urgency},
        spent::Phase,
        testing,
    },
    error::{Error, Result},
    service::{ServeList, ServePage},
    upstream::secret::{Secret, Sources},
};

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// How long upstream takes, well or not.
pub(super) const CALL: Duration = Duration::from_millis(100);

/// As long as no test lasts.
pub(super) const LASTING: Lifetime = Lifetime {
    fresh_for: Duration::from_secs(24 * 3600),
    stale_for: Duration::ZERO,
};

/// All calls of the minute from the start.
pub(super) fn whole() -> budget::Config {
    budget::Config {
        start_share: 1.0,
        ..budget::Config::default()
    }
}

/// The contacts of each stream.
const CONTACTS: u64 = 1000;

/// Who is failed, and by what.
type Fault = Box<dyn FnMut(&PageKey) -> Option<Error> + Send>;

/// Upstream, and what it saw.
#[derive(Default)]
pub(super) struct Upstream {
    contacts: u64,
    fault: Mutex<Option<Fault>>,
    /// How much longer each call takes, so that no two end together.
    stagger: Mutex<Duration>,
    pub(super) calls: Mutex<Vec<Call>>,
}

/// A call that upstream saw.
pub(super) struct Call {
    pub(super) at: Instant,
    pub(super) key: PageKey,
    /// The same for all attempts of one flight.
    pub(super) flight: Arc<Urgency>,
    pub(super) succeeded: bool,
}

impl Upstream {
    /// Fails those calls from now on for which there is an error.
    pub(super) fn fail(&self, fault: impl FnMut(&PageKey) -> Option<Error> + Send + 'static) {
        *self.fault.lock().unwrap() = Some(Box::new(fault));
    }

    pub(super) fn heal(&self) {
        *self.fault.lock().unwrap() = None;
    }

    /// Has each call of a few take longer by so much than the one before it.
    pub(super) fn stagger(&self, by: Duration) {
        *self.stagger.lock().unwrap() = by;
    }

    /// How many calls it saw.
    pub(super) fn seen(&self) -> usize {
        self.calls.lock().unwrap().len()
    }

    async fn answer(&self, fetch: Fetch<PageKey>) -> Result<Page> {
        let at = Instant::now();
        let error = {
            let mut fault = self.fault.lock().unwrap();
            fault.as_mut().and_then(|fault| fault(&fetch.key))
        };
        let Window { skip, limit } = fetch.key.window;
        let spent = fetch.spent.clone();
        self.calls.lock().unwrap().push(Call {
            at,
            key: fetch.key,
            flight: fetch.urgency,
            succeeded: error.is_none(),
        });
        let place = self.seen() as u32 % 10;
        let took = CALL + place * *self.stagger.lock().unwrap();
        time::sleep(took).await;
        spent.add(Phase::Upstream, took);
        error.map_or_else(|| Ok(testing::page(skip, limit, self.contacts, at)), Err)
    }
}

/// Accounts over one upstream.
pub(super) struct Stack {
    pub(super) upstream: Arc<Upstream>,
    pub(super) accounts: Accounts,
    pub(super) budgets: Arc<Budgets>,
    registry: Registry,
}

impl Stack {
    /// Accounts with so many calls a minute each.
    pub(super) fn new(accounts: &[(&str, u32)], budget: &budget::Config) -> Self {
        Self::of(accounts, budget, CONTACTS)
    }

    /// The same, with so many contacts in each stream.
    pub(super) fn of(accounts: &[(&str, u32)], budget: &budget::Config, contacts: u64) -> Self {
        let configured: Vec<_> = accounts
            .iter()
            .map(|(name, _)| account::Config {
                name: (*name).to_owned(),
                account_id: (*name).to_owned(),
                client_id: format!("cs-{name}"),
                ..account::Config::default()
            })
            .collect();
        let registry = Registry::new().unwrap();
        let calls = accounts.iter().map(|(_, calls)| *calls);
        let accounts = Accounts::new(&configured).unwrap();
        let budgets = Budgets::new(
            accounts.iter().zip(calls),
            budget,
            walk::Config::default().refresh_share,
            &budget::Metrics::new(&registry).unwrap(),
            Instant::now(),
        );
        Self {
            upstream: Arc::new(Upstream {
                contacts,
                ..Upstream::default()
            }),
            accounts,
            budgets: Arc::new(budgets),
            registry,
        }
    }

    /// One page of ten contacts.
    pub(super) fn page(&self, account: &str, stream: &str, skip: u64) -> PageKey {
        let ListKey { collection, epoch } = self.list(account, stream);
        PageKey {
            collection,
            epoch,
            window: Window { skip, limit: 10 },
        }
    }

    pub(super) fn list(&self, account: &str, stream: &str) -> ListKey {
        let account = self.accounts.get(account).unwrap().clone();
        let collection = Arc::new(Collection::new(account, StreamId::parse(stream).unwrap()));
        ListKey {
            epoch: collection.epoch(),
            collection,
        }
    }

    /// All below the caches.
    pub(super) fn below(&self) -> impl FetchPage + use<> {
        let upstream = self.upstream.clone();
        let attempts = service_fn(move |fetch: Fetch<PageKey>| {
            let upstream = upstream.clone();
            async move { upstream.answer(fetch).await }.boxed()
        });
        let told = account::Config::default();
        let credential = |account| {
            let secret = Sources::from(Some(Secret::new("secret")));
            (account, &told, secret)
        };
        let credentials = Arc::new(Credentials::new(
            self.accounts.iter().map(credential),
            &token::Config::default(),
            None,
            dice,
            &token::Metrics::new(&self.registry).unwrap(),
        ));
        let Self {
            budgets, registry, ..
        } = self;
        let breaker = Breaker::new(breaker::Metrics::new(registry).unwrap());
        let budgets = (budgets.clone(), &breaker);
        let retried = retry::Metrics::new(registry).unwrap();
        sparingly(attempts, retried, &credentials, budgets)
    }

    /// The pages' cache.
    pub(super) fn pages<S: FetchPage>(
        &self,
        lifetime: Lifetime,
        below: S,
    ) -> impl ServePage + use<S> {
        let metrics = testing::metrics("pages");
        let held = store::Pages::new(1 << 30, lifetime, metrics.clone());
        let held = Arc::new(cache::Held::new(Arc::new(held)));
        ServiceBuilder::new()
            .layer(cache::layer(held, forced(), lifetime, dice, metrics))
            .service(below)
    }

    /// The lists' cache and the walk, eight pages of a hundred at once.
    pub(super) fn lists<S: FetchPage>(
        &self,
        lifetime: Lifetime,
        below: S,
    ) -> impl ServeList + use<S> {
        self.lists_of(walk::Config::default(), lifetime, below)
    }

    /// The same, with a walk that is told otherwise.
    pub(super) fn lists_of<S: FetchPage>(
        &self,
        config: walk::Config,
        lifetime: Lifetime,
        below: S,
    ) -> impl ServeList + use<S> {
        let metrics = testing::metrics("lists");
        let held = store::Lists::new(1 << 30, metrics.clone());
        let held = Arc::new(cache::Held::new(Arc::new(held)));
        let walks = walk::Metrics::new(&Registry::new().unwrap()).unwrap();
        ServiceBuilder::new()
            .layer(cache::layer(held, forced(), lifetime, dice, metrics))
            .layer(walk::layer(
                config,
                false,
                self.budgets.clone(),
                Drain::default(),
                walks,
            ))
            .service(below)
    }
}

/// A request for a list, which waits thirty seconds.
pub(super) fn bulk(key: ListKey) -> Request<ListKey> {
    let mut request = testing::request(key);
    request.terms.class = Class::Bulk;
    request
}

/// As many as there are by default.
fn forced() -> Arc<Forced> {
    Arc::new(Forced::new(cache::Config::default().forced_per_minute))
}

/// Evenly from 0 to 1, and the same in each run.
fn dice() -> f64 {
    thread_local!(static NEXT: Cell<u64> = const { Cell::new(0) });
    let next = NEXT.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    NEXT.set(next);
    next as f64 / u64::MAX as f64
}
