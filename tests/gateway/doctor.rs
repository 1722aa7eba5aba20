//! `doctor`, as a shell starts it: each kind of trouble is found where it is, within the calls that were announced.

use std::{fs, io::Write, net::TcpListener, path::Path, process::ExitStatus};

use contacts_gateway::simulator::{
    AccountSettings, Algorithm, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, LimitMax, Paging, Settings,
    Simulator,
};
use secrecy::ExposeSecret;
use serde_json::Value;

use crate::{
    program::{Program, configured},
    support::{fault, page},
};

/// A simulator, and a configuration for it that is right until it is changed.
struct Ward {
    kore: Simulator,
    folder: tempfile::TempDir,
    file: String,
}

impl Ward {
    async fn new(settings: Settings, upstream: &str, account: &str) -> Self {
        let kore = Simulator::start(settings).await.unwrap();
        let url = kore.base_url();
        Self::before(kore, &url, upstream, account)
    }

    /// `upstream` are lines of `[upstream]`, `account` those of the account, which may go on with its streams.
    fn before(kore: Simulator, url: &str, upstream: &str, account: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = configured(folder.path(), url, &AccountSettings::demo(), upstream);
        let mut text = fs::OpenOptions::new().append(true).open(&file).unwrap();
        writeln!(text, "{account}").unwrap();
        Self { kore, folder, file }
    }

    fn run(&self, arguments: &[&str]) -> (ExitStatus, String, String) {
        let arguments = [&["doctor", "--config", &self.file], arguments].concat();
        let variables = [("CONTACTS_GATEWAY__BUDGET__START_SHARE", "1.0")];
        let ended = Program::start(self.folder.path(), &arguments, &variables).ends();
        self.tells_nothing(&ended.1);
        self.tells_nothing(&ended.2);
        ended
    }

    /// The document, once it was seen that what it says of calls is so.
    fn document(&self, arguments: &[&str]) -> (ExitStatus, Value) {
        let before = self.kore.calls(DEMO_ACCOUNT_ID).total;
        let (status, out, errors) = self.run(&[&["--json"], arguments].concat());
        let document: Value =
            serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{errors}"));
        let spent = self.kore.calls(DEMO_ACCOUNT_ID).total - before;
        let number = |key: &str| document[key].as_u64().unwrap();
        assert_eq!(number("calls"), spent, "{document:#}");
        assert!(spent <= number("calls_max"), "{document:#}");
        let announced = format!("at most {} calls", number("calls_max"));
        assert!(errors.contains(&announced), "{errors}");
        assert_eq!(document["ok"], status.code() == Some(0), "{document:#}");
        (status, document)
    }

    /// No secret, token or contact.
    fn tells_nothing(&self, text: &str) {
        let account = AccountSettings::demo();
        let contacts: Value =
            serde_json::from_str(&page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, 0, 3)).unwrap();
        let names = contacts["results"].as_array().unwrap().iter();
        let names = names.flat_map(|c| [c["id"].as_str(), c["lastName"].as_str()]);
        let names: Vec<_> = names.map(|name| name.unwrap().to_owned()).collect();
        assert_eq!(names.len(), 6);
        let secret = account.client_secret.expose_secret().to_owned();
        for hidden in names
            .into_iter()
            .chain([secret, "eyJ".to_owned(), "wrong-secret".to_owned()])
        {
            assert!(!text.contains(&hidden), "{hidden} is told:\n{text}");
        }
    }
}

/// Each step of the first account as `step status code`, host first, without those that are as they should be.
fn troubles(document: &Value) -> Vec<String> {
    let host = document["upstream"]["steps"].as_array().unwrap();
    let account = document["accounts"][0]["steps"].as_array().unwrap();
    let word = |step: &Value, key: &str| step[key].as_str().unwrap().to_owned();
    let steps = host.iter().chain(account);
    steps
        .inspect(|step| {
            let bad = ["failed", "warning", "usage"].contains(&step["status"].as_str().unwrap());
            assert!(!bad || step["advice"].is_string(), "{step}");
        })
        .map(|step| {
            format!(
                "{} {} {}",
                word(step, "step"),
                word(step, "status"),
                word(step, "code")
            )
        })
        .filter(|told| !told.contains(" skipped ") && !told.ends_with(" ok fine"))
        .collect()
}

