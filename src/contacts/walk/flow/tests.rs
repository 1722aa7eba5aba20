use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::contacts::{
    testing,
    verdict::Checks,
    walk::plan::{
        changing::{any_change, changing, schedule},
        model::{Change, Upstream},
    },
};

fn bounds(limit: u32, width: usize) -> Bounds {
    Bounds {
        limit,
        pages: false,
        records_max: 10_000,
        width,
        repairs_max: 3,
    }
}

/// What was given away, and how that ended.
struct Given {
    ids: Vec<u64>,
    outcome: Result<Verdict>,
    flow: Flow,
    /// The most windows that waited or were asked for at once.
    most: usize,
}

/// Reads to the end. Upstream answers in an order that the seed draws, and so does the reader take what is ready.
fn read(
    bounds: Bounds,
    gap: i64,
    mut seed: u64,
    mut upstream: impl FnMut(Window) -> String,
) -> Given {
    let mut flow = Flow::new(bounds, gap, RandomState::new());
    let mut asked: Vec<Ask> = Vec::new();
    let (mut ids, mut most) = (Vec::new(), 0);
    let outcome = loop {
        while let Some(ask) = flow.next_ask() {
            asked.push(ask);
        }
        assert!(flow.calls < 5000, "it does not end");
        assert!(asked.len() <= bounds.width);
        most = most.max(flow.ahead.len());
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let draw = (seed >> 33) as usize;
        if flow.is_ready() && (asked.is_empty() || draw.is_multiple_of(3)) {
            match flow.give() {
                Ok(run) => {
                    let run = run.expect("it was ready");
                    let records = (0..run.at.len()).filter_map(|place| run.get(place));
                    ids.extend(records.map(id_of));
                }
                Err(error) => break Err(error),
            }
        } else if asked.is_empty() {
            break Ok(flow.verdict().expect("it has come to its end"));
        } else {
            let ask = asked.swap_remove(draw % asked.len());
            let body = upstream(ask.window).into();
            let asked_for = testing::asked(ask.window, bounds.pages);
            let page = Page::decode(body, asked_for, Instant::now()).unwrap();
            if let Err(error) = flow.take(ask, page) {
                break Err(error);
            }
        }
    };
    Given {
        ids,
        outcome,
        flow,
        most,
    }
}

fn id_of(record: &[u8]) -> u64 {
    let record: serde_json::Value = serde_json::from_slice(record).unwrap();
    u64::from_str_radix(record["id"].as_str().unwrap(), 16).unwrap()
}

fn verified() -> Verdict {
    Verdict::Verified(Checks::Seam)
}

#[test]
fn a_list_that_stands_still_costs_one_call_more_than_it_has_pages() {
    for (total, limit, pages, calls) in [
        (0, 10, 1, 1),
        (1, 10, 1, 1),
        (10, 10, 1, 1),
        (11, 10, 2, 3),
        (100, 10, 11, 12),
        (100, 100, 1, 1),
        (1000, 100, 11, 12),
    ] {
        let given = read(bounds(limit, 4), 0, 7, |window| {
            testing::body(window.skip, window.limit, total)
        });
        assert_eq!(given.outcome.unwrap(), verified());
        assert_eq!(given.ids, (0..total).collect::<Vec<_>>());
        let ending = given.flow.ending(verified(), Instant::now());
        assert_eq!((ending.pages, ending.calls), (pages, calls), "{total}");
        assert_eq!(ending.records, total);
    }
}

/// Catches pages that are asked for although nobody takes those that are there.
#[test]
fn nothing_is_asked_for_while_nobody_reads() {
    for width in [1, 2, 8] {
        let mut flow = Flow::new(bounds(10, width), 0, RandomState::new());
        let mut calls = 0;
        while let Some(ask) = flow.next_ask() {
            calls += 1;
            let body = testing::body(ask.window.skip, ask.window.limit, 1000);
            let page = testing::decode(&body, ask.window.skip, ask.window.limit);
            flow.take(ask, page).unwrap();
        }
        assert_eq!(calls, width + 1);
        assert!(flow.is_ready());
        assert!(flow.give().unwrap().is_some());
        assert!(flow.next_ask().is_some() && flow.next_ask().is_none());
    }
}

