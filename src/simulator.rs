//! Plays Kore.ai, for whom there is no test account: for `demo`, for tests, for benchmarks, and by itself as a command.
//!
//! ```text
//! socket (server) ─┬─> control     /_simulator/...: set faults, read counts
//!                  └─> kore        one request, one answer
//!                        ├─ auth       the JWT, its app's secrets, and the answers to wrong ones
//!                        ├─ clock      what `Date` says and tokens expire by
//!                        ├─ calls      the account's calls a minute, and the count of everything
//!                        ├─ plan       which faults fall on this call (fault: what can be wrong)
//!                        ├─ stream     its records as they stand, and changes between two calls (records: their order)
//!                        ├─ page       the window that is meant, and the envelope (contacts: each record, computed)
//!                        └─ answer     status, headers and body, as the faults leave them
//!             wire   in place of HTTP, where a fault needs the socket (script: what it then does)
//! ```
//!
//! What is not documented about Kore.ai is a setting here, or a choice that its module admits to. In a test:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use contacts_gateway::simulator::{DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Settings, Simulator};
//!
//! let kore = Simulator::start(Settings::default()).await?;
//! kore.fault_next(1, "status=503".parse()?);
//! kore.stream(DEMO_ACCOUNT_ID, DEMO_STREAM_ID).before_call(2, "delete=0".parse()?)?;
//! // ... call kore.base_url() ...
//! assert_eq!(kore.calls(DEMO_ACCOUNT_ID).total, 0);
//! kore.stop().await;
//! # Ok(()) }
//! ```

mod answer;
mod auth;
mod body;
mod calls;
mod change;
mod clock;
mod contacts;
mod control;
mod fault;
mod gzip;
mod indent;
mod kore;
mod noise;
mod page;
mod plan;
mod records;
mod requests;
mod script;
mod server;
mod settings;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use secrecy::SecretString;
use tokio::net::TcpListener;

#[cfg(test)]
pub(crate) use auth::tests::rsa_key;
pub use auth::{Algorithm, Denial, SECRETS_MAX, SecretError};
pub use calls::{Counts, RateLimit, Window};
pub use change::{CHURN_MAX, Change, ChangeError, ChangeKind, Churn};
pub use clock::CLOCK_OFFSET_MAX;
pub(crate) use clock::parse_clock_offset;
pub use contacts::{CONTACTS_MAX, Contacts, contact};
pub use control::fault_guide;
pub use fault::{Claim, Fault, ParseFaultError};
pub use plan::{RULES_MAX, Rule, RuleError};
pub use requests::SeenRequest;
pub use settings::{
    AccountSettings, Content, DEMO_ACCOUNT_ID, DEMO_CONTACTS, DEMO_STREAM_ID, LIMIT_HARD_MAX,
    LimitMax, Paging, Settings, SettingsError, StreamSettings,
};
pub use stream::{LiveStream, SCHEDULED_MAX};

use kore::Kore;
use server::Tasks;

/// A running simulator. It ends when it is dropped.
pub struct Simulator {
    addr: SocketAddr,
    kore: Arc<Kore>,
    tasks: Tasks,
}

/// Why a simulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Rule(#[from] RuleError),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error("the simulator cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
}

impl Simulator {
    /// Starts one on the current runtime. It accepts connections when this returns.
    pub async fn start(settings: Settings) -> Result<Self, StartError> {
        settings.check()?;
        let address = settings.listen;
        let listen = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;

        let faults = settings.faults.clone();
        let kore = Arc::new(Kore::new(settings)?);
        faults
            .into_iter()
            .try_for_each(|rule| kore.plan().add(rule))?;
        for (_, _, stream) in kore.live_streams() {
            let settings = kore.settings();
            stream.churn(settings.churn.clone());
            for (call, change) in &settings.changes {
                stream.before_call(*call, *change)?;
            }
        }
        let tasks = Tasks::default();
        server::serve(listener, Arc::clone(&kore), &tasks);
        Ok(Self { addr, kore, tasks })
    }

