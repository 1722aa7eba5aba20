//! Events go to standard error: for people on a terminal, as JSON otherwise. Nobody waits until they are written.

use std::{
    env,
    io::{self, IsTerminal},
    sync::LazyLock,
};

use prometheus::IntCounter;
use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    registry::Registry as Spans,
    reload::{self, Handle},
    util::{SubscriberInitExt, TryInitError},
};

use self::{
    queue::{Flush, Queue},
    verbosity::Verbosity,
};
use crate::{
    config::Rules,
    metrics::{self, Registry},
    panics,
};

mod queue;
pub mod verbosity;

/// What access lines are filtered by.
pub const ACCESS: &str = "access";

/// `[log]`: what the process writes to standard error.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The least important events that are written.
    pub level: Level,
    /// `auto` is human on a terminal and JSON otherwise.
    pub format: Format,
    /// One line for each request that a caller made.
    pub access: bool,
    /// The share of these lines that is written; 0 to 1. Those of answers from 500 on always are.
    pub access_share: f64,
}

impl Config {
    /// States which rules are broken.
    pub fn check(&self, rules: &mut Rules) {
        rules.range("access_share", self.access_share, 0.0..=1.0);
    }
}

/// The importance of an event.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// The most important first.
    pub const ALL: [Self; 5] = [
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// As the configuration has it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    /// The level of this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word() == word)
    }
}

/// How events are written.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    Auto,
    Human,
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            level: Level::Info,
            format: Format::Auto,
            access: true,
            access_share: 1.0,
        }
    }
}

/// Whether what is written to a stream may have colours: a terminal's, unless somebody would rather have none
/// (<https://no-color.org>).
pub fn has_colours(stream: &impl IsTerminal) -> bool {
    let unwanted = env::vars_os().any(|(name, value)| name == "NO_COLOR" && !value.is_empty());
    stream.is_terminal() && !unwanted
}

/// Those of the process: events are collected once for all.
static LOST: LazyLock<IntCounter> = LazyLock::new(|| {
    let help =
        "Lines of the log that were not written, because its output was closed, full or too slow.";
    IntCounter::new("log_lines_lost_total", help).expect("a name that is allowed")
});

/// Shows how many lines were lost.
pub fn count(registry: &Registry) -> metrics::Result<()> {
    registry.show(&LOST)
}

/// Why nothing can be written.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Taken(#[from] TryInitError),
    #[error("the thread that writes the log cannot be started: {0}")]
    Thread(#[from] io::Error),
}

/// What is written of each target at a level.
///
/// What libraries say below INFO may quote headers and bodies, so it is never written, however the level comes to be.
fn filter(level: Level, access: bool) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let access = if access {
        level.max(LevelFilter::INFO)
    } else {
        LevelFilter::OFF
    };
    Targets::new()
        .with_default(level.min(LevelFilter::INFO))
        .with_target("contacts_gateway", level)
        .with_target(ACCESS, access)
}

/// The log, begun. Dropped, it waits until what was said is written.
#[must_use = "lines that are still to be written would be lost"]
#[derive(Debug)]
pub struct Log {
    filter: Handle<Targets, Spans>,
    access: bool,
    _flush: Flush,
}

impl Log {
    /// From now on as much is written as this says.
    pub fn follow(&self, verbosity: &Verbosity) {
        let (handle, access) = (self.filter.clone(), self.access);
        verbosity.followed_by(move |level| {
            // Fails only when nothing is written any more.
            let _ = handle.reload(filter(level, access));
        });
    }
}

/// Begins to write events to standard error, until what it returns is dropped.
///
/// # Errors
/// If something else in the process has begun to collect events, or there can be no more threads.
pub fn start(config: &Config) -> Result<Log, StartError> {
    panics::log();
    let (filtered, handle) = reload::Layer::new(filter(config.level, config.access));
    let human = match config.format {
        Format::Auto => io::stderr().is_terminal(),
        Format::Human => true,
        Format::Json => false,
    };
    let queue = Queue::before(io::stderr(), LOST.clone())?;
    let lines = fmt::layer().with_writer(queue.clone());
    let lines = if human {
        lines.with_ansi(has_colours(&io::stderr())).boxed()
    } else {
        lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed()
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filtered))
        .try_init()?;
    Ok(Log {
        filter: handle,
        access: config.access,
        _flush: Flush(queue),
    })
}

#[cfg(test)]
mod tests;
