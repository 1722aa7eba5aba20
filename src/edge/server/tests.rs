use bytes::Bytes;
use http::Version;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{Notify, mpsc},
    task::JoinHandle,
    time,
};
use tower::service_fn;

use super::*;
use crate::edge::{body::Body, workers::Workers};
use crate::metrics::Registry;

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
    metrics: Metrics,
}

fn metrics() -> Metrics {
    let [metrics, _] = Metrics::new(&Registry::new().unwrap()).unwrap();
    metrics
}

/// So many connections, which have so long for whatever is awaited of them.
fn limits(connections_max: usize, timeout: Duration) -> Limits {
    Limits {
        connections_max,
        deadlines: Deadlines {
            first_byte: timeout,
            header: timeout,
            idle: timeout,
            stall: timeout,
            drain_idle: HASTY,
        },
        ..Config::default().limits()
    }
}

async fn serve(limits: Limits, workers: Option<&Workers>) -> Bench {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let metrics = metrics();
    let server = Server::bind(address, limits, metrics.clone())
        .await
        .unwrap();
    let address = server.address().unwrap();
    let (arrival, arrived) = mpsc::channel(100);
    let go = Arc::new(Notify::new());
    let gate = go.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        assert_ne!(request.uri().path(), "/panic", "a panic that was asked for");
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
    let serving = server.serve(service, stop.clone());
    let served = match workers {
        Some(workers) => workers.spawn(serving),
        None => tokio::spawn(serving),
    };
    Bench {
        address,
        stop,
        served,
        arrived,
        go,
        metrics,
    }
}

/// A server on the test's own thread.
async fn here(connections_max: usize, timeout: Duration) -> Bench {
    serve(limits(connections_max, timeout), None).await
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
    // The idle one is closed although nothing more comes.
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
    for sent in [
        "",
        "P",
        "GET / HTTP/1.1\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
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

/// O1. Catches connections that are reset because they wait in the system's queue when the socket is closed.
#[tokio::test]
async fn whoever_waits_in_the_queue_is_answered_before_the_socket_is_closed() {
    let bench = here(10, PATIENT).await;
    soon(connect(bench.address).await.send_request(get("/")))
        .await
        .unwrap();
    // On one thread nobody accepts them before this waits for something.
    let waiting: Vec<_> = (0..5).map(|_| asked(bench.address)).collect();
    bench.stop.cancel();
    for stream in waiting {
        let answer = rest(TcpStream::from_std(stream).unwrap()).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
        assert!(answer.contains("connection: close"), "{answer:?}");
    }
    soon(bench.served).await.unwrap();
}

/// O1. Catches a process that takes connections which the next one should have, and one that closes their queue.
#[tokio::test]
async fn whoever_waits_in_the_queue_of_an_inherited_socket_is_left_to_the_next_process() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let inherit = || {
        let listener = held.try_clone().unwrap();
        Server::inherit(listener, limits(10, PATIENT), metrics()).unwrap()
    };
    let (first, second) = (inherit(), inherit());
    let service = |name: &'static str| {
        service_fn(async move |_: Request<Incoming>| Ok(Response::new(Body::Whole(name.into()))))
    };
    let stop = CancellationToken::new();
    let serving = tokio::spawn(first.serve(service("first"), stop.clone()));
    let answer = soon(connect(address).await.send_request(get("/"))).await;
    assert_eq!(text(answer.unwrap()).await, "first");
    let waiting: Vec<_> = (0..5).map(|_| asked(address)).collect();
    stop.cancel();
    soon(serving).await.unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(second.serve(service("second"), stop.clone()));
    let mut answers = Vec::new();
    for mut stream in waiting
        .into_iter()
        .map(|stream| TcpStream::from_std(stream).unwrap())
    {
        let mut bytes = [0; 1_000];
        let length = soon(stream.read(&mut bytes)).await.unwrap();
        answers.push(String::from_utf8_lossy(&bytes[..length]).into_owned());
    }
    assert!(
        answers.iter().all(|answer| answer.ends_with("second")),
        "{answers:?}"
    );
    stop.cancel();
    soon(serving).await.unwrap();
}

/// A connection on which a request was sent, whoever accepts it.
fn asked(address: SocketAddr) -> std::net::TcpStream {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

#[tokio::test]
async fn one_peer_cannot_take_every_place() {
    let bench = serve(
        Limits {
            peer_connections_max: 2,
            ..limits(10, PATIENT)
        },
        None,
    )
    .await;
    let mut open = [connect(bench.address).await, connect(bench.address).await];
    for sender in &mut open {
        text(soon(sender.send_request(get("/"))).await.unwrap()).await;
    }
    let third = TcpStream::connect(bench.address).await.unwrap();
    assert_eq!(rest(third).await, "");
    assert_eq!(
        (bench.metrics.cuts(Cut::Peer), bench.metrics.open()),
        (1, 2)
    );
    let [first, _second] = open;
    drop(first);
    soon(async {
        while bench.metrics.open() == 2 {
            time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let mut next = connect(bench.address).await;
    assert!(soon(next.send_request(get("/"))).await.is_ok());
}

#[tokio::test]
async fn a_panic_ends_one_connection_and_gives_its_place_back() {
    let bench = here(1, PATIENT).await;
    for _ in 0..3 {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        let head = b"GET /panic HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(head).await.unwrap();
        assert_eq!(rest(stream).await, "");
    }
    let mut sender = connect(bench.address).await;
    assert!(soon(sender.send_request(get("/"))).await.is_ok());
    assert_eq!(bench.metrics.open(), 1);
}

#[tokio::test]
async fn callers_are_served_by_the_workers() {
    let workers = Workers::start(2).unwrap();
    let bench = serve(limits(100, PATIENT), Some(&workers)).await;
    for _ in 0..6 {
        let mut sender = connect(bench.address).await;
        let answer = soon(sender.send_request(get("/"))).await.unwrap();
        assert_eq!(text(answer).await, "worker");
    }
}

#[tokio::test]
async fn a_taken_address_is_an_error() {
    let bench = here(1, PATIENT).await;
    let error = Server::bind(bench.address, limits(1, PATIENT), metrics())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}
