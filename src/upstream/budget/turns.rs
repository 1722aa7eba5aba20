//! Whose turn it is among those who wait for the same: callers take turns, and of one caller the streams. Pure.
//!
//! Callers are configured, and streams may be anybody's invention. So it is callers who share the slots evenly, however
//! many streams one of them asks for. Whoever has waited longest since its last turn is next, and who never had one counts
//! from when it came: being new is no advantage that could be had again and again.
//!
//! What several callers wait for is served when the first of them has its turn.

use std::{collections::VecDeque, hash::Hash};

use foldhash::{HashMap, HashMapExt};

use crate::contacts::request::CallerName;

/// Callers, and streams of callers, whose last turn is remembered. Beyond it all count from when they came.
const TURNS_MAX: usize = 1024;

/// A known caller, or whoever else asks: nobody is known, or nobody asks.
pub(super) type Who = Option<CallerName>;

/// Something that waits.
#[derive(Clone, Debug)]
pub(super) struct Waits {
    /// In the order in which they came.
    pub number: u64,
    /// The [turn](Turns::now) when it came.
    pub since: u64,
    /// Who waits for it; empty if none of them is known.
    pub callers: Vec<CallerName>,
    /// What tells streams apart.
    pub stream: u64,
}

/// One turn to come.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    /// The number of what is served.
    pub number: u64,
    /// Whose turn it is.
    pub who: Who,
    stream: u64,
}

/// When each had its last turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    now: u64,
    callers: HashMap<Who, u64>,
    streams: HashMap<(Who, u64), u64>,
}

impl Turns {
    /// How many turns there were.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// A turn was had.
    pub(super) fn had(&mut self, turn: Turn) {
        self.now += 1;
        remember(&mut self.callers, turn.who.clone(), self.now);
        remember(&mut self.streams, (turn.who, turn.stream), self.now);
    }

    /// All of them, in the order in which they are served if nobody else comes.
    pub(super) fn order(&self, waiting: &[Waits]) -> Vec<Turn> {
        if let [only] = waiting {
            return vec![Turn {
                number: only.number,
                who: only.callers.first().cloned(),
                stream: only.stream,
            }];
        }
        let mut of_callers: HashMap<Who, HashMap<u64, Vec<&Waits>>> = HashMap::new();
        for one in waiting {
            let known = one.callers.iter().cloned().map(Some);
            let unknown = one.callers.is_empty().then_some(None);
            for who in known.chain(unknown) {
                let streams = of_callers.entry(who).or_default();
                streams.entry(one.stream).or_default().push(one);
            }
        }
        let rings = of_callers.into_iter().map(|(who, streams)| {
            let last = |stream| self.streams.get(&(who.clone(), stream)).copied();
            let streams = streams.into_iter().map(|(stream, mut all)| {
                all.sort_unstable_by_key(|one| one.number);
                (rank(last(stream), &all), VecDeque::from(all))
            });
            let ring = ring(streams);
            let first = ring.iter().flatten().min_by_key(|one| one.number);
            let rank = rank(self.callers.get(&who).copied(), first);
            (rank, (who, ring))
        });
        let mut callers = ring(rings);

        let (mut order, mut served) = (Vec::with_capacity(waiting.len()), Vec::new());
        while let Some((who, mut streams)) = callers.pop_front() {
            while let Some(mut stream) = streams.pop_front() {
                // What somebody else's turn has served already takes none of this caller's.
                let next = stream.pop_front();
                let next = next.filter(|next| !served.contains(&next.number));
                if let Some(next) = next {
                    if next.callers.len() > 1 {
                        served.push(next.number);
                    }
                    order.push(Turn {
                        number: next.number,
                        who: who.clone(),
                        stream: next.stream,
                    });
                    streams.extend(Some(stream).filter(|rest| !rest.is_empty()));
                    break;
                }
                if !stream.is_empty() {
                    streams.push_front(stream);
                }
            }
            callers.extend(Some((who, streams)).filter(|(_, rest)| !rest.is_empty()));
        }
        order
    }
}

/// When somebody is next, lowest first: by its last turn, or by when the first of what it waits for came.
fn rank<'a>(last: Option<u64>, waiting: impl IntoIterator<Item = &'a &'a Waits>) -> (u64, u64) {
    let mut waiting = waiting.into_iter();
    let first = waiting.next().map_or((0, 0), |one| (one.since, one.number));
    (last.unwrap_or(first.0), first.1)
}

/// Those who are served one after another, again and again.
fn ring<T>(ranked: impl Iterator<Item = ((u64, u64), T)>) -> VecDeque<T> {
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, one)| one).collect()
}

fn remember<K: Eq + Hash>(turns: &mut HashMap<K, u64>, key: K, turn: u64) {
    if turns.len() >= TURNS_MAX {
        turns.clear();
    }
    turns.insert(key, turn);
}

#[cfg(test)]
mod tests;
