use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

const UNSAID: (Reason, bool) = (Reason::Unsaid, true);

fn stream<T: ToString + Copy>(name: T) -> StreamId {
    StreamId::parse(&name.to_string()).unwrap()
}

/// A credential, an upstream that reads some streams, and a clock.
struct World {
    refusals: Refusals,
    now: Instant,
    /// Streams that upstream gives, while the credential is good.
    right: Vec<&'static str>,
    calls: u32,
}

impl World {
    fn new(right: &[&'static str]) -> Self {
        Self {
            refusals: Refusals::default(),
            now: Instant::now(),
            right: right.to_vec(),
            calls: 0,
        }
    }

    /// One attempt and the second try that it may have: `Ok` if it was read, else why not; `None` if it was not sent.
    fn ask(&mut self, name: &str) -> Result<(), Resting> {
        self.ask_as(None, name)
    }

    fn ask_as(&mut self, caller: Option<&str>, name: &str) -> Result<(), Resting> {
        let (id, caller) = (stream(name), caller.map(CallerName::from));
        for _ in 0..2 {
            let probe = self.refusals.admit(&id, caller.as_ref(), self.now)?;
            self.calls += 1;
            let generation = self.refusals.generation();
            let verdict = if self.right.contains(&name) {
                self.refusals.read(&id);
                None
            } else {
                Some(self.refusals.refused(&id, generation, UNSAID, self.now))
            };
            if let Some(probe) = probe {
                self.refusals.release(&id, probe, self.now);
            }
            match verdict {
                None => return Ok(()),
                Some(Verdict::Rests(resting)) => return Err(resting),
                Some(_) => {}
            }
        }
        panic!("{name} was to be tried three times");
    }

    /// What it costs to ask, in calls and in generations.
    fn cost(&mut self, name: &str) -> (u32, u64) {
        let before = (self.calls, self.refusals.generation());
        let _ = self.ask(name);
        (self.calls - before.0, self.refusals.generation() - before.1)
    }
}

#[test]
fn a_generation_ends_once_for_all_who_were_refused_together() {
    let (mut refusals, now) = (Refusals::default(), Instant::now());
    let refused = |refusals: &mut Refusals, name: u32, generation| {
        refusals.refused(&stream(name), generation, UNSAID, now)
    };
    assert_eq!(refused(&mut refusals, 0, 0), Verdict::Renewed);
    for name in 0..100 {
        assert_eq!(refused(&mut refusals, name, 0), Verdict::Again);
    }
    assert_eq!(refusals.generation(), 1);
    // Those who are refused again rest, each stream for itself, and late news of the old generation changes nothing.
    let renewed = refusals.generation();
    refusals.read(&stream("good"));
    assert!(matches!(refused(&mut refusals, 7, 1), Verdict::Rests(_)));
    assert!(matches!(refused(&mut refusals, 7, 0), Verdict::Rests(_)));
    assert_eq!(refusals.generation(), renewed);
    assert!(refusals.admit(&stream(7), None, now).is_err());
    assert!(refusals.admit(&stream(8), None, now).is_ok());
}

#[test]
fn those_who_are_refused_together_rest_once() {
    let (mut refusals, now) = (Refusals::default(), Instant::now());
    refusals.read(&stream("one"));
    let mut refused = |generation| refusals.refused(&stream("one"), generation, UNSAID, now);
    assert_eq!(refused(0), Verdict::Renewed);
    for _ in 0..100 {
        let Verdict::Rests(rest) = refused(1) else {
            panic!("tried a third time");
        };
        assert_eq!(rest.left, SECOND);
    }
    assert_eq!(refusals.generation(), 1);
    assert!(refusals.admit(&stream("one"), None, now + SECOND).is_ok());
}

#[test]
fn a_stream_rests_for_a_second_and_up_to_five_minutes() {
    let mut world = World::new(&["good"]);
    world.ask("good").unwrap();
    assert_eq!(world.cost("bad"), (2, 1));
    for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        let rest = world.ask("bad").unwrap_err();
        assert_eq!((rest.whole, rest.left), (false, SECOND * seconds));
        world.now += SECOND * seconds - Duration::from_nanos(1);
        assert_eq!(world.cost("bad"), (0, 0));
        world.now += Duration::from_nanos(1);
        assert!(world.cost("bad").0 > 0);
        world.ask("good").unwrap();
    }
    world.right.push("bad");
    world.now += 5 * MINUTE;
    world.ask("bad").unwrap();
    world.right.pop();
    assert_eq!(
        world.ask("bad").unwrap_err().left,
        SECOND,
        "all is forgotten"
    );
}

