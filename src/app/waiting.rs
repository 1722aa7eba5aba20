//! Who waits for a list, for how long, and what becomes of its walk, over the stack as it is built.

use tokio::task::JoinSet;
use tokio::time;
use tower::ServiceExt;

use super::{
    stack::{CALL, LASTING, MINUTE, SECOND, Stack, bulk, whole},
    *,
};
use crate::{
    contacts::{
        list::{List, ListKey},
        request::{Class, Request, Terms},
        testing,
    },
    error::{Error, Kind, Underway},
    served::{Answer, Served},
    service::ServeList,
};

/// Asks for a list, and returns what came of it and how long that took.
async fn ask(
    lists: &impl ServeList,
    request: Request<ListKey>,
) -> (Result<Answer<List>, Error>, Duration) {
    let began = Instant::now();
    let answer = lists.clone().oneshot(request).await;
    (answer, began.elapsed())
}

/// A request that waits so long.
fn waiting(key: &ListKey, wait: Duration) -> Request<ListKey> {
    let mut request = bulk(key.clone());
    request.terms.deadline = Instant::now() + wait;
    request
}

fn underway(error: &Error) -> Underway {
    assert_eq!(error.kind(), Kind::MergeInProgress, "{error}");
    assert_eq!(error.wait(), Some(error.is_underway().unwrap().estimate));
    error.is_underway().unwrap()
}

/// Ten thousand contacts within sixty calls a minute. Catches an estimate that is off, a walk that its callers' leaving
/// ends, one that takes the interactive callers' slots, and a caller who waits for what it will not see.
#[tokio::test(start_paused = true)]
async fn ten_thousand_contacts_take_until_the_second_minute() {
    let stack = Stack::of(&[("acme", 60)], &whole(), 10_000);
    let below = stack.below();
    let (lists, key) = (
        stack.lists(LASTING, below.clone()),
        stack.list("acme", "st-1"),
    );
    let began = Instant::now();
    let (outcome, took) = ask(&lists, bulk(key.clone())).await;
    assert_eq!(took, CALL, "with the first page it is known");
    let told = underway(&outcome.unwrap_err());
    assert_eq!((told.pages_done, told.pages_needed), (1, Some(101)));

    // Somebody reads a page now and then.
    let pages = stack.pages(LASTING, below);
    for number in 0..6 {
        time::sleep(5 * SECOND).await;
        let key = stack.page("acme", "st-2", number * 10);
        let began = Instant::now();
        assert!(pages.clone().oneshot(testing::request(key)).await.is_ok());
        assert_eq!(began.elapsed(), CALL, "page {number}");
    }
    // Whoever comes later is told less, and whoever waits long enough has it.
    let (outcome, took) = ask(&lists, waiting(&key, 20 * SECOND)).await;
    assert_eq!(took, Duration::ZERO);
    let later = underway(&outcome.unwrap_err());
    assert!(later.pages_done > 40 && later.estimate < told.estimate - 29 * SECOND);
    let (outcome, _) = ask(&lists, waiting(&key, MINUTE)).await;
    let end = began.elapsed();
    assert!(matches!(outcome.unwrap().served, Served::Joined(_)));
    assert!((MINUTE..2 * MINUTE).contains(&end), "{end:?}");
    let off = end.abs_diff(CALL + told.estimate);
    assert!(off * 5 <= end, "{told:?}, and it was {end:?}");
    assert_eq!(stack.upstream.seen(), 102 + 6);
    let (outcome, _) = ask(&lists, bulk(key)).await;
    assert_eq!(outcome.unwrap().served, Served::Hit);
}

/// Catches a second walk, and a caller of many who is told something else.
#[tokio::test(start_paused = true)]
async fn fifty_callers_of_one_cold_list_are_one_walk() {
    for (contacts, calls) in [(1000, 12), (10_000, 102)] {
        let stack = Stack::of(&[("acme", 60)], &whole(), contacts);
        let lists = stack.lists(LASTING, stack.below());
        let key = stack.list("acme", "st-1");
        let mut callers = JoinSet::new();
        for _ in 0..50 {
            callers.spawn(lists.clone().oneshot(bulk(key.clone())));
        }
        let outcomes = callers.join_all().await;
        for outcome in &outcomes {
            match outcome {
                Ok(answer) => assert_eq!(answer.copy.walked.calls, calls),
                Err(error) => assert_eq!(underway(error).pages_needed, Some(101)),
            }
            assert_eq!(outcome.is_ok(), calls == 12);
        }
        time::sleep(2 * MINUTE).await;
        assert_eq!(stack.upstream.seen(), calls);
    }
}

/// U5, in the middle of a walk. Catches one that begins anew, one that dies of it, and an estimate that forgets the pause.
#[tokio::test(start_paused = true)]
async fn a_walk_goes_on_after_a_pause() {
    // The account's, which its budget knows of, and one that only the walk was told of.
    for kind in [Kind::UpstreamRateLimited, Kind::Upstream5xx] {
        pause(kind).await;
    }
}

