//! A list that changes while it is read, at random: whatever is then called verified is what the argument says.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::contacts::{page::Window, testing};

/// What happens to the list before one of the calls. Places are taken modulo its length.
#[derive(Clone, Copy, Debug)]
pub(in crate::contacts::walk) enum Change {
    Insert(usize),
    Delete(usize),
    Update(usize),
    /// The record goes to another place, and those between move up.
    Move(usize, usize),
    Swap(usize, usize),
    Reverse,
}

/// Changes that leave records that stay in their order.
pub(in crate::contacts::walk) fn orderly() -> impl Strategy<Value = Change> {
    let at = || 0_usize..1000;
    prop_oneof![
        at().prop_map(Change::Insert),
        at().prop_map(Change::Delete),
        at().prop_map(Change::Update),
        Just(Change::Insert(0)),
        Just(Change::Delete(0)),
    ]
}

pub(in crate::contacts::walk) fn any_change() -> impl Strategy<Value = Change> {
    let at = || 0_usize..1000;
    prop_oneof![
        4 => orderly(),
        1 => (at(), at()).prop_map(|(from, to)| Change::Move(from, to)),
        1 => (at(), at()).prop_map(|(one, other)| Change::Swap(one, other)),
        1 => Just(Change::Reverse),
    ]
}

/// Upstream, whose list changes before some of its calls.
#[derive(Debug)]
pub(in crate::contacts::walk) struct Upstream {
    ids: Vec<u64>,
    versions: HashMap<u64, u32>,
    /// What was there from the beginning, and never went.
    stayed: HashSet<u64>,
    changes: Vec<(u16, Change)>,
    calls: u16,
    largest: usize,
    clamp: u32,
    pages: bool,
}

impl Upstream {
    pub(in crate::contacts::walk) fn new(
        total: u64,
        clamp: u32,
        pages: bool,
        changes: Vec<(u16, Change)>,
    ) -> Self {
        let ids: Vec<u64> = (0..total).collect();
        Self {
            stayed: ids.iter().copied().collect(),
            versions: HashMap::new(),
            largest: ids.len(),
            ids,
            changes,
            calls: 0,
            clamp,
            pages,
        }
    }

    /// What was there from the beginning and never went, in order.
    pub(in crate::contacts::walk) fn stayed(&self) -> Vec<u64> {
        let mut stayed: Vec<u64> = self.stayed.iter().copied().collect();
        stayed.sort_unstable();
        stayed
    }

    fn change(&mut self, change: Change) {
        let len = self.ids.len();
        match change {
            Change::Insert(at) => {
                let id = 1_000_000 + u64::from(self.calls) * 1000 + self.versions.len() as u64;
                self.versions.insert(id, 0);
                self.ids.insert(at % (len + 1), id);
            }
            _ if len == 0 => {}
            Change::Delete(at) => {
                let gone = self.ids.remove(at % len);
                self.stayed.remove(&gone);
            }
            Change::Update(at) => *self.versions.entry(self.ids[at % len]).or_default() += 1,
            Change::Move(from, to) => {
                let id = self.ids.remove(from % len);
                self.ids.insert(to % len, id);
            }
            Change::Swap(one, other) => self.ids.swap(one % len, other % len),
            Change::Reverse => self.ids.reverse(),
        }
        self.largest = self.largest.max(self.ids.len());
    }

