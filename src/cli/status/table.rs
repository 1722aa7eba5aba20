//! The status as a table of plain text. Pure.

use std::{fmt::Write, time::Duration};

use crate::{
    admin::overview::document::{
        Account, Collection, Fault, Few, LastFault, Level, Log, Reload, Status, Walk,
    },
    words::numbered,
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
        "in all     {} ({} refused, {} failed), {} from copies, {} to upstream",
        numbered(totals.requests, "request", "requests"),
        totals.refused,
        totals.failed,
        totals.hit_ratio.map_or("-".to_owned(), share),
        numbered(totals.calls, "call", "calls"),
    );
    let _ = writeln!(
        out,
        "now        {} waiting, {}, {} and {} in {}; breaker {}\n",
        totals.waiting,
        numbered(totals.connections, "connection", "connections"),
        numbered(totals.pages, "page", "pages"),
        numbered(totals.lists, "list", "lists"),
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
mod tests;