#[test]
fn strangers_end_one_generation_a_minute_and_no_rest_but_their_own() {
    let mut world = World::new(&["good"]);
    world.ask("good").unwrap();
    assert_eq!(world.cost("bad-1"), (2, 1));
    for name in ["bad-2", "bad-3", "bad-4", "bad-5"] {
        assert_eq!(world.cost(name), (1, 0), "{name}");
        assert_eq!(world.cost("good"), (1, 0));
    }
    world.now += MINUTE - Duration::from_nanos(1);
    assert_eq!(world.cost("bad-6"), (1, 0));
    world.now += Duration::from_nanos(1);
    assert_eq!(world.cost("bad-7"), (2, 1));
}

#[test]
fn a_stream_that_was_read_and_is_refused_twice_makes_the_credential_rest() {
    let mut world = World::new(&["one", "two"]);
    world.ask("one").unwrap();
    world.ask("two").unwrap();
    world.right.clear();
    for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        assert_eq!(
            world.cost("one"),
            (2, 1),
            "after a rest it is tried with a new token"
        );
        for name in ["one", "two", "new"] {
            let rest = world.ask(name).unwrap_err();
            assert_eq!((rest.whole, rest.left), (true, SECOND * seconds), "{name}");
        }
        world.now += SECOND * seconds;
    }
    world.right = vec!["one", "two"];
    world.ask("two").unwrap();
    assert!(!world.refusals.rests());
}

#[test]
fn a_stream_that_was_taken_away_is_blamed_once_the_credential_works() {
    let mut world = World::new(&["kept", "lost"]);
    world.ask("kept").unwrap();
    world.ask("lost").unwrap();
    world.right = vec!["kept"];
    assert!(world.ask("lost").unwrap_err().whole);
    world.now += SECOND;
    world.ask("kept").unwrap();
    for _ in 0..100 {
        world.now += 30 * SECOND;
        if let Err(rest) = world.ask("lost") {
            assert!(!rest.whole);
        }
        world.ask("kept").unwrap();
    }
}

#[test]
fn a_credential_that_never_worked_rests_after_three_streams() {
    let mut world = World::new(&[]);
    for (name, whole) in [("a", false), ("b", false), ("c", true)] {
        assert_eq!(world.ask(name).unwrap_err().whole, whole, "{name}");
    }
    assert_eq!(world.refusals.generation(), 1);
    assert_eq!(world.cost("d"), (0, 0));
    // Strangers that were refused wait; one that never was is tried now and then, and may be the right one.
    world.now += SECOND;
    assert!(world.ask("a").unwrap_err().whole);
    world.now += STRANGER_TRIED;
    assert!(world.ask("a").unwrap_err().whole);
    world.now += SECOND;
    world.right.push("right");
    assert!(world.ask("right").is_err(), "not yet");
    world.now += 4 * SECOND;
    world.ask("right").unwrap();
    assert!(!world.refusals.rests());
}

#[test]
fn what_a_new_token_cannot_help_is_not_tried_again() {
    let (mut refusals, now) = (Refusals::default(), Instant::now());
    refusals.read(&stream("good"));
    refusals.read(&stream("bad"));
    let verdict = refusals.refused(&stream("bad"), 0, (Reason::Scope, false), now);
    assert!(matches!(verdict, Verdict::Rests(rest) if rest.reason == Reason::Scope));
    // Nor does it say anything of the credential's other streams.
    assert!(refusals.admit(&stream("good"), None, now).is_ok());
    assert_eq!(refusals.generation(), 0);
}

