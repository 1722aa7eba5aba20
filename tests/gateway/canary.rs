//! Nothing that is nobody's business is in anything that the process writes: neither in its log at its most talkative, in
//! either form, nor in metrics, errors, operators' answers and what its commands print.

use std::{fs, path::Path, time::Duration};

use bytes::Bytes;
use contacts_gateway::simulator::{AccountSettings, Settings, Simulator};
use http::{Method, Request};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};

use crate::{
    program::{Program, addresses, configured},
    support::{fault, path, soon, until},
    token_service::{Does, TokenService},
};

const ACCOUNT: &str = "acme-1";
const SECRET: &str = "CANARYSECRETaWVnaHRzZWNyZXRzZWNyZXRzZWNyZXQ=";

/// What upstream may do to a request for a page or a list, with a word of its own wherever one can stand. In this order the
/// breaker stays closed, and the account pauses at the end only.
const FAULTS: [&str; 22] = [
    "denied=credentials",
    "denied=token",
    "denied=scope",
    "denied=scope-message",
    "denied=jti-expiry",
    "denied=authenticate",
    "status=401;body=CANARYBODY",
    "status=403;header=x-canary: CANARYHEADER;body=CANARYBODY",
    "status=500;body=CANARYBODY",
    r#"status=200;body={"results":[{"firstName":"CANARYNAME","#,
    r#"status=200;body={"results":[{"id":"CANARYID","firstName":"CANARYNAME"}],"skip":7,"limit":10}"#,
    r#"status=200;body={"errors":[{"msg":"CANARYNAME"}]}"#,
    "truncate",
    "redirect=http://127.0.0.1:9/?token=CANARYPLACE",
    "truncate-chunked",
    "content-type=text/CANARYTYPE",
    "reset",
    "encoding=CANARYCODING",
    "trailing-bytes=CANARYTAIL",
    "bad-utf8",
    "encrypted",
    "status=429;body=CANARYBODY rate limit",
];

