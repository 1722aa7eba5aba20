//! `export`: a whole list from a running gateway, as NDJSON or CSV.
//!
//! ```text
//! ask ──refused──> patience ─> ask again
//!  │ lines
//!  └─> transfer ─> line ─> a file without a name ──whole──> cell, table ─> place
//! ```
//!
//! It asks as any caller does, on the traffic listener. Only a list whose last line says that it is whole is written; its
//! verdict is the exit code.

use std::{path::Path, process::ExitCode, time::Duration};

use hyper::body::{Body, Incoming};
use tokio::{
    select,
    signal::unix::{SignalKind, signal},
    time::{self, Instant},
};

pub use self::{
    args::{Accept, Args, Format},
    failure::ExportError,
};
use self::{
    line::{End, Verdict},
    patience::{Decision, Patience, Refused},
    place::Place,
    progress::{How, Show},
    source::{Answer, Refusal, Source, Wishes},
    table::Columns,
    transfer::Received,
};
use super::{Failure, signals::Signals};

mod args;
mod cell;
mod failure;
mod line;
mod patience;
mod place;
mod progress;
mod source;
mod table;
mod transfer;

/// Writes the list; the exit code is its verdict.
pub(super) async fn run(args: Args) -> Result<ExitCode, Failure> {
    super::forbid_core_dumps()?;
    let format = args.format()?;
    let mut show = Show::new(args.progress, Instant::now());
    let exported = select! {
        // First, so that a signal is waited for before there is anything to clean up.
        biased;
        outcome = interrupted() => Err(outcome.map_or_else(ExportError::Signals, |()| ExportError::Interrupted)),
        exported = args.export(format, &mut show) => exported,
    };
    match exported {
        Ok(end) => {
            let output = args
                .output()
                .map_or_else(|| "standard output".into(), Path::to_string_lossy);
            show.end(&end, &output, Instant::now());
            Ok(ExitCode::from(end.verdict.exit_code()))
        }
        Err(error) if show.failed(error.code(), &error.to_string()) => Ok(ExitCode::FAILURE),
        Err(error) => Err(error.into()),
    }
}

/// Also when the terminal goes, so that no part of a file is left.
async fn interrupted() -> std::io::Result<()> {
    let (mut signals, mut hung_up) = (Signals::hear()?, signal(SignalKind::hangup())?);
    select! {
        () = signals.next() => {}
        _ = hung_up.recv() => {}
    }
    Ok(())
}

impl Args {
    async fn export(&self, format: Format, show: &mut Show) -> Result<End, ExportError> {
        let unwritten = |cause| ExportError::Place {
            path: self.output.clone(),
            cause,
        };
        let place = Place::new(self.output()).map_err(unwritten)?;
        // Before anything is asked for: a folder that cannot be written to costs no call.
        let spool = place.spool().map_err(unwritten)?;
        let max_age = self.max_age.map(|age| format!("max-age={}", age.as_secs()));
        let list = self
            .list()
            .map_err(|error| ExportError::Unanswered(error.to_string()))?;
        let key = self.key()?;
        let wishes = Wishes {
            account: self.account.as_deref(),
            key: key.as_ref(),
            cache_control: self.fresh.then_some("no-cache").or(max_age.as_deref()),
            prefer: match self.accept {
                Accept::Strict => Some("handling=strict"),
                Accept::Lenient => Some("handling=lenient"),
                Accept::Default => None,
            },
        };
        let response = self
            .begin(&Source::new(list, &self.trust, wishes)?, show)
            .await?;
        let total = response.body().size_hint().exact();
        show.reading(total, Instant::now());
        let columns = (format == Format::Csv).then(Columns::default);
        let mut received = Received::new(spool, columns);
        let end = received.read(response.into_body(), show).await?;
        show.writing(Instant::now());
        place
            .put(received.spool, received.columns)
            .await
            .map_err(unwritten)?;
        Ok(end)
    }

    /// Asks until the list begins.
    async fn begin(
        &self,
        source: &Source,
        show: &mut Show,
    ) -> Result<http::Response<Incoming>, ExportError> {
        let mut patience = Patience::new(Instant::now(), self.wait);
        loop {
            let Refusal { problem, after } = match source.ask().await? {
                Answer::Lines(response) => return Ok(response),
                Answer::Refused(refusal) => refusal,
            };
            let refused = Refused {
                code: &problem.code,
                retryable: problem.retryable,
                after,
            };
            let now = Instant::now();
            let (code, detail) = (problem.code.clone(), problem.detail.clone());
            match patience.decide(refused, now) {
                Decision::AskAgain(wait) => {
                    show.waiting(&code, problem.progress, now, wait);
                    sleep(now + wait, show).await;
                }
                Decision::GiveUp => return Err(ExportError::Refused { code, detail }),
                Decision::TooLong(wait) => return Err(ExportError::TooLong { code, detail, wait }),
            }
        }
    }
}

/// Waits, and shows how long still.
async fn sleep(until: Instant, show: &mut Show) {
    while Instant::now() < until {
        time::sleep_until(until.min(Instant::now() + Duration::from_secs(1))).await;
        show.tick(Instant::now());
    }
}

#[cfg(test)]
mod tests;
