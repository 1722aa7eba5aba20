//! Tables: what is written, and what is said of it, word for word.

use std::fs;

use super::*;

const CANARY: &str = "CANARY-7f3a";

const ACCOUNT: &str = r#"
[[accounts]]
name = "acme"
account_id = "65f7"
client_id = "cs-1"
client_secret_file = "secrets/acme"
"#;

fn told_with(text: &str, env: &[(&str, &str)]) -> String {
    match parse(Path::new("gw.toml"), text.as_bytes(), env.iter().copied()) {
        Ok(_) => "ok".to_owned(),
        Err(problems) => problems.to_string(),
    }
}

/// What is said of a file that has one good account besides.
fn told(text: &str) -> String {
    told_with(&format!("{text}{ACCOUNT}"), &[])
}

/// The same without lines and carets.
fn heads(text: &str) -> Vec<String> {
    let is_head = |line: &&str| {
        !line
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start()
            .starts_with('|')
    };
    text.lines().filter(is_head).map(str::to_owned).collect()
}

#[test]
fn one_problem_of_each_sort_word_for_word() {
    for (text, expected) in [
        ("", "ok"),
        (
            "[cache]\nfresh_for = \"5 parsecs\" # soon",
            r#"
gw.toml:2:13: cache.fresh_for: "5 parsecs" is not a length of time (write "5m" or "1h 30m")
2 | fresh_for = "5 parsecs"
  |             ^^^^^^^^^^^"#,
        ),
        (
            "[cache]\nfresh_for = 5",
            r#"
gw.toml:2:13: cache.fresh_for: 5 is not a length of time (write "5m" or "1h 30m")
2 | fresh_for = 5
  |             ^"#,
        ),
        (
            "[cache]\nfresh_fro = \"5m\"",
            "
gw.toml:2:1: cache.fresh_fro: unknown key (did you mean fresh_for?)
2 | fresh_fro = ***
  | ^^^^^^^^^",
        ),
        (
            "[cache]\nkept_for = \"5m\"",
            "
gw.toml:2:1: cache.kept_for: unknown key; known here: forced_per_minute, fresh_for, lists_max_bytes, max_bytes, stale_for
2 | kept_for = ***
  | ^^^^^^^^",
        ),
        (
            "[merge]\nwidth = 65",
            "
gw.toml:2:9: merge.width: 65 is out of range: 1 to 64
2 | width = 65
  |         ^^",
        ),
        (
            "listen = { workers = \"two\" }",
            r#"
gw.toml:1:22: listen.workers: "two" is not a whole number
1 | listen = { workers = "two" }
  |                      ^^^^^"#,
        ),
        (
            "[listen]\naddress = \"0.0.0.0:80\"",
            r#"
gw.toml:2:11: listen.address: is not a loopback address: without [[callers]] whoever connects may read every account, so only loopback is allowed
2 | address = "0.0.0.0:80"
  |           ^^^^^^^^^^^^"#,
        ),
        (
            "cache = 5",
            "
gw.toml:1:9: cache: is a section: write [cache] and its keys below it
1 | cache = ***
  |         ^^^",
        ),
        (
            "[[cache]]\nfresh_for = \"5m\"",
            "
gw.toml:1:1: cache: is a section: write [cache] and its keys below it
1 | [[cache]]
  | ^^^^^^^^^",
        ),
        (
            "[log]\nlevel = \"loud\"",
            r#"
gw.toml:2:9: log.level: "loud" is not one of "error", "warn", "info", "debug", "trace"
2 | level = "loud"
  |         ^^^^^^"#,
        ),
        (
            "[cache]\nfresh_for = \"5m",
            "
gw.toml:2:16: invalid basic string, expected `\"`
2 | fresh_for = \"5m
  |                ^",
        ),
    ] {
        assert_eq!(told(text), expected.trim_start(), "{text}");
    }
}

