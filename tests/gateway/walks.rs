//! A list is whole or it is an error: never silently short, and a walk always ends.

use std::{collections::HashSet, time::Duration};

use contacts_gateway::{
    config::Config,
    contacts::walk::Verify,
    simulator::{Change, ChangeKind, Churn, DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Paging, Rule},
    upstream,
};
use futures_util::{StreamExt, stream};
use tokio::time;

use crate::support::{Answer, World, fault, list, until};

/// Breaks the pages of a stream, asks for its list, heals it, asks again after the key's rest.
async fn broken(world: &World, rule: Rule, status: u16, code: &str) {
    let shown = format!("{rule:?}");
    let walks = format!("walks_total{{outcome=\"{code}\"}}");
    world.kore.add_faults(rule.stream(STREAM));
    let asked = time::Instant::now();
    let answer = world.stream(STREAM, "?all=true").await;
    // At once, since it rests for a second only.
    let calls = world.calls();
    let remembered = world.stream(STREAM, "?all=true").await;
    world.kore.clear_faults();
    assert_eq!(answer.json()["code"], code, "{shown}: {}", answer.text());
    answer.is_problem(status, code);
    assert_eq!(remembered.json()["code"], code, "{shown}");
    // A machine that is slow enough outlasts the rest, which began after it was asked.
    if status == 404 || asked.elapsed() < Duration::from_secs(1) {
        assert_eq!(world.calls(), calls, "{shown}: it rests");
        assert_eq!(world.gateway.metric(&walks).await, 1.0, "{shown}");
    }
    if status == 404 {
        // That rest is long, but it is the list's alone.
        world.stream(STREAM, "?skip=10").await.ok();
        return;
    }
    // Then it has failed twice, and rests for longer.
    let rest = if world.calls() == calls { 1 } else { 2 };
    time::sleep(Duration::from_secs(rest)).await;
    let healed = world.stream(STREAM, "?all=true").await.ok();
    assert!(healed.is_miss(), "{shown}: {:?}", healed.headers);
    assert!(
        healed.text() == list(DEMO_ACCOUNT_ID, STREAM, 1_000),
        "{shown}"
    );
}

/// Worlds at once.
const WIDTH: usize = 8;

/// Each rule in a world of its own, many at once: each waits for a rest.
async fn each<'a>(rows: impl IntoIterator<Item = (Rule, u16, &'a str)>) {
    let each = rows.into_iter().map(async |(rule, status, code)| {
        // One page at a time, so that failures side by side do not open the breaker; and a walk that does not rest from
        // them.
        let change = |config: &mut Config| (config.merge.width, config.merge.failures_max) = (1, 1);
        let world = World::with(|_| (), change).await;
        broken(&world, rule, status, code).await;
    });
    stream::iter(each)
        .buffer_unordered(WIDTH)
        .collect::<()>()
        .await;
}

/// The stream that is broken.
const STREAM: &str = "st-broken";

/// U16. Catches a walk that goes in circles, or that calls it a list.
#[tokio::test]
async fn pages_without_a_new_contact_end_the_walk_as_inconsistent() {
    let stuck = || Rule::always(fault("stuck"));
    let rules = [
        stuck(),
        stuck().and(fault("has-more=true")),
        stuck().and(fault("total=5000")),
        stuck().and(fault("total=101")),
    ];
    each(rules.map(|rule| (rule, 502, "pagination_inconsistent"))).await;
}

/// U16, where pages do not overlap.
#[tokio::test]
async fn pages_without_a_new_contact_are_inconsistent_in_both_styles() {
    let world = World::with(
        |settings| settings.paging = Paging::PageLimit,
        |config| config.upstream.paging = upstream::Paging::PageLimit,
    )
    .await;
    let rule = Rule::always(fault("stuck"));
    broken(&world, rule, 502, "pagination_inconsistent").await;
}

/// U19, U20: what never fits together. Catches a short or doubled list with a 200, and a walk that never gives up.
#[tokio::test]
async fn a_list_that_never_fits_together_is_drifting_and_not_kept() {
    let rules = ["shift=-1", "twice"];
    each(rules.map(|text| (Rule::always(fault(text)), 503, "merge_drifting"))).await;
}

