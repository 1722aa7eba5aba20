//! The next connection, as long as there is room for one.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

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
    house: House,
}

/// The room for connections: in all, and for each peer.
struct House {
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
            house: House {
                room: Arc::new(Semaphore::new(room)),
                peers: Peers::new(limits.peer_connections_max),
                metrics,
            },
        }
    }

    /// The next connection. While as many are open as may be, others wait in the system's queue; those of a peer that has
    /// too many are closed.
    pub(super) async fn accept(&self) -> (TcpStream, Place) {
        let mut room = self.house.room().await;
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
                    self.house.metrics.paused(Pause::System);
                    time::sleep(pause).await;
                    pause = longer(pause);
                    continue;
                }
            };
            match self.house.admit(room, address) {
                Ok(place) => return (stream, place),
                Err(left) => room = left,
            }
        }
    }

    /// Closes the listener. Returns the connections that waited in its queue and for which there is room: closing it would
    /// reset them, and whoever made them may have asked already.
    pub(super) fn close(self) -> Vec<(TcpStream, Place)> {
        let mut waiting = Vec::new();
        // Taken off the runtime, which may not have seen the newest of them.
        let Ok(listener) = self.listener.into_std() else {
            return waiting;
        };
        while let Ok(room) = self.house.room.clone().try_acquire_owned() {
            let (stream, address) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if is_of_the_peer(&error) => continue,
                // It has no more, or the system gives none.
                Err(_) => break,
            };
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| TcpStream::from_std(stream));
            if let (Ok(stream), Ok(place)) = (stream, self.house.admit(room, address)) {
                waiting.push((stream, place));
            }
        }
        waiting
    }
}

impl House {
    async fn room(&self) -> OwnedSemaphorePermit {
        if let Ok(room) = self.room.clone().try_acquire_owned() {
            return room;
        }
        self.metrics.paused(Pause::Full);
        let room = self.room.clone().acquire_owned().await;
        room.expect("the semaphore is never closed")
    }

    /// A connection's place; the room back if its peer has too many.
    fn admit(
        &self,
        room: OwnedSemaphorePermit,
        address: SocketAddr,
    ) -> Result<Place, OwnedSemaphorePermit> {
        let Some(peer) = self.peers.admit(address.ip()) else {
            self.metrics.cut(Cut::Peer);
            return Err(room);
        };
        Ok(Place {
            _room: room,
            _peer: peer,
            _open: self.metrics.opened(),
        })
    }
}

/// The pause after one that was not long enough.
fn longer(pause: Duration) -> Duration {
    PAUSES.1.min(2 * pause)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// O3. Catches pauses that are none, and one after which it takes long to come back.
    #[test]
    fn pauses_grow_and_stay_short() {
        let mut pause = PAUSES.0;
        let mut millis = Vec::new();
        for _ in 0..8 {
            millis.push(pause.as_millis());
            pause = longer(pause);
        }
        assert_eq!(millis, [50, 100, 200, 400, 800, 1_000, 1_000, 1_000]);
    }
}
