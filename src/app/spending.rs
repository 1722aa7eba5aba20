//! Who spends an account's calls, and on what, over the stack as it is built.

use tokio::time;
use tower::ServiceExt;

use super::{
    stack::{CALL, LASTING, MINUTE, SECOND, Stack, bulk, whole},
    *,
};
use crate::{
    contacts::{page::PageKey, testing},
    error::{Again, Error, Kind},
    served::{Forward, Served},
    service::ServePage,
};

fn down() -> Error {
    Error::new(Kind::Upstream5xx, "down").again_by(Again::Later)
}

/// Asks for a page, and returns what came of it and how long that took.
async fn ask(pages: &impl ServePage, key: &PageKey) -> (Result<Served, Error>, Duration) {
    let began = Instant::now();
    let answer = pages.clone().oneshot(testing::request(key.clone())).await;
    (answer.map(|answer| answer.served), began.elapsed())
}

/// Lets whatever can go on go on.
async fn settle() {
    time::sleep(Duration::from_millis(1)).await;
}

/// U4. Catches a patience that ends before upstream said, and a refusal that is forgotten where it is too long for the
/// one who asks.
#[tokio::test(start_paused = true)]
async fn a_503_is_tried_again_when_it_says_and_not_before() {
    let told = |seconds| down().retry_after(Duration::from_secs(seconds));
    let stack = Stack::new(&[("acme", 60)], &whole());
    let pages = stack.pages(LASTING, stack.below());
    let key = stack.page("acme", "st-1", 0);
    let mut once = Some(told(20));
    stack.upstream.fail(move |_| once.take());
    let (outcome, took) = ask(&pages, &key).await;
    assert!(outcome.is_ok());
    let least = 20 * SECOND + 2 * CALL;
    assert!((least..least + SECOND).contains(&took), "{took:?}");
    assert_eq!(stack.upstream.seen(), 2);

    // Longer than anybody waits: told at once, and remembered for as long.
    let key = stack.page("acme", "st-1", 10);
    stack.upstream.fail(move |_| Some(told(45)));
    let (outcome, took) = ask(&pages, &key).await;
    assert_eq!(outcome.unwrap_err().wait(), Some(45 * SECOND));
    assert_eq!(took, CALL);
    time::sleep(44 * SECOND).await;
    let (outcome, _) = ask(&pages, &key).await;
    let error = outcome.unwrap_err();
    assert_eq!(
        (error.kind(), error.wait()),
        (Kind::Upstream5xx, Some(SECOND))
    );
    assert_eq!(stack.upstream.seen(), 3);
    stack.upstream.heal();
    time::sleep(SECOND).await;
    assert!(ask(&pages, &key).await.0.is_ok());
}

/// Catches a caller that waits for a second try whose turn would come too late, when the first one's error is known.
#[tokio::test(start_paused = true)]
async fn another_try_is_not_waited_for_longer_than_anybody_waits() {
    let stack = Stack::new(&[("acme", 60)], &whole());
    let pages = stack.pages(LASTING, stack.below());
    for number in 0..59 {
        let key = stack.page("acme", "st-1", number * 10);
        assert!(ask(&pages, &key).await.0.is_ok());
    }
    stack.upstream.fail(|_| Some(down()));
    let (outcome, took) = ask(&pages, &stack.page("acme", "st-1", 590)).await;
    assert_eq!(outcome.unwrap_err().kind(), Kind::Upstream5xx);
    assert!(took < SECOND, "{took:?}");
    time::sleep(2 * MINUTE).await;
    assert_eq!(stack.upstream.seen(), 60);
}

/// U24. Catches a breaker that opens because of one stream, one credential or one account's limit.
#[tokio::test(start_paused = true)]
async fn refusals_never_open_the_breaker() {
    for kind in [
        Kind::UpstreamAuthRejected,
        Kind::StreamNotFound,
        Kind::UpstreamRateLimited,
    ] {
        let stack = Stack::new(&[("acme", 600), ("other", 600)], &whole());
        let pages = stack.pages(LASTING, stack.below());
        stack.upstream.fail(move |key| {
            let acme = &*key.collection.account.name == "acme";
            acme.then(|| Error::new(kind, "refused").retry_after(SECOND))
        });
        for number in 0..10 {
            let key = stack.page("acme", &format!("st-{number}"), 0);
            assert_eq!(ask(&pages, &key).await.0.unwrap_err().kind(), kind);
            time::sleep(SECOND).await;
        }
        let (outcome, took) = ask(&pages, &stack.page("other", "st-1", 0)).await;
        assert!(outcome.is_ok(), "{kind:?}");
        assert_eq!(took, CALL);
    }
}

