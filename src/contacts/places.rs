//! Places: so many may do something at once, and no caller takes it from the others.
//!
//! None gets a place while it has as many as there are left. So one that asks for all of them gets half, the next one half
//! of the rest: the others find room, unless there are very many such callers. Where nobody is known, whoever asks gets one
//! while there is one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::request::CallerName;

/// So many places. Clones share them.
#[derive(Clone, Debug)]
pub struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Those of known callers. Who has none is not in it.
    of: HashMap<CallerName, usize>,
}

impl Places {
    pub fn new(max: usize) -> Self {
        let taken = Mutex::default();
        Self(Arc::new(Shared { max, taken }))
    }

    /// One of them, for this caller if it is known; `None` if none is left, or it has as many as are.
    pub fn take(&self, caller: Option<&CallerName>) -> Option<Place> {
        let mut taken = self.0.taken();
        let own = caller.and_then(|name| taken.of.get(name)).copied();
        let own = own.unwrap_or(0);
        if taken.all + own >= self.0.max {
            return None;
        }
        taken.all += 1;
        if let Some(name) = caller {
            taken.of.insert(name.clone(), own + 1);
        }
        Some(Place {
            shared: self.0.clone(),
            caller: caller.cloned(),
        })
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place, which is free again when this is dropped.
#[derive(Debug)]
pub struct Place {
    shared: Arc<Shared>,
    caller: Option<CallerName>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.shared.taken();
        taken.all -= 1;
        if let Some(name) = &self.caller
            && let Some(own) = taken.of.get_mut(name)
        {
            *own -= 1;
            if *own == 0 {
                taken.of.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn greedy(places: &Places, caller: Option<&CallerName>) -> Vec<Place> {
        std::iter::from_fn(|| places.take(caller)).collect()
    }

    #[test]
    fn who_asks_for_all_gets_half_and_the_next_half_of_the_rest() {
        let [a, b, c] = ["a", "b", "c"].map(CallerName::from);
        for (max, shares) in [
            (1, [1, 0, 0]),
            (2, [1, 1, 0]),
            (4, [2, 1, 1]),
            (5_000, [2_500, 1_250, 625]),
        ] {
            let places = Places::new(max);
            let all = [&a, &b, &c].map(|name| greedy(&places, Some(name)));
            assert_eq!(all.each_ref().map(Vec::len), shares, "of {max}");
            drop(all);
            assert!(
                places.0.taken().of.is_empty(),
                "nobody is remembered for nothing"
            );
            assert_eq!(greedy(&places, None).len(), max);
        }
    }

    proptest! {
        /// Catches places that are lost or made, and one that somebody gets who has enough.
        #[test]
        fn what_is_taken_is_counted(
            max in 1_usize..20,
            steps in prop::collection::vec((0_usize..5, any::<bool>()), 1..200),
        ) {
            let places = Places::new(max);
            let names = ["a", "b", "c", "d"].map(CallerName::from);
            let mut held: [Vec<Place>; 5] = Default::default();
            for (who, take) in steps {
                let name = names.get(who);
                let all: usize = held.iter().map(Vec::len).sum();
                if take {
                    let place = places.take(name);
                    let own = name.map_or(0, |_| held[who].len());
                    prop_assert_eq!(place.is_some(), own < max - all);
                    held[who].extend(place);
                } else {
                    held[who].pop();
                }
                let taken = places.0.taken();
                prop_assert_eq!(taken.all, held.iter().map(Vec::len).sum::<usize>());
                for (name, held) in names.iter().zip(&held) {
                    prop_assert_eq!(taken.of.get(name).copied().unwrap_or(0), held.len());
                }
            }
        }
    }
}
