//! The threads that serve callers: one runtime, which shares their connections among them.
//!
//! It is not the one that starts the process, so that probes are answered however busy the workers are.

use std::io;

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
};

/// Running threads. When this is dropped, whatever still runs on them is dropped as well.
#[derive(Debug)]
pub struct Workers {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Workers {
    /// Starts so many threads, from 1.
    ///
    /// # Errors
    /// If the system gives no further thread or descriptor.
    pub fn start(count: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(count)
            .thread_name("worker")
            .enable_all()
            .build()?;
        Ok(Self {
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// Runs a task on the workers, and there too whatever it spawns.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.handle.spawn(task)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Dropping it would wait for its threads, which the runtime that this is dropped on must not do.
            runtime.shutdown_background();
        }
    }
}
