use serde::Deserialize;

/// `[log]`: what the process writes to standard error.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The least important events that are written.
    pub level: Level,
    /// `auto` is human on a terminal and JSON otherwise.
    pub format: Format,
    /// One line for each request that a caller made.
    pub access: bool,
}

/// The importance of an event.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// How events are written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
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
        }
    }
}