/// Catches a page that is given away before the one behind it was asked for, has come, or begins where it ends.
#[test]
fn a_page_is_given_once_its_right_seam_matched() {
    for (skip, matches) in [(9, true), (10, false)] {
        let mut flow = Flow::new(bounds(10, 1), 0, RandomState::new());
        let page = |skip| testing::page(skip, 10, 100, Instant::now());
        let first = flow.next_ask().unwrap();
        flow.take(first, page(0)).unwrap();
        assert!(
            flow.give().unwrap().is_none(),
            "nothing behind it was asked for"
        );
        let second = flow.next_ask().unwrap();
        assert!(flow.give().unwrap().is_none(), "nothing behind it has come");
        flow.take(second, page(skip)).unwrap();
        assert_eq!(flow.give().unwrap().is_some(), matches, "{skip}");
    }
}

#[test]
fn what_upstream_says_wrongly_is_settled_once_it_is_known() {
    let lying = |window: Window| {
        testing::body(window.skip, window.limit, 95)
            .replace("\"totalResults\":95", "\"totalResults\":97")
    };
    let first = read(bounds(10, 4), 0, 7, lying);
    assert_eq!(first.outcome.unwrap_err().kind(), Kind::MergeUnverified);
    assert_eq!(first.flow.gap(), 2);
    let second = read(bounds(10, 4), 2, 7, lying);
    assert_eq!(second.outcome.unwrap(), Verdict::Settled);
    assert_eq!(second.ids.len(), 95);
    let empty = |_: Window| r#"{"results":[],"skip":0,"limit":10,"totalResults":5}"#.to_owned();
    let first = read(bounds(10, 4), 0, 7, empty);
    assert_eq!(first.outcome.unwrap_err().kind(), Kind::MergeUnverified);
    let second = read(bounds(10, 4), first.flow.gap(), 7, empty);
    assert_eq!(second.outcome.unwrap(), Verdict::Settled);
    let ending = second.flow.ending(Verdict::Settled, Instant::now());
    assert_eq!((ending.records, ending.gap), (0, 5));
}

/// U18: the flags lie, the pages do not.
#[test]
fn more_that_is_not_there_costs_one_call() {
    let given = read(bounds(10, 1), 0, 7, |window| {
        testing::body(window.skip, window.limit, 91)
            .replace("\"hasMore\":false", "\"hasMore\":true")
    });
    assert_eq!(given.outcome.unwrap(), verified());
    assert_eq!((given.ids.len(), given.flow.calls), (91, 12));
}

/// U16. Catches a reading that goes in circles.
#[test]
fn the_same_page_again_and_again_ends_it() {
    for width in [1, 8] {
        let given = read(bounds(10, width), 0, 7, |window| {
            testing::body(0, 10, 100).replace("\"skip\":0", &format!("\"skip\":{}", window.skip))
        });
        let kind = given.outcome.unwrap_err().kind();
        assert_eq!(kind, Kind::PaginationInconsistent);
    }
}

#[test]
fn where_upstream_counts_in_pages_a_list_is_consistent() {
    let bounds = Bounds {
        pages: true,
        ..bounds(10, 4)
    };
    let given = read(bounds, 0, 7, |window| {
        testing::body(window.skip, window.limit, 95)
    });
    assert_eq!(given.outcome.unwrap(), Verdict::Consistent);
    assert_eq!((given.ids.len(), given.flow.calls), (95, 10));
}

#[test]
fn a_list_beyond_the_bound_ends_with_its_first_page() {
    let given = read(bounds(10, 4), 0, 7, |window| {
        testing::body(window.skip, window.limit, 10_001)
    });
    assert_eq!(given.outcome.unwrap_err().kind(), Kind::MergeTooLarge);
    assert_eq!(given.flow.calls, 1);
}

/// Catches a list that is called verified although its first page, read again at last, is another.
#[test]
fn a_first_page_that_is_another_at_last_is_drift() {
    let mut calls = 0;
    let given = read(bounds(10, 1), 0, 7, |window| {
        calls += 1;
        let body = testing::body(window.skip, window.limit, 100);
        match calls {
            12 => body.replace(&format!("{:024x}", 3), &format!("{:024x}", 999)),
            _ => body,
        }
    });
    assert_eq!(given.flow.calls, 12);
    assert_eq!(given.outcome.unwrap_err().kind(), Kind::MergeDrifting);
}

