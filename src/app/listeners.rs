//! The two listeners: their sockets, their certificates, and what their connections are held to.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use super::StartError;
use crate::{
    config::Config,
    edge::server::{
        self, Server,
        tls::{self, Certificate},
    },
    metrics::Registry,
    systemd::inherited::agrees,
};

/// Connections to the admin listener at once.
const ADMIN_CONNECTIONS_MAX: usize = 100;

/// What the admin listener's connections are held to: the same as callers', but for their number. When it stops, nobody
/// has to be waited for who asks nothing.
pub(super) fn limits_of_operators(of_callers: server::Limits) -> server::Limits {
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
pub(super) fn certificates(
    config: &Config,
    registry: &Registry,
) -> Result<[Option<Arc<Certificate>>; 2], StartError> {
    let (of_callers, of_operators) = (&config.listen.tls, &config.admin.tls);
    let families = tls::Families::new(registry)?;
    let read = |section, tls: &tls::Config, listener| {
        let unusable = |source| StartError::Certificate { section, source };
        let certificate = tls
            .is_on()
            .then(|| Certificate::new(tls.clone(), listener, &families));
        certificate.transpose().map_err(unusable)
    };
    let of_callers = read("listen.tls", of_callers, "traffic")?;
    Ok([of_callers, read("admin.tls", of_operators, "admin")?])
}

/// Binds the listener for `limits` that `key` names, or takes the socket that was handed over for it; `lacking` is what would have to be configured for another address
/// than loopback, if it is not.
pub(super) async fn listen(
    key: &'static str,
    (address, inherited): (SocketAddr, Option<TcpListener>),
    lacking: Option<&'static str>,
    limits: server::Limits,
    tls: Option<&Arc<Certificate>>,
    metrics: server::Metrics,
) -> Result<(Server, SocketAddr), StartError> {
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
    let is_inherited = inherited.is_some();
    let server = match inherited {
        Some(listener) => Server::inherit(listener, limits, metrics),
        None => Server::bind(address, limits, metrics).await,
    };
    let acceptor = tls.map(Certificate::acceptor).transpose()?;
    let server = server.map_err(unbound)?.over(acceptor);
    let at = server.address().map_err(unbound)?;
    // So that what was checked of the one holds for the other.
    if is_inherited && !agrees(address, at) {
        return Err(StartError::Elsewhere { key, address, at });
    }
    Ok((server, at))
}