/// U17. Catches a total that is off and makes a list unreadable, one that goes without saying, and a gap that costs each
/// refresh a second walk.
#[tokio::test]
async fn a_total_that_is_off_is_settled_and_the_gap_is_remembered() {
    for (text, records, gap) in [
        ("total=+1", 1_000, 1),
        ("total=-1", 1_000, -1),
        ("total=0", 1_000, -1_000),
        ("total=1", 1_000, -999),
        ("total=5000", 1_000, 4_000),
        // Upstream lacks its first one, wherever one looks.
        ("shift=1", 999, 1),
        // Or all of them: that it says so twice is told, and a strict caller does not have it.
        ("no-records", 0, 1_000),
    ] {
        let world = World::with(
            |_| (),
            |config| {
                // One at a time, so that none is asked for behind the end.
                config.merge.width = 1;
                config.merge.fresh_for = Duration::from_secs(1);
            },
        )
        .await;
        world.fault_stream(STREAM, text);
        let first = world.stream(STREAM, "?all=true").await.ok();
        let cost = world.calls();
        let status = first.header("merge-status");
        assert!(status.starts_with("settled; pages="), "{text}: {status}");
        assert!(
            status.contains(&format!("; records={records}; calls={cost};")),
            "{text}: {status}"
        );
        assert!(
            status.ends_with(&format!("; gap={gap}")),
            "{text}: {status}"
        );
        if records == 1_000 {
            assert!(
                first.text() == list(DEMO_ACCOUNT_ID, STREAM, 1_000),
                "{text}"
            );
        }
        assert_eq!(first.header("preference-applied"), "");
        // It is kept, but no page is cut from it.
        assert!(world.stream(STREAM, "?all=true").await.is_hit());
        let page = world.stream(STREAM, "?skip=20").await.ok();
        assert!(page.is_miss(), "{text}");

        // A strict caller does not have it, and that costs nothing either.
        let calls = world.calls();
        let refused = world.prefer(STREAM, "handling=strict").await;
        refused.is_problem(502, "merge_unverified");
        let lenient = world.prefer(STREAM, "handling=lenient").await.ok();
        assert!(lenient.is_hit() && lenient.body == first.body, "{text}");
        assert_eq!(lenient.header("preference-applied"), "handling=lenient");
        assert_eq!(world.calls(), calls, "{text}");

        until(text, async || {
            world.stream(STREAM, "?all=true").await.ok();
            world.gateway.metric(SETTLED).await == 2.0
        })
        .await;
        assert_eq!(world.calls() - calls, cost / 2, "{text}");
    }
}

const SETTLED: &str = "walks_total{outcome=\"settled\"}";

/// U17, U19, U20: one odd page. Catches a fault of a moment that a caller gets to see.
#[tokio::test]
async fn what_was_wrong_once_is_read_again() {
    for text in [
        "total=+1",
        "total=0",
        "shift=1",
        "shift=-1",
        "twice",
        "no-records",
    ] {
        for skipped in [0, 4, 10] {
            let told = format!("{text} after {skipped} pages");
            let world = World::with(|_| (), |config| config.merge.width = 1).await;
            if skipped > 0 {
                // A fault that is none, so that the next one comes later.
                world.kore.fault_next(skipped, fault("delay=0s"));
            }
            world.kore.fault_next(1, fault(text));
            let answer = world.stream(STREAM, "?all=true").await.ok();
            let status = answer.header("merge-status");
            assert!(
                status.starts_with("verified; checks=seam; pages=11; records=1000; "),
                "{told}: {status}"
            );
            assert!(
                answer.text() == list(DEMO_ACCOUNT_ID, STREAM, 1_000),
                "{told}"
            );
            assert!(world.calls() <= 12 + 12 + 2, "{told}: {}", world.calls());
        }
    }
}

/// Not from a copy that is stale.
fn is_fresh(answer: &Answer) -> bool {
    !answer.header("cache-status").contains("; ttl=-")
}

