//! The secrets of one credential: which of them signs, and which are on trial. Pure.
//!
//! The first key *serves*: it signs for everybody. Another takes its place when it has worked, or when the serving one is
//! refused where it should not be.
//!
//! - What newly stands in the account's secret file is *due*: it signs for one attempt at a time, and if that is refused,
//!   after a while for another one. Everybody else keeps the old secret until the new one has worked.
//! - The account's second secret waits for the serving one to be refused.
//! - A secret that stands nowhere any more goes, unless it serves and nothing else has worked yet.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::sign::Signer;

/// Between the trials of a secret that is refused, at first and at most.
const AGAIN_MIN: Duration = Duration::from_secs(1);
const AGAIN_MAX: Duration = Duration::from_secs(5 * 60);

/// How long a trial may take before there is another one.
const TRIAL: Duration = Duration::from_secs(20);

/// Where a secret stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    First,
    Next,
}

/// The keys, the serving one first. At most four: those of two slots, and two that served before them.
#[derive(Clone, Debug, Default)]
pub(super) struct Keyring {
    keys: Vec<Key>,
    made: u64,
}

#[derive(Clone, Debug)]
struct Key {
    number: u64,
    signer: Arc<Signer>,
    /// Where it stands now.
    slots: Vec<Slot>,
    worked: bool,
    failures: u32,
    /// When it may be tried; `None` if only in need.
    due: Option<Instant>,
}

/// A key that was chosen to sign.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) number: u64,
    pub(super) signer: Arc<Signer>,
    /// For one attempt only.
    pub(super) trial: bool,
}

impl Keyring {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.keys.len()
    }

    #[cfg(test)]
    pub(super) fn made(&self) -> u64 {
        self.made
    }

    /// The number of the key that serves.
    pub(super) fn serving(&self) -> Option<u64> {
        self.keys.first().map(|key| key.number)
    }

    /// Whether the serving key stands in this slot, and in no other.
    pub(super) fn serves_from(&self, slot: Slot) -> bool {
        self.keys.first().is_some_and(|key| key.slots == [slot])
    }

    /// Whether the serving key ever signed what upstream took.
    pub(super) fn has_worked(&self) -> bool {
        self.keys.first().is_some_and(|key| key.worked)
    }

    /// Something now stands in a slot. Returns whether it is another secret than before.
    pub(super) fn put(&mut self, slot: Slot, signer: Signer, now: Instant) -> bool {
        let known = self.keys.iter().position(|key| key.signer.is_as(&signer));
        if known.is_some_and(|known| self.keys[known].slots.contains(&slot)) {
            return false;
        }
        for key in &mut self.keys {
            key.slots.retain(|other| *other != slot);
        }
        let due = (slot == Slot::First).then_some(now);
        match known {
            Some(known) => {
                let key = &mut self.keys[known];
                key.slots.push(slot);
                key.due = key.due.or(due.filter(|_| !key.worked));
            }
            None => {
                self.made += 1;
                self.keys.push(Key {
                    number: self.made,
                    signer: Arc::new(signer),
                    slots: vec![slot],
                    worked: false,
                    failures: 0,
                    due,
                });
            }
        }
        // A secret that was only ever wrong (half a file, say) is not kept for what corrects it.
        if let [serving, .., _] = &self.keys[..]
            && !serving.worked
            && serving.slots.is_empty()
        {
            self.keys.remove(0);
            let worked = self.keys.iter().position(|key| key.worked);
            let stands = |key: &Key| key.slots.contains(&Slot::First);
            let best = worked.or_else(|| self.keys.iter().position(stands));
            self.keys.swap(0, best.unwrap_or(0));
        }
        self.forget();
        true
    }

    /// There is no such slot any more.
    pub(super) fn vacate(&mut self, slot: Slot) {
        for key in &mut self.keys {
            key.slots.retain(|other| *other != slot);
        }
        self.forget();
    }

    /// The key that signs next. Only with `trial` may it be one that is due.
    pub(super) fn choose(&mut self, trial: bool, now: Instant) -> Option<Chosen> {
        let (serving, others) = self.keys.split_first_mut()?;
        let is_due = |key: &&mut Key| key.due.is_some_and(|due| due <= now);
        let due = others.iter_mut().find(is_due).filter(|_| trial);
        let trial = due.is_some();
        let key = match due {
            Some(key) => {
                key.due = Some(now + TRIAL);
                key
            }
            None => serving,
        };
        Some(Chosen {
            number: key.number,
            signer: key.signer.clone(),
            trial,
        })
    }

    /// Upstream took what this key had signed, perhaps on trial. Returns whether it serves only since then.
    pub(super) fn worked(&mut self, number: u64, trial: bool) -> bool {
        let Some(at) = self.keys.iter().position(|key| key.number == number) else {
            return false;
        };
        if at > 0 && !trial {
            // Late news of a key that served before, and was refused since.
            return false;
        }
        let key = &mut self.keys[at];
        let first_time = !key.worked;
        (key.worked, key.failures, key.due) = (true, 0, None);
        if at > 0 {
            self.keys.swap(0, at);
        }
        if first_time || at > 0 {
            self.forget();
        }
        at > 0
    }

    /// A trial was refused.
    pub(super) fn failed(&mut self, number: u64, now: Instant) {
        if let Some(key) = self.keys.iter_mut().find(|key| key.number == number) {
            let wait = AGAIN_MIN * 2_u32.pow(key.failures.min(16));
            key.failures = key.failures.saturating_add(1);
            key.due = key.due.map(|_| now + wait.min(AGAIN_MAX));
        }
    }

    /// The serving key was refused where it should not be: the next one serves, if there is any.
    pub(super) fn renounce(&mut self, number: u64, now: Instant) -> bool {
        if self.keys.len() < 2 || self.serving() != Some(number) {
            return false;
        }
        // What stands in the file and never worked is tried again later; another one only in need.
        let serving = &mut self.keys[0];
        serving.due = (!serving.worked && serving.slots.contains(&Slot::First)).then_some(now);
        self.failed(number, now);
        self.keys.rotate_left(1);
        true
    }

    /// Drops what stands nowhere; the serving key stays, and so does all while it has not worked.
    fn forget(&mut self) {
        if !self.has_worked() {
            // Still bounded: of those before, one that has worked is enough.
            let mut former = 0;
            self.keys.retain(|key| {
                former += usize::from(key.slots.is_empty());
                !key.slots.is_empty() || former <= 2
            });
            return;
        }
        let serving = self.serving();
        self.keys
            .retain(|key| Some(key.number) == serving || !key.slots.is_empty());
    }
}

#[cfg(test)]
mod tests;
