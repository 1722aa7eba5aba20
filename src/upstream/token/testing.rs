//! What the tests of the credentials share: a clock that can be set, and credentials of a few accounts.

use std::{
    cell::Cell,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use super::{Config, Credentials, Metrics, TokenService, credential::Now};
use crate::{
    contacts::account::{self, Account},
    metrics::Registry,
    upstream::secret::{Secret, Source, Sources},
};

pub(super) const SECRET: &str = "canary-secret-MTIzNDU2Nzg5MDEyMzQ1Njc4OTA=";

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
    static SET_BY: Cell<i64> = const { Cell::new(0) };
}

/// The wall's clock of this test: it goes with tokio's, and can be set.
pub(super) fn wall() -> SystemTime {
    let now = Instant::now();
    let began = BEGAN.get().unwrap_or(now);
    BEGAN.set(Some(began));
    let time = UNIX_EPOCH + Duration::from_secs(1_800_000_000) + (now - began);
    let by = Duration::from_secs(SET_BY.get().unsigned_abs());
    if SET_BY.get() < 0 {
        time - by
    } else {
        time + by
    }
}

/// Sets the wall's clock by so many seconds, from where it would be.
pub(super) fn set_clock_by(seconds: i64) {
    SET_BY.set(seconds);
}

pub(super) fn now() -> Now {
    Now {
        wall: wall(),
        steady: Instant::now(),
    }
}

/// The credentials of one account, and the registry that they count in.
pub(super) struct Bench {
    pub(super) account: Arc<Account>,
    pub(super) credentials: Arc<Credentials>,
    pub(super) registry: Registry,
}

impl Bench {
    pub(super) fn new() -> Self {
        Self::with(given(SECRET), |_| ())
    }

    pub(super) fn with(sources: Sources, told: impl FnOnce(&mut account::Config)) -> Self {
        Self::from(sources, None, told)
    }

    /// With tokens from a service.
    pub(super) fn asking(service: TokenService, told: impl FnOnce(&mut account::Config)) -> Self {
        Self::from(Sources::from(None), Some(&Arc::new(service)), told)
    }

    fn from(
        sources: Sources,
        service: Option<&Arc<TokenService>>,
        told: impl FnOnce(&mut account::Config),
    ) -> Self {
        let account = crate::contacts::testing::account("acme");
        let mut config = account::Config::default();
        told(&mut config);
        let registry = Registry::new().unwrap();
        let credentials = Arc::new(Credentials::new(
            [(&account, &config, sources)],
            &Config::default(),
            service,
            || 0.0,
            &Metrics::new(&registry).unwrap(),
        ));
        Self {
            account,
            credentials,
            registry,
        }
    }

    /// A series as `/metrics` shows it, without the common beginning; 0 if there is none.
    pub(super) fn metric(&self, series: &str) -> i64 {
        let text = String::from_utf8(self.registry.render().unwrap()).unwrap();
        let value = text.lines().find_map(|line| {
            let rest = line
                .strip_prefix("contacts_gateway_")?
                .strip_prefix(series)?;
            rest.strip_prefix(' ')
        });
        value.map_or(0, |value| value.parse().unwrap())
    }

    pub(super) fn minted(&self) -> i64 {
        self.metric(r#"tokens_minted_total{account="acme"}"#)
    }
}

pub(super) fn given(secret: &str) -> Sources {
    Sources::from(Some(Secret::new(secret)))
}

pub(super) fn with_next(first: &str, next: &str) -> Sources {
    Sources {
        next: Some(Source::Read(Ok(Secret::new(next)))),
        ..given(first)
    }
}
