use proptest::prelude::*;

use super::*;
use crate::{contacts::account::Algorithm, upstream::secret::Secret};

const SECOND: Duration = Duration::from_secs(1);

fn signer(text: &str) -> Signer {
    Signer::new(&Secret::new(text), Algorithm::HS256).unwrap()
}

/// A ring, what each number was made of, and a clock.
struct Ring {
    keyring: Keyring,
    now: Instant,
}

impl Ring {
    fn new() -> Self {
        Self {
            keyring: Keyring::default(),
            now: Instant::now(),
        }
    }

    fn put(&mut self, slot: Slot, text: &str) -> bool {
        self.keyring.put(slot, signer(text), self.now)
    }

    /// What signs next, and whether for one attempt only.
    fn choose(&mut self) -> (String, bool) {
        let chosen = self.keyring.choose(true, self.now).unwrap();
        (self.text(chosen.number), chosen.trial)
    }

    fn text(&self, number: u64) -> String {
        let key = self.keyring.keys.iter().find(|key| key.number == number);
        let known = ["a", "b", "c", "d", "n"].into_iter();
        let signer = &key.unwrap().signer;
        known
            .map(str::to_owned)
            .find(|text| signer.is_as(&self::signer(text)))
            .unwrap()
    }

    fn number(&self, text: &str) -> u64 {
        let keys = self.keyring.keys.iter();
        let mut found = keys.filter(|key| key.signer.is_as(&signer(text)));
        found.next().unwrap().number
    }

    /// Every secret that is held, the serving one first.
    fn held(&self) -> String {
        let keys = self.keyring.keys.iter();
        keys.map(|key| self.text(key.number)).collect()
    }

    fn works(&mut self, text: &str) {
        let number = self.number(text);
        self.keyring
            .worked(number, self.keyring.serving() != Some(number));
    }

    fn fails(&mut self, text: &str) {
        let number = self.number(text);
        self.keyring.failed(number, self.now);
    }
}

fn chosen(text: &str, trial: bool) -> (String, bool) {
    (text.to_owned(), trial)
}

#[test]
fn the_old_secret_serves_until_the_new_one_has_worked() {
    let mut ring = Ring::new();
    assert!(ring.put(Slot::First, "a"));
    ring.works("a");
    assert!(!ring.put(Slot::First, "a"), "the same again");
    assert!(ring.put(Slot::First, "b"));
    assert_eq!(ring.choose(), chosen("b", true));
    // One trial at a time; the others go on with the old one.
    assert_eq!(ring.choose(), chosen("a", false));
    assert!(ring.keyring.worked(ring.number("b"), true));
    assert_eq!(ring.choose(), chosen("b", false));
    assert_eq!(ring.held(), "b", "the old secret is gone");
}

#[test]
fn a_secret_that_is_refused_is_tried_again_and_the_old_one_kept() {
    let mut ring = Ring::new();
    ring.put(Slot::First, "a");
    ring.works("a");
    ring.put(Slot::First, "b");
    for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
        assert_eq!(ring.choose(), chosen("b", true));
        ring.fails("b");
        ring.now += SECOND * seconds - Duration::from_nanos(1);
        assert_eq!(ring.choose(), chosen("a", false));
        ring.now += Duration::from_nanos(1);
    }
    // What corrects it is tried at once, and half a file is not kept.
    ring.put(Slot::First, "c");
    assert_eq!(ring.choose(), chosen("c", true));
    assert_eq!(ring.held(), "ac");
    // And back again: nothing is to be tried.
    ring.put(Slot::First, "a");
    assert_eq!(ring.choose(), chosen("a", false));
    assert_eq!(ring.held(), "a");
}

#[test]
fn a_trial_that_never_ends_is_followed_by_another() {
    let mut ring = Ring::new();
    ring.put(Slot::First, "a");
    ring.works("a");
    ring.put(Slot::First, "b");
    assert_eq!(ring.choose(), chosen("b", true));
    ring.now += TRIAL;
    assert_eq!(ring.choose(), chosen("b", true));
    // Strangers try nothing.
    ring.now += TRIAL;
    assert!(!ring.keyring.choose(false, ring.now).unwrap().trial);
}

