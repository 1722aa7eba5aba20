use std::collections::HashSet;

use bytes::Bytes;
use http::Version;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tower::service_fn;

use super::*;
use crate::edge::workers::Workers;

/// How long a test waits for what must come. Never how long something may take.
async fn soon<F: Future>(future: F) -> F::Output {
    let watchdog = time::timeout(Duration::from_secs(30), future);
    watchdog.await.expect("what had to come")
}

/// A server at work, whose service answers with the thread it runs on. `/slow` waits to be let go.
struct Bench {
    address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
    /// Told once for each slow request that has arrived.
    arrived: mpsc::Receiver<()>,
    go: Arc<Notify>,
}

async fn serve(connections_max: usize, header_timeout: Duration, workers: Vec<Handle>) -> Bench {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = Server::bind(address, connections_max, header_timeout)
        .await
        .unwrap();
    let address = server.address().unwrap();
    let (arrival, arrived) = mpsc::channel(100);
    let go = Arc::new(Notify::new());
    let gate = go.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (gate, arrival) = (gate.clone(), arrival.clone());
        async move {
            if request.uri().path() == "/slow" {
                arrival.send(()).await.unwrap();
                gate.notified().await;
            }
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            Ok(Response::new(Body::Whole(thread.into())))
        }
    });
    let stop = CancellationToken::new();
    let served = tokio::spawn(server.serve(service, workers, stop.clone()));
    Bench {
        address,
        stop,
        served,
        arrived,
        go,
    }
}

/// A server on the test's own thread.
async fn here(connections_max: usize, header_timeout: Duration) -> Bench {
    serve(connections_max, header_timeout, vec![Handle::current()]).await
}

const PATIENT: Duration = Duration::from_secs(60);
const HASTY: Duration = Duration::from_millis(100);

