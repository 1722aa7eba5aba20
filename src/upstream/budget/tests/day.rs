//! A day of mixed load on paused time, five accounts at once.

use super::*;

/// What a day came to for one account.
#[derive(Debug)]
struct Day {
    most: u32,
    refusals: Vec<Duration>,
    /// How long interactive calls took, shortest first.
    interactive: Vec<Duration>,
    exhausted: usize,
    /// Pages of whole lists, in each ten minutes.
    bulk: Vec<u32>,
}

const HOURS: u64 = 24;
const TEN_MINUTES: usize = 6 * HOURS as usize;

/// A day of one account: four interactive misses a minute, a walk of 500 pages in turn with the next, a refresh now and
/// then; and perhaps a stranger who uses the account too, so many times a minute.
async fn day(
    stage: impl FetchPage,
    account: Arc<Account>,
    limiter: Arc<Limiter>,
    chance: Arc<Chance>,
    strangers: u32,
) -> Day {
    let started = Instant::now();
    let end = started + HOURS as u32 * 60 * MINUTE;
    let over = Arc::new(AtomicBool::new(false));

    let stranger = tokio::spawn({
        let (limiter, chance, over) = (limiter.clone(), chance.clone(), over.clone());
        async move {
            while strangers > 0 && !over.load(Ordering::Relaxed) {
                // Steadily, give or take a quarter.
                let step = MINUTE / strangers;
                time::sleep(step * 3 / 4 + chance.up_to(step / 2)).await;
                // It is served or refused like anybody; what it does then is its own affair.
                limiter.count(Instant::now());
            }
        }
    });
    let walks = tokio::spawn({
        let (stage, account, over) = (stage.clone(), account.clone(), over.clone());
        async move {
            let mut bulk = vec![0_u32; TEN_MINUTES + 1];
            while !over.load(Ordering::Relaxed) {
                // One walk is one flight: once it has made a call, it waits as long as it takes.
                let walk = fetch(&account, "st-walk", Class::Bulk, 60 * MINUTE);
                let page = || stage.clone().oneshot(walk.clone());
                let mut pages: FuturesUnordered<_> = (0..8).map(|_| page()).collect();
                let mut left = 500;
                while let Some(outcome) = pages.next().await {
                    let tenth = (started.elapsed().as_secs() / 600) as usize;
                    bulk[tenth.min(TEN_MINUTES)] += u32::from(outcome.is_ok());
                    left -= i32::from(outcome.is_ok());
                    if left > 8 && !over.load(Ordering::Relaxed) {
                        pages.push(page());
                    }
                }
            }
            bulk.truncate(TEN_MINUTES);
            bulk
        }
    });
    let mut asked = JoinSet::new();
    let (mut interactive, mut exhausted) = (Vec::new(), 0);
    while Instant::now() < end {
        time::sleep(chance.up_to(24 * SECOND)).await;
        let class = if chance.next().is_multiple_of(5) {
            Class::Background
        } else {
            Class::Interactive
        };
        let stream = format!("st-{}", chance.next() % 7);
        let one = stage
            .clone()
            .oneshot(fetch(&account, &stream, class, 30 * SECOND));
        asked.spawn(async move {
            let asked = Instant::now();
            (class, one.await, asked.elapsed())
        });
    }
    over.store(true, Ordering::Relaxed);
    let bulk = walks.await.unwrap();
    stranger.await.unwrap();
    while let Some(done) = asked.join_next().await {
        match done.unwrap() {
            (Class::Interactive, Ok(_), took) => interactive.push(took),
            (Class::Interactive, Err(error), _) if error.kind() == Kind::BudgetExhausted => {
                exhausted += 1;
            }
            _ => {}
        }
    }
    interactive.sort();
    let refusals = limiter.refusals.lock().unwrap();
    Day {
        most: limiter.most.load(Ordering::Relaxed),
        refusals: refusals.iter().map(|at| *at - started).collect(),
        interactive,
        exhausted,
        bulk,
    }
}

/// The days of five accounts, with so many calls of strangers a minute on each.
async fn days(seed: u64, strangers: [u32; 5]) -> Vec<Day> {
    let chance = Arc::new(Chance(Mutex::new(seed)));
    let accounts: Vec<_> = (0..strangers.len())
        .map(|number| {
            let account = testing::account(&format!("account-{number}"));
            (account, Arc::<Limiter>::default())
        })
        .collect();
    let stage = stage_of(&ready_at_once(), &accounts, chance.clone());
    let days = accounts
        .into_iter()
        .zip(strangers)
        .map(|((account, limiter), strangers)| {
            day(stage.clone(), account, limiter, chance.clone(), strangers)
        });
    join_all(days).await
}

/// How long interactive calls took, but for one in a hundred.
fn p99(day: &Day) -> Duration {
    day.interactive[day.interactive.len() * 99 / 100]
}

/// Catches a window that is not exact, a bulk read in the way of somebody who waits, and one that stands still.
#[tokio::test(start_paused = true)]
async fn alone_no_call_is_refused_and_nobody_waits_long() {
    for day in days(1, [0; 5]).await {
        assert!(day.most <= 60, "{}", day.most);
        assert_eq!((day.refusals.len(), day.exhausted), (0, 0));
        assert!(p99(&day) < 5 * SECOND, "{:?}", p99(&day));
        // Sixty a minute less what others take, and never nothing.
        let least = day.bulk.iter().min().unwrap();
        assert!(*least > 300, "{:?}", day.bulk);
    }
}

/// Catches a lesson that is not learned, one that is unlearned too soon, and calls that are refused together.
#[tokio::test(start_paused = true)]
async fn strangers_are_learned_and_yielded_to() {
    for day in days(1, [30; 5]).await {
        assert!(day.most <= 60, "{}", day.most);
        let mut refusals = day.refusals.clone();
        refusals.retain(|at| *at > 10 * MINUTE);
        refusals.sort();
        for pair in refusals.windows(2) {
            assert!(pair[1] - pair[0] > 10 * MINUTE, "{refusals:?}");
        }
        assert!(p99(&day) < 5 * SECOND, "{:?}", p99(&day));
        let least = day.bulk.iter().min().unwrap();
        assert!(*least > 100, "{:?}", day.bulk);
    }
}
