//! The listener against callers that are slow, hostile or too many, and without descriptors.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use contacts_gateway::simulator::{AccountSettings, DEMO_STREAM_ID, Settings, Simulator};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    select,
    sync::Notify,
    time,
};

use crate::{
    access::caller,
    program::{Program, addresses, configured},
    support::{Gateway, Raw, Rogue, WATCHDOG, World, path, soon, until},
};

pub(crate) fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// Descriptors for so many connections, both ends of which are in this process.
pub(crate) fn allow(connections: u64) {
    let needed = 2 * connections + 1_000;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < needed) {
        let enough = limit.maximum.is_none_or(|maximum| maximum >= needed);
        assert!(
            enough,
            "this test needs {needed} descriptors: raise `ulimit -Hn`"
        );
        let current = Some(needed);
        setrlimit(Resource::Nofile, Rlimit { current, ..limit }).unwrap();
    }
}

/// C11, C12. Catches a connection that costs the others something while nothing comes on it, or nothing is taken.
#[tokio::test]
async fn two_thousand_slow_callers_take_nothing_from_the_others() {
    allow(2_000);
    let world = World::with(
        |_| (),
        |config| {
            // Longer than this test: they stay, and the deadlines have tests of their own.
            config.listen.first_byte_timeout = Duration::from_secs(300);
            config.listen.header_timeout = Duration::from_secs(300);
            config.listen.stall_timeout = Duration::from_secs(300);
        },
    )
    .await;
    world.get("?all=true").await.ok();
    let list = get(&path(DEMO_STREAM_ID, "?all=true"));
    let half = &get("/")[..20];
    let mut slow = Vec::new();
    for number in 0..2_000 {
        let mut raw = Raw::to(world.gateway.traffic).await;
        match number % 4 {
            0 => {}
            1 => raw.write(half).await,
            2 => raw.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await,
            // Half a megabyte and more, of which nothing is read.
            _ => raw.write(&list).await,
        }
        slow.push(raw);
    }
    let open = async || {
        world
            .gateway
            .metric("connections{listener=\"traffic\"}")
            .await
    };
    until("all are accepted", async || open().await >= 2_000.0).await;
    for number in 0..20 {
        let answer = world.get(&format!("?skip={number}")).await.ok();
        assert_eq!(answer.json()["skip"], number);
        let request = world
            .gateway
            .request(&path("st-other", &format!("?skip={number}")));
        world.gateway.ask_http2(request).await.ok();
    }
    assert!(open().await >= 2_000.0);
    drop(slow);
    until("they are gone", async || open().await < 100.0).await;
}

/// C11. Catches one peer that takes all places.
#[tokio::test]
async fn a_peer_has_so_many_connections_and_no_more() {
    let world = World::with(|_| (), |config| config.listen.peer_connections_max = 3).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let mut raw = Raw::to(world.gateway.traffic).await;
        raw.write(get(&path(DEMO_STREAM_ID, ""))).await;
        raw.answer().await.ok();
        open.push(raw);
    }
    Raw::to(world.gateway.traffic).await.is_closed().await;
    let cut = "connections_cut_total{listener=\"traffic\",reason=\"peer\"}";
    assert_eq!(world.gateway.metric(cut).await, 1.0);
    for raw in &mut open {
        raw.write(get(&path(DEMO_STREAM_ID, ""))).await;
        raw.answer().await.ok();
    }
}

/// C16. Catches waiting without a bound, and a refusal of what need not wait.
#[tokio::test]
async fn with_too_many_waiting_the_next_is_told_at_once_and_hits_are_answered() {
    let release = Arc::new(Notify::new());
    let rogue = Rogue::holding(release.clone()).await;
    let gateway = Gateway::before(rogue.address, |config| config.edge.waiting_max = 3).await;
    let ask = async |stream: &str| {
        let mut raw = Raw::to(gateway.traffic).await;
        raw.write(get(&path(stream, ""))).await;
        raw
    };
    let waiting = async || gateway.metric("requests_waiting").await;

    let mut first = ask(DEMO_STREAM_ID).await;
    until("upstream is asked", async || rogue.seen() == 1).await;
    release.notify_one();
    first.answer().await.ok();
    // Three callers wait for two flights; what they ask for does not matter, nor who began them.
    let mut admitted = [ask("st-1").await, ask("st-1").await, ask("st-2").await];
    until("all three wait", async || waiting().await == 3.0).await;
    for _ in 0..9 {
        let refused = ask("st-3").await.answer().await;
        refused.is_problem(503, "overloaded");
        assert_eq!(refused.header("retry-after"), "1");
        let hit = ask(DEMO_STREAM_ID).await.answer().await.ok();
        assert!(hit.is_hit());
        assert_eq!(gateway.operate("/livez").await.status, 200);
    }
    assert_eq!(gateway.metric("requests_shed_total").await, 9.0);
    until("two flights are under way", async || rogue.seen() >= 3).await;
    for _ in 0..rogue.seen() {
        release.notify_one();
        release.notify_waiters();
    }
    for raw in &mut admitted {
        assert!(
            raw.answer().await.status < 503,
            "all who were admitted are answered"
        );
    }
    assert_eq!(waiting().await, 0.0);
}

