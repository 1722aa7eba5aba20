//! What pages, and their absence, say of a credential, a stream, the paging and the largest limit. Pure.

use super::{
    diagnosis::{self, Told},
    finding::{Code, Finding, Status, Step},
};
use crate::{
    contacts::{account::Jti, ids::StreamId, page::Page},
    error::{Error, Kind},
    upstream::token::{Condition, Reason},
};

/// Streams that are tried while each of them is refused.
const REFUSED_MAX: usize = 3;

/// One stream, what came of its page, and why the token was refused, if it was.
pub(super) type Outcome<'a> = (&'a StreamId, Result<Page, Error>, Option<Reason>);

/// Whether the streams that are left would fare no better.
pub(super) fn end(outcomes: &[Outcome<'_>]) -> bool {
    let Some((_, Err(error), reason)) = outcomes.last() else {
        return false;
    };
    match error.kind() {
        Kind::UpstreamAuthRejected if outcomes.iter().any(|(_, outcome, _)| outcome.is_ok()) => {
            false
        }
        Kind::UpstreamAuthRejected => {
            *reason != Some(Reason::Unsaid) || outcomes.len() >= REFUSED_MAX
        }
        // Those are about one stream, or one answer.
        Kind::StreamNotFound | Kind::Upstream4xx | Kind::UpstreamSchema => false,
        _ => true,
    }
}

/// What the outcomes of all streams say of the credential, its scope and each stream.
pub(super) fn judged<'a>(
    outcomes: &[Outcome<'a>],
    condition: &Condition,
    told: Told,
    ahead: Option<i64>,
) -> Vec<(Option<&'a StreamId>, Finding)> {
    let works = outcomes.iter().any(|(_, outcome, _)| outcome.is_ok());
    let refusal = outcomes.iter().find_map(|(_, outcome, reason)| {
        let error = outcome.as_ref().err()?;
        reason.filter(|_| error.kind() == Kind::UpstreamAuthRejected)
    });
    let credential = match refusal {
        _ if works => [
            accepted(condition, told),
            Finding::ok(Step::Scope, "contacts may be read"),
        ],
        Some(reason) => diagnosis::refused(reason, told, ahead),
        None => [Step::Accepted, Step::Scope].map(|step| {
            Finding::new(
                step,
                Status::Skipped,
                Code::Unsaid,
                "no answer tells: see `page`",
            )
        }),
    };
    let blamed = credential
        .iter()
        .find(|finding| finding.status == Status::Failed);
    let blamed = blamed.map(|finding| finding.step);
    let of_streams = outcomes.iter().map(|(stream, outcome, _)| {
        let finding = match (outcome, blamed) {
            (Ok(page), _) => match (short(page), page.total) {
                (Some(detail), _) => Finding::warning(Step::Page, Code::Short, detail).advise(
                    "Compare with the console: lists whose pages are short cannot be verified.",
                ),
                (None, Some(total)) => {
                    let came = page.records.len();
                    Finding::ok(Step::Page, format!("{came} of {total} contacts"))
                }
                (None, None) => {
                    let came = page.records.len();
                    Finding::ok(Step::Page, format!("{came} contacts, and no total"))
                }
            },
            (Err(error), Some(step)) if error.kind() == Kind::UpstreamAuthRejected => {
                Finding::after(Step::Page, step)
            }
            (Err(error), None) if error.kind() == Kind::UpstreamAuthRejected => {
                let detail = "this stream is refused, and another one of the account is read";
                Finding::failed(Step::Page, Code::SomeStreams, detail).advise(
                    "Compare this stream's id (st-...), and see that the JWT app is mapped to this stream too.",
                )
            }
            (Err(error), _) => diagnosis::broken(Step::Page, error),
        };
        (Some(*stream), finding)
    });
    let of_streams: Vec<_> = of_streams.collect();
    let all = credential.into_iter().map(|finding| (None, finding));
    all.chain(of_streams).collect()
}

/// The token was taken; perhaps not at once.
fn accepted(condition: &Condition, told: Told) -> Finding {
    if condition.second {
        let detail = "Kore.ai refuses the first secret and takes the second one";
        Finding::warning(Step::Accepted, Code::SecondSecret, detail)
            .advise("Make the second secret the first one, and remove it from its place.")
    } else if condition.once && told.jti == Jti::Auto {
        let detail = "Kore.ai takes tokens with a jti only: each call gets a token of its own";
        Finding::warning(Step::Accepted, Code::JtiWanted, detail)
            .advise("Set jti = \"per_request\" for this account, which saves a refused call after each start.")
    } else {
        Finding::ok(Step::Accepted, "Kore.ai takes the token")
    }
}

/// Whether a page begins with the second record of `first`.
pub(super) fn compared(first: &Page, page: &Page) -> Finding {
    match (first.records.get(1), page.records.first()) {
        (Some(expected), Some(found)) if first.id(expected) == page.id(found) => {
            Finding::ok(Step::Paging, "the echo is right, and the second contact is where it should be")
        }
        (Some(_), _) => Finding::failed(
            Step::Paging,
            Code::RecordsMove,
            "the echo is right, but the contacts are not those of that window",
        )
        .advise("Ask again, in case the list was just changed; if it stays so, ask Kore.ai's support: no list can be relied on."),
        (None, _) => Finding::warning(
            Step::Paging,
            Code::TooShort,
            "the echo is right; the stream has fewer than two contacts, so that no more can be compared",
        )
        .advise("Ask for a stream with more contacts, with --stream."),
    }
}

/// What came of a `limit`, after a larger one was refused or none was. `walks` is the largest that walks ask for.
pub(super) fn limit(limit: u32, refused: Option<u32>, page: &Page, walks: u32) -> Finding {
    if let Some(detail) = short(page) {
        return Finding::warning(Step::Limit, Code::Short, detail)
            .advise("Lower merge.page_limit_max until as many come as are asked for.");
    }
    match refused {
        Some(refused) => {
            let detail = format!("{limit} is obeyed, {refused} is refused");
            let finding = Finding::warning(Step::Limit, Code::LimitRefused, detail);
            finding.advise(format!(
                "Set edge.limit_max = {limit} and merge.page_limit_max = {limit}, which saves the calls that are refused."
            ))
        }
        None if page.limit < limit => {
            let detail = format!("larger ones are cut down to {}", page.limit);
            let finding = Finding::new(Step::Limit, Status::Ok, Code::Clamped, detail);
            if page.limit > walks {
                finding.advise(raise(page.limit))
            } else {
                finding
            }
        }
        None => {
            let finding = Finding::ok(
                Step::Limit,
                format!("{limit} is obeyed; larger ones were not tried"),
            );
            if limit > walks {
                finding.advise(raise(limit))
            } else {
                finding
            }
        }
    }
}

/// What a page lacks that begins at the first record.
fn short(page: &Page) -> Option<String> {
    let due = page.total?.min(page.limit.into());
    let came = page.records.len();
    let short = u64::try_from(came).is_ok_and(|came| came < due);
    short.then(|| format!("{came} contacts came, where limit and total promise {due}"))
}

fn raise(limit: u32) -> String {
    format!("Set merge.page_limit_max = {limit}: whole lists then cost fewer calls.")
}
