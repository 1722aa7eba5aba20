//! What one caller can make the gateway hold: measured from outside, by the resident set of a process of its own.

use std::{net::SocketAddr, time::Duration};

use contacts_gateway::simulator::{
    AccountSettings, DEMO_STREAM_ID, LimitMax, Rule, Settings, Simulator,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

use crate::{
    listener::{ask, frame, get, preface, resident, serve},
    program::Program,
    smuggling::literal,
    support::{Raw, fault, path, soon, until},
};

/// A gateway, a simulator with long lists, and nobody who is cut while a test looks.
struct Measured {
    kore: Simulator,
    program: Program,
    traffic: SocketAddr,
    admin: SocketAddr,
    _folder: tempfile::TempDir,
}

const CONTACTS: u64 = 20_000;

impl Measured {
    async fn start() -> Self {
        let kore = Simulator::start(Settings {
            accounts: vec![AccountSettings::demo().others(CONTACTS)],
            limit_max: LimitMax::Clamp(1_000),
            rate_limit: None,
            ..Settings::default()
        })
        .await
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let variables = [
            ("CONTACTS_GATEWAY__LISTEN__STALL_TIMEOUT", "5m"),
            ("CONTACTS_GATEWAY__LISTEN__HEADER_TIMEOUT", "5m"),
            ("CONTACTS_GATEWAY__EDGE__REQUEST_TIMEOUT", "5m"),
            ("CONTACTS_GATEWAY__UPSTREAM__FIRST_BYTE_TIMEOUT", "1m"),
            ("CONTACTS_GATEWAY__MERGE__PAGE_LIMIT_MAX", "1000"),
            ("CONTACTS_GATEWAY__BUDGET__START_SHARE", "1"),
        ];
        let (program, traffic, admin) = serve(folder.path(), &kore, &variables);
        Self {
            kore,
            program,
            traffic,
            admin,
            _folder: folder,
        }
    }

    /// What so many connections, each opened by `open`, make it hold more, in KiB for each. Another such connection came
    /// before, so that what is held once is not counted.
    async fn each<F: Future<Output = TcpStream>>(&self, count: usize, open: impl Fn() -> F) -> i64 {
        let mut held = vec![open().await];
        self.is_quiet().await;
        let before = resident(self.program.pid());
        for _ in 0..count {
            held.push(open().await);
        }
        self.is_quiet().await;
        let after = resident(self.program.pid());
        (after - before) * 1024 / count as i64
    }

    /// Waits until it holds what it will: nothing grows for a while, and others are answered.
    async fn is_quiet(&self) {
        let (mut last, mut still) = (0, 0);
        until("it holds no more", async || {
            time::sleep(Duration::from_millis(50)).await;
            let now = resident(self.program.pid());
            still = if now == last { still + 1 } else { 0 };
            last = now;
            still >= 4
        })
        .await;
        let livez = ["GET /livez HTTP/1.1", "Host: localhost"];
        assert_eq!(Raw::to(self.admin).await.ask(&livez).await.status, 200);
    }

    /// A connection on which this is sent.
    async fn sending(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.traffic).await.unwrap();
        soon("bytes are taken", stream.write_all(bytes))
            .await
            .unwrap();
        stream
    }
}

/// The windows of a stream and of the connection as large as they can be: what is held back is the gateway's own doing.
fn wide_open() -> Vec<u8> {
    let most = (1_u32 << 31) - 1;
    [
        preface(most),
        frame(8, 0, 0, &(most - 65_535).to_be_bytes()),
    ]
    .concat()
}

/// C12. Catches a list that is copied for whoever takes nothing of it: twelve megabytes each.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_takes_nothing_of_a_list_costs_two_mebibytes_at_most() {
    const STREAM_KIB_MAX: i64 = 2 * 1024;
    let measured = Measured::start().await;
    let target = path("st-long", "?all=true");
    let mut raw = Raw::to(measured.traffic).await;
    raw.write(get(&target)).await;
    let whole = raw.answer().await.ok();
    assert!(whole.body.len() > 10 << 20, "{}", whole.body.len());
    drop((raw, whole));
    let lines = get(&target).replace("\r\n\r\n", "\r\nAccept: application/x-ndjson\r\n\r\n");
    // Two answers wait on the one connection, as callers may pipeline them.
    for (what, asked) in [
        ("document", get(&target)),
        ("lines", lines.clone()),
        ("two", get(&target).repeat(2)),
    ] {
        let kib = measured
            .each(40, || measured.sending(asked.as_bytes()))
            .await;
        assert!(kib <= STREAM_KIB_MAX, "{what}: {kib} KiB");
    }
    const STREAMS: u32 = 16;
    let asked: Vec<u8> = (0..STREAMS)
        .flat_map(|number| ask_for("st-long", 2 * number + 1))
        .collect();
    let asked = [wide_open(), asked].concat();
    let kib = measured.each(10, || measured.sending(&asked)).await;
    assert!(
        kib / i64::from(STREAMS) <= STREAM_KIB_MAX,
        "HTTP/2: {kib} KiB for {STREAMS} streams"
    );
    // While a walk is under way its readers share what has come.
    measured
        .kore
        .add_faults(Rule::always(fault("delay=100ms")).stream("st-slow"));
    let lines = lines.replace("st-long", "st-slow");
    let kib = measured
        .each(40, || measured.sending(lines.as_bytes()))
        .await;
    assert!(kib <= STREAM_KIB_MAX, "lines of a walk: {kib} KiB");
}