/// U19. Catches a repair that reads all of a list again, one that is not counted, and copies that are still called fresh
/// although the list was seen to change.
#[tokio::test]
async fn a_list_that_changes_once_is_repaired_and_outdates_older_copies() {
    let world = World::with(|_| (), |config| config.merge.width = 1).await;
    let page = world.get("?skip=900&limit=101").await.ok();
    let stream = world.kore.stream(DEMO_ACCOUNT_ID, DEMO_STREAM_ID);
    // Before the tenth page, a record of the eighth.
    stream.before_call(10, Change::Delete(700)).unwrap();
    let answer = world.get("?all=true").await.ok();
    let status = answer.header("merge-status");
    assert!(
        status.starts_with("verified; checks=seam; pages=11; records=999; calls=15; "),
        "{status}"
    );
    let ids = |body: serde_json::Value| -> Vec<String> {
        let records = body["results"].as_array().unwrap().iter();
        let id = |record: &serde_json::Value| record["id"].as_str().unwrap().to_owned();
        records.map(id).collect()
    };
    assert!(ids(answer.json()) == stream.ids());
    assert_eq!(world.gateway.metric("walk_repairs_total").await, 1.0);
    // No list hides it from a caller of exactly that window: upstream's clamp for such a limit is not known.
    assert!(page.is_miss());
    let again = world.get("?skip=900&limit=101").await.ok();
    assert!(!is_fresh(&again), "{:?}", again.headers);
    assert_eq!(again.body, page.body);
}

