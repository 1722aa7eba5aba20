use std::collections::HashSet;

use proptest::{collection::vec, prelude::*};

use super::*;

/// One that came in this order, from these callers, for this stream.
fn waits(number: u64, callers: &[&str], stream: u64) -> Waits {
    Waits {
        number,
        since: 0,
        callers: callers.iter().map(|name| (*name).into()).collect(),
        stream,
    }
}

fn numbers(order: Vec<Turn>) -> Vec<u64> {
    order.into_iter().map(|turn| turn.number).collect()
}

/// Catches a caller that is served the more often the more streams it names.
#[test]
fn callers_take_turns_however_many_streams_they_ask_for() {
    let many = (0..6).map(|number| waits(number, &["many"], number));
    let few = [waits(6, &["few"], 7), waits(7, &["few"], 7)];
    let all: Vec<_> = many.chain(few).collect();
    assert_eq!(
        numbers(Turns::default().order(&all)),
        [0, 6, 1, 7, 2, 3, 4, 5]
    );
}

#[test]
fn of_one_caller_the_streams_take_turns() {
    let streams = [1, 1, 1, 2, 2];
    for caller in [&[][..], &["crm"]] {
        let all = (0..).zip(streams);
        let all: Vec<_> = all
            .map(|(number, stream)| waits(number, caller, stream))
            .collect();
        assert_eq!(numbers(Turns::default().order(&all)), [0, 3, 1, 4, 2]);
    }
}

/// Catches a caller that waits for its turn behind somebody who asked for the same before.
#[test]
fn what_two_wait_for_is_served_with_the_first_turn_of_either() {
    let mut all: Vec<_> = (0..5).map(|number| waits(number, &["many"], 1)).collect();
    all[4].callers.push("few".into());
    assert_eq!(numbers(Turns::default().order(&all)), [0, 4, 1, 2, 3]);
    all.push(waits(5, &["few"], 1));
    assert_eq!(numbers(Turns::default().order(&all)), [0, 4, 1, 5, 2, 3]);
}

/// Catches one that is remembered in place of all others, and a memory without end.
#[test]
fn whoever_is_forgotten_counts_from_when_it_came() {
    let mut turns = Turns::default();
    for stream in 0..3 * TURNS_MAX as u64 {
        let one = Waits {
            since: turns.now(),
            ..waits(stream, &[], stream)
        };
        let turn = turns.order(&[one]).remove(0);
        turns.had(turn);
    }
    assert!(turns.streams.len() <= TURNS_MAX);
    let came = |since| Waits {
        since,
        ..waits(10_000 - since, &[], 100_000 + since)
    };
    let (early, late) = (came(10), came(20));
    assert_eq!(numbers(turns.order(&[late, early])), [9_990, 9_980]);
}

/// Of each: when it came, who waits for it, for which stream.
fn some() -> impl Strategy<Value = Vec<(u64, Vec<u8>, u64)>> {
    vec((0_u64..3, vec(0_u8..4, 0..3), 0_u64..4), 1..25)
}

fn all(told: Vec<(u64, Vec<u8>, u64)>, callers_most: usize) -> Vec<Waits> {
    let waits = |(number, (since, mut callers, stream)): (u64, (u64, Vec<u8>, u64))| {
        callers.sort_unstable();
        callers.dedup();
        callers.truncate(callers_most);
        Waits {
            number,
            since,
            callers: callers.iter().map(|name| name.to_string().into()).collect(),
            stream,
        }
    };
    (0..).zip(told).map(waits).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// The order that is told is the one in which they are served, each once.
    #[test]
    fn what_is_told_is_what_happens(told in some(), had in vec((0_u8..4, 0_u64..4), 3..10)) {
        let mut turns = Turns::default();
        for (who, stream) in had {
            let who = Some(who).filter(|who| *who > 0).map(|who| who.to_string().into());
            turns.had(Turn { number: 0, who, stream });
        }
        let mut left = all(told, 1);
        let order = numbers(turns.order(&left));
        let mut served = Vec::new();
        while let Some(turn) = turns.order(&left).into_iter().next() {
            left.retain(|one| one.number != turn.number);
            served.push(turn.number);
            turns.had(turn);
        }
        prop_assert_eq!(order, served);
    }

    /// Whoever shares what it waits for with others is served as well, and nobody twice.
    #[test]
    fn each_is_served_once(told in some()) {
        let all = all(told, 3);
        let order = numbers(Turns::default().order(&all));
        let once: HashSet<_> = order.iter().copied().collect();
        prop_assert_eq!(order.len(), all.len());
        prop_assert_eq!(once.len(), all.len());
    }

    /// While a caller waits, no other is served twice in a row before it, nor more often than it by two.
    #[test]
    fn nobody_is_passed_over(told in some()) {
        let all = all(told, 1);
        let order = Turns::default().order(&all);
        for who in all.iter().map(|one| one.callers.first().cloned()) {
            let last = order.iter().rposition(|turn| turn.who == who).unwrap();
            let mut times: HashMap<Who, usize> = HashMap::new();
            for turn in &order[..=last] {
                *times.entry(turn.who.clone()).or_default() += 1;
            }
            let own = times[&who];
            prop_assert!(times.values().all(|times| *times <= own + 1), "{times:?}");
        }
    }
}
