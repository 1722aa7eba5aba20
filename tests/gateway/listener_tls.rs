//! TLS on both listeners: the real program, with a certificate authority of the test's own.

use std::{fs, path::Path, sync::Arc};

use contacts_gateway::simulator::{AccountSettings, DEMO_STREAM_ID, Settings, Simulator};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{
    program::{Program, addresses, configured, paste},
    support::{path, soon, until},
    tls::Authority,
};

/// A connection to the address in a URL, over TLS.
async fn connect(authority: &Authority, url: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let address = url.strip_prefix("https://").unwrap();
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::new(authority.trusting()));
    let name = ServerName::try_from("127.0.0.1").unwrap();
    soon("a handshake", connector.connect(name, stream)).await
}

/// The certificate that was shown.
fn shown(stream: &TlsStream<TcpStream>) -> Vec<u8> {
    let certificates = stream.get_ref().1.peer_certificates();
    certificates.unwrap()[0].to_vec()
}

/// Asks once, and reads one answer whole.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    let target = path(DEMO_STREAM_ID, "?limit=1");
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    soon("an answer", async {
        while !read.ends_with(b"\"totalResults\":1000}") {
            read.push(stream.read_u8().await.unwrap());
        }
    })
    .await;
    String::from_utf8(read).unwrap()
}

/// Puts a file in another's place, as those do who renew certificates.
fn put(folder: &Path, name: &str, content: &str) {
    let new = folder.join("new");
    fs::write(&new, content).unwrap();
    fs::rename(&new, folder.join(name)).unwrap();
}

/// Catches a listener that speaks something else than it says, a renewal that needs a restart or drops a connection, and
/// one that takes half of a new pair.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn certificates_are_renewed_under_open_connections() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    let (first, first_key, first_shown) = authority.issue("127.0.0.1");
    put(folder, "listener.pem", &first);
    put(folder, "listener.key", &first_key);
    let trusted = authority.write(folder);
    // Relative to the file's folder, and not to where it runs.
    let more = r#"
[listen.tls]
certificate_file = "listener.pem"
key_file = "listener.key"
[admin.tls]
certificate_file = "listener.pem"
key_file = "listener.key"
[token]
secret_poll = "1s"
"#;
    let file = configured(folder, &kore.base_url(), &AccountSettings::demo(), more);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut serve = Program::start(elsewhere.path(), &["serve", "--config", &file], &[]);
    let (traffic, admin) = addresses(&serve.says("callers on "));
    assert!(traffic.starts_with("https://") && admin.starts_with("https://"));

    // As everybody asks: by HTTP/2 whoever offers it, and by HTTP/1.1 whoever does not.
    let curl = |flags: &str, url: &str| {
        paste(
            elsewhere.path(),
            &format!("curl -sS --cacert {trusted} {flags} '{url}'"),
        )
    };
    let page = format!("{traffic}{}", path(DEMO_STREAM_ID, "?limit=1"));
    for (flags, version) in [("", "2"), ("--http1.1", "1.1")] {
        let said = curl(
            &format!("{flags} -o /dev/null -w '%{{http_code}} %{{http_version}}'"),
            &page,
        );
        assert_eq!(said, format!("200 {version}"));
    }
    assert_eq!(curl("", &format!("{admin}/readyz")), "ready\n");
    let metric = |series: &str| {
        let metrics = curl("", &format!("{admin}/metrics"));
        let line = metrics.lines().find_map(|line| {
            line.strip_prefix("contacts_gateway_")?
                .strip_prefix(series)?
                .strip_prefix(' ')
                .map(str::to_owned)
        });
        line.map_or(0.0, |value| value.parse::<f64>().unwrap())
    };
    for listener in ["traffic", "admin"] {
        // rcgen's certificates end in the year 4096.
        let series = format!("tls_certificate_expiry_timestamp_seconds{{listener=\"{listener}\"}}");
        assert_eq!(metric(&series), 67_090_118_400.0);
    }

    let mut open = connect(&authority, &traffic).await.unwrap();
    assert_eq!(shown(&open), first_shown);
    assert!(ask(&mut open).await.starts_with("HTTP/1.1 200 OK"));

    // Half of a pair: the certificate is there and its key is not.
    let (second, second_key, second_shown) = authority.issue("127.0.0.1");
    put(folder, "listener.pem", &second);
    let refused = "tls_certificate_reloads_total{listener=\"traffic\",outcome=\"refused\"}";
    until("the half is seen", async || metric(refused) == 1.0).await;
    assert_eq!(
        shown(&connect(&authority, &traffic).await.unwrap()),
        first_shown
    );
    // And what one would be told before a start.
    let check = Program::start(folder, &["check", "--config", &file], &[]);
    let (status, _, errors) = check.ends();
    assert_eq!(status.code(), Some(78));
    assert!(
        errors.contains("listen.tls.key_file") && errors.contains("another key"),
        "{errors}"
    );
    assert!(!errors.contains("PRIVATE"), "{errors}");

    put(folder, "listener.key", &second_key);
    let taken = "tls_certificate_reloads_total{listener=\"traffic\",outcome=\"taken\"}";
    until("the pair is taken", async || metric(taken) == 1.0).await;
    assert_eq!(
        shown(&connect(&authority, &traffic).await.unwrap()),
        second_shown
    );
    // Who was there goes on as before.
    assert!(ask(&mut open).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(shown(&open), first_shown);

    // No HTTP without TLS, and no TLS for who trusts another.
    let mut plain = TcpStream::connect(traffic.strip_prefix("https://").unwrap())
        .await
        .unwrap();
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut read = Vec::new();
    let _ = soon("the end", plain.read_to_end(&mut read)).await;
    assert!(!read.starts_with(b"HTTP"), "{read:?}");
    assert!(connect(&Authority::new(), &traffic).await.is_err());
    let failed = "connections_cut_total{listener=\"traffic\",reason=\"handshake\"}";
    until("it is counted", async || metric(failed) >= 1.0).await;

    serve.signal("TERM");
    let (status, _, errors) = serve.ends();
    assert_eq!(status.code(), Some(0), "{errors}");
}

