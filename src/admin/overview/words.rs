//! What is so, in sentences: which account is refused and why, and whether callers are served. Pure.

use std::time::Duration;

use super::document::{Account, Level, Phase, Summary};
use crate::{
    error::{Error, Kind},
    upstream::{
        advice, budget,
        token::{self, Reason},
    },
    words::{in_words, numbered},
};

/// Streams that a sentence names.
const NAMED_MAX: usize = 3;

/// How an account is: the worst that is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) level: Level,
    pub(super) state: &'static str,
    pub(super) brief: &'static str,
    pub(super) words: String,
    pub(super) advice: Option<String>,
}

/// What is known of one account.
pub(super) struct Known<'a> {
    pub(super) credential: &'a token::Standing,
    pub(super) budget: Option<&'a budget::Standing>,
    /// Its last fault and how long ago that was, if upstream has not answered since.
    pub(super) failing: Option<(&'a Error, Duration)>,
    /// Whether upstream has answered for it, or was asked in vain.
    pub(super) asked: bool,
    /// What operators call a stream.
    pub(super) name: &'a dyn Fn(&str) -> String,
}

/// What an account's state comes to.
pub(super) fn condition(known: &Known<'_>) -> Condition {
    let told = |level, state, words: String, advice: Option<&str>| Condition {
        level,
        state,
        brief: match state {
            "disabled" => "it has no usable secret",
            "refused" => "Kore.ai refuses its credential",
            "paused" => "Kore.ai's rate limit is reached",
            "failing" => "the last call for it failed",
            "spent" => "its calls of this minute are used up",
            "unasked" => "nobody has asked for it yet",
            _ => "upstream answers for it",
        },
        words,
        advice: advice.map(str::to_owned),
    };
    let credential = known.credential;
    if credential.disabled {
        let why = match credential.complaints.first() {
            Some(complaint) => format!("it has no usable secret: {complaint}"),
            None => "it has no usable secret".to_owned(),
        };
        let advice = advice::about(Kind::CredentialsUnavailable);
        return told(Level::Bad, "disabled", why, advice);
    }
    let whole = credential.resting;
    let never = || {
        (!credential.worked).then(|| {
            credential
                .refused
                .first()
                .map(|(_, reason, left)| (*reason, *left))
        })
    };
    if let Some((reason, left)) = whole.or_else(|| never().flatten()) {
        let words = format!(
            "Kore.ai refuses its credential: {}{}",
            said(reason),
            again(left)
        );
        return told(Level::Bad, "refused", words, Some(reason.advice()));
    }
    if let Some((_, reason, left)) = credential.refused.first() {
        let mut names: Vec<_> = credential
            .refused
            .iter()
            .take(NAMED_MAX)
            .map(|(stream, ..)| (known.name)(stream.as_str()))
            .collect();
        let more = credential.refused.len().saturating_sub(NAMED_MAX);
        if more > 0 {
            names.push(format!("{more} more"));
        }
        let words = format!(
            "Kore.ai refuses its credential for {}, and takes it for others: {}{}",
            names.join(", "),
            said(*reason),
            again(*left)
        );
        let advice = match reason {
            Reason::Unsaid => {
                "Compare the stream id with the console's (st-...), and see that the app is mapped to that stream."
            }
            reason => reason.advice(),
        };
        return told(Level::Bad, "refused", words, Some(advice));
    }
    if let Some(left) = known.budget.and_then(|budget| budget.paused) {
        let words = format!(
            "Kore.ai's rate limit is reached: no call for {}",
            in_words(left)
        );
        let advice = advice::about(Kind::UpstreamRateLimited);
        return told(Level::Warning, "paused", words, advice);
    }
    if let Some((error, ago)) = known
        .failing
        .filter(|(error, _)| error.kind() != Kind::BudgetExhausted)
    {
        let words = format!(
            "the last call for it failed {} ago: {}",
            in_words(ago),
            error.detail()
        );
        return told(
            Level::Warning,
            "failing",
            words,
            advice::about(error.kind()),
        );
    }
    if let Some(budget) = known
        .budget
        .filter(|budget| budget.left == 0 && budget.waiting > 0)
    {
        let words = format!(
            "its {} calls of this minute are used up, and {} for their turn",
            budget.allowance,
            numbered(budget.waiting, "call waits", "calls wait")
        );
        return told(
            Level::Warning,
            "spent",
            words,
            advice::about(Kind::BudgetExhausted),
        );
    }
    if let Some(complaint) = credential.complaints.first() {
        let words =
            format!("it is read with the secret that it has; another cannot be used: {complaint}");
        return told(Level::Warning, "well", words, None);
    }
    match known.asked {
        true => told(
            Level::Ok,
            "well",
            "upstream answers for it".to_owned(),
            None,
        ),
        false => told(
            Level::Ok,
            "unasked",
            "nobody has asked for it yet".to_owned(),
            None,
        ),
    }
}

