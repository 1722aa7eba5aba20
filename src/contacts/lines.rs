//! A list as lines, one contact on each (NDJSON): what comes one after another, before the edge writes it.

use std::{ops::Range, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::{
    select,
    time::{self, MissedTickBehavior},
};

use super::{page::span, verdict::Verdict, walking::Progress};
use crate::error::Result;

/// What a reader of lines is given, one after another. After an end or an error comes nothing.
#[derive(Clone, Debug)]
pub enum Line {
    Contacts(Arc<Run>),
    /// How far the walk is, for those who want to know.
    Progress(Progress),
    End(Ending),
}

/// What comes one after another, until an [`Line::End`] or an error.
pub type Lines = BoxStream<'static, Result<Line>>;

/// Neighbouring records of one page's body.
#[derive(Clone, Debug)]
pub struct Run {
    pub body: Bytes,
    /// Where each record lies.
    pub at: Box<[Range<u32>]>,
}

impl Run {
    /// A record's bytes, as upstream sent them.
    pub fn get(&self, place: usize) -> Option<&[u8]> {
        self.at.get(place).map(|at| &self.body[span(at)])
    }
}

/// What is said at the end of a list that is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    pub verdict: Verdict,
    pub pages: usize,
    pub records: u64,
    /// Upstream calls, the checking ones included.
    pub calls: usize,
    /// What upstream says less what it sent, in records.
    pub gap: i64,
    /// How old its oldest page was when the list was whole.
    pub oldest: Duration,
}

/// Appends a record as a line.
///
/// A line break between a record's members is dropped: it is white space, since inside a text JSON has none, and it stands
/// beside a brace, a bracket, a comma or a colon, so that nothing grows together.
pub fn write(record: &[u8], out: &mut Vec<u8>) {
    if has_breaks(record) {
        out.extend(record.iter().filter(|byte| !is_break(**byte)));
    } else {
        out.extend_from_slice(record);
    }
    out.push(b'\n');
}

/// How long a record is as a line, in bytes.
pub fn length(record: &[u8]) -> usize {
    let breaks = match has_breaks(record) {
        true => record.iter().filter(|byte| is_break(**byte)).count(),
        false => 0,
    };
    record.len() - breaks + 1
}

fn is_break(byte: u8) -> bool {
    byte == b'\n' || byte == b'\r'
}

/// Nearly always not: looked for in the way that is fast.
fn has_breaks(record: &[u8]) -> bool {
    record.contains(&b'\n') || record.contains(&b'\r')
}

/// How often a reader is told how far the walk is, at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Puts progress between lines: before the first one, and about once a second, whether or not others come. Nothing is told
/// before `progress` knows anything.
pub fn telling(
    lines: Lines,
    progress: impl Fn() -> Option<Progress> + Send + Sync + 'static,
) -> Lines {
    let mut ticks = time::interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let telling = Telling {
        lines,
        ticks,
        progress,
        told: false,
        next: None,
    };
    stream::unfold(telling, async |mut telling| {
        let line = telling.next().await?;
        Some((line, telling))
    })
    .boxed()
}

struct Telling<P> {
    lines: Lines,
    ticks: time::Interval,
    progress: P,
    told: bool,
    /// What came before anything was told.
    next: Option<Result<Line>>,
}

impl<P: Fn() -> Option<Progress>> Telling<P> {
    async fn next(&mut self) -> Option<Result<Line>> {
        if let Some(line) = self.next.take() {
            return Some(line);
        }
        loop {
            let line = select! {
                // A line that is always ready must not keep the news away.
                biased;
                _ = self.ticks.tick() => None,
                line = self.lines.next() => Some(line?),
            };
            let news = match &line {
                Some(Ok(_)) if self.told => None,
                Some(Err(_)) => None,
                Some(Ok(_)) | None => (self.progress)(),
            };
            match (news, line) {
                (Some(progress), line) => {
                    self.told = true;
                    self.next = line;
                    return Some(Ok(Line::Progress(progress)));
                }
                (None, Some(line)) => return Some(line),
                (None, None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use proptest::prelude::*;

    use super::*;

    fn line(record: &str) -> String {
        let mut out = Vec::new();
        write(record.as_bytes(), &mut out);
        assert_eq!(out.len(), length(record.as_bytes()), "{record:?}");
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_record_is_one_line() {
        for (record, expected) in [
            (r#"{"id":"1"}"#, r#"{"id":"1"}"#),
            ("{\n  \"id\" :\r\n\"1\"\n}", "{  \"id\" :\"1\"}"),
            // What stands in a text is an escape, and stays.
            (r#"{"id":"1\n\r"}"#, r#"{"id":"1\n\r"}"#),
            (r#"{ "id": "1" }"#, r#"{ "id": "1" }"#),
        ] {
            assert_eq!(line(record), format!("{expected}\n"));
        }
    }

    proptest! {
        /// However a record is laid out, its line says the same.
        #[test]
        fn a_line_says_what_its_record_says(text in "\\PC{0,9}", number: i32, breaks in proptest::collection::vec("[ \n\r\t]{0,3}", 9)) {
            let (text, b) = (serde_json::to_string(&text).unwrap(), breaks);
            let record = format!(
                "{{{}\"id\"{}:{}{text}{},{}\"a\":[{number}{},{}true]{}}}",
                b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7],
            );
            let line = line(&record);
            prop_assert_eq!(line.find(['\n', '\r']), Some(line.len() - 1));
            let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
            prop_assert_eq!(value(&line), value(&record));
        }
    }

    fn end() -> Line {
        Line::End(Ending {
            verdict: Verdict::Consistent,
            pages: 1,
            records: 0,
            calls: 1,
            gap: 0,
            oldest: Duration::ZERO,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn news_come_first_and_then_once_a_second_while_nothing_else_does() {
        let late = async {
            time::sleep(Duration::from_millis(2500)).await;
            Ok(end())
        };
        let mut lines = telling(late.into_stream().boxed(), || Some(Progress::default()));
        let began = time::Instant::now();
        let mut told = Vec::new();
        while let Some(line) = lines.next().await {
            told.push((
                matches!(line, Ok(Line::Progress(_))),
                began.elapsed().as_millis(),
            ));
        }
        assert_eq!(told, [(true, 0), (true, 1000), (true, 2000), (false, 2500)]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_before_anything_is_known_waits_for_no_news() {
        let lines = stream::iter([Ok(end())]).boxed();
        let told: Vec<_> = telling(lines, || None).collect().await;
        assert!(matches!(told[..], [Ok(Line::End(_))]));
        // And once something is known, it comes first.
        let lines = stream::iter([Ok(end())]).boxed();
        let told: Vec<_> = telling(lines, || Some(Progress::default())).collect().await;
        assert!(matches!(
            told[..],
            [Ok(Line::Progress(_)), Ok(Line::End(_))]
        ));
    }
}
