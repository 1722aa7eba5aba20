use std::sync::Mutex;

use tokio::task;
use tower::service_fn;

use super::*;
use crate::contacts::{
    page::{Page, PageKey},
    spent::Phase,
    testing,
};

/// Calls so far, by their first record.
type Calls = Arc<Mutex<Vec<u64>>>;

/// Streams of lists of so many contacts; each call takes a second, and those at `failing` fail.
fn streams(config: Config, total: u64, failing: Option<u64>) -> (Streams<impl FetchPage>, Calls) {
    let calls = Calls::default();
    let seen = calls.clone();
    let upstream = service_fn(move |fetch: Fetch<PageKey>| {
        let (window, spent) = (fetch.key.window, fetch.spent);
        fetch.urgency.depart();
        seen.lock().unwrap().push(window.skip);
        async move {
            let now = Instant::now();
            time::sleep(Duration::from_secs(1)).await;
            spent.add(Phase::Upstream, now.elapsed());
            match failing {
                Some(skip) if skip == window.skip => {
                    Err(Error::new(Kind::Upstream5xx, "upstream failed"))
                }
                _ => Ok::<Page, Error>(testing::page(window.skip, window.limit, total, now)),
            }
        }
    });
    let metrics = Metrics::new(&Registry::new().unwrap()).unwrap();
    (
        Streams::new(
            config,
            false,
            Arc::new(testing::Unbounded),
            Drain::default(),
            metrics,
            upstream,
        ),
        calls,
    )
}

fn config(streams_max: usize) -> Config {
    Config {
        streams_max,
        width: 4,
        page_limit_max: 10,
        ..Config::default()
    }
}

fn request() -> Request<ListKey> {
    testing::request(testing::list_key("st-1"))
}

