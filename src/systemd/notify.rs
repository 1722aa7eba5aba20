//! Telling the service manager how the process is: one datagram for each state, as `sd_notify(3)` says.

use std::{
    ffi::OsStr,
    fmt, io,
    os::unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::{
    net::{SendFlags, send},
    time::{ClockId, clock_gettime},
};
use tracing::warn;

/// How long what is told but once waits for a manager that does not read for a moment.
const PATIENCE: Duration = Duration::from_secs(1);

/// What can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State<'a> {
    /// It serves: after a start, or again after a reload. With a line for people.
    Ready(&'a str),
    /// It reads its configuration again; [`State::Ready`] follows. Holds `CLOCK_MONOTONIC` in microseconds.
    Reloading(u64),
    /// It ends. With a line for people.
    Stopping(&'a str),
    /// It is not stuck.
    Watchdog,
}

impl State<'_> {
    /// That it reads its configuration again, from now on.
    pub fn reloading() -> Self {
        let now = clock_gettime(ClockId::Monotonic);
        let [seconds, nanos] =
            [now.tv_sec, now.tv_nsec].map(|part| u64::try_from(part).unwrap_or(0));
        Self::Reloading(seconds * 1_000_000 + nanos / 1_000)
    }
}

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(line) => write!(f, "READY=1\nSTATUS={}", one_line(line)),
            Self::Reloading(usec) => write!(f, "RELOADING=1\nMONOTONIC_USEC={usec}"),
            Self::Stopping(line) => write!(f, "STOPPING=1\nSTATUS={}", one_line(line)),
            Self::Watchdog => f.write_str("WATCHDOG=1"),
        }
    }
}

/// The line up to its break: what came after it would be another state.
fn one_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The manager's socket, if it has one.
#[derive(Clone, Debug, Default)]
pub struct Notify(Option<Arc<Told>>);

#[derive(Debug)]
struct Told {
    socket: UnixDatagram,
    /// Whether it knows of the end. Nothing takes that back.
    stopping: AtomicBool,
    /// Whether it did not take what it was told last.
    deaf: AtomicBool,
}

impl Notify {
    /// That of a path, or of an abstract name that begins with `@`.
    ///
    /// # Errors
    /// If it is neither, or cannot be sent to.
    pub fn to(name: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address(name.as_bytes())?)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(Some(Arc::new(Told {
            socket,
            stopping: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
        }))))
    }

    /// Whether there is somebody to tell.
    pub fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// Tells it; of a process that ends, no more than that it is not stuck. Of that nobody waits to tell it: it is told again
    /// and again. Anything else is told once, and blocks for a second at most. What is not taken is dropped; that is logged,
    /// and not again until something is taken.
    pub fn tell(&self, state: &State<'_>) {
        let Some(told) = &self.0 else { return };
        let is_moot = match state {
            State::Stopping(_) => {
                told.stopping.store(true, Ordering::Relaxed);
                false
            }
            State::Ready(_) | State::Reloading(_) => told.stopping.load(Ordering::Relaxed),
            State::Watchdog => false,
        };
        if is_moot {
            return;
        }
        let text = state.to_string();
        let sent = match state {
            State::Watchdog => {
                send(&told.socket, text.as_bytes(), SendFlags::DONTWAIT).map_err(io::Error::from)
            }
            _ => told.socket.send(text.as_bytes()),
        };
        let was_deaf = told.deaf.swap(sent.is_err(), Ordering::Relaxed);
        if let Err(error) = sent
            && !was_deaf
        {
            warn!(cause = %error, "the service manager does not take what it is told");
        }
    }
}

fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name {
        [b'/', ..] => SocketAddr::from_pathname(OsStr::from_bytes(name)),
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is neither a path that begins with / nor an abstract name that begins with @",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_written_as_sd_notify_has_them() {
        for (state, expected) in [
            (
                State::Ready("serves on 127.0.0.1:8080"),
                "READY=1\nSTATUS=serves on 127.0.0.1:8080",
            ),
            (State::Reloading(17), "RELOADING=1\nMONOTONIC_USEC=17"),
            (State::Stopping("drains"), "STOPPING=1\nSTATUS=drains"),
            (State::Watchdog, "WATCHDOG=1"),
            // What looks like another state is none.
            (State::Ready("a\nMAINPID=1"), "READY=1\nSTATUS=a"),
            (State::Ready(""), "READY=1\nSTATUS="),
        ] {
            assert_eq!(state.to_string(), expected);
        }
    }

    #[test]
    fn a_reload_has_the_time_of_the_clock_that_the_manager_reads() {
        // Seconds since the machine was started, in the file's first number: the clocks differ only by sleep.
        let State::Reloading(before) = State::reloading() else {
            panic!()
        };
        let State::Reloading(after) = State::reloading() else {
            panic!()
        };
        let now = clock_gettime(ClockId::Monotonic).tv_sec as u64;
        assert!(before <= after);
        assert!((after / 1_000_000).abs_diff(now) < 60, "{after} {now}");
    }

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 1_000];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    #[test]
    fn it_is_told_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::to(path.as_os_str()).unwrap();
        notify.tell(&State::Watchdog);
        assert_eq!(received(&manager), "WATCHDOG=1");

        let name = format!("contacts-gateway-{}", std::process::id());
        let manager = UnixDatagram::bind_addr(&address(format!("@{name}").as_bytes()).unwrap());
        let manager = manager.unwrap();
        let notify = Notify::to(OsStr::new(&format!("@{name}"))).unwrap();
        notify.tell(&State::Stopping("drains"));
        assert_eq!(received(&manager), "STOPPING=1\nSTATUS=drains");
    }

    /// Catches a reload during the drain that says it serves again.
    #[test]
    fn nothing_takes_the_end_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::to(path.as_os_str()).unwrap();
        for state in [
            State::Ready("serves"),
            State::Stopping("drains"),
            State::Reloading(17),
            State::Ready("serves again"),
            State::Watchdog,
        ] {
            notify.clone().tell(&state);
        }
        assert_eq!(received(&manager), "READY=1\nSTATUS=serves");
        assert_eq!(received(&manager), "STOPPING=1\nSTATUS=drains");
        assert_eq!(received(&manager), "WATCHDOG=1");
    }

    /// Catches a manager that does not read, and for which the whole process waits at each message.
    #[test]
    fn nobody_waits_for_a_manager_that_does_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::to(path.as_os_str()).unwrap();
        let is_deaf = |notify: &Notify| notify.0.as_ref().unwrap().deaf.load(Ordering::Relaxed);
        let (say, told) = std::sync::mpsc::sync_channel(1);
        let telling = notify.clone();
        std::thread::spawn(move || {
            // More than any system lets wait.
            for _ in 0..10_000 {
                telling.tell(&State::Watchdog);
            }
            let _ = say.send(());
        });
        told.recv_timeout(std::time::Duration::from_secs(60))
            .unwrap();
        assert!(is_deaf(&notify));
        // What fitted is there, and so is what is told once there is room again.
        assert_eq!(received(&manager), "WATCHDOG=1");
        notify.tell(&State::Watchdog);
        assert!(!is_deaf(&notify));
    }

    #[test]
    fn what_is_no_socket_is_an_error_and_a_manager_that_is_gone_is_none() {
        for name in [
            "",
            "notify",
            "vsock:2:1234",
            "/nowhere/notify",
            "@nobody-is-here",
        ] {
            assert!(Notify::to(OsStr::new(name)).is_err(), "{name:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::to(path.as_os_str()).unwrap();
        drop(manager);
        // Logged, and no reason to end.
        notify.tell(&State::Watchdog);
    }
}
