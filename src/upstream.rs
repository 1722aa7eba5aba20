//! Speaks HTTP to Kore.ai. Above it a page is a window of a collection; below it, a signed request.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use bytesize::ByteSize;
use http_body_util::Empty;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{config::Rules, contacts::collection::Collection};

pub mod advice;
mod body;
pub mod breaker;
pub mod budget;
pub mod client;
mod encrypted;
pub mod fetch;
mod refusal;
pub mod retry;
pub mod secret;
pub mod token;
pub mod witness;

/// One request to upstream for a page of a collection, not yet signed.
#[derive(Debug)]
pub struct Attempt {
    pub collection: Arc<Collection>,
    pub request: http::Request<Empty<Bytes>>,
    /// Told when it is signed and goes: from then on upstream's time runs. Dropped means the same.
    pub began: oneshot::Sender<()>,
}

/// `[upstream]`: Kore.ai, as this gateway reaches it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Scheme, host and port; no path. `http` only with `allow_plaintext`.
    pub base_url: String,
    /// Accept an `http` base URL. Tokens and contacts then travel in the clear.
    pub allow_plaintext: bool,
    /// How pages are asked for.
    pub paging: Paging,
    /// What becomes of records that say that they are another account's or stream's.
    pub tenant_check: TenantCheck,
    /// To a connection: its name, TCP and TLS together; 10 ms to 1 min.
    #[serde(with = "crate::config::duration")]
    pub connect_timeout: Duration,
    /// From an attempt's beginning, connecting included, to the response's head; 10 ms to 5 min.
    #[serde(with = "crate::config::duration")]
    pub first_byte_timeout: Duration,
    /// Between two pieces of a body; 10 ms to 5 min.
    #[serde(with = "crate::config::duration")]
    pub between_bytes_timeout: Duration,
    /// One page from dispatch to its last byte; 10 ms to 10 min.
    #[serde(with = "crate::config::duration")]
    pub page_timeout: Duration,
    /// The largest body of a page that is read; 1 KiB to 256 MiB.
    #[serde(serialize_with = "crate::config::size::serialize")]
    pub page_bytes_max: ByteSize,
    /// Calls at once, all accounts together, and so connections in use; 1 to 10,000. Others wait.
    pub calls_max: usize,
    /// Idle connections kept for each collection; 0 to 1,000.
    pub idle_connections_max: usize,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        if let Err(message) = self.check_base_url() {
            rules.broken(&["base_url", "allow_plaintext"], message.to_owned());
        }
        let at_least = Duration::from_millis(10);
        rules.range(
            "connect_timeout",
            self.connect_timeout,
            at_least..=Duration::from_secs(60),
        );
        rules.range(
            "first_byte_timeout",
            self.first_byte_timeout,
            at_least..=Duration::from_secs(5 * 60),
        );
        rules.range(
            "between_bytes_timeout",
            self.between_bytes_timeout,
            at_least..=Duration::from_secs(5 * 60),
        );
        rules.range(
            "page_timeout",
            self.page_timeout,
            at_least..=Duration::from_secs(10 * 60),
        );
        rules.range(
            "page_bytes_max",
            self.page_bytes_max,
            ByteSize::kib(1)..=ByteSize::mib(256),
        );
        rules.range("calls_max", self.calls_max, 1..=10_000);
        rules.range("idle_connections_max", self.idle_connections_max, 0..=1000);
    }

    /// The URL is never part of the message: somebody may have written a password into it.
    fn check_base_url(&self) -> Result<(), &'static str> {
        const WANTED: &str =
            "must be a scheme, a host and perhaps a port, as in \"https://platform.kore.ai\"";
        let (scheme, authority) = self.base_url.split_once("://").ok_or(WANTED)?;
        if authority.contains('@') {
            return Err("must have no user name or password in it");
        }
        if authority.contains(['/', '?', '#']) {
            return Err("must end with the host or port: no path, not even a slash, and no query");
        }
        let authority: http::uri::Authority = authority.parse().map_err(|_| WANTED)?;
        let port = authority.as_str().len() > authority.host().len();
        if authority.host().is_empty()
            || (port && authority.port_u16().is_none_or(|port| port == 0))
        {
            return Err(WANTED);
        }
        match (scheme, self.allow_plaintext) {
            ("https", _) | ("http", true) => Ok(()),
            ("http", false) => Err(
                "is http, which sends tokens and contacts in the clear: use https, or set allow_plaintext = true",
            ),
            _ => Err("must begin with https:// (or http://, with allow_plaintext = true)"),
        }
    }
}

/// How upstream wants a page named. Not documented for this endpoint, so a setting.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Paging {
    /// `?skip=N&limit=N`
    #[default]
    SkipLimit,
    /// `?page=N&limit=N`, pages counted from 1.
    PageLimit,
}

/// What becomes of an answer with records whose `accountId` or `instanceBotId` is not the one asked for. That upstream
/// always writes them as they are asked for is not documented, so it is watched before it is relied on.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum TenantCheck {
    /// It is answered like any other; counted and logged.
    #[default]
    Observe,
    /// It is an error, and copies of what was asked for are given up.
    Reject,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: "https://platform.kore.ai".to_owned(),
            allow_plaintext: false,
            paging: Paging::SkipLimit,
            tenant_check: TenantCheck::Observe,
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(10),
            between_bytes_timeout: Duration::from_secs(5),
            page_timeout: Duration::from_secs(20),
            page_bytes_max: ByteSize::mib(8),
            calls_max: 64,
            idle_connections_max: 8,
        }
    }
}
