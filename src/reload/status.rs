//! What a reload came to: for the log, for operators who ask, and for whoever shows it.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::Changes;
use crate::{
    app::StartError,
    config::Problems,
    edge::server::tls::Reread,
    error::{Error, Kind},
    upstream::token::Complaint,
};

/// Who wanted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// The admin listener was asked.
    Admin,
}

impl Trigger {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::Admin => "admin",
        }
    }
}

/// A reload that took place.
#[derive(Clone, Debug)]
pub struct Applied {
    pub changes: Changes,
    /// What is wrong with secrets. It concerns their accounts alone.
    pub complaints: Vec<Complaint>,
}

/// Why a reload did not take place. Nothing has changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused {
    /// Every problem on lines of its own, with its place.
    #[error("{0}")]
    Problems(String),
    #[error("needs a restart: {}", .0.join(", "))]
    Restart(Vec<String>),
    #[error("{0}")]
    Unusable(String),
    #[error("this gateway was started without a configuration file")]
    NoFile,
    #[error("as many reloads are waiting as may be; ask again in a moment")]
    Busy,
    #[error("the reload ended unexpectedly")]
    Lost,
}

impl From<Problems> for Refused {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems.to_string())
    }
}

impl From<StartError> for Refused {
    fn from(error: StartError) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl Refused {
    const fn kind(&self) -> Kind {
        match self {
            Self::Problems(_) | Self::Unusable(_) => Kind::ConfigurationRefused,
            Self::Restart(_) => Kind::RestartNeeded,
            Self::NoFile => Kind::NotFound,
            Self::Busy => Kind::Overloaded,
            Self::Lost => Kind::Internal,
        }
    }
}

/// The last reload.
#[derive(Clone, Debug)]
pub struct Status {
    pub at: SystemTime,
    pub trigger: Trigger,
    pub outcome: Result<Applied, Refused>,
    /// What became of the listeners' certificates, whatever became of the rest.
    pub certificates: Vec<Reread>,
}

impl Status {
    /// `applied` or `refused`, as in the metrics.
    pub const fn word(&self) -> &'static str {
        match self.outcome {
            Ok(_) => "applied",
            Err(_) => "refused",
        }
    }

    /// As whoever asked for it over HTTP is told; `None` if it took place.
    pub fn error(&self) -> Option<Error> {
        let refused = self.outcome.as_ref().err()?;
        Some(Error::new(refused.kind(), self.words().join("\n")))
    }

    /// The same as a document.
    pub fn document(&self) -> Value {
        let mut document = json!({
            "outcome": self.word(),
            "trigger": self.trigger.word(),
            "at": humantime::format_rfc3339_seconds(self.at).to_string(),
            "words": self.words(),
        });
        let certificate = |reread: &Reread| match &reread.outcome {
            Ok(()) => json!({ "listener": reread.listener, "outcome": "taken" }),
            Err(problem) => json!({
                "listener": reread.listener,
                "outcome": "refused",
                "problem": problem.to_string(),
            }),
        };
        let certificates: Vec<_> = self.certificates.iter().map(certificate).collect();
        document["certificates"] = json!(certificates);
        match &self.outcome {
            Ok(applied) => {
                document["accounts"] = json!(applied.changes.accounts);
                document["callers"] = json!(applied.changes.callers);
                document["keys"] = json!(applied.changes.keys);
                let complaint = |complaint: &Complaint| {
                    json!({
                        "account": &*complaint.account,
                        "disabled": complaint.is_disabled,
                        "problem": complaint.problem,
                    })
                };
                let complaints: Vec<_> = applied.complaints.iter().map(complaint).collect();
                document["secrets"] = json!(complaints);
            }
            Err(refused) => document["problem"] = json!(refused.to_string()),
        }
        document
    }

    /// Seconds since 1970.
    pub(super) fn timestamp(at: SystemTime) -> i64 {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    }
}

/// The changes in one line.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.are_none() {
            return f.write_str("nothing changed");
        }
        for (number, (kind, names)) in self.kinds().enumerate() {
            let separator = if number == 0 { "" } else { "; " };
            write!(f, "{separator}{kind}: {}", names.join(", "))?;
        }
        Ok(())
    }
}