/// C16. Catches a copy that is refused because it was not compressed yet, while all places are taken.
#[tokio::test]
async fn the_first_who_wants_a_copy_as_gzip_takes_no_place() {
    let world = World::with(
        |_| (),
        |config| {
            config.edge.waiting_max = 1;
            let longer_than_a_test = 2 * WATCHDOG;
            config.edge.request_timeout = longer_than_a_test;
            config.upstream.first_byte_timeout = longer_than_a_test;
            config.upstream.page_timeout = longer_than_a_test;
        },
    )
    .await;
    let copies = [
        path(DEMO_STREAM_ID, "?limit=100"),
        path("st-list", "?all=true"),
    ];
    for copy in &copies {
        world.gateway.get(copy).await.ok();
    }
    world.fault_stream("st-held", "stall=1h");
    let mut held = Raw::to(world.gateway.traffic).await;
    held.write(get(&path("st-held", ""))).await;
    let waiting = async || world.gateway.metric("requests_waiting").await;
    until("one waits", async || waiting().await == 1.0).await;
    let refused = world.stream("st-other", "").await;
    refused.is_problem(503, "overloaded");
    for copy in &copies {
        let request = world.gateway.request(copy);
        let answer = world.gateway.ask(request.header("accept-encoding", "gzip"));
        let answer = answer.await.ok();
        assert!(answer.is_hit(), "{copy}");
        assert_eq!(answer.header("content-encoding"), "gzip", "{copy}");
    }
    assert_eq!(waiting().await, 1.0);
    assert_eq!(world.gateway.metric("requests_shed_total").await, 1.0);
}

/// C16. Catches one caller that takes all places with what takes long, so that the others' misses are refused.
#[tokio::test]
async fn who_has_none_waiting_finds_a_place() {
    let release = Arc::new(Notify::new());
    let rogue = Rogue::holding(release.clone()).await;
    let gateway = Gateway::before(rogue.address, |config| {
        config.edge.waiting_max = 6;
        config.callers = ["greedy", "modest", "third"]
            .map(|name| caller(name, &["account-0"]))
            .to_vec();
    })
    .await;
    let ask = async |name: &str, stream: &str| {
        let key = format!("Host: localhost\r\nauth: {name}-key\r\n\r\n");
        let mut raw = Raw::to(gateway.traffic).await;
        raw.write(get(&path(stream, "")).replace("Host: localhost\r\n\r\n", &key))
            .await;
        raw
    };
    let waiting = async || gateway.metric("requests_waiting").await;
    let mut admitted = Vec::new();
    for number in 0..3 {
        admitted.push(ask("greedy", "st-1").await);
        let all = f64::from(number) + 1.0;
        until("it waits", async || waiting().await == all).await;
    }
    // Half of the places are left.
    for _ in 0..9 {
        let refused = ask("greedy", "st-1").await.answer().await;
        refused.is_problem(503, "overloaded");
    }
    for (name, all) in [("modest", 4.0), ("third", 5.0)] {
        admitted.push(ask(name, "st-2").await);
        until("another waits", async || waiting().await == all).await;
    }
    // One left, and one of its own waits.
    let refused = ask("modest", "st-3").await.answer().await;
    refused.is_problem(503, "overloaded");
    until("all places are free", async || {
        release.notify_waiters();
        waiting().await == 0.0
    })
    .await;
    for raw in &mut admitted {
        assert!(raw.answer().await.status < 503);
    }
    admitted.push(ask("greedy", "st-4").await);
    until("it waits again", async || waiting().await == 1.0).await;
}

