//! When a walk will be over if all goes on as it does: what the account's budget makes of the calls that are still to come.
//!
//! It is no earlier than that. What others will yet ask for nobody knows, and a list that is sent as it is read waits for
//! its reader too.

use std::time::Duration;

use tokio::time::Instant;

use super::rest::Rest;
use crate::{
    contacts::{list::ListKey, request::Fetch, spent::Phase, walking::Progress},
    service::{Calls, Forecast},
};

/// How often it is told how far a walk is while nothing comes: the account's budget and the waiters' urgency change.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Adds to a walk's progress when it will be over, for which class that holds, and why it rests. `width` calls are made at
/// once, and `back` of them have come back.
pub(super) fn outlook(
    progress: Progress,
    forecast: &dyn Forecast,
    fetch: &Fetch<ListKey>,
    (width, back): (usize, usize),
    rest: &Rest,
    now: Instant,
) -> Progress {
    let rest = rest.until(now);
    let class = fetch.urgency.class();
    // Those have their slots already.
    let under_way = fetch.urgency.parts_departed().saturating_sub(back);
    let calls = Calls {
        number: progress.calls_left.saturating_sub(under_way),
        width,
        each: fetch.spent.on(Phase::Upstream) / u32::try_from(back.max(1)).unwrap_or(u32::MAX),
    };
    let from = rest.map_or(now, |(end, _)| end);
    let estimate = |calls| forecast.ends_at(&fetch.key.collection, class, calls, from);
    let (ends_at, next_call_at) = match calls.number {
        0 => (from + calls.each, None),
        _ => (estimate(calls), Some(estimate(Calls::TURN))),
    };
    Progress {
        ends_at: Some(ends_at),
        next_call_at,
        class,
        held_up: rest.map(|(_, because)| because),
        ..progress
    }
}
