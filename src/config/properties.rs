//! What holds for every file: nothing panics, everything is judged, and no secret is shown.

use proptest::prelude::*;

use super::*;

const CANARY: &str = "CANARY-7f3a";

/// Wherever a secret was put by mistake, it is not shown. (Values of kinds that cannot be secrets are.)
#[test]
fn a_secret_in_the_wrong_place_is_not_shown() {
    let texts = [
        "client_secret = 'CANARY-7f3a'",
        "client_secret = CANARY-7f3a",
        "client_secret = 'CANARY-7f3a",
        "client_secret = '''\nCANARY-7f3a=\n",
        "client_secret = \"\"\"\nCANARY-7f3a\n\"\"\"\nname = 5",
        "client_secret = { nested = ['CANARY-7f3a'] }",
        "x = 'CANARY-7f3a'",
        "x 'CANARY-7f3a'",
        "'CANARY-7f3a'",
        "CANARY-7f3a=",
        "x = ['CANARY-7f3a', { y = 'CANARY-7f3a' }]",
        "name = 'a' client_secret = 'CANARY-7f3a'",
        "name = ['CANARY-7f3a']",
        "algorithm = ['CANARY-7f3a']",
        "name = 5 # CANARY-7f3a",
        "client_id = 'CANARY-7f3a \u{e9}'",
        "client_secret_env = 'CANARY-7f3a'",
        "next_secret_env = 'CANARY-7f3a'",
        "claims = { jti = 'CANARY-7f3a' }",
        "claims = { a = ['CANARY-7f3a'] }",
        "claims = 'CANARY-7f3a'",
        "client_secret_file = 'CANARY-7f3a'\nclient_secret_env = 'CANARY-7f3a'",
        "client_secret_file = ['CANARY-7f3a']",
        "[upstream]\nbase_url = 'https://u:CANARY-7f3a@x'",
        "[upstream]\nbase_url = 'https://x?CANARY-7f3a'",
        "[[accounts.streams]]\ntoken = 'CANARY-7f3a'",
        "[token.service]\nurl = 'https://x/?CANARY-7f3a'",
        "[token.service]\nurl = 5 # CANARY-7f3a",
        "[token.service]\nbody = 'CANARY-7f3a'",
        "[token.service]\nheaders = { x-api-key = 'CANARY-7f3a' }",
        "[token.service]\nheaders = { a = ['CANARY-7f3a'] }",
        "[token.service]\nsecret_header = 'x: CANARY-7f3a'",
        "[token.service]\nsecret_header_env = 'CANARY-7f3a'",
        "[token.service]\npointer = 'CANARY-7f3a'",
        "[token.service]\napi_key = 'CANARY-7f3a'",
        "[[callers]]\nkey_sha256 = ['CANARY-7f3a']",
        "[[callers]]\nkey_sha256 = 'CANARY-7f3a'",
        "[[callers]]\nkey_sha256 = [['CANARY-7f3a'], 5]",
        "[[callers]]\nkey = 'CANARY-7f3a'",
        "[[callers]]\nkey_sha256 = [\n'CANARY-7f3a',\n'CANARY-7f3a']",
        "[[callers]]\nkey_sha256 = ['CANARY-7f3a'",
        "[admin]\ntoken_sha256 = ['CANARY-7f3a']",
        "[admin]\ntoken = 'CANARY-7f3a'",
        "[x] 'CANARY-7f3a'",
    ];
    for text in texts {
        for env in [
            &[][..],
            &[
                ("CONTACTS_GATEWAY__UPSTREAM__BASE_URL", "x@CANARY-7f3a"),
                ("CONTACTS_GATEWAY__X", CANARY),
            ],
        ] {
            let source = format!("[[accounts]]\n{text}");
            for secrets in [Secrets::Unread, Secrets::Read] {
                let env = Variables::new(env.iter().copied());
                let problems = examine(Path::new("gw.toml"), source.as_bytes(), &env, secrets)
                    .expect_err("a problem");
                for told in [
                    problems.to_string(),
                    format!("{problems:?}"),
                    format!("{problems:#?}"),
                ] {
                    assert!(!told.contains("CANARY"), "{text}\n{told}");
                }
            }
        }
    }
}

/// Any value at all, of TOML's own kinds.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i128>().prop_map(|number| number.to_string()),
        (-10_000_i32..10_000).prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}")),
        any::<bool>().prop_map(|value| value.to_string()),
        Just("1979-05-27T07:32:00Z".to_owned()),
        "[0-9a-zA-Z./:]{0,12}".prop_map(|text| format!("'{text}'")),
        "[0-9]{1,30}(ms|s|m|h|KiB|TB| parsecs)?".prop_map(|text| format!("'{text}'")),
        prop::sample::select(vec![
            "'skip_limit'",
            "'info'",
            "'127.0.0.1:80'",
            "'HS256'",
            "'5m'",
            "'1GiB'"
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|items| format!("[{}]", items.join(", "))),
            (any_key(), inner).prop_map(|(key, value)| format!("{{ {key} = {value} }}")),
        ]
    })
}