    pub(in crate::contacts::walk) fn page(&mut self, window: Window) -> String {
        let due = |(call, change): &(u16, Change)| (*call == self.calls).then_some(*change);
        let due: Vec<Change> = self.changes.iter().filter_map(due).collect();
        due.into_iter().for_each(|change| self.change(change));
        self.calls += 1;
        let limit = window.limit.min(self.clamp);
        let skip = match self.pages {
            true => window.skip / u64::from(window.limit) * u64::from(limit),
            false => window.skip,
        };
        let total = self.ids.len();
        let ids = self.ids.iter().skip(skip as usize).take(limit as usize);
        let record = |id| {
            let version = self.versions.get(id).unwrap_or(&0);
            format!(r#"{{"version":{version},"id":"{id:024x}"}}"#)
        };
        let records: Vec<_> = ids.map(record).collect();
        let (results, has_more) = (records.join(","), skip + u64::from(limit) < total as u64);
        format!(
            r#"{{"results":[{results}],"skip":{skip},"limit":{limit},"hasMore":{has_more},"totalResults":{total}}}"#
        )
    }
}

/// Walks with so many pages at once, which upstream reads in an order that the seed draws.
fn walk(
    upstream: &mut Upstream,
    bounds: Bounds,
    verify: Verify,
    drawn: (usize, u64),
) -> (Result<List>, Plan) {
    walk_seen(upstream, bounds, verify, drawn, |_, _| ())
}

/// The same, and each answer is seen as soon as it is taken.
pub(super) fn walk_seen(
    upstream: &mut Upstream,
    bounds: Bounds,
    verify: Verify,
    (width, mut seed): (usize, u64),
    mut see: impl FnMut(&Plan, u64),
) -> (Result<List>, Plan) {
    let mut plan = Plan::new(bounds, verify, 0, Instant::now());
    let mut asked: Vec<Ask> = Vec::new();
    let outcome = loop {
        while asked.len() < width
            && let Some(ask) = plan.next_ask()
        {
            asked.push(ask);
        }
        if asked.is_empty() {
            match plan.judge(Instant::now()) {
                Ok(None) => continue,
                Ok(Some(list)) => break Ok(list),
                Err(error) => break Err(error),
            }
        }
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let ask = asked.swap_remove((seed >> 33) as usize % asked.len());
        assert!(upstream.calls < 5000, "the walk does not end");
        let body = upstream.page(ask.window).into();
        let asked_for = testing::asked(ask.window, bounds.pages);
        let page = Page::decode(body, asked_for, Instant::now()).unwrap();
        let taken = plan.take(ask, page);
        see(&plan, seed);
        if let Err(error) = taken {
            break Err(error);
        }
    };
    (outcome, plan)
}

/// The ids of a list, in order.
pub(super) fn ids_of(list: &List) -> Vec<u64> {
    let document: serde_json::Value = serde_json::from_slice(&list.document().concat()).unwrap();
    let records = document["results"].as_array().unwrap().iter();
    let id = |record: &serde_json::Value| u64::from_str_radix(record["id"].as_str().unwrap(), 16);
    records.map(|record| id(record).unwrap()).collect()
}

pub(super) fn bounds(limit: u32, pages: bool, repairs_max: u32) -> Bounds {
    Bounds {
        limit,
        pages,
        records_max: 10_000,
        bytes_max: 1 << 20,
        repairs_max,
    }
}

/// The most calls that a walk may cost. Between two repairs each window is asked for once, the first one twice, and those
/// whose total is old news once more.
fn calls_max(upstream: &Upstream, bounds: Bounds, readings: u32) -> u64 {
    let limit = bounds.limit.min(upstream.clamp);
    let stride = u64::from(limit) - u64::from(!bounds.pages && limit > 1);
    let windows = 2 + (upstream.largest as u64).div_ceil(stride);
    u64::from(bounds.repairs_max + readings) * (2 * windows + 2)
}

pub(in crate::contacts::walk) fn schedule(
    change: impl Strategy<Value = Change>,
    calls: u16,
    most: usize,
) -> impl Strategy<Value = Vec<(u16, Change)>> {
    proptest::collection::vec((0..calls, change), 0..most)
}

/// A list's length, and how it changes: now and then, or all the time where it is short.
pub(in crate::contacts::walk) fn changing(
    most: usize,
) -> impl Strategy<Value = (u64, Vec<(u16, Change)>)> {
    prop_oneof![
        (0_u64..90, schedule(orderly(), 40, most)),
        (0_u64..12, schedule(orderly(), 14, most + 2)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Catches a verified list that lacks what was there throughout, has anything twice or out of order, or that is not as
    /// long as upstream said; a repaired one that costs a call too many; and a walk that does not end.
    #[test]
    fn what_is_verified_has_all_that_stayed_once_and_in_order(
        (total, changes) in changing(8),
        (limit, clamp) in (1_u32..14, 1_u32..14),
        repairs in 0_u32..5,
        width in 1_usize..9,
        seed: u64,
    ) {
        let bounds = bounds(limit, false, repairs);
        let changes = if total % 4 == 0 { Vec::new() } else { changes };
        let is_still = changes.is_empty();
        let mut upstream = Upstream::new(total, clamp, false, changes);
        let (outcome, plan) = walk(&mut upstream, bounds, Verify::Seam, (width, seed));
        let calls = u64::from(upstream.calls);
        prop_assert!(calls <= calls_max(&upstream, bounds, 2), "{calls} calls");
        prop_assert!(plan.repairs() <= repairs);
        if !plan.has_drifted() && limit.min(clamp) > 1 {
            let limit = u64::from(limit.min(clamp));
            let most = 2 + (upstream.largest as u64).div_ceil(limit - 1);
            prop_assert!(calls <= most, "{calls} calls");
        }
        let list = match outcome {
            Ok(list) => list,
            // Where a page is two records long, a list that moves by one may look as if it stood still.
            Err(error) => {
                prop_assert_eq!(error.kind(), Kind::PaginationInconsistent);
                prop_assert!(plan.has_drifted() || repairs == 0);
                return Ok(());
            }
        };
        let ids = ids_of(&list);
        let once: HashSet<u64> = ids.iter().copied().collect();
        prop_assert_eq!(once.len(), ids.len(), "twice");
        prop_assert_eq!(list.walked.calls as u64, calls);
        if is_still {
            let expected = if limit.min(clamp) > 1 || total <= 1 {
                Verdict::Verified(Checks::Seam)
            } else {
                Verdict::Consistent
            };
            prop_assert_eq!(list.verdict, expected);
            prop_assert_eq!(&ids, &(0..total).collect::<Vec<_>>());
        }
        if list.verdict.is_verified() {
            let kept: Vec<u64> = ids.iter().copied().filter(|id| upstream.stayed.contains(id)).collect();
            let mut stayed: Vec<u64> = upstream.stayed.iter().copied().collect();
            stayed.sort_unstable();
            prop_assert_eq!(kept, stayed);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever happens at one moment, reorderings included: of two equal readings at least one stood still.
    #[test]
    fn two_equal_readings_are_what_was_there_before_or_after_one_moment(
        total in 1_u64..60,
        limit in 2_u32..14,
        pages: bool,
        width in 1_usize..9,
        seed: u64,
        call in 0_u16..30,
        changes in proptest::collection::vec(any_change(), 0..6),
    ) {
        let bounds = bounds(limit, pages, 3);
        let changes = changes.into_iter().map(|change| (call, change)).collect();
        let mut upstream = Upstream::new(total, limit, pages, changes);
        let before = upstream.ids.clone();
        let (outcome, plan) = walk(&mut upstream, bounds, Verify::Twice, (width, seed));
        prop_assert!(u64::from(upstream.calls) <= calls_max(&upstream, bounds, 3));
        let Ok(list) = outcome else {
            prop_assert!(plan.has_drifted());
            return Ok(());
        };
        let ids = ids_of(&list);
        if list.verdict == Verdict::Drifting {
            // It was mended too often. Of that the two readings say nothing.
            prop_assert_eq!(plan.repairs(), bounds.repairs_max);
            return Ok(());
        }
        prop_assert!(list.verdict == Verdict::Verified(Checks::Twice), "{}", list.verdict);
        prop_assert!(ids == before || ids == upstream.ids);
    }

    /// Whatever goes on all the time: a walk ends, and nothing in its list is there twice.
    #[test]
    fn whatever_goes_on_a_walk_ends(
        total in 0_u64..60,
        limit in 1_u32..14,
        (pages, twice) in any::<(bool, bool)>(),
        repairs in 0_u32..5,
        (width, seed) in (1_usize..9, any::<u64>()),
        changes in schedule(any_change(), 300, 200),
    ) {
        let bounds = bounds(limit, pages, repairs);
        let verify = if twice { Verify::Twice } else { Verify::Seam };
        let mut upstream = Upstream::new(total, limit, pages, changes);
        let (outcome, _) = walk(&mut upstream, bounds, verify, (width, seed));
        let calls = u64::from(upstream.calls);
        prop_assert!(calls <= calls_max(&upstream, bounds, 3), "{calls} calls");
        if let Ok(list) = outcome {
            let ids = ids_of(&list);
            let once: HashSet<u64> = ids.iter().copied().collect();
            prop_assert_eq!(once.len(), ids.len());
        }
    }
}
