use proptest::prelude::*;

use super::*;

const DEADLINES: Deadlines = Deadlines {
    first_byte: seconds(10),
    header: seconds(11),
    idle: seconds(60),
    stall: seconds(30),
    drain_idle: seconds(5),
};

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// What happens to a connection.
#[derive(Clone, Copy, Debug)]
enum Event {
    Read(usize),
    Wrote,
    Full,
    Half(bool),
    Asked(bool),
    Handed(u64),
    Taken(u64),
    Ended(bool),
    Stop,
}

use Event::*;

/// Events at seconds from the beginning, and the deadline that follows.
fn after(events: &[(u64, Event)]) -> Option<(u64, Cut)> {
    let begun = Instant::now();
    let pulse = Pulse::new(begun);
    for &(at, event) in events {
        let now = begun + seconds(at);
        match event {
            Read(bytes) => pulse.read(bytes, now),
            Wrote => pulse.wrote(now),
            Full => pulse.full(now),
            Half(is_half) => pulse.half(is_half),
            Asked(http2) => {
                pulse.asked(http2, false);
            }
            Handed(answer) => pulse.handed(answer, now),
            Taken(answer) => pulse.taken(answer, now),
            Ended(whole) => pulse.ended(whole, now),
            Stop => pulse.stop(now),
        }
    }
    let due = pulse.due(&DEADLINES, 2);
    due.map(|(at, why)| ((at - begun).as_secs(), why))
}

#[test]
fn each_silence_has_its_own_deadline() {
    let (http1, http2) = (Asked(false), Asked(true));
    for (events, expected) in [
        (&[][..], Some((10, Cut::FirstByte))),
        (&[(3, Read(1))], Some((14, Cut::Header))),
        // Dripping does not help.
        (&[(3, Read(1)), (9, Read(1))], Some((14, Cut::Header))),
        // While a request is under way it is the gateway's turn.
        (&[(1, Read(9)), (1, http1)], None),
        (&[(1, Read(9)), (1, http1), (40, Read(9))], None),
        (
            &[(1, http1), (2, Ended(true)), (2, Wrote)],
            Some((62, Cut::Idle)),
        ),
        (
            &[(1, http1), (2, Ended(true)), (20, Read(1))],
            Some((31, Cut::Header)),
        ),
        // An idle connection of HTTP/2 may say other things than a head.
        (
            &[(1, http2), (2, Ended(true)), (20, Read(9))],
            Some((62, Cut::Idle)),
        ),
        (
            &[(1, http2), (2, Ended(true)), (20, Read(9)), (20, Wrote)],
            Some((62, Cut::Idle)),
        ),
        (
            &[(1, Half(true)), (1, http2), (2, Ended(true))],
            Some((62, Cut::Idle)),
        ),
    ] {
        assert_eq!(after(events), expected, "{events:?}");
    }
}

#[test]
fn half_a_head_behind_a_request_has_from_the_end_of_its_answer() {
    let http1 = Asked(false);
    for (events, expected) in [
        (
            &[(1, Half(true)), (1, http1), (5, Ended(true))][..],
            Some((16, Cut::Header)),
        ),
        (
            &[(1, http1), (2, Half(true)), (5, Ended(true)), (9, Read(1))],
            Some((16, Cut::Header)),
        ),
        // The other half came in time.
        (
            &[
                (1, Half(true)),
                (1, http1),
                (5, Ended(true)),
                (9, Half(false)),
                (9, http1),
                (9, Ended(true)),
            ],
            Some((69, Cut::Idle)),
        ),
        // The end of the answer is where the caller has all of it.
        (
            &[
                (1, Half(true)),
                (1, http1),
                (1, Ended(true)),
                (1, Full),
                (20, Wrote),
            ],
            Some((31, Cut::Header)),
        ),
    ] {
        assert_eq!(after(events), expected, "{events:?}");
    }
}