/// A connection that speaks HTTP/1.1.
async fn connect(address: SocketAddr) -> http1::SendRequest<Empty<Bytes>> {
    let stream = soon(TcpStream::connect(address)).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(uri: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(uri).header("host", "localhost");
    request.body(Empty::new()).unwrap()
}

async fn text(response: Response<Incoming>) -> String {
    let body = soon(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes();
    String::from_utf8(body.into()).unwrap()
}

/// What a connection sends until it is closed.
async fn rest(mut stream: TcpStream) -> String {
    let mut read = Vec::new();
    // A reset closes it as well.
    let _ = soon(stream.read_to_end(&mut read)).await;
    String::from_utf8_lossy(&read).into_owned()
}

#[tokio::test]
async fn a_connection_carries_many_requests() {
    let bench = here(10, PATIENT).await;
    let mut sender = connect(bench.address).await;
    for _ in 0..10 {
        soon(sender.ready()).await.unwrap();
        let response = soon(sender.send_request(get("/"))).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_11);
        text(response).await;
    }
}

#[tokio::test]
async fn http_2_is_spoken_to_whoever_begins_with_it() {
    let mut bench = here(10, PATIENT).await;
    let stream = TcpStream::connect(bench.address).await.unwrap();
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = soon(handshake).await.unwrap();
    tokio::spawn(connection);
    let uri = |path| format!("http://localhost{path}");
    // A slow one does not hold up what comes after it on the same connection.
    let slow = tokio::spawn(sender.send_request(get(&uri("/slow"))));
    soon(bench.arrived.recv()).await.unwrap();
    for _ in 0..10 {
        let response = soon(sender.send_request(get(&uri("/")))).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        text(response).await;
    }
    bench.go.notify_one();
    assert!(soon(slow).await.unwrap().is_ok());
}

#[tokio::test]
async fn beyond_the_most_connections_the_next_waits_until_one_closes() {
    let bench = here(2, PATIENT).await;
    let mut open = [connect(bench.address).await, connect(bench.address).await];
    for sender in &mut open {
        soon(sender.send_request(get("/"))).await.unwrap();
    }
    let mut third = connect(bench.address).await;
    let waiting = tokio::spawn(third.send_request(get("/")));
    // The others go on, and their answers come while the third has none.
    for sender in &mut open {
        soon(sender.ready()).await.unwrap();
        text(soon(sender.send_request(get("/"))).await.unwrap()).await;
    }
    assert!(!waiting.is_finished());
    let [first, _second] = open;
    drop(first);
    assert!(soon(waiting).await.unwrap().is_ok());
}

#[tokio::test]
async fn whoever_sends_no_whole_head_in_time_is_closed() {
    let bench = here(10, HASTY).await;
    for sent in [
        "",
        "G",
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\n",
        // These begin as HTTP/2 does.
        "P",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let answer = rest(stream).await;
        assert!(!answer.contains("200"), "{sent:?}: {answer}");
    }
}

#[tokio::test]
async fn a_connection_that_goes_idle_is_closed_as_well() {
    let bench = here(10, HASTY).await;
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    assert!(rest(stream).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn an_answer_may_take_longer_than_the_head() {
    let mut bench = here(10, HASTY).await;
    let mut sender = connect(bench.address).await;
    let slow = tokio::spawn(sender.send_request(get("/slow")));
    soon(bench.arrived.recv()).await.unwrap();
    time::sleep(4 * HASTY).await;
    bench.go.notify_one();
    assert!(soon(slow).await.unwrap().is_ok());
}

#[tokio::test]
async fn stop_finishes_what_is_in_flight_and_admits_nobody() {
    let mut bench = here(10, PATIENT).await;
    let (mut busy, mut idle) = (connect(bench.address).await, connect(bench.address).await);
    soon(idle.send_request(get("/"))).await.unwrap();
    let slow = tokio::spawn(busy.send_request(get("/slow")));
    soon(bench.arrived.recv()).await.unwrap();

    bench.stop.cancel();
    // The idle one is closed at once.
    soon(async {
        while idle.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(async {
        while TcpStream::connect(bench.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!bench.served.is_finished());

    bench.go.notify_one();
    let response = soon(slow).await.unwrap().unwrap();
    assert_eq!(response.headers()["connection"], "close");
    text(response).await;
    soon(bench.served).await.unwrap();
}

#[tokio::test]
async fn stop_does_not_wait_for_whoever_has_asked_nothing() {
    // It does for half a head of HTTP/1 and for a silent peer of HTTP/2, as long as a head may take.
    for sent in ["", "P"] {
        let bench = here(10, PATIENT).await;
        let mut quiet = TcpStream::connect(bench.address).await.unwrap();
        quiet.write_all(sent.as_bytes()).await.unwrap();
        // Connections are taken in their order, so the quiet one was accepted before this one is answered.
        soon(connect(bench.address).await.send_request(get("/")))
            .await
            .unwrap();
        bench.stop.cancel();
        soon(bench.served).await.unwrap();
    }
}

#[tokio::test]
async fn connections_take_their_turns_with_the_workers() {
    let workers = Workers::start(3).unwrap();
    let bench = serve(100, PATIENT, workers.handles().to_vec()).await;
    let mut threads = Vec::new();
    for _ in 0..6 {
        let mut sender = connect(bench.address).await;
        let mut seen = HashSet::new();
        for _ in 0..3 {
            soon(sender.ready()).await.unwrap();
            seen.insert(text(soon(sender.send_request(get("/"))).await.unwrap()).await);
        }
        // A connection stays where it is.
        assert_eq!(seen.len(), 1);
        threads.extend(seen);
    }
    let three = ["worker-0", "worker-1", "worker-2"];
    assert_eq!(threads, [three, three].concat());
}

#[tokio::test]
async fn a_taken_address_is_an_error() {
    let bench = here(1, PATIENT).await;
    let error = Server::bind(bench.address, 1, PATIENT).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
