use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use proptest::prelude::*;
use tokio::time;
use tower::{ServiceExt, service_fn};

use super::*;
use crate::{
    contacts::{
        list::Walked,
        page::{Page, PageKey, Window},
        testing,
    },
    metrics::Registry,
};

/// The stage below: pages of a collection of `total` records, each after a delay of its own.
struct Upstream {
    total: u64,
    delay: fn(Window) -> Duration,
    /// The largest `limit` that is not refused.
    limit_max: u32,
    /// What these windows, by their first record, fail with.
    failing: HashMap<u64, Kind>,
    asked: Mutex<Vec<Fetch<PageKey>>>,
    running: AtomicUsize,
    most: AtomicUsize,
}

impl Upstream {
    fn new(total: u64) -> Self {
        Self {
            total,
            delay: |_| Duration::from_secs(1),
            limit_max: u32::MAX,
            failing: HashMap::new(),
            asked: Mutex::default(),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
        }
    }

    async fn page(&self, fetch: Fetch<PageKey>) -> Result<Page> {
        let window = fetch.key.window;
        fetch.urgency.depart();
        self.asked.lock().unwrap().push(fetch);
        let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(running, Ordering::Relaxed);
        let read_at = Instant::now();
        time::sleep((self.delay)(window)).await;
        self.running.fetch_sub(1, Ordering::Relaxed);
        if window.limit > self.limit_max {
            return Err(Error::new(Kind::Upstream4xx, "upstream refused"));
        }
        match self.failing.get(&window.skip) {
            Some(kind) => Err(Error::new(*kind, "upstream failed")),
            None => Ok(testing::page(
                window.skip,
                window.limit,
                self.total,
                read_at,
            )),
        }
    }

    /// The windows that were asked for, in that order.
    fn windows(&self) -> Vec<(u64, u32)> {
        let asked = self.asked.lock().unwrap();
        let windows = asked.iter().map(|fetch| fetch.key.window);
        windows.map(|window| (window.skip, window.limit)).collect()
    }
}

fn fetch(key: ListKey) -> Fetch<ListKey> {
    testing::fetch(key)
}

fn config(width: usize, page_limit_max: u32) -> Config {
    Config {
        width,
        page_limit_max,
        ..Config::default()
    }
}

fn metrics() -> Metrics {
    Metrics::new(&Registry::new().unwrap()).unwrap()
}

/// The stage over an upstream.
fn over(config: Config, metrics: &Metrics, upstream: &Arc<Upstream>) -> Walk<impl FetchPage> {
    let upstream = upstream.clone();
    let inner = service_fn(move |fetch| {
        let upstream = upstream.clone();
        async move { upstream.page(fetch).await }
    });
    layer(
        config,
        false,
        Arc::new(testing::Unbounded),
        Drain::default(),
        metrics.clone(),
    )
    .layer(inner)
}

async fn walk(config: Config, upstream: &Arc<Upstream>) -> Result<List> {
    let fetch = fetch(testing::list_key("st-1"));
    over(config, &metrics(), upstream).oneshot(fetch).await
}

/// Fails unless the document holds exactly these records, in order.
fn assert_whole(list: &List, total: u64) {
    let records: Vec<_> = (0..total).map(testing::record).collect();
    let document = String::from_utf8(list.document().concat()).unwrap();
    assert_eq!(
        document,
        format!(
            r#"{{"results":[{}],"skip":0,"limit":{total},"hasMore":false,"totalPages":1,"totalResults":{total}}}"#,
            records.join(",")
        )
    );
}

#[tokio::test(start_paused = true)]
async fn the_width_is_reached_and_never_exceeded() {
    for width in [1, 3, 10, 64] {
        let upstream = Arc::new(Upstream::new(100));
        let began = Instant::now();
        let list = walk(config(width, 10), &upstream).await.unwrap();
        assert_whole(&list, 100);
        // Ten pages after the first, which comes alone, as its re-reading does.
        assert_eq!(upstream.most.load(Ordering::Relaxed), width.min(10));
        let least = 1 + 10_u64.div_ceil(width as u64) + 1;
        assert_eq!(began.elapsed(), Duration::from_secs(least));
        assert_eq!(list.walked.took, began.elapsed());
        // The first page that is kept is the one that was read last.
        assert_eq!(list.walked.oldest, began + Duration::from_secs(1));
    }
}

