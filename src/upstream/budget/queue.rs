//! Who takes the next slot: pure, and decided anew each time there is one, since a joiner may have made a ticket more
//! urgent meanwhile.
//!
//! Interactive tickets come first, and the last few slots are theirs alone. Whole lists get at least one slot in ten
//! however many interactive tickets wait, so that they never stand still. Nobody waits for a background ticket, so these
//! go at an even pace: what has grown stale during an outage is not fetched in one burst after it. Those of whole lists that
//! are read anew go at a share of it, since they would leave nothing to others for hours. Within a class they take
//! [`turns`](super::turns), and of the slots some are kept for callers who have had less than their
//! [share](super::shares).

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    forecast::Rivals,
    shares::Shares,
    turns::{Turns, Waits},
};
use crate::contacts::request::{CallerName, Class, Urgency};

/// Of so many slots, one goes to bulk tickets if any wait.
const BULK_SHARE: u32 = 10;

/// What an allowance is of.
const MINUTE: Duration = Duration::from_secs(60);

/// The tickets that wait for a slot of one account.
#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: Vec<Ticket<T>>,
    reserve: u32,
    /// The share of the allowance that background tickets of whole lists may take, from 0 to 1.
    refresh_share: f64,
    /// Slots given since one went to a bulk ticket.
    since_bulk: u32,
    /// When the next background ticket may be served.
    background_from: Option<Instant>,
    /// When the next one of a whole list may be.
    refresh_from: Option<Instant>,
    /// Of each class, whose turn it is.
    turns: [Turns; Class::ALL.len()],
    shares: Shares,
    /// Of the tickets that wait, how many of their class come before each. Found out when somebody wants to know.
    before: Option<HashMap<u64, u32>>,
    next_number: u64,
}

#[derive(Debug)]
struct Ticket<T> {
    number: u64,
    urgency: Arc<Urgency>,
    /// The turns of each class when it came.
    since: [u64; Class::ALL.len()],
    /// What tells streams apart.
    stream: u64,
    grant: T,
}

impl<T> Ticket<T> {
    fn waits(&self, class: Class) -> Waits {
        Waits {
            number: self.number,
            since: self.since[class as usize],
            callers: self.urgency.callers(),
            stream: self.stream,
        }
    }
}

impl<T> Queue<T> {
    /// A queue that keeps `reserve` slots for interactive tickets, and gives background tickets of whole lists only
    /// `refresh_share` of them all.
    pub(super) fn new(reserve: u32, refresh_share: f64) -> Self {
        Self {
            waiting: Vec::new(),
            reserve,
            refresh_share,
            since_bulk: 0,
            background_from: None,
            refresh_from: None,
            turns: Default::default(),
            shares: Shares::default(),
            before: None,
            next_number: 0,
        }
    }

    /// Has other shares from now on. Who waits goes on waiting.
    pub(super) fn share(&mut self, reserve: u32, refresh_share: f64) {
        (self.reserve, self.refresh_share) = (reserve, refresh_share);
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether one more may wait, of `most` at once. None of a caller's may while it has as many as there is room for, so
    /// that the others find some.
    pub(super) fn has_room(&self, urgency: &Urgency, most: usize) -> bool {
        let own = urgency.beginner().map_or(0, |own| {
            let begun_by = self.waiting.iter().map(|ticket| ticket.urgency.beginner());
            begun_by
                .filter(|other| other.as_ref() == Some(&own))
                .count()
        });
        self.waiting.len() + own < most
    }

    /// Adds a ticket and returns its number.
    pub(super) fn add(&mut self, urgency: Arc<Urgency>, stream: u64, grant: T) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        self.before = None;
        self.waiting.push(Ticket {
            number,
            since: self.turns.each_ref().map(Turns::now),
            urgency,
            stream,
            grant,
        });
        number
    }