#[test]
fn the_second_secret_waits_for_the_first_to_be_refused() {
    let mut ring = Ring::new();
    ring.put(Slot::First, "a");
    ring.put(Slot::Next, "n");
    ring.works("a");
    ring.now += TRIAL;
    assert_eq!(ring.choose(), chosen("a", false));
    assert!(ring.keyring.renounce(ring.number("a"), ring.now));
    assert_eq!(ring.choose(), chosen("n", false));
    assert!(
        !ring.keyring.renounce(ring.number("a"), ring.now),
        "news of yesterday"
    );
    ring.works("n");
    assert_eq!(ring.choose(), chosen("n", false));
    // The operator finishes the rotation: the second becomes the first.
    assert!(ring.put(Slot::First, "n"));
    assert_eq!(
        (ring.choose(), ring.held().as_str()),
        (chosen("n", false), "n")
    );
}

#[test]
fn a_wrong_secret_at_the_start_gives_way_and_comes_back() {
    let mut ring = Ring::new();
    ring.put(Slot::First, "a");
    ring.put(Slot::Next, "n");
    assert!(ring.keyring.renounce(ring.number("a"), ring.now));
    ring.works("n");
    assert_eq!(ring.choose(), chosen("n", false));
    ring.now += SECOND;
    assert_eq!(
        ring.choose(),
        chosen("a", true),
        "it never worked, and stands first"
    );
    // Alone there is nothing to give way to.
    let mut ring = Ring::new();
    ring.put(Slot::First, "a");
    assert!(!ring.keyring.renounce(ring.number("a"), ring.now));
    // What corrects a secret that never worked serves at once.
    ring.put(Slot::First, "b");
    assert_eq!(
        (ring.choose(), ring.held().as_str()),
        (chosen("b", false), "b")
    );
}

#[test]
fn a_secret_that_is_refused_after_it_was_replaced_gives_way_at_once() {
    let mut ring = Ring::new();
    ring.put(Slot::First, "a");
    ring.works("a");
    ring.put(Slot::First, "b");
    ring.choose();
    ring.fails("b");
    // Revoked, while the new one still waits for its next trial.
    assert!(ring.keyring.renounce(ring.number("a"), ring.now));
    assert_eq!(ring.choose(), chosen("b", false));
    assert_eq!(ring.held(), "ba", "until the new one has worked");
    // An answer from before it was revoked comes late, and brings nothing back.
    assert!(!ring.keyring.worked(ring.number("a"), false));
    assert_eq!(ring.choose(), chosen("b", false));
    ring.works("b");
    assert_eq!(ring.held(), "b");
}

proptest! {
    /// Whatever happens in whatever order: something serves, little is held, and what stands in a slot is held.
    #[test]
    fn a_ring_is_never_empty_again(steps in proptest::collection::vec((0_u8..6, 0_usize..4, 0_u64..400), 1..200)) {
        const TEXTS: [&str; 4] = ["a", "b", "c", "d"];
        let mut ring = Ring::new();
        ring.put(Slot::First, "a");
        let mut slots = ["a", "a"];
        for (step, text, wait) in steps {
            ring.now += SECOND * u32::try_from(wait).unwrap();
            let text = TEXTS[text];
            let before = ring.held();
            let serving = ring.keyring.has_worked().then(|| ring.keyring.serving()).flatten();
            match step {
                0 => {
                    ring.put(Slot::First, text);
                    slots[0] = text;
                }
                1 => {
                    ring.put(Slot::Next, text);
                    slots[1] = text;
                }
                2 => { ring.choose(); }
                3 if before.contains(text) => ring.works(text),
                4 if before.contains(text) => ring.fails(text),
                5 if before.contains(text) => {
                    let number = ring.number(text);
                    ring.keyring.renounce(number, ring.now);
                }
                _ => {}
            }
            let held = ring.held();
            prop_assert!((1..=4).contains(&held.len()), "{held}");
            prop_assert!(held.contains(slots[0]), "{held} without {slots:?}");
            // A secret that works is never lost to one that was only read.
            if step < 2 && let Some(serving) = serving {
                prop_assert_eq!(ring.keyring.serving(), Some(serving));
            }
        }
    }
}
