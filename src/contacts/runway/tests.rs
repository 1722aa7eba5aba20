use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What happens to a collection, by the second.
enum Event {
    /// A copy is kept, which lasts until then.
    Kept(u64),
    Succeeded,
    Failed,
    /// A caller gets less than a fresh answer.
    Wanted,
    Ended,
    Purged,
}

/// What is left at that second, after such a history.
fn left_at(history: &[(u64, Event)], at: u64) -> Option<u64> {
    let born = Instant::now();
    let (runway, mut epoch) = (Runway::new(born), Epoch::begin());
    for (second, event) in history {
        match event {
            Event::Kept(until) => runway.kept(epoch, born + seconds(*until)),
            Event::Succeeded => runway.succeeded(),
            Event::Failed => runway.failed(),
            Event::Wanted => runway.wanted(born + seconds(*second)),
            Event::Ended => runway.ended(),
            Event::Purged => epoch = Epoch::begin(),
        }
    }
    runway
        .left(epoch, born + seconds(at))
        .map(|left| left.as_secs())
}

#[test]
fn what_counts_and_how_long_it_lasts() {
    use Event::{Ended, Failed, Kept, Purged, Succeeded, Wanted};
    let kept = || (0, Kept(3600));
    let warm = WARM_FOR.as_secs();
    for (what, history, at, expected) in [
        ("nothing is known", vec![], 0, None),
        ("upstream is well", vec![kept(), (9, Wanted)], 10, None),
        ("nobody asks", vec![kept(), (9, Failed)], 10, None),
        (
            "it counts down",
            vec![kept(), (9, Failed), (9, Wanted)],
            100,
            Some(3500),
        ),
        (
            "it is out, and still asked for",
            vec![kept(), (9, Failed), (4000, Wanted)],
            4000,
            Some(0),
        ),
        (
            "asked for at the very start",
            vec![kept(), (0, Failed), (0, Wanted)],
            1,
            Some(3599),
        ),
        (
            "the last second in which it is warm",
            vec![kept(), (9, Failed), (9, Wanted)],
            9 + warm - 1,
            Some(3600 - 9 - warm + 1),
        ),
        (
            "nobody asks any more",
            vec![kept(), (9, Failed), (9, Wanted)],
            9 + warm,
            None,
        ),
        (
            "the best copy decides, and not the last",
            vec![kept(), (9, Kept(60)), (10, Failed), (10, Wanted)],
            20,
            Some(3580),
        ),
        (
            "upstream is back",
            vec![kept(), (9, Failed), (9, Wanted), (10, Succeeded)],
            10,
            None,
        ),
        ("never a copy", vec![(9, Failed), (9, Wanted)], 10, None),
        (
            "no such stream any more",
            vec![kept(), (9, Failed), (9, Wanted), (10, Ended), (11, Wanted)],
            20,
            None,
        ),
        (
            "copies were purged",
            vec![kept(), (9, Failed), (9, Wanted), (10, Purged)],
            20,
            None,
        ),
        (
            "what is kept after a purge does not last as long as what was before it",
            vec![
                kept(),
                (9, Purged),
                (10, Kept(70)),
                (11, Failed),
                (11, Wanted),
            ],
            20,
            Some(50),
        ),
    ] {
        assert_eq!(left_at(&history, at), expected, "{what}");
    }
}

#[test]
fn a_list_that_is_none_to_be_kept_is_no_outage() {
    for kind in [
        Kind::MergeTooLarge,
        Kind::MergeBusy,
        Kind::MergeInProgress,
        Kind::StreamNotFound,
        Kind::Internal,
    ] {
        assert!(!is_failure(kind), "{kind:?}");
    }
    for kind in [
        Kind::Upstream5xx,
        Kind::UpstreamTimeout,
        Kind::UpstreamUnavailable,
        Kind::UpstreamRateLimited,
        Kind::UpstreamAuthRejected,
        Kind::BudgetExhausted,
        Kind::TokenServiceUnavailable,
    ] {
        assert!(is_failure(kind), "{kind:?}");
    }
}
