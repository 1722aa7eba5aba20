use super::*;
use crate::contacts::{
    request::{Class, Urgency},
    testing,
    walking::{Begun, Current},
};

const SECOND: Duration = Duration::from_secs(1);

/// One row of the module's table for each state of a walk.
#[tokio::test(start_paused = true)]
async fn who_is_told_that_a_walk_outlasts_it() {
    let now = Instant::now();
    let terms = |seconds: u32, class, respond_async| Terms {
        deadline: now + seconds * SECOND,
        class,
        respond_async,
        ..testing::request(()).terms
    };
    let own = || terms(30, Class::Bulk, false);
    let told = |needed: Option<usize>, ends_in: u32, class| Progress {
        pages_needed: needed,
        ends_at: Some(now + ends_in * SECOND),
        class,
        ..Progress::default()
    };
    let urgency = |terms: &[Terms]| {
        let urgency = Urgency::of(&terms[0]);
        terms.iter().for_each(|terms| urgency.raise(terms));
        urgency
    };
    let alone = || urgency(&[own()]);
    let departed = || {
        let urgency = alone();
        urgency.part().depart();
        urgency
    };
    let longer = || urgency(&[own(), terms(31, Class::Bulk, false)]);
    let asynchronous = || urgency(&[terms(30, Class::Bulk, true)]);
    let (bulk, background) = (Class::Bulk, Class::Background);
    for (shown, urgency, progress, expected) in [
        ("in time", departed(), told(Some(9), 30, bulk), false),
        ("too late", departed(), told(Some(9), 31, bulk), true),
        (
            "as a walk of nobody",
            departed(),
            told(Some(9), 31, background),
            false,
        ),
        ("nothing known", departed(), Progress::default(), false),
        (
            "queued, for this one alone",
            alone(),
            told(None, 31, bulk),
            false,
        ),
        (
            "queued, for one who waits longer",
            longer(),
            told(None, 31, bulk),
            true,
        ),
        (
            "queued, for one who need not wait",
            asynchronous(),
            told(None, 31, bulk),
            true,
        ),
        (
            "queued, and soon",
            asynchronous(),
            told(None, 30, bulk),
            false,
        ),
    ] {
        let current = Current::default();
        let begun = current.begin(testing::list_key("st-1").epoch, urgency, now);
        assert_eq!(outlasts(&progress, &begun, &own()), expected, "{shown}");
        let over = Progress {
            end: Some(Ok(())),
            ..progress
        };
        assert!(!outlasts(&over, &begun, &own()), "{shown}, and over");
    }
}

fn begin<'a>(key: &'a ListKey, terms: &Terms) -> Begun<'a> {
    let (walking, urgency) = (&key.collection.walking, Urgency::of(terms));
    walking.begin(key.epoch, urgency, Instant::now())
}

/// Catches a caller that is told of another walk than the one it waits for, or of none that begins later.
#[tokio::test(start_paused = true)]
async fn each_epoch_has_its_own_walk() {
    let key = testing::list_key("st-1");
    let terms = testing::request(()).terms;
    let late = Progress {
        pages_done: 3,
        pages_needed: Some(9),
        ends_at: Some(terms.deadline + SECOND),
        class: terms.class,
        held_up: Some(Kind::UpstreamRateLimited),
        ..Progress::default()
    };
    assert!(overdue(&key).is_none());
    let mut waiting = Box::pin(outlasted(&key, &terms));
    {
        let older = begin(&key, &terms);
        assert!(overdue(&key).is_some());
        older.end(Err(Error::new(Kind::Upstream5xx, "for a test")));
    }
    assert!(futures_util::poll!(&mut waiting).is_pending());
    key.collection.scope.end_epoch();
    let again = ListKey {
        epoch: key.collection.epoch(),
        ..key.clone()
    };
    let other = begin(&again, &terms);
    other.tell(late.clone());
    assert!(futures_util::poll!(&mut waiting).is_pending());
    assert!(overdue(&key).is_none());
    drop(other);
    let own = begin(&key, &terms);
    own.tell(late);
    let error = waiting.await;
    assert_eq!(error.kind(), Kind::MergeInProgress);
    assert_eq!(error.wait(), Some(31 * SECOND));
    assert_eq!(
        error.detail(),
        "the list is being read, 3 of 9 pages so far, held up by upstream_rate_limited; it goes on, so ask again later"
    );
    let expected = Underway {
        pages_done: 3,
        pages_needed: Some(9),
        estimate: 31 * SECOND,
    };
    assert_eq!(error.is_underway(), Some(expected));
}