#[test]
fn accounts_have_rules_of_their_own() {
    for (text, expected) in [
        (
            "",
            "gw.toml: accounts: there is none: write one [[accounts]] for each Kore.ai account",
        ),
        (
            "accounts = []",
            "gw.toml:1:12: accounts: there is none: write one [[accounts]] for each Kore.ai account",
        ),
        (
            "[accounts]\nname = 'a'",
            "gw.toml:1:2: accounts: is a list of tables: write [[accounts]], with two brackets, for each",
        ),
        (
            "[[account]]\nname = 'a'",
            "gw.toml:1:3: account: unknown key (did you mean accounts?)",
        ),
        (
            "accounts = [5]",
            "gw.toml:1:13: accounts[0]: is not a table: write one [[accounts]] and its keys below it",
        ),
    ] {
        assert_eq!(heads(&told_with(text, &[])), [expected], "{text}");
    }
    let text = r#"
[[accounts]]

[[accounts]]
name = "ACME"
account_id = "a/b"
client_id = "cs 1"
client_secret_file = ""

[[accounts]]
name = 5
account_id = "x"
client_id = "cs-1"
client_secret_env = "x=="
client_secret_file = "x"

[[accounts]]
name = "same"
account_id = "x"
client_id = "cs-1"
client_secret_env = "abcDEF=="
streams = [{ name = "s", stream_id = "1" }, { name = "s", stream_id = "1" }, { name = "t" }]

[[accounts]]
name = "same"
acount_id = "y"
client_id = "cs-1"
client_secret = "s3cret"
[accounts.streams]
"#;
    assert_eq!(
        heads(&told_with(text, &[])),
        [
            "gw.toml:2:1: accounts[0].name: is required",
            "gw.toml:2:1: accounts[0].account_id: is required",
            "gw.toml:2:1: accounts[0].client_id: is required",
            "gw.toml:2:1: accounts[0].client_secret_file: or client_secret_env is required",
            "gw.toml:5:8: accounts[1].name: must be 1 to 64 characters, only a-z, 0-9, _ and -",
            "gw.toml:6:14: accounts[1].account_id: must be 1 to 128 characters, only A-Z, a-z, 0-9, _ and -",
            "gw.toml:7:13: accounts[1].client_id: must be 1 to 256 characters, only visible ASCII",
            "gw.toml:8:22: accounts[1].client_secret_file: names no file",
            "gw.toml:11:8: accounts[2].name: a whole number is not text (write it in quotes)",
            "gw.toml:15:22: accounts[2].client_secret_file: and client_secret_env are both set: keep one",
            "gw.toml:19:14: accounts[3].account_id: is already the account_id of accounts[2] (the first is on line 12)",
            "gw.toml:21:21: accounts[3].client_secret_env: must be 1 to 128 characters, only A-Z, 0-9 and _: the name of an environment variable, not the secret itself",
            "gw.toml:22:54: accounts[3].streams[1].name: is already the name of streams[0] (the first is on line 22)",
            "gw.toml:22:71: accounts[3].streams[1].stream_id: is already the stream_id of streams[0] (the first is on line 22)",
            "gw.toml:22:78: accounts[3].streams[2].stream_id: is required",
            "gw.toml:25:8: accounts[4].name: is already the name of accounts[3] (the first is on line 18)",
            "gw.toml:26:1: accounts[4].acount_id: unknown key (did you mean account_id?)",
            "gw.toml:28:1: accounts[4].client_secret: a secret does not belong in this file: name the file that holds it with client_secret_file, or the environment variable with client_secret_env",
            "gw.toml:29:11: accounts[4].streams: is a list of tables: write [[accounts.streams]], with two brackets, for each",
        ]
    );
}

