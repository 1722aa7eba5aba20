//! The status as a table of plain text. Pure.

use std::{fmt::Write, time::Duration};

use crate::admin::overview::document::{
    Account, Collection, Fault, Few, LastFault, Level, Log, Reload, Status, Walk,
};

/// Rows of a part that has many.
const ROWS_MAX: usize = 10;

/// Characters of a bar.
const BAR: usize = 12;

/// How it is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub(super) colours: bool,
}

impl Table {
    pub(super) fn of(self, status: &Status) -> String {
        let mut out = String::new();
        let up = seconds(status.uptime_s as f64);
        let _ = writeln!(out, "contacts-gateway {}, up {up}", status.version);
        let summary = &status.summary;
        let _ = writeln!(out, "{}\n", self.paint(summary.level, &summary.text));
        for reason in &summary.reasons {
            let _ = writeln!(out, "  - {reason}");
        }
        if !summary.reasons.is_empty() {
            out.push('\n');
        }
        figures(&mut out, status);
        self.reload(&mut out, status.reload.as_ref());
        log(&mut out, &status.log, status.at_s);
        self.accounts(&mut out, &status.accounts);
        collections(&mut out, &status.collections);
        walks(&mut out, &status.walks);
        faults(&mut out, &status.faults);
        out
    }

    fn paint(self, level: Level, text: &str) -> String {
        let colour = match level {
            Level::Ok => "32",
            Level::Warning => "33",
            Level::Bad => "31",
        };
        match self.colours {
            true => format!("\u{1b}[1;{colour}m{text}\u{1b}[0m"),
            false => text.to_owned(),
        }
    }

    fn accounts(self, out: &mut String, accounts: &Few<Account>) {
        let rows = accounts.shown.iter().map(|account| {
            let budget = &account.budget;
            [
                account.name.clone(),
                account.state.clone(),
                format!(
                    "{} {}/{}",
                    bar(budget.taken as usize, budget.allowance as usize),
                    budget.taken,
                    budget.allowance
                ),
                budget.waiting.to_string(),
                account
                    .token
                    .expires_s
                    .map_or("-".to_owned(), |left| seconds(left as f64)),
                ago(account.answered_ago_s),
            ]
        });
        let head = [
            "ACCOUNT",
            "STATE",
            "CALLS OF THE MINUTE",
            "WAITING",
            "TOKEN FOR",
            "ANSWERED",
        ];
        let lines = columns(head, rows.collect());
        let mut lines = lines.iter();
        let _ = writeln!(out, "{}", lines.next().map_or("", |head| head));
        for (line, account) in lines.zip(&accounts.shown) {
            let _ = writeln!(out, "{}", self.line(account.level, line));
            if account.level > Level::Ok {
                let _ = writeln!(out, "    {}", account.words);
                if let Some(advice) = &account.advice {
                    let _ = writeln!(out, "    -> {advice}");
                }
            }
        }
        more(out, accounts.total, accounts.shown.len(), "accounts");
    }

    fn reload(self, out: &mut String, last: Option<&Reload>) {
        let Some(last) = last else {
            return;
        };
        let trigger = match &*last.trigger {
            "signal" => "by a signal",
            _ => "by an operator",
        };
        let text = format!("{} {} {trigger}", last.word(), ago(Some(last.ago_s)));
        let (level, kept) = match last.applied {
            true => (Level::Ok, ""),
            false => (Level::Bad, "; the configuration before it is in force"),
        };
        let _ = writeln!(out, "reload     {}{kept}", self.line(level, &text));
        for line in &last.words.shown {
            let _ = writeln!(out, "    {line}");
        }
        more(out, last.words.total, last.words.shown.len(), "lines");
    }

    fn line(self, level: Level, line: &str) -> String {
        match level {
            Level::Ok => line.to_owned(),
            level => self.paint(level, line),
        }
    }
}

fn figures(out: &mut String, status: &Status) {
    let (totals, history) = (&status.totals, &status.history);
    let last = |column: &[Option<f64>], unit: fn(f64) -> String| {
        column
            .last()
            .copied()
            .flatten()
            .map_or("-".to_owned(), unit)
    };
    let rate = history.rate.last().copied().unwrap_or_default();
    let _ = writeln!(
        out,
        "last {} s   {rate:.1} requests/s   {} from copies   p50 {}   p99 {}",
        history.every_s,
        last(&history.hit_ratio, share),
        last(&history.p50_ms, milliseconds),
        last(&history.p99_ms, milliseconds),
    );
    let _ = writeln!(
        out,
        "in all     {} requests ({} refused, {} failed), {} from copies, {} calls to upstream",
        totals.requests,
        totals.refused,
        totals.failed,
        totals.hit_ratio.map_or("-".to_owned(), share),
        totals.calls,
    );
    let _ = writeln!(
        out,
        "now        {} waiting, {} connections, {} pages and {} lists in {}; breaker {}\n",
        totals.waiting,
        totals.connections,
        totals.pages,
        totals.lists,
        bytesize::ByteSize::b(totals.cache_bytes),
        status.upstream.breaker,
    );
}