/// The demo's account, changed, with calls without a limit.
fn demo(change: impl FnOnce(&mut AccountSettings)) -> Settings {
    let mut account = AccountSettings::demo();
    change(&mut account);
    Settings {
        accounts: vec![account],
        rate_limit: None,
        ..Settings::default()
    }
}

fn stream(name: &str, id: &str) -> String {
    format!("[[accounts.streams]]\nname = \"{name}\"\nstream_id = \"{id}\"\n")
}

/// Catches a trouble that is taken for another one, advice that is missing, and calls beyond those announced.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_trouble_is_found_where_it_is() {
    let listed = stream("support", DEMO_STREAM_ID);
    let with = |line: &str| format!("{line}\n{listed}");
    let right = || demo(|_| ());
    let faulty = |text: &str| Settings {
        faults: vec![contacts_gateway::simulator::Rule::always(fault(text))],
        ..right()
    };
    let cases: Vec<(&str, Settings, String, &[&str], u64)> = vec![
        (
            "nothing",
            right(),
            listed.clone(),
            &["limit ok limit_clamped"],
            3,
        ),
        (
            "wrong secret",
            demo(|account| account.client_secret = "another".into()),
            listed.clone(),
            &["accepted failed auth_unsaid"],
            2,
        ),
        (
            "wrong algorithm",
            demo(|account| account.algorithm = Algorithm::HS512),
            listed.clone(),
            &["accepted failed auth_unsaid"],
            2,
        ),
        (
            "no scope",
            demo(|account| account.scope = false),
            listed.clone(),
            &["scope failed auth_scope"],
            1,
        ),
        (
            "wrong stream",
            right(),
            stream("sales", "st-another"),
            &["accepted failed auth_unsaid"],
            2,
        ),
        (
            "one of two streams is wrong",
            right(),
            format!("{}{listed}", stream("sales", "st-another")),
            &["page failed other_streams", "limit ok limit_clamped"],
            5,
        ),
        (
            "jti enforced",
            demo(|account| account.enforce_jti = true),
            listed.clone(),
            &["accepted warning jti_wanted", "limit ok limit_clamped"],
            4,
        ),
        (
            "jti enforced and forbidden",
            demo(|account| account.enforce_jti = true),
            with("jti = \"off\""),
            &["accepted failed auth_jti"],
            1,
        ),
        (
            "the clock is behind",
            Settings {
                clock_offset: 7_200,
                ..right()
            },
            listed.clone(),
            &["accepted failed auth_unsaid", "clock failed clock_behind"],
            2,
        ),
        (
            "the clock is ahead",
            Settings {
                clock_offset: -7_200,
                ..right()
            },
            listed.clone(),
            &["limit ok limit_clamped", "clock warning clock_ahead"],
            3,
        ),
        (
            "paging in another style",
            Settings {
                paging: Paging::PageLimit,
                ..right()
            },
            listed.clone(),
            &["paging failed paging_other_style"],
            3,
        ),
        (
            "windows that are ignored",
            faulty("echo-skip=0"),
            listed.clone(),
            &["paging failed paging_ignored"],
            3,
        ),
        (
            "limits are cut down",
            Settings {
                limit_max: LimitMax::Clamp(50),
                ..right()
            },
            listed.clone(),
            &["limit ok limit_clamped"],
            3,
        ),
        (
            "limits are refused",
            Settings {
                limit_max: LimitMax::Refuse(50),
                ..right()
            },
            listed.clone(),
            &["limit warning limit_refused"],
            5,
        ),
        (
            "larger limits",
            Settings {
                limit_max: LimitMax::Unlimited,
                ..right()
            },
            listed.clone(),
            &[],
            3,
        ),
        (
            "rate limit",
            faulty("rate-limited"),
            listed.clone(),
            &["page failed upstream_rate_limited"],
            1,
        ),
        (
            "upstream fails",
            faulty("status=503"),
            listed.clone(),
            &["page failed upstream_5xx"],
            1,
        ),
        (
            "not the API",
            faulty("html"),
            listed.clone(),
            &["page failed upstream_wrong_type"],
            1,
        ),
        (
            "always the first records",
            faulty("stuck"),
            listed.clone(),
            &["paging failed paging_records"],
            2,
        ),
        (
            "pages without records",
            faulty("no-records"),
            listed.clone(),
            &[
                "page warning page_short",
                "paging warning paging_unproven",
                "limit warning page_short",
            ],
            3,
        ),
        (
            "encrypted payloads",
            faulty("encrypted"),
            listed.clone(),
            &["page failed upstream_schema"],
            1,
        ),
        (
            "a stream with one contact",
            demo(|account| *account = account.clone().stream("st-one", 1)),
            stream("one", "st-one"),
            &["paging warning paging_unproven", "limit ok limit_clamped"],
            3,
        ),
        (
            "no stream",
            right(),
            String::new(),
            &["stream usage no_stream"],
            0,
        ),
    ];
    for (name, settings, account, expected, calls) in cases {
        let ward = Ward::new(settings, "", &account).await;
        let (status, document) = ward.document(&[]);
        assert_eq!(troubles(&document), expected, "{name}: {document:#}");
        assert_eq!(document["calls"], calls, "{name}: {document:#}");
        let has = |word: &str| expected.iter().any(|told| told.contains(word));
        let code = if has(" failed ") {
            1
        } else if has(" usage ") {
            2
        } else {
            0
        };
        assert_eq!(status.code(), Some(code), "{name}");
    }
}