fn any_key() -> impl Strategy<Value = String> {
    let known = vec![
        "listen",
        "admin",
        "edge",
        "upstream",
        "token",
        "accounts",
        "callers",
        "key_sha256",
        "urgency_max",
        "cache",
        "merge",
        "log",
        "address",
        "workers",
        "uri_max",
        "limit_max",
        "fresh_for",
        "max_bytes",
        "lists_max_bytes",
        "width",
        "records_max",
        "level",
        "access",
        "paging",
        "base_url",
        "lifetime",
        "source",
        "service",
        "url",
        "headers",
        "secret_header_file",
        "backdate",
        "name",
        "account_id",
        "client_id",
        "client_secret_file",
        "next_secret_file",
        "next_secret_env",
        "jti",
        "claims",
        "secret_poll",
        "client_secret_env",
        "algorithm",
        "streams",
        "stream_id",
        "client_secret",
    ];
    prop_oneof![8 => prop::sample::select(known).prop_map(str::to_owned), 1 => "'[^'\n\r]{0,6}'"]
}

fn any_document() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        4 => (any_key(), any_value()).prop_map(|(key, value)| format!("{key} = {value}")),
        2 => (any_key(), any_key(), any_value()).prop_map(|(section, key, value)| format!("{section}.{key} = {value}")),
        1 => any_key().prop_map(|key| format!("[{key}]")),
        1 => any_key().prop_map(|key| format!("[[{key}]]")),
        1 => (any_key(), any_key()).prop_map(|(one, two)| format!("[[{one}.{two}]]")),
    ];
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, text in "\\PC*", name in "[A-Z_]{0,12}") {
        let env = [(format!("CONTACTS_GATEWAY__{name}"), text.clone())];
        for content in [bytes.as_slice(), text.as_bytes()] {
            if let Err(problems) = parse(Path::new("gw.toml"), content, env.clone()) {
                let _ = (problems.to_string(), format!("{problems:?}"));
            }
        }
    }

    /// What the tree of keys lets through, serde accepts: so `Refused`, which cannot say why, is never seen.
    #[test]
    fn any_toml_is_survived_and_judged(document in any_document(), key in any_key(), below in any_key(), value in any_value()) {
        let env = [(format!("CONTACTS_GATEWAY__{key}__{below}").to_uppercase(), value.trim_matches('\'').to_owned())];
        if let Err(problems) = parse(Path::new("gw.toml"), document.as_bytes(), env) {
            prop_assert!(problems.count() > 0);
            for problem in problems.iter() {
                prop_assert!(!matches!(problem.fault, Fault::Refused), "{problem}\n{document}");
            }
            let _ = (problems.to_string(), format!("{problems:?}"));
        }
    }

    /// Keys whose values may be secrets, comments, and a file that breaks off anywhere: nothing of it is shown.
    #[test]
    fn no_text_that_may_be_a_secret_is_shown(lines in prop::collection::vec(secretive_line(), 1..6), cut: prop::sample::Index) {
        let text = lines.concat();
        for text in [text.as_str(), &text[..cut.index(text.len())]] {
            if let Err(problems) = parse(Path::new("gw.toml"), text.as_bytes(), Vec::<(String, String)>::new()) {
                let told = format!("{problems}{problems:?}");
                prop_assert!(!told.contains("CAN") && !told.contains("7f3a"), "{text}\n---\n{problems}");
            }
        }
    }
}

fn secretive_line() -> impl Strategy<Value = String> {
    let keys = vec![
        "client_id",
        "client_secret_file",
        "client_secret_env",
        "client_secret",
        "password",
        "x",
        "accounts",
        "cache",
        "streams",
    ];
    let values = vec![
        "'CANARY-7f3a'",
        "\"CANARY-7f3a\"",
        "'''\nCANARY-7f3a\n'''",
        "\"\"\"CANARY\n7f3a # \"\"\"",
        "['CANARY-7f3a']",
        "[\n'CANARY-7f3a',\n'7f3a']",
        "{ x = 'CANARY-7f3a' }",
        "CANARY-7f3a",
        "5",
        "'a' x = 'CANARY-7f3a'",
        "'CANARY-7f3a=",
    ];
    let ends = vec!["\n", " # CANARY-7f3a\n", "\r\n", " 'CANARY-7f3a'\n"];
    let header = prop::sample::select(keys.clone()).prop_map(|key| format!("[[{key}]]\n"));
    let pair = (
        prop::sample::select(keys),
        prop::sample::select(values),
        prop::sample::select(ends),
    );
    let pair = pair.prop_map(|(key, value, end)| format!("{key} = {value}{end}"));
    prop_oneof![3 => pair, 1 => header]
}
