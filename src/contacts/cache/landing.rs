//! What a flight brings, remembered for those who ask later and told in the log: once, and not by each who waits.

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Held, entry::Cached, store::Store};
use crate::{
    contacts::{cache::Key, runway, verdict::Handling},
    error::{Error, Kind},
};

impl<T: Store> Held<T> {
    /// A flight has brought something, which may still be of no use.
    pub(super) fn brought(&self, key: &T::Key, value: &T::Value, now: Instant) {
        let runway = &key.collection().runway;
        if value.foreign() > 0 {
            let (code, records) = (Kind::UpstreamTenantMismatch.code(), value.foreign());
            warn!(
                code,
                records,
                "answered and kept, although contacts in it say that they are another account's or stream's"
            );
        }
        match value.good_for(Handling::Default) {
            Ok(()) => {
                self.resting.succeeded(key);
                runway.succeeded();
            }
            // For nearly all who wait it is a failure, so it is remembered as one.
            Err(error) => {
                warn!(code = error.kind().code(), "{}", error.detail());
                runway.failed();
                self.resting.failed(key.clone(), &error, now);
            }
        }
    }

    /// A flight has failed.
    pub(super) fn failed(&self, key: &T::Key, error: &Error, now: Instant) {
        let (code, cause) = (error.kind().code(), error.cause());
        match error.kind() {
            // Its reason is in the log already, and each stale copy would repeat it each second.
            Kind::UpstreamUnavailable | Kind::BudgetExhausted | Kind::TokenServiceUnavailable => {
                debug!(code, cause, "{}", error.detail());
            }
            _ => warn!(code, cause, "{}", error.detail()),
        }
        let runway = &key.collection().runway;
        if ends_the_copy(error.kind()) {
            self.store.remove(key);
            runway.ended();
        } else if runway::is_failure(error.kind()) {
            runway.failed();
        }
        self.resting.failed(key.clone(), error, now);
    }
}

/// Whether a failure is the end of the copy too: what is gone upstream, or may be another tenant's, must not go on being
/// answered. Whatever else fails leaves the copy alone.
pub(in crate::contacts) fn ends_the_copy(kind: Kind) -> bool {
    matches!(kind, Kind::StreamNotFound | Kind::UpstreamTenantMismatch)
}
