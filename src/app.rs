//! The list: how a request goes, outermost first. The only file that knows the order.
//!
//! # What `workers` means
//!
//! One runtime of so many threads serves callers; the thread that started the process accepts nothing but probes. The
//! other way, a runtime for each thread and connections handed out in turn, was built and measured beside it. On two
//! cores, medians of five rounds, CPU for each cached page as a ratio to a bare hyper server in the same run:
//!
//! | | 1 worker | 2 workers | p99, 1 and 2 workers |
//! | --- | --- | --- | --- |
//! | a runtime for each thread | 1.21 | 1.24 | 2.3 ms, 4.5 ms |
//! | one runtime | 1.25 | 1.19 | 1.5 ms, 1.7 ms |
//!
//! The cost is the same within the noise of 5 %. The tail is not: where a thread is held up (here the load generator
//! shared the second core), its connections wait for it unless another may take them. And nothing needs to be handed
//! over. (`tests/load/run --rounds 5 --seconds 4 --workers 1,2`)

use std::{
    convert::Infallible,
    hash::{BuildHasher, RandomState},
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join, join_all},
};
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    select,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceBuilder};
use tracing::{info, warn};

use crate::{
    admin::{
        Admin, Readiness, guard,
        operate::Operate,
        overview::{Overview, Sources},
    },
    config::Config,
    contacts::{
        account::{Accounts, Malformed},
        cache::{self, entry::Lifetime, forced::Forced, store},
        collections::Collections,
        compress,
        copies::Copies,
        follow,
        journal::{self, Journal},
        slice,
        walk::{
            self,
            stream::{self, Streams},
        },
    },
    edge::{
        body::Body,
        caller::{self, Callers},
        key::{self, Keys},
        limit, local, rescue, respond,
        route::{Resolver, Route, query::Style},
        server::{
            self, Server,
            tls::{self, Certificate, TlsProblem},
        },
        trace,
        workers::Workers,
    },
    metrics::{self, Registry},
    panics::{self, Background},
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

/// What callers reach: a request to a response, whatever happens. And what operators can ask about it.
fn traffic(
    config: &Config,
    accounts: Arc<Accounts>,
    credentials: &Arc<Credentials>,
    budgets: Budgets,
    registry: &Registry,
    background: &Background,
    (traced, refused): (trace::Metrics, key::Metrics),
) -> Result<(impl Traffic, Operate, Overview), StartError> {
    let callers = Callers::new(&config.callers, &config.accounts, &accounts, registry)?;
    let anyone = callers.are_none();
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
            fetch::Metrics::new(registry, accounts.iter())?,
        ))
        // Signed last, so that no token grows old while its request waits.
        .layer(token::layer(credentials.clone(), SystemTime::now))
        .service(Client::new(&config.upstream)?);
    let budgets = Arc::new(budgets);
    let breaker = Breaker::new(breaker::Metrics::new(registry)?);
    let upstream = sparingly(
        attempts,
        &accounts,
        credentials,
        (budgets.clone(), &breaker),
        registry,
    )?;
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
    // Until the stores are gone.
    let (lists, pages) = (Arc::downgrade(&held_lists), Arc::downgrade(&held_pages));
    tokio::spawn(background.keep("sweep_lists", move || store::keep_swept(lists.clone())));
    tokio::spawn(background.keep("sweep_pages", move || store::keep_swept(pages.clone())));
    let collections = Collections::new(config.edge.collections_max, held_lists.clone());
    let held_pages = Arc::new(cache::Held::new(held_pages));
    let held_lists = Arc::new(cache::Held::new(held_lists));
    let copies = Copies::new(accounts.clone(), held_pages.clone(), held_lists.clone());
    let resolver = Resolver::new(
        config.edge.clone(),
        config.merge.wait_max,
        style,
        accounts,
        collections,
    );
    let resolver = Arc::new(resolver);
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
            walk::Metrics::new(registry)?,
        ))
        .service(upstream.clone());
    // Reads upstream itself as well, and keeps nothing.
    let streams = Streams::new(
        config.merge.clone(),
        in_pages,
        stream::Metrics::new(registry)?,
        upstream.clone(),
    );
    let lines = ServiceBuilder::new()
        // Above the copies, which it answers from where there is one. Lines are not compressed.
        .layer(follow::layer(streams, of_lists.clone()))
        .service(lists.clone());
    let lists = ServiceBuilder::new()
        // Above the copies, since an encoding is made once for each and kept beside it.
        .layer(compress::layer(held_lists, &of_lists))
        .service(lists);

    let pages = ServiceBuilder::new()
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
        // Outermost, so that every request has a name, a count and a line, refused ones included.
        .layer(trace::layer(number_of_this_start(), callers, traced))
        // Below it everything is an answer or an error; above it everything is HTTP.
        .layer(respond::layer(config.merge.wait_max))
        // A panic below is an error as well, and this request's alone.
        .layer(rescue::layer())
        // Before anything is read: a web page in somebody's browser must not get this far.
        .layer(local::layer(anyone, local::Pages::None))
        // Below it nobody is unknown, nor asks more often than agreed.
        .layer(caller::layer(refused))
        // After those who may not ask, so that they take no place from those who wait.
        .layer(limit::layer(
            config.edge.waiting_max,
            limit::Metrics::new(registry)?,
        ))
        // The last stage that sees a header. Below it travel a key and terms.
        .service(Route::new(resolver.clone(), pages, lists, lines));
    let overview = Overview::new(Sources {
        registry: registry.clone(),
        resolver: resolver.clone(),
        credentials: credentials.clone(),
        budgets,
        breaker,
        journal,
    });
    Ok((traffic, Operate::new(resolver, copies), overview))
}

