//! Who has a list line by line, over the stack as it is built.

use futures_util::StreamExt;
use tokio::time;
use tower::ServiceExt;

use super::{
    stack::{CALL, LASTING, MINUTE, SECOND, Stack, bulk, whole},
    *,
};
use crate::{
    contacts::{
        drain::Drain,
        follow::{LinesRequest, Running, Told},
        lines::{Ending, Line},
        list::ListKey,
        request::Request,
        testing,
    },
    error::{Error, Kind},
    served::{Forward, Served},
    service::ServeLines,
};

/// The stage over the lists' cache, and streams of what is longer than `records_max`.
fn lines(
    stack: &Stack,
    records_max: u64,
) -> (
    impl ServeLines + use<>,
    impl crate::service::ServeList + use<>,
) {
    let config = walk::Config {
        records_max,
        ..walk::Config::default()
    };
    let below = stack.below();
    let metrics = stream::Metrics::new(&Registry::new().unwrap()).unwrap();
    let streams = Streams::new(
        config.clone(),
        false,
        stack.budgets.clone(),
        Drain::default(),
        metrics,
        below.clone(),
    );
    let lists = stack.lists_of(config, LASTING, below);
    let metrics = testing::metrics("lists");
    let lines = ServiceBuilder::new()
        .layer(follow::layer(streams, metrics))
        .service(lists.clone());
    (lines, lists)
}

async fn ask(lines: &impl ServeLines, key: &ListKey, progress: bool) -> Result<Told, Error> {
    ask_for(lines, bulk(key.clone()), progress).await
}

async fn ask_for(
    lines: &impl ServeLines,
    mut list: Request<ListKey>,
    progress: bool,
) -> Result<Told, Error> {
    list.terms.in_pieces = true;
    let request = LinesRequest { list, progress };
    lines.clone().oneshot(request).await
}

async fn running(lines: &impl ServeLines, key: &ListKey) -> Running {
    match ask(lines, key, false).await.unwrap() {
        Told::Running(running) => running,
        Told::Kept(_) => panic!("it is not read yet"),
    }
}

/// Takes all that comes: how many contacts, and how it ended.
async fn all(mut running: Running) -> (usize, Result<Ending, Error>) {
    let mut records = 0;
    loop {
        match running.lines.next().await.expect("there is an end") {
            Ok(Line::Contacts(run)) => records += run.at.len(),
            Ok(Line::Progress(_)) => {}
            Ok(Line::End(ending)) => return (records, Ok(ending)),
            Err(error) => return (records, Err(error)),
        }
    }
}

/// Catches lines that end with a request's deadline, or that are refused because the list takes longer than that.
#[tokio::test(start_paused = true)]
async fn lines_outlast_the_deadline_that_a_document_does_not() {
    let stack = Stack::of(&[("acme", 60)], &whole(), 10_000);
    let (lines, lists) = lines(&stack, 200_000);
    let key = stack.list("acme", "st-1");
    let began = Instant::now();
    let first = running(&lines, &key).await;
    // The first page, and those behind it side by side.
    assert_eq!(began.elapsed(), 2 * CALL);
    assert!(!first.joined);
    let document = lists.oneshot(bulk(key.clone())).await;
    assert_eq!(document.unwrap_err().kind(), Kind::MergeInProgress);
    time::sleep(10 * SECOND).await;
    let late = running(&lines, &key).await;
    assert_eq!((late.joined, late.age), (true, began.elapsed()));
    for reader in [first, late] {
        let (records, ending) = all(reader).await;
        assert_eq!(records, 10_000);
        assert_eq!(ending.unwrap().calls, 102);
    }
    assert!(began.elapsed() > MINUTE);
    assert_eq!(stack.upstream.seen(), 102);
    assert!(matches!(ask(&lines, &key, true).await, Ok(Told::Kept(_))));
}

/// The same where the list is too large to be kept. Catches a stream that a failure ends which passes.
#[tokio::test(start_paused = true)]
async fn a_stream_rests_where_a_walk_would() {
    let stack = Stack::of(&[("acme", 60)], &whole(), 10_000);
    let (lines, lists) = lines(&stack, 5_000);
    let key = stack.list("acme", "st-1");
    let document = lists.oneshot(bulk(key.clone())).await;
    assert_eq!(document.unwrap_err().kind(), Kind::MergeTooLarge);
    let began = Instant::now();
    let running = running(&lines, &key).await;
    assert_eq!(began.elapsed(), 2 * CALL);
    stack
        .upstream
        .fail(|_| Some(Error::new(Kind::UpstreamTruncated, "upstream broke off")));
    let heal = stack.upstream.clone();
    tokio::spawn(async move {
        time::sleep(3 * SECOND).await;
        heal.heal();
    });
    let (records, ending) = all(running).await;
    assert_eq!(records, 10_000);
    assert_eq!(ending.unwrap().records, 10_000);
    assert!(began.elapsed() > MINUTE);
}