    /// Takes a ticket back, if it still waits.
    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let place = self
            .waiting
            .iter()
            .position(|ticket| ticket.number == number)?;
        self.before = None;
        Some(self.waiting.swap_remove(place).grant)
    }

    /// Somebody asks, or somebody else waits for a ticket too, which may have made it more urgent.
    pub(super) fn asked(&mut self, urgency: &Urgency, now: Instant) {
        self.before = None;
        for caller in urgency.callers() {
            self.shares.asked(caller, now);
        }
    }

    /// A slot was not used by whoever had it.
    pub(super) fn gave_back(&mut self, caller: Option<&CallerName>) {
        if let Some(caller) = caller {
            self.shares.gave_back(caller);
        }
    }

    /// For each caller that waits, how many slots are not for it.
    fn kept(&self, open: u32, now: Instant) -> HashMap<CallerName, u32> {
        let waiting = self.waiting.iter();
        let callers = waiting.flat_map(|ticket| ticket.urgency.callers());
        self.shares.kept_from(callers, open, now)
    }

    /// How many slots will not be for what these wait for, at most.
    fn kept_at_most(&self, callers: Vec<CallerName>, open: u32, now: Instant) -> u32 {
        let kept = self.shares.kept_at_most(callers, open, now);
        kept.into_values().min().unwrap_or(0)
    }

    /// Who waits for the first ticket like that, of those who are known.
    fn callers_of(&self, is_it: impl Fn(&&Ticket<T>) -> bool) -> Vec<CallerName> {
        let ticket = self.waiting.iter().find(is_it);
        ticket.map_or_else(Vec::new, |ticket| ticket.urgency.callers())
    }

    /// Who is served next while `open` of `allowance` slots a minute can be taken, and to which caller that is counted.
    pub(super) fn next(
        &mut self,
        open: u32,
        allowance: u32,
        now: Instant,
    ) -> Option<(T, Option<CallerName>)> {
        if open == 0 || self.waiting.is_empty() {
            return None;
        }
        let kept = self.kept(open, now);
        let may = |caller: &CallerName| kept.get(caller).is_none_or(|kept| *kept < open);
        let mut waits = [false; Class::ALL.len()];
        for ticket in self.waiting.iter().filter(|one| self.is_due(one, now)) {
            waits[ticket.urgency.class() as usize] |= ticket.urgency.is_for(may);
        }
        let class = self.class_to_serve(waits, open, allowance)?;
        let next = |ticket: &Ticket<T>| self.is_due(ticket, now) && ticket.urgency.is_for(may);
        let mut waiting = self.waits(class, next);
        for one in &mut waiting {
            one.callers.retain(may);
        }
        let order = self.turns[class as usize].order(&waiting);
        let turn = order.into_iter().next()?;
        let place = self
            .waiting
            .iter()
            .position(|ticket| ticket.number == turn.number)?;
        let ticket = self.waiting.swap_remove(place);
        let caller = turn.who.clone();
        if let Some(caller) = &caller {
            self.shares.took(caller, now);
        }
        self.turns[class as usize].had(turn);
        self.before = None;
        self.since_bulk = if class == Class::Bulk {
            0
        } else {
            self.since_bulk.saturating_add(1)
        };
        if class == Class::Background {
            self.background_from = Some(now + self.gap(class, false, allowance));
            if ticket.urgency.is_part() {
                self.refresh_from = Some(now + self.gap(class, true, allowance));
            }
        }
        Some((ticket.grant, caller))
    }

    /// The tickets of a class that are wanted.
    fn waits(&self, class: Class, wanted: impl Fn(&Ticket<T>) -> bool) -> Vec<Waits> {
        let of_it = |ticket: &&Ticket<T>| ticket.urgency.class() == class && wanted(ticket);
        let waiting = self.waiting.iter().filter(of_it);
        waiting.map(|ticket| ticket.waits(class)).collect()
    }

    /// How long after one ticket of a class the next one can be served, at the least. `refreshes`: it is of a whole list.
    pub(super) fn gap(&self, class: Class, refreshes: bool, allowance: u32) -> Duration {
        let even = MINUTE / allowance.max(1);
        match (class, refreshes) {
            (Class::Background, true) => even.div_f64(self.refresh_share.clamp(0.01, 1.0)),
            (Class::Background, false) => even,
            (Class::Bulk | Class::Interactive, _) => Duration::ZERO,
        }
    }

    /// When it is a ticket's turn at the earliest, if it must wait for that.
    fn due_at(&self, ticket: &Ticket<T>) -> Option<Instant> {
        match (ticket.urgency.class(), ticket.urgency.is_part()) {
            (Class::Background, true) => self.background_from.max(self.refresh_from),
            (Class::Background, false) => self.background_from,
            (Class::Bulk | Class::Interactive, _) => None,
        }
    }

    fn is_due(&self, ticket: &Ticket<T>, now: Instant) -> bool {
        self.due_at(ticket).is_none_or(|at| at <= now)
    }

    /// When a background ticket that waits may be served, if it must wait for that.
    pub(super) fn changes_at(&self, now: Instant) -> Option<Instant> {
        let due = self.waiting.iter().filter_map(|ticket| self.due_at(ticket));
        due.filter(|at| *at > now).min()
    }

    /// The slots of an allowance that are for interactive tickets alone.
    pub(super) fn reserve(&self, allowance: u32) -> u32 {
        // An allowance that has shrunk shrinks the reserve with it, or nothing else would ever be served.
        self.reserve.min(allowance / 4)
    }

    /// Of the classes of which somebody waits who may be served.
    fn class_to_serve(
        &self,
        waits: [bool; Class::ALL.len()],
        open: u32,
        allowance: u32,
    ) -> Option<Class> {
        let [background, bulk, interactive] = Class::ALL.map(|class| waits[class as usize]);
        if bulk && self.since_bulk + 1 >= BULK_SHARE && interactive {
            return Some(Class::Bulk);
        }
        if interactive {
            return Some(Class::Interactive);
        }
        if open <= self.reserve(allowance) {
            return None;
        }
        if bulk {
            return Some(Class::Bulk);
        }
        background.then_some(Class::Background)
    }

    /// What a list's calls have beside them: those of its own that wait already do not count.
    pub(super) fn rivals(
        &self,
        stream: u64,
        class: Class,
        (open, allowance): (u32, u32),
        now: Instant,
    ) -> Rivals {
        let own = self.callers_of(|one| one.stream == stream);
        let of_the_class = |one: &&Ticket<T>| one.stream != stream && one.urgency.class() == class;
        // Those of the same caller take turns with the list whenever it is that one's turn, all others whenever it is
        // their caller's.
        let (mut streams, mut callers) = (HashSet::new(), HashSet::new());
        for rival in self.waiting.iter().filter(of_the_class) {
            let theirs = rival.urgency.callers();
            match theirs == own {
                true => streams.insert(rival.stream),
                false => callers.insert(theirs.first().cloned()),
            };
        }
        let above = self.waiting.iter().map(|other| other.urgency.class());
        let kept = self.kept_at_most(own, open, now);
        Rivals {
            reserve: match class {
                Class::Interactive => kept,
                Class::Bulk | Class::Background => self.reserve(allowance).max(kept),
            },
            gap: self.gap(class, true, allowance),
            ahead: above.filter(|theirs| *theirs > class).count(),
            turns: (1 + streams.len()) * (1 + callers.len()) - 1,
        }
    }

    /// How many slots are taken before the waiting ticket with this number gets one, if nobody else comes.
    pub(super) fn ahead(
        &mut self,
        number: u64,
        class: Class,
        (open, allowance): (u32, u32),
        now: Instant,
    ) -> u32 {
        let own = self.before(number);
        let waiting = |wanted: Class| {
            let classes = self.waiting.iter().map(|ticket| ticket.urgency.class());
            classes.filter(|theirs| *theirs == wanted).count() as u32
        };
        let (interactive, bulk) = (waiting(Class::Interactive), waiting(Class::Bulk));
        let callers = self.callers_of(|one| one.number == number);
        let kept = self.kept_at_most(callers, open, now);
        let reserve = self.reserve(allowance).max(kept);
        match class {
            Class::Interactive => own + (own / (BULK_SHARE - 1)).min(bulk) + kept,
            // One in ten is its own even while interactive tickets wait.
            Class::Bulk => own + interactive.min((own + 1) * (BULK_SHARE - 1)) + reserve,
            Class::Background => interactive + bulk + own + reserve,
        }
    }

    /// How many of its class come before a waiting ticket.
    fn before(&mut self, number: u64) -> u32 {
        let before = self.before.take().unwrap_or_else(|| {
            let order = |class| self.turns[class as usize].order(&self.waits(class, |_| true));
            let orders = Class::ALL.into_iter().map(order);
            let places = orders.flat_map(|order| (0..).zip(order));
            places.map(|(place, turn)| (turn.number, place)).collect()
        });
        let own = before.get(&number).copied().unwrap_or_default();
        self.before = Some(before);
        own
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contacts::{
        request::{Request, Terms},
        testing,
    };

    fn terms(class: Class) -> Terms {
        let Request { terms, .. } = testing::request(());
        Terms {
            class,
            deadline: Instant::now() + Duration::from_secs(30),
            ..terms
        }
    }

    fn urgency(class: Class) -> Arc<Urgency> {
        Urgency::of(&terms(class))
    }

    fn next<T>(queue: &mut Queue<T>, open: u32, allowance: u32, now: Instant) -> Option<T> {
        queue.next(open, allowance, now).map(|(grant, _)| grant)
    }

    /// All tickets in the order in which they are served, with slots in plenty.
    fn drain(queue: &mut Queue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| next(queue, 60, 60, Instant::now())).collect()
    }

    #[test]
    fn the_most_urgent_first() {
        let mut queue = Queue::new(6, 0.25);
        for (class, name) in [
            (Class::Background, "background"),
            (Class::Bulk, "bulk"),
            (Class::Interactive, "interactive"),
        ] {
            queue.add(urgency(class), 1, name);
        }
        assert_eq!(drain(&mut queue), ["interactive", "bulk", "background"]);
    }

    #[test]
    fn a_joiner_moves_its_ticket_up() {
        let mut queue = Queue::new(0, 0.25);
        let first = urgency(Class::Bulk);
        queue.add(urgency(Class::Interactive), 1, "interactive");
        queue.add(urgency(Class::Bulk), 2, "other");
        queue.add(first.clone(), 3, "raised");
        first.raise(&terms(Class::Interactive));
        assert_eq!(drain(&mut queue), ["interactive", "raised", "other"]);
    }

    #[test]
    fn streams_take_turns() {
        let mut queue = Queue::new(0, 0.25);
        for name in ["a1", "a2", "a3"] {
            queue.add(urgency(Class::Bulk), 1, name);
        }
        queue.add(urgency(Class::Bulk), 2, "b1");
        queue.add(urgency(Class::Bulk), 2, "b2");
        assert_eq!(drain(&mut queue), ["a1", "b1", "a2", "b2", "a3"]);
    }

    /// Catches streams that a caller makes up and that are served before whoever was served already.
    #[test]
    fn what_comes_later_is_not_served_sooner_because_it_is_new() {
        let mut queue = Queue::new(0, 0.25);
        queue.add(urgency(Class::Interactive), 1, 1);
        assert_eq!(next(&mut queue, 1, 60, Instant::now()), Some(1));
        queue.add(urgency(Class::Interactive), 1, 1);
        for stream in 2..100 {
            queue.add(urgency(Class::Interactive), stream, stream);
            match next(&mut queue, 1, 60, Instant::now()) {
                Some(1) => return assert!(stream <= 3, "{stream}"),
                other => assert!(other.is_some()),
            }
        }
        panic!("98 later ones were served before it");
    }

    /// Catches a caller that takes all places of those who wait.
    #[test]
    fn none_waits_as_often_as_there_is_room_for() {
        let mut queue = Queue::new(0, 0.25);
        let of = |caller: Option<&str>| {
            Urgency::of(&Terms {
                caller: caller.map(Into::into),
                ..terms(Class::Interactive)
            })
        };
        let mut fill = |caller| {
            let before = queue.len();
            while queue.has_room(&of(caller), 100) {
                queue.add(of(caller), 1, ());
            }
            queue.len() - before
        };
        assert_eq!(["a", "b", "c"].map(|name| fill(Some(name))), [50, 25, 13]);
        assert_eq!(fill(None), 12);
    }

    #[test]
    fn the_last_slots_are_for_interactive_tickets() {
        let mut queue = Queue::new(6, 0.25);
        queue.add(urgency(Class::Bulk), 1, "bulk");
        assert_eq!(next(&mut queue, 6, 60, Instant::now()), None);
        assert_eq!(next(&mut queue, 7, 60, Instant::now()), Some("bulk"));
        queue.add(urgency(Class::Interactive), 1, "interactive");
        assert_eq!(next(&mut queue, 1, 60, Instant::now()), Some("interactive"));
        // An allowance of four keeps one.
        queue.add(urgency(Class::Background), 1, "background");
        assert_eq!(next(&mut queue, 1, 4, Instant::now()), None);
        assert_eq!(next(&mut queue, 2, 4, Instant::now()), Some("background"));
    }

    #[test]
    fn a_lists_own_tickets_are_no_rivals_of_it() {
        let mut queue = Queue::new(6, 0.25);
        for (class, stream) in [
            (Class::Interactive, 1),
            (Class::Interactive, 2),
            (Class::Bulk, 1),
            (Class::Bulk, 2),
            (Class::Bulk, 2),
            (Class::Bulk, 3),
            (Class::Background, 4),
        ] {
            queue.add(urgency(class), stream, ());
        }
        for (class, reserve, gap, ahead, turns) in [
            (Class::Interactive, 0, 0, 0, 1),
            (Class::Bulk, 6, 0, 2, 2),
            (Class::Background, 6, 4, 6, 1),
        ] {
            let expected = Rivals {
                reserve,
                gap: Duration::from_secs(gap),
                ahead,
                turns,
            };
            assert_eq!(
                queue.rivals(1, class, (60, 60), Instant::now()),
                expected,
                "{class:?}"
            );
        }
    }

    /// Catches lists that are read anew at the pace of pages, and pages that are held up by them.
    #[test]
    fn lists_that_nobody_waits_for_go_at_their_share_of_it() {
        let (mut queue, now) = (Queue::new(6, 0.25), Instant::now());
        let after = |seconds| now + Duration::from_secs(seconds);
        let list = urgency(Class::Background);
        queue.add(list.part(), 1, "list");
        queue.add(list.part(), 1, "list again");
        assert_eq!(next(&mut queue, 60, 60, now), Some("list"));
        queue.add(urgency(Class::Background), 2, "page");
        assert_eq!(queue.changes_at(now), Some(after(1)));
        assert_eq!(next(&mut queue, 60, 60, after(1)), Some("page"));
        assert_eq!(next(&mut queue, 60, 60, after(3)), None);
        assert_eq!(queue.changes_at(after(3)), Some(after(4)));
        assert_eq!(next(&mut queue, 60, 60, after(4)), Some("list again"));
    }

    #[test]
    fn what_nobody_waits_for_goes_at_an_even_pace() {
        let (mut queue, now) = (Queue::new(6, 0.25), Instant::now());
        for name in ["first", "second", "third"] {
            queue.add(urgency(Class::Background), 1, name);
        }
        let second = now + Duration::from_secs(1);
        assert_eq!(next(&mut queue, 60, 60, now), Some("first"));
        assert_eq!(next(&mut queue, 60, 60, now), None);
        assert_eq!(queue.changes_at(now), Some(second));
        queue.add(urgency(Class::Bulk), 2, "bulk");
        assert_eq!(next(&mut queue, 60, 60, now), Some("bulk"));
        assert_eq!(next(&mut queue, 60, 60, second), Some("second"));
        // An allowance of thirty a minute is one for each two seconds.
        let third = second + Duration::from_secs(1);
        assert_eq!(next(&mut queue, 60, 30, third), Some("third"));
        assert_eq!(queue.changes_at(third), None);
    }

    #[test]
    fn bulk_gets_one_slot_in_ten() {
        let mut queue = Queue::new(6, 0.25);
        queue.add(urgency(Class::Bulk), 1, "bulk");
        queue.add(urgency(Class::Bulk), 1, "bulk");
        for _ in 0..40 {
            queue.add(urgency(Class::Interactive), 2, "interactive");
        }
        // One slot at a time, as they become free.
        let served: Vec<_> = std::iter::from_fn(|| next(&mut queue, 1, 60, Instant::now()))
            .take(30)
            .collect();
        let places: Vec<_> = (0..30).filter(|place| served[*place] == "bulk").collect();
        assert_eq!(places, [9, 19]);
    }

    #[test]
    fn a_ticket_that_leaves_is_not_served() {
        let mut queue = Queue::new(0, 0.25);
        let left = queue.add(urgency(Class::Bulk), 1, "left");
        queue.add(urgency(Class::Bulk), 1, "stayed");
        assert_eq!(queue.remove(left), Some("left"));
        assert_eq!(queue.remove(left), None);
        assert_eq!(drain(&mut queue), ["stayed"]);
    }

    proptest! {
        /// Whoever waits is served after as many slots as were told, if nobody comes later.
        #[test]
        fn ahead_is_what_then_happens(waiting in proptest::collection::vec((0_u8..3, 0_u64..4, 0_u8..4), 1..40), which in 0_usize..40) {
            let which = which % waiting.len();
            let mut queue = Queue::new(6, 0.25);
            let class = |number| match number {
                0 => Class::Background,
                1 => Class::Bulk,
                _ => Class::Interactive,
            };
            let mut numbers = Vec::new();
            for (place, (number, stream, caller)) in waiting.iter().enumerate() {
                let terms = Terms {
                    caller: (*caller > 0).then(|| caller.to_string().into()),
                    ..terms(class(*number))
                };
                let urgency = Urgency::of(&terms);
                queue.asked(&urgency, Instant::now());
                numbers.push(queue.add(urgency, *stream, place));
            }
            let told = queue.ahead(numbers[which], class(waiting[which].0), (60, 60), Instant::now());
            // Slowly enough for what nobody waits for.
            let mut now = Instant::now();
            let served = std::iter::from_fn(|| {
                now += MINUTE;
                next(&mut queue, 60, 60, now)
            });
            let before = served.fuse().position(|place| place == which);
            prop_assert!(before.is_some_and(|before| before as u32 <= told), "{before:?} > {told}");
        }
    }
}