#[test]
fn keys_that_bear_on_each_other() {
    for (text, expected) in [
        (
            "[cache]\nmax_bytes = '64MiB'",
            "gw.toml:2:13: cache.lists_max_bytes: 128MiB is a part of max_bytes, which is only 64MiB",
        ),
        (
            "[cache]\nmax_bytes = '64MiB'\nlists_max_bytes = '65MiB'",
            "gw.toml:3:19: cache.lists_max_bytes: 65MiB is a part of max_bytes, which is only 64MiB",
        ),
        (
            "[admin]\naddress = '127.0.0.1:8080'",
            "gw.toml:2:11: admin.address: the port 8080 is also that of listen.address",
        ),
        (
            "[listen]\naddress = '[::1]:8081'",
            "gw.toml:2:11: admin.address: the port 8081 is also that of listen.address",
        ),
        (
            "[listen]\naddress = '127.0.0.1:0'\n[admin]\naddress = '127.0.0.1:0'",
            "ok",
        ),
        (
            "[token]\nlifetime = '1h'",
            "gw.toml:2:12: token.lifetime: and backdate are more than 1h together, from iat to exp, which Kore.ai may refuse",
        ),
        ("[token]\nlifetime = '1h'\nbackdate = '0s'", "ok"),
        (
            "[merge]\npage_limit_max = 1",
            "gw.toml:2:18: merge.page_limit_max: 1 is out of range: 2 to 10000",
        ),
    ] {
        assert_eq!(heads(&told(text)), [expected], "{text}");
    }
}

#[test]
fn a_base_url_is_scheme_host_and_port() {
    const WANTED: &str =
        "must be a scheme, a host and perhaps a port, as in \"https://platform.kore.ai\"";
    for (url, expected) in [
        ("https://platform.kore.ai", "ok"),
        ("https://platform.kore.ai:8443", "ok"),
        ("https://[::1]:1", "ok"),
        (
            "http://127.0.0.1:9",
            "is http, which sends tokens and contacts in the clear: use https, or set allow_plaintext = true",
        ),
        (
            "ftp://x",
            "must begin with https:// (or http://, with allow_plaintext = true)",
        ),
        ("https://u:p@x", "must have no user name or password in it"),
        (
            "https://x/",
            "must end with the host or port: no path, not even a slash, and no query",
        ),
        (
            "https://x/a",
            "must end with the host or port: no path, not even a slash, and no query",
        ),
        (
            "https://x?a",
            "must end with the host or port: no path, not even a slash, and no query",
        ),
        (
            "https://x#a",
            "must end with the host or port: no path, not even a slash, and no query",
        ),
        ("platform.kore.ai", WANTED),
        ("https://", WANTED),
        ("https://:80", WANTED),
        ("https://x:0", WANTED),
        ("https://x:", WANTED),
        ("https://x:65536", WANTED),
        ("https://a b", WANTED),
        ("", WANTED),
    ] {
        let found = told(&format!("[upstream]\nbase_url = '{url}'"));
        let found = heads(&found).join("\n");
        assert_eq!(
            found.trim_start_matches("gw.toml:2:12: upstream.base_url: "),
            expected,
            "{url}"
        );
    }
    assert_eq!(
        told("[upstream]\nbase_url = 'http://127.0.0.1:9'\nallow_plaintext = true"),
        "ok"
    );
}

#[test]
fn everything_is_reported_at_once_in_order() {
    let text = "[merge]\nwidth = 0\nwidht = 1\n[cache]\nfresh_for = \"x\"\nmax_bytes = true\n[nope]\na = 1\n";
    let env = [
        ("CONTACTS_GATEWAY__LOG__LEVEL", "loud"),
        ("CONTACTS_GATEWAY__EDGE__LIMIT_MAX", "0"),
        ("OTHER", "x"),
    ];
    assert_eq!(
        heads(&told_with(text, &env)),
        [
            "gw.toml:2:9: merge.width: 0 is out of range: 1 to 64",
            "gw.toml:3:1: merge.widht: unknown key (did you mean width?)",
            r#"gw.toml:5:13: cache.fresh_for: "x" is not a length of time (write "5m" or "1h 30m")"#,
            r#"gw.toml:6:13: cache.max_bytes: true is not a size (write "256MiB" or a whole number of bytes)"#,
            "gw.toml:7:2: nope: unknown key; known here: accounts, admin, budget, cache, callers, edge, listen, log, merge, token, upstream",
            "gw.toml: accounts: there is none: write one [[accounts]] for each Kore.ai account",
            "CONTACTS_GATEWAY__EDGE__LIMIT_MAX: 0 is out of range: 1 to 10000",
            r#"CONTACTS_GATEWAY__LOG__LEVEL: "loud" is not one of "error", "warn", "info", "debug", "trace""#,
        ]
    );
}