/// What stands between a flight and its attempts.
fn sparingly<S: FetchPage>(
    attempts: S,
    accounts: &Accounts,
    credentials: &Arc<Credentials>,
    (budgets, breaker): (Arc<Budgets>, &Arc<Breaker>),
    registry: &Registry,
) -> metrics::Result<impl FetchPage + use<S>> {
    Ok(ServiceBuilder::new()
        // One more try for a flight, none for its waiters; each one goes through all that follows.
        .layer(retry::layer(
            chance,
            retry::Metrics::new(registry, accounts.iter())?,
        ))
        // Above the budget: what need not be tried need not wait for its turn. First whether there is a credential for it,
        .layer(gate::layer(credentials.clone(), SystemTime::now))
        // then whether upstream is there at all.
        .layer(breaker.gate())
        // Each attempt has paid for itself; here it may wait a minute.
        .layer(budget::layer(budgets))
        // Meanwhile the breaker may have opened. What is not sent after all costs no slot.
        .layer(breaker.watch())
        .service(attempts))
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
            fetch::Metrics::new(&Registry::new()?, [])?,
        ))
        .layer(token::layer(credentials.clone(), SystemTime::now))
        // Last, so that it counts what is really sent, and sees answers that the others refuse.
        .layer(witness.layer())
        .service(client))
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
    admin: Admin,
    tokens: Keys<()>,
    (traced, refused): (trace::Metrics, key::Metrics),
) -> impl Traffic {
    ServiceBuilder::new()
        // Operators are no callers: whoever is let through may ask about everything.
        .layer(trace::layer(
            number_of_this_start(),
            Callers::default(),
            traced,
        ))
        // No lists here, so nobody waits for one.
        .layer(respond::layer(Duration::ZERO))
        .layer(rescue::layer())
        .layer(local::layer(tokens.is_empty(), local::Pages::Own))
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

/// Connections to the admin listener at once.
const ADMIN_CONNECTIONS_MAX: usize = 100;

/// How long the admin listener's own connections are waited for at the very end.
const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// What the admin listener's connections are held to: the same as callers', but for their number. When it stops, nobody
/// has to be waited for who asks nothing.
fn limits_of_operators(of_callers: server::Limits) -> server::Limits {
    server::Limits {
        connections_max: ADMIN_CONNECTIONS_MAX,
        peer_connections_max: ADMIN_CONNECTIONS_MAX,
        deadlines: server::Deadlines {
            drain_idle: Duration::ZERO,
            ..of_callers.deadlines
        },
        ..of_callers
    }
}

/// What each listener shows, of callers and of operators, where it speaks TLS. Read here, blocking.
#[expect(
    clippy::type_complexity,
    reason = "two of the same, told apart by their order"
)]
fn certificates(
    config: &Config,
    registry: &Registry,
) -> Result<(Option<Arc<Certificate>>, Option<Arc<Certificate>>), StartError> {
    let (of_callers, of_operators) = (&config.listen.tls, &config.admin.tls);
    if !of_callers.is_on() && !of_operators.is_on() {
        return Ok((None, None));
    }
    let families = tls::Families::new(registry)?;
    let read = |key, tls: &tls::Config, listener| {
        let unusable = |source| StartError::Certificate { key, source };
        let certificate = tls
            .is_on()
            .then(|| Certificate::new(tls.clone(), listener, &families));
        certificate.transpose().map_err(unusable)
    };
    let of_callers = read("listen.tls", of_callers, "traffic")?;
    Ok((of_callers, read("admin.tls", of_operators, "admin")?))
}

