//! The commands for operators, as a shell runs them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use contacts_gateway::{
    edge::key::Digest,
    simulator::{AccountSettings, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Settings, Simulator},
};
use serde_json::Value;

use crate::{
    program::{Program, addresses, configured, paste},
    support::{page, path},
    tls::Authority,
};

const GATEWAY: &str = env!("CARGO_BIN_EXE_contacts-gateway");

/// Runs a command to its end: exit code, standard output, standard error.
fn run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let (status, said, errors) = Program::start(folder, arguments, &[]).ends();
    (status.code().unwrap(), said, errors)
}

/// Catches a command that speaks plain HTTP only, one that believes any certificate, a key or a token that is not shown,
/// and an explanation for somebody else than was named.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn operators_ask_over_tls_and_in_a_callers_place() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    let (certificate, key, _) = authority.issue("127.0.0.1");
    for (name, content) in [
        ("listener.pem", &*certificate),
        ("listener.key", &*key),
        ("token", "operator-token"),
        ("crm", "crm-key"),
    ] {
        fs::write(folder.join(name), content).unwrap();
    }
    let trusted = authority.write(folder);
    let tls = "certificate_file = \"listener.pem\"\nkey_file = \"listener.key\"";
    let caller = |name: &str, streams: &str| {
        let digest = Digest::of(&format!("{name}-key"));
        format!(
            "[[callers]]\nname = \"{name}\"\nkey_sha256 = [\"{digest}\"]\naccounts = [\"acme\"]\n{streams}\n"
        )
    };
    let more = format!(
        "[listen.tls]\n{tls}\n[admin.tls]\n{tls}\n{}{}",
        caller("crm", ""),
        caller("other", "streams = [\"st-other\"]"),
    );
    let file = configured(folder, &kore.base_url(), &AccountSettings::demo(), &more);
    let token = Digest::of("operator-token").to_string();
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replacen(
        "[admin]\n",
        &format!("[admin]\ntoken_sha256 = [\"{token}\"]\n"),
        1,
    );
    fs::write(&file, text).unwrap();
    let mut serve = Program::start(folder, &["serve", "--config", &file], &[]);
    let (traffic, admin) = addresses(&serve.says("callers on "));

    let target = path(DEMO_STREAM_ID, "");
    let reached = [
        "--admin",
        &admin,
        "--token-file",
        "token",
        "--ca-file",
        &trusted,
    ];
    let ask = |command: &[&str]| run(folder, &[command, &reached].concat());
    let (code, said, errors) = ask(&["explain", "--as", "crm", &target]);
    assert_eq!(code, 0, "{errors}");
    let explained: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&explained["caller"], &explained["decision"]),
        (&"crm".into(), &"miss".into())
    );
    let (_, said, _) = ask(&["explain", &target]);
    assert!(!said.contains("caller"), "{said}");
    let (code, said, errors) = ask(&["explain", "--as", "other", &target]);
    assert_eq!((code, &*said), (1, ""));
    assert!(errors.contains("(forbidden)"), "{errors}");
    let (code, _, errors) = ask(&["explain", "--as", "nobody", &target]);
    assert_eq!(code, 1);
    assert!(errors.contains("no caller of this name"), "{errors}");
    let (code, said, errors) = ask(&["purge", "--all"]);
    assert_eq!(code, 0, "{errors}");
    assert!(said.contains("\"purge\": \"hard\""), "{said}");
    // As an export reaches the other listener.
    let key = [
        "--key-file",
        "crm",
        "--ca-file",
        &trusted,
        "--output",
        "contacts.ndjson",
    ];
    let export = ["export", "--url", &traffic, "--stream", DEMO_STREAM_ID];
    let (code, _, errors) = run(folder, &[&export[..], &key].concat());
    assert_eq!(code, 0, "{errors}");
    let lines = fs::read_to_string(folder.join("contacts.ndjson")).unwrap();
    assert_eq!(lines.lines().count(), 1_000);

    // Nobody else's certificate, and no token for who shows none.
    let elsewhere = tempfile::tempdir().unwrap();
    let stranger = Authority::new().write(elsewhere.path());
    let whole = ["purge", "--all", "--admin", &admin, "--token-file", "token"];
    for (trust, told) in [
        (&["--ca-file", &stranger][..], "invalid peer certificate"),
        (&[], "in --ca-file"),
        (&["--ca-file", "listener.key"], "holds no certificate"),
        (&["--ca-file", "nowhere.pem"], "nowhere.pem"),
    ] {
        let (code, _, errors) = run(folder, &[&whole[..], trust].concat());
        assert_eq!(code, 1);
        assert!(errors.contains(told), "{trust:?}: {errors}");
        assert!(
            !errors.contains("PRIVATE") && !errors.contains("operator-token"),
            "{errors}"
        );
    }
    let plain = admin.replace("https", "http");
    let (code, _, _) = run(folder, &["purge", "--all", "--admin", &plain]);
    assert_eq!(code, 1);
    let (code, _, errors) = run(
        folder,
        &["purge", "--all", "--admin", &admin, "--ca-file", &trusted],
    );
    assert_eq!(code, 1);
    assert!(
        errors.contains("(unauthorized). Show the operators' token"),
        "{errors}"
    );
    fs::write(folder.join("two"), "one\ntwo\n").unwrap();
    let lines = [
        "--admin",
        &admin,
        "--token-file",
        "two",
        "--ca-file",
        &trusted,
    ];
    let (code, _, errors) = run(folder, &[&["log"][..], &lines].concat());
    assert_eq!(code, 1);
    assert!(errors.contains("two holds no token: one line"), "{errors}");

    // What the listener says of itself, to whoever has the token, and only there.
    let curl = |key: &str, url: String| {
        let line =
            format!("curl -sS --cacert {trusted} -H 'auth: {key}' -w '%{{http_code}}' '{url}'");
        paste(folder, &line)
    };
    for document in ["/openapi.json", "/openapi/callers.json"] {
        let served = curl("operator-token", format!("{admin}{document}"));
        assert!(served.starts_with("{\n  \"openapi\": \"3.1.0\"") && served.ends_with("}\n200"));
        assert!(curl("crm-key", format!("{admin}{document}")).ends_with("401"));
        assert!(curl("crm-key", format!("{traffic}{document}")).ends_with("404"));
    }
}

