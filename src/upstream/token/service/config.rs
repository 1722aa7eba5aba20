//! `[token.service]`: where tokens come from if the gateway does not sign them itself, and what is said there.

use std::{fmt, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use http::Uri;
use serde::{Deserialize, Serialize};

use super::{
    headers::{Headers, is_free},
    template,
};
use crate::config::Rules;

/// The longest URL and the longest body, in bytes, before the ids are put into them.
const URL_MAX: usize = 2 * 1024;
const BODY_MAX: usize = 4 * 1024;

/// `[token.service]`. URL, body and headers may hold what is nobody's business: `Debug` shows none of them.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `https`, or `http` on loopback or with `allow_plaintext`. `{account_id}` and `{client_id}` stand for the account's.
    #[serde(skip_serializing)]
    pub url: String,
    /// Accept an `http` URL that leaves the machine. Tokens then travel in the clear.
    pub allow_plaintext: bool,
    pub method: Verb,
    /// What is sent with POST, with the same words.
    #[serde(skip_serializing)]
    pub body: String,
    /// How the body is written, and so its content type.
    pub body_type: BodyType,
    /// More headers; no secrets.
    #[serde(skip_serializing)]
    pub headers: Headers,
    /// The header whose value is a secret.
    pub secret_header: String,
    /// A file that holds its value; relative to the configuration file. Empty: none.
    pub secret_header_file: PathBuf,
    /// The environment variable that holds its value. At most one of the two. Empty: none.
    pub secret_header_env: String,
    /// Where the token stands in the JSON of an answer (RFC 6901).
    pub pointer: String,
    /// To a connection: its name, TCP and TLS together; 10 ms to 1 min.
    #[serde(with = "crate::config::duration")]
    pub connect_timeout: Duration,
    /// From a request to its answer's head; 10 ms to 1 min.
    #[serde(with = "crate::config::duration")]
    pub first_byte_timeout: Duration,
    /// From a request to its answer's last byte; 10 ms to 1 min.
    #[serde(with = "crate::config::duration")]
    pub total_timeout: Duration,
    /// The largest answer that is read; 256 B to 1 MiB.
    #[serde(serialize_with = "crate::config::size::serialize")]
    pub answer_bytes_max: ByteSize,
}

/// How the service is asked.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verb {
    #[default]
    Post,
    /// Without a body.
    Get,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum BodyType {
    #[default]
    Json,
    Form,
}

impl Config {
    /// What is not written where a configuration is shown, for whoever compares two: never to be shown.
    pub(crate) fn unwritten(&self) -> [(&'static str, String); 3] {
        let headers = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}\n"));
        [
            ("url", self.url.clone()),
            ("body", self.body.clone()),
            ("headers", headers.collect()),
        ]
    }

    /// Whether its URL is an `http` one.
    pub(super) fn is_plaintext(&self) -> bool {
        self.url.starts_with("http://")
    }

    /// States which rules are broken. Nothing of URL, body and headers is ever part of a message.
    pub(in crate::upstream::token) fn check(&self, used: bool, rules: &mut Rules) {
        if used {
            if let Err(message) = self.check_url() {
                rules.broken(&["url", "allow_plaintext"], message.to_owned());
            }
        } else if !self.url.is_empty() {
            let message = "is not used: set token.source = \"service\", or remove it";
            rules.broken(&["url"], message.to_owned());
        }
        if let Err(message) = self.check_body() {
            rules.broken(&["body", "body_type"], message);
        }
        self.headers.check(rules);
        self.check_secret(rules);
        let tilde = |rest: &str| rest.starts_with(['0', '1']);
        if !(self.pointer.is_empty() || self.pointer.starts_with('/'))
            || self.pointer.len() > 256
            || !self.pointer.split('~').skip(1).all(tilde)
        {
            let message =
                "must be a JSON pointer of up to 256 characters, as \"/jwt\" or \"/data/token\"";
            rules.broken(&["pointer"], message.to_owned());
        }
        let range = Duration::from_millis(10)..=Duration::from_secs(60);
        rules.range("connect_timeout", self.connect_timeout, range.clone());
        rules.range("first_byte_timeout", self.first_byte_timeout, range.clone());
        rules.range("total_timeout", self.total_timeout, range);
        rules.range(
            "answer_bytes_max",
            self.answer_bytes_max,
            ByteSize::b(256)..=ByteSize::mib(1),
        );
    }