async fn pause(kind: Kind) {
    let stack = Stack::of(&[("acme", 600)], &whole(), 3000);
    let (lists, key) = (
        stack.lists(LASTING, stack.below()),
        stack.list("acme", "st-1"),
    );
    let mut refusals = 1;
    stack.upstream.fail(move |key| {
        let refused = key.window.skip > 1500 && refusals > 0;
        refusals -= i32::from(refused);
        let error = Error::new(kind, "refused");
        refused.then(|| error.retry_after(45 * SECOND))
    });
    let began = Instant::now();
    let (outcome, took) = ask(&lists, bulk(key.clone())).await;
    assert!(took < 2 * SECOND, "{took:?}");
    let error = outcome.unwrap_err();
    let told = underway(&error);
    assert!(told.pages_done >= 16, "{told:?}");
    assert!(
        (44 * SECOND..50 * SECOND).contains(&told.estimate),
        "{told:?}"
    );
    assert!(error.detail().contains(kind.code()));
    let (outcome, _) = ask(&lists, waiting(&key, MINUTE)).await;
    assert!(outcome.is_ok());
    assert!((45 * SECOND..50 * SECOND).contains(&began.elapsed()));
    let calls = stack.upstream.calls.lock().unwrap();
    let asked = |skip| {
        calls
            .iter()
            .filter(|call| call.key.window.skip == skip)
            .count()
    };
    // The first page closes the walk as well.
    assert_eq!((asked(0), asked(99), asked(99 * 15)), (2, 1, 1));
    assert_eq!(calls.len(), 32 + 1);
}

/// Catches a walk that dies of a short outage, one that never gives up, and a failure that its callers do not get to know.
#[tokio::test(start_paused = true)]
async fn a_walk_outlasts_short_failures_and_gives_up_on_long_ones() {
    for (kind, failures, whole_list) in [
        (Kind::Upstream5xx, 3, true),
        (Kind::UpstreamUnreachable, 4, true),
        (Kind::Upstream5xx, 1000, false),
        (Kind::UpstreamSchema, 1, false),
        (Kind::StreamNotFound, 1, false),
    ] {
        let stack = Stack::of(&[("acme", 600)], &whole(), 300);
        let (lists, key) = (
            stack.lists(LASTING, stack.below()),
            stack.list("acme", "st-1"),
        );
        let mut left = failures;
        stack.upstream.fail(move |key| {
            let fails = key.window.skip == 99 && left > 0;
            left -= i32::from(fails);
            fails.then(|| Error::new(kind, "failed"))
        });
        let (outcome, took) = ask(&lists, bulk(key)).await;
        assert!(took < 20 * SECOND, "{kind:?}: {took:?}");
        match outcome {
            Ok(_) => assert!(whole_list, "{kind:?}"),
            Err(error) => assert_eq!((error.kind(), whole_list), (kind, false)),
        }
        // 1 + 2 + 4 + 8 s of rests, and no more calls than that.
        assert_eq!(took > 15 * SECOND, failures >= 4, "{kind:?}: {took:?}");
        let calls = stack.upstream.calls.lock().unwrap();
        let asked = calls.iter().filter(|call| call.key.window.skip == 99);
        assert!(asked.count() <= 6);
    }
}

/// C18, C13. Catches a promise that is not kept, and one that nobody was given.
#[tokio::test(start_paused = true)]
async fn who_need_not_wait_is_told_so_and_the_walk_goes_on() {
    let stack = Stack::of(&[("acme", 60)], &whole(), 1000);
    let below = stack.below();
    let (lists, pages) = (
        stack.lists(LASTING, below.clone()),
        stack.pages(LASTING, below),
    );
    for number in 0..60 {
        let key = stack.page("acme", "st-2", number * 10);
        assert!(pages.clone().oneshot(testing::request(key)).await.is_ok());
    }
    // Its calls are used up for the rest of the minute.
    let (plain, promised) = (stack.list("acme", "st-1"), stack.list("acme", "st-3"));
    let (outcome, took) = ask(&lists, bulk(plain)).await;
    assert_eq!(outcome.unwrap_err().kind(), Kind::BudgetExhausted);
    assert_eq!(took, Duration::ZERO);
    let mut request = bulk(promised.clone());
    request.terms.respond_async = true;
    let (outcome, took) = ask(&lists, request).await;
    assert_eq!(took, Duration::ZERO);
    let told = underway(&outcome.unwrap_err());
    assert_eq!((told.pages_done, told.pages_needed), (0, None));
    assert!(
        (53 * SECOND..=61 * SECOND).contains(&told.estimate),
        "{told:?}"
    );
    // Another one, who would not have been waited for, profits.
    let (outcome, _) = ask(&lists, bulk(promised.clone())).await;
    underway(&outcome.unwrap_err());
    time::sleep(80 * SECOND).await;
    let (outcome, _) = ask(&lists, bulk(promised)).await;
    assert_eq!(outcome.unwrap().served, Served::Hit);
    assert_eq!(stack.upstream.seen(), 60 + 12);
}

