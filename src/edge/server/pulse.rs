//! What one connection is doing, and until when it may go on so: a small state and one rule, which take `now`.
//!
//! Hyper polls a socket only when it has something to read or to write there, so a deadline that lived in the socket's
//! wrapper would never be looked at for a peer that has gone quiet. Here the wrapper ([`socket`](super::socket)) and the
//! requests ([`requests`](super::requests)) only note what happens; the connection's own task asks [`Pulse::due`] after
//! each poll and keeps one timer, which is moved only when the deadline comes nearer. A request on a busy connection so
//! costs a few uncontended locks, and neither a timer nor, over HTTP/1.1, a reading of the clock of its own: what happens
//! within one poll of the connection happens when that poll began ([`Pulse::now`]).
//!
//! Over HTTP/2 each answer has its own time to go on, since it keeps what it was made of (a list that the cache has long
//! let go) however busy the others are. The one that stands still for too long ends the connection, and not its stream
//! alone: of an answer whose last piece was handed on only h2 knows, and nobody else can take that back. So there is one
//! rule, for the zero windows of an attack too, and no timer for each answer.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::metrics::Cut;

/// How long a connection may be without what is expected of it.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// For the first byte of all.
    pub first_byte: Duration,
    /// For a request's head, from its first byte.
    pub header: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For the caller to take some of an answer: over HTTP/2 of each.
    pub stall: Duration,
    /// For one more request, once the gateway stops.
    pub drain_idle: Duration,
}

/// Bytes that a caller may send without asking anything or taking any of an answer. Callers send no bodies, so beyond a
/// head (which is bounded by itself) this is control: PING, SETTINGS, empty DATA and the like. The longest head that can
/// be configured has to fit, and what a refused body had in flight.
pub(super) const UNASKED_MAX: usize = 512 * 1024;

/// An answer over HTTP/2 that waits for the caller.
#[derive(Debug)]
struct Waiting {
    /// The number of its request.
    answer: u64,
    /// Those that were handed on, and of which some was not taken.
    pieces: usize,
    /// When one of them was handed on or taken.
    moved: Instant,
}

/// One connection's state, shared by its socket, its requests and its task.
#[derive(Debug)]
pub(super) struct Pulse {
    state: Mutex<State>,
    begun: Instant,
    /// When the connection's task was last polled, in nanoseconds since then.
    polled: AtomicU64,
    /// The last bytes that came did not end a head.
    half: AtomicBool,
}

