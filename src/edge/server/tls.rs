//! TLS for a listener, with HTTP/2 by ALPN, and a certificate that can be changed while connections are open.
//!
//! Each handshake asks for the certificate that is there at the time; connections keep what they began with. New files
//! are seen by [`Identity`], and are taken only if they can be read and fit each other: while one of the two is written
//! and the other not yet, the old pair stays.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task, time,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{info, warn};

pub use self::pair::TlsProblem;
use crate::{
    config::Rules,
    identity::Identity,
    metrics::{self, Registry},
};

mod pair;

/// `[listen.tls]` and `[admin.tls]`: without files the listener speaks plain HTTP.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The certificate and those between it and its authority, in PEM, the listener's own first.
    pub certificate_file: PathBuf,
    /// Its private key, in PEM.
    pub key_file: PathBuf,
    /// How long a handshake may take; 100 ms to 5 min.
    #[serde(with = "crate::config::duration")]
    pub handshake_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            certificate_file: PathBuf::new(),
            key_file: PathBuf::new(),
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Whether TLS is spoken.
    pub fn is_on(&self) -> bool {
        !self.certificate_file.as_os_str().is_empty()
    }

    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        if self.is_on() == self.key_file.as_os_str().is_empty() {
            let keys = ["certificate_file", "key_file"];
            rules.broken(
                &keys,
                "and key_file belong together: set both or none".to_owned(),
            );
        }
        rules.range(
            "handshake_timeout",
            self.handshake_timeout,
            Duration::from_millis(100)..=Duration::from_secs(5 * 60),
        );
    }

    /// The same, with paths that do not depend on where the process runs.
    #[must_use]
    pub fn within(&self, folder: &Path) -> Self {
        let within = |path: &Path| match path.as_os_str().is_empty() {
            true => PathBuf::new(),
            false => folder.join(path),
        };
        Self {
            certificate_file: within(&self.certificate_file),
            key_file: within(&self.key_file),
            ..self.clone()
        }
    }
}

/// A listener's certificate, as it is now.
#[derive(Debug)]
pub struct Certificate {
    config: Config,
    listener: &'static str,
    current: ArcSwap<CertifiedKey>,
    looked: Mutex<Looked>,
    metrics: Metrics,
}

/// What was last seen of the files.
#[derive(Debug, Default)]
struct Looked {
    /// `None` if they are to be read in any case.
    seen: Option<[Identity; 2]>,
    /// What was last told to be wrong with them.
    complaint: Option<TlsProblem>,
}

/// What became of a listener's certificate when its files were read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reread {
    pub listener: &'static str,
    /// Another one was taken, or why the listener keeps the one that it had.
    pub outcome: Result<(), TlsProblem>,
}

impl Certificate {
    /// Reads the files for the first time. Blocking.
    ///
    /// # Errors
    /// As [`Config::read`].
    pub fn new(
        config: Config,
        listener: &'static str,
        families: &Families,
    ) -> Result<Arc<Self>, TlsProblem> {
        let pair = config.read()?;
        let metrics = families.of(listener);
        metrics.expiry.set(pair.expires);
        Ok(Arc::new(Self {
            config,
            listener,
            current: ArcSwap::new(pair.certified),
            looked: Mutex::default(),
            metrics,
        }))
    }

    /// Looks at the files from time to time, for as long as it is polled.
    pub async fn watch(self: Arc<Self>, every: Duration) {
        loop {
            time::sleep(every).await;
            let certificate = self.clone();
            let looking = task::spawn_blocking(move || certificate.look(SystemTime::now()));
            if looking.await.is_err() {
                warn!("the certificate's files could not be looked at; they are tried again");
            }
        }
    }

    /// Reads the files again, changed or not. Returns what became of that; `None` if what is in them was there already.
    /// Blocking.
    pub fn reread(&self) -> Option<Reread> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        looked.seen = None;
        drop(looked);
        let outcome = self.look(SystemTime::now())?;
        let listener = self.listener;
        Some(Reread { listener, outcome })
    }

    /// Takes what is in the files, if it has changed and is good. Blocking.
    fn look(&self, wall: SystemTime) -> Option<Result<(), TlsProblem>> {
        let files = [&self.config.certificate_file, &self.config.key_file];
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = match files.map(|file| Identity::of(file)) {
            [Some(certificate), Some(key)] => Some([certificate, key]),
            _ => None,
        };
        if seen.is_some() && looked.seen == seen {
            return None;
        }
        looked.seen = seen.filter(|seen| seen.iter().all(|seen| seen.is_settled(wall)));
        match self.config.read() {
            Ok(pair) => {
                looked.complaint = None;
                let before = self.current.load();
                if pair.certified.cert == before.cert {
                    return None;
                }
                self.current.store(pair.certified);
                self.metrics.expiry.set(pair.expires);
                self.metrics.taken.inc();
                info!(
                    listener = self.listener,
                    "the listener has another certificate"
                );
                Some(Ok(()))
            }
            Err(problem) => {
                looked.seen = None;
                if looked.complaint.as_ref() != Some(&problem) {
                    self.metrics.refused.inc();
                    warn!(listener = self.listener, cause = %problem, "a certificate cannot be used; the listener keeps the one it has");
                    looked.complaint = Some(problem.clone());
                }
                Some(Err(problem))
            }
        }
    }

    /// What does the handshakes.
    ///
    /// # Errors
    /// If the library has no protocol in common with itself.
    pub fn acceptor(self: &Arc<Self>) -> Result<Acceptor, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Acceptor {
            config: Arc::new(config),
            handshake_timeout: self.config.handshake_timeout,
        })
    }
}

#[derive(Debug)]
struct Resolver(Arc<Certificate>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current.load_full())
    }
}

/// Does a listener's handshakes.
#[derive(Clone, Debug)]
pub struct Acceptor {
    config: Arc<ServerConfig>,
    handshake_timeout: Duration,
}

impl Acceptor {
    /// One handshake; `None` if it fails or is not over in time.
    pub(super) async fn accept<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        socket: I,
    ) -> Option<TlsStream<I>> {
        let accepting = TlsAcceptor::from(self.config.clone()).accept(socket);
        let accepted = time::timeout(self.handshake_timeout, accepting).await;
        accepted.ok()?.ok()
    }
}

/// What certificates tell, by listener. They are there only where TLS is.
#[derive(Debug)]
pub struct Families {
    expiry: IntGaugeVec,
    reloads: IntCounterVec,
}

#[derive(Debug)]
struct Metrics {
    expiry: IntGauge,
    taken: IntCounter,
    refused: IntCounter,
}

impl Families {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        Ok(Self {
            expiry: registry.gauge(
                "tls_certificate_expiry_timestamp_seconds",
                "When the certificate that a listener shows expires, in seconds since 1970: less time(), the seconds left.",
                &["listener"],
            )?,
            reloads: registry.counter(
                "tls_certificate_reloads_total",
                "Certificates found in changed files: taken, or refused for one that is kept.",
                &["listener", "outcome"],
            )?,
        })
    }

    fn of(&self, listener: &'static str) -> Metrics {
        let reloads = |outcome| self.reloads.with_label_values(&[listener, outcome]);
        Metrics {
            expiry: self.expiry.with_label_values(&[listener]),
            taken: reloads("taken"),
            refused: reloads("refused"),
        }
    }
}

#[cfg(test)]
mod tests;