/// Catches a walk that forgets what one of its pages said.
#[tokio::test(start_paused = true)]
async fn what_one_page_says_about_itself_holds_for_the_list() {
    for skip in [0, 9, 81] {
        let upstream = Arc::new(Upstream::new(90));
        let inner = service_fn(move |fetch: Fetch<PageKey>| {
            let upstream = upstream.clone();
            async move {
                let said = fetch.key.window.skip == skip;
                let page = upstream.page(fetch).await?;
                Ok::<_, Error>(Page {
                    no_store: said,
                    foreign: usize::from(said),
                    ..page
                })
            }
        });
        let stage = layer(
            config(4, 10),
            false,
            Arc::new(testing::Unbounded),
            Drain::default(),
            metrics(),
        )
        .layer(inner);
        let list = stage.oneshot(fetch(testing::list_key("st-1"))).await;
        let Walked {
            no_store, foreign, ..
        } = list.unwrap().walked;
        // The first page is read twice.
        let times = if skip == 0 { 2 } else { 1 };
        assert_eq!((no_store, foreign), (true, times), "{skip}");
    }
    let list = walk(config(4, 10), &Arc::new(Upstream::new(90))).await;
    let walked = list.unwrap().walked;
    assert_eq!((walked.no_store, walked.foreign), (false, 0));
}

#[tokio::test(start_paused = true)]
async fn order_is_kept_however_the_answers_come() {
    let mut upstream = Upstream::new(100);
    // The later a page lies in the collection, the sooner it is answered.
    upstream.delay = |window| Duration::from_secs(200 - window.skip);
    let list = walk(config(8, 10), &Arc::new(upstream)).await.unwrap();
    assert_whole(&list, 100);
}

#[tokio::test(start_paused = true)]
async fn one_page_that_fails_ends_the_walk_with_its_error() {
    for kind in [Kind::Upstream5xx, Kind::Upstream4xx, Kind::UpstreamTimeout] {
        let mut upstream = Upstream::new(100);
        upstream.failing.insert(45, kind);
        let began = Instant::now();
        let config = Config {
            failures_max: 1,
            ..config(2, 10)
        };
        let error = walk(config, &Arc::new(upstream)).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        // The first page, then two at once; the one that begins at 45 is the fifth of them.
        assert_eq!(began.elapsed(), Duration::from_secs(1 + 3));
    }
}

#[tokio::test(start_paused = true)]
async fn the_page_size_is_found_within_three_calls_and_remembered() {
    for (limit_max, tried) in [(100, &[100][..]), (50, &[100, 50]), (10, &[100, 50, 10])] {
        let mut upstream = Upstream::new(25);
        upstream.limit_max = limit_max;
        let upstream = Arc::new(upstream);
        let key = testing::list_key("st-1");
        let stage = over(config(8, 100), &metrics(), &upstream);
        let list = stage.clone().oneshot(fetch(key.clone())).await.unwrap();
        assert_whole(&list, 25);
        let limits: Vec<_> = upstream.windows().iter().map(|window| window.1).collect();
        assert_eq!(&limits[..tried.len()], tried);
        let before = limits.len();
        stage.oneshot(fetch(key)).await.unwrap();
        assert_eq!(upstream.windows()[before], (0, limit_max));
    }
}