#[test]
fn at_most_fifty_are_shown() {
    let text: String = (0..1000)
        .map(|n| format!("unknown_number_{n} = 1\n"))
        .collect();
    let found = told(&text);
    assert_eq!(found.lines().count(), 151);
    assert!(found.ends_with("\nand 950 more"), "{found}");
}

/// Each step is linear, so that a file of the largest size cannot hang a start.
#[test]
fn a_large_bad_file_is_judged_at_once() {
    let started = tokio::time::Instant::now();
    for text in [
        "[[accounts]]\nname='a'\n".repeat(10_000),
        "[[accounts]]\ntoken='a'\n".repeat(10_000),
        "[[accounts]]\nname='a'\n[[callers]]\naccounts=['b','c']\nstreams=['d','e']\n"
            .repeat(5_000),
        (0..10_000).map(|n| format!("fresh_{n} = 1\n")).collect(),
        format!("x = [{}]", "1,".repeat(100_000)),
        format!("x = \"{}\"", "a".repeat(1_000_000)),
    ] {
        assert_ne!(told_with(&text, &[]), "ok");
    }
    // A watchdog: whatever is not linear takes many minutes.
    assert!(started.elapsed().as_secs() < 120, "{:?}", started.elapsed());
}

#[test]
fn variables_win_over_the_file() {
    let text = format!("[cache]\nfresh_for = '1m'\nmax_bytes = '200MiB'\n{ACCOUNT}");
    let env = [
        ("CONTACTS_GATEWAY__CACHE__FRESH_FOR", "2m"),
        ("CONTACTS_GATEWAY__LOG__ACCESS", "false"),
        ("CONTACTS_GATEWAY__MERGE__WIDTH", "3"),
        ("CONTACTS_GATEWAY__UPSTREAM__PAGING", "page_limit"),
        ("CONTACTS_GATEWAY__LISTEN__ADDRESS", "127.0.0.1:0"),
        ("CONTACTS_GATEWAY__CACHE__LISTS_MAX_BYTES", "1048576"),
        (
            "CONTACTS_GATEWAY__UPSTREAM__BASE_URL",
            "https://example.net",
        ),
        ("CONTACTS_GATEWAY_PORT", "tcp://10.0.0.1:80"),
        ("contacts_gateway__cache__fresh_for", "9m"),
    ];
    let config = parse(Path::new("gw.toml"), text.as_bytes(), env)
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.cache.fresh_for.as_secs(), 120);
    assert_eq!(config.cache.max_bytes, bytesize::ByteSize::mib(200));
    assert_eq!(config.cache.lists_max_bytes, bytesize::ByteSize::mib(1));
    assert!(!config.log.access);
    assert_eq!(config.merge.width, 3);
    assert_eq!(config.upstream.paging, upstream::Paging::PageLimit);
    assert_eq!(config.upstream.base_url, "https://example.net");
    assert_eq!(config.listen.address.port(), 0);
    assert_eq!(config.accounts.len(), 1);
}

