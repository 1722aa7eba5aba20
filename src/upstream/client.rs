//! The HTTP client: pooled connections to the one upstream, and hyper's errors in our own words.

use std::{
    collections::HashMap,
    error::Error as StdError,
    io,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{
        self,
        connect::{HttpConnector, capture_connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::ConfigVerifierExt;
use tokio::{net::TcpStream, time::Instant};
use tower::{Service, util::MapResponse};

use super::{
    Config,
    aging::{self, Aging, Born, IDLE_FOR},
};
use crate::{
    contacts::ids::AccountId,
    error::{Again, Error, Kind, Result},
};

/// The header lines of a response, at most.
const HEADERS_MAX: usize = 100;

/// The stage at the very bottom.
#[derive(Clone, Debug)]
pub struct Client {
    /// A pool for each account. On a connection that is out of step, an answer may be taken for the next one's; it must
    /// not be another account's.
    pools: Arc<Mutex<HashMap<AccountId, Http>>>,
    /// Keeps no connection, so that each of its requests has a new one.
    unpooled: Http,
    connector: Connector,
    idle_max: usize,
}

type Http = legacy::Client<Connector, Empty<Bytes>>;
type Https = HttpsConnector<HttpConnector>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;
type Connector = MapResponse<Https, fn(Stream) -> Aging<Stream>>;

/// Marks a request that must have a connection of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Afresh;

impl Client {
    /// A client that trusts what the operating system trusts. Opens no connection yet.
    ///
    /// # Errors
    /// If the operating system's certificates cannot be loaded for an `https` upstream.
    pub fn new(config: &Config) -> std::result::Result<Self, rustls::Error> {
        let plaintext = config.base_url.starts_with("http://");
        let tls = if plaintext {
            // Never used; a machine without certificates can still reach a plaintext upstream.
            ClientConfig::builder()
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth()
        } else {
            ClientConfig::with_platform_verifier()?
        };
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(config.connect_timeout));
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        let builder = if plaintext {
            builder.https_or_http()
        } else {
            builder.https_only()
        };
        let connector = aging::stamped(builder.enable_http1().wrap_connector(tcp));
        Ok(Self {
            pools: Arc::default(),
            unpooled: pool(connector.clone(), 0),
            connector,
            idle_max: config.idle_connections_max,
        })
    }

    /// The connections that a request may use.
    fn connections(&self, request: &http::Request<Empty<Bytes>>) -> Http {
        match (
            request.extensions().get::<Afresh>(),
            request.extensions().get::<AccountId>(),
        ) {
            (None, Some(account)) => {
                let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
                let new = || pool(self.connector.clone(), self.idle_max);
                pools.entry(account.clone()).or_insert_with(new).clone()
            }
            // Without an account there is nobody to keep a connection for.
            _ => self.unpooled.clone(),
        }
    }
}

/// Connections to upstream, so many of them kept while they are idle.
fn pool(connector: Connector, idle_max: usize) -> Http {
    legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_FOR)
        .pool_max_idle_per_host(idle_max)
        .http1_max_headers(HEADERS_MAX)
        .build(connector)
}

impl Service<http::Request<Empty<Bytes>>> for Client {
    type Response = http::Response<Incoming>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Empty<Bytes>>) -> Self::Future {
        let client = self.connections(&request);
        let connection = capture_connection(&mut request);
        let answer = client.request(request);
        async move {
            let response = answer.await.map_err(|error| curable(classify(&error)))?;
            let born = response.extensions().get::<Born>();
            if born.is_some_and(|born| !born.is_young(Instant::now()))
                && let Some(connection) = &*connection.connection_metadata()
            {
                connection.poison();
            }
            Ok(response)
        }
        .boxed()
    }
}

/// What may help when no head came.
fn curable(error: Error) -> Error {
    match error.kind() {
        Kind::UpstreamUnreachable | Kind::UpstreamTimeout => error.again_by(Again::Later),
        // Most likely a kept connection that upstream gave up at this moment.
        Kind::UpstreamTruncated => error.again_by(Again::Afresh),
        _ => error,
    }
}