    /// What it was told, for whoever configures a gateway to match.
    pub fn settings(&self) -> &Settings {
        self.kore.settings()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Scheme, host and port, without a slash at the end.
    pub fn base_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// A token that opens an account for so long from now, by the simulator's clock. Where a `jti` is enforced, it opens once,
    /// and if `lifetime` is an hour or less.
    ///
    /// # Panics
    ///
    /// Panics if the simulator has no such account, or none of its secrets can sign.
    #[track_caller]
    pub fn token(&self, account_id: &str, lifetime: Duration) -> String {
        let token = self.mint(account_id, lifetime);
        token.unwrap_or_else(|| panic!("no secret of `{account_id}` can sign"))
    }

    /// The same, or `None` if none of the account's secrets can sign: they are public keys, or revoked.
    #[track_caller]
    pub(crate) fn mint(&self, account_id: &str, lifetime: Duration) -> Option<String> {
        let app = &self.account(account_id).credential;
        app.mint(self.kore.clock().now(), lifetime)
    }

    /// One more secret opens an account, with those that do already.
    ///
    /// # Errors
    ///
    /// If it cannot be one, or there would be more than [`SECRETS_MAX`].
    ///
    /// # Panics
    ///
    /// Panics if the simulator has no such account.
    #[track_caller]
    pub fn add_secret(&self, account_id: &str, secret: &str) -> Result<(), SecretError> {
        let app = &self.account(account_id).credential;
        app.add(&SecretString::from(secret))
    }

    /// What this secret signed opens an account no more, from the next call on.
    ///
    /// # Errors
    ///
    /// If the account has no such secret.
    ///
    /// # Panics
    ///
    /// Panics if the simulator has no such account.
    #[track_caller]
    pub fn revoke_secret(&self, account_id: &str, secret: &str) -> Result<(), SecretError> {
        let app = &self.account(account_id).credential;
        app.revoke(&SecretString::from(secret))
    }

    /// How many calls brought a token that each secret of an account signed, the oldest secret first.
    ///
    /// # Panics
    ///
    /// Panics if the simulator has no such account.
    #[track_caller]
    pub fn calls_by_secret(&self, account_id: &str) -> Vec<u64> {
        self.account(account_id).credential.opened()
    }

    #[track_caller]
    fn account(&self, account_id: &str) -> &kore::Account {
        let account = self.kore.account(account_id);
        account.unwrap_or_else(|| panic!("no account `{account_id}` is simulated"))
    }

    /// Sets the simulator's clock so many seconds ahead, or behind if negative, from the next call on.
    ///
    /// # Errors
    ///
    /// If that is more than [`CLOCK_OFFSET_MAX`] either way.
    pub fn set_clock_offset(&self, seconds: i64) -> Result<(), SettingsError> {
        self.kore.clock().set(seconds)
    }

    /// This fault on the next `calls` calls that would have been answered with a page.
    ///
    /// # Panics
    ///
    /// As [`add_faults`](Self::add_faults).
    pub fn fault_next(&self, calls: u64, fault: Fault) {
        self.add_faults(Rule::always(fault).next(calls));
    }

    /// This fault on a share of the calls, 0 to 1, until it is cleared.
    ///
    /// # Panics
    ///
    /// Panics on a share outside that range, and as [`add_faults`](Self::add_faults).
    pub fn fault_share(&self, share: f64, fault: Fault) {
        match Rule::always(fault).share(share) {
            Ok(rule) => self.add_faults(rule),
            Err(error) => panic!("{error}"),
        }
    }

    /// This fault on every call until it is cleared.
    ///
    /// # Panics
    ///
    /// As [`add_faults`](Self::add_faults).
    pub fn fault_always(&self, fault: Fault) {
        self.add_faults(Rule::always(fault));
    }

    /// Faults for the calls that a rule describes. Of several rules, the oldest that falls on a call decides it.
    ///
    /// # Panics
    ///
    /// Panics when more than [`RULES_MAX`] rules would hold.
    pub fn add_faults(&self, rule: Rule) {
        if let Err(error) = self.kore.plan().add(rule) {
            panic!("{error}");
        }
    }

    /// The rules that hold, oldest first; one that is used up is gone.
    pub fn faults(&self) -> Vec<Rule> {
        self.kore.plan().rules()
    }

    /// Heals.
    pub fn clear_faults(&self) {
        self.kore.plan().clear();
    }

    /// The records of a stream as they stand, and changes to them.
    ///
    /// # Panics
    ///
    /// Panics if the simulator has no such stream of contacts; one that exists only because
    /// [`AccountSettings::other_streams`] says so never changes.
    #[track_caller]
    pub fn stream(&self, account_id: &str, stream_id: &str) -> LiveStream<'_> {
        let account = self.kore.account(account_id);
        let stream = account.and_then(|account| account.stream(stream_id));
        stream
            .unwrap_or_else(|| panic!("no contacts `{stream_id}` of `{account_id}` are simulated"))
    }

    /// What an account's calls came to; all zero for an account that is not simulated.
    pub fn calls(&self, account_id: &str) -> Counts {
        self.kore
            .account(account_id)
            .map(kore::Account::counts)
            .unwrap_or_default()
    }

    /// The most calls of an account in any 60 s; counts to 65,536.
    pub fn busiest_minute(&self, account_id: &str) -> u64 {
        self.calls(account_id).busiest_minute
    }

    /// The last requests, oldest first, those for the control interface left out: as many as
    /// [`Settings::requests_max`].
    pub fn requests(&self) -> Vec<SeenRequest> {
        self.kore.requests().all()
    }

    /// Forgets the requests seen so far.
    pub fn clear_requests(&self) {
        self.kore.requests().clear();
    }

    /// Ends it: when this returns, its port is free and its connections are closed.
    pub async fn stop(self) {
        self.tasks.ended.cancel();
        self.tasks.tracker.close();
        self.tasks.tracker.wait().await;
    }
}

impl fmt::Debug for Simulator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulator")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        self.tasks.ended.cancel();
    }
}