    fn check_url(&self) -> Result<(), &'static str> {
        const WANTED: &str = "must be an address as \"https://tokens.example.com/jwt\"";
        if self.url.is_empty() {
            return Err("is required while token.source is \"service\"");
        }
        if self.url.len() > URL_MAX {
            return Err("is longer than 2 KiB");
        }
        if template::has_unknown_word(&self.url) {
            return Err("has a word in braces that is neither {account_id} nor {client_id}");
        }
        let url = template::fill(&self.url, template::url, "1", "1");
        let url: Uri = url.parse().map_err(|_| WANTED)?;
        let authority = url.authority().ok_or(WANTED)?;
        if authority.as_str().contains('@') {
            return Err("must have no user name or password in it: use secret_header");
        }
        if self.url.contains('#') || authority.host().is_empty() {
            return Err(WANTED);
        }
        let host = authority.host();
        let bare = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
        let loopback = host == "localhost" || bare.is_ok_and(|ip| ip.is_loopback());
        match url.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if loopback || self.allow_plaintext => Ok(()),
            Some("http") => Err(
                "is http, which sends tokens in the clear: use https, or set allow_plaintext = true",
            ),
            _ => Err(WANTED),
        }
    }

    fn check_body(&self) -> Result<(), String> {
        if self.body.len() > BODY_MAX {
            return Err("is longer than 4 KiB".to_owned());
        }
        if template::has_unknown_word(&self.body) {
            return Err(
                "has a word in braces that is neither {account_id} nor {client_id}".to_owned(),
            );
        }
        let good = match self.body_type {
            BodyType::Json => {
                let body = template::fill(&self.body, template::json, "1", "1");
                serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok()
            }
            BodyType::Form => self.body.bytes().all(|byte| byte.is_ascii_graphic()),
        };
        good.then_some(()).ok_or_else(|| match self.body_type {
            BodyType::Json => "is not JSON, which body_type says it is".to_owned(),
            BodyType::Form => {
                "is no form as body_type says, which has visible ASCII characters only".to_owned()
            }
        })
    }

    fn check_secret(&self, rules: &mut Rules) {
        if !is_free(&self.secret_header) || self.headers.has(&self.secret_header) {
            let message =
                "must be the name of a header that is neither the gateway's own nor in headers";
            rules.broken(&["secret_header"], message.to_owned());
        }
        let file = !self.secret_header_file.as_os_str().is_empty();
        match (file, self.secret_header_env.as_str()) {
            (_, "") => {}
            (true, _) => rules.broken(
                &["secret_header_file", "secret_header_env"],
                "and secret_header_env are both set: keep one".to_owned(),
            ),
            (false, name) => rules.variable("secret_header_env", name),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: String::new(),
            allow_plaintext: false,
            method: Verb::Post,
            body: r#"{"clientId":"{client_id}","accountId":"{account_id}"}"#.to_owned(),
            body_type: BodyType::Json,
            headers: Headers::default(),
            secret_header: "authorization".to_owned(),
            secret_header_file: PathBuf::new(),
            secret_header_env: String::new(),
            pointer: "/jwt".to_owned(),
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(5),
            total_timeout: Duration::from_secs(10),
            answer_bytes_max: ByteSize::kib(64),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("allow_plaintext", &self.allow_plaintext)
            .field("method", &self.method)
            .field("body_type", &self.body_type)
            .field("headers", &self.headers)
            .field("connect_timeout", &self.connect_timeout)
            .field("first_byte_timeout", &self.first_byte_timeout)
            .field("total_timeout", &self.total_timeout)
            .field("answer_bytes_max", &self.answer_bytes_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a configuration, all of it.
    fn told(used: bool, change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config {
            url: "https://tokens.example.com/jwt".to_owned(),
            ..Config::default()
        };
        change(&mut config);
        let mut rules = Rules::default();
        config.check(used, &mut rules);
        let tell = |broken: crate::config::Broken| format!("{} {}", broken.keys[0], broken.message);
        let all: Vec<_> = rules.into_broken().into_iter().map(tell).collect();
        all.join("; ")
    }

    #[test]
    fn a_url_is_https_or_stays_on_the_machine() {
        for (url, plaintext, expected) in [
            (
                "https://t.example/a?b={account_id}&c={client_id}",
                false,
                "",
            ),
            ("http://127.0.0.1:8000/jwt", false, ""),
            ("http://[::1]/jwt", false, ""),
            ("http://localhost/jwt", false, ""),
            ("http://t.example/jwt", false, "url is http"),
            ("http://t.example/jwt", true, ""),
            ("http://127.0.0.1.t.example/jwt", false, "url is http"),
            ("https://u:CANARY@t.example", false, "url must have no user"),
            ("https://t.example/#CANARY", false, "url must be"),
            ("https://t.example/{CANARY}", false, "url has a word"),
            ("ftp://t.example", true, "url must be"),
            ("/jwt", false, "url must be"),
            ("CANARY", false, "url must be"),
            ("", false, "url is required"),
        ] {
            let told = told(true, |config| {
                config.url = url.to_owned();
                config.allow_plaintext = plaintext;
            });
            assert!(told.starts_with(expected), "{url}: {told}");
            assert_eq!(told.is_empty(), expected.is_empty(), "{url}: {told}");
            assert!(!told.contains("CANARY"), "{told}");
        }
        assert_eq!(told(false, |config| config.url.clear()), "");
        assert!(told(false, |_| ()).starts_with("url is not used"));
    }

    #[test]
    fn what_cannot_be_sent_is_said_and_not_shown() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 14] = [
            (|c| c.body = "CANARY".to_owned(), "body is not JSON"),
            (
                |c| c.body = r#"{"a":"{CANARY}"}"#.to_owned(),
                "body has a word",
            ),
            (
                |c| c.body = format!("\"{}\"", "x".repeat(4096)),
                "body is longer",
            ),
            (
                |c| (c.body_type, c.body) = (BodyType::Form, "a=CANARY b".to_owned()),
                "body is no form",
            ),
            (
                |c| c.headers = [("x-api-key", "CANARY")].into(),
                "headers have one that is named like a secret",
            ),
            (
                |c| c.headers = [("Authorization", "CANARY")].into(),
                "headers have one that is named like",
            ),
            (
                |c| c.headers = [("host", "CANARY")].into(),
                "headers have a name",
            ),
            (
                |c| c.headers = [("a b", "CANARY")].into(),
                "headers have a name",
            ),
            (
                |c| c.headers = [("x-team", "CANARY\n")].into(),
                "headers have a value",
            ),
            (
                |c| c.secret_header = "a: CANARY".to_owned(),
                "secret_header must be",
            ),
            (
                |c| c.secret_header_env = "canary-CANARY".to_owned(),
                "secret_header_env must be",
            ),
            (
                |c| (c.secret_header_env, c.secret_header_file) = ("A".to_owned(), "CANARY".into()),
                "secret_header_file and secret_header_env",
            ),
            (|c| c.pointer = "CANARY".to_owned(), "pointer must be"),
            (|c| c.pointer = "/~2".to_owned(), "pointer must be"),
        ];
        for (change, expected) in cases {
            let told = told(true, change);
            assert!(told.starts_with(expected), "{expected}: {told}");
            assert!(!told.contains("CANARY"), "{told}");
        }
        assert_eq!(
            told(true, |c| c.headers = [("x-team", "contacts")].into()),
            ""
        );
        assert_eq!(
            told(true, |c| (c.body_type, c.body) =
                (BodyType::Form, "id={client_id}&x=y".to_owned())),
            ""
        );
    }

    #[test]
    fn debug_shows_nothing_of_what_is_sent() {
        let config = Config {
            url: "https://x/?CANARY".to_owned(),
            body: "CANARY".to_owned(),
            headers: [("CANARY", "CANARY")].into(),
            ..Config::default()
        };
        assert!(!format!("{config:?}").contains("CANARY"));
    }
}