#[derive(Debug)]
struct State {
    begun: Instant,
    /// Known from the first request on.
    http2: Option<bool>,
    /// Since when the gateway, or this connection alone, is to end.
    stopping: Option<Instant>,
    /// Requests whose answer has not ended.
    running: usize,
    /// Requests so far.
    asked: u64,
    /// The last one has a body, which ends like anything.
    has_body: bool,
    /// Over HTTP/2: the answers of which something waits for the caller to take it.
    waiting: Vec<Waiting>,
    /// The beginning, or the end of the last answer.
    quiet_since: Instant,
    /// When the first byte came after that; that end, if the byte came before it.
    head_since: Option<Instant>,
    /// While the socket takes nothing: when it last did.
    full_since: Option<Instant>,
    /// Bytes since the last request, its end, or the last piece of an answer over HTTP/2.
    unasked: usize,
    /// Requests that were given up by the caller, less those that were answered.
    abandoned: usize,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            state: Mutex::new(State::new(now)),
            begun: now,
            polled: AtomicU64::new(0),
            half: AtomicBool::new(false),
        }
    }

    /// The connection's task is polled.
    pub(super) fn polled(&self, now: Instant) {
        let since = u64::try_from((now - self.begun).as_nanos()).unwrap_or(u64::MAX);
        self.polled.store(since, Ordering::Relaxed);
    }

    /// When the connection's task was last polled: the time, for whatever is polled by it.
    pub(super) fn now(&self) -> Instant {
        self.begun + Duration::from_nanos(self.polled.load(Ordering::Relaxed))
    }

    /// Forgets what was before: a TLS handshake is over.
    pub(super) fn begin(&self, now: Instant) {
        self.with(|state| *state = State::new(now));
    }

    /// So many bytes came.
    pub(super) fn read(&self, bytes: usize, now: Instant) {
        self.with(|state| {
            state.unasked += bytes;
            if state.running == 0 {
                state.head_since.get_or_insert(now);
            }
        });
    }

    /// The socket took bytes.
    pub(super) fn wrote(&self, now: Instant) {
        self.with(|state| {
            if state.full_since.take().is_some() {
                state.quiet_since = now;
                state.head_since = state.head_since.map(|_| now);
            }
        });
    }

    /// The socket takes no more for now.
    pub(super) fn full(&self, now: Instant) {
        self.with(|state| {
            state.full_since.get_or_insert(now);
        });
    }

    /// Whether the last bytes that came, out of TLS, did not end a head. Callers send no bodies, so they are then the
    /// beginning of one.
    pub(super) fn half(&self, is_half: bool) {
        self.half.store(is_half, Ordering::Relaxed);
    }

    /// A request's head is complete. Returns its number.
    pub(super) fn asked(&self, http2: bool, has_body: bool) -> u64 {
        self.with(|state| {
            state.http2 = Some(http2);
            state.running += 1;
            state.asked += 1;
            state.has_body = has_body;
            state.head_since = None;
            state.unasked = 0;
            state.asked
        })
    }

    /// A piece of an answer over HTTP/2 is there to be taken, and the one before it is no longer held back.
    pub(super) fn handed(&self, answer: u64, now: Instant) {
        self.with(|state| {
            state.unasked = 0;
            if let Some(waiting) = state.waiting_mut(answer) {
                waiting.pieces += 1;
                waiting.moved = now;
            } else {
                state.waiting.push(Waiting {
                    answer,
                    pieces: 1,
                    moved: now,
                });
            }
        });
    }

    /// All of a piece was taken, or nobody wants it any more.
    pub(super) fn taken(&self, answer: u64, now: Instant) {
        self.with(|state| {
            state.unasked = 0;
            state.quiet_since = now;
            if let Some(waiting) = state.waiting_mut(answer) {
                waiting.pieces -= 1;
                waiting.moved = now;
            }
            state.waiting.retain(|waiting| waiting.pieces > 0);
        });
    }

    /// A request is over: all of its answer was handed on, or the caller did not want it any more.
    pub(super) fn ended(&self, whole: bool, now: Instant) {
        let is_half = self.half.load(Ordering::Relaxed);
        self.with(|state| {
            state.running -= 1;
            state.unasked = 0;
            state.quiet_since = now;
            // It came with that request, or while it was answered. With the next whole request it is forgotten.
            if is_half && !state.has_body {
                state.head_since.get_or_insert(now);
            }
            state.abandoned = match whole {
                true => state.abandoned.saturating_sub(1),
                false => state.abandoned + 1,
            };
        });
    }

    /// The connection is to end when it can.
    pub(super) fn stop(&self, now: Instant) {
        self.with(|state| {
            state.stopping.get_or_insert(now);
        });
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.with(|state| state.stopping.is_some())
    }

    /// Whether HTTP/2 is spoken, which can say goodbye on its own.
    pub(super) fn is_http2(&self) -> bool {
        self.with(|state| state.http2 == Some(true))
    }

    /// When the connection has to go if nothing happens, and why; `None` if it is the gateway's turn. With too much of
    /// what nobody needs, that is at once.
    pub(super) fn due(&self, deadlines: &Deadlines, resets_max: usize) -> Option<(Instant, Cut)> {
        self.with(|state| state.due(deadlines, resets_max))
    }

    fn with<T>(&self, then: impl FnOnce(&mut State) -> T) -> T {
        then(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn new(now: Instant) -> Self {
        Self {
            begun: now,
            http2: None,
            stopping: None,
            running: 0,
            asked: 0,
            has_body: false,
            waiting: Vec::new(),
            quiet_since: now,
            head_since: None,
            full_since: None,
            unasked: 0,
            abandoned: 0,
        }
    }

    fn waiting_mut(&mut self, answer: u64) -> Option<&mut Waiting> {
        self.waiting
            .iter_mut()
            .find(|waiting| waiting.answer == answer)
    }

    fn due(&self, deadlines: &Deadlines, resets_max: usize) -> Option<(Instant, Cut)> {
        if self.unasked > UNASKED_MAX {
            return Some((self.begun, Cut::Flood));
        }
        if self.abandoned > resets_max {
            return Some((self.begun, Cut::Resets));
        }
        let full = self.full_since.map(|since| since + deadlines.stall);
        let stall = self
            .waiting
            .iter()
            .map(|waiting| waiting.moved + deadlines.stall)
            .chain(full)
            .min()
            .map(|at| (at, Cut::Stall));
        // With the end of an answer not yet taken, it is not idle.
        let is_quiet = self.running == 0 && stall.is_none();
        let quiet = is_quiet.then(|| self.quiet(deadlines));
        stall.into_iter().chain(quiet).min_by_key(|(at, _)| *at)
    }

    /// The deadline while no request is under way.
    fn quiet(&self, deadlines: &Deadlines) -> (Instant, Cut) {
        let usual = match (self.http2, self.head_since) {
            (None, None) => (self.begun + deadlines.first_byte, Cut::FirstByte),
            // What an idle HTTP/2 connection sends need not be a head.
            (None | Some(false), Some(since)) => (since + deadlines.header, Cut::Header),
            _ => (self.quiet_since + deadlines.idle, Cut::Idle),
        };
        let Some(stopping) = self.stopping else {
            return usual;
        };
        let last = stopping.max(self.quiet_since) + deadlines.drain_idle;
        // It had its goodbye: how long it was idle before does not matter any more.
        if usual.1 == Cut::Idle || last < usual.0 {
            return (last, Cut::Drain);
        }
        usual
    }
}

#[cfg(test)]
mod tests;
