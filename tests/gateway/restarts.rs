//! O1, O2: the end of a process and the beginning of the next one, as callers and a service manager see them.

use std::{
    fs,
    io::Read,
    net::{SocketAddr, TcpListener},
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::Bytes;
use contacts_gateway::{
    simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Settings, Simulator},
    systemd::notify::State,
};
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use crate::{
    program::{Program, addresses, configured},
    support::{Raw, WATCHDOG, fault, page, path, soon, until},
};

/// A gateway on sockets of this process. It is killed when it is dropped.
struct Handed {
    child: Child,
    errors: Option<JoinHandle<String>>,
}

/// Hands over what stands at 0, and at 1 if there are two, as a service manager would.
const HAND_OVER: &str = r#"
exec 3<&0 0</dev/null
if [ "$LISTEN_FDS" = 2 ]; then exec 4<&1 1>/dev/null; fi
LISTEN_PID=$$ exec "$@""#;

impl Handed {
    fn start(file: &str, sockets: &[&TcpListener], variables: &[(&str, &str)]) -> Self {
        let end = |socket: Option<&&TcpListener>| match socket {
            Some(socket) => Stdio::from(OwnedFd::from(socket.try_clone().unwrap())),
            None => Stdio::null(),
        };
        let program = env!("CARGO_BIN_EXE_contacts-gateway");
        let mut child = Command::new("bash")
            .args(["-c", HAND_OVER, "bash", program, "serve", "--config", file])
            .env("LISTEN_FDS", sockets.len().to_string())
            .envs(variables.iter().copied())
            .stdin(end(sockets.first()))
            .stdout(end(sockets.get(1)))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let errors = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        Self {
            child,
            errors: Some(errors),
        }
    }

