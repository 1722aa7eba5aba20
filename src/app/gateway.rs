//! The gateway from its bound listeners to its drain.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{
    FutureExt,
    future::{BoxFuture, join, join_all},
};
use tokio::{select, time};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    StartError, budgets, credentials,
    listeners::{certificates, limits_of_operators, listen},
    operations, traffic,
};
use crate::{
    admin::{Admin, Readiness},
    config::Config,
    contacts::account::Accounts,
    edge::{key, server, trace, workers::Workers},
    metrics::Registry,
    panics::{self, Background},
    upstream::token::{Credentials, Secrets},
};

/// How long the admin listener's own connections are waited for at the very end.
const ADMIN_DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

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

        let [of_callers, of_operators] = certificates(config, &registry)?;
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

    /// Serves until `stop`, or until an operator asks for the drain. Then it stops accepting and finishes what is in flight,
    /// within the drain's timeout. The admin listener answers to the end.
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