/// Why the gateway did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address} ({key}): {}", told(.source))]
    Listen {
        key: &'static str,
        address: SocketAddr,
        source: io::Error,
    },
    #[error(
        "{key} is {address}, and only loopback addresses (127.0.0.1, [::1]) are allowed without {without}"
    )]
    NotLoopback {
        key: &'static str,
        address: SocketAddr,
        /// What would have to be configured.
        without: &'static str,
    },
    #[error("admin.token_sha256 holds something else than the SHA-256 of a token")]
    Token,
    #[error(transparent)]
    Callers(#[from] caller::Unusable),
    #[error("{key}: {source}")]
    Certificate {
        key: &'static str,
        source: TlsProblem,
    },
    #[error(transparent)]
    Account(#[from] Malformed),
    #[error("the operating system's certificates cannot be loaded: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the metrics contradict each other: {0}")]
    Metrics(#[from] metrics::Error),
    #[error("the worker threads cannot be started: {0}")]
    Workers(io::Error),
}

/// What an operator can do about a socket that cannot be bound.
fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it, or choose another port (0 takes a free one)"
                .to_owned()
        }
        _ => error.to_string(),
    }
}

/// A gateway whose listeners are bound, and which answers nobody yet.
pub struct App {
    /// Where callers connect.
    pub traffic: SocketAddr,
    /// Where operators, probes and Prometheus connect.
    pub admin: SocketAddr,
    serve_traffic: BoxFuture<'static, ()>,
    serve_admin: BoxFuture<'static, ()>,
    watch_files: BoxFuture<'static, ()>,
    credentials: Arc<Credentials>,
    stop_traffic: CancellationToken,
    stop_admin: CancellationToken,
    /// Cancelled by an operator who asks for the drain.
    drain: CancellationToken,
    readiness: Readiness,
    drain_timeout: Duration,
    workers: Workers,
}

