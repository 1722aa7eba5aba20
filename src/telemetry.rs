//! Events go to standard error: for people on a terminal, as JSON otherwise.

use std::{
    env,
    io::{self, IsTerminal},
};

use serde::{Deserialize, Serialize};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use crate::{config::Rules, panics};

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
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
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

/// Begins to write events to standard error.
///
/// # Errors
/// If something else in the process has begun to collect events.
pub fn start(config: &Config) -> Result<(), TryInitError> {
    panics::log();
    let level = match config.level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    let access = if config.access {
        level.max(LevelFilter::INFO)
    } else {
        LevelFilter::OFF
    };
    // What libraries say below INFO may quote headers and bodies, so it is never written.
    let libraries = level.min(LevelFilter::INFO);
    let filter = Targets::new()
        .with_default(libraries)
        .with_target("contacts_gateway", level)
        .with_target(ACCESS, access);
    let human = match config.format {
        Format::Auto => io::stderr().is_terminal(),
        Format::Human => true,
        Format::Json => false,
    };
    let lines = fmt::layer().with_writer(io::stderr);
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
        .with(lines.with_filter(filter))
        .try_init()
}