/// Told while it is not as configured.
fn log(out: &mut String, log: &Log, now: u64) {
    if let Some(until) = log.until_s {
        let left = seconds(until.saturating_sub(now) as f64);
        let Log {
            level, configured, ..
        } = log;
        let _ = writeln!(out, "log        {level} for {left}, then {configured}\n");
    }
}

fn collections(out: &mut String, collections: &Few<Collection>) {
    if collections.shown.is_empty() {
        return;
    }
    let shown = &collections.shown[..collections.shown.len().min(ROWS_MAX)];
    let rows = shown.iter().map(|collection| {
        [
            place(
                &collection.account,
                &collection.stream,
                collection.name.as_deref(),
            ),
            format!("{:.1}/s", collection.rate),
            collection.hit_ratio.map_or("-".to_owned(), share),
            collection.list.as_ref().map_or("-".to_owned(), |list| {
                format!(
                    "{} {}, {}",
                    list.verdict,
                    seconds(list.age_s),
                    list.freshness
                )
            }),
            ago(collection.answered_ago_s),
            collection
                .fault
                .as_ref()
                .map_or("-".to_owned(), |LastFault { code, ago_s, .. }| {
                    format!("{code} {}", ago(Some(*ago_s)))
                }),
        ]
    });
    let head = ["COLLECTION", "RATE", "HITS", "LIST", "ANSWERED", "FAULT"];
    write_lines(out, &columns(head, rows.collect()));
    more(out, collections.total, shown.len(), "collections");
}

fn walks(out: &mut String, walks: &Few<Walk>) {
    if walks.shown.is_empty() {
        return;
    }
    let rows = walks.shown.iter().map(|walk| {
        let needed = walk
            .pages_needed
            .map_or("?".to_owned(), |needed| needed.to_string());
        [
            place(&walk.account, &walk.stream, walk.name.as_deref()),
            format!(
                "{} {}/{needed}",
                bar(walk.pages_done, walk.pages_needed.unwrap_or_default()),
                walk.pages_done
            ),
            walk.records.to_string(),
            seconds(walk.running_s),
            walk.estimate_s.map_or("-".to_owned(), seconds),
            walk.held_up.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    });
    let head = ["WALK", "PAGES", "CONTACTS", "RUNS FOR", "LEFT", "HELD UP"];
    write_lines(out, &columns(head, rows.collect()));
    more(out, walks.total, walks.shown.len(), "walks");
}

fn faults(out: &mut String, faults: &[Fault]) {
    if faults.is_empty() {
        return;
    }
    let shown = &faults[..faults.len().min(ROWS_MAX)];
    let rows = shown.iter().map(|fault| {
        [
            ago(Some(fault.ago_s)),
            place(&fault.account, &fault.stream, fault.name.as_deref()),
            format!("{} x", fault.times),
            fault.code.clone(),
            fault.words.clone(),
        ]
    });
    let head = ["FAULT", "COLLECTION", "TIMES", "CODE", "WHAT"];
    write_lines(out, &columns(head, rows.collect()));
    more(out, faults.len(), shown.len(), "faults");
}

fn place(account: &str, stream: &str, name: Option<&str>) -> String {
    format!("{account}/{}", name.unwrap_or(stream))
}

/// The head and the rows, each column as wide as its widest cell.
fn columns<const N: usize>(head: [&str; N], rows: Vec<[String; N]>) -> Vec<String> {
    let rows: Vec<_> = std::iter::once(head.map(str::to_owned))
        .chain(rows)
        .collect();
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

fn write_lines(out: &mut String, lines: &[String]) {
    for line in lines {
        let _ = writeln!(out, "{line}");
    }
}

fn more(out: &mut String, total: usize, shown: usize, what: &str) {
    if total > shown {
        let _ = writeln!(out, "({} more {what})", total - shown);
    }
    out.push('\n');
}

fn bar(done: usize, all: usize) -> String {
    let filled = (BAR * done.min(all)).checked_div(all).unwrap_or_default();
    format!("[{}{}]", "#".repeat(filled), ".".repeat(BAR - filled))
}

fn share(ratio: f64) -> String {
    format!("{:.1} %", 100.0 * ratio)
}

fn milliseconds(milliseconds: f64) -> String {
    match milliseconds {
        small if small < 10.0 => format!("{small:.1} ms"),
        large => format!("{large:.0} ms"),
    }
}

fn ago(seconds_ago: Option<f64>) -> String {
    seconds_ago.map_or("-".to_owned(), |ago| format!("{} ago", seconds(ago)))
}

/// A length of time in its two largest units; what is over is 0.
fn seconds(length: f64) -> String {
    let length = Duration::from_secs(length.max(0.0) as u64);
    let text = humantime::format_duration(length).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
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
}
