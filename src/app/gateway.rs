//! The gateway from its bound listeners to its drain.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join, join_all},
};
use tokio::{
    select,
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    StartError,
    listeners::{certificates, limits_of_operators, listen},
    live, operations, traffic,
};
use crate::{
    admin::{Admin, Readiness},
    config::Config,
    contacts::drain::Drain,
    edge::{key, server, trace, workers::Workers},
    metrics::Registry,
    panics::{self, Background},
    reload::{self, Reloader},
    systemd::{Manager, inherited::Inherited, notify::State},
    telemetry::{self, verbosity::Verbosity},
    upstream::token::{Credentials, Secrets},
};

/// Of the drain, what is left for telling those who still wait that they wait in vain; at most a quarter of it.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long the admin listener's own connections are waited for at the very end.
const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A task that everything depends on has ended, though nothing told it to.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} are served no more, which is a fault of the gateway's own: it ends, so that it can be started again"
)]
pub struct Lost(&'static str);

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
    reloader: Arc<Reloader>,
    verbosity: Arc<Verbosity>,
    registry: Registry,
    stop_traffic: CancellationToken,
    stop_admin: CancellationToken,
    /// Cancelled by an operator who asks for the drain.
    asked_to_drain: CancellationToken,
    readiness: Readiness,
    drain: Drain,
    drain_delay: Duration,
    drain_timeout: Duration,
    manager: Manager,
    workers: Workers,
}

impl App {
    /// Builds the gateway and binds its listeners. `secrets` are those of `config.accounts`, in their order, and are read
    /// here, blocking; an account without one starts disabled. With a token service, only its own is looked at.
    ///
    /// # Errors
    /// If a listener's address is taken, or the system lacks something that is needed.
    pub async fn bind(config: &Config, secrets: impl Into<Secrets>) -> Result<Self, StartError> {
        Self::bind_or_inherit(config, secrets, Inherited::default()).await
    }