    fn terminate(&self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits for the end: exit status, standard error.
    async fn ends(mut self) -> (ExitStatus, String) {
        let mut status = None;
        until("the gateway ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        (status.unwrap(), self.errors.take().unwrap().join().unwrap())
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// A socket that nobody has asked for yet.
fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// What callers meet while the gateway is restarted again and again.
struct Load {
    address: SocketAddr,
    over: AtomicBool,
    answered: AtomicU64,
    repeated: AtomicU64,
}

impl Load {
    /// One of many pages, most of which no copy is held of.
    fn target(&self) -> String {
        let number = self.answered.fetch_add(1, Ordering::Relaxed);
        path(DEMO_STREAM_ID, &format!("?skip={}&limit=2", number % 900))
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    /// One answer on this connection, or on a new one if it ends before any byte of it.
    async fn ask(&self, raw: &mut Raw) {
        let request = get(&self.target());
        raw.write(&request).await;
        let answer = match raw.next_answer(true).await {
            Some(answer) => answer,
            None => {
                assert!(raw.has_read_nothing(), "half an answer");
                self.repeated.fetch_add(1, Ordering::Relaxed);
                *raw = Raw::to(self.address).await;
                raw.write(&request).await;
                raw.answer().await
            }
        };
        let answer = answer.ok();
        assert_eq!(answer.json()["limit"], 2);
        if answer.header("connection") == "close" {
            raw.is_closed().await;
            *raw = Raw::to(self.address).await;
        }
    }

    async fn on_a_kept_connection(&self) {
        let mut raw = Raw::to(self.address).await;
        while self.goes_on() {
            self.ask(&mut raw).await;
        }
    }

    async fn on_a_connection_each(&self) {
        while self.goes_on() {
            self.ask(&mut Raw::to(self.address).await).await;
        }
    }

    async fn over_http2(&self) {
        let mut connection = self.connect().await;
        while self.goes_on() {
            let outcomes = join_all((0..4).map(|_| self.stream(connection.clone()))).await;
            if outcomes.contains(&false) {
                connection = self.connect().await;
            }
        }
    }

    async fn connect(&self) -> SendRequest<Empty<Bytes>> {
        let stream = soon("a connection", TcpStream::connect(self.address))
            .await
            .unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = soon("a handshake", handshake).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    /// Whether the connection is good for more.
    async fn stream(&self, mut connection: SendRequest<Empty<Bytes>>) -> bool {
        let uri = format!("http://localhost{}", self.target());
        let request = || Request::get(&uri).body(Empty::new()).unwrap();
        let mut first = true;
        loop {
            // One that is known to end is asked nothing more.
            if soon("a connection", connection.ready()).await.is_err() {
                first = false;
                connection = self.connect().await;
            }
            match soon("an answer", connection.send_request(request())).await {
                Ok(response) => {
                    assert_eq!(response.status(), 200);
                    let body = soon("a body", response.into_body().collect()).await;
                    assert!(!body.unwrap().to_bytes().is_empty());
                    return first;
                }
                // Before its head had come.
                Err(_) if first => {
                    first = false;
                    self.repeated.fetch_add(1, Ordering::Relaxed);
                    connection = self.connect().await;
                }
                Err(error) => panic!("a second time: {error:?}"),
            }
        }
    }
}

/// O1. Catches a request that a restart costs: one cut in flight, one refused, one that was accepted and not answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_restarts_under_load_cost_no_request() {
    let kore = Simulator::start(Settings {
        latency: Duration::from_millis(5),
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let account = AccountSettings::demo();
    let file = configured(folder.path(), &kore.base_url(), &account, "");
    let more = "calls_per_minute = 60000\n";
    fs::write(&file, fs::read_to_string(&file).unwrap() + more).unwrap();
    let ((traffic, address), (admin, admin_at)) = (socket(), socket());
    let configured = [address, admin_at].map(|address| address.to_string());
    let variables = [
        ("LISTEN_FDNAMES", "traffic:admin"),
        ("CONTACTS_GATEWAY__LISTEN__ADDRESS", &configured[0]),
        ("CONTACTS_GATEWAY__ADMIN__ADDRESS", &configured[1]),
        ("CONTACTS_GATEWAY__LOG__ACCESS", "false"),
    ];
    let start = || Handed::start(&file, &[&traffic, &admin], &variables);
    let load = Arc::new(Load {
        address,
        over: AtomicBool::new(false),
        answered: AtomicU64::new(0),
        repeated: AtomicU64::new(0),
    });
    let mut gateway = start();
    let mut callers = Vec::new();
    for number in 0..12 {
        let load = load.clone();
        callers.push(tokio::spawn(async move {
            match number % 3 {
                0 => load.on_a_kept_connection().await,
                1 => load.on_a_connection_each().await,
                _ => load.over_http2().await,
            }
        }));
    }
    let mut served = 0;
    for restart in 0..20 {
        // By this process: what was answered before the signal may have been its predecessor's.
        let enough = load.answered.load(Ordering::Relaxed) + 100;
        until("it answers", async || {
            load.answered.load(Ordering::Relaxed) >= enough
                || callers.iter().any(|one| one.is_finished())
        })
        .await;
        gateway.terminate();
        let (status, errors) = gateway.ends().await;
        assert_eq!(status.code(), Some(0), "{restart}: {errors}");
        assert!(
            errors.contains("draining") && !errors.contains("abandoned"),
            "{errors}"
        );
        served += 1;
        gateway = start();
    }
    load.over.store(true, Ordering::Relaxed);
    for caller in callers {
        soon("a caller ends", caller).await.unwrap();
    }
    assert_eq!(served, 20);
    let answered = load.answered.load(Ordering::Relaxed);
    let repeated = load.repeated.load(Ordering::Relaxed);
    assert!(
        repeated < answered / 10,
        "{repeated} of {answered} repeated"
    );
    gateway.terminate();
    gateway.ends().await;
}

/// O6. Catches sockets that are taken although they are not what the configuration says, and a refusal that does not say
/// what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn sockets_that_do_not_fit_are_one_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let account = AccountSettings::demo();
    let file = configured(folder.path(), "http://127.0.0.1:9", &account, "");
    let ((one, at), (other, _)) = (socket(), socket());
    let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
    let connected = std::net::TcpStream::connect(at).unwrap();
    let deaf = TcpListener::from(OwnedFd::from(connected));
    let elsewhere = "127.0.0.1:1";
    for (sockets, names, listen, expected) in [
        (&[&one][..], "web", "", "named \"web\""),
        (&[&one], "", "", "1 sockets were handed over, with 0 names"),
        (
            &[&one, &other],
            "traffic",
            "",
            "2 sockets were handed over, with 1 names",
        ),
        (
            &[&one, &other],
            "traffic:traffic",
            "",
            "two sockets were handed over that are named `traffic`",
        ),
        (
            &[&one],
            "traffic",
            elsewhere,
            "listen.address is 127.0.0.1:1, but the socket that was handed over for it listens at 127.0.0.1:",
        ),
        // Nobody is told apart yet, so nobody from elsewhere may get in, whoever opened the socket.
        (&[&everywhere], "traffic", "", "listens at 0.0.0.0:"),
        (&[&everywhere], "traffic", "0.0.0.0:0", "loopback"),
        (&[&everywhere], "admin", "", "listens at 0.0.0.0:"),
        (
            &[&deaf],
            "traffic",
            "",
            "handed over as `traffic` does not listen",
        ),
    ] {
        let mut variables = vec![("LISTEN_FDNAMES", names)];
        if !listen.is_empty() {
            variables.push(("CONTACTS_GATEWAY__LISTEN__ADDRESS", listen));
        }
        let (status, errors) = Handed::start(&file, sockets, &variables).ends().await;
        let code = if expected == "loopback" { 78 } else { 1 };
        assert_eq!(status.code(), Some(code), "{names}: {errors}");
        assert!(errors.contains(expected), "{names}: {errors}");
        assert!(code == 78 || errors.lines().count() == 1, "{errors}");
        assert!(!errors.contains("panicked"), "{errors}");
    }
}

fn told(manager: &UnixDatagram) -> String {
    let mut bytes = [0; 4_096];
    let length = manager
        .recv(&mut bytes)
        .expect("the manager is told something");
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

/// Catches a manager that is told too early or nothing, and a readiness that outlasts the signal.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_service_manager_is_told_how_it_is() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let account = AccountSettings::demo();
    let file = configured(folder.path(), &kore.base_url(), &account, "");
    let at = folder.path().join("notify");
    let manager = UnixDatagram::bind(&at).unwrap();
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    let variables = [
        ("NOTIFY_SOCKET", at.to_str().unwrap()),
        ("WATCHDOG_USEC", "600000"),
        ("CONTACTS_GATEWAY__LISTEN__DRAIN_DELAY", "10m"),
    ];
    // The delay is out of its range, and a manager that waits is not told that it serves.
    let refused = Program::start(folder.path(), &["serve", "--config", &file], &variables);
    assert_eq!(refused.ends().0.code(), Some(78));
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 9]).is_err());
    manager.set_nonblocking(false).unwrap();

    let variables = [variables[0], variables[1]];
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &variables);
    let (traffic, admin) = addresses(&serve.says("callers on "));
    let callers = traffic.strip_prefix("http://").unwrap();
    let ready = format!("READY=1\nSTATUS=serving callers on {callers}");
    let mut first = [told(&manager), told(&manager)];
    first.sort();
    assert_eq!(first, [ready.as_str(), "WATCHDOG=1"]);
    for _ in 0..3 {
        assert_eq!(told(&manager), "WATCHDOG=1");
    }
    // A request that is not answered keeps it.
    kore.fault_always(fault("delay=1h"));
    let mut caller = Raw::to(callers.parse().unwrap()).await;
    caller.write(get(&path(DEMO_STREAM_ID, ""))).await;
    until("upstream is asked", async || {
        kore.calls(DEMO_ACCOUNT_ID).total == 1
    })
    .await;
    serve.signal("TERM");
    while told(&manager) == "WATCHDOG=1" {}
    // Told after it has ceased to be ready.
    let admin = admin.strip_prefix("http://").unwrap().parse().unwrap();
    let readiness = Raw::to(admin)
        .await
        .ask(&["GET /readyz HTTP/1.1", "Host: localhost"])
        .await;
    readiness.is_problem(503, "draining");
    // It drains, and is not stuck.
    assert_eq!(told(&manager), "WATCHDOG=1");
    serve.signal("TERM");
    assert_eq!(serve.ends().0.code(), Some(1));
}

/// Catches a reload that is not told or never over, one that is told as over before it is, and one whose refusal looks like
/// success. `systemctl reload` may wait for the second line.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_service_manager_is_told_of_each_reload() {
    let folder = tempfile::tempdir().unwrap();
    let account = AccountSettings::demo();
    let file = configured(folder.path(), "http://127.0.0.1:9", &account, "");
    let at = folder.path().join("notify");
    let manager = UnixDatagram::bind(&at).unwrap();
    manager.set_read_timeout(Some(WATCHDOG)).unwrap();
    let variables = [("NOTIFY_SOCKET", at.to_str().unwrap())];
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &variables);
    let (traffic, admin) = addresses(&serve.says("callers on "));
    let callers = traffic.strip_prefix("http://").unwrap();
    let serving = format!("READY=1\nSTATUS=serving callers on {callers}");
    assert_eq!(told(&manager), serving);