/// Catches a signal that leaves a certificate for later.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_signal_has_the_certificates_read_at_once() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    let (first, first_key, first_shown) = authority.issue("127.0.0.1");
    put(folder, "listener.pem", &first);
    put(folder, "listener.key", &first_key);
    let more = r#"
[listen.tls]
certificate_file = "listener.pem"
key_file = "listener.key"
[token]
secret_poll = "1h"
"#;
    let file = configured(folder, &kore.base_url(), &AccountSettings::demo(), more);
    let mut serve = Program::start(folder, &["serve", "--config", &file], &[]);
    let (traffic, _) = addresses(&serve.says("callers on "));
    let open = connect(&authority, &traffic).await.unwrap();
    assert_eq!(shown(&open), first_shown);
    let (second, second_key, second_shown) = authority.issue("127.0.0.1");
    put(folder, "listener.pem", &second);
    put(folder, "listener.key", &second_key);
    // They are read whatever becomes of the configuration.
    std::fs::write(&file, "nonsense").unwrap();
    serve.signal("HUP");
    until("the new certificate is shown", async || {
        shown(&connect(&authority, &traffic).await.unwrap()) == second_shown
    })
    .await;
    drop(open);
    serve.signal("TERM");
    let (status, _, errors) = serve.ends();
    assert_eq!(status.code(), Some(0), "{errors}");
}

/// Catches a reload that says nothing of a certificate that it could not take, or took.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reload_tells_what_became_of_certificates() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let authority = Authority::new();
    let (first, first_key, _) = authority.issue("127.0.0.1");
    put(folder, "listener.pem", &first);
    put(folder, "listener.key", &first_key);
    let more = r#"
