//! Other upstreams than the documented one: pages that are counted, limits that are clamped or refused.

use contacts_gateway::{
    simulator::{DEMO_ACCOUNT_ID, DEMO_STREAM_ID, LimitMax, Paging},
    upstream,
};

use crate::support::{World, list, page};

async fn counted_in_pages(limit_max: LimitMax) -> World {
    World::with(
        |settings| {
            settings.paging = Paging::PageLimit;
            settings.limit_max = limit_max;
        },
        |config| config.upstream.paging = upstream::Paging::PageLimit,
    )
    .await
}

/// Catches a style that only the first page survives.
#[tokio::test]
async fn an_upstream_that_counts_pages_is_served_in_pages() {
    let world = counted_in_pages(LimitMax::Clamp(100)).await;
    for (query, skip, limit) in [
        ("", 0, 10),
        ("?page=1", 0, 10),
        ("?page=2&limit=30", 30, 30),
        ("?limit=7&page=143", 994, 7),
        ("?page=5000&limit=10", 49_990, 10),
        // The first record follows from the limit that upstream applied.
        ("?page=3&limit=150", 200, 100),
    ] {
        let answer = world.get(query).await.ok();
        let held = page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, skip, limit);
        assert_eq!(answer.text(), held, "{query}");
        let direct = world.direct(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, query).await;
        assert_eq!(answer.body, direct.body, "{query}");
        assert!(world.get(query).await.ok().is_hit(), "{query}");
    }
    world.kore.clear_requests();
    for query in [
        "?skip=0",
        "?skip=0&limit=10",
        "?page=0",
        "?page=01",
        "?page=-1",
        "?page=1&page=1",
        "?page=18446744073709551616",
        "?page=18446744073709551615&limit=1000",
        "?all=true&page=1",
    ] {
        world.get(query).await.is_problem(400, "bad_parameter");
    }
    assert_eq!(world.kore.requests().len(), 0);
}

/// Catches a list that claims more than one walk without overlaps can know, and windows that are cut from it.
#[tokio::test]
async fn a_list_that_is_counted_in_pages_is_consistent_and_no_more() {
    let world = counted_in_pages(LimitMax::Clamp(100)).await;
    let answer = world.get("?all=true").await.ok();
    assert!(answer.text() == list(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000));
    let told = answer.header("merge-status");
    assert!(
        told.starts_with("consistent; pages=10; records=1000; calls=10; oldest="),
        "{told}"
    );
    assert!(world.get("?all=true").await.ok().is_hit());
    let window = world.get("?page=2").await.ok();
    assert!(window.is_miss(), "only a verified list is cut: {window:?}");
}

/// Catches a clamp that is refused, mended, or kept under the window that upstream made of it.
#[tokio::test]
async fn a_smaller_limit_than_asked_is_passed_on_as_it_is() {
    let world = World::with(|settings| settings.limit_max = LimitMax::Clamp(50), |_| ()).await;
    for (query, skip) in [("?limit=51", 0), ("?skip=900&limit=1000", 900)] {
        let answer = world.get(query).await.ok();
        let held = page(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000, skip, 50);
        assert_eq!(answer.text(), held, "{query}");
        assert!(answer.is_miss());
        assert!(world.get(query).await.ok().is_hit(), "{query}");
        // The window of the echo is another key.
        let other = world.get(&format!("?skip={skip}&limit=50")).await.ok();
        assert!(other.is_miss() && other.body == answer.body, "{query}");
    }
    assert_eq!(world.calls(), 4);
    let answer = world.get("?all=true").await.ok();
    assert!(answer.text() == list(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000));
}

/// Catches a walk that gives up where a large `limit` is an error instead of a clamp.
#[tokio::test]
async fn an_upstream_that_refuses_large_limits_still_gives_the_list() {
    for paging in [Paging::SkipLimit, Paging::PageLimit] {
        let world = World::with(
            |settings| {
                settings.limit_max = LimitMax::Refuse(10);
                settings.paging = paging;
            },
            |config| {
                if paging == Paging::PageLimit {
                    config.upstream.paging = upstream::Paging::PageLimit;
                }
            },
        )
        .await;
        let answer = world.get("?all=true").await.ok();
        assert!(answer.text() == list(DEMO_ACCOUNT_ID, DEMO_STREAM_ID, 1_000));
        let told = answer.header("merge-status");
        let calls = world.calls();
        assert!(told.contains(&format!("calls={calls};")), "{told}");
        // A page is not ours to mend: its limit is the caller's.
        let refused = world.stream("st-page", "?limit=11").await;
        refused.is_problem(502, "upstream_4xx");
        world.stream("st-page", "?limit=10").await.ok();
    }
}
