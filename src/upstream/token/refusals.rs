//! What refusals of one credential mean: for the stream, for the credential, and for the next token. Pure.
//!
//! Kore.ai has one answer for a bad token, a missing scope and a wrong stream id. So a refusal first counts against the
//! stream alone, and what tells the cases apart is whether the stream was ever read:
//!
//! - tokens belong to a *generation*. The first refusal of a generation ends it, and whoever was refused together with it
//!   tries once more with the next: one new token for all of them;
//! - a stream that is refused in two generations in a row *rests*, and longer each time. If it had been read before, the
//!   credential rests as well;
//! - a stream that was never read (a *stranger*) ends a generation at most once a minute, for all strangers together. If
//!   nothing was ever read and three of them rest, so does the credential;
//! - when a rest is over one attempt goes first, the *probe*, and the others wait for what comes of it. What is read ends
//!   the rests of its stream and of the credential;
//! - while the credential rests callers take turns: whoever was turned away longest ago goes first, if it comes back in
//!   time. Else one that asks all the time, and for nothing but wrong streams, would be every probe there is.

use std::{collections::VecDeque, num::NonZeroUsize, time::Duration};

use lru::LruCache;
use tokio::time::Instant;

use super::words::Reason;
use crate::contacts::{ids::StreamId, request::CallerName};

/// Streams that are remembered of a credential: so many that were read, and as many that never were. Beyond it the one
/// that was longest not asked for is forgotten.
const STREAMS_MAX: NonZeroUsize = NonZeroUsize::new(1000).unwrap();

/// The shortest and the longest rest.
const REST_MIN: Duration = Duration::from_secs(1);
const REST_MAX: Duration = Duration::from_secs(5 * 60);

/// How long strangers wait for another generation.
const STRANGERS_RENEW: Duration = Duration::from_secs(60);

/// Refused strangers after which a credential rests that nothing was ever read with.
const STRANGERS: usize = 3;

/// Meanwhile a stranger that was never refused may be the right one: one is tried so often.
const STRANGER_TRIED: Duration = Duration::from_secs(5);

/// How long others wait for the caller whose turn it is.
const TURN: Duration = Duration::from_secs(2);

/// Callers that are remembered as turned away.
const TURNED_AWAY_MAX: usize = 100;

/// How long a probe has the field for itself.
const PROBE_FOR: Duration = Duration::from_secs(20);

/// What is remembered of one credential.
#[derive(Debug)]
pub(super) struct Refusals {
    generation: u64,
    read: LruCache<StreamId, Record>,
    strangers: LruCache<StreamId, Record>,
    /// Of the credential.
    rest: Rest,
    /// Whether anything was ever read.
    worked: bool,
    /// When strangers last ended a generation.
    renewed: Option<Instant>,
    /// When a stranger was last tried.
    tried: Option<Instant>,
    /// The caller that was let through last while the credential rested.
    last: Option<CallerName>,
    /// Whether that one's probe is over, and nothing yet came of it: it may try a second time.
    again: bool,
    /// The others that were turned away since they were let through, first come first.
    turned_away: VecDeque<CallerName>,
    probes: u64,
}

/// One stream.
#[derive(Debug, Default)]
struct Record {
    /// The last generation it was refused in, unless it was read since.
    refused: Option<u64>,
    rest: Rest,
}

/// A rest, and how often it was needed in a row.
#[derive(Debug, Default)]
struct Rest {
    failures: u32,
    until: Option<Instant>,
    /// Who goes first, if somebody does.
    probe: Option<u64>,
    reason: Reason,
}

/// Why nothing is sent, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resting {
    /// Of the credential, not only of the stream.
    pub(super) whole: bool,
    pub(super) reason: Reason,
    pub(super) left: Duration,
}

/// What follows from a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is a newer generation to be tried.
    Again,
    /// There is now, because of this refusal.
    Renewed,
    Rests(Resting),
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            generation: 0,
            // Without a capacity nothing is allocated for accounts that nobody asks for; the bound is kept below.
            read: LruCache::unbounded(),
            strangers: LruCache::unbounded(),
            rest: Rest::default(),
            worked: false,
            renewed: None,
            tried: None,
            last: None,
            again: false,
            turned_away: VecDeque::new(),
            probes: 0,
        }
    }
}

impl Refusals {
    /// The generation that tokens are minted in.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the stream was ever read.
    pub(super) fn knows(&self, stream: &StreamId) -> bool {
        self.read.contains(stream)
    }

