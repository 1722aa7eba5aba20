use super::*;
use crate::contacts::{
    testing,
    verdict::{Checks, Verdict},
};
use futures_util::{future, stream};
use serde_json::json;

fn ending(verdict: Verdict) -> Ending {
    Ending {
        verdict,
        pages: 101,
        records: 10_000,
        calls: 102,
        gap: -3,
        oldest: Duration::from_millis(4999),
    }
}

#[test]
fn the_last_line_says_how_it_ended() {
    for (verdict, told) in [
        (
            Verdict::Verified(Checks::Seam),
            r#""verdict":"verified","checks":"seam""#,
        ),
        (
            Verdict::Verified(Checks::Twice),
            r#""verdict":"verified","checks":"twice""#,
        ),
        (Verdict::Consistent, r#""verdict":"consistent""#),
        (Verdict::Settled, r#""verdict":"settled""#),
        (Verdict::Drifting, r#""verdict":"drifting""#),
    ] {
        let gap = match verdict {
            Verdict::Settled => r#","gap":-3"#,
            _ => "",
        };
        let expected = format!(
            "{{\"$end\":{{{told},\"pages\":101,\"records\":10000,\"calls\":102,\"oldest_s\":4{gap}}}}}\n"
        );
        assert_eq!(end_line(&ending(verdict)), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn news_leave_out_what_is_not_known() {
    let mut progress = Progress {
        pages_done: 12,
        pages_needed: Some(101),
        records: 1188,
        ..Progress::default()
    };
    assert_eq!(
        progress_line(&progress),
        "{\"$progress\":{\"pages_done\":12,\"pages_needed\":101,\"records\":1188}}\n"
    );
    progress.ends_at = Some(Instant::now() + Duration::from_millis(36_100));
    assert_eq!(
        progress_line(&progress),
        "{\"$progress\":{\"pages_done\":12,\"pages_needed\":101,\"records\":1188,\"estimate_s\":37}}\n"
    );
    progress.next_call_at = Some(Instant::now());
    assert!(progress_line(&progress).ends_with(b",\"estimate_s\":37}}\n"));
    progress.next_call_at = Some(Instant::now() + Duration::from_millis(8_001));
    assert!(progress_line(&progress).ends_with(b",\"estimate_s\":37,\"budget_wait_s\":9}}\n"));
    (progress.pages_needed, progress.ends_at) = (None, None);
    progress.next_call_at = None;
    assert_eq!(
        progress_line(&progress),
        "{\"$progress\":{\"pages_done\":12,\"records\":1188}}\n"
    );
}

/// Catches a length that is not that of the lines, frames that hold a whole list, and a record too many or too few.
#[test]
fn a_copys_lines_are_its_records_and_as_long_as_it_says() {
    let now = Instant::now();
    for records in [0, 1, 2000] {
        let list = testing::kept(testing::list(records, now), now);
        let mut kept = Kept::new(list.clone());
        let length = kept.left();
        let frames: Vec<_> = std::iter::from_fn(|| kept.next()).collect();
        assert_eq!(kept.left(), 0);
        let longest = frames.iter().map(Bytes::len).max();
        assert!(longest <= Some(FRAME + 100), "{longest:?}");
        let text = frames.concat();
        assert_eq!(text.len() as u64, length);
        let expected: String = (0..records as u64)
            .map(|place| testing::record(place) + "\n")
            .collect();
        let end = last_line(&list);
        let end = std::str::from_utf8(&end).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), expected + end);
    }
}

fn run(records: std::ops::Range<u64>) -> Line {
    let page = testing::page(records.start, 1000, records.end, Instant::now());
    Line::Contacts(Arc::new(Run {
        at: page
            .records
            .iter()
            .map(|record| record.at.clone())
            .collect(),
        body: page.body,
    }))
}

fn running(lines: Vec<Result<Line, Error>>) -> Running {
    Running::new(
        stream::iter(lines).boxed(),
        RequestId::number(0, 0),
        |error, _| json!({ "code": error.kind().code() }),
    )
}

/// Catches a list whose end the access log does not tell, or tells otherwise.
#[tokio::test(start_paused = true)]
async fn how_it_ended_is_known_afterwards() {
    let end = || Ok(Line::End(ending(Verdict::Settled)));
    let broken = || Err(Error::new(Kind::MergeDrifting, "it moved"));
    for (lines, expected) in [
        (vec![Ok(run(0..4))], Some("internal")),
        (vec![Ok(run(0..4)), end()], Some("settled")),
        (vec![Ok(run(0..4)), broken()], Some("merge_drifting")),
    ] {
        let mut running = running(lines);
        let mut bytes = 0;
        assert_eq!(running.ended, None);
        while let Some(Ok(frame)) = future::poll_fn(|cx| running.poll_next(cx)).await {
            bytes += frame.len() as u64;
        }
        assert_eq!((running.ended, running.bytes), (expected, bytes));
    }
}

/// All that a body sends, when, and whether it came to its end.
async fn sent(lines: Vec<Result<Line, Error>>) -> (String, bool, Duration) {
    let began = time::Instant::now();
    let mut running = running(lines);
    let mut text = Vec::new();
    let whole = loop {
        match future::poll_fn(|cx| running.poll_next(cx)).await {
            Some(Ok(frame)) => text.extend_from_slice(&frame),
            Some(Err(BrokenOff)) => break false,
            None => break true,
        }
    };
    assert!(running.has_ended());
    (String::from_utf8(text).unwrap(), whole, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_list_that_ends_well_just_ends() {
    let end = Line::End(ending(Verdict::Consistent));
    let (text, whole, took) = sent(vec![Ok(run(0..400)), Ok(run(400..401)), Ok(end)]).await;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 402);
    assert_eq!(lines[400], testing::record(400));
    assert!(lines[401].starts_with("{\"$end\":"));
    assert!(whole && took.is_zero());
}

/// U21. Catches an error after which the body ends as if all were well, or before its line can have left.
#[tokio::test(start_paused = true)]
async fn a_list_that_fails_says_so_and_is_broken_off() {
    let error = Error::new(Kind::UpstreamTimeout, "too late");
    let (text, whole, took) = sent(vec![Ok(run(0..2)), Err(error)]).await;
    let last = text.lines().last();
    assert_eq!(last, Some(r#"{"$error":{"code":"upstream_timeout"}}"#));
    assert_eq!(text.lines().count(), 3);
    assert!(!whole);
    assert_eq!(took, LINGER);
    // So does one that just stops.
    let (text, whole, _) = sent(vec![Ok(run(0..2))]).await;
    assert!(text.ends_with("{\"$error\":{\"code\":\"internal\"}}\n"));
    assert!(!whole);
}