/// What the token service may answer.
fn nonsense() -> Vec<Does> {
    let redirect = "location: http://127.0.0.1:9/?CANARYPLACE\r\n";
    vec![
        Does::answers("200 OK", "", "CANARYBODY"),
        Does::answers("200 OK", "", r#"{"jwt":"CANARYBODY"}"#),
        Does::answers("200 OK", "", r#"{"jwt":["CANARYBODY"]}"#),
        Does::answers("200 OK", "x-canary: CANARYHEADER\r\n", "{\"jwt\":\"CANARY"),
        Does::answers("302 CANARYREASON", redirect, ""),
        Does::answers("403 CANARYREASON", "", r#"{"error":"CANARYBODY"}"#),
        Does::Writes("CANARY\r\n\r\n".to_owned()),
        Does::Closes,
    ]
}

fn account() -> AccountSettings {
    let contact = |id: &str| {
        format!(r#"{{"firstName":"CANARYNAME","phone":"+1CANARYPHONE","id":"CANARYID{id}"}}"#)
    };
    let good = format!(
        r#"{{"results":[{},{}],"skip":0,"limit":10,"hasMore":false,"totalPages":1,"totalResults":2}}"#,
        contact("1"),
        contact("2")
    );
    (0..FAULTS.len()).fold(
        AccountSettings::new(ACCOUNT, "cs-app", SECRET)
            .fixed("st-good", vec![Bytes::from(good.clone())]),
        |account, number| account.fixed(&format!("st-{number}"), vec![Bytes::from(good.clone())]),
    )
}

/// Everything that was written, by where.
#[derive(Default)]
struct Written(Vec<(String, String)>);

impl Written {
    fn add(&mut self, place: impl Into<String>, text: impl Into<String>) {
        self.0.push((place.into(), text.into()));
    }

    /// Runs a command to its end, and keeps what it prints.
    fn command(&mut self, folder: &Path, arguments: &[&str], expected: Option<i32>) {
        let (status, said, errors) = Program::start(folder, arguments, &[]).ends();
        assert_eq!(status.code(), expected, "{arguments:?}: {said}{errors}");
        self.add(format!("{arguments:?}"), said + &errors);
    }

    #[track_caller]
    fn holds_none_of(&self, tokens: &[String]) {
        for (place, text) in &self.0 {
            for line in text.lines() {
                assert!(!line.contains("CANARY"), "{place}: {line}");
                for token in tokens {
                    // Its signature alone would do harm as well.
                    for part in token.split('.').skip(1) {
                        assert!(!line.contains(part), "{place}: a token");
                    }
                }
            }
        }
    }
}

/// Asks as callers and operators do. Bodies are kept unless they are contacts, which they are for.
struct Asking {
    client: Client<HttpConnector, Empty<Bytes>>,
    written: Written,
}

impl Asking {
    async fn ask(&mut self, method: Method, url: String) -> u16 {
        let request = Request::builder()
            .method(method)
            .uri(&url)
            .header("accountId", ACCOUNT)
            .header("auth", "CANARYCALLER")
            .header("cookie", "CANARYCALLER")
            .body(Empty::new())
            .unwrap();
        let answer = soon("an answer", self.client.request(request))
            .await
            .unwrap();
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let status = head.status.as_u16();
        self.written.add(&url, format!("{:?}", head.headers));
        if status != 200 || !url.contains("/contacts") || url.contains("/api/explain") {
            self.written.add(&url, String::from_utf8_lossy(&body));
        }
        status
    }
}

/// Runs the gateway through all of it.
async fn run(format: &str, service: Option<&TokenService>) {
    let account = account();
    let kore = Simulator::start(Settings {
        accounts: vec![account.clone()],
        rate_limit: None,
        ..Settings::default()
    })
    .await
    .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut more = format!("[log]\nlevel = \"trace\"\nformat = \"{format}\"\n");
    if let Some(service) = service {
        fs::write(folder.path().join("key"), "Bearer CANARYKEY").unwrap();
        more += &format!(
            "[token]\nsource = \"service\"\n[token.service]\nurl = \"{}?CANARYQUERY\"\nsecret_header_file = \"key\"\nheaders = {{ x-team = \"CANARYTEAM\" }}\n",
            service.url()
        );
    }
    let file = configured(folder.path(), &kore.base_url(), &account, &more);
    let text = fs::read_to_string(&file).unwrap() + "calls_per_minute = 60000\n";
    let secret = "client_secret_file = \"secret\"\n";
    let text = match service {
        Some(_) => text.replace(secret, ""),
        None => text,
    };
    fs::write(&file, text).unwrap();
    let mut written = Written::default();
    written.command(folder.path(), &["check", "--config", &file], Some(0));
    let variables = [("RUST_LOG", "trace"), ("RUST_BACKTRACE", "1")];
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &variables);
    let (traffic, admin) = addresses(&serve.says("callers on "));
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut asking = Asking { client, written };
    let contacts = |stream: &str, query: &str| format!("{traffic}{}", path(stream, query));

    for query in ["", "", "?all=true", "?skip=1&limit=1"] {
        assert_eq!(
            asking.ask(Method::GET, contacts("st-good", query)).await,
            200
        );
    }
    if let Some(service) = service {
        // Upstream refuses the token, and the service has no other.
        for (number, does) in nonsense().into_iter().enumerate() {
            kore.fault_next(1, fault("denied=credentials"));
            service.then(does);
            let stream = format!("st-{number}");
            for query in ["", "?skip=10"] {
                assert!(asking.ask(Method::GET, contacts(&stream, query)).await >= 500);
            }
            service.then(Does::Gives(Duration::from_secs(600)));
            // Nothing is kept, so that this and the next one need a token.
            let purge = format!("{admin}/api/purge?account=acme");
            assert_eq!(asking.ask(Method::POST, purge).await, 200);
            let url = contacts("st-good", "");
            until("it has a token again", async || {
                let request = Request::get(&url).header("accountId", ACCOUNT);
                let request = request.body(Empty::<Bytes>::new()).unwrap();
                asking.client.request(request).await.unwrap().status() == 200
            })
            .await;
        }
    }
    for (number, text) in FAULTS.into_iter().enumerate() {
        for query in ["", "?all=true"] {
            kore.fault_always(fault(text));
            let status = asking
                .ask(Method::GET, contacts(&format!("st-{number}"), query))
                .await;
            assert!(status >= 500, "{text}: {status}");
            kore.clear_faults();
        }
    }
    // What makes no sense may be anything, a person's name included.
    for target in [
        contacts("st-good", "?name=CANARYPERSON"),
        contacts("st-good", "?skip=CANARYPERSON"),
        contacts("CANARYPERSON%20x", ""),
        format!("{traffic}/CANARYPERSON"),
        format!("{admin}/CANARYPERSON"),
        format!("{admin}/api/explain/CANARYPERSON"),
        format!("{admin}/api/purge?account=CANARYPERSON"),
    ] {
        let status = asking.ask(Method::GET, target.clone()).await;
        assert!(status >= 400, "{target}: {status}");
    }
    let explained = path("st-good", "?skip=0");
    for (method, target) in [
        (Method::GET, format!("/api/explain{explained}")),
        (Method::GET, format!("/api/explain{}", path("st-0", ""))),
        (
            Method::POST,
            "/api/purge?account=acme&stream=st-good&soft=true".to_owned(),
        ),
        (
            Method::POST,
            "/api/purge?account=acme&dry_run=true".to_owned(),
        ),
        (Method::GET, "/metrics".to_owned()),
        (Method::GET, "/readyz".to_owned()),
        (Method::GET, "/".to_owned()),
    ] {
        asking.ask(method, format!("{admin}{target}")).await;
    }
    let mut written = asking.written;
    for arguments in [
        &["explain", &explained, "--admin", &admin][..],
        &["purge", "--account", "acme", "--admin", &admin],
    ] {
        written.command(folder.path(), arguments, Some(0));
    }
    // Those that make no sense are refused without a word of them.
    written.command(
        folder.path(),
        &["purge", "--account", "nobody", "--admin", &admin],
        Some(1),
    );
    let tokens: Vec<_> = kore
        .requests()
        .iter()
        .map(|seen| seen.header("auth").to_owned())
        .collect();
    assert!(
        tokens.len() > FAULTS.len() * 2,
        "each fault was met: {}",
        tokens.len()
    );
    serve.signal("TERM");
    let (status, said, errors) = serve.ends();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(errors.lines().count() > 60, "it tells of everything");
    assert_eq!(format == "json", errors.starts_with('{'));
    written.add("stdout", said);
    written.add("stderr", errors);
    // The callers' own words are in what they asked for, and must not be in what was answered.
    for (place, _) in &mut written.0 {
        *place = place.replace("CANARY", "(canary)");
    }
    written.holds_none_of(&tokens);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_for_people() {
    run("human", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_as_json_with_a_token_service() {
    let service = TokenService::start(&account()).await;
    run("json", Some(&service)).await;
}

/// Catches a configuration's mistake that is told with what stands there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_of_a_configuration_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let mut written = Written::default();
    for more in [
        "[token.service]\nurl = \"https://u:CANARY@x/?CANARY\"",
        "[token.service]\nbody = \"CANARY\"\nheaders = { x-api-key = \"CANARY\" }",
        "[token.service]\nsecret_header_env = \"CANARY-lower\"\npointer = \"CANARY\"",
        "[log]\nlevel = 7 # CANARY",
        "client_secret = \"CANARY\"",
        "client_secret = \"CANARY",
    ] {
        let file = configured(folder.path(), "https://u:CANARY@x", &account(), more);
        for command in ["check", "serve"] {
            written.command(folder.path(), &[command, "--config", &file], Some(78));
        }
    }
    fs::write(folder.path().join("secret"), b"CANARY\xff").unwrap();
    let file = folder.path().join("gateway.toml");
    fs::write(
        &file,
        "[[accounts]]\nname='acme'\naccount_id='a'\nclient_id='c'\nclient_secret_file='secret'",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    written.command(folder.path(), &["check", "--config", file], Some(78));
    assert!(written.0.iter().all(|(_, text)| !text.is_empty()));
    written.holds_none_of(&[]);
}
