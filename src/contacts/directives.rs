//! What a request says about copies: the directives of `Cache-Control` in a request (RFC 9111, section 5.2.1, and
//! RFC 5861, section 4).

use std::time::Duration;

use super::cache::entry::{Freshness, Standing};

/// The directives of one request; none by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    /// No copy will do: upstream must be asked.
    pub no_cache: bool,
    /// Nothing but a copy will do: upstream must not be asked.
    pub only_if_cached: bool,
    /// A copy may be so old.
    pub max_age: Option<Duration>,
    /// A copy must stay fresh for so long.
    pub min_fresh: Option<Duration>,
    /// A copy may be stale for so long; [`Duration::MAX`]: however long.
    pub max_stale: Option<Duration>,
    /// If upstream fails, a copy may be stale for so long.
    pub stale_if_error: Option<Duration>,
}

impl Directives {
    /// Whether a copy will do.
    ///
    /// A stale one that the operator's `stale_for` still allows will, unless `max-stale` says otherwise: that is for
    /// the operator to decide (RFC 5861, section 3), and the least surprising for callers that say nothing.
    pub fn accept(&self, copy: &Standing) -> bool {
        !self.no_cache
            && self.max_age.is_none_or(|most| copy.age <= most)
            && self.min_fresh.is_none_or(|least| copy.fresh_left >= least)
            && self.max_stale.is_none_or(|most| copy.stale_since <= most)
    }

    /// Whether a copy that will not do will after all, now that upstream has failed.
    pub fn forgive(&self, copy: &Standing) -> bool {
        let allowed = |most: Option<Duration>| most.is_some_and(|most| copy.stale_since <= most);
        copy.freshness != Freshness::Expired
            && (allowed(self.max_stale) || allowed(self.stale_if_error))
    }
}
