//! What is remembered for callers is looked through from time to time, and what is of no use any more is forgotten.

use std::{sync::Weak, time::Duration};

use tokio::time::{self, Instant};

/// How often.
pub const EVERY: Duration = Duration::from_secs(60);

/// Has it done for as long as what remembers is there.
pub async fn keep_swept<T>(remembers: Weak<T>, sweep: impl Fn(&T, Instant)) {
    loop {
        time::sleep(EVERY).await;
        match remembers.upgrade() {
            Some(remembers) => sweep(&remembers, Instant::now()),
            None => break,
        }
    }
}