/// Catches lines that do not work when they are pasted: a file that `serve` does not take, or a secret that is another.
#[test]
fn what_the_simulator_prints_configures_a_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let mut kore = Program::start(folder, &["simulate", "--listen", "127.0.0.1:0"], &[]);
    let said = kore.says("calls_per_minute");
    let (_, toml) = said
        .split_once("a gateway in front of it is configured with\n\n")
        .unwrap();
    fs::write(folder.join("gateway.toml"), toml).unwrap();
    let exported = toml
        .lines()
        .find_map(|line| line.strip_prefix("# export "))
        .unwrap();
    let (name, secret) = exported.split_once('=').unwrap();
    let variables = [
        (name, secret.trim_matches('\'')),
        ("CONTACTS_GATEWAY__LISTEN__ADDRESS", "127.0.0.1:0"),
        ("CONTACTS_GATEWAY__ADMIN__ADDRESS", "127.0.0.1:0"),
    ];
    let mut serve = Program::start(folder, &["serve", "--config", "gateway.toml"], &variables);
    let (traffic, _) = addresses(&serve.says("callers on "));
    let page_url = format!("{traffic}{}", path(DEMO_STREAM_ID, "?skip=0&limit=10"));
    let answer = paste(folder, &format!("curl -sS '{page_url}'"));
    assert_eq!(answer, page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 0, 10));
}

/// Catches completions that a shell cannot read, and a command that is not among them.
#[test]
fn shells_complete_every_command() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (_, help, _) = run(folder, &["--help"]);
    let commands = help.split("Commands:\n").nth(1).unwrap().lines();
    let commands: Vec<_> = commands
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|command| !command.is_empty())
        .collect();
    assert!(
        commands.len() > 10 && commands.contains(&"completions"),
        "{commands:?}"
    );
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, errors) = run(folder, &["completions", shell]);
        assert_eq!((code, &*errors), (0, ""));
        for command in &commands {
            assert!(script.contains(command), "{shell}: {command}");
        }
        fs::write(folder.join(shell), script).unwrap();
    }
    // As bash asks when somebody presses the key.
    let complete = |before: &str, begun: &str| {
        let at = before.split(' ').count();
        let last = before.split(' ').next_back().unwrap();
        let line = format!(
            ". ./bash; COMP_WORDS=({before} {begun}); COMP_CWORD={at}; _contacts__gateway contacts-gateway '{begun}' '{last}'; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        paste(folder, &line)
    };
    assert_eq!(complete("contacts-gateway", "ex"), "explain\nexport\n");
    assert_eq!(complete("contacts-gateway purge", "--dry"), "--dry-run\n");
    let (code, _, _) = run(folder, &["completions", "cmd"]);
    assert_eq!(code, 2);
}

/// Catches an exit code that changes: scripts and supervisors read them.
#[test]
fn exit_codes_are_those_in_the_help() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("bad.toml"), "nope = 1\n").unwrap();
    for (arguments, expected) in [
        (&["--version"][..], 0),
        (&["purge", "--help"], 0),
        (&["purge", "--all", "--admin", "http://127.0.0.1:9"], 1),
        (&["purge", "--all", "--admin", "ftp://127.0.0.1:9"], 1),
        (&["explain", "--admin", "http://127.0.0.1:9", "/x"], 1),
        (&[], 2),
        (&["nope"], 2),
        (&["purge"], 2),
        (&["log", "default", "--for", "5m"], 2),
        (&["explain", "--cache-control", "no\ncache", "/x"], 2),
        (&["explain", "--as", "a\u{7f}b", "/x"], 2),
        (&["check", "--config", "bad.toml"], 78),
        (&["serve", "--config", "bad.toml"], 78),
        (&["config", "print", "--config", "bad.toml"], 78),
        (&["doctor", "--config", "nowhere.toml"], 78),
    ] {
        let (code, _, errors) = run(folder, arguments);
        assert_eq!(code, expected, "{arguments:?}: {errors}");
    }
    let help = Command::new(GATEWAY).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains(
        "Exit codes: 0 fine, 1 failed while running, 2 wrong usage, 78 wrong configuration"
    ));
}

/// As in `contacts-gateway status | head`. Catches a complaint about it.
#[test]
fn who_has_read_enough_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = Command::new(GATEWAY)
        .args(["completions", "bash"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn();
    let output = child.unwrap().wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), &*errors), (Some(0), ""));
}
