//! How findings are shown: a checklist for people as it grows, or one document for programs at the end.
//!
//! Lines that cannot be written are lost; the exit code still tells.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::finding::{Finding, Record, Status, any};
use crate::telemetry;

/// Where findings go.
#[derive(Debug)]
pub(super) enum Show {
    /// A checklist on standard output, perhaps with colours.
    People { colours: bool },
    /// Nothing on standard output yet, and what must be known before then on standard error.
    Programs,
}

impl Show {
    pub(super) fn new(json: bool) -> Self {
        if json {
            Self::Programs
        } else {
            Self::People {
                colours: telemetry::has_colours(&io::stdout()),
            }
        }
    }

    /// What must be known before anything is done.
    pub(super) fn announce(&self, text: &str) {
        match self {
            Self::People { .. } => say(&format!("{text}\n")),
            Self::Programs => whisper(text),
        }
    }

    /// Whom the next steps are about.
    pub(super) fn heading(&self, name: &str) {
        if let Self::People { .. } = self {
            say(name);
        }
    }

    pub(super) fn step(&self, finding: &Finding) {
        let Self::People { colours } = *self else {
            return;
        };
        let colour = match finding.status {
            Status::Ok => "32",
            Status::Warning => "33",
            Status::Failed | Status::Usage => "31",
            Status::Skipped => "2",
        };
        let (on, off) = if colours {
            (format!("\u{1b}[{colour}m"), "\u{1b}[0m")
        } else {
            (String::new(), "")
        };
        let stream = finding.stream.as_ref();
        let stream = stream.map_or_else(String::new, |stream| format!("{stream}: "));
        let (status, step) = (finding.status.word(), finding.step.word());
        say(&format!(
            "  {on}{status:8}{off} {step:9} {stream}{}",
            finding.detail
        ));
        if let Some(advice) = &finding.advice {
            say(&format!("  {:8} {:9} -> {advice}", "", ""));
        }
    }

    /// Why nothing happens at the moment.
    pub(super) fn waiting(&self, why: &str) {
        match self {
            Self::People { .. } => say(&format!("  {:8} {:9} {why}", "..", "")),
            Self::Programs => whisper(why),
        }
    }

    /// The end.
    pub(super) fn end(&self, examined: &Examined<'_>) {
        match self {
            Self::People { .. } => say(&format!("\n{}", examined.verdict())),
            Self::Programs => say(&format!("{:#}", examined.document())),
        }
    }
}

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Examined<'a> {
    pub(super) base_url: &'a str,
    pub(super) host: &'a [Finding],
    pub(super) records: &'a [Record],
    /// Whether something listens where a running gateway's operators would ask.
    pub(super) running: bool,
}

impl Examined<'_> {
    pub(super) fn any(&self, status: Status) -> bool {
        let mut findings = self.records.iter().map(|record| &record.findings[..]);
        any(self.host, status) || findings.any(|findings| any(findings, status))
    }

    fn calls(&self) -> u32 {
        self.records.iter().map(|record| record.calls).sum()
    }

    fn verdict(&self) -> String {
        let count = |status| {
            let with = |record: &&Record| any(&record.findings, status);
            self.records.iter().filter(with).count()
        };
        let (all, failed, usage) = (
            self.records.len(),
            count(Status::Failed),
            count(Status::Usage),
        );
        let verdict = if any(self.host, Status::Failed) {
            "Kore.ai is not reached, so no account could be examined".to_owned()
        } else if failed > 0 || usage > 0 {
            format!("accounts: {all}, failed: {failed}, without a stream to ask for: {usage}")
        } else if self.any(Status::Warning) {
            "everything works, with warnings".to_owned()
        } else {
            "everything is well".to_owned()
        };
        let calls = self.calls();
        format!("{verdict}; {calls} calls spent")
    }

    /// The document; its shape is told by `doctor --help`.
    fn document(&self) -> Value {
        let accounts = self.records.iter().map(|record| {
            json!({
                "account": record.account,
                // What was not reached is not known to be well.
                "ok": good(self.host) && good(&record.findings),
                "calls_max": record.calls_max,
                "calls": record.calls,
                "largest_limit": record.largest,
                "clock_ahead_s": record.ahead,
                "steps": steps(&record.findings),
            })
        });
        let accounts: Vec<_> = accounts.collect();
        let calls_max: u32 = self.records.iter().map(|record| record.calls_max).sum();
        json!({
            "version": 1,
            "ok": !self.any(Status::Failed) && !self.any(Status::Usage),
            "calls_max": calls_max,
            "calls": self.calls(),
            "gateway_running": self.running,
            "upstream": {
                "base_url": self.base_url,
                "ok": good(self.host),
                "steps": steps(self.host),
            },
            "accounts": accounts,
        })
    }
}

fn good(findings: &[Finding]) -> bool {
    !any(findings, Status::Failed) && !any(findings, Status::Usage)
}

fn steps(findings: &[Finding]) -> Vec<Value> {
    let step = |finding: &Finding| {
        json!({
            "step": finding.step,
            "status": finding.status,
            "code": finding.code.word(),
            "stream": finding.stream,
            "detail": finding.detail,
            "advice": finding.advice,
        })
    };
    findings.iter().map(step).collect()
}

fn say(line: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

fn whisper(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