/// What an error of the client or of a response's body means.
pub(super) fn classify(error: &(dyn StdError + 'static)) -> Error {
    let causes: Vec<_> = std::iter::successors(Some(error), |&cause| within(cause)).collect();
    let io = |wanted: &[io::ErrorKind]| {
        let mut kinds = causes
            .iter()
            .filter_map(|cause| Some(cause.downcast_ref::<io::Error>()?.kind()));
        kinds.any(|kind| wanted.contains(&kind))
    };
    let connecting = {
        let mut clients = causes.iter().filter_map(|cause| cause.downcast_ref());
        clients.any(legacy::Error::is_connect)
    };
    let unparsable = {
        let mut parsers = causes.iter().filter_map(|cause| cause.downcast_ref());
        parsers.any(hyper::Error::is_parse)
    };
    let tls = causes.iter().any(|cause| cause.is::<rustls::Error>());
    // EMFILE and ENFILE: no descriptor is left here, which is not upstream's doing.
    let exhausted = causes
        .iter()
        .filter_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error())
        .any(|code| code == 24 || code == 23);
    let (kind, detail) = if exhausted {
        (
            Kind::Overloaded,
            "the gateway has no connection left for this",
        )
    } else if tls {
        (
            Kind::UpstreamTls,
            "no trusted connection to upstream could be made",
        )
    } else if io(&[io::ErrorKind::TimedOut]) {
        (Kind::UpstreamTimeout, "upstream did not answer in time")
    } else if connecting {
        (Kind::UpstreamUnreachable, "upstream cannot be reached")
    } else if unparsable || io(&[io::ErrorKind::InvalidData, io::ErrorKind::InvalidInput]) {
        (
            Kind::UpstreamProtocol,
            "upstream's answer is not valid HTTP",
        )
    } else {
        // Closed or reset before the head, or inside the body.
        (Kind::UpstreamTruncated, "upstream's answer ended early")
    };
    let mut told: Vec<_> = causes.iter().map(ToString::to_string).collect();
    // A wrapper that adds no words of its own.
    told.dedup();
    Error::new(kind, detail).because(told.join(": "))
}

