//! `export`, the real program, against a listener that answers what the test wrote down.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
};

use contacts_gateway::simulator::DEMO_ACCOUNT_ID;
use serde_json::{Value, json};
use tokio::task;

use crate::{
    ndjson::lines_of,
    program::Program,
    support::{WATCHDOG, World, soon},
    tls::{Authority, Front},
};

/// In contacts and in the key: it must never be seen in what is said about them.
const CANARY: &str = "canary-7f3a";

const VERIFIED: &str =
    r#"{"verdict":"verified","checks":"seam","pages":2,"records":2,"calls":3,"oldest_s":1}"#;

/// What is answered to one connection, after its request has come.
enum Answer {
    /// These bytes, and the connection is closed.
    Bytes(String),
    /// These bytes, and then nothing for as long as the other side is there.
    Held(String),
}

/// Answers one connection after the other.
struct Listener {
    address: SocketAddr,
    requests: Receiver<String>,
}

impl Listener {
    fn new(answers: Vec<Answer>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, requests) = sync_channel(100);
        thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let request = head(&mut stream);
                let (Answer::Bytes(bytes) | Answer::Held(bytes)) = &answer;
                // Who refuses a list may be gone before its end.
                let _ = stream.write_all(bytes.as_bytes());
                seen.send(request).unwrap();
                if let Answer::Held(_) = answer {
                    let _ = stream.read(&mut [0]);
                }
                let _ = stream.shutdown(Shutdown::Both);
            }
        });
        Self { address, requests }
    }

    fn request(&self) -> String {
        self.requests.recv_timeout(WATCHDOG).unwrap()
    }
}

fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// A response in chunks, one for each piece; with the last chunk, or cut off.
fn lines<'a>(pieces: impl IntoIterator<Item = &'a str>, whole: bool) -> String {
    let chunk = |piece: &str| format!("{:x}\r\n{piece}\r\n", piece.len());
    let body: String = pieces.into_iter().map(chunk).collect();
    let end = if whole { "0\r\n\r\n" } else { "" };
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n{body}{end}"
    )
}

fn problem(status: u16, code: &str, more: &Value, headers: &str) -> Answer {
    let mut problem = json!({"status": status, "code": code, "detail": "as it is", "retryable": !headers.is_empty()});
    let members = problem.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    let length = problem.to_string().len();
    Answer::Bytes(format!(
        "HTTP/1.1 {status} x\r\ncontent-type: application/problem+json\r\ncontent-length: {length}\r\n{headers}\r\n{problem}"
    ))
}

fn contacts() -> String {
    format!(
        "{{\"id\":\"1\",\"fullName\":\"{CANARY}\",\"cellPhone\":{{\"phoneNumber\":\"+4912\"}}}}\n{{\"id\":\"2\",\"n\":-1.50,\"s\":\"\\u00e9\"}}\n"
    )
}

fn whole(end: &str) -> Answer {
    let end = format!("{{\"$end\":{end}}}\n");
    let progress = "{\"$progress\":{\"pages_done\":1,\"pages_needed\":2,\"records\":1,\"estimate_s\":9,\"budget_wait_s\":0}}\n";
    Answer::Bytes(lines(
        [&contacts()[..20], &contacts()[20..], progress, &end],
        true,
    ))
}

/// Runs the command: its exit code, what it wrote on standard output, and the events on standard error.
fn export(
    folder: &Path,
    url: &str,
    arguments: &[&str],
    variables: &[(&str, &str)],
) -> (i32, String, Vec<Value>) {
    let (code, output, errors) = start(folder, url, arguments, variables).ends();
    let events = errors
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>();
    assert!(!errors.contains(CANARY), "{errors}");
    let events = events.unwrap_or_else(|_| panic!("not all of it is JSON: {errors}"));
    (code.code().unwrap(), output, events)
}