/// Catches a host's trouble that is told as an account's, and calls that are made all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_host_that_is_not_reached_is_told_by_the_hop_that_fails() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = free.local_addr().unwrap();
    drop(free);
    let listed = stream("support", DEMO_STREAM_ID);
    for (url, expected) in [
        (
            "http://nowhere.invalid".to_owned(),
            "name failed name_unknown",
        ),
        (format!("http://{nobody}"), "tcp failed connection_refused"),
        ("https".to_owned(), "tls failed not_tls"),
    ] {
        let kore = Simulator::start(demo(|_| ())).await.unwrap();
        let url = url.replace("https", &kore.base_url().replace("http", "https"));
        let ward = Ward::before(kore, &url, "connect_timeout = \"1m\"", &listed);
        let (status, document) = ward.document(&[]);
        assert_eq!(troubles(&document), [expected], "{document:#}");
        assert_eq!((status.code(), &document["calls"]), (Some(1), &0.into()));
        assert_eq!(document["accounts"][0]["ok"], false);
    }
}

/// Catches a limit that is told wrongly, and a clock with the wrong sign.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_was_measured_is_in_the_document() {
    for (limit_max, largest) in [
        (LimitMax::Clamp(50), (50, true)),
        (LimitMax::Refuse(50), (50, true)),
        (LimitMax::Refuse(49), (10, true)),
        (LimitMax::Unlimited, (1_000, false)),
    ] {
        let settings = Settings {
            limit_max,
            clock_offset: 300,
            ..demo(|_| ())
        };
        let ward = Ward::new(settings, "", &stream("support", DEMO_STREAM_ID)).await;
        let (_, document) = ward.document(&["--account", "acme"]);
        let account = &document["accounts"][0];
        let expected = serde_json::json!({ "limit": largest.0, "exact": largest.1 });
        assert_eq!(account["largest_limit"], expected);
        let ahead = account["clock_ahead_s"].as_i64().unwrap();
        assert!((295..=305).contains(&ahead), "{ahead}");
    }
}

