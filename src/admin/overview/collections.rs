//! The collections that are asked for most, and the lists that are being read: of the many that there may be, each is
//! looked at once, and few are kept.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    document::{Collection, Few, LastFault, List, Walk},
    names,
};
use crate::contacts::collection;

/// Collections that are shown: those that are asked for most.
pub(super) const COLLECTIONS_MAX: usize = 50;

/// Walks that are shown: those that have run longest.
const WALKS_MAX: usize = 50;

/// The collections that are asked for most, and all walks: of the many that there may be, each is looked at once.
pub(super) fn look(
    collections: impl Iterator<Item = Arc<collection::Collection>>,
    now: Instant,
) -> (Few<Collection>, Few<Walk>) {
    let (mut most, mut walks, mut total) = (Vec::new(), Vec::new(), 0);
    for collection in collections {
        total += 1;
        if let Some(walking) = collection.walking.peek() {
            walks.push((collection.clone(), walking));
        }
        let seen = (collection.seen.rate(), collection.seen.requests());
        most.push((seen, collection));
        if most.len() >= 2 * COLLECTIONS_MAX {
            keep_most(&mut most);
        }
    }
    keep_most(&mut most);
    let shown = most
        .iter()
        .map(|((rate, requests), collection)| shown(collection, *rate, *requests, now));
    let collections = Few {
        total,
        shown: shown.collect(),
    };
    walks.sort_by_key(|(_, walking)| walking.started);
    let total = walks.len();
    walks.truncate(WALKS_MAX);
    let shown = walks.iter().map(|(collection, walking)| {
        let (account, stream, name) = names(&collection.account, &collection.stream);
        let progress = walking.watch().borrow().clone();
        let ends_at = progress.ends_at;
        Walk {
            account,
            stream,
            name,
            running_s: now.saturating_duration_since(walking.started).as_secs_f64(),
            pages_done: progress.pages_done,
            pages_needed: progress.pages_needed,
            records: progress.records,
            estimate_s: ends_at.map(|at| at.saturating_duration_since(now).as_secs_f64()),
            held_up: progress.held_up.map(|kind| kind.title().to_owned()),
        }
    });
    let walks = Few {
        total,
        shown: shown.collect(),
    };
    (collections, walks)
}

/// A collection, by its rate and its requests.
type Ranked = ((f64, u64), Arc<collection::Collection>);

fn keep_most(ranked: &mut Vec<Ranked>) {
    ranked.sort_by(|(one, _), (other, _)| {
        let by_rate = other.0.total_cmp(&one.0);
        by_rate.then(other.1.cmp(&one.1))
    });
    ranked.truncate(COLLECTIONS_MAX);
}

fn shown(
    collection: &collection::Collection,
    rate: f64,
    requests: u64,
    now: Instant,
) -> Collection {
    let ago = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
    let (account, stream, name) = names(&collection.account, &collection.stream);
    let last = collection.seen.upstream.last();
    Collection {
        account,
        stream,
        name,
        requests,
        rate,
        hit_ratio: collection.seen.hit_ratio(),
        list: collection.list().as_ref().map(|list| List {
            verdict: list.verdict.word().to_owned(),
            records: list.len() as u64,
            age_s: list.age(now).as_secs_f64(),
            freshness: list.freshness(now).word().to_owned(),
        }),
        answered_ago_s: last.answered.map(ago),
        fault: last.fault().map(|(kind, at)| LastFault {
            code: kind.code().to_owned(),
            words: kind.title().to_owned(),
            ago_s: ago(at),
        }),
    }
}
