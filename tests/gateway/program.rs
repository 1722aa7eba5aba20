//! The program itself, as a shell starts it.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    thread::{self, JoinHandle},
};

use contacts_gateway::simulator::{
    AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Settings, Simulator,
};
use secrecy::ExposeSecret;

use crate::support::{WATCHDOG, list, page, path};

/// A started program. It is killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
    errors: Option<JoinHandle<String>>,
}

impl Program {
    pub(crate) fn start(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::spawned(folder, arguments, variables, Stdio::piped())
    }

    /// The same, and standard error goes somewhere else.
    pub(crate) fn writing(folder: &Path, arguments: &[&str], errors: Stdio) -> Self {
        Self::spawned(folder, arguments, &[], errors)
    }

    /// The same, from a shell in which this was said before.
    pub(crate) fn after(folder: &Path, said: &str, arguments: &[&str]) -> Self {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("{said}; exec \"$0\" \"$@\"")]);
        shell.arg(env!("CARGO_BIN_EXE_contacts-gateway"));
        Self::run(shell, folder, arguments, &[], Stdio::piped())
    }

    fn spawned(
        folder: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
        errors: Stdio,
    ) -> Self {
        let program = Command::new(env!("CARGO_BIN_EXE_contacts-gateway"));
        Self::run(program, folder, arguments, variables, errors)
    }

    fn run(
        mut command: Command,
        folder: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
        errors: Stdio,
    ) -> Self {
        let mut child = command
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .unwrap();
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take());
        let (send, lines) = sync_channel(1_000);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines() {
                if send.send(line.unwrap()).is_err() {
                    break;
                }
            }
        });
        let errors = thread::spawn(move || {
            let mut text = String::new();
            if let Some(mut stderr) = stderr {
                stderr.read_to_string(&mut text).unwrap();
            }
            text
        });
        Self {
            child,
            lines,
            said: Vec::new(),
            errors: Some(errors),
        }
    }

    /// The lines of standard output to the first that holds this text.
    pub(crate) fn says(&mut self, text: &str) -> String {
        loop {
            match self.lines.recv_timeout(WATCHDOG) {
                Ok(line) => {
                    self.said.push(line);
                    if self.said.last().is_some_and(|line| line.contains(text)) {
                        return self.said.join("\n");
                    }
                }
                Err(_) => panic!("it never said {text:?}, but {:?}", self.said),
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(
            Command::new("bash")
                .args(["-c", &command])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the end: exit status, standard output, standard error.
    pub(crate) fn ends(mut self) -> (ExitStatus, String, String) {
        loop {
            match self.lines.recv_timeout(WATCHDOG) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it did not end"),
            }
        }
        let status = self.child.wait().unwrap();
        let errors = self.errors.take().unwrap().join().unwrap();
        (status, self.said.join("\n"), errors)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line as a newcomer would paste it.
pub(crate) fn paste(folder: &Path, line: &str) -> String {
    let output = Command::new("bash")
        .args(["-c", line])
        .current_dir(folder)
        .env("no_proxy", "*")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Catches a demo that prints lines which do not work, or that needs anything configured.
#[test]
fn every_line_that_the_demo_prints_works_when_it_is_pasted() {
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Program::start(
        folder.path(),
        &["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        &[],
    );
    let said = demo.says("_simulator/calls");
    let prose =
        |line: &str| line.is_empty() || line.starts_with("# ") || line.contains("simulated");
    let lines: Vec<_> = said.lines().filter(|line| !prose(line)).collect();
    assert_eq!(lines.len(), 10, "{said}");
    assert!(lines.iter().all(|line| line.contains("curl ")), "{said}");
    let answers: Vec<_> = lines
        .iter()
        .map(|line| paste(folder.path(), line))
        .collect();
    let [
        first,
        second,
        broken,
        refreshed,
        stale,
        healed,
        whole,
        explained,
        metrics,
        calls,
    ] = &answers[..]
    else {
        panic!("{said}");
    };

    let held = page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 0, 2);
    for answer in [first, second, stale] {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(body, held);
    }
    assert!(first.contains("fwd=uri-miss; fwd-status=200; stored"));
    assert!(second.contains("cache-status: contacts-gateway; hit; ttl="));
    assert!(broken.contains("503"), "{broken}");
    assert_eq!(refreshed, "");
    assert!(
        stale.contains("cache-status: contacts-gateway; hit; ttl=-")
            && stale.contains("; detail=upstream_5xx"),
        "{stale}"
    );
    assert!(!healed.contains("503"), "{healed}");
    assert!(whole.contains("merge-status: verified; "), "{whole}");
    let whole = fs::read_to_string(folder.path().join("contacts.json")).unwrap();
    assert!(whole == list(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000));
    assert!(explained.contains("\"decision\": "), "{explained}");
    assert!(metrics.contains("contacts_gateway_requests_total"));
    assert!(calls.contains("\"total\""), "{calls}");

    demo.signal("TERM");
    let (status, _, errors) = demo.ends();
    assert_eq!(status.code(), Some(0), "{errors}");
}

/// O6. Catches a panic, a backtrace, or an error that does not say which port and what to do.
#[test]
fn a_taken_port_is_one_clear_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flags, key) in [
        (
            ["--listen", &address, "--admin", "127.0.0.1:0"],
            "listen.address",
        ),
        (
            ["--listen", "127.0.0.1:0", "--admin", &address],
            "admin.address",
        ),
    ] {
        let arguments = [&["demo"][..], &flags[..]].concat();
        let demo = Program::start(folder.path(), &arguments, &[("RUST_BACKTRACE", "1")]);
        let (status, said, errors) = demo.ends();
        assert_eq!(status.code(), Some(1), "{errors}");
        assert_eq!(
            errors,
            format!(
                "contacts-gateway: cannot listen on {address} ({key}): another program listens there; stop it, or choose another port (0 takes a free one)\n"
            )
        );
        assert_eq!(said, "", "nothing is promised that is not there");
    }
}

/// A configuration file for the demo's account, with its secret beside it.
pub(crate) fn configured(
    folder: &Path,
    base_url: &str,
    account: &AccountSettings,
    more: &str,
) -> String {
    fs::write(folder.join("secret"), account.client_secret.expose_secret()).unwrap();
    let text = format!(
        r#"
[listen]
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[upstream]
base_url = "{base_url}"
allow_plaintext = true
{more}
[[accounts]]
name = "acme"
account_id = "{}"
client_id = "{}"
client_secret_file = "secret"
"#,
        account.account_id, account.client_id
    );
    let file = folder.join("gateway.toml");
    fs::write(&file, text).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Where `serve` says that it listens: callers, operators.
pub(crate) fn addresses(said: &str) -> (String, String) {
    let line = said.lines().last().unwrap();
    let rest = line.strip_prefix("callers on ").unwrap();
    let (traffic, admin) = rest.split_once(", operators on ").unwrap();
    (traffic.to_owned(), admin.to_owned())
}

/// Catches a configuration that passes its check but does not run, and a signal that is taken for a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn serve_runs_from_a_file_and_ends_well_at_a_signal() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = configured(
        folder.path(),
        &kore.base_url(),
        &AccountSettings::demo(),
        "",
    );
    let check = Program::start(folder.path(), &["check", "--config", &file], &[]);
    let (status, said, errors) = check.ends();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(said.contains("is fine: 1 account"), "{said}");

    for signal in ["TERM", "INT"] {
        let elsewhere = tempfile::tempdir().unwrap();
        let mut serve = Program::start(elsewhere.path(), &["serve", "--config", &file], &[]);
        let said = serve.says("callers on ");
        let (traffic, admin) = addresses(&said);
        let url = format!("{traffic}{}", path(DEMO_STREAM_ID, "?limit=3"));
        let body = paste(elsewhere.path(), &format!("curl -sf '{url}'"));
        assert_eq!(body, page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 0, 3));
        let ready = paste(elsewhere.path(), &format!("curl -sf {admin}/readyz"));
        assert_eq!(ready, "ready\n");
        serve.signal(signal);
        let (status, _, errors) = serve.ends();
        assert_eq!(status.code(), Some(0), "{signal}: {errors}");
        assert!(!errors.contains("panicked"), "{errors}");
    }
}

/// O1. Catches signals that are heard only some time after the program said that it serves: they would end it at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_signal_is_heard_as_soon_as_it_serves() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let account = AccountSettings::demo();
    let file = configured(folder.path(), &kore.base_url(), &account, "");
    let free = &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    for round in 0..10 {
        let serve = &["serve", "--config", &file];
        for (arguments, said) in [
            (&serve[..], "callers on "),
            (&[&["demo"], &free[..]].concat(), "Kore.ai is simulated at "),
        ] {
            let mut program = Program::start(folder.path(), arguments, &[]);
            program.says(said);
            program.signal(["TERM", "INT"][round % 2]);
            let (status, _, errors) = program.ends();
            assert_eq!(status.code(), Some(0), "{arguments:?}: {errors}");
        }
    }
}

