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
    Asked(bool),
    Owes,
    Waits,
    Ended(bool),
    Stop,
}

use Event::*;

/// Events at seconds from the beginning, and the deadline that follows.
fn after(events: &[(u64, Event)]) -> Option<(u64, Cut)> {
    let begun = Instant::now();
    let pulse = Pulse::new(begun);
    // Of one request at a time.
    let mut owed = false;
    for &(at, event) in events {
        let now = begun + seconds(at);
        match event {
            Read(bytes) => pulse.read(bytes, now),
            Wrote => pulse.wrote(now),
            Full => pulse.full(now),
            Asked(http2) => pulse.asked(http2),
            Owes => {
                pulse.owes(!owed, now);
                owed = true;
            }
            Waits => {
                pulse.owes_no_more();
                owed = false;
            }
            Ended(whole) => {
                pulse.ended(owed, whole, now);
                owed = false;
            }
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
            &[(1, http1), (2, Owes), (2, Ended(true)), (2, Wrote)],
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
    ] {
        assert_eq!(after(events), expected, "{events:?}");
    }
}

#[test]
fn a_caller_has_to_take_its_answer() {
    let (http1, http2) = (Asked(false), Asked(true));
    for (events, expected) in [
        // The socket takes nothing: during the answer, and when hyper has all of it.
        (
            &[(1, http1), (2, Owes), (3, Full)][..],
            Some((32, Cut::Stall)),
        ),
        (
            &[(1, http1), (2, Owes), (2, Ended(true)), (3, Full)],
            Some((33, Cut::Stall)),
        ),
        // Some of it was taken.
        (
            &[(1, http1), (2, Owes), (3, Full), (20, Wrote)],
            Some((50, Cut::Stall)),
        ),
        (
            &[
                (1, http1),
                (2, Owes),
                (2, Ended(true)),
                (3, Full),
                (20, Wrote),
                (20, Full),
            ],
            Some((50, Cut::Stall)),
        ),
        // Idle from the end of that, and not from when hyper had it all.
        (
            &[
                (1, http1),
                (2, Owes),
                (2, Ended(true)),
                (3, Full),
                (70, Wrote),
            ],
            Some((130, Cut::Idle)),
        ),
        // Over HTTP/2 the socket takes what the connection says for itself, and the answer stands still.
        (
            &[(1, http2), (2, Owes), (20, Read(9)), (20, Wrote)],
            Some((32, Cut::Stall)),
        ),
        (&[(1, http2), (2, Owes), (20, Owes)], Some((50, Cut::Stall))),
        // It waits for the gateway.
        (&[(1, http2), (2, Owes), (3, Waits)], None),
        (
            &[(1, http1), (2, Owes), (3, Waits), (90, Owes)],
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
        (
            &[(1, http1), (2, Stop), (3, Owes), (4, Full)],
            Some((33, Cut::Stall)),
        ),
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
            &[(0, http2), (0, much), (0, Owes), (0, much), (0, Waits)],
            None,
        ),
        (
            &[(0, http2), (0, much), (0, Waits), (0, Read(1))][..1],
            None,
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
    /// than the longest of them, and one that nobody owes anything has none.
    #[test]
    fn no_silence_is_without_a_deadline(
        events in prop::collection::vec((0u64..5, 0usize..8, any::<bool>()), 0..60)
    ) {
        let begun = Instant::now();
        let pulse = Pulse::new(begun);
        let (mut now, mut running, mut full) = (begun, Vec::new(), false);
        for (pause, what, flag) in events {
            now += seconds(pause);
            match what {
                0 => pulse.read(1, now),
                1 => { pulse.wrote(now); full = false; }
                2 => { pulse.full(now); full = true; }
                3 => { pulse.asked(flag); running.push(false); }
                4 => if let Some(owed) = running.last_mut() {
                    pulse.owes(!*owed, now);
                    *owed = true;
                },
                5 => if let Some(owed) = running.last_mut().filter(|owed| **owed) {
                    pulse.owes_no_more();
                    *owed = false;
                },
                6 => if let Some(owed) = running.pop() { pulse.ended(owed, flag, now); },
                _ => pulse.stop(now),
            }
        }
        let due = pulse.due(&DEADLINES, usize::MAX);
        if running.is_empty() || full || running.contains(&true) {
            let (at, _) = due.expect("a deadline");
            prop_assert!(at <= now + DEADLINES.idle);
        } else {
            prop_assert_eq!(due, None);
        }
    }
}
