//! The next connection, as long as there is room for one.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time,
};
use tracing::warn;

use super::{
    Limits,
    metrics::{Cut, Metrics, Open, Pause},
    peers::{self, Peers},
};

/// How long accepting rests when the system gives no connection: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A listener, and the room for its connections.
pub(super) struct Acceptor {
    listener: TcpListener,
    room: Arc<Semaphore>,
    peers: Arc<Peers>,
    metrics: Metrics,
}

/// An open connection's place among all and among those of its peer.
pub(super) struct Place {
    _room: OwnedSemaphorePermit,
    _peer: peers::Place,
    _open: Open,
}

impl Acceptor {
    pub(super) fn new(listener: TcpListener, limits: &Limits, metrics: Metrics) -> Self {
        let room = limits.connections_max.min(Semaphore::MAX_PERMITS);
        Self {
            listener,
            room: Arc::new(Semaphore::new(room)),
            peers: Peers::new(limits.peer_connections_max),
            metrics,
        }
    }

    /// The next connection. While as many are open as may be, others wait in the system's queue; those of a peer that has
    /// too many are closed.
    pub(super) async fn accept(&self) -> (TcpStream, Place) {
        let room = self.room().await;
        let mut pause = PAUSES.0;
        loop {
            let (stream, address) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) if is_of_the_peer(&error) => continue,
                Err(error) => {
                    // Usually for want of descriptors, and then until a connection closes: told once, not each time.
                    if pause == PAUSES.0 {
                        warn!(cause = %error, "no connection can be accepted for now");
                    }
                    self.metrics.paused(Pause::System);
                    time::sleep(pause).await;
                    pause = PAUSES.1.min(2 * pause);
                    continue;
                }
            };
            let Some(peer) = self.peers.admit(address.ip()) else {
                self.metrics.cut(Cut::Peer);
                continue;
            };
            let place = Place {
                _room: room,
                _peer: peer,
                _open: self.metrics.opened(),
            };
            return (stream, place);
        }
    }

    async fn room(&self) -> OwnedSemaphorePermit {
        if let Ok(room) = self.room.clone().try_acquire_owned() {
            return room;
        }
        self.metrics.paused(Pause::Full);
        let room = self.room.clone().acquire_owned().await;
        room.expect("the semaphore is never closed")
    }
}

/// Whether it was this one connection that failed, before it was accepted.
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
