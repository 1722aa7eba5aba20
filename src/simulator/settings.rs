//! What a simulator is told when it starts. [`Settings::default`] is one account with one stream of 1,000 contacts, on a free port.

mod account;

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use super::{
    auth::SecretError,
    calls::RateLimit,
    change::{Change, Churn},
    clock::{self, CLOCK_OFFSET_MAX},
    plan::Rule,
};

pub use account::{AccountSettings, Content, StreamSettings};

/// The id of the account that [`Settings::default`] plays.
pub const DEMO_ACCOUNT_ID: &str = "65f7d49a5dd06e2cefa00000";
/// The id of its stream.
pub const DEMO_STREAM_ID: &str = "st-7dc994f0-4436-5134-9fa8-000000000000";
/// How many contacts that stream has.
pub const DEMO_CONTACTS: u64 = 1_000;

/// No page holds more records than this, whatever the other settings say: a page is built in memory.
pub const LIMIT_HARD_MAX: u64 = 10_000;

/// Everything a simulator is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The accounts that exist; at least one, their ids unique.
    pub accounts: Vec<AccountSettings>,
    /// Which query parameters mean something.
    pub paging: Paging,
    /// The `limit` of a call that names none; 1 to 10,000 records. Kore.ai: 10.
    pub limit_default: u32,
    /// What happens to a `limit` that is too large. Not documented.
    pub limit_max: LimitMax,
    /// Calls a minute for each account; `None` counts them and refuses none.
    pub rate_limit: Option<RateLimit>,
    /// How long every answer takes; 0 s to 1 h.
    pub latency: Duration,
    /// Up to so much is added to `latency`, evenly spread; 0 s to 1 h.
    pub jitter: Duration,
    /// So many seconds is the simulator's clock ahead, or behind if negative; to a year. It is what the header `Date` says, and
    /// what `exp` is compared with.
    pub clock_offset: i64,
    /// What jitter, shares of calls and changes at random are drawn from: the same seed, the same run.
    pub seed: u64,
    /// Indent the JSON by four spaces, as the documentation prints it.
    pub pretty: bool,
    /// Faults from the start.
    pub faults: Vec<Rule>,
    /// Changes at random before the calls of each listed stream of contacts.
    pub churn: Option<Churn>,
    /// Changes of each listed stream of contacts just before one of its calls, counted from 1.
    pub changes: Vec<(u64, Change)>,
    /// Requests remembered for [`requests`](super::Simulator::requests); 0 to 100,000. 0 costs nothing.
    pub requests_max: usize,
    /// Connections open at once; 1 to 100,000. More wait to be accepted.
    pub connections_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            accounts: vec![AccountSettings::demo()],
            paging: Paging::SkipLimit,
            limit_default: 10,
            limit_max: LimitMax::Clamp(100),
            rate_limit: Some(RateLimit::default()),
            latency: Duration::ZERO,
            jitter: Duration::ZERO,
            clock_offset: 0,
            seed: 0,
            pretty: false,
            faults: Vec::new(),
            churn: None,
            changes: Vec::new(),
            requests_max: 256,
            connections_max: 4_096,
        }
    }
}

/// Which query parameters mean something. Those of the other style are ignored, as unknown ones are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Paging {
    /// `skip` and `limit`.
    #[default]
    SkipLimit,
    /// `page`, counted from 1, and `limit`.
    PageLimit,
    /// Both; `skip` wins over `page`.
    Either,
}

/// What happens to a `limit` that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitMax {
    /// It is obeyed, to [`LIMIT_HARD_MAX`].
    Unlimited,
    /// So many records are given, and that is the `limit` echoed.
    Clamp(u32),
    /// The call is answered 400.
    Refuse(u32),
}