/// U24. Catches calls that had waited for their turn when the breaker opened, and are made all the same.
#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_is_not_sent_once_the_breaker_is_open() {
    let stack = Stack::new(&[("acme", 60), ("other", 600)], &whole());
    let pages = stack.pages(LASTING, stack.below());
    for number in 0..60 {
        let key = stack.page("acme", "st-1", number * 10);
        assert!(ask(&pages, &key).await.0.is_ok());
    }
    time::sleep(MINUTE - 10 * SECOND).await;
    // Ten that wait for slots which come free while upstream is down.
    let waiting: Vec<_> = (0..10)
        .map(|number| {
            let (pages, key) = (pages.clone(), stack.page("acme", "st-2", number * 10));
            tokio::spawn(async move { ask(&pages, &key).await })
        })
        .collect();
    settle().await;
    assert_eq!(stack.upstream.seen(), 60, "nothing is free yet");
    stack.upstream.fail(|_| Some(down()));
    // Another account's calls find out, again and again.
    let end = Instant::now() + 20 * SECOND;
    let mut number = 0;
    while Instant::now() < end {
        number += 1;
        let _ = ask(&pages, &stack.page("other", "st-1", number * 10)).await;
        time::sleep(SECOND / 5).await;
    }
    for waiting in waiting {
        let error = waiting.await.unwrap().0.unwrap_err();
        assert_eq!(error.kind(), Kind::UpstreamUnavailable);
    }
    // Five failures, and one probe each five seconds.
    assert!(
        stack.upstream.seen() <= 60 + 5 + 4,
        "{}",
        stack.upstream.seen()
    );
}

/// U24. Catches a probe that keeps the field while it waits for one account's turn, with all others shut out.
#[tokio::test(start_paused = true)]
async fn a_probe_that_must_wait_for_its_turn_leaves_the_field_to_others() {
    let stack = Stack::new(&[("acme", 60), ("other", 60)], &whole());
    let pages = stack.pages(LASTING, stack.below());
    for number in 0..60 {
        let key = stack.page("acme", "st-1", number * 10);
        assert!(ask(&pages, &key).await.0.is_ok());
    }
    time::sleep(MINUTE - 30 * SECOND).await;
    stack.upstream.fail(|_| Some(down()));
    for number in 0..3 {
        let key = stack.page("other", "st-1", number * 10);
        assert!(ask(&pages, &key).await.0.is_err());
    }
    stack.upstream.heal();
    time::sleep(5 * SECOND).await;
    // The first one after the rest would be the probe, but its account has no call left for a while.
    let (waiting, key) = (pages.clone(), stack.page("acme", "st-2", 0));
    let waiting = tokio::spawn(async move { ask(&waiting, &key).await });
    settle().await;
    let (outcome, took) = ask(&pages, &stack.page("other", "st-2", 0)).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(took, CALL);
    assert!(waiting.await.unwrap().0.is_ok());
}

/// Catches a walk that has failed and goes on spending what others wait for.
#[tokio::test(start_paused = true)]
async fn the_pages_of_a_failed_walk_that_wait_for_their_turn_are_not_asked_for() {
    let stack = Stack::new(&[("acme", 10)], &whole());
    let lists = stack.lists(LASTING, stack.below());
    stack.upstream.fail(|key| {
        let broken = key.window.skip > 200;
        broken.then(|| Error::new(Kind::UpstreamSchema, "no page"))
    });
    let began = Instant::now();
    let mut request = bulk(stack.list("acme", "st-1"));
    // As long as it would take.
    request.terms.deadline += 5 * MINUTE;
    let outcome = lists.oneshot(request).await;
    assert_eq!(outcome.unwrap_err().kind(), Kind::UpstreamSchema);
    assert!(began.elapsed() < SECOND);
    let seen = stack.upstream.seen();
    // A reserve of two, so that eight of the ten are the walk's, and one page waits.
    assert!((2..=8).contains(&seen), "{seen}");
    time::sleep(5 * MINUTE).await;
    assert_eq!(stack.upstream.seen(), seen);
}

/// Catches a walk that nothing helps over a stumble once the first who asked for it have gone: all its calls for nothing.
#[tokio::test(start_paused = true)]
async fn a_walk_is_helped_over_a_stumble_however_long_it_takes() {
    let stack = Stack::new(&[("acme", 10)], &whole());
    let lists = stack.lists(LASTING, stack.below());
    let (key, mut once) = (stack.list("acme", "st-1"), Some(down()));
    stack.upstream.fail(move |key| match key.window.skip {
        800.. => once.take(),
        _ => None,
    });
    let early = lists.clone().oneshot(bulk(key.clone())).await;
    assert_eq!(early.unwrap_err().kind(), Kind::MergeInProgress);
    time::sleep(3 * MINUTE).await;
    let late = lists.oneshot(bulk(key)).await.unwrap();
    assert_eq!(late.served, Served::Hit);
    // Twelve for the list, and the one that failed.
    assert_eq!(stack.upstream.seen(), 13);
}

