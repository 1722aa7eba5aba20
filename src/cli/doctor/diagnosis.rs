//! What findings mean and what to do about them. Pure: from what the stages told to words.

use std::time::Duration;

use super::finding::{Code, Finding, Status, Step};
use crate::{
    contacts::account::{Algorithm, Jti},
    error::{Error, Kind},
    upstream::{
        advice,
        client::{Hop, Unreached},
        token::Reason,
    },
};

/// Clocks that differ by less are as good as equal: `Date` is exact to a second, and the answer took its time.
const CLOSE: u64 = 5;

/// Why no connection comes about.
pub(super) fn unreached(hop: Hop, why: Unreached, host: &str) -> Finding {
    let step = match hop {
        Hop::Name => Step::Name,
        Hop::Tcp => Step::Tcp,
        Hop::Tls => Step::Tls,
    };
    let (code, detail, advice) = match why {
        Unreached::Unknown => (
            Code::Unresolved,
            "the name has no address",
            "Compare upstream.base_url with the console's URL, and see that this machine can look names up (its DNS).",
        ),
        Unreached::Refused => (
            Code::Refused,
            "the connection is refused: nobody listens there",
            "Compare host and port of upstream.base_url.",
        ),
        Unreached::Unreachable => (
            Code::Unreachable,
            "no connection can be made",
            "See that this machine may connect there: routes, firewalls; proxies are not used.",
        ),
        Unreached::Late => (
            Code::Late,
            "it took longer than upstream.connect_timeout",
            "See whether a firewall drops what is sent there, or raise upstream.connect_timeout.",
        ),
        Unreached::NotTls => (
            Code::NotTls,
            "what answers does not speak TLS",
            "Compare scheme and port of upstream.base_url: https wants a port that speaks TLS.",
        ),
        Unreached::Expired => (
            Code::Expired,
            "the certificate is not valid at this time",
            "Compare this machine's clock; if it is right, tell whoever runs the host.",
        ),
        Unreached::WrongName => (
            Code::WrongName,
            "the certificate is another host's",
            "Write the host in upstream.base_url as its certificate does.",
        ),
        Unreached::UnknownIssuer => (
            Code::UnknownIssuer,
            "the certificate's authority is not trusted here",
            "Install the operating system's CA certificates; behind a proxy that opens TLS, install its authority there.",
        ),
        Unreached::Tls => (
            Code::TlsFailed,
            "no trusted connection came about",
            "See whether something between here and there opens or filters TLS.",
        ),
    };
    Finding::failed(step, code, format!("{host}: {detail}")).advise(advice)
}

/// What an account is configured to send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) algorithm: Algorithm,
    pub(super) jti: Jti,
    pub(super) lifetime: Duration,
    pub(super) backdate: Duration,
}

/// What a refusal of the token says about it, and about the scope.
pub(super) fn refused(reason: Reason, told: Told, ahead: Option<i64>) -> [Finding; 2] {
    let unknown = || Finding::after(Step::Scope, Step::Accepted);
    let accepted = |code, detail: &str, advice: String| {
        let finding = Finding::failed(Step::Accepted, code, detail).advise(advice);
        [finding, unknown()]
    };
    let algorithm = told.algorithm;
    match reason {
        Reason::Scope => [
            Finding::ok(Step::Accepted, "Kore.ai knows the app"),
            Finding::failed(Step::Scope, Code::AuthScope, "Kore.ai says that the scope is incorrect").advise(reason.advice()),
        ],
        Reason::Jti if told.jti == Jti::Off => accepted(
            Code::AuthJti,
            "Kore.ai wants a jti in each token, and jti is \"off\"",
            reason.advice().to_owned(),
        ),
        Reason::Jti => accepted(
            Code::AuthJti,
            "Kore.ai wants a jti, and refuses tokens that have one",
            "Look at the app's enforcement settings, and at the account's claims for one that Kore.ai does not take."
                .to_owned(),
        ),
        Reason::Replay => accepted(
            Code::AuthReplay,
            "Kore.ai takes the token for one that was used before",
            reason.advice().to_owned(),
        ),
        Reason::Lifetime => accepted(
            Code::AuthLifetime,
            "Kore.ai says that the token lives for more than an hour",
            reason.advice().to_owned(),
        ),
        Reason::NotAJwt => accepted(
            Code::AuthNotAJwt,
            "Kore.ai does not take the token for a JWT",
            reason.advice().to_owned(),
        ),
        Reason::Jwe => accepted(
            Code::AuthJwe,
            "Kore.ai wants an encrypted token (JWE)",
            reason.advice().to_owned(),
        ),
        Reason::Encryption => accepted(
            Code::AuthEncryption,
            "Kore.ai wants encrypted payloads",
            reason.advice().to_owned(),
        ),
        Reason::Unsaid if is_off(ahead, told) => accepted(
            Code::AuthUnsaid,
            "Kore.ai refuses the token and does not say why; the clocks differ enough to be the reason",
            "Set this machine's clock (NTP) and ask again; only then look at secret, client id and stream.".to_owned(),
        ),
        Reason::Unsaid => accepted(
            Code::AuthUnsaid,
            "Kore.ai refuses the token and does not say why: the same words for a wrong secret, app, stream or scope",
            format!(
                "{} {algorithm:?}{}.",
                reason.advice().trim_end_matches('.'),
                if algorithm == Algorithm::HS256 { "" } else { "; HS256 is the one that is documented" },
            ),
        ),
    }
}

