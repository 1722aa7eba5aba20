//! Which texts were there before: digests, so that a long text costs no more than a short one.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{SHA256, digest};

/// The most texts that are remembered, about 40 MiB of them. Then the oldest one is forgotten.
pub(super) const SEEN_MAX: usize = 500_000;

/// How long one is remembered: a token with a `jti` ends within an hour, and the clock may be set back by another.
const SEEN_FOR: Duration = Duration::from_secs(2 * 3600);

/// Half of a SHA-256, which nobody finds twice.
type Digest = [u8; 16];

/// The texts of the last two hours.
pub(super) struct Seen {
    most: usize,
    digests: HashSet<Digest>,
    /// Oldest first.
    order: VecDeque<(SystemTime, Digest)>,
}

impl Seen {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            digests: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether this text is new, at this moment. From then on it is not.
    pub(super) fn is_new(&mut self, text: &str, now: SystemTime) -> bool {
        let old = |at: SystemTime| now.duration_since(at).is_ok_and(|age| age >= SEEN_FOR);
        while self.order.front().is_some_and(|(at, _)| old(*at)) {
            self.forget();
        }
        let mut half = Digest::default();
        half.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..16]);
        if !self.digests.insert(half) {
            return false;
        }
        self.order.push_back((now, half));
        if self.order.len() > self.most {
            self.forget();
        }
        true
    }

    fn forget(&mut self) {
        if let Some((_, oldest)) = self.order.pop_front() {
            self.digests.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_text_is_new_once_in_two_hours() {
        let mut seen = Seen::new(10);
        assert!(seen.is_new("a", at(10_000)));
        assert!(!seen.is_new("a", at(10_000)));
        assert!(seen.is_new("b", at(10_001)));
        assert!(!seen.is_new("a", at(6_000)), "the clock was set back");
        assert!(!seen.is_new("a", at(17_199)));
        assert!(seen.is_new("a", at(17_200)));
        assert!(!seen.is_new("b", at(17_200)));
    }

    /// As many as a test of a gateway may want to send, and more.
    #[test]
    fn each_of_very_many_is_remembered() {
        let mut seen = Seen::new(SEEN_MAX);
        let mut all = |new: bool| {
            (0..300_000).all(|number: u32| seen.is_new(&number.to_string(), at(0)) == new)
        };
        assert!(all(true) && all(false));
    }

    #[test]
    fn beyond_its_bound_the_oldest_is_forgotten() {
        let mut seen = Seen::new(2);
        for text in ["a", "b", "c"] {
            assert!(seen.is_new(text, at(0)));
        }
        assert_eq!((seen.digests.len(), seen.order.len()), (2, 2));
        assert!(!seen.is_new("b", at(0)) && !seen.is_new("c", at(0)));
        assert!(seen.is_new("a", at(0)));
    }
}
