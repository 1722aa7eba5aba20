//! Signs of life: the service manager is told that all is well only while all is.
//!
//! What is watched is the tasks that everything else depends on: each beats from within itself, so that it is polled, on
//! threads that are not blocked, by a runtime whose clock goes on. A message is sent only if every one of them has beaten
//! since the last. That a listener is full or out of descriptors is no reason to restart: its task goes on.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, future, future::BoxFuture};
use tokio::{
    select,
    time::{self, MissedTickBehavior},
};

/// How often a task beats while the manager is told once.
const BEATS: u32 = 4;

/// How long the manager waits for a sign of life; `None` if it does not, or not for this process, whose id is `own`.
pub fn patience(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    let of_this_process = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let usec: u64 = usec?.parse().ok()?;
    (of_this_process && usec > 0).then(|| Duration::from_micros(usec))
}

/// How it is with what is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulse {
    Well,
    /// This has not gone on since the last time.
    Stuck(&'static str),
}

/// What is watched.
#[derive(Debug)]
pub struct Watchdog {
    /// How often the manager is told; `None` if nobody wants to know.
    every: Option<Duration>,
    watched: Vec<Watched>,
}

#[derive(Debug)]
struct Watched {
    what: &'static str,
    beats: Arc<AtomicU64>,
    seen: u64,
}

impl Watchdog {
    /// For a manager that waits so long: it is told twice as often.
    pub fn new(patience: Option<Duration>) -> Self {
        Self {
            every: patience.map(|patience| patience / 2),
            watched: Vec::new(),
        }
    }