/// What is appended while it is read is read too, and costs a look at the first page more.
#[test]
fn what_is_appended_at_last_is_read() {
    let mut calls = 0;
    let given = read(bounds(10, 1), 0, 7, |window| {
        calls += 1;
        let total = if calls < 12 { 100 } else { 103 };
        testing::body(window.skip, window.limit, total)
    });
    assert_eq!(given.outcome.unwrap(), verified());
    assert_eq!(given.ids, (0..103).collect::<Vec<_>>());
    assert_eq!(given.flow.calls, 14);
}

/// Catches a list that is believed to end where nothing came, although what went had been sent, and its own last page had
/// said that there is more.
#[test]
fn an_end_is_where_the_last_page_says_it_is() {
    for (total, limit, changes) in [
        // The second page is looked for behind what is left.
        (2, 1, &[(1, Change::Delete(0))][..]),
        // Two go before the fifth page, and another one comes before the first page is read again.
        (
            6,
            2,
            &[
                (4, Change::Delete(3)),
                (4, Change::Delete(3)),
                (5, Change::Insert(4)),
            ],
        ),
    ] {
        let mut upstream = Upstream::new(total, limit, false, changes.to_vec());
        let given = read(bounds(limit, 1), 0, 7, |window| upstream.page(window));
        assert_eq!(given.outcome.unwrap_err().kind(), Kind::MergeDrifting);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Catches a list that is called verified although it lacks what was there throughout, or has anything twice or out of
    /// order; and more than a few pages that wait.
    #[test]
    fn what_is_verified_has_all_that_stayed_once_and_in_order(
        (total, changes) in changing(5),
        (limit, clamp) in (1_u32..14, 1_u32..14),
        repairs_max in 0_u32..4,
        width in 1_usize..9,
        seed: u64,
    ) {
        let bounds = Bounds { repairs_max, ..bounds(limit, width) };
        let changes = if total % 4 == 0 { Vec::new() } else { changes };
        let is_still = changes.is_empty();
        let mut upstream = Upstream::new(total, clamp, false, changes);
        let given = read(bounds, 0, seed, |window| upstream.page(window));
        prop_assert!(given.most <= width + 1);
        let once: HashSet<u64> = given.ids.iter().copied().collect();
        prop_assert_eq!(once.len(), given.ids.len(), "twice");
        if is_still {
            let overlaps = limit.min(clamp) > 1 || total <= 1;
            let expected = if overlaps { verified() } else { Verdict::Consistent };
            prop_assert_eq!(given.outcome.clone().unwrap(), expected);
            prop_assert_eq!(&given.ids, &(0..total).collect::<Vec<_>>());
        }
        match given.outcome {
            Ok(verdict) if verdict.is_verified() => {
                let stayed = upstream.stayed();
                let kept: Vec<u64> = given.ids.into_iter().filter(|id| stayed.contains(id)).collect();
                prop_assert_eq!(kept, stayed);
            }
            Ok(verdict) => prop_assert_eq!(verdict, Verdict::Consistent),
            Err(error) => {
                let expected = [Kind::MergeDrifting, Kind::MergeUnverified, Kind::PaginationInconsistent];
                prop_assert!(expected.contains(&error.kind()), "{}", error);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn whatever_goes_on_it_ends(
        total in 0_u64..60,
        limit in 1_u32..14,
        pages: bool,
        repairs_max in 0_u32..4,
        (width, seed) in (1_usize..9, any::<u64>()),
        changes in schedule(any_change(), 300, 200),
    ) {
        let bounds = Bounds { pages, repairs_max, ..bounds(limit, width) };
        let mut upstream = Upstream::new(total, limit, pages, changes);
        let given = read(bounds, 0, seed, |window| upstream.page(window));
        let once: HashSet<u64> = given.ids.iter().copied().collect();
        prop_assert_eq!(once.len(), given.ids.len());
    }
}