/// Catches one odd refusal of a stream's very first page that costs ten times the calls for ever.
#[tokio::test(start_paused = true)]
async fn a_refused_page_size_is_tried_again_after_an_hour() {
    let mut upstream = Upstream::new(25);
    upstream.limit_max = 10;
    let upstream = Arc::new(upstream);
    let key = testing::list_key("st-1");
    let stage = over(config(8, 100), &metrics(), &upstream);
    stage.clone().oneshot(fetch(key.clone())).await.unwrap();
    time::sleep(Duration::from_secs(3600)).await;
    let before = upstream.windows().len();
    stage.oneshot(fetch(key)).await.unwrap();
    assert_eq!(
        upstream.windows()[before..][..3],
        [(0, 100), (0, 50), (0, 10)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_ten_as_well_was_not_about_the_limit_and_teaches_nothing() {
    let mut upstream = Upstream::new(25);
    upstream.limit_max = 0;
    let upstream = Arc::new(upstream);
    let key = testing::list_key("st-1");
    let error = over(config(8, 100), &metrics(), &upstream)
        .oneshot(fetch(key.clone()))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Upstream4xx);
    assert_eq!(upstream.windows(), [(0, 100), (0, 50), (0, 10)]);
    assert_eq!(key.collection.limits.largest(100, Instant::now()), 100);
}

#[tokio::test(start_paused = true)]
async fn other_errors_of_the_first_page_are_final() {
    let mut upstream = Upstream::new(25);
    upstream.failing.insert(0, Kind::UpstreamRateLimited);
    let upstream = Arc::new(upstream);
    let error = walk(config(8, 100), &upstream).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UpstreamRateLimited);
    assert_eq!(upstream.windows(), [(0, 100)]);
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_of_the_limit_is_used() {
    for (learned, first) in [(None, 100), (Some(20), 20), (Some(500), 100)] {
        let upstream = Arc::new(Upstream::new(25));
        let key = testing::list_key("st-1");
        if let Some(limit) = learned {
            let now = Instant::now();
            key.collection.limits.refuses(1000, limit, now);
        }
        let stage = over(config(8, 100), &metrics(), &upstream);
        assert_whole(&stage.oneshot(fetch(key)).await.unwrap(), 25);
        assert_eq!(upstream.windows()[0], (0, first));
    }
}

#[tokio::test(start_paused = true)]
async fn each_page_carries_the_lists_own_collection_epoch_and_urgency() {
    let upstream = Arc::new(Upstream::new(100));
    let fetch = fetch(testing::list_key("st-1"));
    let stage = over(config(4, 10), &metrics(), &upstream);
    stage.oneshot(fetch.clone()).await.unwrap();
    // Whoever joins the list makes all of it more urgent.
    let mut later = testing::request(()).terms;
    later.deadline += Duration::from_secs(3600);
    fetch.urgency.raise(&later);
    let asked = upstream.asked.lock().unwrap();
    assert_eq!(asked.len(), 12);
    for page in &*asked {
        assert!(Arc::ptr_eq(&page.key.collection, &fetch.key.collection));
        assert_eq!(page.key.epoch, fetch.key.epoch);
        assert_eq!(page.urgency.deadline(), later.deadline);
    }
}

#[tokio::test(start_paused = true)]
async fn walks_are_counted_by_verdict_or_code() {
    let registry = Registry::new().unwrap();
    let metrics = Metrics::new(&registry).unwrap();
    let mut failing = Upstream::new(100);
    failing.failing.insert(9, Kind::UpstreamSchema);
    let too_long = Config {
        records_max: 99,
        ..config(8, 10)
    };
    for (config, upstream) in [
        (config(8, 10), Upstream::new(100)),
        (config(8, 10), Upstream::new(0)),
        (config(8, 10), failing),
        (too_long, Upstream::new(100)),
    ] {
        let stage = over(config, &metrics, &Arc::new(upstream));
        let _ = stage.oneshot(fetch(testing::list_key("st-1"))).await;
    }
    let text = String::from_utf8(registry.render().unwrap()).unwrap();
    for counted in [
        "s_total{outcome=\"verified\"} 2",
        "s_total{outcome=\"consistent\"} 0",
        "s_total{outcome=\"upstream_schema\"} 1",
        "s_total{outcome=\"merge_too_large\"} 1",
        // The list of none is one page.
        "_pages_bucket{le=\"1\"} 1",
        "_pages_count 2",
    ] {
        let line = format!("contacts_gateway_walk{counted}");
        assert!(text.lines().any(|one| one == line), "{line}: {text}");
    }
    assert_eq!(metrics.duration.get_sample_count(), 4);
    // 4 s, 1 s, 2 s and 1 s.
    assert_eq!(metrics.duration.get_sample_sum().round(), 8.0);
}

proptest! {
    #[test]
    fn any_collection_comes_whole_by_any_width_and_limit(
        total in 0_u64..200,
        width in 1_usize..12,
        limit in 2_u32..50,
        salt in any::<u8>(),
    ) {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut upstream = Upstream::new(total);
            upstream.delay = |window| Duration::from_millis(window.skip * 7919 % 1000);
            // Some delays differ from run to run, so that answers overtake each other in many ways.
            if salt % 2 == 0 {
                upstream.delay = |window| Duration::from_millis(1000 - window.skip * 104_729 % 1000);
            }
            let upstream = Arc::new(upstream);
            assert_whole(&walk(config(width, limit), &upstream).await.unwrap(), total);
            assert!(upstream.most.load(Ordering::Relaxed) <= width);
            let windows = upstream.windows();
            let distinct: HashSet<_> = windows.iter().collect();
            // Each once, and the first once more.
            assert!(windows.len() <= distinct.len() + 1);
        });
    }
}

