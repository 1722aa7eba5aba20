//! How an attempt comes by its token: shared by all while it is young, replaced by whoever comes first when it is old, and
//! waited for only when none is left. Where a `jti` is wanted, and for a secret on trial, it is an attempt's own.
//!
//! It is signed with a key, or asked for from the token service. What was asked for is waited for by whoever has nothing
//! else, and is kept also if nobody waits any more.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::HeaderValue;
use tokio::{sync::OwnedMutexGuard, time::Instant};
use tracing::warn;

use super::{Credential, Now, disabled};
use crate::{
    contacts::ids::StreamId,
    error::{Error, Kind, Result},
    upstream::token::{
        keyring::Chosen,
        service::{Failure, TokenService},
        sign::Order,
    },
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
    /// When upstream takes it no longer.
    pub(super) expires: SystemTime,
    /// From here on it is replaced by whoever comes first.
    pub(super) old: SystemTime,
    /// From here on it is not sent.
    dead: SystemTime,
}

/// What makes a token.
#[derive(Clone)]
enum Mint {
    Key(Chosen),
    Service(Arc<TokenService>),
}

/// What is to be done for a token.
enum Plan {
    Use(Token),
    /// Good still, but not for long.
    Replace(Token, Mint, u64),
    /// For everybody, and everybody waits.
    Share(Mint, u64),
    /// For this attempt alone.
    Own(Mint, u64),
}

impl Mint {
    /// The key's number. No key has that of the service.
    fn number(&self) -> u64 {
        match self {
            Self::Key(key) => key.number,
            Self::Service(_) => 0,
        }
    }
}

impl Credential {
    /// Whether its tokens have to be asked for, which may take its time.
    pub(in crate::upstream::token) fn asks(&self) -> bool {
        self.settings.service.is_some()
    }

    /// Sees to it that there is a token to share, if one can be shared.
    pub(in crate::upstream::token) async fn prepare(
        self: &Arc<Self>,
        stream: &StreamId,
        clock: fn() -> SystemTime,
    ) -> Result<()> {
        match self.plan(stream, moment(clock))? {
            Plan::Own(..) => Ok(()),
            _ => self.token(stream, clock).await.map(drop),
        }
    }

    /// A token for one attempt.
    pub(in crate::upstream::token) async fn token(
        self: &Arc<Self>,
        stream: &StreamId,
        clock: fn() -> SystemTime,
    ) -> Result<Token> {
        match self.plan(stream, moment(clock))? {
            Plan::Use(token) => Ok(token),
            Plan::Own(mint, generation) => self.mint(&mint, generation, true, clock).await,
            Plan::Replace(token, mint, generation) => {
                let Ok(minting) = self.minting.clone().try_lock_owned() else {
                    return Ok(token);
                };
                let shared = self.clone().share(mint, generation, clock, minting);
                if self.asks() {
                    tokio::spawn(shared);
                    return Ok(token);
                }
                shared.await.or(Ok(token))
            }
            Plan::Share(..) => {
                let minting = self.minting.clone().lock_owned().await;
                // Most likely somebody has minted meanwhile.
                match self.plan(stream, moment(clock))? {
                    Plan::Use(token) | Plan::Replace(token, ..) => Ok(token),
                    Plan::Own(mint, generation) => {
                        drop(minting);
                        self.mint(&mint, generation, true, clock).await
                    }
                    Plan::Share(mint, generation) => {
                        let shared = self.clone().share(mint, generation, clock, minting);
                        if !self.asks() {
                            return shared.await;
                        }
                        // On its own: who waits longest may leave, and the others need not begin anew.
                        tokio::spawn(shared).await.unwrap_or_else(|error| {
                            let detail = "no token could be asked for";
                            Err(Error::new(Kind::Internal, detail).because(error).unsent())
                        })
                    }
                }
            }
        }
    }

