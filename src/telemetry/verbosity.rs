//! How much is written, changed while the process runs: another level for a while, then the configured one again by itself.
//! So nobody's forgotten `debug` fills a disk.
//!
//! Only the level changes. What it lets through of libraries stays capped, as for the configured one, since both become a
//! filter in the same place.

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tracing::info;

use super::Level;

/// How long another level may be asked for.
pub const LENGTH: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

/// How long, for whoever does not say.
pub const LENGTH_DEFAULT: Duration = Duration::from_secs(10 * 60);

/// What an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The configured level, at once.
    Configured,
    /// Another one (or the same: then nothing changes but that it is said), for so long.
    For(Level, Duration),
}

/// What is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub configured: Level,
    /// What is in force instead.
    pub other: Option<Other>,
}

/// A level for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    pub level: Level,
    /// When the configured one is in force again.
    pub until: Instant,
    /// The same for people.
    pub until_wall: SystemTime,
}

impl Standing {
    /// The least important events that are written.
    pub fn level(&self) -> Level {
        self.other.map_or(self.configured, |other| other.level)
    }

    fn after(self, wish: Wish, now: Instant, wall: SystemTime) -> Self {
        let other = match wish {
            Wish::Configured => None,
            Wish::For(level, length) => Some(Other {
                level,
                until: now + length,
                until_wall: wall + length,
            }),
        };
        Self { other, ..self }
    }

    fn is_over(&self, now: Instant) -> bool {
        self.other.is_some_and(|other| other.until <= now)
    }
}

type Follow = Box<dyn Fn(Level) + Send + Sync>;

/// What is in force, and what follows it.
pub struct Verbosity {
    standing: Mutex<Standing>,
    changed: Notify,
    /// Set once there is a log. Without one there is nothing to be written more or less of.
    follow: OnceLock<Follow>,
}

impl fmt::Debug for Verbosity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let standing = self.standing();
        f.debug_struct("Verbosity")
            .field("standing", &standing)
            .finish_non_exhaustive()
    }
}

impl Verbosity {
    pub fn new(configured: Level) -> Arc<Self> {
        Arc::new(Self {
            standing: Mutex::new(Standing {
                configured,
                other: None,
            }),
            changed: Notify::new(),
            follow: OnceLock::new(),
        })
    }

    /// Tells each change to the log. Only the first one follows.
    pub fn followed_by(&self, follow: impl Fn(Level) + Send + Sync + 'static) {
        let _ = self.follow.set(Box::new(follow));
    }

    /// What is in force.
    pub fn standing(&self) -> Standing {
        *self.lock()
    }

    /// Changes it, and says so in the log. Returns what is in force then.
    pub fn set(&self, wish: Wish, now: Instant, wall: SystemTime) -> Standing {
        let mut standing = self.lock();
        let next = standing.after(wish, now, wall);
        self.change(&mut standing, next, || match wish {
            Wish::Configured => info!(
                to = next.level().word(),
                "the log's level is the configured one, as an operator asked"
            ),
            Wish::For(level, length) => info!(
                to = level.word(),
                length = %humantime::format_duration(length),
                configured = next.configured.word(),
                "the log's level was changed for a while"
            ),
        });
        self.changed.notify_one();
        next
    }

    /// Falls back when it is time, for as long as it is polled.
    pub async fn keep(self: Arc<Self>) {
        loop {
            let changed = self.changed.notified();
            match self.standing().other {
                None => changed.await,
                Some(other) => {
                    if timeout_at(other.until, changed).await.is_err() {
                        self.fall_back(Instant::now());
                    }
                }
            }
        }
    }

    fn fall_back(&self, now: Instant) {
        let mut standing = self.lock();
        // Meanwhile somebody may have asked for more time.
        if standing.is_over(now) {
            let next = Standing {
                other: None,
                ..*standing
            };
            self.change(&mut standing, next, || {
                info!(
                    to = next.level().word(),
                    "the log's level is the configured one again: its time was over"
                );
            });
        }
    }