#[test]
fn one_goes_first_when_a_rest_is_over() {
    let mut world = World::new(&["good"]);
    world.ask("good").unwrap();
    assert!(world.ask("bad").is_err());
    world.now += SECOND;
    let bad = stream("bad");
    let probe = world.refusals.admit(&bad, None, world.now).unwrap();
    let waiting = world.refusals.admit(&bad, None, world.now).unwrap_err();
    assert_eq!((waiting.whole, waiting.left), (false, SECOND));
    // It ended without an answer: the next one goes.
    world.refusals.release(&bad, probe.unwrap(), world.now);
    assert!(world.refusals.admit(&bad, None, world.now).is_ok());
    // It never ended at all.
    world.now += PROBE_FOR;
    assert!(world.refusals.admit(&bad, None, world.now).is_ok());
}

#[test]
fn what_is_remembered_has_a_bound() {
    let (mut refusals, now) = (Refusals::default(), Instant::now());
    refusals.read(&stream("good"));
    for number in 0..5 * STREAMS_MAX.get() {
        refusals.refused(&stream(number), 0, UNSAID, now);
    }
    assert_eq!(refusals.strangers.len(), STREAMS_MAX.get());
    assert!(refusals.knows(&stream("good")), "strangers push nobody out");
    for number in 0..5 * STREAMS_MAX.get() {
        refusals.read(&stream(number));
    }
    assert_eq!(refusals.read.len(), STREAMS_MAX.get());
}

#[test]
fn forgiven_is_forgotten() {
    let mut world = World::new(&["good"]);
    world.ask("good").unwrap();
    world.right.clear();
    assert!(world.ask("good").unwrap_err().whole);
    assert_eq!(world.cost("good"), (0, 0));
    world.refusals.forgive();
    world.right = vec!["good"];
    world.ask("good").unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Fifty callers ask for wrong streams all the time, in any order and at any pace.
    #[test]
    fn right_streams_are_always_read(asks in proptest::collection::vec((0_usize..60, 0_u64..3_000), 1..2_000)) {
        const RIGHT: [&str; 10] = ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r7", "r8", "r9"];
        let mut world = World::new(&RIGHT);
        world.ask("r0").unwrap();
        let mut renewed: Vec<Instant> = Vec::new();
        for (number, wait) in asks {
            world.now += Duration::from_millis(wait);
            let before = world.refusals.generation();
            match RIGHT.get(number) {
                Some(name) => prop_assert_eq!(world.ask(name), Ok(())),
                None => {
                    let rest = world.ask(&format!("wrong-{number}"));
                    prop_assert!(rest.is_err_and(|rest| !rest.whole));
                }
            }
            let ended = world.refusals.generation() - before;
            renewed.extend((0..ended).map(|_| world.now));
        }
        for two in renewed.windows(2) {
            prop_assert!(two[1] - two[0] >= MINUTE, "two new tokens within a minute");
        }
    }

    /// Whatever is wrong and for how long: once it is right again, it is read, at the latest after the longest rest.
    #[test]
    fn every_rest_ends(asks in proptest::collection::vec((0_usize..8, any::<bool>(), 0_u64..600), 1..300)) {
        const ALL: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let mut world = World::new(&[]);
        for (number, good, wait) in asks {
            world.now += Duration::from_secs(wait);
            world.right = if good { ALL[..4].to_vec() } else { Vec::new() };
            let _ = world.ask(ALL[number]);
        }
        world.right = ALL.to_vec();
        for name in ALL {
            world.now += REST_MAX;
            prop_assert_eq!(world.ask(name), Ok(()));
        }
    }
}