fn start(folder: &Path, url: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Program {
    let first = ["export", "--stream", "st-1", "--url", url];
    Program::start(folder, &[&first, arguments].concat(), variables)
}

fn url(listener: &Listener) -> String {
    format!("http://{}", listener.address)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// Catches two ends that speak differently: the list comes from the gateway itself, along its walk and then from its copy.
#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_own_list_is_written() {
    let world = World::new().await;
    let url = format!("http://{}", world.gateway.traffic);
    let running = task::spawn_blocking(move || {
        let folder = tempfile::tempdir().unwrap();
        let account = ["--account", DEMO_ACCOUNT_ID];
        let lines = export(folder.path(), &url, &account, &[]);
        let table = [&account[..], &["--output", "list.csv"]].concat();
        let (code, _, events) = export(folder.path(), &url, &table, &[]);
        assert_eq!(code, 0, "{events:?}");
        let table = fs::read_to_string(folder.path().join("list.csv")).unwrap();
        (lines, table)
    });
    let ((code, output, events), table) = soon("both end", running).await.unwrap();
    assert_eq!(code, 0, "{events:?}");
    assert!(output == lines_of("st-1", 1_000).trim_end());
    assert_eq!(table.lines().count(), 1_001);
    assert_eq!(world.calls(), 12);
}

/// Catches bytes that are not upstream's, a record of ours among them, a wish that is not passed on, and a contact or the
/// key on standard error.
#[test]
fn a_list_is_written_as_it_came() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("key"), format!("{CANARY}\n")).unwrap();
    let listener = Listener::new(vec![whole(VERIFIED)]);
    let arguments = [
        "--account",
        "acme",
        "--output",
        "list.ndjson",
        "--key-file",
        "key",
        "--accept",
        "strict",
        "--fresh",
    ];
    let (code, output, events) = export(folder.path(), &url(&listener), &arguments, &[]);
    assert_eq!((code, &*output), (0, ""), "{events:?}");
    assert_eq!(
        fs::read_to_string(folder.path().join("list.ndjson")).unwrap(),
        contacts()
    );
    let request = listener.request();
    for line in [
        "get /agentassist/api/v1/public/st-1/contacts?all=true&progress=true http/1.1\r\n",
        "\r\naccept: application/x-ndjson\r\n",
        "\r\naccountid: acme\r\n",
        &format!("\r\nauthorization: bearer {CANARY}\r\n"),
        "\r\nprefer: handling=strict\r\n",
        "\r\ncache-control: no-cache\r\n",
    ] {
        assert!(request.contains(line), "{line:?}: {request}");
    }
    let last = events.last().unwrap();
    assert_eq!(
        (&last["event"], &last["records"]),
        (&"end".into(), &2.into())
    );
    assert_eq!(
        (&last["verdict"], &last["checks"]),
        (&"verified".into(), &"seam".into())
    );
    assert_eq!(names(folder.path()).len(), 2);

    // Nothing is asked for that was not wished for; the variable is a key, too.
    let listener = Listener::new(vec![whole(VERIFIED)]);
    let arguments = [
        "--max-age",
        "5m",
        "--accept",
        "lenient",
        "--progress",
        "none",
    ];
    let variables = [("CONTACTS_GATEWAY_KEY", CANARY)];
    let (code, output, events) = export(folder.path(), &url(&listener), &arguments, &variables);
    assert_eq!((code, output + "\n", events.len()), (0, contacts(), 0));
    let request = listener.request();
    assert!(!request.contains("accountid"), "{request}");
    for line in [
        "cache-control: max-age=300",
        "prefer: handling=lenient",
        CANARY,
    ] {
        assert!(request.contains(line), "{line}: {request}");
    }
}

#[test]
fn a_table_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::new(vec![whole(VERIFIED)]);
    let (code, _, _) = export(folder.path(), &url(&listener), &["-o", "list.csv"], &[]);
    assert_eq!(code, 0);
    let expected =
        format!("id,fullName,cellPhone.phoneNumber,n,s\r\n1,{CANARY},'+4912,,\r\n2,,,-1.50,é\r\n");
    assert_eq!(
        fs::read_to_string(folder.path().join("list.csv")).unwrap(),
        expected
    );
    assert_eq!(names(folder.path()), ["list.csv"]);
}

/// Catches a weaker verdict that passes for `verified`, and one that is not known for any.
#[test]
fn the_exit_code_is_the_verdict() {
    for (verdict, expected) in [
        ("verified", 0),
        ("consistent", 3),
        ("settled", 4),
        ("drifting", 5),
        ("splendid", 1),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::new(vec![whole(&VERIFIED.replace("verified", verdict))]);
        let (code, _, events) = export(folder.path(), &url(&listener), &["-o", "a.ndjson"], &[]);
        assert_eq!(code, expected, "{verdict}: {events:?}");
        assert_eq!(
            folder.path().join("a.ndjson").exists(),
            expected != 1,
            "{verdict}"
        );
    }
}

/// Where upstream says more than it sends, twice. Catches a list that is short by a number that nobody is told, from the
/// walk and from the copy.
#[tokio::test(flavor = "multi_thread")]
async fn by_how_much_a_settled_list_is_off_is_told() {
    let world = World::new().await;
    world.fault_stream("st-1", "total=+7");
    let url = format!("http://{}", world.gateway.traffic);
    let running = task::spawn_blocking(move || {
        let folder = tempfile::tempdir().unwrap();
        let account = ["--account", DEMO_ACCOUNT_ID];
        [(); 2].map(|()| export(folder.path(), &url, &account, &[]))
    });
    for (code, output, events) in soon("both end", running).await.unwrap() {
        assert_eq!(code, 4, "{events:?}");
        assert_eq!(output.lines().count(), 1_000);
        let last = events.last().unwrap();
        assert_eq!(
            (&last["verdict"], &last["gap"]),
            (&"settled".into(), &7.into())
        );
    }
}