    let admin = admin.strip_prefix("http://").unwrap().parse().unwrap();
    let metrics = async || {
        let ask = ["GET /metrics HTTP/1.1", "Host: localhost"];
        let answer = Raw::to(admin).await.ask(&ask).await.ok();
        answer.text().to_owned()
    };
    let counted = |outcome, times| {
        format!("contacts_gateway_config_reloads_total{{outcome=\"{outcome}\"}} {times}\n")
    };
    let right = fs::read_to_string(&file).unwrap();
    let wrong = format!("{right}\nunknown = 1\n");
    for (text, expected, outcome, times) in [
        (&right, "reloaded", "applied", 1),
        (
            &wrong,
            "the last reload was refused, see the log",
            "refused",
            1,
        ),
        (&right, "reloaded", "applied", 2),
    ] {
        fs::write(&file, text).unwrap();
        let before = State::reloading();
        serve.signal("HUP");
        let begun = told(&manager);
        assert_eq!(told(&manager), format!("{serving}; {expected}"));
        // It is over by now, and has begun after the signal, by the clock that the manager compares with.
        assert!(metrics().await.contains(&counted(outcome, times)));
        let at = begun.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        let at = State::Reloading(at.expect(&begun).parse().unwrap());
        let [before, at, after] = [before, at, State::reloading()].map(|state| match state {
            State::Reloading(usec) => usec,
            _ => panic!("{state}"),
        });
        assert!(before <= at && at <= after, "{before} {at} {after}");
    }