    fn plan(&self, stream: &StreamId, now: Now) -> Result<Plan> {
        let mut state = self.lock();
        self.look(&mut state, now);
        let generation = state.refusals.generation();
        let mint = match &self.settings.service {
            Some(service) => Mint::Service(service.clone()),
            None => {
                // A stranger's refusal says nothing about a secret.
                let trial = state.refusals.knows(stream) || !state.refusals.worked();
                let key = state.keyring.choose(trial, now.steady);
                Mint::Key(key.ok_or_else(disabled)?)
            }
        };
        let rest = self
            .asks()
            .then(|| state.backoff.left(now.steady))
            .flatten();
        let unless_it_rests = |plan| match rest {
            Some((failure, left)) => Err(unavailable(failure, left)),
            None => Ok(plan),
        };
        let trial = matches!(&mint, Mint::Key(key) if key.trial);
        if trial || state.once {
            return unless_it_rests(Plan::Own(mint, generation));
        }
        let usable = |token: &&Token| {
            (token.generation, token.key) == (generation, mint.number())
                && (token.minted..token.dead).contains(&now.wall)
        };
        match state.token.as_ref().filter(usable) {
            Some(token) if now.wall < token.old || rest.is_some() => Ok(Plan::Use(token.clone())),
            Some(token) => Ok(Plan::Replace(token.clone(), mint, generation)),
            None => unless_it_rests(Plan::Share(mint, generation)),
        }
    }

    /// Mints the token for everybody.
    async fn share(
        self: Arc<Self>,
        mint: Mint,
        generation: u64,
        clock: fn() -> SystemTime,
        _minting: OwnedMutexGuard<()>,
    ) -> Result<Token> {
        let token = self.mint(&mint, generation, false, clock).await?;
        self.lock().token = Some(token.clone());
        Ok(token)
    }

    async fn mint(
        &self,
        mint: &Mint,
        generation: u64,
        own: bool,
        clock: fn() -> SystemTime,
    ) -> Result<Token> {
        let (header, minted, expires) = match mint {
            Mint::Key(key) => self.sign(key, own, clock())?,
            Mint::Service(service) => self.ask(service, clock).await?,
        };
        let life = expires.duration_since(minted).unwrap_or_default();
        let share = 0.5 - 0.1 * (self.settings.chance)();
        Ok(Token {
            header,
            generation,
            key: mint.number(),
            trial: matches!(mint, Mint::Key(key) if key.trial),
            once: own && self.lock().once,
            minted,
            expires,
            old: minted + life.mul_f64(share),
            dead: expires - margin(life),
        })
    }

    /// Signs a token: what is sent, and its beginning and end.
    fn sign(
        &self,
        key: &Chosen,
        own: bool,
        now: SystemTime,
    ) -> Result<(HeaderValue, SystemTime, SystemTime)> {
        let unsigned = |cause: &dyn std::fmt::Display| {
            Error::new(Kind::Internal, "no token could be signed")
                .because(cause)
                .unsent()
        };
        let order = Order {
            app: self.account.client.as_str(),
            issued: now.checked_sub(self.settings.backdate).unwrap_or(now),
            expires: now + self.settings.lifetime,
            once: own && self.lock().once,
            claims: &self.settings.claims,
        };
        let token = key.signer.sign(order).map_err(|error| unsigned(&error))?;
        let mut header =
            HeaderValue::try_from(token).map_err(|_| unsigned(&"not a header value"))?;
        header.set_sensitive(true);
        self.metrics.minted(order.expires);
        Ok((header, now, order.expires))
    }

    /// Asks the service for a token; in vain, and it is left alone for a while.
    async fn ask(
        &self,
        service: &TokenService,
        clock: fn() -> SystemTime,
    ) -> Result<(HeaderValue, SystemTime, SystemTime)> {
        let asked = service.ask(&self.account, clock).await;
        let now = Instant::now();
        let mut state = self.lock();
        match asked {
            Ok(issued) => {
                state.backoff.worked();
                self.metrics.asked(Ok(issued.expires));
                Ok((issued.header, issued.issued, issued.expires))
            }
            Err(failed) => {
                let failure = failed.failure;
                self.metrics.asked(Err(failure));
                let first = state.backoff.failed(failure, now);
                let rest = state
                    .backoff
                    .left(now)
                    .map_or(Duration::ZERO, |(_, left)| left);
                if first {
                    warn!(
                        account = &*self.account.name,
                        outcome = failure.word(),
                        cause = failed.cause,
                        ?rest,
                        "the token service gave no token"
                    );
                }
                Err(unavailable(failure, rest).because(failed.cause))
            }
        }
    }
}

fn moment(clock: fn() -> SystemTime) -> Now {
    Now {
        wall: clock(),
        steady: Instant::now(),
    }
}

fn unavailable(failure: Failure, left: Duration) -> Error {
    Error::new(Kind::TokenServiceUnavailable, failure.detail())
        .because(failure.word())
        .retry_after(left)
        .unsent()
}

/// How long before its end a token is no longer sent: it must arrive, too.
fn margin(lifetime: Duration) -> Duration {
    (lifetime / 10).min(Duration::from_secs(30))
}