impl App {
    /// Builds the gateway and binds its listeners. `secrets` are those of `config.accounts`, in their order, and are read
    /// here, blocking; an account without one starts disabled. With a token service, only its own is looked at.
    ///
    /// # Errors
    /// If a listener's address is taken, or the system lacks something that is needed.
    pub async fn bind(config: &Config, secrets: impl Into<Secrets>) -> Result<Self, StartError> {
        let secrets = secrets.into();
        let registry = Registry::new()?;
        panics::count(&registry)?;
        let background = Background::new(&registry)?;
        let accounts = Arc::new(Accounts::new(&config.accounts)?);
        let credentials = credentials(config, &accounts, secrets, &registry)?;
        let budgets = budgets(config, &accounts, &registry)?;
        let [by_callers, by_operators] = trace::Metrics::new(&registry)?;
        let [unknown_callers, unknown_operators] = key::Metrics::new(&registry)?;
        let tokens = config.admin.tokens().ok_or(StartError::Token)?;
        let no_token = tokens.is_empty().then_some("admin.token_sha256");
        let no_callers = config.callers.is_empty().then_some("[[callers]]");
        let (traffic, operate, overview) = traffic(
            config,
            accounts,
            &credentials,
            budgets,
            &registry,
            &background,
            (by_callers, unknown_callers),
        )?;
        let readiness = Readiness::default();
        tokio::spawn(background.keep("watch_figures", {
            let overview = overview.clone();
            move || overview.clone().watch()
        }));
        let drain = CancellationToken::new();
        let operations = operations(
            Admin::new(
                registry.clone(),
                readiness.clone(),
                operate,
                overview,
                drain.clone(),
            ),
            tokens,
            (by_operators, unknown_operators),
        );

        let (of_callers, of_operators) = certificates(config, &registry)?;
        let listen = async |key,
                            address: SocketAddr,
                            lacking,
                            limits,
                            tls: Option<&Arc<Certificate>>,
                            metrics| {
            let unbound = |source| StartError::Listen {
                key,
                address,
                source,
            };
            // Checked here and not only in the configuration, since not everybody comes through a file.
            if let Some(without) = lacking
                && !address.ip().to_canonical().is_loopback()
            {
                return Err(StartError::NotLoopback {
                    key,
                    address,
                    without,
                });
            }
            let server = Server::bind(address, limits, metrics).await;
            let acceptor = tls.map(Certificate::acceptor).transpose()?;
            let server = server.map_err(unbound)?.over(acceptor);
            let address = server.address().map_err(unbound)?;
            Ok::<_, StartError>((server, address))
        };
        let [from_callers, from_operators] = server::Metrics::new(&registry)?;
        let (callers, traffic_at) = listen(
            "listen.address",
            config.listen.address,
            no_callers,
            config.listen.limits(),
            of_callers.as_ref(),
            from_callers,
        )
        .await?;
        let (operators, admin_at) = listen(
            "admin.address",
            config.admin.address,
            no_token,
            limits_of_operators(config.listen.limits()),
            of_operators.as_ref(),
            from_operators,
        )
        .await?;
        let watched = [of_callers, of_operators].into_iter().flatten();
        let watch_certificates = watched.map(|certificate| {
            let every = config.token.secret_poll;
            background.keep("watch_certificates", move || {
                certificate.clone().watch(every)
            })
        });
        let watch_certificates = join_all(watch_certificates);
        let watch_secrets = background.keep("watch_secrets", {
            let (credentials, every) = (credentials.clone(), config.token.secret_poll);
            move || credentials.clone().watch(every)
        });
        let workers = Workers::start(config.listen.workers).map_err(StartError::Workers)?;
        let (stop_traffic, stop_admin) = (CancellationToken::new(), CancellationToken::new());
        Ok(Self {
            traffic: traffic_at,
            admin: admin_at,
            serve_traffic: callers.serve(traffic, stop_traffic.clone()).boxed(),
            serve_admin: operators.serve(operations, stop_admin.clone()).boxed(),
            watch_files: join(watch_secrets, watch_certificates).map(drop).boxed(),
            credentials,
            stop_traffic,
            stop_admin,
            drain,
            readiness,
            drain_timeout: config.listen.drain_timeout,
            workers,
        })
    }

    /// The accounts' credentials, to have their secrets read again.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// Serves until `stop` or until an operator asks for the drain, then stops accepting and finishes what is in flight, within the drain's timeout. The admin
    /// listener answers to the end.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let admin = tokio::spawn(self.serve_admin);
        let watching = tokio::spawn(self.watch_files);
        let mut traffic = self.workers.spawn(self.serve_traffic);
        self.readiness.set(true);
        info!(traffic = %self.traffic, admin = %self.admin, "serving");
        select! {
            () = stop => {}
            () = self.drain.cancelled() => {}
        }
        self.readiness.set(false);
        watching.abort();
        info!("draining");
        self.stop_traffic.cancel();
        if time::timeout(self.drain_timeout, &mut traffic)
            .await
            .is_err()
        {
            traffic.abort();
            warn!(timeout = ?self.drain_timeout, "requests in flight were abandoned at the end of the drain");
        }
        self.stop_admin.cancel();
        // Idle probes need not be waited for.
        let _ = time::timeout(ADMIN_DRAIN_TIMEOUT, admin).await;
        info!("stopped");
    }
}

#[cfg(test)]
mod following;
#[cfg(test)]
mod outage;
#[cfg(test)]
mod spending;
#[cfg(test)]
mod stack;
#[cfg(test)]
mod waiting;
