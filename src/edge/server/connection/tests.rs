//! On paused time, with a pipe for a socket: exact deadlines.

use std::{sync::Weak, time::Duration};

use futures_util::stream;
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    select,
    task::JoinHandle,
};
use tower::service_fn;

use super::*;
use crate::edge::server::{Config, socket::Socket};

/// A connection whose service answers at once with so many bytes as the path says; `/slow` takes an hour, and `/late` begins
/// at once and goes on after a hundred seconds.
struct Bench {
    reads: ReadHalf<DuplexStream>,
    writes: WriteHalf<DuplexStream>,
    serving: JoinHandle<Result<(), Ended>>,
    stop: CancellationToken,
    begun: Instant,
    /// What all bodies are made of, and the service holds.
    kept: Weak<()>,
}

/// Bytes that are let go with the last piece of them.
struct Kept {
    bytes: Vec<u8>,
    _source: Arc<()>,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn begin() -> Bench {
    let limits = Config::default().limits();
    // What the sockets' buffers would be.
    let (caller, gateway) = duplex(4 * 1024);
    let source = Arc::new(());
    let kept = Arc::downgrade(&source);
    let service = service_fn(move |request: Request<Incoming>| {
        let _source = source.clone();
        async move {
            let asked = &request.uri().path()[1..];
            if asked == "slow" {
                time::sleep(HOUR).await;
            }
            let bytes = vec![b'x'; asked.parse().unwrap_or(5)];
            let late = asked == "late";
            let bytes = Bytes::from_owner(Kept { bytes, _source });
            let body: UnsyncBoxBody<Bytes, Infallible> = match late {
                true => StreamBody::new(stream::once(async {
                    seconds(100).await;
                    Ok(Frame::data(bytes))
                }))
                .boxed_unsync(),
                false => Full::new(bytes).boxed_unsync(),
            };
            Ok(Response::new(body))
        }
    });
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let begun = Instant::now();
    let serving = tokio::spawn(async move {
        let pulse = Arc::new(Pulse::new(Instant::now()));
        let socket = Socket::new(gateway, pulse.clone());
        serve(socket, service, &limits, pulse, stopping).await
    });
    let (reads, writes) = split(caller);
    Bench {
        reads,
        writes,
        serving,
        stop,
        begun,
        kept,
    }
}

impl Bench {
    async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.writes.write_all(bytes.as_ref()).await;
    }

    /// Reads the head of an answer, and nothing of its body.
    async fn head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.reads.read_u8().await.unwrap());
        }
        String::from_utf8(head).unwrap()
    }

    /// Seconds from the beginning to the end, and why it came.
    async fn end(self) -> (u64, Option<Cut>) {
        let ended = time::timeout(2 * HOUR, self.serving).await;
        let ended = ended.expect("an end").unwrap();
        let why = ended.err().map(|ended| match ended {
            Ended::Cut(why) => why,
            Ended::Http(error) => panic!("{error}"),
        });
        (self.begun.elapsed().as_secs(), why)
    }

    /// The same, for a caller that takes whatever comes.
    async fn end_read(mut self) -> (u64, Option<Cut>, Vec<u8>) {
        let mut read = Vec::new();
        let _ = time::timeout(2 * HOUR, self.reads.read_to_end(&mut read)).await;
        let (at, why) = self.end().await;
        (at, why, read)
    }

    /// The same over HTTP/2, for one that each second asks for a little more, from stream 3 on, and lets it come.
    async fn end_busy(mut self) -> (u64, Option<Cut>, Vec<u8>) {
        let mut read = Vec::new();
        let busy = async {
            for stream in (3..400).step_by(2) {
                let window = frame(WINDOW_UPDATE, 0, stream, &5_u32.to_be_bytes());
                let asks = [ask(stream, "5", true), window].concat();
                let _ = self.writes.write_all(&asks).await;
                seconds(1).await;
            }
        };
        select! {
            _ = self.reads.read_to_end(&mut read) => {}
            () = busy => {}
        }
        let (at, why) = self.end().await;
        (at, why, read)
    }
}

fn get(path: &str) -> String {
    format!("GET /{path} HTTP/1.1\r\nhost: localhost\r\n\r\n")
}

