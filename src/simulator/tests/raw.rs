//! Faults below HTTP, as the bytes that a peer receives.

use std::{io, time::Duration};

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::*;

/// Longer than anything here takes, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// A connection, its bytes unread.
struct Peer {
    stream: TcpStream,
    request: String,
}

impl Peer {
    async fn new(kore: &Simulator) -> Self {
        let token = kore.token(DEMO_ACCOUNT_ID, HOUR);
        Self {
            stream: TcpStream::connect(kore.addr()).await.unwrap(),
            request: format!(
                "GET {PATH} HTTP/1.1\r\nhost: x\r\naccountId: {DEMO_ACCOUNT_ID}\r\nauth: {token}\r\n\r\n"
            ),
        }
    }

    async fn ask(&mut self) {
        self.stream
            .write_all(self.request.as_bytes())
            .await
            .unwrap();
    }

    /// So many bytes, which must come.
    async fn bytes(&mut self, count: usize) -> String {
        let mut bytes = vec![0; count];
        let read = timeout(PATIENCE, self.stream.read_exact(&mut bytes)).await;
        read.expect("they come in time").unwrap();
        undated(&bytes)
    }

    /// Everything to the end, and how it ended.
    async fn rest(&mut self) -> (String, io::Result<()>) {
        let mut bytes = Vec::new();
        let ended = timeout(PATIENCE, self.stream.read_to_end(&mut bytes)).await;
        let ended = ended.expect("it ends in time").map(drop);
        (undated(&bytes), ended)
    }

    /// Nothing comes for a while, and no end.
    async fn silence(&mut self) {
        let mut byte = [0];
        let read = timeout(Duration::from_millis(150), self.stream.read(&mut byte)).await;
        assert!(read.is_err(), "{read:?}: {byte:?}");
    }

    /// A page, read by its length: what a sound connection gives.
    async fn page(&mut self) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head += &self.bytes(1).await;
        }
        let length = head.split_once("content-length: ").unwrap().1;
        let length = length.split_once("\r\n").unwrap().0.parse().unwrap();
        self.bytes(length).await
    }
}

/// A simulator that never refuses, and the right page.
async fn kore() -> (Simulator, String) {
    let kore = start(Settings {
        rate_limit: None,
        ..Settings::default()
    })
    .await;
    let page = get(&kore, "").await.text().to_owned();
    (kore, page)
}

/// A new connection that sent its request under this fault.
async fn under(kore: &Simulator, fault: &str) -> Peer {
    kore.fault_next(1, fault.parse().unwrap());
    let mut peer = Peer::new(kore).await;
    peer.ask().await;
    peer
}

fn is_reset(ended: &io::Result<()>) -> bool {
    matches!(ended, Err(error) if error.kind() == io::ErrorKind::ConnectionReset)
}

/// The headers of every answer, its date left out.
const HEADERS: &str =
    "content-type: application/json; charset=utf-8\r\ndate: *****************************\r\n";

/// The bytes as text, each date (or what there is of it) as so many asterisks.
fn undated(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split("\r\ndate: ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let date = part.find("\r\n").unwrap_or(part.len());
        out += &format!("\r\ndate: {}{}", "*".repeat(date), &part[date..]);
    }
    out
}

#[tokio::test]
async fn a_reset_and_an_end_come_before_any_byte_or_inside_the_body() {
    let (kore, page) = kore().await;
    let (bytes, ended) = under(&kore, "reset").await.rest().await;
    assert!(bytes.is_empty() && is_reset(&ended), "{bytes}: {ended:?}");
    let (bytes, ended) = under(&kore, "close").await.rest().await;
    assert!(bytes.is_empty() && ended.is_ok(), "{bytes}: {ended:?}");
    for (fault, kept) in [("reset-body=100", 100), ("reset-body", page.len() / 2)] {
        let (bytes, ended) = under(&kore, fault).await.rest().await;
        let (_, body) = bytes.split_once("\r\n\r\n").unwrap();
        assert!(is_reset(&ended), "{fault}: {ended:?}");
        assert_eq!(body, &page[..kept], "{fault}");
    }
    let counts = kore.calls(DEMO_ACCOUNT_ID);
    assert_eq!((counts.total, counts.faulted, counts.served), (5, 4, 1));
}

#[tokio::test]
async fn a_reset_of_reused_connections_spares_fresh_ones_and_waits_for_its_calls() {
    let (kore, page) = kore().await;
    kore.fault_next(2, Fault::ResetReused);
    for _ in 0..2 {
        let mut peer = Peer::new(&kore).await;
        peer.ask().await;
        assert_eq!(peer.page().await, page);
        peer.ask().await;
        let (bytes, ended) = peer.rest().await;
        assert!(bytes.is_empty() && is_reset(&ended), "{bytes}: {ended:?}");
    }
    let mut peer = Peer::new(&kore).await;
    for _ in 0..2 {
        peer.ask().await;
        assert_eq!(peer.page().await, page, "used up");
    }
    let counts = kore.calls(DEMO_ACCOUNT_ID);
    assert_eq!((counts.served, counts.faulted), (5, 2));
}