    /// Watches a task, which is to be run in place of the one that is given. One that has ended does not go on.
    pub fn watch(
        &mut self,
        what: &'static str,
        task: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, ()> {
        let Some(every) = self.every else {
            return task;
        };
        let beats = Arc::new(AtomicU64::new(0));
        self.watched.push(Watched {
            what,
            beats: beats.clone(),
            seen: 0,
        });
        beating(task, every / BEATS, beats).boxed()
    }

    /// Looks at them from time to time, and says what it sees. Ends never.
    pub async fn run(mut self, mut say: impl FnMut(Pulse)) {
        let Some(every) = self.every else {
            return future::pending().await;
        };
        let mut looks = time::interval(every);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first one is at once: the manager counts from the start.
        looks.tick().await;
        say(Pulse::Well);
        loop {
            looks.tick().await;
            say(self.look());
        }
    }

    fn look(&mut self) -> Pulse {
        let mut pulse = Pulse::Well;
        for watched in &mut self.watched {
            let beats = watched.beats.load(Ordering::Relaxed);
            if beats == watched.seen {
                pulse = Pulse::Stuck(watched.what);
            }
            watched.seen = beats;
        }
        pulse
    }
}

async fn beating(task: BoxFuture<'static, ()>, every: Duration, beats: Arc<AtomicU64>) {
    let mut ticks = time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut task = pin!(task);
    loop {
        select! {
            // The beat first: a task that always has something to do uses up what it may do at once, and is not stuck.
            biased;
            _ = ticks.tick() => { beats.fetch_add(1, Ordering::Relaxed); }
            () = &mut task => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::{sync::mpsc as later, task, time::Instant};

    use super::*;
    use crate::edge::workers::Workers;

    #[test]
    fn the_manager_waits_for_this_process_or_not_at_all() {
        for (usec, pid, expected) in [
            (None, None, None),
            (Some("30000000"), None, Some(30_000)),
            (Some("30000000"), Some("7"), Some(30_000)),
            (Some("30000000"), Some("8"), None),
            (Some("30000000"), Some("x"), None),
            (Some("0"), None, None),
            (Some("-1"), None, None),
            (Some("soon"), None, None),
            (None, Some("7"), None),
        ] {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(patience(usec, pid, 7), expected, "{usec:?} {pid:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_twice_in_the_time_that_the_manager_waits() {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(10)));
        tokio::spawn(watchdog.watch("one", future::pending().boxed()));
        tokio::spawn(watchdog.watch("other", future::pending().boxed()));
        let (say, mut said) = later::channel(100);
        let begun = Instant::now();
        tokio::spawn(watchdog.run(move |pulse| {
            let _ = say.try_send((begun.elapsed().as_secs(), pulse));
        }));
        for expected in [0, 5, 10, 15, 20] {
            assert_eq!(said.recv().await, Some((expected, Pulse::Well)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_go_on_silences_it_whatever_the_others_do() {
        let mut watchdog = Watchdog::new(Some(Duration::from_secs(10)));
        tokio::spawn(watchdog.watch("well", future::pending().boxed()));
        let mut other = watchdog.watch("other", future::pending().boxed());
        let (say, mut said) = later::channel(100);
        tokio::spawn(watchdog.run(move |pulse| {
            let _ = say.try_send(pulse);
        }));
        let mut seen = || -> Vec<_> { std::iter::from_fn(|| said.try_recv().ok()).collect() };
        // Polled for so many seconds; then nobody does.
        let _ = time::timeout(Duration::from_secs(22), &mut other).await;
        assert_eq!(seen(), [Pulse::Well; 5]);
        time::sleep(Duration::from_secs(30)).await;
        let pulses = seen();
        // It had beaten after the last look.
        assert_eq!(pulses[0], Pulse::Well);
        assert_eq!(pulses[1..], [Pulse::Stuck("other"); 5]);
        let _ = time::timeout(Duration::from_secs(11), &mut other).await;
        assert_eq!(seen(), [Pulse::Well; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_has_ended_or_panicked_does_not_go_on() {
        for ends_by_panic in [false, true] {
            let mut watchdog = Watchdog::new(Some(Duration::from_secs(10)));
            let ends = async move {
                time::sleep(Duration::from_secs(12)).await;
                assert!(!ends_by_panic, "a panic that was asked for");
            };
            tokio::spawn(watchdog.watch("accepting", ends.boxed()));
            let (say, mut said) = later::channel(100);
            tokio::spawn(watchdog.run(move |pulse| {
                let _ = say.try_send(pulse);
            }));
            time::sleep(Duration::from_secs(29)).await;
            let seen: Vec<_> = std::iter::from_fn(|| said.try_recv().ok()).collect();
            let stuck = Pulse::Stuck("accepting");
            assert_eq!(seen[..4], [Pulse::Well; 4], "{seen:?}");
            assert_eq!(seen[4..], [stuck; 2]);
        }
    }

    /// Catches a beat that goes on although the workers do not.
    #[tokio::test]
    async fn workers_that_are_blocked_are_stuck_until_they_are_not() {
        let workers = Workers::start(2).unwrap();
        let mut watchdog = Watchdog::new(Some(Duration::from_millis(400)));
        let _watched = workers.spawn(watchdog.watch("traffic", future::pending().boxed()));
        let (say, mut said) = later::channel(1_000);
        task::spawn(watchdog.run(move |pulse| {
            let _ = say.try_send(pulse);
        }));
        let mut until = async |wanted: Pulse| {
            let seen = async { while said.recv().await.unwrap() != wanted {} };
            let seen = time::timeout(Duration::from_secs(30), seen).await;
            seen.unwrap_or_else(|_| panic!("never {wanted:?}"));
        };
        until(Pulse::Well).await;
        let blocks: Vec<_> = (0..2)
            .map(|_| {
                let (release, released) = mpsc::sync_channel::<()>(1);
                workers.spawn(async move {
                    let _ = released.recv();
                });
                release
            })
            .collect();
        until(Pulse::Stuck("traffic")).await;
        drop(blocks);
        until(Pulse::Well).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_manager_that_does_not_ask_is_told_nothing() {
        let mut watchdog = Watchdog::new(None);
        watchdog.watch("one", async {}.boxed()).await;
        let told = watchdog.run(|pulse| panic!("{pulse:?}"));
        let outcome = time::timeout(Duration::from_secs(100), told).await;
        assert!(outcome.is_err());
    }
}