    serve.signal("TERM");
    assert_eq!(told(&manager), "STOPPING=1\nSTATUS=draining");
    assert_eq!(serve.ends().0.code(), Some(0));
    manager.set_nonblocking(true).unwrap();
    assert!(manager.recv(&mut [0; 9]).is_err());
}

/// O1. Catches lists that are read on and on for nobody, callers that are cut instead of told, and silence about it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn lists_that_will_not_be_read_in_time_are_abandoned_and_told() {
    let account = AccountSettings::demo()
        .stream("st-long", 50_000)
        .stream("st-longer", 300_000);
    let kore = Simulator::start(Settings {
        accounts: vec![account.clone()],
        latency: Duration::from_millis(100),
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let more = "[merge]\nwidth = 1\n";
    let file = configured(folder.path(), &kore.base_url(), &account, more);
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text + "calls_per_minute = 60000\n").unwrap();
    let variables = [
        ("CONTACTS_GATEWAY__LISTEN__DRAIN_TIMEOUT", "6s"),
        ("CONTACTS_GATEWAY__EDGE__REQUEST_TIMEOUT", "10m"),
    ];
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &variables);
    let (traffic, _) = addresses(&serve.says("callers on "));
    let traffic: SocketAddr = traffic.strip_prefix("http://").unwrap().parse().unwrap();
    let open = async |stream: &str, more: &str| {
        let mut raw = Raw::to(traffic).await;
        let first = format!("GET {} HTTP/1.1", path(stream, "?all=true"));
        raw.write(format!("{first}\r\nHost: localhost\r\n{more}\r\n"))
            .await;
        raw
    };
    let ndjson = "Accept: application/x-ndjson\r\n";
    let mut document = open("st-long", "Prefer: wait=600\r\n").await;
    let mut lines = open("st-long", ndjson).await;
    let mut stream = open("st-longer", ndjson).await;
    lines.reads("HTTP/1.1 200").await;
    stream.reads("\n{").await;
    serve.signal("TERM");
    let answer = document.answer().await;
    answer.is_problem(503, "draining");
    assert_eq!(answer.header("connection"), "close");
    for raw in [&mut lines, &mut stream] {
        let text = raw.reads_all().await;
        let last = text
            .trim_end()
            .lines()
            .rfind(|line| line.starts_with('{'))
            .unwrap();
        assert!(
            last.starts_with("{\"$error\":{") && last.contains("\"code\":\"draining\""),
            "{last}"
        );
        assert!(
            !text.ends_with("0\r\n\r\n"),
            "broken off, so that it is not taken for whole"
        );
    }
    let (status, _, errors) = serve.ends();
    assert_eq!(status.code(), Some(0), "{errors}");
    let told = errors.lines().find(|line| line.contains("are abandoned"));
    let told = told.unwrap_or_else(|| panic!("{errors}"));
    assert!(told.contains("\"lists\":2"), "{told}");
    assert!(told.contains("acme/"), "{told}");
}

