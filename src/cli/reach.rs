//! How the commands that ask a running gateway reach it: over TLS or without, and whom they believe.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Uri, uri::Scheme};
use http_body_util::Empty;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{
        CertificateDer,
        pem::{self, PemObject},
    },
};
use rustls_platform_verifier::ConfigVerifierExt;

/// How long a connection to the gateway may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// What asks a gateway.
pub(super) type GatewayClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// Whose certificates are believed.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Trust {
    /// A file in PEM with the authorities behind the gateway's certificate, in place of those that this machine trusts.
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

/// Why nobody can be believed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("the certificates that this machine trusts cannot be loaded: {0}")]
    Machine(rustls::Error),
    #[error("{} holds no certificate in PEM that can be read: {cause}", .file.display())]
    File { file: PathBuf, cause: pem::Error },
    #[error("{} holds no certificate", .0.display())]
    Empty(PathBuf),
    #[error("{} holds a certificate that cannot be used: {cause}", .file.display())]
    Unusable { file: PathBuf, cause: rustls::Error },
}

impl Trust {
    /// A client for the gateway at this URL. Blocking: it reads files.
    ///
    /// # Errors
    /// If there is no certificate to judge the gateway's by.
    pub(super) fn client(&self, url: &Uri) -> Result<GatewayClient, TrustError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(self.tls(url)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Ok(Client::builder(TokioExecutor::new()).build(connector))
    }

    fn tls(&self, url: &Uri) -> Result<ClientConfig, TrustError> {
        let trusting = |roots: RootCertStore| {
            let builder = ClientConfig::builder().with_root_certificates(roots);
            builder.with_no_client_auth()
        };
        match &self.ca_file {
            // A machine without certificates can still reach a plaintext gateway.
            _ if url.scheme() != Some(&Scheme::HTTPS) => Ok(trusting(RootCertStore::empty())),
            None => ClientConfig::with_platform_verifier().map_err(TrustError::Machine),
            Some(file) => {
                let unread = |cause| TrustError::File {
                    file: file.clone(),
                    cause,
                };
                let unusable = |cause| TrustError::Unusable {
                    file: file.clone(),
                    cause,
                };
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_file_iter(file).map_err(unread)? {
                    let certificate = certificate.map_err(unread)?;
                    roots.add(certificate).map_err(unusable)?;
                }
                match roots.is_empty() {
                    true => Err(TrustError::Empty(file.clone())),
                    false => Ok(trusting(roots)),
                }
            }
        }
    }
}