/// Some callers ask for wrong streams all the time, from the start, and sometimes in between somebody for a right one.
struct Crowd {
    world: World,
    greedy: &'static [&'static str],
    asked: usize,
}

impl Crowd {
    fn new(greedy: &'static [&'static str]) -> Self {
        Self {
            world: World::new(&[]),
            greedy,
            asked: 0,
        }
    }

    /// Goes on so for a while.
    fn goes_on(&mut self, time: Duration) {
        let until = self.world.now + time;
        while self.world.now < until {
            let wrong = format!("wrong-{}", self.asked);
            let _ = self
                .world
                .ask_as(Some(self.greedy[self.asked % self.greedy.len()]), &wrong);
            self.world.now += SECOND / 20;
            self.asked += 1;
        }
    }
}

const GREEDY: [&[&str]; 3] = [&["a"], &["a", "b"], &["a", "b", "c", "d"]];

/// Catches callers that keep the account's credential resting for all others, since they are every probe there is.
#[test]
fn who_asks_for_wrong_streams_does_not_keep_the_others_out() {
    for greedy in GREEDY {
        let mut crowd = Crowd::new(greedy);
        crowd.world.right = vec!["right"];
        crowd.goes_on(30 * SECOND);
        assert!(crowd.world.refusals.rests());
        let tried = (0..30).find(|_| {
            crowd.goes_on(SECOND);
            crowd.world.ask_as(Some("modest"), "right").is_ok()
        });
        let most = 6 * greedy.len();
        assert!(
            tried.is_some_and(|times| times <= most),
            "{greedy:?}: {tried:?}"
        );
        crowd.goes_on(MINUTE);
        assert!(crowd.world.ask_as(Some("modest"), "right").is_ok());
    }
}

/// Catches the same where the right stream was refused before, so that nothing but a probe can tell that it is right now.
#[test]
fn who_comes_back_when_it_was_told_to_is_a_probe_in_its_turn() {
    for greedy in GREEDY {
        let mut crowd = Crowd::new(greedy);
        crowd.goes_on(SECOND);
        assert!(crowd.world.ask_as(Some("modest"), "right").is_err());
        crowd.goes_on(10 * SECOND);
        crowd.world.right = vec!["right"];
        let mut times = 0;
        while let Err(resting) = crowd.world.ask_as(Some("modest"), "right") {
            // As `Retry-After` says it.
            crowd.goes_on(Duration::from_secs(resting.left.as_secs() + 1));
            times += 1;
            assert!(times <= greedy.len() + 2, "{greedy:?}: {resting:?}");
        }
    }
}

/// Catches a caller that must wait for itself, and a probe whose second try is somebody else's turn.
#[test]
fn whoever_is_alone_probes_as_if_nobody_were_known() {
    let told = |caller: Option<&str>| {
        let mut world = World::new(&["good"]);
        world.ask_as(caller, "good").unwrap();
        world.right.clear();
        let mut told = Vec::new();
        for second in 0..300 {
            let before = world.calls;
            let rests = world.ask_as(caller, "good").unwrap_err();
            told.push((second, world.calls - before, rests.whole, rests.left));
            world.now += SECOND;
        }
        told
    };
    assert_eq!(told(Some("crm")), told(None));
    assert!(told(None).iter().any(|(_, calls, ..)| *calls > 0));
}

/// Catches a probe that may not use the new token that its refusal brought about, because somebody else is next.
#[test]
fn a_probe_has_its_second_try_whoever_is_next() {
    let mut world = World::new(&["good"]);
    world.ask_as(Some("a"), "good").unwrap();
    world.right.clear();
    for caller in ["a", "c", "d"] {
        assert!(world.ask_as(Some(caller), "good").unwrap_err().whole);
    }
    // Whose turn it is does not come back.
    world.now += SECOND + TURN;
    let before = world.calls;
    assert!(world.ask_as(Some("a"), "good").is_err());
    assert_eq!(world.calls - before, 2);
}