/// O1. Catches a program that cannot be ended by somebody who has no more patience.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_second_signal_ends_it_at_once() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    kore.fault_always(crate::support::fault("delay=1h"));
    let folder = tempfile::tempdir().unwrap();
    let account = AccountSettings::demo();
    let file = configured(
        folder.path(),
        &kore.base_url(),
        &account,
        "first_byte_timeout = \"5m\"\npage_timeout = \"10m\"",
    );
    let variables = [
        ("CONTACTS_GATEWAY__LISTEN__DRAIN_TIMEOUT", "10m"),
        ("CONTACTS_GATEWAY__EDGE__REQUEST_TIMEOUT", "10m"),
    ];
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &variables);
    let said = serve.says("callers on ");
    let (traffic, admin) = addresses(&said);
    let url = format!("{traffic}{}", path(DEMO_STREAM_ID, ""));
    let mut caller = Command::new("curl")
        .args(["-s", "--noproxy", "*", &url])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    crate::support::until("upstream is asked", async || {
        kore.calls(DEMO_ACCOUNT_ID).total == 1
    })
    .await;
    serve.signal("TERM");
    // It waits for the request, and says so.
    let draining = format!(
        "until [ \"$(curl -s -o /dev/null -w '%{{http_code}}' {admin}/readyz)\" = 503 ]; do :; done"
    );
    paste(folder.path(), &draining);
    assert!(serve.child.try_wait().unwrap().is_none());
    serve.signal("TERM");
    let (status, _, errors) = serve.ends();
    assert_eq!(status.code(), Some(1), "{errors}");
    let last = errors.lines().last().unwrap();
    assert!(
        last.contains("ended at once by a second signal"),
        "{errors}"
    );
    let _ = caller.wait();
}