/// Catches a caller that is told upstream did not answer, while its list is being read.
#[tokio::test(start_paused = true)]
async fn at_the_deadline_it_is_told_that_the_walk_goes_on() {
    let stack = Stack::of(&[("acme", 60)], &whole(), 1000);
    let (lists, key) = (
        stack.lists(LASTING, stack.below()),
        stack.list("acme", "st-1"),
    );
    // It ends before the first page is there.
    let (outcome, took) = ask(&lists, waiting(&key, CALL / 2)).await;
    assert_eq!(took, CALL / 2);
    assert_eq!(underway(&outcome.unwrap_err()).pages_needed, None);
    let (outcome, _) = ask(&lists, bulk(key)).await;
    assert!(outcome.is_ok());
    assert_eq!(stack.upstream.seen(), 12);
}

/// Catches refresh walks that take more than their share, and one that is not finished at the class of whoever joins it.
#[tokio::test(start_paused = true)]
async fn lists_are_read_anew_at_a_share_of_the_calls() {
    let brief = Lifetime {
        fresh_for: MINUTE,
        stale_for: 24 * 60 * MINUTE,
    };
    let stack = Stack::of(&[("acme", 60)], &whole(), 10_000);
    let lists = stack.lists(brief, stack.below());
    let key = stack.list("acme", "st-1");
    assert!(ask(&lists, waiting(&key, 3 * MINUTE)).await.0.is_ok());
    assert_eq!(stack.upstream.seen(), 102);
    // Fresh for four times its walk, at least.
    time::sleep(10 * MINUTE).await;
    let begun = Instant::now();
    let (outcome, took) = ask(&lists, bulk(key.clone())).await;
    assert!(matches!(outcome.unwrap().served, Served::Stale(_)));
    assert_eq!(took, Duration::ZERO);
    time::sleep(4 * MINUTE).await;
    {
        let calls = stack.upstream.calls.lock().unwrap();
        let at: Vec<_> = calls[102..].iter().map(|call| call.at).collect();
        let in_a_minute = |from: &Instant| {
            let to = *from + MINUTE;
            at.iter().filter(|at| (*from..to).contains(at)).count()
        };
        assert_eq!(at.iter().map(in_a_minute).max(), Some(15));
        assert_eq!(at.len(), 60, "fifteen a minute, and no fewer");
        assert!(at[0] - begun < SECOND);
    }
    // Somebody will have no copy, so that now somebody waits.
    let mut request = waiting(&key, 2 * MINUTE);
    request.terms.directives.no_cache = true;
    let (outcome, took) = ask(&lists, request).await;
    assert!(outcome.is_ok());
    assert!(took < MINUTE, "{took:?}");
    assert_eq!(stack.upstream.seen(), 2 * 102);
}

/// A fresh copy that will not do, and a failure that would be no reason to refuse it. Catches an answer that is withheld.
#[tokio::test(start_paused = true)]
async fn a_copy_that_would_do_in_a_failure_does_if_the_walk_takes_too_long() {
    let stack = Stack::of(&[("acme", 60)], &whole(), 10_000);
    let (lists, key) = (
        stack.lists(LASTING, stack.below()),
        stack.list("acme", "st-1"),
    );
    assert!(ask(&lists, waiting(&key, 3 * MINUTE)).await.0.is_ok());
    // Beyond its floor, which is four times its walk.
    time::sleep(5 * MINUTE).await;
    for (forgiving, expected) in [(false, None), (true, Some(Kind::MergeInProgress))] {
        let mut request: Request<ListKey> = bulk(key.clone());
        let Terms {
            directives, class, ..
        } = &mut request.terms;
        assert_eq!(*class, Class::Bulk);
        directives.no_cache = true;
        directives.stale_if_error = forgiving.then_some(MINUTE);
        let (outcome, took) = ask(&lists, request).await;
        assert!(took < SECOND);
        match outcome {
            Ok(answer) => assert_eq!(answer.served, Served::Stale(expected)),
            Err(error) => {
                underway(&error);
                assert!(!forgiving);
            }
        }
    }
}

/// Catches an estimate in which calls under way need a slot once more.
#[tokio::test(start_paused = true)]
async fn a_list_that_just_fits_is_read_at_once() {
    let stack = Stack::of(&[("acme", 60)], &whole(), 5200);
    stack.upstream.stagger(CALL / 20);
    let (lists, key) = (
        stack.lists(LASTING, stack.below()),
        stack.list("acme", "st-1"),
    );
    let (outcome, took) = ask(&lists, bulk(key)).await;
    assert_eq!(outcome.unwrap().copy.walked.calls, 54);
    assert!(took < 2 * SECOND, "{took:?}");
}
