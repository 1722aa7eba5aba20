//! So many in any minute: pure, and told the time.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

pub const MINUTE: Duration = Duration::from_secs(60);

/// Admits so many in any minute, wherever it begins.
#[derive(Clone, Debug)]
pub struct PerMinute {
    most: usize,
    taken: VecDeque<Instant>,
}

impl PerMinute {
    pub fn new(most: usize) -> Self {
        Self {
            most,
            taken: VecDeque::new(),
        }
    }

    /// Whether a new one would say the same.
    pub fn is_idle(&self, now: Instant) -> bool {
        self.taken.back().is_none_or(|last| *last + MINUTE <= now)
    }

    /// Whether one more may be, which is then counted.
    pub fn take(&mut self, now: Instant) -> bool {
        while self.taken.front().is_some_and(|then| *then + MINUTE <= now) {
            self.taken.pop_front();
        }
        let may = self.taken.len() < self.most;
        if may {
            self.taken.push_back(now);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_minute_has_more(most in 0_usize..8, waits in proptest::collection::vec(0_u64..30_000, 1..200)) {
            let (mut minute, mut now, mut taken) = (PerMinute::new(most), Instant::now(), Vec::new());
            for wait in waits {
                now += Duration::from_millis(wait);
                if minute.take(now) {
                    taken.push(now);
                } else {
                    // Nobody is refused for nothing.
                    let minute = taken.iter().filter(|then| **then + MINUTE > now);
                    prop_assert_eq!(minute.count(), most);
                }
            }
            for more in taken.windows(most + 1) {
                prop_assert!(more[most] - more[0] >= MINUTE);
            }
        }
    }
}
