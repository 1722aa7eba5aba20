//! `log`: how much a running gateway writes to its log, and that it be more or less for a while.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::{builder::PossibleValuesParser, error::ErrorKind};
use http::Method;

use super::{
    Failure,
    ask::{Admin, Question},
    misused,
};
use crate::telemetry::{Level, verbosity::LENGTH};

const EXAMPLES: &str = "\
Examples:
  contacts-gateway log
      the level in force, the configured one, and until when
  contacts-gateway log debug
      for 10 minutes; then the configured level again, by itself
  contacts-gateway log trace --for 1h30m
  contacts-gateway log default
      the configured level, at once

What libraries say below `info` may quote headers and bodies, so no level lets it through. Each change is a line of the log.";

/// Shows how much is written, or has more or less written for a while.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The least important events that are to be written; `default` is the configured level.
    #[arg(value_parser = levels())]
    pub level: Option<String>,
    /// For how long: 1s to 24h, by default 10m.
    #[arg(long = "for", value_name = "TIME", requires = "level", value_parser = length)]
    pub length: Option<Duration>,
    #[command(flatten)]
    pub admin: Admin,
}

fn levels() -> PossibleValuesParser {
    PossibleValuesParser::new(Level::ALL.map(Level::word).into_iter().chain(["default"]))
}

fn length(text: &str) -> Result<Duration, &'static str> {
    let length = humantime::parse_duration(text).ok();
    let length = length.filter(|length| LENGTH.contains(length));
    length.ok_or("a time from 1s to 24h, as in 10m or 1h30m")
}

impl Args {
    /// What the admin listener is asked.
    fn question(&self) -> (Method, String) {
        let Some(level) = &self.level else {
            return (Method::GET, "/api/log".to_owned());
        };
        let mut target = format!("/api/log?level={level}");
        if let Some(length) = self.length {
            let length = humantime::format_duration(length).to_string();
            // Nothing of a target is a space.
            target += &format!("&for={}", length.replace(' ', ""));
        }
        (Method::POST, target)
    }
}

/// Prints what is in force then on standard output.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    if args.length.is_some() && args.level.as_deref() == Some("default") {
        let message = "the configured level is not there for a time: leave --for out";
        return Err(misused("log", ErrorKind::ArgumentConflict, message).into());
    }
    let (method, target) = args.question();
    let question = Question {
        method,
        ..Question::get(&target)
    };
    let document = args.admin.ask(question).await?;
    writeln!(io::stdout(), "{document:#}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Log {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn a_level_is_asked_for_as_the_listener_wants_it() {
        let asked = |words: &[&str]| {
            let words = std::iter::once(&"log").chain(words);
            let log = Log::try_parse_from(words).ok()?;
            let (method, target) = log.args.question();
            Some(format!("{method} {target}"))
        };
        for (words, expected) in [
            (&[][..], Some("GET /api/log")),
            (&["debug"], Some("POST /api/log?level=debug")),
            (&["default"], Some("POST /api/log?level=default")),
            (
                &["trace", "--for", "1h 30m"],
                Some("POST /api/log?level=trace&for=1h30m"),
            ),
            (&["loud"], None),
            (&["debug&for=24h"], None),
            (&["debug", "--for", "25h"], None),
            (&["--for", "10m"], None),
        ] {
            assert_eq!(asked(words).as_deref(), expected, "{words:?}");
        }
    }
}
