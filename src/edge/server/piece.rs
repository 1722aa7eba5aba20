//! A piece of an answer, as it is handed on to hyper.

use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::time::Instant;

use super::pulse::Pulse;

/// Some bytes of an answer. Over HTTP/2, where it may long be kept for want of a window, the pulse knows of it until it is
/// taken.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    /// Behind the bytes, which are let go first.
    _noted: Option<Noted>,
}

/// That a piece waits for the caller.
#[derive(Debug)]
struct Noted {
    pulse: Arc<Pulse>,
    answer: u64,
}

impl Piece {
    pub(super) fn plain(bytes: Bytes) -> Self {
        Self {
            bytes,
            _noted: None,
        }
    }

    /// A piece of the answer with that number, there since `now`.
    pub(super) fn noted(bytes: Bytes, pulse: Arc<Pulse>, answer: u64, now: Instant) -> Self {
        pulse.handed(answer, now);
        Self {
            bytes,
            _noted: Some(Noted { pulse, answer }),
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // It is the connection's task that hands it to the socket.
        self.pulse.taken(self.answer, self.pulse.now());
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.bytes.copy_to_bytes(count)
    }
}
