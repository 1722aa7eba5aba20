use std::{
    error::Error as StdError,
    io,
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

/// An answer after so many interim ones.
fn interim(count: usize) -> String {
    let interim = "HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n".repeat(count);
    format!("{interim}HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{{}}")
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
        (
            Answer(
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            ),
            PROTOCOL,
        ),
        (Answer("HTTP/1.1 204 No Content\r\n\r\n"), PROTOCOL),
        (
            Answer("HTTP/1.1 206 Partial Content\r\ncontent-length: 2\r\n\r\n{}"),
            PROTOCOL,
        ),
        (Answer("HTTP/1.1 304 Not Modified\r\n\r\n"), PROTOCOL),
        (
            Answer("HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
            PROTOCOL,
        ),
        (Answer(interim(8).leak()), None),
        (Answer(interim(9).leak()), PROTOCOL),
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
async fn whoever_says_nothing_has_no_longer_for_tls_than_for_tcp() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config {
        connect_timeout: Duration::from_millis(100),
        ..Config::default()
    };
    let url = format!("https://{}", silent.local_addr().unwrap());
    let error = ask(url, &config).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UpstreamTimeout, "{error}");
}

/// A client of an upstream that answers whatever is asked, and counts its connections.
struct Counted {
    client: Client,
    config: Config,
    made: Arc<AtomicUsize>,
}

impl Counted {
    async fn start() -> Self {
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
        Self {
            client: Client::new(&config).unwrap(),
            config,
            made,
        }
    }

    /// Asks once, and returns how many connections were made so far.
    async fn ask(&self, account: &str, stream: &str, afresh: bool, give_up: bool) -> usize {
        let request = http::Request::get(&self.config.base_url);
        let mut request = request.body(Empty::new()).unwrap();
        request.extensions_mut().insert(Lane {
            account: AccountId::parse(account).unwrap(),
            stream: StreamId::parse(stream).unwrap(),
        });
        if afresh {
            request.extensions_mut().insert(Afresh);
        }
        let answer = self.client.clone().call(request).await.unwrap();
        if give_up {
            answer.extensions().get::<Connection>().unwrap().give_up();
        }
        answer.into_body().collect().await.unwrap();
        // The connection goes back to its pool a moment after the body's end, which nothing tells.
        time::sleep(Duration::from_millis(300)).await;
        self.made.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn collections_share_no_connection() {
    let upstream = Counted::start().await;
    for (account, stream, afresh, give_up, connections) in [
        ("a", "st-1", false, false, 1),
        ("b", "st-1", false, false, 2),
        ("a", "st-2", false, false, 3),
        ("a", "st-1", false, false, 3),
        ("b", "st-1", false, false, 3),
        ("a", "st-1", true, false, 4),
        ("a", "st-1", false, true, 4),
        ("a", "st-1", false, false, 5),
        ("a", "st-2", false, false, 5),
    ] {
        let made = upstream.ask(account, stream, afresh, give_up).await;
        assert_eq!(made, connections, "{account} {stream} {afresh} {give_up}");
    }
}

/// K6: whoever moves to another address is found there within a minute.
#[tokio::test]
async fn no_connection_is_used_for_a_minute() {
    let upstream = Counted::start().await;
    for (seconds, connections) in [(0, 1), (20, 1), (15, 1), (1, 2), (31, 3)] {
        // The clock stands only while nothing is waited for: on a paused one, sockets would seem to take no time.
        time::pause();
        time::advance(Duration::from_secs(seconds)).await;
        time::resume();
        let made = upstream.ask("a", "st-1", false, false).await;
        assert_eq!(made, connections, "{seconds} s later");
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