/// Settings that no simulator can be started with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    #[error("a simulator needs at least one account")]
    NoAccount,
    #[error("`{0}` cannot be an id: 1 to 128 of A-Z, a-z, 0-9, _ and -")]
    BadId(String),
    #[error("the id `{0}` is there twice")]
    Repeated(String),
    #[error("account `{0}` needs a client id and a client secret")]
    NoCredential(String),
    #[error("account `{account}`: {error}")]
    Secret { account: String, error: SecretError },
    #[error("the clock may be set off by {CLOCK_OFFSET_MAX} seconds at most, either way, not {0}")]
    ClockOffset(i64),
    #[error("stream `{0}` has no body to serve")]
    NoBody(String),
    #[error("{name} is {value}, and may be {min} to {max}")]
    OutOfRange {
        name: &'static str,
        value: u64,
        min: u64,
        max: u64,
    },
}

impl Settings {
    /// The first thing that is wrong with these settings.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let limit_max = match self.limit_max {
            LimitMax::Unlimited => LIMIT_HARD_MAX,
            LimitMax::Clamp(max) | LimitMax::Refuse(max) => max.into(),
        };
        let per_minute = self.rate_limit.map_or(1, |limit| limit.per_minute);
        within(
            "limit_default",
            self.limit_default.into(),
            1,
            LIMIT_HARD_MAX,
        )?;
        within("limit_max", limit_max, 1, LIMIT_HARD_MAX)?;
        within("calls per minute", per_minute.into(), 1, 60_000)?;
        within("latency in seconds", self.latency.as_secs(), 0, 3_600)?;
        within("jitter in seconds", self.jitter.as_secs(), 0, 3_600)?;
        clock::check(self.clock_offset)?;
        within("requests_max", self.requests_max as u64, 0, 100_000)?;
        within("connections_max", self.connections_max as u64, 1, 100_000)?;

        if self.accounts.is_empty() {
            return Err(SettingsError::NoAccount);
        }
        unique(self.accounts.iter().map(|account| &account.account_id))?;
        self.accounts.iter().try_for_each(AccountSettings::check)
    }
}

fn unique<'a>(ids: impl Iterator<Item = &'a String>) -> Result<(), SettingsError> {
    let mut seen = HashSet::new();
    for id in ids {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if id.is_empty() || id.len() > 128 || !id.bytes().all(plain) {
            return Err(SettingsError::BadId(id.clone()));
        }
        if !seen.insert(id) {
            return Err(SettingsError::Repeated(id.clone()));
        }
    }
    Ok(())
}

fn within(name: &'static str, value: u64, min: u64, max: u64) -> Result<(), SettingsError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(SettingsError::OutOfRange {
            name,
            value,
            min,
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_can_be_started_and_numbered_accounts_differ() {
        assert_eq!(Settings::default().check(), Ok(()));
        let (one, two) = (AccountSettings::numbered(1), AccountSettings::numbered(2));
        assert_ne!(one.account_id, two.account_id);
        assert_ne!(one.client_id, two.client_id);
        assert_eq!(one.account_id.len(), 24);
    }

    #[test]
    fn what_cannot_work_is_named() {
        let with = |account: AccountSettings| {
            Settings {
                accounts: vec![account],
                ..Settings::default()
            }
            .check()
        };
        let account = || AccountSettings::numbered(1);
        assert_eq!(
            with(account().stream("a b", 1)),
            Err(SettingsError::BadId("a b".into()))
        );
        assert_eq!(
            with(account().stream("a", 1).stream("a", 2)),
            Err(SettingsError::Repeated("a".into()))
        );
        assert_eq!(
            with(account().fixed("a", vec![])),
            Err(SettingsError::NoBody("a".into()))
        );
        assert!(matches!(
            with(account().stream("a", 1_000_001)),
            Err(SettingsError::OutOfRange { .. })
        ));
        assert_eq!(
            with(AccountSettings::new("a", "", "s")),
            Err(SettingsError::NoCredential("a".into()))
        );
        let late = |clock_offset| Settings {
            clock_offset,
            ..Settings::default()
        };
        assert_eq!(late(-CLOCK_OFFSET_MAX).check(), Ok(()));
        assert_eq!(
            late(-CLOCK_OFFSET_MAX - 1).check(),
            Err(SettingsError::ClockOffset(-CLOCK_OFFSET_MAX - 1))
        );
        let nobody = Settings {
            accounts: vec![],
            ..Settings::default()
        };
        assert_eq!(nobody.check(), Err(SettingsError::NoAccount));
    }
}
