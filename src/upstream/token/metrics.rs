//! What the credentials tell.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::words::Reason;
use crate::metrics::{self, Registry};

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

/// The metrics of all accounts.
#[derive(Clone, Debug)]
pub struct Metrics {
    minted: IntCounterVec,
    refused: IntCounterVec,
    expires: IntGaugeVec,
    jti: IntGaugeVec,
    health: IntGaugeVec,
}

/// Those of one account. Accounts that share a label share its series, so states are counted and not set.
#[derive(Debug)]
pub(super) struct AccountMetrics {
    pub(super) minted: IntCounter,
    refused: [IntCounter; Reason::ALL.len()],
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
                "Tokens signed for upstream.",
                &["account"],
            )?,
            refused: registry.counter(
                "tokens_refused_total",
                "Tokens that upstream refused, by what it said.",
                &["account", "reason"],
            )?,
            expires: registry.gauge(
                "token_expires_timestamp_seconds",
                "When the last token that was signed expires, in seconds since 1970.",
                &["account"],
            )?,
            jti: registry.gauge(
                "token_jti_mode",
                "Accounts whose tokens are used again (off) or for one call each (per_request).",
                &["account", "mode"],
            )?,
            health: registry.gauge(
                "credential_state",
                "Accounts whose credential is ok, rests because upstream refuses it, or is disabled for want of a secret.",
                &["account", "state"],
            )?,
        })
    }

    /// The metrics of an account that is healthy and reuses its tokens, until it says otherwise.
    pub(super) fn of(&self, label: &str) -> AccountMetrics {
        let refused = |reason: Reason| self.refused.with_label_values(&[label, reason.word()]);
        let health = |(_, word)| self.health.with_label_values(&[label, word]);
        let metrics = AccountMetrics {
            minted: self.minted.with_label_values(&[label]),
            refused: Reason::ALL.map(refused),
            expires: self.expires.with_label_values(&[label]),
            reused: self.jti.with_label_values(&[label, "off"]),
            once: self.jti.with_label_values(&[label, "per_request"]),
            health: HEALTHS.map(health),
        };
        metrics.reused.inc();
        metrics.gauge(Health::Ok).inc();
        metrics
    }
}

impl AccountMetrics {
    pub(super) fn minted(&self, expires: SystemTime) {
        self.minted.inc();
        let seconds = expires
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        self.expires.set(i64::try_from(seconds).unwrap_or(i64::MAX));
    }

    pub(super) fn refused(&self, reason: Reason) {
        let at = Reason::ALL.iter().position(|other| *other == reason);
        if let Some(counter) = at.and_then(|at| self.refused.get(at)) {
            counter.inc();
        }
    }

    /// From now on tokens are for one call each.
    pub(super) fn switched(&self) {
        self.reused.dec();
        self.once.inc();
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
