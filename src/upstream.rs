use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

pub mod secret;
pub mod token;

/// `[upstream]`: Kore.ai, as this gateway reaches it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Scheme, host and port; no path. `http` only with `allow_plaintext`.
    pub base_url: String,
    /// Accept an `http` base URL. Tokens and contacts then travel in the clear.
    pub allow_plaintext: bool,
    /// How pages are asked for.
    pub paging: Paging,
    /// TCP connect; 10 ms to 1 min.
    #[serde(with = "crate::config::duration")]
    pub connect_timeout: Duration,
    /// From a request sent to the response's head; 10 ms to 5 min.
    #[serde(with = "crate::config::duration")]
    pub first_byte_timeout: Duration,
    /// Between two pieces of a body; 10 ms to 5 min.
    #[serde(with = "crate::config::duration")]
    pub between_bytes_timeout: Duration,
    /// One page from dispatch to its last byte; 10 ms to 10 min.
    #[serde(with = "crate::config::duration")]
    pub page_timeout: Duration,
    /// The largest body of a page that is read; 1 KiB to 256 MiB.
    pub page_bytes_max: ByteSize,
    /// Idle connections kept; 0 to 1,000.
    pub idle_connections_max: usize,
}

/// How upstream wants a page named. Not documented for this endpoint, so a setting.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Paging {
    /// `?skip=N&limit=N`
    #[default]
    SkipLimit,
    /// `?page=N&limit=N`, pages counted from 1.
    PageLimit,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            base_url: "https://platform.kore.ai".to_owned(),
            allow_plaintext: false,
            paging: Paging::SkipLimit,
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(10),
            between_bytes_timeout: Duration::from_secs(5),
            page_timeout: Duration::from_secs(20),
            page_bytes_max: ByteSize::mib(8),
            idle_connections_max: 32,
        }
    }
}