/// O1. Catches a stop that closes a connection on which the next request is on its way, and one that waits for it for ever.
#[tokio::test]
async fn a_kept_connection_gets_one_more_answer_after_the_stop() {
    let world = World::with(
        |_| (),
        |config| config.listen.drain_idle_timeout = Duration::from_secs(2),
    )
    .await;
    let mut asks = Raw::to(world.gateway.traffic).await;
    let mut silent = Raw::to(world.gateway.traffic).await;
    let mut half = Raw::to(world.gateway.traffic).await;
    for raw in [&mut asks, &mut silent, &mut half] {
        raw.write(get(&path(DEMO_STREAM_ID, ""))).await;
        assert_eq!(raw.answer().await.ok().header("connection"), "");
    }
    half.write("GET ").await;
    world.gateway.stop();
    until("nobody new is let in", async || {
        TcpStream::connect(world.gateway.traffic).await.is_err()
    })
    .await;
    asks.write(get(&path(DEMO_STREAM_ID, ""))).await;
    let answer = asks.answer().await.ok();
    assert_eq!(answer.header("connection"), "close");
    asks.is_closed().await;
    silent.is_closed().await;
    half.is_closed().await;
    world.gateway.ended().await;
}

/// A frame of HTTP/2.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// How HTTP/2 begins, with a window of so many bytes for each stream.
pub(crate) fn preface(window: u32) -> Vec<u8> {
    let settings = [&[0, 4], &window.to_be_bytes()[..]].concat();
    let magic = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    [magic, frame(4, 0, 0, &settings)].concat()
}

/// A GET of the demo's list or of something else.
pub(crate) fn ask(stream: u32, query: &str, ends: bool) -> Vec<u8> {
    let path = path(DEMO_STREAM_ID, query);
    let length = u8::try_from(path.len()).unwrap();
    assert!(length < 127);
    // :method GET, :scheme http, :path, :authority localhost
    let block = [
        &[0x82, 0x86, 0x04, length][..],
        path.as_bytes(),
        b"\x41\x09localhost",
    ]
    .concat();
    frame(1, 4 | u8::from(ends), stream, &block)
}

/// Writes pieces until the gateway has closed, and takes what it says meanwhile.
async fn flood(to: SocketAddr, begins: Vec<u8>, mut piece: impl FnMut(u32) -> Vec<u8>) {
    let (mut reads, mut writes) = TcpStream::connect(to).await.unwrap().into_split();
    let reading = tokio::spawn(async move {
        let mut read = [0; 16 * 1024];
        while matches!(reads.read(&mut read).await, Ok(1..)) {}
    });
    soon("the flood is ended", async {
        if writes.write_all(&begins).await.is_ok() {
            let mut number = 0;
            while writes.write_all(&piece(number)).await.is_ok() {
                number += 1;
            }
        }
        reading.await.unwrap();
    })
    .await;
}