async fn seconds(count: u64) {
    time::sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_or_half_a_head_is_cut_in_time() {
    assert_eq!(begin().end().await, (10, Some(Cut::FirstByte)));
    for half in [
        "G",
        "GET / HTTP/1.1\r\nhost: localhost\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut bench = begin();
        seconds(3).await;
        bench.write(half).await;
        assert_eq!(bench.end().await, (13, Some(Cut::Header)), "{half:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn dripping_a_head_gives_no_more_time() {
    let mut bench = begin();
    for byte in get("0").bytes().take(9) {
        bench.write([byte]).await;
        seconds(1).await;
    }
    assert_eq!(bench.end().await, (10, Some(Cut::Header)));
}

#[tokio::test(start_paused = true)]
async fn between_requests_there_is_more_time_and_then_a_head_must_come() {
    let mut bench = begin();
    bench.write(get("0")).await;
    bench.head().await;
    seconds(50).await;
    bench.write(get("0")).await;
    bench.head().await;
    assert_eq!(bench.end().await, (110, Some(Cut::Idle)));

    let mut bench = begin();
    bench.write(get("0")).await;
    bench.head().await;
    seconds(50).await;
    bench.write("GET").await;
    assert_eq!(bench.end().await, (60, Some(Cut::Header)));
}

/// Catches half a head that has the longer time between two requests, because it came with the request before it or while
/// that was answered; and whole requests that have less for it.
#[tokio::test(start_paused = true)]
async fn half_a_head_behind_a_request_is_cut_in_time_and_a_whole_one_is_not() {
    let (cut, idle) = (Some(Cut::Header), Some(Cut::Idle));
    let post = "POST /0 HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\nhello";
    let bare = "GET /0 HTTP/1.1\nhost: localhost\n\n";
    for (first, behind, end) in [
        (get("0"), "GET / HT", (11, cut)),
        (get("0"), "GET / HTTP/1.1\r\n", (11, cut)),
        (get("slow"), "GET / HT", (3611, cut)),
        (get("0") + &get("0"), "GET / HT", (11, cut)),
        (get("0"), &get("0"), (61, idle)),
        (get("slow"), &get("0"), (3661, idle)),
        (get("0"), bare, (61, idle)),
        (get("0"), post, (61, idle)),
    ] {
        let mut bench = begin();
        seconds(1).await;
        bench.write(first.clone() + behind).await;
        let (at, why, read) = bench.end_read().await;
        assert_eq!(
            (at, why),
            end,
            "{first:?} {behind:?} {}",
            String::from_utf8_lossy(&read)
        );
    }

    // While it is answered.
    let mut bench = begin();
    bench.write(get("slow")).await;
    seconds(1).await;
    bench.write("GET / HT").await;
    assert_eq!(bench.end().await, (3610, cut));

    // In two packets, wherever they meet.
    let whole = get("0");
    for left in 1..5 {
        let mut bench = begin();
        let (one, two) = whole.split_at(whole.len() - left);
        bench.write(one).await;
        seconds(1).await;
        bench.write(two).await;
        assert_eq!(bench.end().await, (61, idle), "{two:?}");
    }

    // Behind an answer that is taken slowly, and then is.
    let mut bench = begin();
    bench.write(get("20000") + "GET / HT").await;
    let mut piece = [0; 4 * 1024];
    for _ in 0..4 {
        seconds(20).await;
        bench.reads.read_exact(&mut piece).await.unwrap();
    }
    assert_eq!(bench.end().await, (90, cut));
}

#[tokio::test(start_paused = true)]
async fn the_gateway_may_take_its_time() {
    let mut bench = begin();
    bench.write(get("slow")).await;
    bench.head().await;
    assert_eq!(bench.begun.elapsed(), HOUR);
    assert_eq!(bench.end().await, (3660, Some(Cut::Idle)));
}

/// Catches a caller whose leaving is noticed only when its answer is written: what waits its turn for nobody else would be
/// paid for.
#[tokio::test(start_paused = true)]
async fn who_closes_its_sending_side_has_left() {
    let mut bench = begin();
    bench.write(get("slow")).await;
    seconds(1).await;
    bench.writes.shutdown().await.unwrap();
    let ended = bench.serving.await.unwrap();
    assert!(matches!(ended, Err(Ended::Http(_))));
    assert_eq!(bench.begun.elapsed(), Duration::from_secs(1));
    assert_eq!(bench.kept.strong_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_takes_is_cut_and_one_that_somebody_takes_slowly_is_not() {
    let mut bench = begin();
    bench.write(get("1000000")).await;
    assert_eq!(bench.end().await, (30, Some(Cut::Stall)));

    // A piece each twenty seconds, for longer than all deadlines together.
    let mut bench = begin();
    bench.write(get("200000")).await;
    let mut piece = [0; 4 * 1024];
    for _ in 0..20 {
        seconds(20).await;
        bench.reads.read_exact(&mut piece).await.unwrap();
    }
    assert_eq!(bench.end().await, (430, Some(Cut::Stall)));
}

#[tokio::test(start_paused = true)]
async fn after_the_stop_one_more_request_is_answered_and_told_so() {
    // An idle connection.
    let mut bench = begin();
    bench.write(get("0")).await;
    assert!(!bench.head().await.contains("connection"));
    bench.stop.cancel();
    seconds(4).await;
    bench.write(get("0")).await;
    let head = bench.head().await;
    assert!(
        head.starts_with("HTTP/1.1 200") && head.contains("connection: close"),
        "{head}"
    );
    assert_eq!(bench.end().await, (4, None));

    // One that brings none, or half of one, or never had one; and a request that was under way.
    for (before, after, end) in [
        (get("0"), "", (5, Some(Cut::Drain))),
        (get("0"), "GET", (5, Some(Cut::Drain))),
        (String::new(), "", (5, Some(Cut::Drain))),
        ("GET / HTTP".to_owned(), "", (5, Some(Cut::Drain))),
        (get("slow"), "", (3600, None)),
    ] {
        let mut bench = begin();
        bench.write(&before).await;
        time::sleep(Duration::from_millis(1)).await;
        bench.stop.cancel();
        time::sleep(Duration::from_millis(1)).await;
        bench.write(after).await;
        assert_eq!(bench.end().await, end, "{before:?} {after:?}");
    }
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

/// How HTTP/2 begins, with a window of so many bytes for each stream.
fn preface(window: u32) -> Vec<u8> {
    let settings = [&[0, 4], &window.to_be_bytes()[..]].concat();
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &settings),
    ]
    .concat()
}

/// A whole GET, but for the end of the stream if there is to be a body.
fn ask(stream: u32, path: &str, ends: bool) -> Vec<u8> {
    let path = format!("/{path}");
    // :method GET, :scheme http, :path, :authority localhost
    let mut block = vec![0x82, 0x86, 0x04, u8::try_from(path.len()).unwrap()];
    block.extend(path.bytes());
    block.extend(b"\x41\x09localhost");
    frame(HEADERS, 4 | u8::from(ends), stream, &block)
}

/// The kinds of the frames in what was read.
fn kinds(mut read: &[u8]) -> Vec<u8> {
    let mut kinds = Vec::new();
    while let [a, b, c, kind, ..] = read {
        kinds.push(*kind);
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        read = read.get(9 + length..).unwrap_or_default();
    }
    kinds
}

#[tokio::test(start_paused = true)]
async fn http2_goes_idle_with_a_goodbye() {
    let mut bench = begin();
    bench
        .write([preface(65_535), ask(1, "5", true)].concat())
        .await;
    seconds(30).await;
    // Neither keeps it.
    bench.write(frame(PING, 0, 0, &[0; 8])).await;
    bench.write(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])).await;
    let (at, why, read) = bench.end_read().await;
    assert_eq!((at, why), (65, Some(Cut::Drain)));
    assert!(kinds(&read).contains(&GOAWAY), "{:?}", kinds(&read));
}

#[tokio::test(start_paused = true)]
async fn http2_without_a_window_is_a_stall_whatever_else_is_said() {
    let mut bench = begin();
    bench.write([preface(0), ask(1, "5", true)].concat()).await;
    for _ in 0..2 {
        seconds(10).await;
        bench.write(frame(PING, 0, 0, &[0; 8])).await;
    }
    let (at, why, read) = bench.end_read().await;
    assert_eq!((at, why), (30, Some(Cut::Stall)));
    assert!(!kinds(&read).contains(&DATA));

    // One that is opened once: what h2 holds is not taken for an answer that was.
    let mut bench = begin();
    bench
        .write([preface(0), ask(1, "100000", true)].concat())
        .await;
    seconds(20).await;
    bench
        .write(frame(WINDOW_UPDATE, 0, 1, &20_000_u32.to_be_bytes()))
        .await;
    let (at, why, _) = bench.end_read().await;
    assert_eq!((at, why), (50, Some(Cut::Stall)));

    // A window that is opened slowly, but is, and less than a piece at a time.
    let mut bench = begin();
    bench
        .write([preface(0), ask(1, "100000", true)].concat())
        .await;
    for _ in 0..8 {
        seconds(20).await;
        for stream in [0, 1] {
            bench
                .write(frame(WINDOW_UPDATE, 0, stream, &20_000_u32.to_be_bytes()))
                .await;
        }
        let Bench { reads, .. } = &mut bench;
        let drain = async { tokio::io::copy(reads, &mut tokio::io::sink()).await };
        let _ = time::timeout(Duration::from_millis(1), drain).await;
    }
    let (at, why, _) = bench.end_read().await;
    // All was taken after a hundred seconds; then it was idle.
    assert_eq!((at, why), (165, Some(Cut::Drain)));

    // One that begins to wait long after the connection had anything to do.
    let mut bench = begin();
    bench
        .write([preface(0), ask(1, "late", true)].concat())
        .await;
    let (at, why, _) = bench.end_read().await;
    assert_eq!((at, why), (130, Some(Cut::Stall)));
}

/// Catches an answer that is kept, with all it is made of, for as long as the caller lets other answers come; and one that
/// is not looked at any more once h2 has the end of it.
#[tokio::test(start_paused = true)]
async fn an_answer_of_http2_that_stands_still_is_let_go_however_busy_the_others_are() {
    // No window; one that is short by a byte; none for what comes after the head.
    for (window, path, end) in [(0, "100000", 30), (99_999, "100000", 30), (0, "late", 130)] {
        for busy in [true, false] {
            let mut bench = begin();
            let all = frame(WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes());
            bench
                .write([preface(window), all, ask(1, path, true)].concat())
                .await;
            let kept = bench.kept.clone();
            let (at, why, read) = match busy {
                true => bench.end_busy().await,
                false => bench.end_read().await,
            };
            assert_eq!((at, why), (end, Some(Cut::Stall)), "{window} {path} {busy}");
            // An answer's head for each.
            let answered = kinds(&read).iter().filter(|kind| **kind == HEADERS).count();
            assert_eq!(answered > 1, busy);
            // A turn for the tasks of the streams.
            time::sleep(Duration::from_millis(1)).await;
            assert_eq!(kept.strong_count(), 0, "{window} {path} {busy}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn floods_of_http2_end_the_connection() {
    let ping = frame(PING, 0, 0, &[0; 8]);
    let settings = frame(SETTINGS, 0, 0, &[]);
    let window = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 0x01]);
    let empty = frame(DATA, 0, 1, &[]);
    let unknown = frame(0x42, 0, 0, &[0; 100]);
    let reset = |stream| {
        [
            ask(stream, "slow", true),
            frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]),
        ]
    };
    for (what, begins, flood) in [
        ("ping", vec![], vec![ping; 1_000].concat()),
        ("settings", vec![], vec![settings; 1_000].concat()),
        ("window", vec![], vec![window; 1_000].concat()),
        ("unknown", vec![], vec![unknown; 1_000].concat()),
        (
            "empty data",
            ask(1, "slow", false),
            vec![empty; 1_000].concat(),
        ),
        (
            "continuation",
            frame(HEADERS, 0, 1, &[0x82]),
            vec![frame(9, 0, 1, &[]); 1_000].concat(),
        ),
    ] {
        let mut bench = begin();
        bench.write([preface(65_535), begins].concat()).await;
        let Bench {
            mut reads,
            mut writes,
            serving,
            begun,
            ..
        } = bench;
        let reading = tokio::spawn(async move {
            let _ = tokio::io::copy(&mut reads, &mut tokio::io::sink()).await;
        });
        let mut written = 0;
        while writes.write_all(&flood).await.is_ok() {
            written += flood.len();
            assert!(written < 4 << 20, "{what} goes on and on");
        }
        let ended = serving.await.unwrap().unwrap_err();
        assert!(
            matches!(ended, Ended::Cut(Cut::Flood)) || ended.is_malformed(),
            "{what}: {ended}"
        );
        assert!(begun.elapsed() < Duration::from_secs(1), "{what}");
        reading.await.unwrap();
    }
    // Rapid reset: all at once, which h2 sees, and one after the other, which the pulse does.
    for pause in [Duration::ZERO, Duration::from_millis(1)] {
        let bench = begin();
        let Bench {
            mut reads,
            mut writes,
            serving,
            ..
        } = bench;
        tokio::spawn(async move {
            let _ = tokio::io::copy(&mut reads, &mut tokio::io::sink()).await;
        });
        let _ = writes.write_all(&preface(65_535)).await;
        for number in 0.. {
            assert!(number < 2_000, "resets go on and on");
            let [ask, reset] = reset(2 * number + 1);
            if writes.write_all(&ask).await.is_err() {
                break;
            }
            if !pause.is_zero() {
                time::sleep(pause).await;
            }
            let _ = writes.write_all(&reset).await;
            if !pause.is_zero() {
                time::sleep(pause).await;
            }
        }
        let ended = serving.await.unwrap().unwrap_err();
        assert!(
            matches!(ended, Ended::Cut(Cut::Resets)) || ended.is_malformed(),
            "{ended}"
        );
        assert_eq!(pause.is_zero(), ended.is_malformed());
    }
}
