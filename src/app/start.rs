//! Why the gateway did not start.

use std::{io, net::SocketAddr};

use crate::{
    contacts::account::Malformed,
    edge::{caller, server::tls::TlsProblem},
    metrics,
    systemd::inherited::InheritError,
};

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
    #[error(
        "{key} is {address}, but the socket that was handed over for it listens at {at}: make them the same"
    )]
    Elsewhere {
        key: &'static str,
        address: SocketAddr,
        at: SocketAddr,
    },
    #[error(transparent)]
    Inherited(#[from] InheritError),
    #[error("admin.token_sha256 holds something else than the SHA-256 of a token")]
    Token,
    #[error(transparent)]
    Callers(#[from] caller::Malformed),
    #[error("{section}.{}: {source}", .source.key())]
    Certificate {
        section: &'static str,
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

impl StartError {
    /// Whether the configuration is wrong, so that another start with it ends the same.
    pub const fn is_of_the_configuration(&self) -> bool {
        match self {
            Self::Token | Self::Callers(_) | Self::Certificate { .. } | Self::Account(_) => true,
            // A file's is told before; that of `demo` is a flag's.
            Self::NotLoopback { .. }
            | Self::Listen { .. }
            | Self::Elsewhere { .. }
            | Self::Inherited(_)
            | Self::Tls(_)
            | Self::Metrics(_)
            | Self::Workers(_) => false,
        }
    }
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
