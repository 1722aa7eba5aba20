use proptest::prelude::*;

use super::*;
use crate::contacts::{page::Window, testing};

fn bounds(limit: u32) -> Bounds {
    Bounds {
        limit,
        pages: false,
        records_max: 10_000,
        bytes_max: 1 << 20,
        repairs_max: 3,
    }
}

fn new(bounds: Bounds) -> Plan {
    Plan::new(bounds, Verify::Seam, 0, Instant::now())
}

fn verified() -> Verdict {
    Verdict::Verified(Checks::Seam)
}

/// Walks through whatever `upstream` answers, page by page.
fn run(plan: &mut Plan, mut upstream: impl FnMut(Window) -> String) -> Result<List> {
    let now = Instant::now();
    loop {
        while let Some(ask) = plan.next_ask() {
            assert!(plan.calls < 1000, "the walk does not end");
            let body = upstream(ask.window).into();
            let asked = testing::asked(ask.window, plan.pass.bounds.pages);
            plan.take(ask, Page::decode(body, asked, now)?)?;
        }
        if let Some(list) = plan.judge(now)? {
            return Ok(list);
        }
    }
}

fn walk(bounds: Bounds, upstream: impl FnMut(Window) -> String) -> Result<List> {
    run(&mut new(bounds), upstream)
}

/// The ids of a list, in order.
fn ids_of(list: &List) -> Vec<u64> {
    let document: serde_json::Value = serde_json::from_slice(&list.document().concat()).unwrap();
    let records = document["results"].as_array().unwrap().iter();
    let id = |record: &serde_json::Value| u64::from_str_radix(record["id"].as_str().unwrap(), 16);
    records.map(|record| id(record).unwrap()).collect()
}

fn kind(bounds: Bounds, upstream: impl FnMut(Window) -> String) -> Kind {
    walk(bounds, upstream).unwrap_err().kind()
}

fn body(window: Window, total: u64) -> String {
    testing::body(window.skip, window.limit, total)
}

