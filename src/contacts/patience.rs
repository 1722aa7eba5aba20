//! How long a caller waits for a list, and what it is told instead.
//!
//! A walk may take minutes; a caller waits for as long as it said (`Prefer: wait`), or for as long as any request may. As
//! soon as the walk's own estimate is past that, the caller is told so, and how far the walk is. The walk goes on: it
//! stops for nobody's leaving once a call was made for it, and whoever asks next joins it.
//!
//! | The walk | A caller is told | when |
//! | --- | --- | --- |
//! | ends in time | the list, or its error | at its end |
//! | has read a page, and its estimate is past the deadline (a pause or rest included) | `merge_in_progress` | at once |
//! | has read nothing yet, and waits for the budget beyond the deadline | `budget_exhausted` | at once: it ends with the last who would wait |
//! | the same, but somebody waits longer or said `respond-async` | `merge_in_progress` | at once: it goes on without this caller |
//! | fails with its first page | that error | at once; the next who asks begins anew |
//! | fails later: what may pass | nothing: it [rests](super::walk) and goes on, and its estimate says so | |
//! | fails later: what will not pass, or once too often in a row | that error | at once |
//! | is still under way at the deadline, whatever it had estimated | `merge_in_progress` | at the deadline |
//!
//! Callers for whom a stale copy will do wait for none of this.

use std::{future, time::Duration};

use tokio::{select, time::Instant};

use super::{
    list::ListKey,
    request::Terms,
    walking::{Progress, Walking},
};
use crate::error::{Error, Kind, Underway};

/// Ends when it is known that the list's walk will not end before the deadline, with what the caller is told.
pub async fn outlasted(key: &ListKey, terms: &Terms) -> Error {
    let mut known = key.collection.walking.watch();
    loop {
        let walking = match known
            .wait_for(|walking| is_of(key, walking.as_deref()))
            .await
        {
            Ok(walking) => walking.clone(),
            Err(_) => None,
        };
        let Some(walking) = walking else {
            return future::pending().await;
        };
        let mut progress = walking.watch();
        select! {
            biased;
            told = progress.wait_for(|progress| outlasts(progress, &walking, terms)) => {
                if let Ok(told) = told {
                    return in_progress(&told, Instant::now());
                }
            }
            // This one is over; there may be another.
            _ = known.changed() => {}
        }
    }
}

/// What a caller is told at its deadline, if a walk is under way.
pub fn overdue(key: &ListKey) -> Option<Error> {
    let known = key.collection.walking.watch();
    let walking = known.borrow().clone();
    let walking = walking.filter(|walking| is_of(key, Some(walking)))?;
    let progress = walking.watch();
    let progress = progress.borrow();
    progress
        .end
        .is_none()
        .then(|| in_progress(&progress, Instant::now()))
}

fn is_of(key: &ListKey, walking: Option<&Walking>) -> bool {
    walking.is_some_and(|walking| walking.epoch == key.epoch)
}

/// Whether a walk goes on beyond a caller's deadline.
fn outlasts(progress: &Progress, walking: &Walking, terms: &Terms) -> bool {
    let goes_on = progress.pages_needed.is_some()
        || walking.urgency.has_departed()
        || walking.urgency.deadline() > terms.deadline;
    goes_on
        && progress.end.is_none()
        // Whoever takes it in pieces waits for none but the first.
        && !(terms.in_pieces && progress.pages_needed.is_some())
        // One that was made before this caller came may be of a walk that nobody waited for.
        && progress.class >= terms.class
        && progress.ends_at.is_some_and(|end| end > terms.deadline)
}

fn in_progress(progress: &Progress, now: Instant) -> Error {
    let estimate = progress
        .ends_at
        .map_or(Duration::ZERO, |end| end.saturating_duration_since(now));
    let far = match progress.pages_needed {
        Some(needed) => format!("{} of {needed} pages so far", progress.pages_done),
        None => "it waits for its first page".to_owned(),
    };
    let held_up = match progress.held_up {
        Some(kind) => format!(", held up by {}", kind.code()),
        None => String::new(),
    };
    let detail = format!("the list is being read, {far}{held_up}; it goes on, so ask again later");
    Error::new(Kind::MergeInProgress, detail)
        .retry_after(estimate)
        .underway(Underway {
            pages_done: progress.pages_done,
            pages_needed: progress.pages_needed,
            estimate,
        })
}

#[cfg(test)]
mod tests;