/// A gateway that has the list at hand knows its length.
#[test]
fn a_kept_list_is_taken_too() {
    let body = format!("{}{{\"$end\":{VERIFIED}}}\n", contacts());
    let answer = |length: usize| {
        Answer::Bytes(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\netag: \"1\"\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
    };
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::new(vec![answer(body.len()), answer(body.len() + 1)]);
    let (code, output, _) = export(folder.path(), &url(&listener), &[], &[]);
    assert_eq!((code, output + "\n"), (0, contacts()));
    let (code, output, events) = export(folder.path(), &url(&listener), &[], &[]);
    assert_eq!((code, &*output), (1, ""), "{events:?}");
}

/// Catches a short list that passes for a whole one, a file that is touched by a failure, and anything left behind.
#[test]
fn a_failure_writes_nothing() {
    let contacts = contacts();
    let (end, error) = (
        format!("{{\"$end\":{VERIFIED}}}\n"),
        "{\"$error\":{\"status\":503,\"code\":\"merge_drifting\",\"detail\":\"it changes\",\"retryable\":true}}\n",
    );
    let bytes = |pieces: &[&str], whole| Answer::Bytes(lines(pieces.iter().copied(), whole));
    let plain = |status: &str| {
        Answer::Bytes(format!(
            "HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}"
        ))
    };
    for (what, answer, code) in [
        (
            "an error line, then cut off",
            bytes(&[&contacts, error], false),
            "merge_drifting",
        ),
        (
            "an error line",
            bytes(&[&contacts, error], true),
            "merge_drifting",
        ),
        ("cut off", bytes(&[&contacts], false), "cut_off"),
        (
            "cut off in a contact",
            bytes(&[&contacts[..30]], false),
            "cut_off",
        ),
        (
            "cut off behind the end",
            bytes(&[&contacts, &end], false),
            "cut_off",
        ),
        ("without an end", bytes(&[&contacts], true), "cut_off"),
        (
            "a contact is missing",
            bytes(&[&contacts[..82], &end], true),
            "strange_line",
        ),
        (
            "a line is missing",
            bytes(
                &[contacts.split_inclusive('\n').next().unwrap(), &end],
                true,
            ),
            "miscounted",
        ),
        ("no answer", Answer::Bytes(String::new()), "unanswered"),
        ("another document", plain("200 OK"), "not_ndjson"),
        ("another server", plain("502 Bad Gateway"), "status 502"),
        (
            "a redirect",
            plain("302 Found\r\nlocation: http://127.0.0.1:1/"),
            "status 302",
        ),
        (
            "a key that is none",
            problem(401, "unauthorized", &json!({}), ""),
            "unauthorized",
        ),
        (
            "for good",
            problem(502, "merge_unverified", &json!({}), ""),
            "merge_unverified",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.csv"), "old").unwrap();
        let listener = Listener::new(vec![answer]);
        let (exit, output, events) = export(folder.path(), &url(&listener), &["-o", "a.csv"], &[]);
        assert_eq!((exit, &*output), (1, ""), "{what}: {events:?}");
        let last = events.last().unwrap();
        assert_eq!(
            (&last["event"], &last["code"]),
            (&"error".into(), &code.into()),
            "{what}: {last}"
        );
        assert_eq!(
            fs::read_to_string(folder.path().join("a.csv")).unwrap(),
            "old",
            "{what}"
        );
        assert_eq!(names(folder.path()), ["a.csv"], "{what}");
    }
    // People are told in a sentence.
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::new(vec![bytes(&[&contacts], false)]);
    let arguments = ["--progress", "none"];
    let (status, output, errors) = start(folder.path(), &url(&listener), &arguments, &[]).ends();
    assert_eq!((status.code(), &*output), (Some(1), ""));
    assert!(
        errors.starts_with("contacts-gateway: the transfer was cut off after 2 contacts"),
        "{errors}"
    );
    // What cannot be written costs no request.
    for (arguments, expected) in [
        (&["-o", "none/a.csv"][..], 1),
        (&["-o", "/dev/null", "--format", "csv"], 1),
        (&["-o", "a"], 2),
    ] {
        let (status, _, errors) = start(folder.path(), "http://127.0.0.1:9", arguments, &[]).ends();
        assert_eq!(status.code(), Some(expected), "{errors}");
        assert!(!errors.contains("no gateway answers"), "{errors}");
    }
}

/// Catches a command that gives up where waiting helps, that does not hear how long, or that waits for ever.
#[test]
fn the_gateways_turn_is_waited_for() {
    let pages = json!({"pages_done": 3, "pages_needed": 9, "estimate_s": 4});
    let folder = tempfile::tempdir().unwrap();
    let listener = Listener::new(vec![
        problem(503, "merge_in_progress", &pages, "retry-after: 1\r\n"),
        problem(503, "budget_exhausted", &json!({}), "retry-after: 1\r\n"),
        whole(VERIFIED),
    ]);
    let (code, output, events) =
        export(folder.path(), &url(&listener), &["--progress", "json"], &[]);
    assert_eq!((code, output + "\n"), (0, contacts()), "{events:?}");
    let waits: Vec<_> = events
        .iter()
        .filter(|event| event["event"] == "waiting")
        .collect();
    assert_eq!(waits.len(), 2, "{events:?}");
    for (key, expected) in [
        ("code", json!("merge_in_progress")),
        ("ask_again_s", json!(1)),
        ("pages_done", json!(3)),
        ("pages_needed", json!(9)),
        ("estimate_s", json!(4)),
    ] {
        assert_eq!(waits[0][key], expected, "{key}");
    }

    let listener = Listener::new(vec![problem(
        503,
        "merge_in_progress",
        &pages,
        "retry-after: 61\r\n",
    )]);
    let (code, _, events) = export(folder.path(), &url(&listener), &["--wait", "1m"], &[]);
    assert_eq!(code, 1);
    let detail = events.last().unwrap()["detail"].as_str().unwrap();
    assert!(
        detail.contains("wait for 1m 1s, which is longer than --wait allows"),
        "{detail}"
    );
}

/// A started command whose standard output nobody reads, and the lines of its standard error.
struct Unread {
    child: Child,
    lines: Receiver<String>,
}

impl Unread {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_contacts-gateway"))
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        let (send, lines) = sync_channel(1_000);
        thread::spawn(move || {
            for line in errors.lines() {
                let _ = send.send(line.unwrap());
            }
        });
        Self { child, lines }
    }

    fn says(&self, text: &str) {
        while !self.lines.recv_timeout(WATCHDOG).unwrap().contains(text) {}
    }

    fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(
            Command::new("bash")
                .args(["-c", &command])
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Catches a command that leaves a part of a list when it is interrupted, or that cannot be.
#[test]
fn an_interrupted_export_leaves_nothing() {
    for signal in ["INT", "TERM", "HUP"] {
        let folder = tempfile::tempdir().unwrap();
        let listener = Listener::new(vec![Answer::Held(lines([&*contacts()], false))]);
        let program = start(folder.path(), &url(&listener), &["-o", "a.csv"], &[]);
        listener.request();
        program.signal(signal);
        let (status, _, errors) = program.ends();
        assert_eq!(status.code(), Some(1), "{signal}: {errors}");
        assert!(
            errors.contains("interrupted; nothing was written"),
            "{errors}"
        );
        assert_eq!(names(folder.path()).len(), 0, "{signal}");
    }
    // While it writes to somebody who does not read.
    let folder = tempfile::tempdir().unwrap();
    let many = format!("{{\"id\":\"{}\"}}\n", "x".repeat(1 << 20));
    let end = r#"{"$end":{"verdict":"verified","records":1}}"#;
    let listener = Listener::new(vec![Answer::Bytes(lines([&*many, end], true))]);
    let mut unread = Unread::start(
        folder.path(),
        &["export", "--stream", "st-1", "--url", &url(&listener)],
    );
    unread.says("\"writing\"");
    unread.signal("INT");
    unread.says("interrupted");
    assert_eq!(unread.child.wait().unwrap().code(), Some(1));
}

/// Catches a key that is shown to whoever answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_behind_tls_is_trusted_or_nothing_is_sent() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let file = authority.write(folder.path());
    for (issuer, expected) in [(&authority, 0), (&stranger, 1)] {
        let listener = Listener::new(vec![whole(VERIFIED)]);
        let front = Front::before(listener.address, issuer.certify("127.0.0.1", false)).await;
        let address = format!("https://{}", front.address);
        let (folder, file) = (folder.path().to_owned(), file.clone());
        let running = task::spawn_blocking(move || {
            let variables = [
                ("SSL_CERT_FILE", &*file),
                ("SSL_CERT_DIR", ""),
                ("CONTACTS_GATEWAY_KEY", CANARY),
            ];
            export(&folder, &address, &[], &variables)
        });
        let (code, _, events) = soon("the command ends", running).await.unwrap();
        assert_eq!(code, expected, "{events:?}");
        assert_eq!(listener.requests.try_recv().is_ok(), expected == 0);
    }
}
