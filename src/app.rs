//! The list: how a request goes, outermost first. The only file that knows the order.
//!
//! Its listeners, its start and its drain are beside it.

use std::{
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tower::{Service, ServiceBuilder};

pub use self::{
    gateway::{App, Lost},
    start::StartError,
};
use crate::{
    admin::{
        Admin,
        guard::{self, Tokens},
        operate::Operate,
        overview::{Overview, Sources},
    },
    config::Config,
    contacts::{
        account::Accounts,
        cache::{self, entry::Lifetime, forced::Forced, store},
        collections::{self, Collections},
        compress,
        copies::Copies,
        drain::Drain,
        follow,
        journal::{self, Journal},
        slice,
        sweep::keep_swept,
        tally,
        walk::{
            self,
            stream::{self, Streams},
        },
    },
    edge::{
        Inbound,
        body::Body,
        caller::{self, Asker, Callers, Roster},
        complete, drain, head, key, limit, local, rescue, respond,
        route::{Resolver, Route, query::Style},
        server::tls::Certificate,
        trace,
    },
    metrics::{self, Registry},
    panics::Background,
    reload::{Live, Series},
    service::FetchPage,
    upstream::{
        self, Paging,
        breaker::{self, Breaker},
        budget::{self, Budgets},
        client::Client,
        fetch, retry,
        token::{self, Credentials, Secrets, TokenService, gate},
        witness::Witness,
    },
};

mod gateway;
mod listeners;
mod start;

/// What callers reach: a request to a response, whatever happens. And what operators can ask about it.
fn traffic(
    config: &Config,
    live: &Live,
    registry: &Registry,
    (background, drain): (&Background, &Drain),
    (traced, refused): (trace::Metrics, key::Metrics),
) -> Result<(impl Traffic, Operate, Overview), StartError> {
    let (credentials, tallied) = (&live.credentials, live.series.tallied.clone());
    let caches = cache::Families::new(registry)?;
    let (of_pages, of_lists) = (caches.of("pages"), caches.of("lists"));
    let lists_bytes = config.cache.lists_max_bytes.as_u64();
    let pages_bytes = config.cache.max_bytes.as_u64().saturating_sub(lists_bytes);
    let in_pages = config.upstream.paging == Paging::PageLimit;
    let style = if in_pages { Style::Page } else { Style::Skip };

    let attempts = ServiceBuilder::new()
        // A window becomes a request, and its answer a page: judged before anybody believes it.
        .layer(fetch::layer(
            config.upstream.clone(),
            live.series.attempted.clone(),
        ))
        // Signed last, so that no token grows old while its request waits.
        .layer(token::layer(credentials.clone(), SystemTime::now))
        .service(Client::new(&config.upstream)?);
    let budgets = live.budgets.clone();
    let breaker = Breaker::new(breaker::Metrics::new(registry)?);
    let upstream = sparingly(
        attempts,
        live.series.retried.clone(),
        credentials,
        (budgets.clone(), &breaker),
    );
    let spent = budgets.clone();
    registry.before_scrape(move |now| spent.show(now));
    let journal = Arc::new(Journal::default());
    let upstream = ServiceBuilder::new()
        // Above the retry: what it cures is nothing that operators must know.
        .layer(journal::layer(journal.clone()))
        .service(upstream);

    let forced = Arc::new(Forced::new(config.cache.forced_per_minute));
    let held_lists = Arc::new(store::Lists::new(lists_bytes, of_lists.clone()));
    let of_a_page = Lifetime {
        fresh_for: config.cache.fresh_for,
        stale_for: config.cache.stale_for,
    };
    let held_pages = Arc::new(store::Pages::new(pages_bytes, of_a_page, of_pages.clone()));
    let collections = Collections::new(config.edge.collections_max, held_lists.clone());
    let held_pages = Arc::new(cache::Held::new(held_pages));
    let held_lists = Arc::new(cache::Held::new(held_lists));
    // Until they are gone.
    let (lists, pages) = (Arc::downgrade(&held_lists), Arc::downgrade(&held_pages));
    tokio::spawn(background.keep("sweep_lists", move || {
        keep_swept(lists.clone(), cache::Held::sweep)
    }));
    tokio::spawn(background.keep("sweep_pages", move || {
        keep_swept(pages.clone(), cache::Held::sweep)
    }));
    let copies = Copies::new(
        live.accounts.clone(),
        held_pages.clone(),
        held_lists.clone(),
    );
    let resolver = Resolver::new(
        config.edge.clone(),
        config.merge.wait_max,
        style,
        collections,
    );
    let resolver = Arc::new(resolver);
    let names = Arc::downgrade(&resolver);
    tokio::spawn(background.keep("sweep_names", move || {
        let sweep = |resolver: &Resolver, _| resolver.collections().sweep();
        keep_swept(names.clone(), sweep)
    }));
    let (known, standing) = (resolver.clone(), collections::Metrics::new(registry)?);
    let configured = live.accounts.clone();
    registry.before_scrape(move |now| known.show(&configured.load(), &standing, now));
    let lists = ServiceBuilder::new()
        // One walk for all who ask, and none while its list is fresh. Who cannot wait for it is told how far it is.
        .layer(cache::layer(
            held_lists.clone(),
            forced.clone(),
            Lifetime {
                fresh_for: config.merge.fresh_for,
                stale_for: config.cache.stale_for,
            },
            chance,
            of_lists.clone(),
        ))
        // What becomes of a list that could not be made of its pages.
        .layer(journal::layer(journal.clone()))
        // Reads upstream itself: neither uses nor fills the pages, whose copies may be older than its list.
        .layer(walk::layer(
            walk::Config {
                // What could not be kept is not worth its calls.
                bytes_max: config.merge.bytes_max.min(config.cache.lists_max_bytes),
                ..config.merge.clone()
            },
            in_pages,
            budgets.clone(),
            drain.clone(),
            walk::Metrics::new(registry)?,
        ))
        .service(upstream.clone());
    // Reads upstream itself as well, and keeps nothing.
    let streams = Streams::new(
        config.merge.clone(),
        in_pages,
        budgets.clone(),
        drain.clone(),
        stream::Metrics::new(registry)?,
        upstream.clone(),
    );
    let lines = ServiceBuilder::new()
        // As for the others below.
        .layer(tally::layer(tallied.clone()))
        // Above the copies, which it answers from where there is one. Lines are not compressed.
        .layer(follow::layer(streams, of_lists.clone()))
        .service(lists.clone());
    let lists = ServiceBuilder::new()
        // As for pages.
        .layer(tally::layer(tallied.clone()))
        // Above the copies, since an encoding is made once for each and kept beside it.
        .layer(compress::layer(held_lists, &of_lists))
        .service(lists);

    let pages = ServiceBuilder::new()
        // Above all that can answer, so that each request for a collection is counted once, by what its caller gets.
        .layer(tally::layer(tallied))
        // Above the pages' copies: what a list can answer need not be kept twice.
        .layer(slice::layer(of_pages.clone()))
        // Below the slices, which are not kept and so not compressed.
        .layer(compress::layer(held_pages.clone(), &of_pages))
        // One flight for all who ask, and none while its page is fresh.
        .layer(cache::layer(
            held_pages, forced, of_a_page, chance, of_pages,
        ))
        .service(upstream);

    let traffic = ServiceBuilder::new()
        // Outermost, so that every request has a name, a count and a line, refused ones included. Who may ask for what is
        // read here, once: what a reload changes is for the next request.
        .layer(trace::layer(
            number_of_this_start(),
            config.log.access_share,
            live.callers.clone(),
            traced,
        ))
        // Below it everything is an answer or an error; above it everything is HTTP.
        .layer(respond::layer(config.merge.wait_max))
        // Above all that may wait: at the end of the drain it is told instead of cut.
        .layer(drain::layer(drain.clone()))
        // A panic below is an error as well, and this request's alone.
        .layer(rescue::layer())
        // Before anything is looked at: too many header lines, what others may have read as a request for another host,
        .layer(head::layer(config.listen.headers_max))
        // and what a web page in somebody's browser asks for.
        .layer(local::layer(
            |inbound: &Inbound| matches!(inbound.asker, Asker::Anyone(_)),
            local::Pages::None,
        ))
        // Below it nobody is unknown, nor asks more often than agreed.
        .layer(caller::layer(refused))
        // Who waits for the gateway's own work alone is not counted among those who wait for upstream,
        .layer(complete::layer())
        // and those who may not ask take no place from them.
        .layer(limit::layer(
            config.edge.waiting_max,
            limit::Metrics::new(registry)?,
        ))
        // The last stage that sees a header. Below it travel a key and terms.
        .service(Route::new(resolver.clone(), pages, lists, lines));
    let overview = Overview::new(Sources {
        registry: registry.clone(),
        accounts: live.accounts.clone(),
        resolver: resolver.clone(),
        credentials: credentials.clone(),
        budgets: live.budgets.clone(),
        breaker,
        journal,
    });
    let operate = Operate::new(resolver, copies, live.callers.clone());
    Ok((traffic, operate, overview))
}

/// What stands between a flight and its attempts.
fn sparingly<S: FetchPage>(
    attempts: S,
    retried: retry::Metrics,
    credentials: &Arc<Credentials>,
    (budgets, breaker): (Arc<Budgets>, &Arc<Breaker>),
) -> impl FetchPage + use<S> {
    ServiceBuilder::new()
        // One more try for a flight, none for its waiters; each one goes through all that follows.
        .layer(retry::layer(chance, retried))
        // Above the budget: what need not be tried need not wait for its turn. First whether there is a credential for it,
        .layer(gate::layer(credentials.clone(), SystemTime::now))
        // then whether upstream is there at all.
        .layer(breaker.gate())
        // Each attempt has paid for itself; here it may wait a minute.
        .layer(budget::layer(budgets))
        // Meanwhile the breaker may have opened. What is not sent after all costs no slot.
        .layer(breaker.watch())
        .service(attempts)
}

/// What `doctor` sends its calls through: the stages that every attempt goes through, without those above it that would
/// try again or refuse to.
pub(crate) fn examined(
    config: &upstream::Config,
    credentials: &Arc<Credentials>,
    budgets: &Arc<Budgets>,
    client: Client,
    witness: &Witness,
) -> metrics::Result<impl FetchPage + use<>> {
    Ok(ServiceBuilder::new()
        // Paid for like any other call.
        .layer(budget::layer(budgets.clone()))
        .layer(fetch::layer(
            config.clone(),
            fetch::Metrics::new(&Registry::new()?)?,
        ))
        .layer(token::layer(credentials.clone(), SystemTime::now))
        // Last, so that it counts what is really sent, and sees answers that the others refuse.
        .layer(witness.layer())
        .service(client))
}

/// What follows the configuration while it runs. The accounts' secrets are read here, blocking.
fn live(
    config: &Config,
    secrets: Secrets,
    certificates: Vec<Arc<Certificate>>,
    registry: &Registry,
) -> Result<Live, StartError> {
    let accounts = Arc::new(Accounts::new(&config.accounts)?);
    let counted = caller::Metrics::new(registry)?;
    let callers = Callers::new(&config.callers, &config.accounts, &accounts, &counted)?;
    let tokens = config.admin.tokens().ok_or(StartError::Token)?;
    Ok(Live {
        credentials: credentials(config, &accounts, secrets, registry)?,
        budgets: Arc::new(budgets(config, &accounts, registry)?),
        series: Series::new(registry, &accounts)?,
        accounts: Arc::new(ArcSwap::new(accounts)),
        callers: Arc::new(ArcSwap::from_pointee(callers)),
        tokens: Arc::new(ArcSwap::from_pointee(tokens)),
        certificates,
        counted,
        registry: registry.clone(),
    })
}

/// The accounts' credentials. Their secrets are read here, blocking.
pub(crate) fn credentials(
    config: &Config,
    accounts: &Accounts,
    secrets: Secrets,
    registry: &Registry,
) -> Result<Arc<Credentials>, StartError> {
    let told = config.accounts.iter().zip(secrets.accounts);
    Ok(Arc::new(Credentials::new(
        accounts
            .iter()
            .zip(told)
            .map(|(account, (told, secrets))| (account, told, secrets)),
        &config.token,
        TokenService::new(&config.token, secrets.service)?.as_ref(),
        chance,
        &token::Metrics::new(registry)?,
    )))
}

/// The accounts' budgets, from now on.
pub(crate) fn budgets(
    config: &Config,
    accounts: &Accounts,
    registry: &Registry,
) -> metrics::Result<Budgets> {
    let told = config.accounts.iter();
    let allowances = told.map(|account| account.calls_per_minute);
    Ok(Budgets::new(
        accounts.iter().zip(allowances),
        &config.budget,
        config.merge.refresh_share,
        &budget::Metrics::new(registry)?,
        Instant::now(),
    ))
}

/// What operators reach, through the same edge.
fn operations(
    (access_share, headers_max): (f64, usize),
    admin: Admin,
    tokens: Tokens,
    (traced, refused): (trace::Metrics, key::Metrics),
) -> impl Traffic {
    let open = tokens.clone();
    ServiceBuilder::new()
        // Operators are no callers: whoever is let through may ask about everything.
        .layer(trace::layer(
            number_of_this_start(),
            access_share,
            Roster::default(),
            traced,
        ))
        // No lists here, so nobody waits for one.
        .layer(respond::layer(Duration::ZERO))
        .layer(rescue::layer())
        .layer(head::layer(headers_max))
        .layer(local::layer(
            move |_: &Inbound| open.load().is_empty(),
            local::Pages::Own,
        ))
        .layer(guard::layer(tokens, refused))
        .service(admin)
}

/// What a listener serves.
trait Traffic:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Traffic for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Tells this process's request ids from those of the one before it.
fn number_of_this_start() -> u32 {
    // Its keys are random; this needs no more than that.
    RandomState::new().hash_one(()) as u32
}

/// A number from 0 to 1, for what should not happen all at once.
fn chance() -> f64 {
    f64::from(number_of_this_start()) / f64::from(u32::MAX)
}

#[cfg(test)]
mod following;
#[cfg(test)]
mod leaving;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod runway;
#[cfg(test)]
mod series;
#[cfg(test)]
mod spending;
#[cfg(test)]
mod stack;
#[cfg(test)]
mod waiting;