    /// The same on sockets that were handed over, and that outlive this gateway.
    ///
    /// # Errors
    /// As well if such a socket is not where the configuration says.
    pub async fn bind_or_inherit(
        config: &Config,
        secrets: impl Into<Secrets>,
        inherited: Inherited,
    ) -> Result<Self, StartError> {
        let secrets = secrets.into();
        let registry = Registry::new()?;
        panics::count(&registry)?;
        telemetry::count(&registry)?;
        let background = Background::new(&registry)?;
        let drain = Drain::default();
        let [of_callers, of_operators] = certificates(config, &registry)?;
        let certificates = [&of_callers, &of_operators].into_iter().flatten();
        let certificates = certificates.cloned().collect();
        let live = live(config, secrets, certificates, &registry)?;
        let [by_callers, by_operators] = trace::Metrics::new(&registry)?;
        let [unknown_callers, unknown_operators] = key::Metrics::new(&registry)?;
        let no_token = live
            .tokens
            .load()
            .is_empty()
            .then_some("admin.token_sha256");
        let no_callers = config.callers.is_empty().then_some("[[callers]]");
        let (traffic, operate, overview) = traffic(
            config,
            &live,
            &registry,
            (&background, &drain),
            (by_callers, unknown_callers),
        )?;
        let readiness = Readiness::default();
        let (tokens, credentials) = (live.tokens.clone(), live.credentials.clone());
        let reloads = reload::Metrics::new(&registry)?;
        let reloader = Reloader::new(live, config.clone(), reloads);
        tokio::spawn(background.keep("watch_figures", {
            let overview = overview.clone();
            move || overview.clone().watch()
        }));
        let verbosity = Verbosity::new(config.log.level);
        tokio::spawn(background.keep("log_level", {
            let verbosity = verbosity.clone();
            move || verbosity.clone().keep()
        }));
        let asked_to_drain = CancellationToken::new();
        let operations = operations(
            (config.log.access_share, config.listen.headers_max),
            Admin::new(
                registry.clone(),
                readiness.clone(),
                operate,
                reloader.clone(),
                verbosity.clone(),
                overview,
                asked_to_drain.clone(),
            ),
            tokens,
            (by_operators, unknown_operators),
        );

        let [from_callers, from_operators] = server::Metrics::new(&registry)?;
        let (callers, traffic_at) = listen(
            "listen.address",
            (config.listen.address, inherited.traffic),
            no_callers,
            config.listen.limits(),
            of_callers.as_ref(),
            from_callers,
        )
        .await?;
        let (operators, admin_at) = listen(
            "admin.address",
            (config.admin.address, inherited.admin),
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
            reloader,
            verbosity,
            registry,
            stop_traffic,
            stop_admin,
            asked_to_drain,
            readiness,
            drain,
            drain_delay: config.listen.drain_delay,
            drain_timeout: config.listen.drain_timeout,
            manager: Manager::default(),
            workers,
        })
    }

    /// The accounts' credentials, to have their secrets read again.
    pub fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    /// What it tells of itself.
    pub fn metrics(&self) -> &Registry {
        &self.registry
    }

    /// Tells a service manager how it is from now on.
    #[must_use]
    pub fn managed_by(self, manager: Manager) -> Self {
        Self { manager, ..self }
    }

    /// What reads the configuration again, once it is told where from.
    pub fn reloader(&self) -> &Arc<Reloader> {
        &self.reloader
    }

    /// How much is written to the log, once there is one that follows it.
    pub fn verbosity(&self) -> &Arc<Verbosity> {
        &self.verbosity
    }

    /// Serves until `stop`, or until an operator asks for the drain. Then it stops accepting and finishes what is in flight,
    /// within the drain's timeout. The admin listener answers to the end.
    ///
    /// # Errors
    /// If a listener is served no more, though nothing told it to stop.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Lost> {
        let manager = self.manager;
        let mut watchdog = manager.watchdog();
        let mut admin = tokio::spawn(watchdog.watch("admin", self.serve_admin));
        let watching = tokio::spawn(self.watch_files);
        let mut traffic = self
            .workers
            .spawn(watchdog.watch("traffic", self.serve_traffic));
        let reassuring = manager.reassure(watchdog);
        self.readiness.set(true);
        info!(traffic = %self.traffic, admin = %self.admin, "serving");
        let serving = format!("serving callers on {}", self.traffic);
        manager.tell(&State::Ready(&serving));
        let lost = select! {
            () = stop => None,
            () = self.asked_to_drain.cancelled() => None,
            _ = &mut traffic => Some(Lost("callers")),
            _ = &mut admin => Some(Lost("operators")),
        };
        // First of all, so that nobody is sent here any more; then they are given the time to see it.
        self.readiness.set(false);
        if let Some(lost) = lost {
            manager.tell(&State::Stopping("a listener is served no more"));
            return Err(lost);
        }
        manager.tell(&State::Stopping("draining"));
        info!(delay = ?self.drain_delay, timeout = ?self.drain_timeout, "draining");
        time::sleep(self.drain_delay).await;
        watching.abort();
        let words = LAST_WORDS.min(self.drain_timeout / 4);
        let by = Instant::now() + self.drain_timeout - words;
        // The connections first: whoever is told that its list is abandoned is also told that it has to connect anew.
        self.stop_traffic.cancel();
        self.drain.begin(by);
        if time::timeout(self.drain_timeout, &mut traffic)
            .await
            .is_err()
        {
            traffic.abort();
            warn!(timeout = ?self.drain_timeout, "requests in flight were abandoned at the end of the drain");
        }
        let abandoned = self.drain.abandoned();
        if !abandoned.is_empty() {
            let lists = abandoned.len();
            warn!(lists, collections = %abandoned, "lists were being read, and are abandoned: whoever asks next has them read anew");
        }
        reassuring.abort();
        self.stop_admin.cancel();
        // Idle probes need not be waited for.
        let _ = time::timeout(ADMIN_DRAIN_TIMEOUT, admin).await;
        info!("stopped");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, net::SocketAddr};

    use super::*;
    use crate::upstream::secret::Sources;

    /// Catches a gateway that says it is ready, and lets nobody in.
    #[tokio::test]
    async fn it_ends_where_a_listener_does() {
        let mut config = Config::default();
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        (config.listen.address, config.admin.address) = (free, free);
        for callers in [true, false] {
            let mut app = App::bind(&config, Vec::<Sources>::new()).await.unwrap();
            let readiness = app.readiness.clone();
            let ended = if callers {
                &mut app.serve_traffic
            } else {
                &mut app.serve_admin
            };
            *ended = async { panic!("one that was asked for") }.boxed();
            let told = app.run(pending()).await.unwrap_err().to_string();
            let whose = if callers { "callers " } else { "operators " };
            assert!(told.starts_with(whose), "{told}");
            assert!(!readiness.is_ready());
        }
    }
}