[listen.tls]
certificate_file = "listener.pem"
key_file = "listener.key"
[token]
secret_poll = "1h"
"#;
    let file = configured(folder, &kore.base_url(), &AccountSettings::demo(), more);
    let mut serve = Program::start(folder, &["serve", "--config", &file], &[]);
    let (_, admin) = addresses(&serve.says("callers on "));
    let reload = || {
        let reload = Program::start(folder, &["reload", "--admin", &admin], &[]);
        let (status, output, errors) = reload.ends();
        assert!(!errors.contains("PRIVATE") && !output.contains("PRIVATE"));
        (status.code(), output, errors)
    };
    let applied = || {
        let (code, output, errors) = reload();
        assert_eq!(code, Some(0), "{errors}");
        serde_json::from_str::<serde_json::Value>(&output).unwrap()
    };
    assert_eq!(applied()["certificates"], serde_json::json!([]));

    let (second, second_key, _) = authority.issue("127.0.0.1");
    put(folder, "listener.pem", &second);
    // Each reload tells it, and not only the first.
    for _ in 0..2 {
        let told = applied();
        let certificate = &told["certificates"][0];
        assert_eq!(certificate["listener"], "traffic", "{told:#}");
        assert_eq!(certificate["outcome"], "refused");
        let problem = certificate["problem"].as_str().unwrap();
        assert!(problem.ends_with("listener.key holds another key than the certificate's"));
        assert_eq!(told["words"][0], "Nothing changed.");
        let words = told["words"][1].as_str().unwrap();
        assert!(words.ends_with(problem), "{words}");
    }
    let good = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, "nonsense").unwrap();
    let (code, _, errors) = reload();
    assert_eq!(code, Some(78));
    for said in [
        "key with no value",
        "The traffic listener keeps the certificate",
    ] {
        assert!(errors.contains(said), "{errors}");
    }
    std::fs::write(&file, good).unwrap();
    put(folder, "listener.key", &second_key);
    let told = applied();
    let taken = serde_json::json!([{ "listener": "traffic", "outcome": "taken" }]);
    assert_eq!(told["certificates"], taken);
    let words = serde_json::json!(["The traffic listener has another certificate."]);
    assert_eq!(told["words"], words);
    serve.signal("TERM");
    let (status, _, errors) = serve.ends();
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(
        errors.contains("after the reload the listener keeps"),
        "{errors}"
    );
}

/// Catches a key that is missing and told as its certificate, and a start that is tried again for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_key_that_is_missing_is_told_by_its_name_and_with_78() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (certificate, _, _) = Authority::new().issue("127.0.0.1");
    put(folder, "listener.pem", &certificate);
    let more = r#"
[listen.tls]
certificate_file = "listener.pem"
key_file = "listener.key"
"#;
    let file = configured(folder, "http://127.0.0.1:9", &AccountSettings::demo(), more);
    for command in ["check", "serve"] {
        let program = Program::start(folder, &[command, "--config", &file], &[]);
        let (status, _, errors) = program.ends();
        assert_eq!(status.code(), Some(78), "{command}: {errors}");
        assert!(errors.contains("listen.tls.key_file: "), "{errors}");
        assert!(!errors.contains("certificate_file"), "{errors}");
    }
}

/// C11. Catches a handshake that never ends, one whose failure others feel, and plain HTTP where TLS was promised.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_is_no_handshake_ends_alone() {
    let kore = Simulator::start(Settings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (certificate, key, _) = authority.issue("127.0.0.1");
    put(folder.path(), "listener.pem", &certificate);
    put(folder.path(), "listener.key", &key);
    let more = r#"
[listen.tls]
certificate_file = "listener.pem"
key_file = "listener.key"
handshake_timeout = "1s"
"#;
    let file = configured(
        folder.path(),
        &kore.base_url(),
        &AccountSettings::demo(),
        more,
    );
    let mut serve = Program::start(folder.path(), &["serve", "--config", &file], &[]);
    let (traffic, admin) = addresses(&serve.says("callers on "));
    let mut well = connect(&authority, &traffic).await.unwrap();
    let asked = format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        path(DEMO_STREAM_ID, "")
    );
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    let began = [
        &b""[..],
        b"\x16",
        hello,
        asked.as_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x80\x2e\x01\x00\x02",
        &b"\x16\x03\x01\x00\x00".repeat(10_000),
        &[0xff; 20_000],
    ];
    let mut open = Vec::new();
    for bytes in began {
        let mut stream = TcpStream::connect(traffic.strip_prefix("https://").unwrap())
            .await
            .unwrap();
        // Refused before all of it was sent, it is refused as well.
        let _ = stream.write_all(bytes).await;
        open.push(stream);
    }
    ask(&mut well).await;
    ask(&mut connect(&authority, &traffic).await.unwrap()).await;
    for mut stream in open {
        let mut read = Vec::new();
        // A reset ends it as well.
        let _ = soon("it is ended", stream.read_to_end(&mut read)).await;
        assert!(read.len() < 100, "{read:?}");
    }
    ask(&mut well).await;
    let metrics = paste(folder.path(), &format!("curl -s {admin}/metrics"));
    let cut = format!(
        "contacts_gateway_connections_cut_total{{listener=\"traffic\",reason=\"handshake\"}} {}",
        began.len()
    );
    assert!(metrics.contains(&cut), "{metrics}");
}
