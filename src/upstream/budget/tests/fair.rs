//! What one caller asks for leaves the others theirs.

use super::*;

fn asked_by(caller: &str, account: &Arc<Account>, stream: &str) -> Fetch<PageKey> {
    let Fetch { key, .. } = fetch(account, stream, Class::Interactive, 30 * SECOND);
    let mut request = testing::request(key);
    request.terms.caller = Some(caller.into());
    Fetch::of(request)
}

/// Catches a caller that has every slot of an account, because it asks all the time, and for streams that nobody has asked for.
#[tokio::test(start_paused = true)]
async fn a_caller_that_asks_all_the_time_leaves_the_others_their_share() {
    let (limiter, chance) = (Arc::<Limiter>::default(), Arc::new(Chance(Mutex::new(1))));
    let (account, stage) = stage(&ready_at_once(), limiter.clone(), chance);
    let mut greedy = JoinSet::new();
    for of in 0..40 {
        let (stage, account) = (stage.clone(), account.clone());
        greedy.spawn(async move {
            for number in 0_u64.. {
                let stream = format!("st-{of}-{number}");
                let asked = stage.clone().oneshot(asked_by("greedy", &account, &stream));
                if asked.await.is_err() {
                    time::sleep(SECOND / 2).await;
                }
            }
        });
    }
    time::sleep(2 * MINUTE).await;
    let (mut waits, mut refused) = (Vec::new(), 0);
    for round in 0..100 {
        time::sleep(6 * SECOND).await;
        let asked = Instant::now();
        let one = stage.clone().oneshot(asked_by("modest", &account, "st-1"));
        match one.await {
            Ok(_) => waits.push(asked.elapsed()),
            // Before it was known, the minute's slots were taken.
            Err(_) if round < 11 => refused += 1,
            Err(error) => panic!("{error:?} in round {round}"),
        }
    }
    greedy.abort_all();
    waits.sort();
    assert!(waits.len() >= 89 && refused <= 11, "{refused}");
    assert!(waits[waits.len() * 9 / 10] < 2 * SECOND, "{waits:?}");
    assert!(limiter.most.load(Ordering::Relaxed) <= 60);
    // Nothing is left lying for it but what it is owed: the minutes of both together, less a fifth.
    let served = limiter.served.load(Ordering::Relaxed);
    assert!(served >= 12 * 48, "{served}");
}

/// Catches slots that two callers leave lying for each other, while both are refused.
#[tokio::test(start_paused = true)]
async fn two_callers_have_all_there_is_between_them() {
    let (limiter, chance) = (Arc::<Limiter>::default(), Arc::new(Chance(Mutex::new(1))));
    // A minute of which half is nobody's.
    let (account, stage) = stage(&Config::default(), limiter.clone(), chance);
    for number in 0..40 {
        let caller = ["one", "other"][number % 2];
        let asked = asked_by(caller, &account, &format!("st-{number}"));
        let _ = stage.clone().oneshot(asked).await;
    }
    assert_eq!(limiter.served.load(Ordering::Relaxed), 30);
}

/// C18. Catches a caller that waits out its patience, and is refused then: the slots that came free were not for it.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_nothing_is_told_so_at_once() {
    for step in [1_000, 1_250, 1_333, 1_500] {
        let (limiter, chance) = (Arc::<Limiter>::default(), Arc::new(Chance(Mutex::new(1))));
        let (account, stage) = stage(&ready_at_once(), limiter, chance);
        let begun = Instant::now();
        let ask = |caller, number: u64| {
            let asked = asked_by(caller, &account, &format!("st-{number}"));
            stage.clone().oneshot(asked)
        };
        for number in 0..30 {
            time::sleep_until(begun + number * Duration::from_millis(step)).await;
            assert!(ask("one", u64::from(number)).await.is_ok());
        }
        time::sleep_until(begun + 45 * SECOND).await;
        let all = (100..130).map(|number| ask("other", number));
        assert!(join_all(all).await.iter().all(Result::is_ok));
        for number in 200..260 {
            let asked = Instant::now();
            let outcome = ask("other", number).await;
            let waited = asked.elapsed();
            assert!(
                outcome.is_ok() || waited.is_zero(),
                "{step} {number}: {waited:?}"
            );
            time::sleep(SECOND / 2).await;
        }
    }
}
