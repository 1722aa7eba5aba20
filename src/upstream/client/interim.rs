//! Interim answers (1xx) come before the answer and are skipped: a few of them.
//!
//! The parser would skip any number, and a flood would hold its connection until the first byte's timeout.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use http::Request;
use tokio::sync::Notify;

use crate::error::{Error, Kind};

/// How many may come before an answer.
const INTERIM_MAX: u32 = 8;

/// The interim answers to one request.
#[derive(Clone, Debug, Default)]
pub(super) struct Interim(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    seen: AtomicU32,
    too_many: Notify,
}

impl Interim {
    /// Counts those that will come for this request.
    pub(super) fn of<B>(request: &mut Request<B>) -> Self {
        let interim = Self::default();
        let counted = interim.0.clone();
        hyper::ext::on_informational(request, move |_| {
            if counted.seen.fetch_add(1, Ordering::Relaxed) == INTERIM_MAX {
                counted.too_many.notify_one();
            }
        });
        interim
    }

    /// Ends when there were too many. Dropping the request then closes its connection.
    pub(super) async fn flood(&self) -> Error {
        self.0.too_many.notified().await;
        flooded()
    }

    /// Whether there were too many: they and the answer may arrive together.
    pub(super) fn flooded(&self) -> Option<Error> {
        (self.0.seen.load(Ordering::Relaxed) > INTERIM_MAX).then(flooded)
    }
}

fn flooded() -> Error {
    Error::new(
        Kind::UpstreamProtocol,
        "upstream sends interim answers without end",
    )
    .because(format!("more than {INTERIM_MAX} answers 1xx"))
    .from_a_host_that_is_well()
}
