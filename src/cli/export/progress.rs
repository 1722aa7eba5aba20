//! How far an export is: a bar for people, lines of JSON for programs, both on standard error.
//!
//! Counts, seconds and codes are shown, never a contact. Lines that cannot be written are lost; the exit code still tells.

use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::time::Instant;

use self::state::{Phase, State};
use super::line::{End, Progress};

mod state;

/// The shortest time between two lines of JSON, but for those that begin or end something.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The shortest time between two changes of the bar.
const BAR_EVERY: Duration = Duration::from_millis(100);

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum How {
    /// A bar on a terminal, JSON otherwise
    #[default]
    Auto,
    /// A bar, on a terminal only
    Bar,
    /// Lines of JSON
    Json,
    /// Nothing but errors
    None,
}

/// Shows it.
#[derive(Debug)]
pub(super) struct Show {
    state: State,
    sink: Sink,
    /// When something was last shown.
    shown: Option<Instant>,
}

#[derive(Debug)]
enum Sink {
    Bar(ProgressBar),
    Json,
    None,
}

impl Show {
    pub(super) fn new(how: How, now: Instant) -> Self {
        let terminal = io::stderr().is_terminal();
        let sink = match how {
            How::Auto | How::Bar if terminal => Sink::Bar(bar()),
            How::Auto | How::Json => Sink::Json,
            How::Bar | How::None => Sink::None,
        };
        let mut show = Self {
            state: State::new(now),
            sink,
            shown: None,
        };
        show.show(now);
        show
    }

    /// The gateway refuses for now.
    pub(super) fn waiting(&mut self, code: &str, progress: Progress, now: Instant, wait: Duration) {
        self.state.progress = progress;
        let (code, until) = (code.to_owned(), now + wait);
        self.enter(Phase::Waiting { code, until }, now);
    }

    /// The list begins.
    pub(super) fn reading(&mut self, bytes_total: Option<u64>, now: Instant) {
        self.state.bytes_total = bytes_total;
        self.enter(Phase::Reading { since: now }, now);
    }

    /// All contacts are here.
    pub(super) fn writing(&mut self, now: Instant) {
        self.enter(Phase::Writing, now);
    }

    pub(super) fn progress(&mut self, progress: Progress) {
        self.state.progress = progress;
    }

    pub(super) fn received(&mut self, records: u64, bytes: u64) {
        self.state.records = records;
        self.state.bytes = bytes;
    }

    /// Shows how far it is, unless that was shown just now.
    pub(super) fn tick(&mut self, now: Instant) {
        let every = match self.sink {
            Sink::Bar(_) => BAR_EVERY,
            // It was said how long nothing will change.
            Sink::Json if !matches!(self.state.phase, Phase::Waiting { .. }) => LINE_EVERY,
            Sink::Json | Sink::None => return,
        };
        if self.shown.is_none_or(|shown| shown + every <= now) {
            self.show(now);
        }
    }

    /// The list is in its place.
    pub(super) fn end(self, end: &End, output: &str, now: Instant) {
        let took = now - self.state.begun;
        match self.sink {
            Sink::Bar(bar) => {
                bar.finish_and_clear();
                whisper(state::closing_sentence(end, output, took));
            }
            Sink::Json => whisper(state::closing_event(end, took)),
            Sink::None => {}
        }
    }

    /// Says why there is nothing, if programs listen: people are told by the command's last words.
    pub(super) fn failed(self, code: &str, detail: &str) -> bool {
        match self.sink {
            Sink::Bar(bar) => bar.finish_and_clear(),
            Sink::Json => {
                whisper(json!({ "event": "error", "code": code, "detail": detail }));
                return true;
            }
            Sink::None => {}
        }
        false
    }

    fn enter(&mut self, phase: Phase, now: Instant) {
        self.state.phase = phase;
        self.show(now);
    }

    fn show(&mut self, now: Instant) {
        self.shown = Some(now);
        match &self.sink {
            Sink::Bar(bar) => {
                if let Some((done, of)) = self.state.share() {
                    bar.set_length(of);
                    bar.set_position(done);
                }
                bar.set_message(self.state.sentence(now));
            }
            Sink::Json => whisper(self.state.event(now)),
            Sink::None => {}
        }
    }
}

/// Without colours, which nobody needs here.
fn bar() -> ProgressBar {
    // Of a length that is not known, an empty bar is drawn.
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:20}] {wide_msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(BAR_EVERY);
    bar
}

fn whisper(line: impl std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a line for each contact.
    #[test]
    fn programs_are_told_once_a_second() {
        let begun = Instant::now();
        let mut show = Show::new(How::Json, begun);
        show.reading(None, begun);
        let mut told = 0;
        for millisecond in 1..=3_500 {
            let before = show.shown;
            show.tick(begun + Duration::from_millis(millisecond));
            told += usize::from(show.shown != before);
        }
        assert_eq!(told, 3);
        show.waiting(
            "merge_busy",
            Progress::default(),
            begun,
            Duration::from_secs(60),
        );
        show.tick(begun + Duration::from_secs(30));
        assert_eq!(show.shown, Some(begun));
    }
}
