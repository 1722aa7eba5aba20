//! What a service manager gives this process, and is told by it.
//!
//! | Variable | What it does |
//! | --- | --- |
//! | `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES` | sockets that listen already and outlive the process: [`inherited`] |
//! | `NOTIFY_SOCKET` | where the manager wants to be told how the process is: [`notify`] |
//! | `WATCHDOG_USEC`, `WATCHDOG_PID` | how often it wants to be told that the process is not stuck: [`watchdog`] |
//!
//! All of it is systemd's protocol, and none of it needs systemd: whatever starts the process may speak it. Without these
//! variables nothing here does anything. The gateway starts no other program, so it passes none of them on.

use std::{collections::HashMap, ffi::OsString, process, time::Duration};

use tokio::{task, task::JoinHandle};
use tracing::warn;

use self::{
    notify::{Notify, State},
    watchdog::{Pulse, Watchdog},
};

pub mod inherited;
pub mod notify;
pub mod watchdog;

/// What the process was started with.
#[derive(Clone, Debug, Default)]
pub struct Environment(HashMap<OsString, OsString>);

impl Environment {
    pub fn of(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self(variables.into_iter().collect())
    }

    fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(&OsString::from(name))
    }

    /// A value that is not UTF-8 is none that any variable here may have.
    fn text(&self, name: &str) -> Option<String> {
        let value = self.get(name)?;
        Some(value.to_string_lossy().into_owned())
    }
}

/// The manager, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Manager {
    notify: Notify,
    /// How long it waits for a sign of life.
    patience: Option<Duration>,
}

impl Manager {
    /// The one that this process's environment names. One that cannot be told anything is none, and that is logged.
    pub fn of(environment: &Environment) -> Self {
        let socket = environment.get("NOTIFY_SOCKET");
        let notify = socket.map_or_else(|| Ok(Notify::default()), |name| Notify::to(name));
        let notify = notify.unwrap_or_else(|error| {
            warn!(cause = %error, "the service manager cannot be told anything (NOTIFY_SOCKET)");
            Notify::default()
        });
        let patience = watchdog::patience(
            environment.text("WATCHDOG_USEC").as_deref(),
            environment.text("WATCHDOG_PID").as_deref(),
            process::id(),
        );
        Self {
            patience: patience.filter(|_| notify.is_heard()),
            notify,
        }
    }

    /// Tells it something.
    pub fn tell(&self, state: &State<'_>) {
        self.notify.tell(state);
    }

    /// What is to show that it is not stuck.
    pub fn watchdog(&self) -> Watchdog {
        Watchdog::new(self.patience)
    }

    /// Tells it that all is well, for as long as all is.
    pub fn reassure(&self, watchdog: Watchdog) -> JoinHandle<()> {
        let notify = self.notify.clone();
        task::spawn(watchdog.run(move |pulse| match pulse {
            Pulse::Well => notify.tell(&State::Watchdog),
            Pulse::Stuck(what) => {
                warn!(
                    what,
                    "something makes no progress; the service manager is told nothing until it does"
                );
            }
        }))
    }
}
