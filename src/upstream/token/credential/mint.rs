//! How an attempt comes by its token: shared by all while it is young, replaced by whoever comes first when it is old, and
//! waited for only when none is left. Where a `jti` is wanted, and for a secret on trial, it is an attempt's own.

use std::time::{Duration, SystemTime};

use http::HeaderValue;
use tokio::time::Instant;

use super::{Credential, Now, disabled};
use crate::{
    contacts::ids::StreamId,
    error::{Error, Kind, Result},
    upstream::token::{Config, keyring::Chosen, sign::Order},
};

/// A token, and what it came from.
#[derive(Clone, Debug)]
pub(in crate::upstream::token) struct Token {
    /// Marked as sensitive, so that its `Debug` shows nothing.
    pub(in crate::upstream::token) header: HeaderValue,
    pub(super) generation: u64,
    pub(super) key: u64,
    pub(super) trial: bool,
    pub(super) once: bool,
    minted: SystemTime,
    /// From here on it is replaced by whoever comes first.
    pub(super) old: SystemTime,
    /// From here on it is not sent.
    dead: SystemTime,
}

/// What is to be done for a token.
enum Plan {
    Use(Token),
    /// Good still, but not for long.
    Replace(Token, Chosen, u64),
    /// For everybody, and everybody waits.
    Mint(Chosen, u64),
    /// For this attempt alone.
    Own(Chosen, u64),
}

impl Credential {
    /// A token for one attempt.
    pub(in crate::upstream::token) async fn token(
        &self,
        stream: &StreamId,
        clock: fn() -> SystemTime,
    ) -> Result<Token> {
        let now = || Now {
            wall: clock(),
            steady: Instant::now(),
        };
        match self.plan(stream, now())? {
            Plan::Use(token) => Ok(token),
            Plan::Own(key, generation) => self.mint(&key, generation, true, now().wall),
            Plan::Replace(token, key, generation) => {
                let Ok(_minting) = self.minting.try_lock() else {
                    return Ok(token);
                };
                self.share(&key, generation, now().wall).or(Ok(token))
            }
            Plan::Mint(..) => {
                let _minting = self.minting.lock().await;
                // Most likely somebody has minted meanwhile.
                match self.plan(stream, now())? {
                    Plan::Use(token) | Plan::Replace(token, ..) => Ok(token),
                    Plan::Own(key, generation) => self.mint(&key, generation, true, now().wall),
                    Plan::Mint(key, generation) => self.share(&key, generation, now().wall),
                }
            }
        }
    }

    fn plan(&self, stream: &StreamId, now: Now) -> Result<Plan> {
        let mut state = self.lock();
        self.look(&mut state, now);
        let generation = state.refusals.generation();
        // A stranger's refusal says nothing about a secret.
        let trial = state.refusals.knows(stream) || !state.refusals.worked();
        let Some(key) = state.keyring.choose(trial, now.steady) else {
            return Err(disabled());
        };
        if key.trial || state.once {
            return Ok(Plan::Own(key, generation));
        }
        let usable = |token: &&Token| {
            (token.generation, token.key) == (generation, key.number)
                && (token.minted..token.dead).contains(&now.wall)
        };
        Ok(match state.token.as_ref().filter(usable) {
            Some(token) if now.wall < token.old => Plan::Use(token.clone()),
            Some(token) => Plan::Replace(token.clone(), key, generation),
            None => Plan::Mint(key, generation),
        })
    }

    /// Mints the token for everybody.
    fn share(&self, key: &Chosen, generation: u64, now: SystemTime) -> Result<Token> {
        let token = self.mint(key, generation, false, now)?;
        self.lock().token = Some(token.clone());
        Ok(token)
    }

    fn mint(&self, key: &Chosen, generation: u64, own: bool, now: SystemTime) -> Result<Token> {
        let unsigned = |cause: &dyn std::fmt::Display| {
            Error::new(Kind::Internal, "no token could be signed")
                .because(cause)
                .unsent()
        };
        let Config {
            lifetime, backdate, ..
        } = self.settings.token;
        let once = own && self.lock().once;
        let order = Order {
            app: self.account.client.as_str(),
            issued: now.checked_sub(backdate).unwrap_or(now),
            expires: now + lifetime,
            once,
            claims: &self.settings.claims,
        };
        let token = key.signer.sign(order).map_err(|error| unsigned(&error))?;
        let mut header =
            HeaderValue::try_from(token).map_err(|_| unsigned(&"not a header value"))?;
        header.set_sensitive(true);
        self.metrics.minted(order.expires);
        let share = 0.5 - 0.1 * (self.settings.chance)();
        Ok(Token {
            header,
            generation,
            key: key.number,
            trial: key.trial,
            once,
            minted: now,
            old: now + lifetime.mul_f64(share),
            dead: order.expires - margin(lifetime),
        })
    }
}

/// How long before its end a token is no longer sent: it must arrive, too.
fn margin(lifetime: Duration) -> Duration {
    (lifetime / 10).min(Duration::from_secs(30))
}