    /// The log follows while the lock is held, so that it ends as this does, whoever else asks. It is told by whichever of
    /// both levels lets more through, so that raising it and lowering it are both written.
    fn change(&self, standing: &mut Standing, next: Standing, tell: impl FnOnce()) {
        let follow = || {
            if let Some(follow) = self.follow.get() {
                follow(next.level());
            }
        };
        if next.level() >= standing.level() {
            follow();
            tell();
        } else {
            tell();
            follow();
        }
        *standing = next;
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// One, with what the log was told.
    fn verbosity() -> (Arc<Verbosity>, Arc<Mutex<Vec<Level>>>) {
        let verbosity = Verbosity::new(Level::Info);
        let told: Arc<Mutex<Vec<Level>>> = Arc::default();
        let log = told.clone();
        verbosity.followed_by(move |level| log.lock().unwrap().push(level));
        tokio::spawn(verbosity.clone().keep());
        (verbosity, told)
    }

    fn ask(verbosity: &Verbosity, wish: Wish) -> Standing {
        verbosity.set(wish, Instant::now(), SystemTime::UNIX_EPOCH)
    }

    /// To the next thing that happens, and no further.
    async fn pass(seconds: f64) {
        advance(Duration::from_secs_f64(seconds)).await;
        tokio::task::yield_now().await;
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn it_falls_back_by_itself_and_not_before() {
        let (verbosity, told) = verbosity();
        let standing = ask(&verbosity, Wish::For(Level::Debug, MINUTE));
        let until = standing.other.unwrap().until_wall;
        assert_eq!(until, SystemTime::UNIX_EPOCH + MINUTE);
        pass(59.9).await;
        assert_eq!(verbosity.standing().level(), Level::Debug);
        pass(0.2).await;
        assert_eq!(verbosity.standing().other, None);
        assert_eq!(*told.lock().unwrap(), [Level::Debug, Level::Info]);
        // And once more, so that the first time was not the last.
        ask(&verbosity, Wish::For(Level::Error, MINUTE));
        pass(60.1).await;
        assert_eq!(told.lock().unwrap()[2..], [Level::Error, Level::Info]);
    }

    /// Catches the end of an earlier wish that ends a later one, and a later one that is not heard while the first lasts.
    #[tokio::test(start_paused = true)]
    async fn the_last_wish_counts() {
        let (verbosity, told) = verbosity();
        ask(&verbosity, Wish::For(Level::Debug, MINUTE));
        pass(30.0).await;
        ask(&verbosity, Wish::For(Level::Trace, MINUTE));
        pass(45.0).await;
        assert_eq!(verbosity.standing().level(), Level::Trace);
        ask(&verbosity, Wish::For(Level::Debug, Duration::from_secs(5)));
        pass(6.0).await;
        assert_eq!(verbosity.standing().other, None);
        ask(&verbosity, Wish::For(Level::Debug, MINUTE));
        let standing = ask(&verbosity, Wish::Configured);
        assert_eq!(standing.level(), Level::Info);
        pass(600.0).await;
        use Level::{Debug, Info, Trace};
        let expected = [Debug, Trace, Debug, Info, Debug, Info];
        assert_eq!(*told.lock().unwrap(), expected);
    }

    /// Catches a change that nobody can read about, since its line is written when the log says less already, or less still.
    #[tokio::test(start_paused = true)]
    async fn the_line_about_it_is_written_while_more_is_let_through() {
        let verbosity = Verbosity::new(Level::Info);
        let level = Arc::new(Mutex::new(Level::Info));
        let follow = level.clone();
        verbosity.followed_by(move |next| *follow.lock().unwrap() = next);
        for (next, expected) in [
            (Level::Debug, Level::Debug),
            (Level::Error, Level::Debug),
            (Level::Info, Level::Info),
            (Level::Error, Level::Info),
        ] {
            let mut standing = verbosity.lock();
            let wish = Wish::For(next, MINUTE);
            let after = standing.after(wish, Instant::now(), SystemTime::UNIX_EPOCH);
            let mut at = None;
            verbosity.change(&mut standing, after, || at = Some(*level.lock().unwrap()));
            assert_eq!(at, Some(expected), "{next:?}");
            assert_eq!(*level.lock().unwrap(), next);
        }
    }
}