/// A whole list, on a stream of HTTP/2.
fn ask_for(stream: &str, number: u32) -> Vec<u8> {
    let block = [
        &[0x82, 0x86][..],
        &literal(b":path", path(stream, "?all=true").as_bytes()),
        &literal(b":authority", b"localhost"),
    ];
    frame(1, 5, number, &block.concat())
}

/// C7. Catches heads that are held without a bound, whole ones and those that never end.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn heads_cost_a_connection_half_a_mebibyte_at_most() {
    const CONNECTION_KIB_MAX: i64 = 512;
    let measured = Measured::start().await;
    let first = get("/").replace("\r\n\r\n", "\r\n");
    let lines: String = (0..98)
        .map(|number| format!("x-{number}: {}\r\n", "y".repeat(1_310)))
        .collect();
    // As large as a head can be, and not yet at its end.
    let endless = format!("{first}{lines}");
    assert!(
        (126 * 1024..128 * 1024).contains(&endless.len()),
        "{}",
        endless.len()
    );
    let unfinished_line = format!("{first}x: {}", "y".repeat(126 * 1024));
    for (what, head) in [("lines", &endless), ("one line", &unfinished_line)] {
        let kib = measured
            .each(100, || measured.sending(head.as_bytes()))
            .await;
        assert!(kib <= CONNECTION_KIB_MAX, "HTTP/1.1, {what}: {kib} KiB");
    }
    // Of HTTP/2 a head that goes on in further frames, and as many whole ones as there may be streams, all of which wait.
    let own = [
        &[0x82, 0x86][..],
        &literal(b":path", path(DEMO_STREAM_ID, "?skip=1").as_bytes()),
        &literal(b":authority", b"localhost"),
    ]
    .concat();
    let large: Vec<u8> = (0..12)
        .flat_map(|number| literal(format!("x-{number}").as_bytes(), &[b'y'; 1_200]))
        .collect();
    let unfinished = [wide_open(), frame(1, 1, 1, &[&own[..], &large].concat())].concat();
    let kib = measured.each(100, || measured.sending(&unfinished)).await;
    assert!(
        kib <= CONNECTION_KIB_MAX,
        "HTTP/2, without an end: {kib} KiB"
    );
    measured.kore.fault_always(fault("stall-head=5m"));
    let block = [&own[..], &large].concat();
    let many: Vec<u8> = (0..128)
        .flat_map(|number| frame(1, 5, 2 * number + 1, &block))
        .collect();
    let waiting = [wide_open(), many].concat();
    let kib = measured.each(20, || measured.sending(&waiting)).await;
    assert!(
        kib <= CONNECTION_KIB_MAX,
        "HTTP/2, 128 that wait: {kib} KiB"
    );
}

/// C11, C12. Catches a caller that is held up by those who take nothing: it would have to wait for their turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn who_takes_nothing_holds_up_no_other_stream_of_its_connection() {
    let measured = Measured::start().await;
    // The first stream's window is never opened; what comes behind it on the same connection is answered.
    let settings = [preface(0), frame(8, 0, 0, &1_000_000_u32.to_be_bytes())].concat();
    let second = [
        ask_for("st-short", 1),
        ask(3, "?skip=3&limit=1", true),
        frame(8, 0, 3, &100_000_u32.to_be_bytes()),
    ];
    let mut stream = measured
        .sending(&[settings, second.concat()].concat())
        .await;
    let mut read = Vec::new();
    soon("the second's page comes", async {
        while !String::from_utf8_lossy(&read).contains("\"skip\":3,\"limit\":1,") {
            assert!(stream.read_buf(&mut read).await.unwrap() > 0);
        }
    })
    .await;
}