    /// Whether anything was ever read.
    pub(super) fn worked(&self) -> bool {
        self.worked
    }

    /// Whether the credential rests.
    pub(super) fn rests(&self) -> bool {
        self.rest.failures > 0
    }

    /// Why the credential rests, if it does, and the streams that are refused. What was refused stays so until it is read,
    /// also when its rest is over and nobody has asked since.
    pub(super) fn standing(
        &self,
        now: Instant,
    ) -> (Option<Resting>, impl Iterator<Item = (&StreamId, Resting)>) {
        let refused = move |rest: &Rest, whole| {
            let left = rest.left(now).unwrap_or_default();
            (rest.failures > 0).then(|| rest.resting(whole, left))
        };
        let records = self.read.iter().chain(self.strangers.iter());
        let streams = records
            .filter_map(move |(stream, record)| Some((stream, refused(&record.rest, false)?)));
        (refused(&self.rest, true), streams)
    }

    /// Whether an attempt may go, and as which probe. `caller`: who began it, if that is known.
    pub(super) fn admit(
        &mut self,
        stream: &StreamId,
        caller: Option<&CallerName>,
        now: Instant,
    ) -> Result<Option<u64>, Resting> {
        let may_again = self.again && self.last.as_ref() == caller;
        self.again &= !may_again;
        let is_next = may_again
            || self
                .turned_away
                .front()
                .is_none_or(|next| Some(next) == caller);
        // Its own turn, or the end of the turn of whoever does not come back.
        let after = if is_next { Duration::ZERO } else { TURN };
        let rests = self.rest.until.filter(|_| self.rests());
        let left = rests.and_then(|until| (until + after).checked_duration_since(now));
        let record = match self.read.peek_mut(stream) {
            Some(record) => Some(record),
            None => self.strangers.peek_mut(stream),
        };
        if let Some(left) = left.filter(|left| !left.is_zero()) {
            let left = self.rest.told(left);
            let often = match caller.is_some() && self.last.as_ref() != caller {
                true => TURN,
                false => STRANGER_TRIED,
            };
            let due = |tried: Instant| tried + often + after <= now;
            if record.is_some() || self.worked || !self.tried.is_none_or(due) {
                self.turn_away(caller);
                return Err(self.rest.resting(true, left));
            }
            self.tried = Some(now);
            self.let_through(caller);
            return Ok(None);
        }
        let left = record.as_ref().and_then(|record| record.rest.left(now));
        if let (Some(left), Some(record)) = (left, &record) {
            return Err(record.rest.resting(false, left));
        }
        let rests_whole = self.rest.failures > 0;
        let rests = [Some(&mut self.rest), record.map(|record| &mut record.rest)];
        let mut probe = None;
        for rest in rests.into_iter().flatten() {
            if rest.failures > 0 {
                let number = *probe.get_or_insert_with(|| {
                    self.probes += 1;
                    self.probes
                });
                rest.until = Some(now + PROBE_FOR);
                rest.probe = Some(number);
            }
        }
        if rests_whole {
            // Whoever was to be next and did not come back is turned away anew if it does.
            if !is_next {
                self.turned_away.pop_front();
            }
            self.let_through(caller);
        }
        Ok(probe)
    }

    /// It is somebody else's turn now.
    fn let_through(&mut self, caller: Option<&CallerName>) {
        self.turned_away.retain(|other| Some(other) != caller);
        self.last = caller.cloned();
    }

    fn turn_away(&mut self, caller: Option<&CallerName>) {
        let is_known = |caller: &&CallerName| {
            self.last.as_ref() == Some(*caller) || self.turned_away.contains(*caller)
        };
        if let Some(caller) = caller.filter(|caller| !is_known(caller))
            && self.turned_away.len() < TURNED_AWAY_MAX
        {
            self.turned_away.push_back(caller.clone());
        }
    }

    fn forget_turns(&mut self) {
        (self.last, self.again) = (None, false);
        self.turned_away.clear();
    }

    /// A probe has ended. If nothing came of it, another may go.
    pub(super) fn release(&mut self, stream: &StreamId, probe: u64, now: Instant) {
        let record = match self.read.peek_mut(stream) {
            Some(record) => Some(record),
            None => self.strangers.peek_mut(stream),
        };
        self.again |= self.rest.probe == Some(probe);
        let rests = [Some(&mut self.rest), record.map(|record| &mut record.rest)];
        for rest in rests.into_iter().flatten() {
            if rest.probe == Some(probe) {
                rest.probe = None;
                rest.until = Some(now);
            }
        }
    }