/// C13. Catches a call that is made for callers who have all left, and one that is broken off because they have.
#[tokio::test(start_paused = true)]
async fn whoever_leaves_before_the_call_saves_it_and_after_it_fills_the_cache() {
    let stack = Stack::new(&[("acme", 60)], &whole());
    let pages = stack.pages(LASTING, stack.below());
    for number in 0..59 {
        let key = stack.page("acme", "st-1", number * 10);
        assert!(ask(&pages, &key).await.0.is_ok());
    }
    time::sleep(40 * SECOND).await;
    let leave = |key: &PageKey, callers: usize| {
        let callers: Vec<_> = (0..callers)
            .map(|_| {
                let (pages, key) = (pages.clone(), key.clone());
                tokio::spawn(async move { ask(&pages, &key).await })
            })
            .collect();
        async move {
            settle().await;
            for caller in callers {
                caller.abort();
            }
        }
    };
    let (dispatched, queued) = (
        stack.page("acme", "st-2", 0),
        stack.page("acme", "st-2", 10),
    );
    leave(&dispatched, 3).await;
    leave(&queued, 3).await;
    time::sleep(MINUTE).await;
    assert_eq!(stack.upstream.seen(), 60);
    assert_eq!(ask(&pages, &dispatched).await.0.unwrap(), Served::Hit);
    assert!(ask(&pages, &queued).await.0.unwrap() != Served::Hit);
}

/// Catches a caller that is not noticed where a ticket was not worth the last slots, and waits as if it were not there.
#[tokio::test(start_paused = true)]
async fn a_ticket_that_becomes_urgent_takes_a_slot_that_was_kept_for_such() {
    let stack = Stack::new(&[("acme", 60)], &whole());
    let lifetime = Lifetime {
        fresh_for: 30 * SECOND,
        stale_for: 10 * SECOND,
    };
    let pages = stack.pages(lifetime, stack.below());
    let key = stack.page("acme", "st-1", 0);
    time::sleep(MINUTE).await;
    assert!(ask(&pages, &key).await.0.is_ok());
    for number in 1..55 {
        let key = stack.page("acme", "st-1", number * 10);
        assert!(ask(&pages, &key).await.0.is_ok());
    }
    time::sleep(35 * SECOND - 55 * CALL).await;
    // Five are left, and what nobody waits for gets none of them. It may wait for others, which are still far off.
    let (stale, _) = ask(&pages, &key).await;
    assert!(matches!(stale, Ok(Served::Stale(_))), "{stale:?}");
    assert_eq!(stack.upstream.seen(), 55);
    time::sleep(6 * SECOND).await;
    let (outcome, took) = ask(&pages, &key).await;
    assert_eq!(outcome.unwrap(), Served::Joined(Forward::Stale));
    assert_eq!(took, CALL);
}

/// Catches work for each stale answer of an outage: a flight, a call or a line in the log.
#[tokio::test(start_paused = true)]
async fn stale_answers_cost_next_to_nothing_while_upstream_is_down() {
    let stack = Stack::new(&[("acme", 60)], &whole());
    let lifetime = Lifetime {
        fresh_for: SECOND,
        stale_for: 10 * MINUTE,
    };
    let pages = stack.pages(lifetime, stack.below());
    let key = stack.page("acme", "st-1", 0);
    assert!(ask(&pages, &key).await.0.is_ok());
    stack.upstream.fail(|_| Some(down()));
    time::sleep(SECOND).await;
    let (began, mut flights) = (stack.upstream.seen(), Vec::new());
    for _ in 0..60 {
        for _ in 0..1_000 {
            let (outcome, took) = ask(&pages, &key).await;
            assert!(matches!(outcome, Ok(Served::Stale(_))), "{outcome:?}");
            assert_eq!(took, Duration::ZERO);
        }
        // A flight is a task, and so is the wait for one.
        flights.push(
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks(),
        );
        time::sleep(SECOND).await;
    }
    assert!(flights.iter().all(|tasks| *tasks <= 2), "{flights:?}");
    let calls = stack.upstream.seen() - began;
    assert!(calls <= 60 / 4 + 6, "{calls}");
}