/// Takes all that comes: the records, and how it ended.
async fn all(mut lines: Lines) -> (usize, Result<Ending>) {
    let mut records = 0;
    loop {
        match lines.next().await.expect("there is an end") {
            Ok(Line::Contacts(run)) => records += run.at.len(),
            Ok(Line::Progress(_)) => unreachable!("nobody asked for it"),
            Ok(Line::End(ending)) => return (records, Ok(ending)),
            Err(error) => return (records, Err(error)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_is_read_as_it_is_taken() {
    let (streams, calls) = streams(config(1), 1000, None);
    let stream = streams.open(request()).unwrap();
    let (records, ending) = all(stream.lines).await;
    let ending = ending.unwrap();
    assert_eq!(records, 1000);
    assert_eq!(ending.verdict, Verdict::Verified(Checks::Seam));
    assert_eq!((ending.pages, ending.calls), (111, 112));
    assert_eq!(calls.lock().unwrap().len(), 112);
    assert_eq!(stream.progress.borrow().pages_needed, Some(111));
}

/// Catches a list that is still being read when the credential of its account goes, and one that keeps it.
#[tokio::test(start_paused = true)]
async fn its_account_is_under_way_until_its_end() {
    let (streams, _) = streams(config(1), 1000, None);
    let request = request();
    let account = request.key.collection.account.clone();
    let mut stream = streams.open(request).unwrap();
    assert!(stream.lines.next().await.unwrap().is_ok());
    assert!(account.is_under_way());
    assert!(all(stream.lines).await.1.is_ok());
    task::yield_now().await;
    assert!(!account.is_under_way());
}

/// Catches calls that are taken for a reader who does not read, and a place that he keeps.
#[tokio::test(start_paused = true)]
async fn a_reader_that_does_not_read_costs_a_few_calls_and_then_his_place() {
    let (streams, calls) = streams(config(1), 1000, None);
    let mut slow = streams.open(request()).unwrap();
    assert!(slow.lines.next().await.unwrap().is_ok());
    let taken = Instant::now();
    time::sleep(Duration::from_secs(20)).await;
    // One page taken, one in the channel, one ready and as many behind it as are asked for at once.
    let after = calls.lock().unwrap().len();
    assert!(after <= 3 + 4, "{after}");
    let Err(busy) = streams.open(request()) else {
        panic!("there is but one place");
    };
    assert_eq!(busy.kind(), Kind::MergeBusy);
    // Whoever reads in time goes on.
    assert!(slow.lines.next().await.unwrap().is_ok());
    time::sleep(STALL_MAX + Duration::from_secs(5)).await;
    assert!(taken.elapsed() > STALL_MAX);
    let (records, end) = all(slow.lines).await;
    assert_eq!(end.unwrap_err().kind(), Kind::Overloaded);
    assert!(records < 100);
    let spent = calls.lock().unwrap().len();
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(calls.lock().unwrap().len(), spent);
    assert!(streams.open(request()).is_ok());
}

/// Catches one caller that reads so many large lists that the others are refused.
#[tokio::test(start_paused = true)]
async fn who_reads_no_large_list_finds_a_place() {
    let (streams, _) = streams(config(4), 1000, None);
    let open = |caller: &str| {
        let mut request = request();
        request.terms.caller = Some(caller.into());
        streams.open(request)
    };
    let own = [open("greedy").unwrap(), open("greedy").unwrap()];
    assert!(open("greedy").is_err());
    let other = open("modest").unwrap();
    drop(own);
    time::sleep(Duration::from_secs(5)).await;
    assert!(open("greedy").is_ok());
    drop(other);
}

/// The calls would take a second each, four at once. Catches an estimate that stands still while nobody reads, one that is
/// later than the end, and one that forgets the second reading.
#[tokio::test(start_paused = true)]
async fn it_is_over_no_earlier_than_it_says() {
    for (verify, calls) in [(Verify::Seam, 112), (Verify::Twice, 224)] {
        let config = Config {
            verify,
            ..config(1)
        };
        let (streams, _) = streams(config, 1000, None);
        let mut stream = streams.open(request()).unwrap();
        let began = Instant::now();
        assert!(stream.lines.next().await.unwrap().is_ok());
        let first = stream.progress.borrow_and_update().clone();
        assert_eq!(first.pages_needed, Some(111));
        // All but the few that have come or are under way.
        assert!(first.calls_left >= calls - 8, "{}", first.calls_left);
        let mut estimates = vec![first.ends_at.unwrap()];
        time::sleep(Duration::from_secs(20)).await;
        let waiting = stream.progress.borrow_and_update().clone();
        estimates.push(waiting.ends_at.unwrap());
        assert!(estimates[1] >= estimates[0] + Duration::from_secs(15));
        let (records, ending) = all(stream.lines).await;
        assert_eq!((records, ending.unwrap().calls), (990, calls));
        for estimate in estimates {
            assert!(estimate <= Instant::now() + Duration::from_secs(2));
        }
        // What was told at last is the end.
        let last = stream.progress.borrow().clone();
        let (end, least) = (Instant::now(), Duration::from_secs(calls as u64 / 4));
        assert!(end - began >= least);
        assert!(last.ends_at.unwrap().max(end) - end <= Duration::from_secs(1));
        assert!(last.calls_left <= 4, "{}", last.calls_left);
    }
}

/// C13. Catches a stream that goes on for nobody.
#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_ends_it() {
    let (streams, calls) = streams(config(1), 1000, None);
    let mut stream = streams.open(request()).unwrap();
    assert!(stream.lines.next().await.unwrap().is_ok());
    drop(stream);
    task::yield_now().await;
    let spent = calls.lock().unwrap().len();
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(calls.lock().unwrap().len(), spent);
    assert!(streams.open(request()).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_page_that_fails_ends_it_with_its_error() {
    let (streams, _) = streams(config(1), 1000, Some(450));
    let stream = streams.open(request()).unwrap();
    let (records, end) = all(stream.lines).await;
    assert_eq!(end.unwrap_err().kind(), Kind::Upstream5xx);
    assert!(records <= 450, "{records}");
}

#[tokio::test(start_paused = true)]
async fn where_lists_are_verified_twice_it_is_read_twice() {
    let config = Config {
        verify: Verify::Twice,
        ..config(1)
    };
    let (streams, calls) = streams(config, 100, None);
    let (records, ending) = all(streams.open(request()).unwrap().lines).await;
    let ending = ending.unwrap();
    assert_eq!(records, 100);
    assert_eq!(ending.verdict, Verdict::Verified(Checks::Twice));
    assert_eq!((ending.pages, ending.calls), (11, 24));
    assert_eq!(calls.lock().unwrap().len(), 24);
}

/// Catches a stream that is counted, or keeps its place, after it has come to grief.
#[tokio::test(start_paused = true)]
async fn a_stream_that_panics_is_no_longer_open() {
    let upstream = service_fn(async |fetch: Fetch<PageKey>| {
        let page = testing::page(
            fetch.key.window.skip,
            fetch.key.window.limit,
            1000,
            Instant::now(),
        );
        assert!(fetch.key.window.skip < 50, "for a test");
        Ok::<Page, Error>(page)
    });
    let metrics = Metrics::new(&Registry::new().unwrap()).unwrap();
    let streams = Streams::new(
        config(1),
        false,
        Arc::new(testing::Unbounded),
        Drain::default(),
        metrics.clone(),
        upstream,
    );
    let mut lines = streams.open(request()).unwrap().lines;
    assert_eq!(metrics.open.get(), 0);
    assert!(lines.next().await.unwrap().is_ok());
    assert_eq!(metrics.open.get(), 1);
    while lines.next().await.is_some() {}
    assert_eq!(metrics.open.get(), 0);
    assert!(streams.open(request()).is_ok());
}