#[tokio::test]
async fn stalls_send_nothing_more_and_end_when_they_say() {
    let (kore, page) = kore().await;
    let right = format!(
        "HTTP/1.1 200 OK\r\n{HEADERS}content-length: {}\r\n\r\n",
        page.len()
    );
    for (fault, sent) in [
        ("stall", String::new()),
        ("stall-head", right[..right.len() / 2].to_owned()),
        ("stall-body", format!("{right}{}", &page[..page.len() / 2])),
        (
            "switching",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
                .to_owned(),
        ),
    ] {
        let mut peer = under(&kore, &format!("{fault}=1h")).await;
        assert_eq!(peer.bytes(sent.len()).await, sent, "{fault}");
        peer.silence().await;

        let before = Instant::now();
        let (bytes, ended) = under(&kore, &format!("{fault}=200ms")).await.rest().await;
        assert_eq!(bytes, sent, "{fault}");
        assert!(
            ended.is_ok() && before.elapsed() >= Duration::from_millis(200),
            "{fault}"
        );
    }
}

#[tokio::test]
async fn a_stall_ends_with_its_peer_and_with_its_simulator() {
    let kore = start(Settings {
        connections_max: 1,
        ..Settings::default()
    })
    .await;
    for fault in ["stall=1h", "stall-body=1h", "drip=1h"] {
        let peer = under(&kore, fault).await;
        drop(peer);
        // The one place is free again, or this would never be answered.
        let answered = timeout(PATIENCE, get(&kore, ""))
            .await
            .expect("its place is free");
        assert_eq!(answered.status, StatusCode::OK, "{fault}");
    }
    let _peer = under(&kore, "stall=1h").await;
    timeout(PATIENCE, kore.stop())
        .await
        .expect("it stops at once");
}

#[tokio::test]
async fn a_drip_is_the_right_page_in_time() {
    let (kore, _) = kore().await;
    let page = get(&kore, "?limit=1").await.text().to_owned();
    kore.fault_next(1, "drip=1ms".parse().unwrap());
    let mut peer = Peer::new(&kore).await;
    peer.request = peer.request.replacen(PATH, &format!("{PATH}?limit=1"), 1);
    let before = Instant::now();
    peer.ask().await;
    assert_eq!(peer.page().await, page);
    assert!(before.elapsed() >= Duration::from_millis(page.len() as u64));
    peer.ask().await;
    assert_eq!(peer.page().await, page, "the connection is sound");
}

/// The whole answer under each fault, of which some leave the connection open: then the next request is answered rightly
/// behind it.
#[tokio::test]
async fn lengths_chunks_and_heads_are_wrong_as_they_say() {
    let (kore, page) = kore().await;
    let size = page.len();
    let half = size / 2;
    let ok = |headers: String| format!("HTTP/1.1 200 OK\r\n{HEADERS}{headers}\r\n");
    let right = ok(format!("content-length: {size}\r\n"));
    let chunks = "transfer-encoding: chunked\r\n";
    let many: String = (0..3).map(|n| format!("x-many-{n}: {n}\r\n")).collect();
    let hundred = "HTTP/1.1 100 Continue\r\n\r\n";
    let hints = "HTTP/1.1 103 Early Hints\r\nlink: </>; rel=preload\r\n\r\n";
    let unasked = r#"{"results":[],"skip":0,"limit":10,"hasMore":false,"totalPages":0,"totalResults":0,"unasked":true}"#;
    let second = ok(format!("content-length: {}\r\n", unasked.len()));
    let cases = [
        (
            "long-length=7",
            ok(format!("content-length: {}\r\n", size + 7)) + &page,
            false,
        ),
        (
            "short-length=7",
            ok(format!("content-length: {}\r\n", size - 7)) + &page,
            true,
        ),
        (
            "two-lengths",
            ok(format!(
                "content-length: {size}\r\ncontent-length: {}\r\n",
                size + 1
            )) + &page,
            true,
        ),
        (
            "length-and-chunks",
            ok(format!("content-length: {size}\r\n{chunks}"))
                + &format!("{size:x}\r\n{page}\r\n0\r\n\r\n"),
            true,
        ),
        (
            "bad-chunk",
            ok(chunks.to_owned())
                + &format!(
                    "{half:x}\r\n{}\r\nzz\r\n{}\r\n0\r\n\r\n",
                    &page[..half],
                    &page[half..]
                ),
            true,
        ),
        (
            "no-last-chunk",
            ok(chunks.to_owned()) + &format!("{size:x}\r\n{page}\r\n"),
            false,
        ),
        (
            "many-headers=3",
            ok(format!("{many}content-length: {size}\r\n")) + &page,
            true,
        ),
        (
            "huge-header=1KiB",
            ok(format!(
                "x-huge: {}\r\ncontent-length: {size}\r\n",
                "x".repeat(1024)
            )) + &page,
            true,
        ),
        (
            "informational=3",
            format!("{hundred}{hints}{hundred}{right}{page}"),
            true,
        ),
        (
            "garbage",
            "\x16\x03\x01\0\u{fffd}this is no status line\r\n\r\n\0\u{fffd}\r\n".to_owned(),
            false,
        ),
        ("no-head", page.clone(), false),
        (
            "second-answer",
            format!("{right}{page}{second}{unasked}"),
            true,
        ),
    ];
    for (fault, expected, open) in cases {
        let mut peer = under(&kore, fault).await;
        if open {
            assert_eq!(peer.bytes(expected.len()).await, expected, "{fault}");
            peer.ask().await;
            assert_eq!(peer.page().await, page, "{fault}: the next request");
        } else {
            let (bytes, ended) = peer.rest().await;
            assert_eq!(bytes, expected, "{fault}");
            assert!(ended.is_ok(), "{fault}: {ended:?}");
        }
    }
}

