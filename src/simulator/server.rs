//! The socket under the simulator: HTTP/1.1 and HTTP/2 with prior knowledge, told apart by the first bytes.
//!
//! Faults below HTTP take the stream back from hyper, in the middle of a request.
//!
//! Everything that it spawns ends with one token, the tasks of HTTP/2 streams included: a fault that delays for an hour must not
//! outlive its simulator.

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Request, Response, StatusCode, Version};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    answer::Answer,
    body::Body,
    control,
    kore::Kore,
    wire::{self, Lent, Takeover},
};

/// How long a peer may take to send a request's head, or leave a connection idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// After a failed accept, which mostly means no free file descriptor: long enough not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where the simulator's tasks run, and what ends them.
#[derive(Clone, Debug, Default)]
pub(super) struct Tasks {
    pub(super) ended: CancellationToken,
    pub(super) tracker: TaskTracker,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let ended = self.ended.clone();
        self.tracker.spawn(async move {
            ended.run_until_cancelled(task).await;
        });
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, task: F) {
        self.spawn(async move {
            task.await;
        });
    }
}

/// Accepts connections until the tasks are ended.
pub(super) fn serve(listener: TcpListener, kore: Arc<Kore>, tasks: &Tasks) {
    let places = Arc::new(Semaphore::new(kore.settings().connections_max));
    let mut http = auto::Builder::new(tasks.clone());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(1_024);
    let http = Arc::new(http);
    let spawner = tasks.clone();
    tasks.spawn(async move {
        // A closed semaphore ends the loop, and nobody closes it.
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (kore, http) = (Arc::clone(&kore), Arc::clone(&http));
                    spawner.spawn(async move {
                        connection(stream, kore, &http).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "the simulator cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
}

/// What the requests of one connection share.
struct Connection {
    kore: Arc<Kore>,
    /// How many came so far.
    requests: AtomicU64,
    takeover: Takeover,
}

async fn connection(stream: TcpStream, kore: Arc<Kore>, http: &auto::Builder<Tasks>) {
    // Without it a small answer may wait for the peer's delayed acknowledgement; nothing is lost if it fails.
    let _ = stream.set_nodelay(true);
    let (takeover, mut scripts) = Takeover::new();
    let connection = Arc::new(Connection {
        kore,
        requests: AtomicU64::new(0),
        takeover,
    });
    let mut next = Some(stream);
    while let Some(stream) = next.take() {
        let (stream, returned) = Lent::new(stream);
        let service = service_fn(|request| respond(Arc::clone(&connection), request));
        let script = {
            let serving = http.serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                biased;
                served = serving => {
                    // Peers that go away and answers that are cut on purpose end here, as errors that mean nothing.
                    if let Err(error) = served {
                        tracing::trace!(error, "a connection to the simulator ended");
                    }
                    return;
                }
                Some(script) = scripts.recv() => script,
            }
        };
        let Ok(stream) = returned.await else { return };
        next = wire::play(stream, script).await;
    }
}

async fn respond(
    connection: Arc<Connection>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let kore = &connection.kore;
    let reused = connection.requests.fetch_add(1, Ordering::Relaxed) > 0;
    if request.uri().path().starts_with(control::PREFIX) {
        return Ok(control::answer(kore, request).await.into_response());
    }
    let answer = kore.answer(&request, reused).await;
    let answer = match answer.script() {
        None => answer,
        Some(script) if script.any_version || request.version() != Version::HTTP_2 => {
            match connection.takeover.play(script).await {}
        }
        Some(_) => Answer::error(StatusCode::HTTP_VERSION_NOT_SUPPORTED),
    };
    Ok(answer.into_response())
}
