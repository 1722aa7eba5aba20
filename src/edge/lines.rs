//! Lists as lines on the wire (NDJSON): one contact on each, and a last one that says how it ended.
//!
//! ```text
//! {"id":"...", ...}
//! {"$progress":{"pages_done":12,"pages_needed":101,"records":1188,"estimate_s":37}}     only for those who asked for it
//! {"$end":{"verdict":"verified","checks":"seam","pages":101,"records":10000,"calls":102,"oldest_s":4}}
//! ```
//!
//! A list that fails after its first byte ends in `{"$error":{...}}` with the members of a problem document, and the
//! connection (with HTTP/2: the stream) is broken off, so that no reader can take it for whole.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::time::{self, Instant, Sleep};
use tracing::info;

use crate::{
    contacts::{
        cache::entry::Entry,
        lines::{self, Ending, Line, Lines, Run},
        list::List,
        request::RequestId,
        verdict::Verdict,
        walking::Progress,
    },
    error::{Error, Kind},
    telemetry::ACCESS,
};

/// So many bytes make a frame, and the record that goes beyond.
const FRAME: usize = 32 * 1024;

/// How long after its last line a broken list is broken off. Whatever is not sent by then is lost with the connection.
const LINGER: Duration = Duration::from_secs(1);

/// A list that was broken off.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the list could not be sent to its end")]
pub struct BrokenOff;

/// What comes next of a body.
pub(super) type Frame = Poll<Option<Result<Bytes, BrokenOff>>>;

/// The lines of a copy.
#[derive(Debug)]
pub struct Kept {
    list: Arc<Entry<List>>,
    next: usize,
    /// The last line, until it is sent.
    end: Option<Bytes>,
    /// In bytes.
    left: u64,
}

impl Kept {
    pub(super) fn new(list: Arc<Entry<List>>) -> Self {
        let end = last_line(&list);
        Self {
            left: list.lines_length() + end.len() as u64,
            list,
            next: 0,
            end: Some(end),
        }
    }

    /// In bytes.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn next(&mut self) -> Option<Bytes> {
        let frame = gather(&mut self.next, |place| self.list.record(place));
        let frame = frame.or_else(|| self.end.take())?;
        self.left -= frame.len() as u64;
        Some(frame)
    }
}

/// The lines of a list that is still being read. When it is dropped the access log is told how it ended, since its first
/// line could not know.
pub struct Running {
    state: State,
    /// What an error comes to in a problem document.
    problem: fn(&Error, &RequestId) -> Value,
    id: RequestId,
    /// The verdict, or the code of what broke it off.
    ended: Option<&'static str>,
    /// That were handed to the connection.
    bytes: u64,
    began: Instant,
}

enum State {
    Open {
        lines: Lines,
        /// What is being written, and from where on.
        run: Option<(Arc<Run>, usize)>,
    },
    /// The error is told, and nothing comes after it.
    Broken(Pin<Box<Sleep>>),
    Ended,
}

impl Running {
    pub(super) fn new(
        lines: Lines,
        id: RequestId,
        problem: fn(&Error, &RequestId) -> Value,
    ) -> Self {
        Self {
            state: State::Open { lines, run: None },
            problem,
            id,
            ended: None,
            bytes: 0,
            began: Instant::now(),
        }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Frame {
        let frame = ready!(self.poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.bytes += frame.len() as u64;
        }
        Poll::Ready(frame)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Frame {
        loop {
            let (lines, run) = match &mut self.state {
                State::Open { lines, run } => (lines, run),
                State::Broken(linger) => {
                    ready!(linger.as_mut().poll(cx));
                    self.state = State::Ended;
                    return Poll::Ready(Some(Err(BrokenOff)));
                }
                State::Ended => return Poll::Ready(None),
            };
            if let Some((records, next)) = run {
                if let Some(frame) = gather(next, |place| records.get(place)) {
                    return Poll::Ready(Some(Ok(frame)));
                }
                *run = None;
            }
            let line = ready!(lines.poll_next_unpin(cx));
            let frame = match line {
                Some(Ok(Line::Contacts(records))) => {
                    *run = Some((records, 0));
                    continue;
                }
                Some(Ok(Line::Progress(progress))) => progress_line(&progress),
                Some(Ok(Line::End(ending))) => {
                    self.state = State::Ended;
                    self.ended = Some(ending.verdict.word());
                    end_line(&ending)
                }
                Some(Err(error)) => self.breaks_off(&error),
                None => self.breaks_off(&Error::new(Kind::Internal, "the list has no end")),
            };
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    fn breaks_off(&mut self, error: &Error) -> Bytes {
        self.state = State::Broken(Box::pin(time::sleep(LINGER)));
        self.ended = Some(error.kind().code());
        error_line(&(self.problem)(error, &self.id))
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        info!(
            target: ACCESS,
            request = %self.id,
            list = self.ended.unwrap_or("left"),
            bytes = self.bytes,
            duration_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
        );
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").finish_non_exhaustive()
    }
}

/// The next records as lines; `None` if there are no more.
fn gather<'a>(next: &mut usize, record: impl Fn(usize) -> Option<&'a [u8]>) -> Option<Bytes> {
    record(*next)?;
    let mut frame = Vec::with_capacity(FRAME + FRAME / 4);
    while frame.len() < FRAME
        && let Some(record) = record(*next)
    {
        lines::write(record, &mut frame);
        *next += 1;
    }
    Some(frame.into())
}

/// The last line of a copy.
pub(super) fn last_line(list: &Entry<List>) -> Bytes {
    end_line(&list.ending(list.whole_at()))
}

fn end_line(ending: &Ending) -> Bytes {
    let Ending {
        verdict,
        pages,
        records,
        calls,
        gap,
        oldest,
    } = ending;
    let checks = match verdict.checks() {
        Some(checks) => format!(r#""checks":"{checks}","#),
        None => String::new(),
    };
    let gap = match verdict {
        Verdict::Settled => format!(r#","gap":{gap}"#),
        _ => String::new(),
    };
    let oldest = oldest.as_secs();
    let end = format!(
        r#"{{"$end":{{"verdict":"{verdict}",{checks}"pages":{pages},"records":{records},"calls":{calls},"oldest_s":{oldest}{gap}}}}}"#
    );
    format!("{end}\n").into()
}

fn progress_line(progress: &Progress) -> Bytes {
    let Progress {
        pages_done,
        records,
        ..
    } = progress;
    let needed = match progress.pages_needed {
        Some(needed) => format!(r#""pages_needed":{needed},"#),
        None => String::new(),
    };
    let now = Instant::now();
    let until = |at: Instant| at.saturating_duration_since(now).as_secs_f64().ceil();
    let estimate = progress.ends_at.map(until);
    let estimate = estimate.map(|left| format!(r#","estimate_s":{left}"#));
    let turn = progress.next_call_at.map(until).filter(|wait| *wait > 0.0);
    let turn = turn.map(|wait| format!(r#","budget_wait_s":{wait}"#));
    let more = [estimate, turn].map(Option::unwrap_or_default).concat();
    let news = format!(
        r#"{{"$progress":{{"pages_done":{pages_done},{needed}"records":{records}{more}}}}}"#
    );
    format!("{news}\n").into()
}

fn error_line(problem: &Value) -> Bytes {
    format!("{{\"$error\":{problem}}}\n").into()
}

#[cfg(test)]
mod tests;