#[tokio::test]
async fn floods_and_heads_are_as_large_as_they_say() {
    let (kore, page) = kore().await;
    for (fault, at_least) in [
        ("many-headers", 1_000 * 10),
        ("huge-header=4MiB", 4 << 20),
        ("informational=100001", 100_001 * 25),
    ] {
        let mut peer = under(&kore, fault).await;
        let mut all = Vec::new();
        while !all.ends_with(page.as_bytes()) {
            let read = timeout(PATIENCE, peer.stream.read_buf(&mut all)).await;
            assert!(read.unwrap().unwrap() > 0, "{fault}");
        }
        assert!(all.len() > at_least, "{fault}: {}", all.len());
        let text = String::from_utf8(all).unwrap();
        assert!(text.contains("HTTP/1.1 200 OK\r\n"), "{fault}");
    }
}

#[tokio::test]
async fn a_second_answer_may_come_after_the_connection_is_used_again() {
    let (kore, page) = kore().await;
    let mut peer = under(&kore, "second-answer=100ms").await;
    assert_eq!(peer.page().await, page);
    peer.ask().await;
    assert!(
        peer.page().await.contains("unasked"),
        "in the place of its own"
    );
    assert_eq!(peer.page().await, page);
}

#[tokio::test]
async fn faults_above_and_below_act_together() {
    let (kore, _) = kore().await;
    kore.add_faults(
        Rule::always(Fault::status(StatusCode::BAD_GATEWAY))
            .and(Fault::Delay(Duration::from_millis(50)))
            .and(Fault::NoLastChunk)
            .next(1),
    );
    let mut peer = Peer::new(&kore).await;
    let before = Instant::now();
    peer.ask().await;
    let (bytes, _) = peer.rest().await;
    assert!(bytes.starts_with("HTTP/1.1 502 Bad Gateway\r\n") && bytes.contains("Bad Gateway\","));
    assert!(before.elapsed() >= Duration::from_millis(50));
}

#[tokio::test]
async fn over_http2_a_reset_is_the_connection_s_and_what_has_no_meaning_is_said() {
    let (kore, _) = kore().await;
    for fault in ["reset", "close", "stall=100ms"] {
        kore.fault_next(1, fault.parse().unwrap());
        let response = timeout(PATIENCE, client(true).request(request(&kore, PATH)));
        assert!(response.await.unwrap().is_err(), "{fault}");
    }
    for fault in ["stall-body", "two-lengths", "informational"] {
        kore.fault_next(1, fault.parse().unwrap());
        let got = send(true, request(&kore, PATH)).await;
        assert_eq!(
            got.status,
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "{fault}"
        );
    }
}

#[tokio::test]
async fn an_unread_answer_does_not_hold_its_place_for_ever() {
    let kore = start(Settings {
        connections_max: 1,
        ..Settings::default()
    })
    .await;
    let peer = under(&kore, "huge-header=64MiB").await;
    while kore.calls(DEMO_ACCOUNT_ID).faulted == 0 {
        tokio::task::yield_now().await;
    }
    drop(peer);
    assert_eq!(
        timeout(PATIENCE, get(&kore, "")).await.unwrap().status,
        StatusCode::OK
    );
}
