//! The credential of one account: its secrets, the token that its calls share, and what upstream's refusals came to.
//!
//! What follows from what is decided by [`refusals`](super::refusals) and [`keyring`](super::keyring), both pure. Here
//! they get a lock, a clock and a log.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{sync, time::Instant};
use tracing::{info, warn};

use super::{
    Condition, Standing, Tokens,
    keyring::{Keyring, Slot},
    metrics::{AccountMetrics, Health},
    refusals::{Refusals, Resting, Verdict},
    service::{Backoff, TokenService},
    sign::Signer,
    words::Reason,
};
use crate::{
    contacts::{
        account::{Account, Claims, Jti},
        ids::StreamId,
        request::CallerName,
    },
    error::{Again, Error, Kind, Result},
};

mod mint;

pub(super) use mint::Token;

/// When the two clocks differ by more than this from one call to the next, the wall's was set.
const JUMP: Duration = Duration::from_secs(30);

/// A moment by both clocks: the wall's, which upstream compares with its own, and the one that only goes forwards.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: SystemTime,
    pub(super) steady: Instant,
}

/// What signs for one account.
#[derive(Debug)]
pub(super) struct Credential {
    account: Arc<Account>,
    settings: Settings,
    state: Mutex<State>,
    /// Held while the token for everybody is minted.
    minting: Arc<sync::Mutex<()>>,
    metrics: AccountMetrics,
}

/// What the configuration says of it.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) lifetime: Duration,
    pub(super) backdate: Duration,
    /// Where tokens come from instead of the keyring, which then stays empty.
    pub(super) service: Option<Arc<TokenService>>,
    pub(super) jti: Jti,
    pub(super) claims: Claims,
    /// From 0 to 1: keeps a thousand accounts from minting together.
    pub(super) chance: fn() -> f64,
}

#[derive(Debug)]
struct State {
    keyring: Keyring,
    refusals: Refusals,
    /// The token that calls share.
    token: Option<Token>,
    /// What the token service has failed at.
    backoff: Backoff,
    /// Whether each call gets a token of its own.
    once: bool,
    /// Why the last token that upstream judged was refused, if it was.
    refused: Option<Reason>,
    health: Health,
    /// Its account is not configured any more, or has another credential: the metrics are not its own.
    left: bool,
    last: Option<Now>,
}

impl Credential {
    pub(super) fn new(account: Arc<Account>, settings: Settings, metrics: AccountMetrics) -> Self {
        let once = settings.jti == Jti::PerRequest;
        Self::with(account, settings, Keyring::default(), once, metrics)
    }

    /// With other settings, and the same secrets. Also whether tokens are for one call each stays, if that was learned.
    pub(super) fn succeed(&self, settings: Settings, metrics: AccountMetrics) -> Self {
        let state = self.lock();
        let once = match settings.jti {
            Jti::Auto => state.once && self.settings.jti == Jti::Auto,
            Jti::Off => false,
            Jti::PerRequest => true,
        };
        let keyring = state.keyring.clone();
        drop(state);
        let successor = Self::with(self.account.clone(), settings, keyring, once, metrics);
        successor.feel(&mut successor.lock());
        successor
    }

