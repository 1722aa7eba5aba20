//! The threads that serve callers: one runtime, which shares their connections among them.
//!
//! It is not the one that starts the process, so that probes are answered however busy the workers are.
//!
//! # What `workers` means
//!
//! One runtime of so many threads serves callers; the thread that started the process accepts nothing but probes. The
//! other way, a runtime for each thread and connections handed out in turn, was built and measured beside it. On two
//! cores, medians of five rounds, CPU for each cached page as a ratio to a bare hyper server in the same run:
//!
//! | | 1 worker | 2 workers | p99, 1 and 2 workers |
//! | --- | --- | --- | --- |
//! | a runtime for each thread | 1.21 | 1.24 | 2.3 ms, 4.5 ms |
//! | one runtime | 1.25 | 1.19 | 1.5 ms, 1.7 ms |
//!
//! The cost is the same within the noise of 5 %. The tail is not: where a thread is held up (here the load generator
//! shared the second core), its connections wait for it unless another may take them. And nothing needs to be handed
//! over. (`tests/load/run --rounds 5 --seconds 4 --workers 1,2`)

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
