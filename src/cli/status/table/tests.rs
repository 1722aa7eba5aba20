use super::*;
use crate::admin::overview::document::{Budget, Summary, Token};

fn status() -> Status {
    Status {
        version: "1.2.3".to_owned(),
        uptime_s: 3_723,
        summary: Summary {
            level: Level::Bad,
            text: "Serving. 1 account is refused: zeta - it has no usable secret.".to_owned(),
            reasons: vec!["zeta: it has no usable secret.".to_owned()],
        },
        accounts: Few {
            total: 3,
            shown: vec![
                Account {
                    name: "zeta".to_owned(),
                    level: Level::Bad,
                    state: "disabled".to_owned(),
                    words: "it has no usable secret".to_owned(),
                    advice: Some("Put it there.".to_owned()),
                    ..Account::default()
                },
                Account {
                    name: "acme".to_owned(),
                    state: "well".to_owned(),
                    budget: Budget {
                        taken: 30,
                        allowance: 60,
                        ..Budget::default()
                    },
                    token: Token {
                        expires_s: Some(432),
                        ..Token::default()
                    },
                    answered_ago_s: Some(2.9),
                    ..Account::default()
                },
            ],
        },
        ..Status::default()
    }
}

#[test]
fn what_is_wrong_comes_first_and_with_what_to_do() {
    let expected = "\
contacts-gateway 1.2.3, up 1h 2m
Serving. 1 account is refused: zeta - it has no usable secret.

  - zeta: it has no usable secret.

last 0 s   0.0 requests/s   - from copies   p50 -   p99 -
in all     0 requests (0 refused, 0 failed), - from copies, 0 calls to upstream
now        0 waiting, 0 connections, 0 pages and 0 lists in 0 B; breaker 

ACCOUNT  STATE     CALLS OF THE MINUTE   WAITING  TOKEN FOR  ANSWERED
zeta     disabled  [............] 0/0    0        -          -
    it has no usable secret
    -> Put it there.
acme     well      [######......] 30/60  0        7m 12s     2s ago
(1 more accounts)

";
    assert_eq!(Table { colours: false }.of(&status()), expected);
}

#[test]
fn what_is_not_as_configured_is_told() {
    let reload = Reload {
        ago_s: 63.0,
        trigger: "signal".to_owned(),
        applied: false,
        words: Few {
            total: 40,
            shown: vec!["gw.toml:2:9: no".to_owned(), "  |  ^".to_owned()],
        },
    };
    let log = Log {
        level: "debug".to_owned(),
        configured: "info".to_owned(),
        until_s: Some(1_090),
    };
    let told = |reload, log| {
        let status = Status {
            reload: Some(reload),
            log,
            at_s: 1_000,
            ..status()
        };
        let told = Table { colours: true }.of(&status);
        let begin = told.find("reload").unwrap();
        told[begin..told.find("ACCOUNT").unwrap()].to_owned()
    };
    let expected = "\
reload     \u{1b}[1;31mrefused 1m 3s ago by a signal\u{1b}[0m; the configuration before it is in force
    gw.toml:2:9: no
      |  ^
(38 more lines)

log        debug for 1m 30s, then info

";
    assert_eq!(told(reload.clone(), log), expected);
    let reload = Reload {
        trigger: "admin".to_owned(),
        applied: true,
        words: Few {
            total: 1,
            shown: vec!["Nothing changed.".to_owned()],
        },
        ..reload
    };
    let expected = "reload     applied 1m 3s ago by an operator\n    Nothing changed.\n\n";
    assert_eq!(told(reload, Log::default()), expected);
}

#[test]
fn colours_change_nothing_but_colours() {
    let coloured = Table { colours: true }.of(&status());
    assert!(coloured.contains("\u{1b}[1;31mServing."), "{coloured}");
    let mut plain = coloured.replace("\u{1b}[0m", "");
    for colour in ["31", "32", "33"] {
        plain = plain.replace(&format!("\u{1b}[1;{colour}m"), "");
    }
    assert_eq!(plain, Table { colours: false }.of(&status()));
}

#[test]
fn bars_and_times() {
    for (done, all, expected) in [
        (0, 0, "[............]"),
        (1, 2, "[######......]"),
        (9, 3, "[############]"),
    ] {
        assert_eq!(bar(done, all), expected);
    }
    for (length, expected) in [(-3.0, "0s"), (59.9, "59s"), (3_723.0, "1h 2m")] {
        assert_eq!(seconds(length), expected);
    }
}