/// U19. Catches a list in motion that is called good, a strict or an undecided caller who gets it, a lenient one who does
/// not, and a good copy that it replaces.
#[tokio::test]
async fn a_list_that_never_stands_still_is_for_lenient_callers_alone() {
    let world = World::with(
        |_| (),
        |config| {
            config.merge.fresh_for = Duration::from_secs(1);
        },
    )
    .await;
    let whole = world.get("?all=true").await.ok();
    let stream = world.kore.stream(DEMO_ACCOUNT_ID, DEMO_STREAM_ID);
    let churn = Churn::new(3.0).unwrap();
    stream.churn(Some(churn.only(&[ChangeKind::Insert, ChangeKind::Delete])));
    until("the copy says why it is stale", async || {
        let stale = world.get("?all=true").await.ok();
        assert!(stale.body == whole.body);
        stale
            .header("cache-status")
            .ends_with("; detail=merge_drifting")
    })
    .await;

    let (world, other) = (World::new().await, DEMO_STREAM_ID);
    let moving = world.kore.stream(DEMO_ACCOUNT_ID, other);
    moving.churn(Some(Churn::new(3.0).unwrap().only(&[ChangeKind::Insert])));
    for preference in ["", "handling=strict"] {
        let refused = world.prefer(other, preference).await;
        refused.is_problem(503, "merge_drifting");
        assert_eq!(refused.json()["retryable"], true);
        let wait: u64 = refused.header("retry-after").parse().unwrap();
        time::sleep(Duration::from_secs(wait)).await;
    }
    // That it failed is remembered for a moment, for all.
    let ask = async || world.prefer(other, "respond-async, handling=lenient").await;
    let mut lenient = ask().await;
    until("the rest is over", async || {
        if lenient.status != 200 {
            lenient = ask().await;
        }
        lenient.status == 200
    })
    .await;
    assert_eq!(lenient.header("preference-applied"), "handling=lenient");
    assert_eq!(
        lenient.header("cache-status"),
        "contacts-gateway; fwd=uri-miss; fwd-status=200"
    );
    let status = lenient.header("merge-status");
    assert!(status.starts_with("drifting; pages="), "{status}");
    let body = lenient.json();
    let ids: HashSet<_> = body["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["id"].as_str().unwrap())
        .collect();
    assert_eq!(body["totalResults"], ids.len());
    assert!(ids.len() > 1_000);
    assert!(
        world
            .gateway
            .metric("walks_total{outcome=\"merge_drifting\"}")
            .await
            >= 3.0
    );
}

/// Catches a second walk that is left out, and a strict caller who is refused what was verified by it.
#[tokio::test]
async fn two_equal_walks_are_verified_in_both_styles() {
    for (theirs, ours, page) in [
        (
            Paging::SkipLimit,
            upstream::Paging::SkipLimit,
            "?skip=20&limit=10",
        ),
        (
            Paging::PageLimit,
            upstream::Paging::PageLimit,
            "?page=3&limit=10",
        ),
    ] {
        let world = World::with(
            |settings| settings.paging = theirs,
            |config| {
                config.upstream.paging = ours;
                config.merge.verify = Verify::Twice;
            },
        )
        .await;
        let answer = world.prefer(DEMO_STREAM_ID, "handling=strict").await.ok();
        let status = answer.header("merge-status");
        assert!(
            status.starts_with("verified; checks=twice; pages="),
            "{status}"
        );
        assert_eq!(answer.header("preference-applied"), "handling=strict");
        let slice = world.get(page).await.ok();
        assert!(slice.header("cache-status").ends_with("; detail=slice"));
    }
    let world = World::with(
        |settings| settings.paging = Paging::PageLimit,
        |config| config.upstream.paging = upstream::Paging::PageLimit,
    )
    .await;
    let refused = world.prefer(DEMO_STREAM_ID, "handling=strict").await;
    refused.is_problem(502, "merge_unverified");
    let consistent = world.get("?all=true").await.ok();
    assert!(consistent.is_hit());
    assert!(
        consistent
            .header("merge-status")
            .starts_with("consistent; ")
    );
}

/// U18. Catches a walk that believes `hasMore` more than the records, and one that never stops asking.
#[tokio::test]
async fn a_flag_that_lies_about_the_end_costs_at_most_one_call() {
    let world = World::new().await;
    world.get("?all=true").await.ok();
    let honest = world.calls();
    for (stream, flag) in [("st-more", "has-more=true"), ("st-less", "has-more=false")] {
        world.fault_stream(stream, flag);
        let before = world.calls();
        let answer = world.stream(stream, "?all=true").await.ok();
        assert!(
            answer.text() == list(DEMO_ACCOUNT_ID, stream, 1_000),
            "{flag}"
        );
        assert!(world.calls() - before <= honest + 1, "{flag}");
    }
}

/// Catches a walk that answers with what it has when one of its pages fails, or blames something else.
#[tokio::test]
async fn one_page_that_fails_fails_the_whole_list_with_its_own_code() {
    let rows = [
        ("status=500", 502, "upstream_5xx"),
        (
            "status=429;header=retry-after: 1",
            503,
            "upstream_rate_limited",
        ),
        ("status=401", 502, "upstream_auth_rejected"),
        ("status=404", 404, "stream_not_found"),
        ("truncate", 502, "upstream_truncated"),
        ("truncate-chunked", 502, "upstream_truncated"),
        ("invalid-json", 502, "upstream_invalid_body"),
        ("html", 502, "upstream_wrong_type"),
        ("no-ids", 502, "upstream_schema"),
        ("echo-skip=+1", 502, "upstream_schema"),
        ("extra-records=1", 502, "upstream_schema"),
        ("oversize=9MiB", 502, "upstream_too_large"),
        ("redirect=/canary", 502, "upstream_redirect"),
    ];
    each(rows.into_iter().flat_map(|(text, status, code)| {
        // What is tried once more fails the list only if it fails again.
        let tries = match code {
            "upstream_5xx" | "upstream_auth_rejected" => 2,
            _ => 1,
        };
        let rule = || Rule::always(fault(text));
        // On some later page as well: which one is drawn from the simulator's seed.
        let later = rule().share(0.4 * tries as f64).unwrap();
        [(rule().next(tries), status, code), (later, status, code)]
    }))
    .await;
}

/// Catches a list that is read without a bound, or given up only after everything was fetched.
#[tokio::test]
async fn a_list_above_the_caps_is_refused_after_its_first_page() {
    let world = World::with(|_| (), |config| config.merge.records_max = 999).await;
    let answer = world.get("?all=true").await;
    answer.is_problem(422, "merge_too_large");
    assert_eq!(world.calls(), 1);
    assert!(
        answer.json()["detail"]
            .as_str()
            .unwrap()
            .contains("11 pages")
    );
    world.fault_stream("st-lie", "total=18446744073709551615");
    let answer = world.stream("st-lie", "?all=true").await;
    answer.is_problem(422, "merge_too_large");
    assert_eq!(world.calls(), 2);

    let world = World::with(
        |_| (),
        |config| config.merge.bytes_max = "100KiB".parse().unwrap(),
    )
    .await;
    world
        .get("?all=true")
        .await
        .is_problem(422, "merge_too_large");
}

/// Catches a list that hides behind pages, or pages that a failed list pushes out.
#[tokio::test]
async fn a_page_that_is_held_outlives_a_list_that_fails() {
    let world = World::new().await;
    let page = world.get("?skip=50").await.ok();
    world.fault_stream(DEMO_STREAM_ID, "twice");
    world
        .get("?all=true")
        .await
        .is_problem(503, "merge_drifting");
    let again = world.get("?skip=50").await.ok();
    assert!(again.is_hit() && again.body == page.body);
    assert!(!again.header("cache-status").contains("slice"));
}
