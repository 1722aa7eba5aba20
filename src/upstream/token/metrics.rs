//! What the credentials tell.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{service::Failure, words::Reason};
use crate::{
    contacts::account::Account,
    metrics::{self, Registry},
};

/// Whether an account can be read at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Health {
    Ok,
    /// Upstream refuses the credential; it is tried again now and then.
    Resting,
    /// There is no secret that can be used.
    Disabled,
}

const HEALTHS: [(Health, &str); 3] = [
    (Health::Ok, "ok"),
    (Health::Resting, "resting"),
    (Health::Disabled, "disabled"),
];

/// The outcome of an ask that gave a token.
const OK: &str = "ok";

/// The metrics of all accounts.
#[derive(Clone, Debug)]
pub struct Metrics {
    minted: IntCounterVec,
    asked: IntCounterVec,
    refused: IntCounterVec,
    expires: IntGaugeVec,
    jti: IntGaugeVec,
    health: IntGaugeVec,
}

/// Those of one account. Accounts that share a label share its series, so states are counted and not set.
#[derive(Debug)]
pub(super) struct AccountMetrics {
    minted: IntCounter,
    asked: IntCounterVec,
    refused: IntCounterVec,
    account: Arc<Account>,
    expires: IntGauge,
    reused: IntGauge,
    once: IntGauge,
    health: [IntGauge; HEALTHS.len()],
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        Ok(Self {
            minted: registry.counter(
                "tokens_minted_total",
                "Tokens signed here for upstream.",
                &["account"],
            )?,
            asked: registry.counter(
                "token_service_asks_total",
                "Tokens asked for from the token service: ok, unreachable, timeout, tls, broken, redirect, status, too_large, nonsense, expired, or secret (its own cannot be read).",
                &["account", "outcome"],
            )?,
            refused: registry.counter(
                "tokens_refused_total",
                "Tokens that upstream refused, by what it said: jti, replay, lifetime, scope, not_a_jwt, jwe, encryption, or unsaid. There with the first one.",
                &["account", "reason"],
            )?,
            expires: registry.gauge(
                "token_expires_timestamp_seconds",
                "When the last token that was signed or asked for expires, in seconds since 1970: less time(), the seconds left.",
                &["account"],
            )?,
            jti: registry.gauge(
                "token_jti_mode",
                "1 for how the account's tokens are used: again and again (off), or for one call each (per_request). Of accounts that share a name, how many.",
                &["account", "mode"],
            )?,
            health: registry.gauge(
                "credential_state",
                "1 for the state of the account's credential: ok, resting (upstream refuses it), or disabled (it has no secret). Of accounts that share a name, how many.",
                &["account", "state"],
            )?,
        })
    }

    /// The metrics of an account that is healthy and reuses its tokens, until it says otherwise.
    pub(super) fn of(&self, account: &Arc<Account>) -> AccountMetrics {
        let label = &*account.label;
        let health = |(_, word)| self.health.with_label_values(&[label, word]);
        let metrics = AccountMetrics {
            minted: self.minted.with_label_values(&[label]),
            asked: self.asked.clone(),
            refused: self.refused.clone(),
            account: account.clone(),
            expires: self.expires.with_label_values(&[label]),
            reused: self.jti.with_label_values(&[label, "off"]),
            once: self.jti.with_label_values(&[label, "per_request"]),
            health: HEALTHS.map(health),
        };
        let _ = metrics.asks_that(OK);
        metrics.reused.inc();
        metrics.gauge(Health::Ok).inc();
        metrics
    }
}

impl AccountMetrics {
    pub(super) fn minted(&self, expires: SystemTime) {
        self.minted.inc();
        self.expires(expires);
    }

    /// The token service is used: what may come of asking it is there before it does.
    pub(super) fn asks(&self) {
        for failure in Failure::ALL {
            let _ = self.asks_that(failure.word());
        }
    }

    /// It was asked, and gave a token with this end, or failed.
    pub(super) fn asked(&self, outcome: Result<SystemTime, Failure>) {
        let word = outcome.map_or_else(Failure::word, |_| OK);
        if let Some(asks) = self.asks_that(word) {
            asks.inc();
        }
        if let Ok(expires) = outcome {
            self.expires(expires);
        }
    }

    /// Those that came to this; `None` once the account has left.
    fn asks_that(&self, outcome: &str) -> Option<IntCounter> {
        let account = self.account.counted_as()?;
        Some(self.asked.with_label_values(&[account, outcome]))
    }

    fn expires(&self, expires: SystemTime) {
        let seconds = expires
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        self.expires.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    pub(super) fn refused(&self, reason: Reason) {
        if let Some(account) = self.account.counted_as() {
            let labels = [account, reason.word()];
            self.refused.with_label_values(&labels).inc();
        }
    }

    /// From now on tokens are for one call each.
    pub(super) fn switched(&self) {
        self.reused.dec();
        self.once.inc();
    }

    /// One account less, which was so.
    pub(super) fn gone(&self, health: Health, once: bool) {
        self.gauge(health).dec();
        match once {
            true => self.once.dec(),
            false => self.reused.dec(),
        }
    }

    pub(super) fn became(&self, before: Health, now: Health) {
        self.gauge(before).dec();
        self.gauge(now).inc();
    }

    fn gauge(&self, health: Health) -> &IntGauge {
        let [ok, resting, disabled] = &self.health;
        match health {
            Health::Ok => ok,
            Health::Resting => resting,
            Health::Disabled => disabled,
        }
    }
}