/// C12. Catches a list that nobody takes and that is kept, beyond what the cache may hold, for as long as other answers on
/// its connection are taken.
#[tokio::test]
async fn an_answer_that_stands_still_ends_its_connection_of_http2_however_busy_that_is() {
    let world = World::with(
        |_| (),
        |config| config.listen.stall_timeout = Duration::from_secs(1),
    )
    .await;
    world.get("?all=true").await.ok();
    let stream = TcpStream::connect(world.gateway.traffic).await.unwrap();
    let (mut reads, mut writes) = stream.into_split();
    let begins = [preface(0), ask(1, "?all=true", true)].concat();
    writes.write_all(&begins).await.unwrap();
    let busy = async {
        for stream in (3..).step_by(2) {
            let windows = [0, stream].map(|stream| frame(8, 0, stream, &[0, 1, 0, 0]));
            let asks = [ask(stream, "", true), windows.concat()].concat();
            let _ = writes.write_all(&asks).await;
            time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut read = Vec::new();
    select! {
        _ = soon("the stall is ended", reads.read_to_end(&mut read)) => {}
        () = busy => {}
    }
    let cut = "connections_cut_total{listener=\"traffic\",reason=\"stall\"}";
    until("it is counted", async || {
        world.gateway.metric(cut).await == 1.0
    })
    .await;
}

/// C11. Catches half a head that came along with a whole request, and is waited for as if nothing had come.
#[tokio::test]
async fn half_a_head_behind_a_request_is_closed_in_its_time() {
    let world = World::with(
        |_| (),
        |config| {
            config.listen.header_timeout = Duration::from_secs(1);
            config.listen.idle_timeout = Duration::from_secs(300);
        },
    )
    .await;
    let mut raw = Raw::to(world.gateway.traffic).await;
    raw.write(get(&path(DEMO_STREAM_ID, "")) + "GET / HT").await;
    raw.answer().await.ok();
    raw.is_closed().await;
    let cut = "connections_cut_total{listener=\"traffic\",reason=\"header\"}";
    until("it is counted", async || {
        world.gateway.metric(cut).await == 1.0
    })
    .await;
}

/// The memory that a process has in use, in MiB.
pub(crate) fn resident(pid: u32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: i64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

/// A running program, and where it listens.
pub(crate) fn serve(
    folder: &std::path::Path,
    kore: &Simulator,
    variables: &[(&str, &str)],
) -> (Program, SocketAddr, SocketAddr) {
    let file = configured(folder, &kore.base_url(), &AccountSettings::demo(), "");
    let mut serve = Program::start(folder, &["serve", "--config", &file], variables);
    let (traffic, admin) = addresses(&serve.says("callers on "));
    let socket = |url: &str| url.strip_prefix("http://").unwrap().parse().unwrap();
    let (traffic, admin) = (socket(&traffic), socket(&admin));
    (serve, traffic, admin)
}

/// C15. Catches a flood that goes on, that takes memory, or that others feel.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn floods_of_http2_end_their_connection_and_cost_little() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let variables = [
        ("CONTACTS_GATEWAY__LISTEN__STALL_TIMEOUT", "1s"),
        ("CONTACTS_GATEWAY__BUDGET__START_SHARE", "1"),
        ("CONTACTS_GATEWAY__LOG__ACCESS", "false"),
    ];
    let (program, traffic, admin) = serve(folder.path(), &kore, &variables);
    let target = path(DEMO_STREAM_ID, "?all=true");
    let well = async || {
        let mut raw = Raw::to(traffic).await;
        raw.write(get(&target)).await;
        raw.answer().await.ok()
    };
    well().await;
    well().await;
    let before = resident(program.pid());
    let many = |frame: Vec<u8>| frame.repeat(1_000);
    for _ in 0..5 {
        let begins = preface(65_535);
        let (ping, settings) = (many(frame(6, 0, 0, &[0; 8])), many(frame(4, 0, 0, &[])));
        flood(traffic, begins.clone(), |_| ping.clone()).await;
        flood(traffic, begins.clone(), |_| settings.clone()).await;
        let window = many(frame(8, 0, 0, &[0, 0, 0, 0]));
        flood(traffic, begins.clone(), |_| window.clone()).await;
        let empty = many(frame(0, 0, 1, &[]));
        let opened = [begins.clone(), ask(1, "?skip=1", false)].concat();
        flood(traffic, opened, |_| empty.clone()).await;
        let endless = many(frame(9, 0, 1, b"\x40\x01x\x01y"));
        let opened = [begins.clone(), frame(1, 0, 1, &[0x82])].concat();
        flood(traffic, opened, |_| endless.clone()).await;
        flood(traffic, begins, |number| {
            let stream = 2 * number + 1;
            [
                ask(stream, "?all=true", true),
                frame(3, 0, stream, &[0, 0, 0, 8]),
            ]
            .concat()
        })
        .await;
        // A list on each stream, and no window for any of them.
        let lists: Vec<u8> = (0..128)
            .flat_map(|number| ask(2 * number + 1, "?all=true", true))
            .collect();
        let (mut reads, mut writes) = TcpStream::connect(traffic).await.unwrap().into_split();
        writes
            .write_all(&[preface(0), lists].concat())
            .await
            .unwrap();
        let mut read = Vec::new();
        let _ = soon("the stall is ended", reads.read_to_end(&mut read)).await;
        well().await;
    }
    let after = resident(program.pid());
    assert!(after - before <= 32, "from {before} MiB to {after} MiB");
    let metrics = Raw::to(admin)
        .await
        .ask(&["GET /metrics HTTP/1.1", "Host: localhost"])
        .await;
    let metric = |series: &str| {
        let line = metrics
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(series));
        line.map_or(0.0, |value| value.trim().parse::<f64>().unwrap())
    };
    let cut = |reason| {
        metric(&format!(
            "contacts_gateway_connections_cut_total{{listener=\"traffic\",reason=\"{reason}\"}}"
        ))
    };
    assert!(cut("flood") >= 10.0, "{}", metrics.text());
    assert_eq!(cut("stall"), 5.0);
    // What breaks the protocol is told as that.
    assert!(
        metric("contacts_gateway_malformed_requests_total{listener=\"traffic\"}") >= 10.0,
        "{}",
        metrics.text()
    );
}

