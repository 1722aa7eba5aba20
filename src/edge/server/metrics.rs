//! What a listener's connections tell.

use prometheus::{IntCounter, IntGauge};

use super::connection::Ended;
use crate::metrics::{self, Registry};

/// Why the gateway ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its peer has too many.
    Peer,
    /// Its TLS handshake failed or took too long.
    Handshake,
    /// Nothing came.
    FirstByte,
    /// A head, or what began like one, did not end.
    Header,
    /// No further request came.
    Idle,
    /// Nobody took the answer.
    Stall,
    /// Much came that asked nothing.
    Flood,
    /// Too many requests were given up by who had made them.
    Resets,
    /// It was to end, because the gateway stops or it had been idle, and nothing more was asked.
    Drain,
}

impl Cut {
    const ALL: [Self; 9] = [
        Self::Peer,
        Self::Handshake,
        Self::FirstByte,
        Self::Header,
        Self::Idle,
        Self::Stall,
        Self::Flood,
        Self::Resets,
        Self::Drain,
    ];

    const fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Handshake => "handshake",
            Self::FirstByte => "first_byte",
            Self::Header => "header",
            Self::Idle => "idle",
            Self::Stall => "stall",
            Self::Flood => "flood",
            Self::Resets => "resets",
            Self::Drain => "drain",
        }
    }
}

/// Why no connection is accepted for a while.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pause {
    /// As many are open as may be.
    Full,
    /// The system gives none: it has no descriptor or no memory left.
    System,
}

/// The metrics of one listener.
#[derive(Clone, Debug)]
pub struct Metrics {
    malformed: IntCounter,
    open: IntGauge,
    cut: [IntCounter; Cut::ALL.len()],
    paused: [IntCounter; 2],
}

impl Metrics {
    /// The metrics of the traffic and of the admin listener.
    pub fn new(registry: &Registry) -> metrics::Result<[Self; 2]> {
        let malformed = registry.counter(
            "malformed_requests_total",
            "Requests that were no HTTP, and connections that broke HTTP/2's protocol: answered with a bare status or nothing, and closed.",
            &["listener"],
        )?;
        let open = registry.gauge("connections", "Connections open.", &["listener"])?;
        let cut = registry.counter(
            "connections_cut_total",
            "Connections that the gateway ended: peer (one address has too many), handshake (of TLS, failed or too slow), first_byte (nothing came), header (it did not end), idle, stall (an answer was not taken), flood (much that asks nothing), resets (requests given up), drain (nothing more came after the goodbye).",
            &["listener", "reason"],
        )?;
        let paused = registry.counter(
            "accept_pauses_total",
            "Times that nobody was let in for a while: full (as many connections as may be), or system (no descriptor left).",
            &["listener", "reason"],
        )?;
        Ok(["traffic", "admin"].map(|listener| Self {
            malformed: malformed.with_label_values(&[listener]),
            open: open.with_label_values(&[listener]),
            cut: Cut::ALL.map(|cut_by| cut.with_label_values(&[listener, cut_by.word()])),
            paused: ["full", "system"].map(|word| paused.with_label_values(&[listener, word])),
        }))
    }

    /// Counts a connection as open for as long as what is returned lives.
    pub(super) fn opened(&self) -> Open {
        self.open.inc();
        Open(self.open.clone())
    }

    /// A connection ended early.
    pub(super) fn ended(&self, ended: &Ended) {
        match ended {
            Ended::Cut(why) => self.cut(*why),
            Ended::Http(_) if ended.is_malformed() => self.malformed.inc(),
            Ended::Http(_) => {}
        }
    }

    pub(super) fn cut(&self, why: Cut) {
        self.cut[why as usize].inc();
    }

    pub(super) fn paused(&self, why: Pause) {
        self.paused[why as usize].inc();
    }

    #[cfg(test)]
    pub(super) fn cuts(&self, why: Cut) -> u64 {
        self.cut[why as usize].get()
    }

    #[cfg(test)]
    pub(super) fn open(&self) -> i64 {
        self.open.get()
    }
}

/// One open connection.
#[derive(Debug)]
pub(super) struct Open(IntGauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_in_their_order() {
        for (place, why) in Cut::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
        }
    }
}
