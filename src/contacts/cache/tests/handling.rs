//! Answers that are none for every caller.

use std::sync::Mutex;

use super::*;
use crate::contacts::verdict::{Checks, Handling, Verdict};

/// The stage over one that takes a second and answers with these verdicts, one after another.
fn judging(
    verdicts: &[Verdict],
) -> (
    Cache<
        Shelf,
        impl Service<Fetch<u8>, Response = Value, Error = Error, Future: Send> + Clone + use<>,
    >,
    Arc<AtomicUsize>,
) {
    let verdicts = Arc::new(Mutex::new(verdicts.to_vec()));
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let inner = service_fn(move |fetch: Fetch<u8>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let verdict = verdicts.lock().unwrap().remove(0);
        async move {
            time::sleep(seconds(1)).await;
            Ok(Value {
                verdict,
                ..Value::of(fetch.key)
            })
        }
    });
    (over(inner), calls)
}

const VERIFIED: Verdict = Verdict::Verified(Checks::Seam);

fn by(handling: Handling) -> Request<u8> {
    let mut request = testing::request(1);
    request.terms.handling = handling;
    request
}

const ALL: [Handling; 3] = [Handling::Default, Handling::Strict, Handling::Lenient];

/// Catches a drifting list that is kept, one that is not remembered as a failure, and a lenient caller who is not told it.
#[tokio::test(start_paused = true)]
async fn one_flight_is_an_answer_for_some_and_a_failure_for_others() {
    let (cache, calls) = judging(&[Verdict::Drifting, VERIFIED]);
    let asked = ALL.map(|handling| cache.clone().oneshot(by(handling)));
    let outcomes = join_all(asked).await.into_iter().map(|outcome| {
        outcome
            .map(|answer| (answer.copy.verdict, answer.copy.is_kept()))
            .map_err(|error| (error.kind(), error.how()))
    });
    let joined = Served::Joined(Forward::Miss);
    assert_eq!(
        outcomes.collect::<Vec<_>>(),
        [
            Err((Kind::MergeDrifting, Some(Served::Fetched(Forward::Miss)))),
            Err((Kind::MergeDrifting, Some(joined))),
            Ok((Verdict::Drifting, false)),
        ]
    );
    // It rests for a second, for all.
    for handling in ALL {
        let rests = cache.clone().oneshot(by(handling)).await.unwrap_err();
        assert_eq!(rests.kind(), Kind::MergeDrifting);
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    time::advance(seconds(1)).await;
    let good = cache.clone().oneshot(by(Handling::Strict)).await.unwrap();
    assert_eq!((good.copy.verdict, good.copy.is_kept()), (VERIFIED, true));
}

/// Catches a good copy that gives way to what is none.
#[tokio::test(start_paused = true)]
async fn what_is_no_answer_does_not_replace_one() {
    let (cache, calls) = judging(&[VERIFIED, Verdict::Drifting]);
    cache.clone().oneshot(by(Handling::Default)).await.unwrap();
    time::advance(seconds(10)).await;
    let mut forced = by(Handling::Default);
    forced.terms.directives.no_cache = true;
    let error = cache.clone().oneshot(forced).await.unwrap_err();
    assert_eq!(error.kind(), Kind::MergeDrifting);
    let held = cache.clone().oneshot(by(Handling::Default)).await.unwrap();
    assert_eq!((held.copy.verdict, held.served), (VERIFIED, Served::Hit));
    assert_eq!(calls.load(Ordering::Relaxed), 2);
}

/// Catches a strict caller who is answered with less, and one whose every request costs a walk.
#[tokio::test(start_paused = true)]
async fn a_copy_that_is_not_good_enough_is_an_error_and_costs_nothing() {
    for verdict in [Verdict::Settled, Verdict::Consistent] {
        let (cache, calls) = judging(&[verdict]);
        for handling in ALL {
            let outcome = cache.clone().oneshot(by(handling)).await;
            match handling {
                Handling::Strict => {
                    assert_eq!(outcome.unwrap_err().kind(), Kind::MergeUnverified);
                }
                _ => assert_eq!(outcome.unwrap().copy.verdict, verdict),
            }
        }
        assert_eq!(calls.load(Ordering::Relaxed), 1);
    }
}
