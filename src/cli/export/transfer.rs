//! The lines of an answer: collected to their end, or refused. What is not said to be whole is no list.

use std::{error::Error, time::Duration};

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{self, Instant};

use super::{
    ExportError,
    line::{End, Line, Lines},
    place::Spool,
    progress::Show,
    table::Columns,
};

/// How long a transfer may stand still: longer than any wait for the next minute's calls.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// What has come so far.
#[derive(Debug)]
pub(super) struct Received {
    pub spool: Spool,
    /// Collected where a table is wanted.
    pub columns: Option<Columns>,
    records: u64,
    bytes: u64,
    end: Option<End>,
}

impl Received {
    pub(super) fn new(spool: Spool, columns: Option<Columns>) -> Self {
        Self {
            spool,
            columns,
            records: 0,
            bytes: 0,
            end: None,
        }
    }

    /// Takes a body to its end. Only one whose last line says that the list is whole is a list.
    pub(super) async fn read<B>(&mut self, mut body: B, show: &mut Show) -> Result<End, ExportError>
    where
        B: Body<Data = Bytes, Error: Error + 'static> + Unpin,
    {
        let mut lines = Lines::default();
        loop {
            let frame = time::timeout(IDLE_TIMEOUT, body.frame());
            let frame = frame
                .await
                .map_err(|_| ExportError::Stalled(IDLE_TIMEOUT))?;
            let Some(frame) = frame else { break };
            // What the gateway said before it broke off has been read.
            let frame = frame.map_err(|_| self.cut())?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            self.bytes += data.len() as u64;
            lines.push(&data);
            while let Some(line) = lines.next().map_err(|_| ExportError::LineTooLong)? {
                self.take(&line, show)?;
            }
            show.received(self.records, self.bytes);
            show.tick(Instant::now());
        }
        self.take(&lines.rest(), show)?;
        let end = self.end.take().ok_or_else(|| self.cut())?;
        if end.records != self.records {
            return Err(ExportError::Miscounted {
                said: end.records,
                came: self.records,
            });
        }
        Ok(end)
    }

    fn take(&mut self, line: &[u8], show: &mut Show) -> Result<(), ExportError> {
        if line.is_empty() {
            return Ok(());
        }
        let strange = || ExportError::Strange(self.records + 1);
        if self.end.is_some() {
            return Err(strange());
        }
        let line = std::str::from_utf8(line).map_err(|_| strange())?;
        match Line::read(line).ok_or_else(strange)? {
            Line::Contact => {
                if let Some(columns) = &mut self.columns {
                    columns.meet(line).map_err(|_| ExportError::TooWide)?;
                }
                self.spool.push(line).map_err(ExportError::Spool)?;
                self.records += 1;
            }
            Line::Progress(progress) => show.progress(progress),
            Line::End(end) => self.end = Some(end),
            Line::Error(problem) => {
                let mut problem = problem.printable();
                if problem.code.is_empty() {
                    problem.code.push_str("unknown");
                }
                return Err(ExportError::Failed {
                    code: problem.code,
                    detail: problem.detail,
                });
            }
        }
        Ok(())
    }

    fn cut(&self) -> ExportError {
        ExportError::Cut(self.records)
    }
}