    /// A token of this generation was refused for the stream, for a reason that another one may cure, or may not.
    pub(super) fn refused(
        &mut self,
        stream: &StreamId,
        generation: u64,
        (reason, curable): (Reason, bool),
        now: Instant,
    ) -> Verdict {
        let stranger = !self.read.contains(stream);
        if stranger && !self.strangers.contains(stream) {
            self.strangers.put(stream.clone(), Record::default());
            self.bound();
        }
        let streams = if stranger {
            &mut self.strangers
        } else {
            &mut self.read
        };
        let record = streams.get_or_insert_mut(stream.clone(), Record::default);
        // A straggler of those whose refusal made it rest: it says nothing new.
        if record.rest.probe.is_none()
            && let Some(left) = record.rest.left(now)
        {
            return Verdict::Rests(record.rest.resting(false, left));
        }
        let twice = record.refused.is_some_and(|before| before < generation);
        record.refused = record.refused.max(Some(generation));
        if curable && !twice {
            if generation < self.generation {
                return Verdict::Again;
            }
            let due = |then| then + STRANGERS_RENEW <= now;
            if !stranger || self.renewed.is_none_or(due) {
                if stranger {
                    self.renewed = Some(now);
                }
                self.generation += 1;
                return Verdict::Renewed;
            }
        }
        record.rest.begin(reason, now);
        let left = record.rest.left(now).unwrap_or_default();
        let mut resting = record.rest.resting(false, left);
        let whole = if stranger {
            let refused = |(_, record): &(&StreamId, &Record)| record.rest.failures > 0;
            !self.worked
                && self
                    .strangers
                    .iter()
                    .filter(refused)
                    .nth(STRANGERS - 1)
                    .is_some()
        } else {
            curable
        };
        if whole {
            self.rest.begin(reason, now);
            self.tried = Some(now);
            let left = self.rest.left(now).unwrap_or_default();
            resting = self.rest.resting(true, left);
        }
        Verdict::Rests(resting)
    }

    /// The stream was read.
    pub(super) fn read(&mut self, stream: &StreamId) {
        self.worked = true;
        match self.read.get_mut(stream) {
            Some(record) if record.refused.is_none() => {}
            Some(record) => *record = Record::default(),
            None => {
                self.strangers.pop(stream);
                self.read.put(stream.clone(), Record::default());
                self.bound();
            }
        }
        if self.rest.failures > 0 {
            self.rest = Rest::default();
            self.forget_turns();
            self.blame();
        }
    }

    /// The credential works, so what is refused with it is the streams' own doing: they are strangers again.
    fn blame(&mut self) {
        let resting = |(stream, record): (&StreamId, &Record)| {
            (record.rest.failures > 0).then(|| stream.clone())
        };
        let blamed: Vec<_> = self.read.iter().filter_map(resting).collect();
        for stream in blamed {
            if let Some(record) = self.read.pop(&stream) {
                self.strangers.put(stream, record);
            }
        }
        self.bound();
    }

    /// Everything is different now (another secret, another time of day): the next attempts tell anew.
    pub(super) fn forgive(&mut self) {
        self.rest = Rest::default();
        self.forget_turns();
        self.renewed = None;
        self.strangers.clear();
        for (_, record) in self.read.iter_mut() {
            *record = Record::default();
        }
    }

    fn bound(&mut self) {
        for streams in [&mut self.read, &mut self.strangers] {
            while streams.len() > STREAMS_MAX.get() {
                streams.pop_lru();
            }
        }
    }
}

impl Rest {
    fn begin(&mut self, reason: Reason, now: Instant) {
        self.reason = reason;
        // Who was refused together with others does not make the rest longer.
        if self.probe.is_none() && self.until.is_some_and(|until| now < until) {
            return;
        }
        let length = REST_MIN * 2_u32.pow(self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + length.min(REST_MAX));
        self.probe = None;
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.until?.checked_duration_since(now)?;
        (!left.is_zero()).then(|| self.told(left))
    }

    /// Of so much left, what is told: while a probe is under way, nobody knows how long that takes.
    fn told(&self, left: Duration) -> Duration {
        self.probe.map_or(left, |_| REST_MIN)
    }

    fn resting(&self, whole: bool, left: Duration) -> Resting {
        Resting {
            whole,
            reason: self.reason,
            left,
        }
    }
}

#[cfg(test)]
mod tests;