#[test]
fn a_bad_variable_is_named() {
    for (name, value, expected) in [
        (
            "CACHE__FRESH_FOR",
            "",
            r#""" is not a length of time (write "5m" or "1h 30m")"#,
        ),
        (
            "CACHE__FRESH_FRO",
            "5m",
            "unknown key (did you mean CONTACTS_GATEWAY__CACHE__FRESH_FOR?)",
        ),
        (
            "CACHE__fresh_for",
            "5m",
            "unknown key (did you mean CONTACTS_GATEWAY__CACHE__FRESH_FOR?)",
        ),
        (
            "CASHE__FRESH_FOR",
            "5m",
            "unknown key (did you mean CONTACTS_GATEWAY__CACHE?)",
        ),
        (
            "CACHE__X",
            "5m",
            "unknown key; known here: forced_per_minute, fresh_for, lists_max_bytes, max_bytes, stale_for",
        ),
        (
            "CACHE",
            "5m",
            "names a section: add __ and one of its keys: forced_per_minute, fresh_for, lists_max_bytes, max_bytes, stale_for",
        ),
        (
            "CACHE__FRESH_FOR__X",
            "5m",
            "unknown key; known here: CONTACTS_GATEWAY__CACHE__FRESH_FOR itself",
        ),
        (
            "ACCOUNTS",
            CANARY,
            "cannot be set by a variable: what is in a list stands in the file only",
        ),
        (
            "ACCOUNTS__0__NAME",
            "x",
            "cannot be set by a variable: what is in a list stands in the file only",
        ),
        ("LOG__ACCESS", "yes", r#""yes" is not true or false"#),
        ("MERGE__WIDTH", "1.5", r#""1.5" is not a whole number"#),
        (
            "CACHE__LISTS_MAX_BYTES",
            "1TiB",
            "1TiB is a part of max_bytes, which is only 256MiB",
        ),
    ] {
        let name = format!("CONTACTS_GATEWAY__{name}");
        assert_eq!(
            told_with(ACCOUNT, &[(&name, value)]),
            format!("{name}: {expected}")
        );
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8_is_a_problem_only_if_it_is_ours() {
    use std::os::unix::ffi::OsStringExt;
    let bad = || OsString::from_vec(b"\xff".to_vec());
    let env = [
        ("CONTACTS_GATEWAY__LOG__LEVEL".into(), bad()),
        ("OTHER".into(), bad()),
        (bad(), bad()),
    ];
    let problems =
        parse(Path::new("gw.toml"), ACCOUNT.as_bytes(), env).expect_err("a bad variable");
    assert_eq!(
        problems.to_string(),
        "CONTACTS_GATEWAY__LOG__LEVEL: is not UTF-8 text"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let none: [(&str, &str); 0] = [];
    let text = |path: &Path| load(path, none).expect_err("no file").to_string();
    let path = folder.path().join("gateway.toml");
    assert!(text(&path).starts_with(&format!("{}: cannot be read: No such file", path.display())));
    assert!(text(folder.path()).contains("cannot be read: Is a directory"));
    fs::write(&path, [0xff]).expect("a file");
    assert!(text(&path).ends_with("is not UTF-8 text"));
    fs::write(&path, "#".repeat((1 << 20) + 1)).expect("a file");
    assert!(text(&path).ends_with("is larger than 1048576 bytes, which no configuration is"));
    fs::write(&path, format!("\u{feff}{ACCOUNT}")).expect("a file");
    assert_eq!(
        load(&path, none)
            .expect("a byte order mark does no harm")
            .accounts
            .len(),
        1
    );
}

#[test]
fn a_second_secret_and_claims_have_rules_of_their_own() {
    let told = |more: &str| heads(&told_with(&format!("{ACCOUNT}{more}"), &[])).join("\n");
    for (more, expected) in [
        ("next_secret_file = 'x'", "ok"),
        ("next_secret_env = 'X'", "ok"),
        ("next_secret_file = ''", "names no file"),
        (
            "next_secret_file = 'x'\nnext_secret_env = 'X'",
            "and next_secret_env are both set: keep one",
        ),
        (
            "next_secret_env = 'x='",
            "only A-Z, 0-9 and _: the name of an environment variable, not the secret itself",
        ),
        (
            "claims = { sub = 'me', iss = 'x', level = -2, share = 0.5, on = true }",
            "ok",
        ),
        ("[accounts.claims]\niss = 'x'", "ok"),
        (
            "claims = { jti = 'x' }",
            "may not have jti, which the gateway sets itself",
        ),
        (
            "claims = { appId = 'x' }",
            "may not have appId, which the gateway sets itself",
        ),
        ("claims = { a = inf }", "or a number without end"),
        (
            "claims = { 'a b' = 1 }",
            "have a name that is not 1 to 64 visible ASCII characters",
        ),
        (
            "claims = { a = [] }",
            "a section is not a table of texts, numbers, true and false (write { iss = \"cs-1\" })",
        ),
        (
            "claims = 'CANARY'",
            "text is not a table of texts, numbers, true and false (write { iss = \"cs-1\" })",
        ),
    ] {
        let told = told(more);
        assert!(told.ends_with(expected), "{more}: {told}");
        assert!(!told.contains("CANARY"));
    }
    let many: Vec<_> = (0..17).map(|n| format!("c{n} = 1")).collect();
    assert!(told(&format!("claims = {{ {} }}", many.join(", "))).ends_with("are more than 16"));
    let long = format!("claims = {{ a = '{}' }}", "x".repeat(257));
    assert!(told(&long).contains("more than 256 characters"));
}

#[test]
fn claims_and_shares_are_read_as_they_are_written() {
    let text = format!(
        "[budget]\nstart_share = 0.25\n{ACCOUNT}claims = {{ appVersion = 'x', n = -2, share = 0.5, on = true }}"
    );
    let none: [(&str, &str); 0] = [];
    let config = parse(Path::new("gw.toml"), text.as_bytes(), none)
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(config.budget.start_share, 0.25);
    let claims = serde_json::to_value(&config.accounts[0].claims).expect("JSON");
    assert_eq!(
        claims,
        serde_json::json!({ "appVersion": "x", "n": -2, "share": 0.5, "on": true })
    );
}

#[test]
fn a_missing_secret_concerns_its_account_alone_but_not_for_check() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gateway.toml");
    let account = |name: &str, secret: &str| {
        format!("[[accounts]]\nname = '{name}'\naccount_id = '{name}'\nclient_id = 'c'\n{secret}\n")
    };
    let text = [
        account("a", "client_secret_file = 'a'"),
        account("b", "client_secret_file = 'secrets/b'"),
        account("c", "client_secret_env = 'C_SECRET'"),
        account("d", "client_secret_env = 'D_SECRET'"),
    ];
    fs::write(&path, text.concat()).expect("a file");
    fs::write(folder.path().join("a"), format!("{CANARY}\n")).expect("a file");
    let env = [("C_SECRET", CANARY)];
    let config = load(&path, env).expect("structure is fine");
    let found = secrets(&config, super::folder(&path), env);
    let exposed: Vec<_> = found
        .iter()
        .map(|sources| sources.first.read().ok())
        .map(|secret| secret.is_some_and(|secret| secret.expose() == CANARY))
        .collect();
    assert_eq!(exposed, [true, false, true, false]);
    assert!(!format!("{found:?}").contains(CANARY));

    let text = check(&path, env)
        .expect_err("two secrets are missing")
        .to_string()
        .replace(&folder.path().display().to_string(), "DIR");
    assert_eq!(
        heads(&text),
        [
            "DIR/gateway.toml:10:22: accounts[1].client_secret_file: the secret file DIR/secrets/b cannot be read: No such file or directory (os error 2)",
            "DIR/gateway.toml:20:21: accounts[3].client_secret_env: the environment variable D_SECRET is not set",
        ]
    );
}

/// What is missing and what would mislead, with tokens from a service.
#[test]
fn a_token_service_takes_the_place_of_the_accounts_secrets() {
    const SERVICE: &str = "[token]\nsource = 'service'\n[token.service]\nurl = 'https://t.example'";
    const BARE: &str = "[[accounts]]\nname = 'acme'\naccount_id = '65f7'\nclient_id = 'cs-1'\n";
    let told = |service: &str, more: &str| {
        let told = told_with(&format!("{service}\n{BARE}{more}"), &[]);
        let keys = heads(&told).into_iter().map(|head| {
            let message = head.split(": ").skip(1);
            message.collect::<Vec<_>>().join(": ")
        });
        keys.collect::<Vec<_>>().join("; ")
    };
    assert_eq!(told(SERVICE, ""), "");
    for more in [
        "client_secret_file = 's'",
        "client_secret_env = 'S'",
        "next_secret_file = 's'",
        "next_secret_env = 'S'",
        "algorithm = 'RS256'",
        "claims = { a = 1 }",
    ] {
        let key = more.split(' ').next().expect("a key");
        let expected =
            format!("accounts[0].{key}: is not used while token.source is \"service\": remove it");
        assert_eq!(told(SERVICE, more), expected);
    }
    for (service, expected) in [
        (
            "[token]\nsource = 'service'",
            "token.service.url: is required while token.source is \"service\"",
        ),
        (
            "[token.service]\nurl = 'https://t.example'",
            "token.service.url: is not used: set token.source = \"service\", or remove it; accounts[0].client_secret_file: or client_secret_env is required",
        ),
    ] {
        assert_eq!(told(service, ""), expected);
    }

    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("gw.toml");
    let text = format!("{SERVICE}\nsecret_header_file = 'key'\n{BARE}");
    fs::write(&path, text).expect("a file");
    let env = || Vec::<(String, String)>::new();
    let config = load(&path, env()).expect("good without its secret");
    let source = service_secret(&config, folder.path(), env()).expect("a source");
    assert!(source.read().is_err());
    let problems = check(&path, env()).expect_err("no secret").to_string();
    assert!(
        problems.contains("token.service.secret_header_file"),
        "{problems}"
    );
    for (content, good) in [("k", true), ("a\nCANARY-7f3a", false)] {
        fs::write(folder.path().join("key"), content).expect("a file");
        let checked = check(&path, env());
        assert_eq!(checked.is_ok(), good);
        let told = checked.err().map(|problems| problems.to_string());
        assert!(!told.unwrap_or_default().contains(CANARY));
    }
}

/// SHA-256 of "abc" and of the empty text, FIPS 180-4.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const NONE: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn callers_have_rules_of_their_own() {
    const STREAM: &str = "[[accounts.streams]]\nname = 'support'\nstream_id = 'st-1'\n";
    let told = |more: &str| {
        let text = format!("{ACCOUNT}{STREAM}[[callers]]\nname = 'crm'\n{more}");
        let heads = heads(&told_with(&text, &[]));
        let without_place = heads
            .iter()
            .map(|head| head.split_once(": ").map_or(&**head, |(_, rest)| rest));
        without_place.collect::<Vec<_>>().join("; ")
    };
    let good = format!("key_sha256 = ['{ABC}']\naccounts = ['acme']\n");
    for (more, expected) in [
        (good.clone(), "ok"),
        (format!("{good}streams = ['support']"), "ok"),
        (
            format!("{good}streams = ['st-1']\nurgency_max = 'bulk'"),
            "ok",
        ),
        (
            String::new(),
            "callers[0].key_sha256: is required: `contacts-gateway key` makes a key and its hash; callers[0].accounts: is required: the names of the accounts that it may read",
        ),
        (
            good.replace(ABC, "CANARY-7f3a"),
            "callers[0].key_sha256[0]: must be a key's SHA-256, 64 of 0-9 and a-f, and not the key itself",
        ),
        (
            good.replace(&format!("['{ABC}']"), &format!("'{ABC}'")),
            r#"callers[0].key_sha256: text is not a list of texts (write ["one", "two"])"#,
        ),
        (
            good.replace("'acme'", "'acme', 'acmee'"),
            "callers[0].accounts[1]: is the name of no account (did you mean acme?)",
        ),
        // An id is no name.
        (
            good.replace("acme", "65f7"),
            "callers[0].accounts[0]: is the name of no account",
        ),
        (
            format!("{good}streams = []"),
            "callers[0].streams: are none: leave it out, and all streams may be read",
        ),
        (
            format!("{good}streams = ['support', 'sales']"),
            "callers[0].streams[1]: is neither the name nor the id of a stream of these accounts",
        ),
        (
            format!("{good}requests_per_minute = 0\nrequests_at_once = 1000001"),
            "callers[0].requests_per_minute: 0 is out of range: 1 to 6000000; callers[0].requests_at_once: 1000001 is out of range: 1 to 1000000",
        ),
        (
            format!("{good}urgency_max = 'urgent'"),
            r#"callers[0].urgency_max: "urgent" is not one of "background", "bulk", "interactive""#,
        ),
        (
            good.replace(']', &format!(", '{}']", ABC.to_uppercase()))
                .replace("accounts = ['acme', ", "accounts = ['acme'] #"),
            "callers[0].key_sha256[1]: is already callers[0].key_sha256[0]: each key belongs to one (the first is on line 12)",
        ),
        (
            format!(
                "{good}[[callers]]\nname = 'crm'\nkey_sha256 = ['{NONE}', '{ABC}']\naccounts = ['acme']"
            ),
            "callers[1].name: is already the name of callers[0] (the first is on line 11); callers[1].key_sha256[1]: is already callers[0].key_sha256[0]: each key belongs to one (the first is on line 12)",
        ),
        (
            format!("{good}[admin]\ntoken_sha256 = ['{ABC}']"),
            "callers[0].key_sha256[0]: is already admin.token_sha256[0]: each key belongs to one (the first is on line 15)",
        ),
    ] {
        let told = told(&more);
        assert_eq!(told, expected, "{more}");
        assert!(!told.contains("CANARY"));
    }
    let many: Vec<_> = (0..9).map(|n| format!("'{n}{}'", &ABC[1..])).collect();
    let many = format!("key_sha256 = [{}]\naccounts = ['acme']", many.join(","));
    assert_eq!(told(&many), "callers[0].key_sha256: are more than 8");
}

/// What is wrong in a list is pointed at, and nothing is shown that may be a key.
#[test]
fn a_list_of_texts_is_pointed_into() {
    let text = format!(
        "{ACCOUNT}[[callers]]\nname = 'crm'\nkey_sha256 = ['{ABC}', 'CANARY']\naccounts = ['acme', 'amce']\n"
    );
    assert_eq!(
        told_with(&text, &[]),
        "gw.toml:9:83: callers[0].key_sha256[1]: must be a key's SHA-256, 64 of 0-9 and a-f, and not the key itself
9 | key_sha256 = [***, ***]
  |                    ^^^
gw.toml:10:21: callers[0].accounts[1]: is the name of no account (did you mean acme?)
10 | accounts = ['acme', 'amce']
   |                     ^^^^^^"
    );
}

/// Catches an address that anyone could read from, and a rule that hides behind another's mistake.
#[test]
fn whoever_comes_from_elsewhere_must_show_a_key() {
    let callers =
        format!("[[callers]]\nname = 'crm'\nkey_sha256 = ['{ABC}']\naccounts = ['acme']\n");
    let (listen, admin) = (
        "listen.address = '0.0.0.0:80'\n",
        "admin.address = '[::]:81'\n",
    );
    let token = format!("admin.token_sha256 = ['{NONE}']\n");
    let told = |before: &str, after: &str| {
        let heads = heads(&told_with(&format!("{before}{ACCOUNT}{after}"), &[]));
        let keys = heads
            .iter()
            .map(|head| head.split(": ").nth(1).unwrap_or("ok"));
        keys.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told(listen, ""), ["listen.address"]);
    assert_eq!(told(listen, &callers), ["ok"]);
    assert_eq!(told(admin, &callers), ["admin.address"]);
    assert_eq!(told(&format!("{admin}{token}"), ""), ["ok"]);
    assert_eq!(
        told(&format!("{listen}{admin}{token}"), ""),
        ["listen.address"]
    );
    assert_eq!(told(&format!("{listen}{admin}{token}"), &callers), ["ok"]);
    assert_eq!(
        told("listen.address = '[::ffff:127.0.0.1]:80'\n", ""),
        ["ok"]
    );
    // Only what is wrong itself is told, not what follows.
    assert_eq!(told(&format!("{listen}callers = 5\n"), ""), ["callers"]);
    let variable = ("CONTACTS_GATEWAY__ADMIN__TOKEN_SHA256", "CANARY");
    assert_eq!(
        told_with(ACCOUNT, &[variable]),
        "CONTACTS_GATEWAY__ADMIN__TOKEN_SHA256: cannot be set by a variable: what is in a list stands in the file only"
    );
}