/// Catches a secret in what is printed, and a print that says something else than the file and the variables.
#[test]
fn the_configuration_is_printed_without_its_secrets_and_read_as_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let account = AccountSettings::demo();
    let more = "page_timeout = \"90s\"";
    let file = configured(folder.path(), "http://127.0.0.1:9", &account, more);
    let claims = "claims = { aud = \"CANARY-7f3a\" }\n";
    fs::write(&file, fs::read_to_string(&file).unwrap() + claims).unwrap();
    let print = |file: &str, variables: &[(&str, &str)]| {
        let print = Program::start(
            folder.path(),
            &["config", "print", "--config", file],
            variables,
        );
        let (status, said, errors) = print.ends();
        assert_eq!((status.code(), errors.as_str()), (Some(0), ""));
        said
    };
    let variables = [
        ("CONTACTS_GATEWAY__MERGE__WIDTH", "3"),
        ("ACME_SECRET", "CANARY-7f3a"),
    ];
    let once = print(&file, &variables);
    for line in [
        "page_timeout = \"1m 30s\"  # line 9",
        "width = 3  # CONTACTS_GATEWAY__MERGE__WIDTH",
        "fresh_for = \"5m\"  # default",
    ] {
        assert!(once.lines().any(|told| told == line), "{line}\n{once}");
    }
    let secret = account.client_secret.expose_secret();
    assert!(!once.contains("CANARY") && !once.contains(secret), "{once}");
    let whole = folder.path().join("whole.toml");
    fs::write(&whole, &once).unwrap();
    let twice = print(whole.to_str().unwrap(), &[]);
    let values = |text: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.split_once("  # "));
        lines
            .map(|(value, _)| value.to_owned())
            .filter(|value| !value.starts_with('#'))
            .collect()
    };
    assert_eq!(values(&twice), values(&once));
}

