//! Certificates: the real program, with a certificate authority of the test's own, and TLS before the simulator.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use contacts_gateway::simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Simulator};
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    program::{Program, addresses, configured},
    support::{path, soon, until},
};

/// A certificate authority.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    /// Writes its own certificate, for the program to trust.
    pub(crate) fn write(&self, folder: &Path) -> String {
        let file = folder.join("authority.pem");
        let pem = pem::encode(&pem::Pem::new("CERTIFICATE", self.0.der().to_vec()));
        fs::write(&file, pem).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// A certificate for this name and its key, in PEM, and the certificate as it is shown.
    pub(crate) fn issue(&self, name: &str) -> (String, String, Vec<u8>) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        // Another than the authority's, or OpenSSL takes it for self-signed.
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().der().to_vec();
        let text = |tag: &str, content: &[u8]| pem::encode(&pem::Pem::new(tag, content));
        let key = text("PRIVATE KEY", &key.serialize_der());
        (text("CERTIFICATE", &certificate), key, certificate)
    }

    /// Trusts it, and nobody else.
    pub(crate) fn trusting(&self) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        builder.with_no_client_auth()
    }

    /// What a server with a certificate for this name shows; one that has expired ended years ago.
    pub(crate) fn certify(&self, name: &str, expired: bool) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        if expired {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth();
        let chain = vec![certificate.der().clone()];
        Arc::new(config.with_single_cert(chain, key).unwrap())
    }
}

/// Ends TLS before the simulator, with the certificate that it has at the time.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    certificate: watch::Sender<Arc<ServerConfig>>,
    /// Connections that it was asked for.
    seen: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Front {
    pub(crate) async fn before(upstream: SocketAddr, certificate: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (certificate, shown) = watch::channel(certificate);
        let seen = Arc::new(AtomicUsize::new(0));
        let count = seen.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let acceptor = TlsAcceptor::from(shown.borrow().clone());
                tokio::spawn(async move {
                    let Ok(mut caller) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut upstream = TcpStream::connect(upstream).await.unwrap();
                    let _ = copy_bidirectional(&mut caller, &mut upstream).await;
                });
            }
        });
        Self {
            address,
            certificate,
            seen,
            accepting,
        }
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// K7. Catches a certificate that is accepted though it should not be, one that is refused though it is good, a call spent
/// on finding out again, and a copy that is not answered meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_trusted_or_nothing_is_sent() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = || authority.certify("127.0.0.1", false);
    let kore = Simulator::start(contacts_gateway::simulator::Settings::default())
        .await
        .unwrap();
    let front = Front::before(kore.addr(), good()).await;
    let folder = tempfile::tempdir().unwrap();
    let base_url = format!("https://{}", front.address);
    // No connection outlives the certificate that it was made with.
    let more = "idle_connections_max = 0";
    let file = configured(folder.path(), &base_url, &AccountSettings::demo(), more);
    let authority_file = authority.write(folder.path());
    let variables = [
        ("SSL_CERT_FILE", &*authority_file),
        ("SSL_CERT_DIR", ""),
        ("CONTACTS_GATEWAY__CACHE__FRESH_FOR", "1s"),
        ("CONTACTS_GATEWAY__BUDGET__START_SHARE", "1"),
    ];
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &variables);
    let (traffic, admin) = addresses(&serve.says("callers on "));
    let client = Client::builder(TokioExecutor::new()).build_http();
    let get = async |url: String| {
        let request = Request::get(url)
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let answer = soon("an answer", client.request(request)).await.unwrap();
        let status = answer.headers().get("cache-status").cloned();
        let status = status.map(|status| status.to_str().unwrap().to_owned());
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, status.unwrap_or_default(), body)
    };
    let ask = async |skip: u32| {
        let query = format!("?skip={skip}&limit=1");
        get(format!("{traffic}{}", path(DEMO_STREAM_ID, &query))).await
    };
    assert_eq!(ask(0).await.0, 200);
    assert_eq!(kore.calls(DEMO_ACCOUNT_ID).total, 1);

    let bad = [
        ("expired", authority.certify("127.0.0.1", true)),
        (
            "another name",
            authority.certify("elsewhere.example", false),
        ),
        ("another address", authority.certify("127.0.0.2", false)),
        ("unknown authority", stranger.certify("127.0.0.1", false)),
    ];
    for (number, (what, certificate)) in (1..).zip(bad) {
        front.certificate.send_replace(certificate);
        let before = kore.calls(DEMO_ACCOUNT_ID).total;
        let seen = front.seen();
        let (status, _, body) = ask(10 * number).await;
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            (status, &problem["code"]),
            (502, &"upstream_tls".into()),
            "{what}"
        );
        assert_eq!(problem["retryable"], false);
        assert_eq!(front.seen() - seen, 1, "{what}: once");
        until("a stale copy says why", async || {
            let (status, how, _) = ask(0).await;
            assert_eq!(status, 200, "{what}");
            how.contains("; ttl=-") && how.ends_with("; detail=upstream_tls")
        })
        .await;
        assert_eq!(kore.calls(DEMO_ACCOUNT_ID).total, before, "{what}");

        front.certificate.send_replace(good());
        until(
            "it is read again, and nothing is under way any more",
            async || {
                let (_, how, _) = ask(0).await;
                !how.contains("; ttl=-")
            },
        )
        .await;
        assert_eq!(ask(10 * number + 1).await.0, 200);
    }
    let (_, _, metrics) = get(format!("{admin}/metrics")).await;
    let metrics = String::from_utf8(metrics.to_vec()).unwrap();
    let retried = metrics
        .lines()
        .filter(|line| line.starts_with("contacts_gateway_upstream_retries_total"));
    assert!(
        retried.clone().count() > 0 && retried.clone().all(|line| line.ends_with(" 0")),
        "{metrics}"
    );
    serve.signal("TERM");
    assert_eq!(serve.ends().0.code(), Some(0));
}
