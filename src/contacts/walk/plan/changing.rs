//! A list that changes while it is read, at random: whatever is then called verified is what the argument says.

use std::collections::HashSet;

use proptest::prelude::*;

use super::{
    model::{Change, Upstream, bounds, calls_max, ids_of, walk_seen},
    *,
};

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

/// Walks with so many pages at once, which upstream reads in an order that the seed draws.
fn walk(
    upstream: &mut Upstream,
    bounds: Bounds,
    verify: Verify,
    drawn: (usize, u64),
) -> (Result<List>, Plan) {
    walk_seen(upstream, bounds, verify, drawn, |_, _| ())
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
        prop_assert!(plan.seen().repairs <= repairs);
        if !plan.seen().drifted && limit.min(clamp) > 1 {
            let limit = u64::from(limit.min(clamp));
            let most = 2 + (upstream.largest as u64).div_ceil(limit - 1);
            prop_assert!(calls <= most, "{calls} calls");
        }
        let list = match outcome {
            Ok(list) => list,
            // Where a page is two records long, a list that moves by one may look as if it stood still.
            Err(error) => {
                prop_assert_eq!(error.kind(), Kind::PaginationInconsistent);
                prop_assert!(plan.seen().drifted || repairs == 0);
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
            prop_assert!(plan.seen().drifted);
            return Ok(());
        };
        let ids = ids_of(&list);
        if list.verdict == Verdict::Drifting {
            // It was mended too often. Of that the two readings say nothing.
            prop_assert_eq!(plan.seen().repairs, bounds.repairs_max);
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
