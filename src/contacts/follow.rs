//! Lists as lines: from the copy if there is one that will do, else from the walk that is under way, page by page.
//!
//! The stage stands on the lists' cache and asks it as anybody does. If the cache has the answer before any page is
//! confirmed, that is the answer, with its length and its verdict, and so is an error, with its status. Else lines begin
//! to be sent, and from then on only the walk decides how they end. A list that is too large to be kept is
//! [streamed](super::walk::stream).

use std::{
    fmt, future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::{
    select,
    sync::watch,
    time::{self, Instant},
};
use tower::{Layer, Service, layer::layer_fn};

use super::{
    cache::{
        Metrics,
        decision::{Decision, decide},
    },
    ids::Epoch,
    lines::{Line, Lines, telling},
    list::{List, ListKey},
    request::Request,
    trail::Reader,
    walk::stream::{Stream, Streams},
    walking::{Progress, Walking},
};
use crate::{
    error::{Error, Kind, Result},
    served::{Answer, Forward, Served},
    service::{FetchPage, ServeList},
};

/// What asks for a list as lines.
#[derive(Clone, Debug)]
pub struct LinesRequest {
    pub list: Request<ListKey>,
    /// The caller wants to be told how far the walk is.
    pub progress: bool,
}

/// What is told to whoever wants a list as lines.
#[derive(Debug)]
pub enum Told {
    /// From a copy.
    Kept(Answer<List>),
    /// As they come.
    Running(Running),
}

/// A list that is still being read.
pub struct Running {
    pub lines: Lines,
    /// Why it is not answered from a copy.
    pub forward: Forward,
    /// Its walk had begun for others.
    pub joined: bool,
    /// Since its walk began: no page of it is older.
    pub age: Duration,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { joined, age, .. } = self;
        f.debug_struct("Running")
            .field("joined", joined)
            .field("age", age)
            .finish_non_exhaustive()
    }
}

impl Running {
    pub fn served(&self) -> Served {
        match self.joined {
            true => Served::Joined(self.forward),
            false => Served::Fetched(self.forward),
        }
    }
}

/// The stage.
#[derive(Clone, Debug)]
pub struct Follow<L, S> {
    lists: L,
    streams: Streams<S>,
    metrics: Metrics,
}

/// Follows the walks of the lists below, and streams what they are too large for. Who follows counts among the lists'
/// metrics.
pub fn layer<L, S: Clone>(
    streams: Streams<S>,
    metrics: Metrics,
) -> impl Layer<L, Service = Follow<L, S>> {
    layer_fn(move |lists| Follow {
        lists,
        streams: streams.clone(),
        metrics: metrics.clone(),
    })
}

impl<L: ServeList, S: FetchPage> Service<LinesRequest> for Follow<L, S> {
    type Response = Told;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Told>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.lists.poll_ready(cx)
    }

    fn call(&mut self, LinesRequest { list, progress }: LinesRequest) -> Self::Future {
        let ListKey { collection, epoch } = list.key.clone();
        let walks = collection.walking.watch();
        let is_ours = |walking: &Arc<Walking>| walking.epoch == epoch;
        let joined = walks.borrow().as_ref().is_some_and(is_ours);
        let forward = forward(&list);
        let handling = list.terms.handling;
        let served = Served::Fetched(forward);
        let answering = self.lists.call(list.clone());
        let (metrics, streams) = (self.metrics.clone(), self.streams.clone());
        async move {
            let answering = pin!(answering);
            let (walking, reader) = select! {
                // Whatever is there whole, or has failed, need not be followed.
                biased;
                answer = answering => return match answer {
                    Err(error) if error.kind() == Kind::MergeTooLarge => {
                        let running = streamed(&streams, list, forward, progress).await;
                        running.map(Told::Running).map_err(|error| error.served(served))
                    }
                    answer => answer.map(Told::Kept),
                },
                begun = begun(walks, epoch, |walking| walking.trail.reader(handling), progress) => begun,
            };
            // No longer a waiter of the flight, which goes on for what it has cost already.
            let age = walking.started.elapsed();
            let lines = match progress {
                true => telling(reader.lines(), move || known(&walking.watch().borrow())),
                false => reader.lines(),
            };
            let running = Running {
                lines,
                forward,
                joined,
                age,
            };
            metrics.counter(running.served()).inc();
            Ok(Told::Running(running))
        }
        .boxed()
    }
}

/// Why a request is not answered from the copy, where it is not.
fn forward(list: &Request<ListKey>) -> Forward {
    let now = Instant::now();
    let copy = list.key.collection.list();
    let standing = copy.as_ref().map(|copy| copy.standing(now));
    match decide(standing.as_ref(), &list.terms.directives) {
        Decision::Fetch { forward, .. } => forward,
        // Then it is gone before it is looked for.
        Decision::Serve | Decision::Revalidate | Decision::Refuse => Forward::Miss,
    }
}

/// Begins to stream a list, once there is something to send.
async fn streamed<S: FetchPage>(
    streams: &Streams<S>,
    request: Request<ListKey>,
    forward: Forward,
    progress: bool,
) -> Result<Running> {
    let began = Instant::now();
    let (deadline, handling) = (request.terms.deadline, request.terms.handling);
    let Stream {
        lines,
        progress: told,
    } = streams.open(request)?;
    let lines = lines.map(move |line| match line {
        Ok(Line::End(ending)) => handling.accept(ending.verdict).map(|()| Line::End(ending)),
        line => line,
    });
    let mut lines = match progress {
        true => telling(lines.boxed(), move || known(&told.borrow())),
        false => lines.boxed(),
    };
    let late = "the list's first contacts did not come before the request's deadline";
    let first = time::timeout_at(deadline, lines.next()).await;
    let first = first.map_err(|_| Error::new(Kind::UpstreamTimeout, late))?;
    let first = first.unwrap_or_else(|| Err(Error::new(Kind::Internal, "the list has no end")))?;
    Ok(Running {
        lines: stream::iter([Ok(first)]).chain(lines).boxed(),
        forward,
        joined: false,
        age: began.elapsed(),
    })
}

/// Waits for a walk of which there is something to send. Never ends where there is none.
async fn begun(
    mut walks: watch::Receiver<Option<Arc<Walking>>>,
    epoch: Epoch,
    reader: impl Fn(&Walking) -> Reader,
    progress: bool,
) -> (Arc<Walking>, Reader) {
    loop {
        let walking = walks.borrow_and_update().clone();
        if let Some(walking) = walking.filter(|walking| walking.epoch == epoch) {
            let mut reader = reader(&walking);
            let mut told = walking.watch();
            let has_begun = select! {
                has_begun = reader.has_begun() => has_begun,
                // The first page, and it is none that ends the walk.
                told = told.wait_for(|told| known(told).is_some()), if progress => told.is_ok(),
            };
            if has_begun {
                return (walking, reader);
            }
        }
        if walks.changed().await.is_err() {
            // The collection is gone, and with it whoever would tell.
            return future::pending().await;
        }
    }
}

/// How far a walk is that has something to tell.
fn known(progress: &Progress) -> Option<Progress> {
    let says_something = progress.pages_done > 0 && progress.end.is_none();
    says_something.then(|| progress.clone())
}
