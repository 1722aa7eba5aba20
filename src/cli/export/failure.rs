//! Why nothing was written, and what to do about it.

use std::{io, path::PathBuf, time::Duration};

use humantime::format_duration;

use super::{line::LINE_BYTES_MAX, table::COLUMNS_MAX};
use crate::{cli::reach::TrustError, upstream::secret::SecretProblem};

/// Why there is no list. Of what was there before, nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("{0}")]
    Key(#[from] SecretProblem),
    #[error("the key has characters that no header may have: is it the right file?")]
    KeyNoHeader,
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error("no gateway answers: {0}. Is it running, and is --url its traffic listener?")]
    Unanswered(String),
    #[error(
        "what answers does not speak NDJSON: either --url is not the gateway's traffic listener, or the gateway is older than this command"
    )]
    NotNdjson,
    #[error("the gateway refuses: {detail} ({code}){}", advice(.code))]
    Refused { code: String, detail: String },
    #[error(
        "the gateway asks to wait for {}, which is longer than --wait allows: {detail} ({code}). It goes on meanwhile: run this again later, or with a longer --wait",
        format_duration(*.wait)
    )]
    TooLong {
        code: String,
        detail: String,
        wait: Duration,
    },
    #[error("the list could not be read to its end: {detail} ({code}){}; nothing was written", advice(.code))]
    Failed { code: String, detail: String },
    #[error(
        "the transfer was cut off after {0} contacts, before the gateway said that the list is whole; nothing was written. Run this again"
    )]
    Cut(u64),
    #[error("nothing came for {}; nothing was written. Run this again", format_duration(*.0))]
    Stalled(Duration),
    #[error(
        "the gateway says {said} contacts, and {came} came: the list is not whole; nothing was written"
    )]
    Miscounted { said: u64, came: u64 },
    #[error(
        "where contact {0} was due, something came that is neither a contact nor known here; nothing was written. Is the gateway newer than this command?"
    )]
    Strange(u64),
    #[error("a line has more than {} MiB; nothing was written", LINE_BYTES_MAX >> 20)]
    LineTooLong,
    #[error(
        "the contacts have more than {COLUMNS_MAX} different fields, too many for columns; nothing was written. Use --format ndjson"
    )]
    TooWide,
    #[error("the contacts cannot be collected on the disk: {0}; nothing was written")]
    Spool(io::Error),
    #[error("{} cannot be written: {cause}", .path.display())]
    Place { path: PathBuf, cause: io::Error },
    #[error("interrupted; nothing was written")]
    Interrupted,
    #[error("signals cannot be waited for: {0}")]
    Signals(io::Error),
}

impl ExportError {
    /// The word for it, for programs: the gateway's own where it has one.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } | Self::TooLong { code, .. } | Self::Failed { code, .. } => {
                code
            }
            Self::Key(_) | Self::KeyNoHeader => "key",
            Self::Trust(_) => "certificates",
            Self::Unanswered(_) => "unanswered",
            Self::NotNdjson => "not_ndjson",
            Self::Cut(_) => "cut_off",
            Self::Stalled(_) => "stalled",
            Self::Miscounted { .. } => "miscounted",
            Self::Strange(_) | Self::LineTooLong => "strange_line",
            Self::TooWide => "too_many_columns",
            Self::Spool(_) | Self::Place { .. } => "not_written",
            Self::Interrupted | Self::Signals(_) => "interrupted",
        }
    }
}

/// What to do about one of the gateway's codes.
fn advice(code: &str) -> &'static str {
    match code {
        "unauthorized" => ". Put the caller's key in CONTACTS_GATEWAY_KEY or a --key-file",
        "forbidden" => ". This key is not one for that account",
        "bad_account" => ". Say which with --account",
        "unknown_account" | "stream_not_found" => {
            ". Compare --account and --stream with the gateway's configuration"
        }
        "not_found" => ". Is --url the gateway's traffic listener, without a path of its own?",
        "merge_unverified" => ". With --accept default or lenient, a weaker verdict will do",
        "merge_drifting" => ". Run this again when less changes, or with --accept lenient",
        "bad_parameter" | "not_acceptable" => ". Is the gateway older than this command?",
        "upstream_auth_rejected" | "credentials_unavailable" => {
            ". `contacts-gateway doctor` finds out why"
        }
        _ => "",
    }
}
