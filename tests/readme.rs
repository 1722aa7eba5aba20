//! What the README shows is true: its commands run, its configuration loads, its metrics are those that are exported.

#![allow(clippy::unwrap_used, reason = "a failing test says where it failed")]

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use contacts_gateway::{
    app::App, config::Config, contacts::account, metrics::Family, simulator::DEMO_STREAM_ID,
    upstream::secret::Secret,
};

const README: &str = include_str!("../README.md");
const GATEWAY: &str = env!("CARGO_BIN_EXE_contacts-gateway");

/// The fenced blocks in one language.
fn blocks(language: &str) -> Vec<&'static str> {
    let opening = format!("\n```{language}\n");
    let rest = README.split(&opening).skip(1);
    rest.map(|block| block.split("\n```").next().unwrap())
        .collect()
}

/// A process of ours, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts the gateway and reads its standard output up to a line that holds `last`.
    fn start(command: &mut Command, last: &str) -> (Self, String) {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let running = Self(child);
        let mut said = String::new();
        for line in output.lines() {
            let line = line.unwrap();
            said += &format!("{line}\n");
            if line.contains(last) {
                return (running, said);
            }
        }
        panic!("it ended before it said {last:?}: {said}");
    }
}

fn demo() -> (Running, String) {
    let mut command = Command::new(GATEWAY);
    command.args(["demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    Running::start(&mut command, "/_simulator/calls")
}

/// The address that a demo prints in the line that holds `part`.
fn address(said: &str, part: &str) -> String {
    let line = said.lines().find(|line| line.contains(part)).unwrap();
    let rest = line.split("http://").nth(1).unwrap();
    rest.split('/').next().unwrap().to_owned()
}

fn shell(line: &str, folder: &Path) -> String {
    let output = Command::new("bash")
        .args(["-c", line])
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_curl_lines_show_what_they_say() {
    let (_running, said) = demo();
    let (traffic, admin) = (address(&said, "skip=0"), address(&said, "/metrics"));
    let folder = tempfile::tempdir().unwrap();
    let lines = blocks("sh").into_iter().flat_map(str::lines);
    let answers: Vec<_> = lines
        .filter(|line| line.starts_with("curl "))
        .map(|line| {
            line.replace("127.0.0.1:8080", &traffic)
                .replace("127.0.0.1:8081", &admin)
        })
        .inspect(|line| assert!(said.contains(line), "demo prints no such line: {line}"))
        .map(|line| shell(&line, folder.path()))
        .collect();
    let [first, second, list, metrics] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert!(
        first.contains("cache-status: contacts-gateway; fwd=uri-miss; fwd-status=200; stored"),
        "{first}"
    );
    assert!(
        second.contains("cache-status: contacts-gateway; hit; ttl="),
        "{second}"
    );
    assert!(
        list.contains(
            "merge-status: verified; checks=seam; pages=11; records=1000; calls=12; oldest="
        ),
        "{list}"
    );
    let contacts = std::fs::read(folder.path().join("contacts.json")).unwrap();
    let contacts: serde_json::Value = serde_json::from_slice(&contacts).unwrap();
    assert_eq!(contacts["results"].as_array().unwrap().len(), 1000);

    // What is exported is in the table, the process's own aside.
    let exported = metrics.lines().filter_map(|line| {
        let declared = line.strip_prefix("# TYPE contacts_gateway_")?;
        declared.split(' ').next()
    });
    for name in exported.filter(|name| !name.starts_with("process_")) {
        assert!(README.contains(&format!("\n| `{name}` |")), "{name}");
    }
}

/// What the table of metrics begins and ends with.
const METRICS: [&str; 2] = [
    "| Metric, after `contacts_gateway_` | Labels | Meaning |\n| --- | --- | --- |\n",
    "| `process_*` | | CPU, memory, descriptors, threads |\n",
];

/// One row of it.
fn row(family: &Family) -> String {
    let labels: Vec<_> = family
        .labels
        .iter()
        .map(|label| format!("`{label}`"))
        .collect();
    let labels = match labels.join(", ") {
        none if none.is_empty() => " ".to_owned(),
        labels => format!(" {labels} "),
    };
    let help = family.help.trim_end_matches('.').replace('|', "\\|");
    format!("| `{}` |{labels}| {help} |\n", family.name)
}

/// Every metric that a gateway declares, by name.
async fn families() -> Vec<Family> {
    let mut config = Config::default();
    let here = "127.0.0.1:0".parse().unwrap();
    (config.listen.address, config.admin.address) = (here, here);
    config.accounts = vec![account::Config {
        name: "acme".to_owned(),
        account_id: "a1".to_owned(),
        client_id: "cs-1".to_owned(),
        ..account::Config::default()
    }];
    let app = App::bind(&config, vec![Some(Secret::new("secret"))]);
    let mut families = app.await.unwrap().metrics().families();
    families.sort_by(|one, other| one.name.cmp(&other.name));
    families
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's own, and no setting of the gateway"
)]
fn is_to_be_written() -> bool {
    env::var_os("UPDATE").is_some()
}

/// Catches a metric that nobody is told about, and a table that tells something else than `/metrics` does.
#[tokio::test]
async fn the_table_of_metrics_is_what_they_say_of_themselves() {
    let rows: String = families().await.iter().map(row).collect();
    let [head, foot] = METRICS;
    let (before, rest) = README.split_once(head).unwrap();
    let (table, after) = rest.split_once(foot).unwrap();
    if table == rows {
        return;
    }
    if is_to_be_written() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        fs::write(path, [before, head, &rows, foot, after].concat()).unwrap();
        return;
    }
    let [told, declared] = [table, &rows].map(|text| text.lines().collect::<BTreeSet<_>>());
    panic!(
        "the README's table of metrics is not what the code declares; `UPDATE=1 cargo test --test readme` writes it\n\
         only in the README: {:#?}\nonly in the code: {:#?}",
        told.difference(&declared),
        declared.difference(&told)
    );
}

#[test]
fn the_operators_lines_are_answered() {
    let (_running, said) = demo();
    let admin = address(&said, "/metrics");
    let folder = tempfile::tempdir().unwrap();
    let operators = |line: &&str| {
        ["status", "health", "explain", "purge", "log"]
            .iter()
            .any(|command| line.starts_with(&format!("contacts-gateway {command} ")))
    };
    let answers: Vec<_> = blocks("sh")
        .into_iter()
        .flat_map(str::lines)
        .filter(operators)
        .map(|line| {
            let line = line
                .split(" #")
                .next()
                .unwrap()
                .replace("contacts-gateway", GATEWAY);
            shell(&format!("{line} --admin http://{admin}"), folder.path())
        })
        .collect();
    let [status, health, explained, counted, purged, outdated, log] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert!(
        status.contains("Serving. Nobody has asked for contacts yet."),
        "{status}"
    );
    assert_eq!(health, "ready\n");
    assert!(explained.contains("\"decision\": \"miss\""), "{explained}");
    assert!(counted.contains("\"pages\": 0"), "{counted}");
    assert!(purged.contains("\"purge\": \"hard\""), "{purged}");
    assert!(outdated.contains("\"purge\": \"soft\""), "{outdated}");
    assert!(log.contains("\"level\": \"debug\""), "{log}");
}

#[test]
fn the_export_lines_write_the_whole_list() {
    let (_running, said) = demo();
    let traffic = address(&said, "skip=0");
    let folder = tempfile::tempdir().unwrap();
    let answers: Vec<_> = blocks("sh")
        .into_iter()
        .flat_map(str::lines)
        .filter(|line| line.starts_with("contacts-gateway export "))
        .map(|line| {
            let line = line
                .split(" #")
                .next()
                .unwrap()
                .replace("--stream st-1", &format!("--stream {DEMO_STREAM_ID}"))
                .replace(
                    "contacts-gateway export",
                    &format!("{GATEWAY} export --url http://{traffic}"),
                );
            shell(&format!("set -o pipefail; {line}"), folder.path())
        })
        .collect();
    let [nothing, counted] = &answers[..] else {
        panic!("{answers:?}");
    };
    assert_eq!((nothing.as_str(), counted.trim()), ("", "1000"));
    let mut table = csv::Reader::from_path(folder.path().join("contacts.csv")).unwrap();
    let columns = table.headers().unwrap().clone();
    assert!(columns.iter().any(|name| name == "cellPhone.phoneNumber"));
    assert_eq!(table.records().map(Result::unwrap).count(), 1000);
}

#[test]
fn the_configuration_is_a_good_one_and_serves() {
    let folder = tempfile::tempdir().unwrap();
    let [config] = blocks("toml")[..] else {
        panic!("one configuration is shown")
    };
    std::fs::write(folder.path().join("gateway.toml"), config).unwrap();
    for line in blocks("sh").into_iter().flat_map(str::lines) {
        let Some(arguments) = line.strip_prefix("contacts-gateway ") else {
            continue;
        };
        if !arguments.contains("--config") {
            continue;
        }
        let arguments = arguments.split('#').next().unwrap();
        let mut command = Command::new(GATEWAY);
        command
            .args(arguments.split_whitespace())
            .current_dir(folder.path())
            .env("ACME_SECRET", "not-a-real-secret")
            .env("CONTACTS_GATEWAY__LISTEN__ADDRESS", "127.0.0.1:0")
            .env("CONTACTS_GATEWAY__ADMIN__ADDRESS", "127.0.0.1:0");
        let expected = match arguments.split_whitespace().next() {
            Some("check") => "is fine",
            Some("config") => "name = \"acme\"  # line",
            // Kore.ai itself is not asked: nobody listens at this address.
            Some("doctor") => {
                command.env(
                    "CONTACTS_GATEWAY__UPSTREAM__BASE_URL",
                    "https://127.0.0.1:9",
                );
                "0 calls spent"
            }
            _ => "callers on http://127.0.0.1:",
        };
        Running::start(&mut command, expected);
    }
}

#[test]
fn what_is_counted_is_as_many_as_it_says() {
    let faults = contacts_gateway::simulator::Fault::GUIDE.len();
    assert!(README.contains(&format!("{faults} faults")), "{faults}");
}