/// Catches exit codes that a supervisor cannot tell apart, and a message that has no place in it.
#[test]
fn wrong_configuration_is_78_and_wrong_usage_is_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    let text = "[listen]\naddress = \"0.0.0.0:1\"\nworker = 2\n[cache]\nfresh_for = \"soon\"\n";
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let missing = folder.path().join("missing.toml");
    for command in ["check", "serve"] {
        let program = Program::start(folder.path(), &[command, "--config", file], &[]);
        let (status, said, errors) = program.ends();
        assert_eq!(status.code(), Some(78), "{errors}");
        assert_eq!(said, "");
        // All of them at once.
        for text in [
            "worker",
            "fresh_for",
            "accounts",
            "0.0.0.0",
            "gateway.toml:3",
        ] {
            assert!(errors.contains(text), "{command}: {text} in\n{errors}");
        }
        assert!(!errors.contains("panicked"), "{errors}");
        let arguments = [command, "--config", missing.to_str().unwrap()];
        let (status, ..) = Program::start(folder.path(), &arguments, &[]).ends();
        assert_eq!(status.code(), Some(78));
    }
    for arguments in [
        &["demo", "--lisen", "127.0.0.1:0"][..],
        &["demo", "--listen", "here"],
        &["serve"],
        &["check"],
        &["serf"],
        &[],
    ] {
        let (status, said, errors) = Program::start(folder.path(), arguments, &[]).ends();
        assert_eq!(status.code(), Some(2), "{arguments:?}");
        assert!(said.is_empty() && errors.contains("--help"), "{errors}");
    }
}

/// K5. Catches a start that fails for one account, and a check that does not see it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_missing_secret_fails_the_check_but_not_the_start() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = configured(
        folder.path(),
        &kore.base_url(),
        &AccountSettings::demo(),
        "",
    );
    fs::remove_file(folder.path().join("secret")).unwrap();
    let check = Program::start(folder.path(), &["check", "--config", &file], &[]);
    let (status, _, errors) = check.ends();
    assert_eq!(status.code(), Some(78), "{errors}");
    assert!(errors.contains("secret"), "{errors}");
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &[]);
    let said = serve.says("callers on ");
    let (traffic, _) = addresses(&said);
    let url = format!("{traffic}{}", path(DEMO_STREAM_ID, ""));
    let body = paste(folder.path(), &format!("curl -s '{url}'"));
    assert!(
        body.contains("\"code\":\"credentials_unavailable\""),
        "{body}"
    );
    serve.signal("TERM");
    let (status, _, errors) = serve.ends();
    assert_eq!(status.code(), Some(0));
    assert!(errors.contains("the account is disabled"), "{errors}");
}

/// Catches a process whose memory, with every secret in it, is left on a disk when it crashes.
#[cfg(target_os = "linux")]
#[test]
fn no_core_is_dumped() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let mut demo = Program::start(folder.path(), &arguments, &[]);
    demo.says("_simulator/calls");
    let limits = fs::read_to_string(format!("/proc/{}/limits", demo.child.id())).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = core.unwrap().split_whitespace().collect();
    assert_eq!(words[4..], ["0", "0", "bytes"]);
}

/// Catches a listener that others on the network can reach, though nobody is told apart yet.
#[test]
fn only_loopback_addresses_are_listened_on_whoever_asks() {
    let folder = tempfile::tempdir().unwrap();
    for (listen, admin) in [("0.0.0.0:0", "127.0.0.1:0"), ("127.0.0.1:0", "0.0.0.0:0")] {
        let arguments = ["demo", "--listen", listen, "--admin", admin];
        let (status, _, said) = Program::start(folder.path(), &arguments, &[]).ends();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("only loopback addresses"), "{said}");
    }
}
