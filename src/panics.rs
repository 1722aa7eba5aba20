//! What a panic costs: one request, one connection, one flight or one round of a background task. Never the process.
//!
//! Each runs in a task of its own or is caught by [`edge::rescue`](crate::edge::rescue); locks are taken whether poisoned
//! or not, since what they guard is changed in steps that are whole. Here all of them are counted, wherever they happen,
//! and background tasks are started again.

use std::{
    any::Any,
    panic::{self, AssertUnwindSafe},
    sync::{LazyLock, Once},
    time::Duration,
};

use futures_util::FutureExt;
use prometheus::{IntCounter, IntCounterVec};
use tokio::time;
use tracing::error;

use crate::metrics::{self, Registry};

/// Those of the process: the standard library tells them to one hook for all.
static COUNT: LazyLock<IntCounter> = LazyLock::new(|| {
    let help = "Faults of the gateway's own, wherever they happened: each costs one request, connection, flight or round of a task.";
    IntCounter::new("panics_total", help).expect("a name that is allowed")
});

/// Counts panics from now on, beside whatever else is done about them.
pub fn count(registry: &Registry) -> metrics::Result<()> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            COUNT.inc();
            before(panic);
        }));
    });
    registry.show(&COUNT)
}

/// Tells panics as events, by their place alone: their text may quote anything, a contact included.
pub fn log() {
    panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        error!(
            place = place.unwrap_or_default(),
            "a panic, which is a fault of the gateway's own"
        );
    }));
}

/// What is left of a panic that was caught.
pub type Caught = Box<dyn Any + Send>;

/// How long a background task rests after a panic: at first, and at most.
const RESTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Background tasks, which end only when they are done.
#[derive(Clone, Debug)]
pub struct Background {
    restarts: IntCounterVec,
}

impl Background {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let help = "Background tasks that were started again after a panic.";
        let restarts = registry.counter("task_restarts_total", help, &["task"])?;
        Ok(Self { restarts })
    }

    /// Runs `start()` to its end, and after a panic once more: a second later, then two, four, up to a minute.
    pub fn keep<F>(
        &self,
        task: &'static str,
        start: impl Fn() -> F + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let restarts = self.restarts.with_label_values(&[task]);
        async move {
            let mut rest = RESTS.0;
            while AssertUnwindSafe(start()).catch_unwind().await.is_err() {
                restarts.inc();
                error!(task, again_in = ?rest, "a background task panicked");
                time::sleep(rest).await;
                rest = RESTS.1.min(2 * rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_is_started_again_until_it_ends_well() {
        let registry = Registry::new().unwrap();
        count(&registry).unwrap();
        let before = COUNT.get();
        let background = Background::new(&registry).unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let begun = Instant::now();
        let counting = runs.clone();
        background
            .keep("test", move || {
                let runs = counting.clone();
                async move {
                    let run = runs.fetch_add(1, Ordering::Relaxed);
                    assert!(run >= 8, "a panic that was asked for");
                }
            })
            .await;
        assert_eq!(runs.load(Ordering::Relaxed), 9);
        assert_eq!(begun.elapsed().as_secs(), 1 + 2 + 4 + 8 + 16 + 32 + 60 + 60);
        assert_eq!(background.restarts.with_label_values(&["test"]).get(), 8);
        // Other tests of this process may panic meanwhile.
        assert!(COUNT.get() - before >= 8);
        let shown = String::from_utf8(registry.render().unwrap()).unwrap();
        assert!(shown.contains("contacts_gateway_panics_total "), "{shown}");
    }
}
