//! Lists that are too large to be kept: each reader has a walk of its own, which is never further ahead of it than a few
//! pages, and of which no copy is kept.
//!
//! The walk is a task, and what it has read stands in a channel of one page. While that is full no more is asked for than
//! the [`flow`](super::flow) has room for, so that a reader who does not read takes none of the account's calls. One who does
//! not read for too long is given up, and his place is another's.

use std::{hash::RandomState, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use prometheus::{IntCounter, IntGauge};
use tokio::{
    select,
    sync::{mpsc, watch},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span, warn};

use super::{
    Config, Verify,
    flow::{Bounds, Flow},
    metrics::{Outcomes, count_list},
    outlook::{TOLD_EVERY, outlook},
    reading::{Back, finish_calls, page},
    rest::Rest,
};
use crate::{
    contacts::{
        drain::Drain,
        limits,
        lines::{Ending, Line, Lines},
        list::ListKey,
        places::{Place, Places},
        request::{Fetch, Request},
        verdict::{Checks, Verdict},
        walking::Progress,
    },
    error::{Error, Kind, Result},
    metrics::{self, Counted, Registry},
    service::{FetchPage, Forecast},
};

/// How long a reader may leave a page untaken.
const STALL_MAX: Duration = Duration::from_secs(30);

/// What reads lists for one reader each.
#[derive(Clone, Debug)]
pub struct Streams<S> {
    shared: Arc<Shared>,
    inner: S,
}

#[derive(Debug)]
struct Shared {
    /// One for each list that is being streamed.
    streams: Places,
    config: Config,
    forecast: Arc<dyn Forecast>,
    /// Upstream counts in pages.
    pages: bool,
    drain: Drain,
    metrics: Metrics,
}

/// A list that is being streamed.
pub struct Stream {
    pub lines: Lines,
    pub progress: watch::Receiver<Progress>,
}

impl<S: FetchPage> Streams<S> {
    /// Reads lists through whatever fetches pages. `pages` says that upstream counts in pages, and `forecast` how long what
    /// is still to come will take at least. When the process ends, `drain` ends what is being sent.
    pub fn new(
        config: Config,
        pages: bool,
        forecast: Arc<dyn Forecast>,
        drain: Drain,
        metrics: Metrics,
        inner: S,
    ) -> Self {
        let shared = Arc::new(Shared {
            streams: Places::new(config.streams_max),
            config,
            forecast,
            pages,
            drain,
            metrics,
        });
        Self { shared, inner }
    }

    /// Begins to read a list, for as long as somebody takes what comes.
    ///
    /// # Errors
    /// [`Kind::MergeBusy`] if as many are being streamed as may be, of all callers or of this one.
    pub fn open(&self, request: Request<ListKey>) -> Result<Stream> {
        let place = self.shared.streams.take(request.terms.caller.as_ref());
        let place = place.ok_or_else(|| {
            let detail = "as many large lists are being sent as may be at once, to all callers or to this one; ask again in a moment";
            Error::new(Kind::MergeBusy, detail)
        })?;
        let (pages, taken) = mpsc::channel(1);
        let (told, progress) = watch::channel(Progress::default());
        let (id, trace) = (&request.terms.id, request.terms.trace);
        let span =
            info_span!("stream", request = %id, trace = trace.map(display), key = ?request.key);
        let reading = Reading {
            shared: self.shared.clone(),
            inner: self.inner.clone(),
            fetch: Fetch::of(request),
            pages,
            told,
            told_at: None,
            back: 0,
        };
        tokio::spawn(reading.run(place).instrument(span));
        let lines = stream::unfold(taken, async |mut taken| {
            let line = taken.recv().await?;
            Some((line, taken))
        });
        Ok(Stream {
            lines: lines.boxed(),
            progress,
        })
    }
}

/// One list for one reader.
struct Reading<S> {
    shared: Arc<Shared>,
    inner: S,
    fetch: Fetch<ListKey>,
    pages: mpsc::Sender<Result<Line>>,
    told: watch::Sender<Progress>,
    /// When it was last told how far it is.
    told_at: Option<Instant>,
    /// Calls that were made and have come back.
    back: usize,
}

/// Why a reading has not come to its end.
enum Stopped {
    /// Nobody reads any more.
    Left,
    Failed(Error),
}

impl From<Error> for Stopped {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl<S: FetchPage> Reading<S> {
    async fn run(mut self, _place: Place) {
        let shared = self.shared.clone();
        let _under_way = self.fetch.key.collection.account.set_out();
        let metrics = &shared.metrics;
        let open = Counted::new(&metrics.open);
        let (reading, told) = (
            shared.drain.reading(&self.fetch.key.collection),
            self.told.subscribe(),
        );
        let outcome = select! {
            biased;
            outcome = self.read_all() => outcome,
            error = reading.abandoned(told) => Err(error.into()),
        };
        drop((reading, open));
        let verdict = match &outcome {
            Ok(ending) => Some(Ok(ending.verdict)),
            Err(Stopped::Left) => None,
            Err(Stopped::Failed(error)) => Some(Err(error)),
        };
        match verdict {
            Some(verdict) => {
                metrics.ended.count(verdict);
                count_list(&self.fetch.key.collection, verdict);
            }
            None => metrics.left.inc(),
        }
        let last = match outcome {
            Ok(ending) => Ok(Line::End(ending)),
            Err(Stopped::Left) => return,
            Err(Stopped::Failed(error)) => {
                let (code, cause) = (error.kind().code(), error.cause());
                warn!(code, cause, "{}", error.detail());
                if error.kind() == Kind::MergeDrifting {
                    // What was read before now may be anything.
                    self.fetch.key.collection.scope.outdate(Instant::now());
                }
                Err(error)
            }
        };
        // A reader that is not there, or does not come, is not told.
        let _ = self.pages.send_timeout(last, STALL_MAX).await;
    }

    /// Reads the list, and once more for nobody where that is what verifies it.
    async fn read_all(&mut self) -> std::result::Result<Ending, Stopped> {
        let collection = self.fetch.key.collection.clone();
        let keys = RandomState::new();
        let flow = Flow::new(self.bounds(), collection.gap.known(), keys.clone());
        let read = self.read(flow, true).await?;
        let verdict = read.verdict().unwrap_or(Verdict::Drifting);
        collection.gap.remember(read.gap());
        if self.shared.config.verify == Verify::Seam || verdict == Verdict::Settled {
            return Ok(read.ending(verdict, Instant::now()));
        }
        let again = Flow::new(self.bounds(), collection.gap.known(), keys);
        let again = self.read(again, false).await?;
        if again.order() != read.order() {
            let detail = "the list changed while it was read a second time";
            return Err(Error::new(Kind::MergeDrifting, detail).into());
        }
        let verdict = Verdict::Verified(Checks::Twice);
        let mut ending = read.ending(verdict, Instant::now());
        ending.calls += again.ending(verdict, Instant::now()).calls;
        Ok(ending)
    }

    fn bounds(&self) -> Bounds {
        let config = &self.shared.config;
        let limits = &self.fetch.key.collection.limits;
        Bounds {
            limit: limits.largest(config.page_limit_max, Instant::now()),
            pages: self.shared.pages,
            records_max: config.stream_records_max,
            width: config.width,
            repairs_max: config.repairs_max,
        }
    }

    /// Reads to the end, giving away what is read if somebody is to have it.
    async fn read(&mut self, mut flow: Flow, give: bool) -> std::result::Result<Flow, Stopped> {
        let (mut asked, over) = (FuturesUnordered::new(), CancellationToken::new());
        let mut ready_since = Instant::now();
        let mut rest = Rest::default();
        let stopped = loop {
            let resting = rest.until(Instant::now()).map(|(end, _)| end);
            while resting.is_none()
                && let Some(ask) = flow.next_ask()
            {
                let inner = self.inner.clone();
                asked.push(page(inner, &self.fetch, ask.window, over.clone(), ask));
            }
            if flow.verdict().is_some() {
                return Ok(flow);
            }
            let tell_at = self.tell(&flow, give, &rest, Instant::now());
            let is_ready = flow.is_ready();
            if !is_ready {
                ready_since = Instant::now();
            } else if !give {
                if let Err(error) = flow.give() {
                    break error.into();
                }
                continue;
            }
            if !is_ready && asked.is_empty() && resting.is_none() {
                break Error::new(Kind::Internal, "the list has no next page").into();
            }
            select! {
                biased;
                () = self.pages.closed() => break Stopped::Left,
                room = self.pages.reserve(), if is_ready => {
                    ready_since = Instant::now();
                    match (room, flow.give()) {
                        (Ok(room), Ok(Some(run))) => {
                            self.shared.metrics.records.inc_by(run.at.len() as u64);
                            room.send(Ok(Line::Contacts(Arc::new(run))));
                        }
                        (_, Err(error)) => break error.into(),
                        (Err(_), _) => break Stopped::Left,
                        (_, Ok(None)) => {}
                    }
                }
                Some(Back { ask, sent, outcome }) = asked.next() => {
                    let now = Instant::now();
                    self.back += usize::from(sent);
                    let taken = match outcome {
                        Ok(page) => {
                            rest.succeeded(now);
                            flow.take(ask, page)
                        }
                        // Some servers refuse a large limit where others clamp it.
                        Err(error) => match limits::smaller(ask.window.limit) {
                            Some(smaller) if error.kind() == Kind::Upstream4xx && flow.at_first() => {
                                flow.ask_for_less(smaller);
                                Ok(())
                            }
                            _ if flow.at_first() => Err(error),
                            // What was sent is worth more than the moment in which the next page fails.
                            _ => {
                                let failures_max = self.shared.config.failures_max;
                                let rests = rest.failed(error, failures_max, now);
                                rests.map(|_| flow.ask_again(ask))
                            }
                        },
                    };
                    if let Err(error) = taken {
                        break error.into();
                    }
                }
                () = time::sleep_until(resting.unwrap_or(ready_since)), if resting.is_some() => {}
                () = time::sleep_until(ready_since + STALL_MAX), if is_ready => {
                    let detail = "what was sent of the list was not read";
                    break Error::new(Kind::Overloaded, detail).into();
                }
                () = time::sleep_until(tell_at) => {}
            }
        };
        over.cancel();
        finish_calls(asked);
        if let Stopped::Failed(error) = &stopped
            && error.kind() == Kind::MergeUnverified
        {
            // The same again is settled.
            self.fetch.key.collection.gap.remember(flow.gap());
        }
        Err(stopped)
    }

    /// Tells how far it is, and when it will be over at the earliest: once the first page has come, and then once a second,
    /// since of a long list that takes a moment to find out. Returns when to do so again.
    fn tell(&mut self, flow: &Flow, give: bool, rest: &Rest, now: Instant) -> Instant {
        let is_news = self.told.borrow().pages_needed.is_none() && !flow.at_first();
        let told_at = self.told_at.filter(|_| !is_news);
        if let Some(again) = told_at.map(|at| at + TOLD_EVERY).filter(|at| *at > now) {
            return again;
        }
        let Config { verify, width, .. } = self.shared.config;
        let mut progress = flow.progress();
        if give && verify == Verify::Twice {
            progress.calls_left += flow.calls_of(progress.pages_needed.unwrap_or(0));
        }
        let forecast = &*self.shared.forecast;
        let calls = (width, self.back);
        let told = outlook(progress, forecast, &self.fetch, calls, rest, now);
        self.told.send_replace(told);
        self.told_at = Some(now);
        now + TOLD_EVERY
    }
}

/// What the streams tell.
#[derive(Clone, Debug)]
pub struct Metrics {
    open: IntGauge,
    ended: Outcomes,
    left: IntCounter,
    records: IntCounter,
}

impl Metrics {
    pub fn new(registry: &Registry) -> metrics::Result<Self> {
        let ended = registry.counter(
            "streams_total",
            "Lists too large to be kept that were sent as they were read, by verdict, by the code of what ended them, or left by their caller.",
            &["outcome"],
        )?;
        let records = registry.counter(
            "stream_records_total",
            "Contacts of lists too large to be kept that were sent.",
            &[],
        )?;
        let open = registry.gauge(
            "streams_open",
            "Lists too large to be kept that are being sent.",
            &[],
        )?;
        Ok(Self {
            open: open.with_label_values::<&str>(&[]),
            left: ended.with_label_values(&["left"]),
            ended: Outcomes::new(&ended),
            records: records.with_label_values::<&str>(&[]),
        })
    }
}

#[cfg(test)]
mod tests;