/// O2. Catches a gateway that a kill leaves something behind for, and one that spends what its predecessor may have spent.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn after_a_kill_it_is_ready_again_and_spends_its_share() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let account = AccountSettings::demo();
    let file = configured(folder.path(), &kore.base_url(), &account, "");
    // Ports that stay theirs while nobody listens on them.
    let ((traffic, address), (admin, admin_at)) = (socket(), socket());
    let variables = [("LISTEN_FDNAMES", "traffic:admin")];
    for process in 0..2_u64 {
        let mut serve = Handed::start(&file, &[&traffic, &admin], &variables);
        until("it is ready", async || {
            let ready = ["GET /readyz HTTP/1.1", "Host: localhost"];
            Raw::to(admin_at).await.ask(&ready).await.status == 200
        })
        .await;
        let mut caller = Raw::to(address).await;
        for page_number in 0..30 {
            let skip = 100 * process + page_number;
            caller
                .write(get(&path(DEMO_STREAM_ID, &format!("?skip={skip}&limit=1"))))
                .await;
            let answer = caller.answer().await.ok();
            assert_eq!(
                answer.text(),
                page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, skip, 1)
            );
        }
        // Half of the sixty: the other half may have been spent before.
        caller.write(get(&path(DEMO_STREAM_ID, "?skip=900"))).await;
        let refused = caller.answer().await;
        assert_eq!(
            (refused.status, &refused.json()["code"]),
            (503, &"budget_exhausted".into())
        );
        assert_eq!(kore.calls(DEMO_ACCOUNT_ID).total, 30 * (process + 1));
        serve.child.kill().unwrap();
        assert_eq!(serve.ends().await.0.code(), None);
    }
}