#[tokio::test(start_paused = true)]
async fn one_list_too_many_is_refused_at_once_and_read_later() {
    let upstream = Arc::new(Upstream::new(25));
    let config = Config {
        walks_max: 2,
        ..config(8, 10)
    };
    let stage = over(config, &metrics(), &upstream);
    let read = |stream| stage.clone().oneshot(fetch(testing::list_key(stream)));
    let began = Instant::now();
    let (first, second, third) = tokio::join!(read("st-1"), read("st-2"), async {
        let refused = read("st-3").await;
        (refused, began.elapsed())
    });
    assert!(first.is_ok() && second.is_ok());
    let (refused, after) = third;
    assert_eq!(refused.unwrap_err().kind(), Kind::MergeBusy);
    assert_eq!(after, Duration::ZERO);
    assert!(read("st-3").await.is_ok());
}

/// Catches one caller that reads so many lists that the others are refused, and a place that it keeps.
#[tokio::test(start_paused = true)]
async fn who_reads_no_list_finds_a_place() {
    let upstream = Arc::new(Upstream::new(25));
    let config = Config {
        walks_max: 4,
        ..config(8, 10)
    };
    let stage = over(config, &metrics(), &upstream);
    let read = |caller: &str, stream| {
        let mut request = testing::request(testing::list_key(stream));
        request.terms.caller = Some(caller.into());
        let outcome = stage.clone().oneshot(Fetch::of(request));
        async move { outcome.await.map(drop).map_err(|error| error.kind()) }
    };
    let of_both = tokio::join!(
        read("greedy", "st-1"),
        read("greedy", "st-2"),
        read("greedy", "st-3"),
        read("modest", "st-4"),
    );
    assert_eq!(of_both, (Ok(()), Ok(()), Err(Kind::MergeBusy), Ok(())));
    assert_eq!(read("greedy", "st-3").await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_walk_that_fails_lets_its_other_calls_come_to_their_ends() {
    let mut upstream = Upstream::new(60);
    upstream.delay = |window| Duration::from_secs(1 + window.skip);
    upstream.failing.insert(9, Kind::UpstreamSchema);
    let upstream = Arc::new(upstream);
    assert!(walk(config(4, 10), &upstream).await.is_err());
    assert_eq!(upstream.running.load(Ordering::Relaxed), 3);
    time::sleep(Duration::from_secs(60)).await;
    assert_eq!(upstream.running.load(Ordering::Relaxed), 0);
}

/// Catches a walk that nobody can wait for, or that promises too little or too much of itself.
#[tokio::test(start_paused = true)]
async fn a_walk_says_how_far_it_is_to_the_last_call() {
    for (verify, total, pages, calls) in [
        (Verify::Seam, 5, 1, 1),
        (Verify::Seam, 11, 2, 3),
        (Verify::Seam, 100, 11, 12),
        (Verify::Twice, 100, 11, 24),
        (Verify::Twice, 5, 1, 2),
    ] {
        let upstream = Arc::new(Upstream::new(total));
        let key = testing::list_key("st-1");
        let mut known = key.collection.walking.watch();
        let config = Config {
            verify,
            ..config(1, 10)
        };
        let reading = tokio::spawn(over(config, &metrics(), &upstream).oneshot(fetch(key.clone())));
        let walking = known.wait_for(Option::is_some).await.unwrap().clone();
        let walking = walking.unwrap();
        assert_eq!(walking.epoch, key.epoch);
        let mut progress = walking.watch();
        assert_eq!(progress.borrow_and_update().pages_needed, None);
        let mut left = Vec::new();
        let mut end = None;
        while end.is_none() {
            progress.changed().await.unwrap();
            let told = progress.borrow_and_update().clone();
            if told.pages_needed.is_some() {
                assert_eq!(told.pages_needed, Some(pages));
                left.push(told.calls_left);
            }
            end = told.end;
        }
        assert!(matches!(end, Some(Ok(()))));
        // Nothing new may be told as well.
        left.dedup();
        let list = reading.await.unwrap().unwrap();
        assert_eq!(list.walked.calls, calls);
        assert_eq!(left, (0..calls).rev().collect::<Vec<_>>(), "{total}");
        assert!(known.borrow().is_none());
    }
}

/// Catches a walk that holds its place for ever.
#[tokio::test(start_paused = true)]
async fn a_walk_has_only_so_long() {
    let mut upstream = Upstream::new(1000);
    upstream.delay = |_| Duration::from_secs(7);
    let config = Config {
        walk_max: Duration::from_secs(60),
        ..config(1, 10)
    };
    let began = Instant::now();
    let error = walk(config, &Arc::new(upstream)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::UpstreamTimeout);
    assert_eq!(began.elapsed(), Duration::from_secs(60));
}