/// O3. Catches a process that ends, spins or never comes back when it has no descriptor left.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn without_descriptors_it_waits_and_recovers() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (program, traffic, admin) = serve(folder.path(), &kore, &[]);
    let request = get(&path(DEMO_STREAM_ID, ""));
    // On connections that are open before: none can be accepted later.
    let (mut caller, mut operator) = (Raw::to(traffic).await, Raw::to(admin).await);
    caller.write(&request).await;
    caller.answer().await.ok();
    let mut pauses = async || {
        operator.write(get("/metrics")).await;
        let metrics = operator.answer().await.ok();
        let series =
            "contacts_gateway_accept_pauses_total{listener=\"traffic\",reason=\"system\"} ";
        let line = metrics
            .text()
            .lines()
            .find_map(|line| line.strip_prefix(series));
        line.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(pauses().await, 0);
    let pid = Pid::from_raw(program.pid().try_into().unwrap()).unwrap();
    let few = Rlimit {
        current: Some(48),
        maximum: Some(48),
    };
    prlimit(Some(pid), Resource::Nofile, few).unwrap();
    let mut others = Vec::new();
    for _ in 0..60 {
        others.push(Raw::to(traffic).await);
    }
    until("accepting pauses", async || pauses().await >= 3).await;
    // Who was there is answered, and so is who waits, once there is room.
    caller.write(&request).await;
    assert!(caller.answer().await.ok().is_hit());
    let mut last = Raw::to(traffic).await;
    last.write(&request).await;
    others.clear();
    assert!(last.answer().await.ok().is_hit());
    let so_far = pauses().await;
    assert!(so_far < 1_000, "{so_far} tries: it spins");
    program.signal("TERM");
    let (status, _, errors) = program.ends();
    assert_eq!(status.code(), Some(0), "{errors}");
    // Once for each time that it runs out, and not for each try.
    let told = errors.matches("no connection can be accepted for now");
    assert!((1..=5).contains(&told.count()), "{errors}");
}

/// O3, C11. Catches a process that is content with the few descriptors that a shell gives it: one peer takes them all, and
/// not even a probe is answered. And one that does not say that it cannot have enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn few_descriptors_are_made_as_many_as_may_be() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = configured(
        folder.path(),
        &kore.base_url(),
        &AccountSettings::demo(),
        "",
    );
    // With what is needed beside them, that comes to 780.
    let connections = "export CONTACTS_GATEWAY__LISTEN__CONNECTIONS_MAX=400";
    for (most, is_warned) in [(780, false), (779, true)] {
        let said = format!("{connections}; ulimit -Sn 64 && ulimit -Hn {most}");
        let arguments = ["serve", "--config", &file];
        let mut serve = Program::after(folder.path(), &said, &arguments);
        let (traffic, admin) = addresses(&serve.says("callers on "));
        let socket = |url: &str| url.strip_prefix("http://").unwrap().parse().unwrap();
        let (traffic, admin): (SocketAddr, SocketAddr) = (socket(&traffic), socket(&admin));
        let mut open = Vec::new();
        for _ in 0..200 {
            let mut raw = Raw::to(traffic).await;
            raw.write(get("/nothing")).await;
            assert_eq!(raw.answer().await.status, 404);
            open.push(raw);
        }
        let mut probe = Raw::to(admin).await;
        probe.write(get("/readyz")).await;
        probe.answer().await.ok();
        let mut caller = Raw::to(traffic).await;
        caller.write(get(&path(DEMO_STREAM_ID, ""))).await;
        caller.answer().await.ok();
        drop((open, probe, caller));
        serve.signal("TERM");
        let (status, _, log) = serve.ends();
        assert_eq!(status.code(), Some(0), "{log}");
        assert_eq!(log.contains("too few descriptors"), is_warned, "{log}");
    }
}