/// Catches a checklist that misses a step, says nothing of its cost first, or colours a pipe.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_checklist_says_the_same_for_people() {
    let ward = Ward::new(demo(|account| account.scope = false), "", "").await;
    let (status, out, errors) = ward.run(&["--stream", DEMO_STREAM_ID]);
    assert_eq!(status.code(), Some(1), "{errors}");
    let lines: Vec<_> = out.lines().collect();
    assert!(
        lines[0].contains("1 account to examine, with at most 8 calls"),
        "{out}"
    );
    assert!(lines[1].contains("does not know of these calls"), "{out}");
    let steps: Vec<_> = lines
        .iter()
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .map(|line| {
            line.split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert_eq!(
        steps,
        [
            "ok name",
            "ok tcp",
            "skipped tls",
            "ok token",
            "ok accepted",
            "failed scope",
            "skipped page",
            "skipped paging",
            "skipped limit",
            "ok clock"
        ]
    );
    assert!(
        out.contains("-> Give the JWT app the scope Configuration"),
        "{out}"
    );
    assert!(out.ends_with("1 calls spent"), "{out}");
    assert!(!out.contains('\u{1b}'), "{out:?}");

    let ward = Ward::new(demo(|_| ()), "", "").await;
    let (status, out, _) = ward.run(&[]);
    assert_eq!(status.code(), Some(2), "{out}");
    assert!(out.contains("Name one with --stream ID."), "{out}");
    let (status, out, errors) = ward.run(&["--account", "nobody"]);
    assert_eq!((status.code(), out.as_str()), (Some(2), ""), "{errors}");
    assert!(errors.contains("the configuration has acme"), "{errors}");
    fs::write(&ward.file, "[listen]\nworkers = 0\n").unwrap();
    let (status, _, errors) = ward.run(&[]);
    assert_eq!(status.code(), Some(78), "{errors}");
    assert_eq!(ward.kore.calls(DEMO_ACCOUNT_ID).total, 0);
}

/// Catches a secret that is not there and costs calls, or that another account pays for.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_account_without_its_secret_costs_no_call_and_the_others_are_examined() {
    let ward = Ward::new(demo(|_| ()), "", &stream("support", DEMO_STREAM_ID)).await;
    let account = AccountSettings::demo();
    let text = fs::read_to_string(&ward.file).unwrap();
    let other = format!(
        "[[accounts]]\nname = \"empty\"\naccount_id = \"other\"\nclient_id = \"{}\"\nclient_secret_file = \"missing\"\n{}",
        account.client_id,
        stream("support", DEMO_STREAM_ID)
    );
    let (head, first) = text.split_once("[[accounts]]").unwrap();
    fs::write(&ward.file, format!("{head}{other}[[accounts]]{first}")).unwrap();
    let (status, document) = ward.document(&[]);
    assert_eq!(status.code(), Some(1));
    assert_eq!(troubles(&document), ["token failed secret_unusable"]);
    assert_eq!(document["accounts"][0]["calls"], 0);
    assert_eq!(document["accounts"][1]["ok"], true, "{document:#}");

    // A second secret makes up for a first one that is refused.
    let second = text.replace("client_secret_file", "next_secret_file");
    let second = second.replace(
        "name = \"acme\"",
        "name = \"acme\"\nclient_secret_file = \"old\"",
    );
    fs::write(&ward.file, second).unwrap();
    fs::write(Path::new(&ward.file).with_file_name("old"), "wrong-secret").unwrap();
    let (status, document) = ward.document(&[]);
    assert_eq!(status.code(), Some(0), "{document:#}");
    assert_eq!(troubles(&document)[0], "accepted warning second_secret");
}

/// Catches calls that go past the budget, and a wait without a word.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_wait_for_the_accounts_budget_and_say_so() {
    let account = format!(
        "calls_per_minute = 1\n{}",
        stream("support", DEMO_STREAM_ID)
    );
    let ward = Ward::new(demo(|_| ()), "", &account).await;
    let mut doctor = Program::start(ward.folder.path(), &["doctor", "--config", &ward.file], &[]);
    doctor.says("waiting for its turn");
    assert_eq!(ward.kore.calls(DEMO_ACCOUNT_ID).total, 1);
}

/// Catches a doctor that spends a running gateway's calls without a warning.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_running_gateway_is_noticed() {
    let ward = Ward::new(demo(|_| ()), "", &stream("support", DEMO_STREAM_ID)).await;
    let admin = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = admin.local_addr().unwrap().to_string();
    let text = fs::read_to_string(&ward.file).unwrap();
    let text = text.replace(
        "[admin]\naddress = \"127.0.0.1:0\"",
        &format!("[admin]\naddress = \"{address}\""),
    );
    fs::write(&ward.file, text).unwrap();
    let (_, document) = ward.document(&[]);
    assert_eq!(document["gateway_running"], true);
    let (_, out, _) = ward.run(&[]);
    assert!(
        out.contains(&format!("something listens on {address}")),
        "{out}"
    );
}