/// What a call's error means for a step; `None` of a refused token, which [`refused`] explains.
pub(super) fn broken(step: Step, error: &Error) -> Finding {
    let kind = error.kind();
    let detail = match error.cause() {
        Some(cause) => format!("{} ({})", error.detail(), printable(cause)),
        None => error.detail().to_owned(),
    };
    let finding = Finding::failed(step, Code::Error(kind), detail);
    let advice = match kind {
        // The steps before this one have just connected.
        Kind::UpstreamUnreachable => {
            Some("The connection came about a moment ago and does not now: ask again.")
        }
        Kind::UpstreamRateLimited | Kind::BudgetExhausted => Some(
            "Something else uses the account's calls a minute (a running gateway does): wait for a quiet minute, or set calls_per_minute to what is really allowed.",
        ),
        kind => advice::about(kind),
    };
    match advice {
        Some(advice) => finding.advise(advice),
        None => finding,
    }
}

/// What the two clocks' difference means for tokens. `refused` tells whether one was, without a reason.
pub(super) fn clock(ahead: Option<i64>, told: Told, refused: bool) -> Finding {
    let Some(ahead) = ahead else {
        return Finding::new(
            Step::Clock,
            Status::Skipped,
            Code::Unsaid,
            "no answer told upstream's time",
        );
    };
    let apart = Duration::from_secs(ahead.unsigned_abs());
    if apart.as_secs() <= CLOSE {
        let detail = format!("within {CLOSE} s of upstream's, as its Date says");
        return Finding::ok(Step::Clock, detail);
    }
    let (code, side) = if ahead > 0 {
        (Code::ClockBehind, "behind")
    } else {
        (Code::ClockAhead, "ahead of")
    };
    let off = humantime::format_duration(apart);
    let fatal = ahead > 0 && apart >= told.lifetime || refused && is_off(Some(ahead), told);
    let means = if ahead > 0 && apart >= told.lifetime {
        "tokens have expired (exp) when they arrive".to_owned()
    } else if ahead > 0 {
        let left = humantime::format_duration(told.lifetime - apart);
        format!("tokens live for {left} only, by upstream's clock (exp)")
    } else if apart > told.backdate {
        "tokens come from the future (iat), and may seem to live for too long (exp)".to_owned()
    } else {
        "token.backdate makes up for it (iat)".to_owned()
    };
    let detail = format!("this machine's clock is {off} {side} upstream's: {means}");
    let finding = if fatal {
        Finding::failed(Step::Clock, code, detail)
    } else {
        Finding::warning(Step::Clock, code, detail)
    };
    finding.advise("Set this machine's clock, best by NTP.")
}

/// Whether the clocks differ by more than a token allows for.
fn is_off(ahead: Option<i64>, told: Told) -> bool {
    ahead.is_some_and(|ahead| {
        let apart = Duration::from_secs(ahead.unsigned_abs());
        if ahead > 0 {
            apart >= told.lifetime
        } else {
            apart > told.backdate.max(Duration::from_secs(CLOSE))
        }
    })
}

/// A text that came from far may hold what a terminal obeys.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(300)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLD: Told = Told {
        algorithm: Algorithm::HS256,
        jti: Jti::Auto,
        lifetime: Duration::from_secs(600),
        backdate: Duration::from_secs(30),
    };

    #[test]
    fn the_clocks_difference_is_judged_by_what_tokens_allow_for() {
        for (ahead, refused, status, code) in [
            (None, false, Status::Skipped, Code::Unsaid),
            (Some(0), false, Status::Ok, Code::Fine),
            (Some(5), true, Status::Ok, Code::Fine),
            (Some(-5), true, Status::Ok, Code::Fine),
            (Some(6), false, Status::Warning, Code::ClockBehind),
            (Some(599), true, Status::Warning, Code::ClockBehind),
            (Some(600), false, Status::Failed, Code::ClockBehind),
            (Some(-30), true, Status::Warning, Code::ClockAhead),
            (Some(-31), false, Status::Warning, Code::ClockAhead),
            (Some(-31), true, Status::Failed, Code::ClockAhead),
            (Some(i64::MIN), false, Status::Warning, Code::ClockAhead),
            (Some(i64::MAX), false, Status::Failed, Code::ClockBehind),
        ] {
            let found = clock(ahead, TOLD, refused);
            assert_eq!(
                (found.status, found.code),
                (status, code),
                "{ahead:?} {refused}"
            );
        }
    }

    #[test]
    fn every_failure_says_what_to_do_in_one_sentence() {
        let hops = [
            Unreached::Unknown,
            Unreached::Refused,
            Unreached::Unreachable,
            Unreached::Late,
            Unreached::NotTls,
            Unreached::Expired,
            Unreached::WrongName,
            Unreached::UnknownIssuer,
            Unreached::Tls,
        ];
        let unreached = hops.map(|why| unreached(Hop::Tls, why, "x"));
        let of_reasons = Reason::ALL.map(|reason| refused(reason, TOLD, None));
        let off = [clock(Some(7200), TOLD, true)];
        let all = unreached
            .iter()
            .chain(of_reasons.iter().flatten())
            .chain(&off);
        let failed = all.filter(|finding| finding.status == Status::Failed);
        let mut codes: Vec<_> = failed
            .map(|finding| {
                let advice = finding.advice.as_deref().unwrap_or_default();
                assert!(
                    advice.ends_with('.') && advice.matches(". ").count() == 0,
                    "{finding:?}"
                );
                finding.code.word()
            })
            .collect();
        assert_eq!(codes.len(), 9 + 8 + 1);
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), 9 + 8 + 1, "each has a code of its own");
    }

    #[test]
    fn what_came_from_far_cannot_steer_a_terminal() {
        let error = Error::new(Kind::UpstreamProtocol, "x").because("\u{1b}[2Jgone\nfake line");
        let found = broken(Step::Page, &error);
        assert!(!found.detail.contains(char::is_control), "{found:?}");
    }
}
