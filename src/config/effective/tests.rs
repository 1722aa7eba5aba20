use proptest::prelude::*;

use super::*;
use crate::config::{effective, load};

const EXAMPLE: &str = r#"
[listen]
workers = 3
[[accounts]]
name = "first"
account_id = "a1"
client_id = "cs-1"
client_secret_env = "FIRST"
[[accounts]]
name = "second"
account_id = "a2"
client_id = "cs-2"
client_secret_file = "secrets/second"
claims = { sub = "CANARY-7f3a", "CANARY-name" = 5 }
[[accounts.streams]]
name = "support"
stream_id = "st-1"
[[accounts.streams]]
name = "sales"
stream_id = "st-2"
[[callers]]
name = "crm"
key_sha256 = [
    "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
]
accounts = ["first", "second"]
"#;

/// What is printed for a file and variables.
fn printed(text: &str, env: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gw.toml");
    std::fs::write(&file, text).unwrap();
    effective(&file, env.iter().copied()).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn read(text: &str, env: &[(&str, &str)]) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gw.toml");
    std::fs::write(&file, text).unwrap();
    load(&file, env.iter().copied()).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

/// All of it, but for the claims, which are not printed.
fn shown(mut config: Config) -> String {
    for account in &mut config.accounts {
        account.claims = crate::contacts::account::Claims::default();
    }
    format!("{config:#?}")
}

#[test]
fn each_value_says_where_it_is_from() {
    let env = [
        ("CONTACTS_GATEWAY__CACHE__FRESH_FOR", "90s"),
        ("CONTACTS_GATEWAY__CACHE__MAX_BYTES", "300000000"),
        ("FIRST", "CANARY-7f3a"),
    ];
    let text = printed(EXAMPLE, &env);
    for line in [
        "workers = 3  # line 3",
        "address = \"127.0.0.1:8080\"  # default",
        "fresh_for = \"1m 30s\"  # CONTACTS_GATEWAY__CACHE__FRESH_FOR",
        "max_bytes = \"300000000B\"  # CONTACTS_GATEWAY__CACHE__MAX_BYTES",
        "lists_max_bytes = \"128MiB\"  # default",
        "start_share = 0.5  # default",
        "name = \"first\"  # line 5",
        "client_secret_env = \"FIRST\"  # line 8",
        "name = \"second\"  # line 10",
        "algorithm = \"HS256\"  # default",
        "# claims: 2, which are not shown  # line 14",
        "stream_id = \"st-1\"  # line 17",
        "stream_id = \"st-2\"  # line 20",
        // A hash is no secret, and whoever rotates a key wants to see which are in force.
        "key_sha256 = [\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"]  # line 23",
        "accounts = [\"first\", \"second\"]  # line 26",
        "urgency_max = \"interactive\"  # default",
        "token_sha256 = []  # default",
    ] {
        assert!(text.lines().any(|told| told == line), "{line}\n{text}");
    }
    assert!(!text.contains("CANARY"), "{text}");
    let values = text.lines().filter(|line| line.contains(" = "));
    assert!(values.clone().count() > 40);
    for line in values {
        assert!(line.contains("  # "), "{line}");
    }
}

fn duration(milliseconds: std::ops::Range<u64>) -> impl Strategy<Value = String> {
    milliseconds.prop_map(|length| format!("\"{length}ms\""))
}

proptest! {
    /// Whatever was configured, what is printed says the same, and printing that changes nothing but origins.
    #[test]
    fn what_is_printed_is_read_as_the_same(
        (fresh_for, connect_timeout, drain) in (duration(1_000..86_400_000), duration(10..60_000), duration(0..600_000)),
        (bytes, uri_max) in ((1_u64 << 20)..(1 << 40), 256_u64..60_000),
        (share, workers, access) in (0.0..1.0, 1..64_u32, any::<bool>()),
        path in "[^\0]{1,20}",
        (paging, level, algorithm, jti) in (
            prop::sample::select(vec!["skip_limit", "page_limit"]),
            prop::sample::select(vec!["error", "warn", "info", "debug", "trace"]),
            prop::sample::select(vec!["HS256", "HS512", "RS256", "RS512"]),
            prop::sample::select(vec!["auto", "off", "per_request"]),
        ),
        streams in 0..3_usize,
    ) {
        let path = toml::Value::String(path);
        let mut text = format!(
            "listen.workers = {workers}\nlisten.drain_timeout = {drain}\nedge.uri_max = {uri_max}\n\
             cache.fresh_for = {fresh_for}\ncache.max_bytes = {bytes}\ncache.lists_max_bytes = 0\n\
             upstream.connect_timeout = {connect_timeout}\nupstream.paging = '{paging}'\n\
             budget.start_share = {share:?}\nlog.level = '{level}'\nlog.access = {access}\n\
             [[accounts]]\nname = 'a'\naccount_id = 'a1'\nclient_id = 'cs-#1'\nclient_secret_file = {path}\n\
             algorithm = '{algorithm}'\njti = '{jti}'\n"
        );
        for number in 0..streams {
            text += &format!("[[accounts.streams]]\nname = 's{number}'\nstream_id = 'st-{number}'\n");
        }
        let once = printed(&text, &[]);
        prop_assert_eq!(shown(read(&once, &[])), shown(read(&text, &[])), "{}", once);
        let plain = |text: &str| -> Vec<String> {
            text.lines().skip(1).map(|line| line.rsplit_once("  # line ").or(line.rsplit_once("  # default")).map_or(line, |(line, _)| line).to_owned()).collect()
        };
        prop_assert_eq!(plain(&printed(&once, &[])), plain(&once));
    }
}