/// A page of a collection that is given by its ids.
fn page_of(ids: &[u64], window: Window, total: u64) -> String {
    let ids = ids
        .iter()
        .skip(window.skip as usize)
        .take(window.limit as usize);
    let records: Vec<_> = ids.map(|id| testing::record(*id)).collect();
    let (skip, limit, results) = (window.skip, window.limit, records.join(","));
    format!(r#"{{"results":[{results}],"skip":{skip},"limit":{limit},"totalResults":{total}}}"#)
}

#[test]
fn calls_stay_within_two_of_the_least() {
    let mut asked = Vec::new();
    let list = walk(bounds(100), |window| {
        asked.push(window.skip);
        body(window, 1000)
    })
    .unwrap();
    assert_eq!(
        asked,
        [0, 99, 198, 297, 396, 495, 594, 693, 792, 891, 990, 0]
    );
    assert_eq!(
        (list.len(), list.walked.pages, list.walked.calls),
        (1000, 11, 12)
    );
    assert_eq!(list.verdict, verified());
}

#[test]
fn one_page_is_one_call() {
    for total in [0, 1, 99, 100] {
        let list = walk(bounds(100), |window| body(window, total)).unwrap();
        assert_eq!((list.len() as u64, list.walked.calls), (total, 1));
        assert_eq!(list.verdict, verified());
    }
}

#[test]
fn a_clamp_is_believed() {
    let list = walk(bounds(100), |window| {
        let limit = window.limit.min(7);
        body(Window { limit, ..window }, 50)
    });
    assert_eq!(list.unwrap().len(), 50);
}

#[test]
fn where_upstream_counts_in_pages_nothing_overlaps() {
    let mut asked = Vec::new();
    let bounds = Bounds {
        pages: true,
        ..bounds(10)
    };
    let list = walk(bounds, |window| {
        asked.push(window.skip);
        body(window, 25)
    })
    .unwrap();
    assert_eq!(asked, [0, 10, 20]);
    assert_eq!((list.len(), list.verdict), (25, Verdict::Consistent));
}

#[test]
fn one_record_a_page_cannot_overlap() {
    let list = walk(bounds(1), |window| body(window, 5)).unwrap();
    assert_eq!((list.len(), list.verdict), (5, Verdict::Consistent));
}

/// A page that says that there are so many contacts, whatever there are.
fn saying(window: Window, there: u64, said: u64) -> String {
    let (honest, lie) = (
        format!(r#""totalResults":{there}"#),
        format!(r#""totalResults":{said}"#),
    );
    body(window, there).replace(&honest, &lie)
}

/// U17. Catches a list that is short without a word, one that is refused for ever, and a gap that costs each refresh a
/// second walk.
#[test]
fn a_total_that_is_off_is_settled_by_a_second_walk_and_then_known() {
    for pages in [false, true] {
        for (there, said) in [(25, 26), (25, 24), (25, 60), (25, 1), (25, 0), (2, 6)] {
            let bounds = Bounds {
                pages,
                ..bounds(10)
            };
            let told = format!("{there} where {said} are said, pages: {pages}");
            let upstream = |window| saying(window, there, said);
            let mut plan = new(bounds);
            let list = run(&mut plan, upstream).unwrap();
            assert_eq!(
                (list.len() as u64, list.verdict),
                (there, Verdict::Settled),
                "{told}"
            );
            assert_eq!(plan.gap(), said as i64 - there as i64, "{told}");
            assert!(!plan.has_drifted() && plan.repairs() == 0, "{told}");
            let mut later = Plan::new(bounds, Verify::Seam, plan.gap(), Instant::now());
            let again = run(&mut later, upstream).unwrap();
            assert_eq!(again.verdict, Verdict::Settled, "{told}");
            assert_eq!(2 * again.walked.calls, list.walked.calls, "{told}");
        }
    }
}

/// Catches a gap that is believed although it is another one than before.
#[test]
fn another_gap_than_is_known_takes_a_second_walk() {
    let mut plan = Plan::new(bounds(10), Verify::Seam, 2, Instant::now());
    let list = run(&mut plan, |window| saying(window, 25, 26)).unwrap();
    assert_eq!((list.verdict, plan.gap()), (Verdict::Settled, 1));
    assert_eq!(list.walked.calls, 8);
    // A total that is right again needs no second look.
    let mut plan = Plan::new(bounds(10), Verify::Seam, 2, Instant::now());
    let list = run(&mut plan, |window| body(window, 25)).unwrap();
    assert_eq!((list.verdict, plan.gap()), (verified(), 0));
    assert_eq!(list.walked.calls, 4);
}

/// U17. Catches nothing at all that is called more, or less, than some of it would be.
#[test]
fn nothing_where_something_is_said_twice_is_settled() {
    let list = walk(bounds(10), |window| saying(window, 0, 25)).unwrap();
    assert_eq!((list.verdict, list.len()), (Verdict::Settled, 0));
    assert_eq!((list.walked.calls, list.walked.gap), (2, 25));
    let mut calls = 0;
    let once = |window| {
        calls += 1;
        saying(window, if calls == 1 { 0 } else { 25 }, 25)
    };
    let list = walk(bounds(10), once).unwrap();
    assert_eq!((list.verdict, list.len()), (verified(), 25));
}

#[test]
fn without_a_total_nothing_can_be_verified() {
    let missing = |window: Window| body(window, 2).replace("totalResults", "total");
    assert_eq!(kind(bounds(10), missing), Kind::MergeUnverified);
}

#[test]
fn two_equal_walks_are_verified_twice_in_both_styles() {
    for (pages, calls) in [(false, 8), (true, 6)] {
        let bounds = Bounds {
            pages,
            ..bounds(10)
        };
        let mut plan = Plan::new(bounds, Verify::Twice, 0, Instant::now());
        let list = run(&mut plan, |window| body(window, 25)).unwrap();
        assert_eq!(list.verdict, Verdict::Verified(Checks::Twice));
        assert_eq!(list.walked.calls, calls);
    }
}

#[test]
fn more_at_the_true_end_costs_one_call() {
    let lie = |window| body(window, 25).replace(r#""hasMore":false"#, r#""hasMore":true"#);
    let list = walk(bounds(10), lie).unwrap();
    assert_eq!((list.len(), list.walked.calls), (25, 3 + 1 + 1));
    // Also where upstream counts in pages.
    let list = walk(
        Bounds {
            pages: true,
            ..bounds(10)
        },
        lie,
    )
    .unwrap();
    assert_eq!(list.len(), 25);
}

/// U19. Catches a walk that calls a list good which changes with each page, or that never gives up.
#[test]
fn what_never_stands_still_is_drifting() {
    for pages in [false, true] {
        let mut total = 1000;
        let shrinking = |window| {
            total -= 1;
            body(window, total)
        };
        let bounds = Bounds {
            pages,
            ..bounds(100)
        };
        let mut plan = new(bounds);
        let list = run(&mut plan, shrinking).unwrap();
        assert_eq!(list.verdict, Verdict::Drifting);
        assert_eq!(plan.repairs(), 3);
    }
}

/// One is deleted before the second page and one appended, so that no count shows it.
#[test]
fn a_record_that_slips_between_two_pages_is_found_again() {
    let mut ids: Vec<u64> = (0..20).collect();
    let mut asked = Vec::new();
    let mut plan = new(bounds(10));
    let list = run(&mut plan, |window| {
        asked.push(window.skip);
        if asked.len() == 2 {
            ids.remove(3);
            ids.push(99);
        }
        page_of(&ids, window, 20)
    })
    .unwrap();
    assert_eq!((list.verdict, plan.repairs()), (verified(), 1));
    assert!(plan.has_drifted());
    let now: Vec<u64> = (0..20).filter(|id| *id != 3).chain([99]).collect();
    assert_eq!(ids_of(&list), now);
    assert_eq!(asked, [0, 9, 18, 0, 9, 0]);
}

/// Catches a repair that reads more than what has moved.
#[test]
fn a_repair_goes_from_the_broken_seam_to_where_the_list_stood_still() {
    let mut ids: Vec<u64> = (0..100).collect();
    let mut asked = Vec::new();
    let mut plan = new(bounds(10));
    let list = run(&mut plan, |window| {
        asked.push(window.skip / 9);
        if asked.len() == 8 {
            ids.remove(50);
        }
        page_of(&ids, window, ids.len() as u64)
    })
    .unwrap();
    assert_eq!((list.verdict, plan.repairs()), (verified(), 1));
    assert_eq!(ids_of(&list), ids);
    // The record went from page 5, while pages 0 to 6 were read. What lies behind the seam fits what is read again.
    assert_eq!(asked, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 6, 7, 5, 0]);
}

/// Catches a list that is read again because of what does no harm.
#[test]
fn what_is_appended_costs_no_repair() {
    let mut total = 27;
    let mut plan = new(bounds(10));
    let growing = |window| {
        let page = body(window, total);
        total = 31;
        page
    };
    let list = run(&mut plan, growing).unwrap();
    assert_eq!((list.len(), list.verdict), (31, verified()));
    // The copies from before are outdated all the same.
    assert!(plan.has_drifted());
    assert_eq!((plan.repairs(), list.walked.calls), (0, 5));
}

#[test]
fn a_first_page_that_changes_behind_the_walk_is_read_once_more() {
    let mut ids: Vec<u64> = (0..19).collect();
    let mut calls = 0;
    let mut plan = new(bounds(10));
    let list = run(&mut plan, |window| {
        calls += 1;
        if calls == 3 {
            ids[0] = 99;
        }
        page_of(&ids, window, 19)
    })
    .unwrap();
    assert_eq!((list.verdict, plan.repairs()), (verified(), 1));
    assert_eq!((ids_of(&list), calls), (ids, 4));
}

/// U20. Catches a list with a contact in it twice, and a document that is broken where one was left out.
#[test]
fn a_contact_that_is_always_there_twice_is_drift() {
    let ids: Vec<u64> = (0..15).chain([3]).chain(16..20).collect();
    let mut plan = new(bounds(10));
    let list = run(&mut plan, |window| page_of(&ids, window, 20)).unwrap();
    assert_eq!(list.verdict, Verdict::Drifting);
    let once: Vec<u64> = ids.iter().copied().filter(|id| *id != 3).collect();
    assert_eq!(ids_of(&list).len(), once.len() + 1);
    let twice = r#"{"results":[{"id":"a"},{"id":"\u0061"}],"skip":0,"limit":10,"totalResults":2}"#;
    let list = walk(bounds(10), |_| twice.to_owned()).unwrap();
    assert_eq!((list.verdict, list.len()), (Verdict::Drifting, 1));
}

/// What `seam` cannot see: one record moves into a page that was read, and the counts are the same.
#[test]
fn a_record_that_moves_over_a_seam_is_missed_by_one_walk_and_found_by_two() {
    let read = |verify, moment| {
        let mut ids: Vec<u64> = (0..28).collect();
        let mut calls = 0;
        let mut plan = Plan::new(bounds(10), verify, 0, Instant::now());
        let list = run(&mut plan, |window| {
            calls += 1;
            if calls == moment {
                let moved = ids.remove(22);
                ids.insert(12, moved);
                ids.retain(|id| *id != 14);
                ids.push(99);
            }
            page_of(&ids, window, 28)
        });
        (list.unwrap(), ids)
    };
    let (list, _) = read(Verify::Seam, 3);
    assert_eq!(list.verdict, verified());
    assert!(!ids_of(&list).contains(&22));
    // In the first reading, and in the second.
    for moment in [3, 7] {
        let (list, ids) = read(Verify::Twice, moment);
        assert_eq!(list.verdict, Verdict::Verified(Checks::Twice));
        assert_eq!(ids_of(&list), ids, "{moment}");
    }
}

/// Catches two readings that are called equal because each of them is off.
#[test]
fn two_gaps_that_differ_settle_nothing() {
    let mut calls = 0;
    let mut plan = new(bounds(10));
    let list = run(&mut plan, |window| {
        calls += 1;
        saying(window, if calls <= 4 { 25 } else { 26 }, 30)
    })
    .unwrap();
    assert_eq!((list.len(), list.verdict), (26, Verdict::Settled));
    assert_eq!((plan.gap(), plan.repairs(), calls), (4, 1, 3 * 4));
}

/// Catches an end that is believed although upstream says another total by now.
#[test]
fn what_is_appended_behind_the_walk_is_read() {
    let mut asked = Vec::new();
    let list = walk(bounds(10), |window| {
        asked.push(window.skip);
        body(window, if asked.len() < 4 { 25 } else { 26 })
    })
    .unwrap();
    assert_eq!((list.len(), list.verdict), (26, verified()));
    assert_eq!(asked, [0, 9, 18, 0, 18, 0]);
}

/// Catches a size that is believed although the records say otherwise, and one that is not given up when it changes.
#[test]
fn the_page_size_is_what_comes_and_may_change() {
    // Cut down to 7 records under an echo that does not say so.
    let quiet = |window: Window| {
        let limit = window.limit.min(7);
        let page = body(Window { limit, ..window }, 50);
        page.replace(
            &format!(r#""limit":{limit}"#),
            &format!(r#""limit":{}"#, window.limit),
        )
    };
    for pages in [false, true] {
        let bounds = Bounds {
            pages,
            ..bounds(10)
        };
        let list = walk(bounds, |window| {
            let skip = match pages {
                true => window.skip / u64::from(window.limit) * u64::from(window.limit.min(7)),
                false => window.skip,
            };
            quiet(Window { skip, ..window })
        })
        .unwrap();
        assert_eq!((list.len(), list.verdict.is_verified()), (50, !pages));
    }
    let mut calls = 0;
    let mut plan = new(bounds(20));
    let list = run(&mut plan, |window| {
        calls += 1;
        let limit = window.limit.min(if calls < 4 { 20 } else { 8 });
        body(Window { limit, ..window }, 100)
    })
    .unwrap();
    assert_eq!(
        (list.len(), list.verdict, plan.repairs()),
        (100, verified(), 1)
    );
}

/// Catches pages that are asked for behind the end, and an end that is taken for a hole.
#[test]
fn a_short_page_without_more_is_the_end_and_one_with_more_is_not() {
    // Upstream has 45, says 200, and its flag is honest.
    let mut asked = Vec::new();
    let list = walk(bounds(10), |window| {
        asked.push(window.skip);
        saying(window, 45, 200)
    })
    .unwrap();
    assert_eq!((list.len(), list.verdict), (45, Verdict::Settled));
    assert_eq!(asked.len(), 2 * (5 + 1));
    // A page in the middle comes two records short, and says that there is more: it goes on by what came.
    let short = |window: Window| {
        let limit = if window.skip == 18 { 8 } else { window.limit };
        let page = body(Window { limit, ..window }, 60);
        page.replace(r#""limit":8"#, r#""limit":10"#)
    };
    let list = walk(bounds(10), short).unwrap();
    assert_eq!((list.len(), list.verdict), (60, verified()));
}

#[test]
fn pages_without_progress_end_the_walk() {
    // Upstream ignores where to begin but echoes it.
    let stuck = |window: Window| {
        let first = body(Window { skip: 0, ..window }, 50);
        first.replace(r#""skip":0"#, &format!(r#""skip":{}"#, window.skip))
    };
    let pages = Bounds {
        pages: true,
        ..bounds(10)
    };
    assert_eq!(kind(pages, stuck), Kind::PaginationInconsistent);
    assert_eq!(kind(bounds(10), stuck), Kind::PaginationInconsistent);
}

#[test]
fn caps() {
    let records = Bounds {
        records_max: 49,
        ..bounds(10)
    };
    let error = walk(records, |window| body(window, 50)).unwrap_err();
    assert_eq!(error.kind(), Kind::MergeTooLarge);
    assert!(error.detail().contains("6 pages"), "{error}");
    let bytes = Bounds {
        bytes_max: 1000,
        ..bounds(10)
    };
    assert_eq!(kind(bytes, |window| body(window, 50)), Kind::MergeTooLarge);
    let endless = |window: Window| testing::body(window.skip, window.limit, u64::MAX);
    assert_eq!(kind(bounds(10), endless), Kind::MergeTooLarge);
}

proptest! {
    /// A list that does not change is always read whole, whatever its size and upstream's clamp.
    #[test]
    fn what_stands_still_is_read_whole(total in 0_u64..300, limit in 1_u32..40, clamp in 1_u32..40, pages: bool) {
        let bounds = Bounds { pages, ..bounds(limit) };
        let list = walk(bounds, |window| {
            let limit = window.limit.min(clamp);
            let skip = if pages { window.skip / u64::from(window.limit) * u64::from(limit) } else { window.skip };
            body(Window { skip, limit }, total)
        })
        .unwrap();
        let expected = testing::body(0, total.max(1) as u32, total);
        let expected = serde_json::from_str::<serde_json::Value>(&expected).unwrap();
        let document: serde_json::Value = serde_json::from_slice(&list.document().concat()).unwrap();
        prop_assert_eq!(&document["results"], &expected["results"]);
    }
}
