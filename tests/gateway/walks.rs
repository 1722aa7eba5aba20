//! A list is whole or it is an error: never silently short, and a walk always ends.

use std::time::Duration;

use contacts_gateway::simulator::{DEMO_ACCOUNT_ID, DEMO_STREAM_ID, Paging, Rule};
use contacts_gateway::upstream;
use futures_util::{StreamExt, stream};
use tokio::time;

use crate::support::{World, fault, list};

/// Breaks the pages of a stream, asks for its list, heals it, asks again after the key's rest.
async fn broken(world: &World, rule: Rule, status: u16, code: &str) {
    let shown = format!("{rule:?}");
    let walks = format!("walks_total{{outcome=\"{code}\"}}");
    world.kore.add_faults(rule.stream(STREAM));
    let answer = world.stream(STREAM, "?all=true").await;
    // At once, since it rests for a second only.
    let calls = world.calls();
    let remembered = world.stream(STREAM, "?all=true").await;
    world.kore.clear_faults();
    assert_eq!(answer.json()["code"], code, "{shown}: {}", answer.text());
    answer.is_problem(status, code);
    assert_eq!(world.gateway.metric(&walks).await, 1.0, "{shown}");
    assert_eq!(remembered.json()["code"], code, "{shown}");
    assert_eq!(world.calls(), calls, "{shown}: it rests");
    if status == 404 {
        // That rest is long, but it is the list's alone.
        world.stream(STREAM, "?skip=10").await.ok();
        return;
    }
    time::sleep(Duration::from_secs(1)).await;
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
        // One page at a time, so that failures side by side do not open the breaker.
        let world = World::with(|_| (), |config| config.merge.width = 1).await;
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

/// U17 to U20 before there are repairs: whatever does not add up is an error. Catches a short or doubled list with a 200.
#[tokio::test]
async fn a_list_that_does_not_add_up_is_refused_and_not_kept() {
    let rules = [
        Rule::always(fault("total=+1")),
        Rule::always(fault("total=-1")),
        Rule::always(fault("total=0")),
        Rule::always(fault("total=1")),
        Rule::always(fault("shift=-1")),
        Rule::always(fault("shift=1")),
        Rule::always(fault("twice")),
        Rule::always(fault("no-records")),
        Rule::always(fault("total=+1")).next(1),
        Rule::always(fault("shift=1")).next(1),
        Rule::always(fault("twice")).next(1),
        Rule::always(fault("no-records")).next(1),
    ];
    each(rules.map(|rule| (rule, 502, "merge_unverified"))).await;
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
        .is_problem(502, "merge_unverified");
    let again = world.get("?skip=50").await.ok();
    assert!(again.is_hit() && again.body == page.body);
    assert!(!again.header("cache-status").contains("slice"));
}
