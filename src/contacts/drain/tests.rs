use std::time::Duration;

use futures_util::FutureExt;

use super::*;
use crate::contacts::testing;

fn told(ends_in: Option<u64>) -> Progress {
    Progress {
        ends_at: ends_in.map(|s| Instant::now() + Duration::from_secs(s)),
        ..Progress::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_abandoned_as_soon_as_it_will_be_too_late_and_not_before() {
    for (estimates, expected) in [
        // At what second it says what of its end; when it is abandoned.
        (&[(0, Some(40))][..], 0),
        (&[(0, Some(5))], 10),
        (&[(0, None)], 10),
        (&[(0, Some(5)), (3, Some(20))], 3),
        (&[(0, None), (4, Some(5)), (6, Some(5))], 6),
    ] {
        let drain = Drain::default();
        let reading = drain.reading(&testing::collection("st-1"));
        let progress = watch::Sender::new(told(None));
        let begun = Instant::now();
        drain.begin(begun + Duration::from_secs(10));
        let telling = async {
            for (second, estimate) in estimates {
                time::sleep_until(begun + Duration::from_secs(*second)).await;
                progress.send_replace(told(*estimate));
            }
            future::pending::<()>().await;
        };
        let error = select! {
            biased;
            () = telling => unreachable!(),
            error = reading.abandoned(progress.subscribe()) => error,
        };
        assert_eq!(error.kind(), Kind::Draining);
        assert_eq!(begun.elapsed().as_secs(), expected, "{estimates:?}");
        assert!(error.wait().is_some());
        drop(reading);
        assert_eq!(drain.abandoned().to_string(), "acme/st-1");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_process_goes_on_nothing_is_abandoned() {
    let drain = Drain::default();
    let reading = drain.reading(&testing::collection("st-1"));
    let progress = watch::Sender::new(told(Some(4_000)));
    let abandoned = reading.abandoned(progress.subscribe());
    assert!(abandoned.now_or_never().is_none());
    assert!(drain.over().now_or_never().is_none());
    // One that is read to its end is no loss.
    drop(reading);
    assert!(drain.abandoned().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_still_being_read_at_the_end_is_told_by_name() {
    let drain = Drain::default();
    let all: Vec<_> = (0..23)
        .map(|number| drain.reading(&testing::collection(&format!("st-{number}"))))
        .collect();
    let abandoned = drain.abandoned();
    assert_eq!(abandoned.len(), 23);
    let told = abandoned.to_string();
    assert!(told.starts_with("acme/st-0, acme/st-1, "), "{told}");
    assert!(told.ends_with(", acme/st-19 and 3 more"), "{told}");
    drop(all);
    assert!(drain.abandoned().is_empty());
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_is_waited_for_until_the_drain_is_over() {
    let drain = Drain::default();
    let begun = Instant::now();
    drain.begin(begun + Duration::from_secs(28));
    assert_eq!(drain.over().await.kind(), Kind::Draining);
    assert_eq!(begun.elapsed().as_secs(), 28);
}