    fn with(
        account: Arc<Account>,
        settings: Settings,
        keyring: Keyring,
        once: bool,
        metrics: AccountMetrics,
    ) -> Self {
        if once {
            metrics.switched();
        }
        let health = match &settings.service {
            Some(_) => {
                metrics.asks();
                Health::Ok
            }
            None => Health::Disabled,
        };
        metrics.became(Health::Ok, health);
        Self {
            account,
            settings,
            state: Mutex::new(State {
                keyring,
                refusals: Refusals::default(),
                token: None,
                backoff: Backoff::default(),
                once,
                refused: None,
                health,
                left: false,
                last: None,
            }),
            minting: Arc::default(),
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A secret now stands in a slot. Returns whether it is another than before.
    pub(super) fn put(&self, slot: Slot, signer: Signer, now: Instant) -> bool {
        let mut state = self.lock();
        let changed = state.keyring.put(slot, signer, now);
        if changed {
            state.refusals.forgive();
            self.feel(&mut state);
        }
        changed
    }

    /// A slot is there no more, and with it what stands nowhere else.
    pub(super) fn vacate(&self, slot: Slot) {
        self.lock().keyring.vacate(slot);
    }

    /// Whether it does what these settings say.
    pub(super) fn is_like(&self, settings: &Settings) -> bool {
        self.settings.jti == settings.jti && self.settings.claims == settings.claims
    }

    /// Whose it is.
    pub(super) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// Nobody counts it any more. Who has it may go on with it.
    pub(super) fn leave(&self) {
        let mut state = self.lock();
        if !state.left {
            state.left = true;
            self.metrics.gone(state.health, state.once);
        }
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.lacks_secret(&self.lock())
    }

    fn lacks_secret(&self, state: &State) -> bool {
        state.keyring.is_empty() && self.settings.service.is_none()
    }

    /// How it is, but for its places.
    pub(super) fn condition(&self) -> Condition {
        let state = self.lock();
        Condition {
            complaints: Vec::new(),
            once: state.once,
            refused: state.refused,
            second: state.keyring.serves_from(Slot::Next),
        }
    }

    /// How it stands, but for its places.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let state = self.lock();
        let (resting, refused) = state.refusals.standing(now);
        Standing {
            disabled: self.lacks_secret(&state),
            complaints: Vec::new(),
            worked: state.refusals.worked(),
            resting: resting.map(|resting| (resting.reason, resting.left)),
            refused: refused
                .map(|(stream, resting)| (stream.clone(), resting.reason, resting.left))
                .collect(),
            tokens: match (&self.settings.service, state.once) {
                (_, true) => Tokens::Once,
                (Some(_), false) => Tokens::Service,
                (None, false) => Tokens::Shared,
            },
            expires: state.token.as_ref().map(|token| token.expires),
        }
    }

    /// How many keys were ever made.
    #[cfg(test)]
    pub(super) fn keys(&self) -> u64 {
        self.lock().keyring.made()
    }

    /// How many keys there are now.
    #[cfg(test)]
    pub(super) fn keys_held(&self) -> usize {
        self.lock().keyring.count()
    }

    /// Whether an attempt for the stream may go, and as which probe. `caller`: who began it, if that is known.
    pub(super) fn admit(
        &self,
        stream: &StreamId,
        caller: Option<&CallerName>,
        now: Now,
    ) -> Result<Option<u64>> {
        let mut state = self.lock();
        self.look(&mut state, now);
        if self.lacks_secret(&state) {
            return Err(disabled());
        }
        let admitted = state.refusals.admit(stream, caller, now.steady);
        admitted.map_err(|resting| told(resting).unsent())
    }

    /// A probe has ended, whatever came of it.
    pub(super) fn release(&self, stream: &StreamId, probe: u64, now: Instant) {
        self.lock().refusals.release(stream, probe, now);
    }

    /// Upstream took the token, and gave the stream.
    pub(super) fn accepted(&self, stream: &StreamId, token: &Token) {
        let mut state = self.lock();
        if state.keyring.worked(token.key, token.trial) {
            info!(
                account = &*self.account.name,
                "another secret of the account is in use, and works"
            );
        }
        state.refusals.read(stream);
        state.refused = None;
        self.feel(&mut state);
    }

    /// Upstream refused the token. Returns what the attempt ends with.
    pub(super) fn refused(
        &self,
        stream: &StreamId,
        token: &Token,
        reason: Reason,
        now: Instant,
    ) -> Error {
        self.metrics.refused(reason);
        let mut state = self.lock();
        state.refused = Some(reason);
        let again = Error::new(Kind::UpstreamAuthRejected, reason.detail())
            .because(reason.word())
            .again_by(Again::Resigned);
        let about_jti = matches!(reason, Reason::Jti | Reason::Replay | Reason::Lifetime);
        if about_jti && !token.once && self.settings.jti != Jti::Off {
            if !state.once {
                state.once = true;
                if !state.left {
                    self.metrics.switched();
                }
                info!(
                    account = &*self.account.name,
                    reason = reason.word(),
                    "upstream wants a jti in this account's tokens: from now on each call gets a token of its own"
                );
            }
            return again;
        }
        if token.trial {
            state.keyring.failed(token.key, now);
            warn!(
                account = &*self.account.name,
                "upstream refused the account's other secret; it is tried again"
            );
            return again;
        }
        let known = state.refusals.knows(stream);
        let curable = reason.is_curable() && !(about_jti && self.settings.jti == Jti::Off);
        let verdict = state
            .refusals
            .refused(stream, token.generation, (reason, curable), now);
        let suspect = known || !state.keyring.has_worked();
        match verdict {
            // Not to be tried again with the same secret, if there is another.
            Verdict::Again | Verdict::Renewed => {
                if suspect {
                    state.keyring.renounce(token.key, now);
                }
                again
            }
            Verdict::Rests(resting) => {
                if suspect && !state.keyring.has_worked() {
                    state.keyring.renounce(token.key, now);
                }
                warn!(
                    account = &*self.account.name,
                    stream = &*self.account.stream_name(stream),
                    reason = reason.word(),
                    whole = resting.whole,
                    rest = ?resting.left,
                    "upstream refused a new token as well"
                );
                self.feel(&mut state);
                told(resting)
            }
        }
    }

    /// A wall clock that was set makes all that was refused worth another try, and every token doubtful.
    fn look(&self, state: &mut State, now: Now) {
        if let Some(last) = state.last {
            let steady = now.steady.saturating_duration_since(last.steady);
            let expected = last.wall + steady;
            let off = match now.wall.duration_since(expected) {
                Ok(ahead) => ahead,
                Err(behind) => behind.duration(),
            };
            if off > JUMP {
                info!(
                    account = &*self.account.name,
                    ?off,
                    "the clock was set: tokens are signed anew"
                );
                state.token = None;
                state.refusals.forgive();
                self.feel(state);
            }
        }
        state.last = Some(now);
    }

    /// Tells the metrics how the credential is.
    fn feel(&self, state: &mut State) {
        let health = if self.lacks_secret(state) {
            Health::Disabled
        } else if state.refusals.rests() {
            Health::Resting
        } else {
            Health::Ok
        };
        if health != state.health {
            if !state.left {
                self.metrics.became(state.health, health);
            }
            state.health = health;
        }
    }
}

fn disabled() -> Error {
    let detail = "the secret of this account could not be read; the gateway's operator can see why";
    Error::new(Kind::CredentialsUnavailable, detail).unsent()
}

fn told(resting: Resting) -> Error {
    Error::new(Kind::UpstreamAuthRejected, resting.reason.detail())
        .because(format_args!(
            "{}; the {} rests",
            resting.reason.word(),
            if resting.whole {
                "credential"
            } else {
                "stream"
            }
        ))
        .retry_after(resting.left)
}

#[cfg(test)]
mod tests;