/// What upstream said, as far as it said anything.
fn said(reason: Reason) -> &'static str {
    match reason {
        Reason::Unsaid => {
            "it does not say why, and has the same words for a wrong secret, app, stream or scope"
        }
        reason => reason.detail(),
    }
}

fn again(left: Duration) -> String {
    match left.is_zero() {
        true => "; it is tried again when next asked for".to_owned(),
        false => format!("; it is tried again in {}", in_words(left)),
    }
}

/// What else the summary is made of.
pub(super) struct Around {
    pub(super) phase: Phase,
    /// For how long no call is made, if the breaker is open.
    pub(super) breaker: Option<Duration>,
    /// In the last minute, a second: requests, and those of them that failed.
    pub(super) last_minute: (f64, f64),
    /// What the metrics tell of.
    pub(super) signs: Vec<(Level, String)>,
    /// Whether the last reload was.
    pub(super) reload_refused: bool,
}

/// Whether callers are served, and what is wrong.
pub(super) fn summary(around: &Around, accounts: &[Account]) -> Summary {
    let mut reasons = Vec::new();
    if let Some(left) = around.breaker {
        let left = match left.is_zero() {
            true => "now".to_owned(),
            false => format!("in {}", in_words(left)),
        };
        reasons.push((
            Level::Bad,
            format!("Upstream keeps failing, so no call is made; it is tried again {left}. Copies are answered."),
        ));
    }
    for account in accounts.iter().filter(|account| account.level > Level::Ok) {
        reasons.push((
            account.level,
            format!("{}: {}.", account.name, account.words),
        ));
    }
    let (rate, failed) = around.last_minute;
    // One in a hundred, and not for a single one in a quiet minute.
    if failed * 60.0 >= 3.0 && failed > rate / 100.0 {
        let share = 100.0 * failed / rate.max(failed);
        let text = format!("{share:.0} % of the requests of the last minute failed.");
        reasons.push((Level::Warning, text));
    }
    reasons.extend(around.signs.iter().cloned());
    if around.reload_refused {
        let text = "The last reload was refused; the configuration before it is in force.";
        reasons.push((Level::Warning, text.to_owned()));
    }
    reasons.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    let counted = |state: &[&str]| {
        let so = |account: &&Account| state.contains(&account.state.as_str());
        accounts.iter().filter(so).collect::<Vec<_>>()
    };
    let refused = counted(&["refused", "disabled"]);
    let (level, text) = match around.phase {
        Phase::Starting => (Level::Warning, "Starting. Nobody is served yet.".to_owned()),
        Phase::Draining => (
            Level::Warning,
            "Draining. Requests in flight are finished, and nobody new is let in.".to_owned(),
        ),
        Phase::Serving => {
            let level = reasons.first().map_or(Level::Ok, |(level, _)| *level);
            let text = match (&refused[..], accounts) {
                ([_, ..], _) => {
                    let mut told: Vec<_> = refused
                        .iter()
                        .take(NAMED_MAX)
                        .map(|account| format!("{} - {}", account.name, account.brief))
                        .collect();
                    let more = refused.len().saturating_sub(NAMED_MAX);
                    if more > 0 {
                        told.push(format!("and {more} more"));
                    }
                    let count = numbered(refused.len(), "account is", "accounts are");
                    format!("Serving. {count} refused: {}.", told.join("; "))
                }
                ([], _) if around.breaker.is_some() => {
                    "Serving from copies. Upstream keeps failing.".to_owned()
                }
                ([], _) if level > Level::Ok => {
                    format!(
                        "Serving. {} to look at.",
                        numbered(reasons.len(), "thing is", "things are")
                    )
                }
                ([], []) => "Serving. No account is configured.".to_owned(),
                ([], all) if all.iter().all(|account| account.state == "unasked") => {
                    "Serving. Nobody has asked for contacts yet.".to_owned()
                }
                ([], [only]) => format!("Serving. The account {} is well.", only.name),
                ([], all) => format!("Serving. All {} accounts are well.", all.len()),
            };
            (level, text)
        }
    };
    Summary {
        level,
        text,
        reasons: reasons.into_iter().map(|(_, text)| text).collect(),
    }
}

#[cfg(test)]
mod tests;
