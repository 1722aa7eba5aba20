use super::*;
use crate::contacts::ids::StreamId;

const SECOND: Duration = Duration::from_secs(1);

fn told(
    credential: &token::Standing,
    budget: Option<budget::Standing>,
    failing: Option<Kind>,
) -> Condition {
    let error = failing.map(|kind| Error::new(kind, "upstream answered 503"));
    condition(&Known {
        credential,
        budget: budget.as_ref(),
        failing: error.as_ref().map(|error| (error, 3 * SECOND)),
        asked: true,
        name: &|stream| stream.to_owned(),
    })
}

fn refused(streams: &[&str], worked: bool) -> token::Standing {
    let refused = |stream: &&str| (StreamId::parse(stream).unwrap(), Reason::Unsaid, 8 * SECOND);
    token::Standing {
        worked,
        refused: streams.iter().map(refused).collect(),
        ..token::Standing::default()
    }
}

#[test]
fn the_worst_is_told_and_why() {
    let budget = budget::Standing {
        allowance: 60,
        configured: 60,
        taken: 60,
        left: 0,
        waiting: 12,
        paused: None,
    };
    let paused = budget::Standing {
        paused: Some(SECOND / 2),
        ..budget
    };
    let disabled = token::Standing {
        disabled: true,
        complaints: vec!["secrets/acme: no such file".to_owned()],
        ..token::Standing::default()
    };
    let resting = token::Standing {
        resting: Some((Reason::Scope, SECOND)),
        worked: true,
        ..token::Standing::default()
    };
    let well = token::Standing::default;
    for (credential, budget, failing, state, words) in [
        (
            disabled,
            None,
            None,
            "disabled",
            "it has no usable secret: secrets/acme: no such file",
        ),
        (
            resting,
            Some(paused),
            None,
            "refused",
            "Configuration, saved and published; it is tried again in 1s",
        ),
        (
            refused(&["st-1"], false),
            None,
            Some(Kind::UpstreamAuthRejected),
            "refused",
            "Kore.ai refuses its credential: it does not say why, and has the same words for a wrong secret, app, stream or scope; it is tried again in 8s",
        ),
        (
            refused(&["st-1", "st-2", "st-3", "st-4"], true),
            None,
            None,
            "refused",
            "refuses its credential for st-1, st-2, st-3, 1 more, and takes it for others",
        ),
        (
            well(),
            Some(paused),
            Some(Kind::Upstream5xx),
            "paused",
            "no call for 1s",
        ),
        (
            well(),
            Some(budget),
            Some(Kind::Upstream5xx),
            "failing",
            "the last call for it failed 3s ago: upstream answered 503",
        ),
        (
            well(),
            Some(budget),
            Some(Kind::BudgetExhausted),
            "spent",
            "its 60 calls of this minute are used up, and 12 calls wait for their turn",
        ),
        (well(), None, None, "well", "upstream answers for it"),
    ] {
        let told = told(&credential, budget, failing);
        assert_eq!(told.state, state);
        assert!(told.words.contains(words), "{}", told.words);
        assert_eq!(told.level == Level::Ok, told.advice.is_none(), "{told:?}");
    }
}

fn account(name: &str, condition: Condition) -> Account {
    Account {
        name: name.to_owned(),
        level: condition.level,
        state: condition.state.to_owned(),
        brief: condition.brief.to_owned(),
        words: condition.words,
        ..Account::default()
    }
}

#[test]
fn the_first_sentence_says_whether_callers_are_served() {
    let well = || account("acme", told(&token::Standing::default(), None, None));
    let bad = || account("zeta", told(&refused(&["st-1"], false), None, None));
    let around = |phase, breaker, last_minute| Around {
        phase,
        breaker,
        last_minute,
        signs: Vec::new(),
        reload_refused: false,
    };
    let serving = || around(Phase::Serving, None, (10.0, 0.0));
    for (around, accounts, level, text, reasons) in [
        (
            serving(),
            vec![well()],
            Level::Ok,
            "Serving. The account acme is well.",
            0,
        ),
        (
            serving(),
            vec![well(), well()],
            Level::Ok,
            "Serving. All 2 accounts are well.",
            0,
        ),
        (
            serving(),
            vec![well(), bad()],
            Level::Bad,
            "Serving. 1 account is refused: zeta - Kore.ai refuses its credential.",
            1,
        ),
        (
            serving(),
            vec![bad(), bad()],
            Level::Bad,
            "Serving. 2 accounts are refused: zeta - Kore.ai refuses its credential; zeta - ",
            2,
        ),
        (
            around(Phase::Serving, Some(SECOND), (10.0, 5.0)),
            vec![well()],
            Level::Bad,
            "Serving from copies. Upstream keeps failing.",
            2,
        ),
        (
            around(Phase::Serving, None, (10.0, 5.0)),
            vec![well()],
            Level::Warning,
            "Serving. 1 thing is to look at.",
            1,
        ),
        // One failure in a quiet minute.
        (
            around(Phase::Serving, None, (1.0 / 30.0, 1.0 / 60.0)),
            vec![well()],
            Level::Ok,
            "Serving. The account acme is well.",
            0,
        ),
        (
            around(Phase::Draining, None, (0.0, 0.0)),
            vec![bad()],
            Level::Warning,
            "Draining.",
            1,
        ),
        (
            around(Phase::Starting, None, (0.0, 0.0)),
            vec![],
            Level::Warning,
            "Starting. Nobody is served yet.",
            0,
        ),
    ] {
        let told = summary(&around, &accounts);
        assert!(told.text.starts_with(text), "{told:?}");
        assert_eq!(
            (told.level, told.reasons.len()),
            (level, reasons),
            "{told:?}"
        );
    }
}

#[test]
fn the_worst_reason_comes_first() {
    let failing = told(&token::Standing::default(), None, Some(Kind::Upstream5xx));
    let refused = told(&refused(&["st-1"], false), None, None);
    let accounts = [account("acme", failing), account("zeta", refused)];
    let around = Around {
        phase: Phase::Serving,
        breaker: None,
        last_minute: (0.0, 0.0),
        signs: vec![(Level::Bad, "acme: a sign.".to_owned())],
        reload_refused: true,
    };
    let told = summary(&around, &accounts);
    assert!(told.reasons[0].starts_with("zeta: "), "{told:?}");
    assert_eq!(told.reasons[1], "acme: a sign.");
    assert!(told.reasons[2].starts_with("acme: the last"), "{told:?}");
    assert!(
        told.reasons[3].starts_with("The last reload was refused"),
        "{told:?}"
    );
    assert_eq!(
        told.text,
        "Serving. 1 account is refused: zeta - Kore.ai refuses its credential."
    );
}