/// As it is for a list that is kept. Catches a reader who is not told how long it will take, or is told for a list of another
/// length; and one who is not told what is waited for.
#[tokio::test(start_paused = true)]
async fn a_stream_says_how_long_it_will_take() {
    let stack = Stack::of(&[("acme", 60)], &whole(), 10_000);
    let (lines, _) = lines(&stack, 5_000);
    let key = stack.list("acme", "st-1");
    let Ok(Told::Running(mut running)) = ask(&lines, &key, true).await else {
        panic!("there are news, and no list");
    };
    let (mut told, mut records) = (Vec::new(), 0);
    let ending = loop {
        match running.lines.next().await.unwrap().unwrap() {
            Line::Progress(progress) => {
                assert_eq!(progress.pages_needed, Some(101));
                told.push((Instant::now(), progress));
            }
            Line::Contacts(run) => records += run.at.len(),
            Line::End(ending) => break ending,
        }
    };
    let end = Instant::now();
    assert_eq!((records, ending.calls), (10_000, 102));
    // About one a second, the long wait for the second minute included.
    assert!(told.len() > 50, "{}", told.len());
    for (at, progress) in &told {
        let (left, estimate) = (end - *at, progress.ends_at.unwrap() - *at);
        let off = left.abs_diff(estimate);
        assert!(
            off <= left / 5 + SECOND,
            "{estimate:?}, and it was {left:?}"
        );
    }
    // Once the calls of the first minute are spent, how long the next one waits. The others follow at once.
    let waits = told.iter().filter_map(|(at, progress)| {
        let turn = progress.next_call_at?;
        (turn > *at).then_some(turn)
    });
    let waits: Vec<_> = waits.collect();
    assert!(waits.len() > 50, "{}", waits.len());
    for turn in waits {
        assert!(turn <= end && end <= turn + 2 * SECOND, "{turn:?} {end:?}");
    }
}

/// Catches news that wait for the second page, or for anything but the clock.
#[tokio::test(start_paused = true)]
async fn news_begin_with_the_first_page() {
    let stack = Stack::of(&[("acme", 60)], &whole(), 1000);
    let (lines, _) = lines(&stack, 200_000);
    let key = stack.list("acme", "st-1");
    stack.upstream.fail(|key| {
        let later = key.window.skip > 0;
        later.then(|| Error::new(Kind::UpstreamTruncated, "upstream broke off"))
    });
    let heal = stack.upstream.clone();
    tokio::spawn(async move {
        time::sleep(2 * SECOND).await;
        heal.heal();
    });
    let began = Instant::now();
    let Ok(Told::Running(mut running)) = ask(&lines, &key, true).await else {
        panic!("there are news, and no list");
    };
    assert_eq!(began.elapsed(), CALL);
    let mut told = 0;
    loop {
        match running.lines.next().await.unwrap().unwrap() {
            Line::Progress(progress) if began.elapsed() < 2 * SECOND => {
                assert_eq!((progress.pages_done, progress.pages_needed), (1, Some(11)));
                told += 1;
            }
            Line::Progress(_) => {}
            Line::Contacts(_) => assert!((2..=3).contains(&told), "{told}"),
            Line::End(ending) => break assert_eq!(ending.records, 1000),
        }
    }
}

/// Catches lines that say they are not a copy's for another reason than they are.
#[tokio::test(start_paused = true)]
async fn lines_say_why_they_are_no_copys() {
    let stack = Stack::of(&[("acme", 600)], &whole(), 1000);
    let (lines, _) = lines(&stack, 200_000);
    let key = stack.list("acme", "st-1");
    let first = running(&lines, &key).await;
    assert_eq!(first.served(), Served::Fetched(Forward::Miss));
    all(first).await.1.unwrap();
    // Beyond the floor of a list that was just read.
    time::sleep(MINUTE).await;
    assert!(matches!(ask(&lines, &key, false).await, Ok(Told::Kept(_))));
    for (joined, expected) in [
        (false, Served::Fetched(Forward::Request)),
        (true, Served::Joined(Forward::Request)),
    ] {
        let mut forced = bulk(key.clone());
        forced.terms.directives.no_cache = true;
        let Ok(Told::Running(running)) = ask_for(&lines, forced, false).await else {
            panic!("joined: {joined}: it is read anew");
        };
        assert_eq!(running.served(), expected);
    }
}
