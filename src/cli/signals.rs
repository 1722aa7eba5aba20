//! The signals that end a process: the first one gently, the second one at once.

use std::io;

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

use super::Failure;
use crate::app::App;

/// Ctrl-C, and what a supervisor sends.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Those that come from now on: none of them ends the process by itself any more.
    ///
    /// # Errors
    /// If the system does not let them be heard.
    pub(super) fn hear() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next one.
    pub(super) async fn next(&mut self) {
        select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    /// Runs the gateway until the first one, and lets it drain; after the second one nothing is waited for. Also if the
    /// first one came when the end had begun for another reason, and nobody waited for it any more.
    pub(super) async fn govern(mut self, app: App) -> Result<(), Failure> {
        let (signalled, first) = oneshot::channel();
        let second = async {
            self.next().await;
            let _ = signalled.send(());
            self.next().await;
        };
        let stop = async {
            // Its other end lives as long as the signals are waited for.
            let _ = first.await;
        };
        select! {
            ended = app.run(stop) => Ok(ended?),
            () = second => Err(Failure::AtOnce),
        }
    }
}