/// The error that an error stands on. An `io::Error` that wraps another passes over it, and names only what is behind it.
fn within<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let io = error.downcast_ref::<io::Error>();
    match io.and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use http_body_util::BodyExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        time,
    };

    use super::*;

    /// What the listener does to a connection, once it has read the request's head.
    #[derive(Clone, Copy, Debug)]
    enum Act {
        /// Writes this, and closes.
        Answer(&'static str),
        /// Writes this, and resets.
        Reset(&'static str),
    }

    use Act::{Answer, Reset};

    /// A listener that acts once, and its address.
    async fn listener(act: Act) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            // A greeting of TLS has no such end.
            while head.first() != Some(&0x16) && !head.windows(4).any(|end| end == b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let (Answer(text) | Reset(text)) = act;
            stream.write_all(text.as_bytes()).await.unwrap();
            if let Reset(_) = act {
                reset(stream).await;
            }
        });
        address.to_string()
    }

    /// Sends a reset in place of an orderly end, after what was written has arrived.
    async fn reset(stream: TcpStream) {
        time::sleep(Duration::from_millis(50)).await;
        stream.set_zero_linger().unwrap();
    }

    /// The answer's body, or what its error is taken for.
    async fn ask(url: String, config: &Config) -> Result<Bytes> {
        let config = Config {
            base_url: url.clone(),
            allow_plaintext: true,
            ..config.clone()
        };
        let request = http::Request::get(format!("{url}/contacts"));
        let asking = async {
            let mut client = Client::new(&config).unwrap();
            let response = client.call(request.body(Empty::new()).unwrap()).await?;
            let body = response.into_body().collect().await;
            body.map(http_body_util::Collected::to_bytes)
                .map_err(|error| classify(&error))
        };
        let watchdog = time::timeout(Duration::from_secs(20), asking);
        watchdog.await.expect("an answer or an error")
    }

    #[tokio::test]
    async fn each_way_to_break_off_has_its_kind() {
        const TRUNCATED: Option<Kind> = Some(Kind::UpstreamTruncated);
        const PROTOCOL: Option<Kind> = Some(Kind::UpstreamProtocol);
        let many = format!(
            "HTTP/1.1 200 OK\r\n{}\r\n",
            "x: y\r\n".repeat(HEADERS_MAX + 1)
        );
        for (act, kind) in [
            (
                Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"),
                None,
            ),
            (
                Answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
                None,
            ),
            (Answer(""), TRUNCATED),
            (Reset(""), TRUNCATED),
            (Answer("HTTP/1.1 200 OK\r\ncontent-le"), TRUNCATED),
            (
                Answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"),
                TRUNCATED,
            ),
            (
                Reset("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}"),
                TRUNCATED,
            ),
            (
                Answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"),
                TRUNCATED,
            ),
            (
                Answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{}"),
                TRUNCATED,
            ),
            (
                Answer("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}"),
                PROTOCOL,
            ),
            (
                Answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"),
                PROTOCOL,
            ),
            (
                Answer("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}"),
                PROTOCOL,
            ),
            (Answer("HTTP/9.9 200 OK\r\n\r\n"), PROTOCOL),
            (Answer("<html>no such thing</html>\r\n\r\n"), PROTOCOL),
            (Answer(many.leak()), PROTOCOL),
        ] {
            let url = format!("http://{}", listener(act).await);
            let outcome = ask(url, &Config::default()).await;
            let got = outcome.as_ref().err().map(Error::kind);
            assert_eq!(got, kind, "{act:?}: {outcome:?}");
        }
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable() {
        let free = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap()
        };
        // A label is at most 63 bytes long, so no name server is asked for this one.
        let nowhere = format!("{}.invalid", "x".repeat(64));
        for host in [free.to_string(), nowhere] {
            let error = ask(format!("http://{host}"), &Config::default())
                .await
                .unwrap_err();
            assert_eq!(error.kind(), Kind::UpstreamUnreachable, "{error}");
            // An operator has to be told more than a caller.
            assert!(error.cause().is_some());
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_not_made_in_time_is_a_timeout() {
        // A listener that accepts nobody, behind a queue that is full.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut queued = Vec::new();
        while let Ok(stream) =
            time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
        {
            queued.push(stream);
        }
        let config = Config {
            connect_timeout: Duration::from_millis(100),
            ..Config::default()
        };
        let error = ask(format!("http://{address}"), &config).await.unwrap_err();
        assert_eq!(error.kind(), Kind::UpstreamTimeout, "{error}");
    }

    #[tokio::test]
    async fn whoever_does_not_speak_tls_is_not_trusted() {
        let url = format!(
            "https://{}",
            listener(Answer("HTTP/1.1 400 Bad Request\r\n\r\n")).await
        );
        let error = ask(url, &Config::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::UpstreamTls, "{error}");
    }

    #[tokio::test]
    async fn accounts_share_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = Config {
            base_url: format!("http://{}", listener.local_addr().unwrap()),
            ..Config::default()
        };
        let made = Arc::new(AtomicUsize::new(0));
        let counted = made.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while stream.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                        if head.ends_with(b"\r\n\r\n") {
                            head.clear();
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                            stream.write_all(answer).await.unwrap();
                        }
                    }
                });
            }
        });
        let client = Client::new(&config).unwrap();
        let ask = async |account: &str, afresh: bool| {
            let mut request = http::Request::get(&config.base_url)
                .body(Empty::new())
                .unwrap();
            request
                .extensions_mut()
                .insert(AccountId::parse(account).unwrap());
            if afresh {
                request.extensions_mut().insert(Afresh);
            }
            let answer = client.clone().call(request).await.unwrap();
            answer.into_body().collect().await.unwrap();
            // The connection goes back to its pool a moment after the body's end, which nothing tells.
            time::sleep(Duration::from_millis(300)).await;
        };
        for (account, afresh, connections) in [
            ("a", false, 1),
            ("b", false, 2),
            ("a", false, 2),
            ("b", false, 2),
            ("a", true, 3),
            ("a", false, 3),
        ] {
            ask(account, afresh).await;
            assert_eq!(
                made.load(Ordering::Relaxed),
                connections,
                "{account} {afresh}"
            );
        }
    }

    #[test]
    fn a_refused_certificate_is_found_however_deep_it_is_wrapped() {
        let refused = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let once = io::Error::new(io::ErrorKind::InvalidData, refused());
        let twice = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, refused()));
        for error in [&refused() as &(dyn StdError + 'static), &once, &twice] {
            let error = classify(error);
            assert_eq!(error.kind(), Kind::UpstreamTls, "{error}");
            // Told once, whatever it was wrapped in.
            assert_eq!(error.cause(), Some(refused().to_string().as_str()));
        }
    }
}