#[test]
fn a_caller_has_to_take_its_answer() {
    let (http1, http2) = (Asked(false), Asked(true));
    for (events, expected) in [
        // The socket takes nothing: during the answer, and when hyper has all of it.
        (&[(1, http1), (3, Full)][..], Some((33, Cut::Stall))),
        (
            &[(1, http1), (2, Ended(true)), (3, Full)],
            Some((33, Cut::Stall)),
        ),
        // Some of it was taken.
        (
            &[(1, http1), (3, Full), (20, Wrote), (20, Full)],
            Some((50, Cut::Stall)),
        ),
        (
            &[
                (1, http1),
                (2, Ended(true)),
                (3, Full),
                (20, Wrote),
                (20, Full),
            ],
            Some((50, Cut::Stall)),
        ),
        // Idle from the end of that, and not from when hyper had it all.
        (
            &[(1, http1), (2, Ended(true)), (3, Full), (70, Wrote)],
            Some((130, Cut::Idle)),
        ),
        // Over HTTP/2 the socket takes what the connection says for itself, and the answer stands still.
        (
            &[(1, http2), (2, Handed(1)), (20, Read(9)), (20, Wrote)],
            Some((32, Cut::Stall)),
        ),
        // And so do other answers, which it takes.
        (
            &[
                (1, http2),
                (2, Handed(1)),
                (20, http2),
                (20, Handed(2)),
                (20, Taken(2)),
                (20, Ended(true)),
            ],
            Some((32, Cut::Stall)),
        ),
        (
            &[(1, http2), (2, Handed(1)), (20, Handed(1))],
            Some((50, Cut::Stall)),
        ),
        (
            &[(1, http2), (2, Handed(1)), (2, Handed(1)), (20, Taken(1))],
            Some((50, Cut::Stall)),
        ),
        // h2 has the end of it, and the caller has not.
        (
            &[(1, http2), (2, Handed(1)), (2, Ended(true))],
            Some((32, Cut::Stall)),
        ),
        (
            &[(1, http2), (2, Handed(1)), (2, Ended(true)), (3, Taken(1))],
            Some((63, Cut::Idle)),
        ),
        // It waits for the gateway.
        (&[(1, http1), (3, Full), (4, Wrote)], None),
        (&[(1, http2), (2, Handed(1)), (3, Taken(1))], None),
        (
            &[(1, http2), (2, Handed(1)), (3, Taken(1)), (90, Handed(1))],
            Some((120, Cut::Stall)),
        ),
    ] {
        assert_eq!(after(events), expected, "{events:?}");
    }
}

#[test]
fn a_stop_leaves_time_for_one_more_request() {
    let http1 = Asked(false);
    for (events, expected) in [
        (&[(1, Stop)][..], Some((6, Cut::Drain))),
        (&[(8, Stop)], Some((10, Cut::FirstByte))),
        // Half a head gets no longer than that.
        (&[(1, Read(1)), (2, Stop)], Some((7, Cut::Drain))),
        (&[(1, http1), (2, Stop)], None),
        (
            &[(1, http1), (2, Stop), (30, Ended(true))],
            Some((35, Cut::Drain)),
        ),
        (
            &[(1, http1), (2, Ended(true)), (50, Stop), (51, Stop)],
            Some((55, Cut::Drain)),
        ),
        (&[(1, http1), (2, Stop), (4, Full)], Some((34, Cut::Stall))),
    ] {
        assert_eq!(after(events), expected, "{events:?}");
    }
}

#[test]
fn what_nobody_needs_is_bounded() {
    let http2 = Asked(true);
    let much = Read(UNASKED_MAX);
    for (events, expected) in [
        (&[(0, much), (0, Read(1))][..], Some(Cut::Flood)),
        (&[(0, much), (0, http2), (0, much)], None),
        (
            &[
                (0, http2),
                (0, much),
                (0, Handed(1)),
                (0, much),
                (0, Taken(1)),
                (0, much),
            ],
            None,
        ),
        // That an answer waits is no reason.
        (
            &[(0, http2), (0, Handed(1)), (0, much), (0, Read(1))],
            Some(Cut::Flood),
        ),
        (
            &[(0, http2), (0, Ended(false)), (0, http2), (0, Ended(false))],
            Some(Cut::Idle),
        ),
        (
            &[
                (0, http2),
                (0, Ended(false)),
                (0, http2),
                (0, Ended(false)),
                (0, http2),
                (0, Ended(false)),
            ],
            Some(Cut::Resets),
        ),
        (
            &[
                (0, http2),
                (0, Ended(false)),
                (0, http2),
                (0, Ended(true)),
                (0, http2),
                (0, Ended(false)),
            ],
            Some(Cut::Idle),
        ),
    ] {
        assert_eq!(after(events).map(|(_, why)| why), expected, "{events:?}");
    }
}

proptest! {
    /// Whatever happens in whatever order, a connection on which nothing is under way has a deadline, no further away
    /// than the longest of them, and so has one of which an answer waits for the caller; any other has none.
    #[test]
    fn no_silence_is_without_a_deadline(
        events in prop::collection::vec((0u64..5, 0usize..8, any::<bool>()), 0..60)
    ) {
        let begun = Instant::now();
        let pulse = Pulse::new(begun);
        let (mut now, mut full) = (begun, false);
        let (mut running, mut handed) = (Vec::new(), Vec::new());
        for (pause, what, flag) in events {
            now += seconds(pause);
            match what {
                0 => pulse.read(1, now),
                1 => { pulse.wrote(now); full = false; }
                2 => { pulse.full(now); full = true; }
                3 => running.push(pulse.asked(flag, false)),
                4 => if let Some(answer) = running.last() {
                    pulse.handed(*answer, now);
                    handed.push(*answer);
                },
                5 => if let Some(answer) = handed.pop() { pulse.taken(answer, now); },
                6 => if running.pop().is_some() { pulse.ended(flag, now); },
                _ => pulse.stop(now),
            }
        }
        let due = pulse.due(&DEADLINES, usize::MAX);
        if running.is_empty() || full || !handed.is_empty() {
            let (at, _) = due.expect("a deadline");
            prop_assert!(at <= now + DEADLINES.idle);
        } else {
            prop_assert_eq!(due, None);
        }
    }
}
