//! The line of the file that a problem shows, with a caret under it, and without anything that may be a secret.
//!
//! A configuration file is where secrets end up by mistake, and a check's output is what people paste into tickets.
//! So the rule is a list of what may be shown, not of what may not: keys, punctuation, and the values of known keys
//! whose kind cannot be a secret. Every other value is `***`, and comments are left out.

use std::ops::Range;

/// Characters of a line that are shown at most; longer ones are cut around the caret.
pub(crate) const WIDTH: usize = 120;

/// A stretch of the file that is a key or a value, as a byte range.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) span: Range<usize>,
    pub(crate) shown: bool,
}

/// One line as it is shown, and where the caret stands under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Excerpt {
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1, in the file's own line.
    pub(crate) column: usize,
    pub(crate) text: String,
    /// In characters of `text`.
    pub(crate) caret: Range<usize>,
}

/// The line on which `span` begins. `pieces` are in order and do not overlap.
pub(crate) fn excerpt(source: &str, pieces: &[Piece], span: &Range<usize>) -> Excerpt {
    let (line_number, line) = line_of(source, span.start);
    let mut shown = Shown::default();
    let mut at = line.start;
    let first = pieces.partition_point(|piece| piece.span.end <= line.start);
    for piece in &pieces[first..] {
        if piece.span.start >= line.end {
            break;
        }
        let (start, end) = (piece.span.start.max(at), piece.span.end.min(line.end));
        if shown.structure(source, at..start) {
            at = line.end;
            break;
        }
        if piece.shown {
            shown.push(source, start..end);
        } else {
            shown.mask(start..end);
        }
        at = end;
    }
    shown.structure(source, at..line.end);
    shown.finish(source, line_number, &line, span)
}

/// The same for a file that could not be parsed, so that nobody knows where its values are. `harmless` tells of a
/// name whether it is a key or section (else `None`), and whether its value may be shown.
pub(crate) fn unparsed(
    source: &str,
    span: &Range<usize>,
    harmless: impl Fn(&str) -> Option<bool>,
) -> Excerpt {
    let (line_number, line) = line_of(source, span.start);
    let text = &source[line.clone()];
    let shown_to = line.start + shown_length(text, harmless);
    let mut shown = Shown::default();
    let comment = shown.structure(source, line.start..shown_to);
    if !comment && !source[shown_to..line.end].trim().is_empty() {
        shown.mask(shown_to..line.end);
    }
    shown.finish(source, line_number, &line, span)
}

/// How many bytes at the start of an unparsed line may be shown.
fn shown_length(text: &str, harmless: impl Fn(&str) -> Option<bool>) -> usize {
    let last = |path: &str| -> Option<bool> {
        let parts = path
            .split('.')
            .map(|part| harmless(part.trim().trim_matches(['"', '\''])));
        parts.reduce(|one, other| one.and(other)).flatten()
    };
    if text.trim_start().starts_with('[') {
        let name = text.trim_start().trim_start_matches('[');
        let end = name.find(']').unwrap_or(name.len());
        let rest = name[end..].trim_start_matches(']');
        return last(&name[..end]).map_or(0, |_| text.len() - rest.len());
    }
    let (path, value) = text.split_once('=').unwrap_or((text, ""));
    let key_and_sign = text.len() - value.len();
    // Not a word out of somebody's secret, but a key that somebody might write.
    let word = path.trim();
    let secret = word.contains("secret")
        && word
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    match last(path) {
        // A second key on the line is a second value, which may be anything.
        Some(true) if !value.contains('=') => text.len(),
        Some(_) => key_and_sign,
        None if secret => key_and_sign,
        None => 0,
    }
}

/// The number of the line, from 1, that holds the byte at `offset`.
fn line_number(source: &str, offset: usize) -> usize {
    let before = &source.as_bytes()[..offset.min(source.len())];
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// The number of the line that holds the byte at `offset`, and the line's range without its end.
fn line_of(source: &str, offset: usize) -> (usize, Range<usize>) {
    let offset = offset.min(source.len());
    let bytes = source.as_bytes();
    let start = bytes[..offset]
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at + 1);
    let length = bytes[start..].iter().position(|&byte| byte == b'\n');
    let mut end = length.map_or(source.len(), |length| start + length);
    if end > start && bytes[end - 1] == b'\r' {
        end -= 1;
    }
    (line_number(source, start), start..end)
}

/// True for what could rewrite the operator's terminal, or turn the text around in it.
fn is_deceptive(character: char) -> bool {
    let invisible = matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    invisible || character.is_control()
}

/// A line in the making, with a map from bytes of the file to characters shown.
#[derive(Default)]
struct Shown {
    text: String,
    length: usize,
    parts: Vec<(Range<usize>, Range<usize>, bool)>,
}

impl Shown {
    /// Text between pieces: shown up to a comment. True if there was one, which ends the line.
    fn structure(&mut self, source: &str, span: Range<usize>) -> bool {
        let comment = source[span.clone()].find('#');
        self.push(
            source,
            span.start..comment.map_or(span.end, |at| span.start + at),
        );
        comment.is_some()
    }

    fn push(&mut self, source: &str, span: Range<usize>) {
        let before = self.length;
        for character in source[span.clone()].chars() {
            self.text.push(if character == '\t' {
                ' '
            } else if is_deceptive(character) {
                '\u{fffd}'
            } else {
                character
            });
            self.length += 1;
        }
        self.parts.push((span, before..self.length, true));
    }

    fn mask(&mut self, span: Range<usize>) {
        self.text.push_str("***");
        self.parts.push((span, self.length..self.length + 3, false));
        self.length += 3;
    }

    /// The shown character for a byte of the file.
    fn position(&self, source: &str, offset: usize, at_end: bool) -> usize {
        for (span, shown, open) in &self.parts {
            let inside = if at_end {
                offset > span.start && offset <= span.end
            } else {
                span.contains(&offset)
            };
            if inside {
                return match open {
                    true => {
                        shown.start
                            + source
                                .get(span.start..offset)
                                .map_or(0, |text| text.chars().count())
                    }
                    false if at_end => shown.end,
                    false => shown.start,
                };
            }
        }
        self.text.trim_end().chars().count()
    }

    fn finish(
        self,
        source: &str,
        line: usize,
        range: &Range<usize>,
        span: &Range<usize>,
    ) -> Excerpt {
        let text = self.text.trim_end();
        let length = text.chars().count();
        // What is meant may be spaces that are not shown: then it points behind the text.
        let start = self.position(source, span.start, false).min(length);
        let end = self.position(source, span.end.min(range.end), true);
        let end = end.min(length).max(start + 1);
        let column = source
            .get(range.start..span.start.min(range.end))
            .map_or(1, |text| text.chars().count() + 1);
        if length <= WIDTH {
            return Excerpt {
                line,
                column,
                text: text.to_owned(),
                caret: start..end,
            };
        }
        let skipped = start.saturating_sub(WIDTH / 2);
        let taken: String = text.chars().skip(skipped).take(WIDTH).collect();
        let (left, right) = (
            if skipped > 0 { "..." } else { "" },
            if skipped + WIDTH < length { "..." } else { "" },
        );
        let shift = |at: usize| at.min(skipped + WIDTH) - skipped + left.len();
        Excerpt {
            line,
            column,
            text: format!("{left}{taken}{right}"),
            caret: shift(start)..shift(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The line and the caret, one above the other.
    fn picture(excerpt: &Excerpt) -> String {
        format!(
            "{}\n{}{}",
            excerpt.text,
            " ".repeat(excerpt.caret.start),
            "^".repeat(excerpt.caret.len())
        )
    }

    fn find(source: &str, part: &str) -> Range<usize> {
        let start = source.find(part).expect("the test's own text");
        start..start + part.len()
    }

    #[test]
    fn shown_values_stay_and_others_are_masked() {
        let source = "a = 1\nx = \"5m\", secret = \"CANARY # no\" # CANARY\n";
        let pieces = [
            Piece {
                span: find(source, "\"5m\""),
                shown: true,
            },
            Piece {
                span: find(source, "\"CANARY # no\""),
                shown: false,
            },
        ];
        let made = excerpt(source, &pieces, &find(source, "\"5m\""));
        assert_eq!((made.line, made.column), (2, 5));
        assert_eq!(picture(&made), "x = \"5m\", secret = ***\n    ^^^^");
        let made = excerpt(source, &pieces, &find(source, "\"CANARY # no\""));
        assert_eq!((made.line, made.column), (2, 20));
        assert_eq!(
            picture(&made),
            "x = \"5m\", secret = ***\n                   ^^^"
        );
    }

    #[test]
    fn a_value_of_several_lines_is_masked_on_each() {
        let source = "x = '''\nCANARY\nCANARY''', y = 1";
        let value = 4..source.find(", y").expect("there");
        let pieces = [Piece {
            span: value.clone(),
            shown: false,
        }];
        assert_eq!(
            picture(&excerpt(source, &pieces, &value)),
            "x = ***\n    ^^^"
        );
        assert_eq!(
            picture(&excerpt(source, &pieces, &find(source, "y"))),
            "***, y = 1\n     ^"
        );
    }

    #[test]
    fn wide_characters_and_tabs_keep_the_caret_under_its_place() {
        let source = "\té = \"\u{1b}[2J\" x";
        let pieces = [Piece {
            span: find(source, "\"\u{1b}[2J\""),
            shown: true,
        }];
        let made = excerpt(source, &pieces, &find(source, "x"));
        assert_eq!(made.column, 13);
        assert_eq!(picture(&made), " é = \"\u{fffd}[2J\" x\n            ^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_caret() {
        let source = format!("{}X{}", "a".repeat(500), "b".repeat(500));
        let made = excerpt(&source, &[], &(500..501));
        assert_eq!(made.column, 501);
        assert_eq!(made.text.len(), WIDTH + 6);
        assert_eq!(&made.text[made.caret.clone()], "X");
        assert_eq!(excerpt(&source, &[], &(0..1000)).caret, 0..WIDTH);
    }

    #[test]
    fn an_unparsed_line_shows_harmless_values_only() {
        for (line, part, expected) in [
            (
                "fresh_for = 5m # CANARY",
                "5m",
                "fresh_for = 5m\n            ^^",
            ),
            (
                "a.fresh_for = = 5",
                "= 5",
                "a.fresh_for =***\n             ^^^",
            ),
            (
                "fresh_for = \"5m\" client_secret = \"CANARY\"",
                "client",
                "fresh_for =***\n           ^^^",
            ),
            (
                "client_secret = \"CANARY",
                "\"C",
                "client_secret =***\n               ^^^",
            ),
            ("CANARY=", "=", "***\n^^^"),
            ("CANARY", "C", "***\n^^^"),
            ("fresh_for", "f", "fresh_for\n^"),
            ("[accounts", "s", "[accounts\n        ^"),
            ("[a] \"CANARY = 1\"", "\"", "[a]***\n   ^^^"),
            (
                "[[a.accounts]] CANARY",
                "C",
                "[[a.accounts]]***\n              ^^^",
            ),
            ("[CANARY", "C", "***\n^^^"),
            ("name = CANARY", "C", "name =***\n      ^^^"),
        ] {
            let made = unparsed(line, &find(line, part), |name| match name {
                "fresh_for" => Some(true),
                "accounts" | "a" | "name" => Some(false),
                _ => None,
            });
            assert_eq!(picture(&made), expected, "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_text_and_any_span_give_a_line(source in "\\PC*[\n\r\t#=\"\\[]{0,3}\\PC*\n?", a: usize, b: usize, shown: bool) {
            let boundary = |at: usize| (at % (source.len() + 1)..=source.len()).find(|&at| source.is_char_boundary(at)).unwrap_or(0);
            let (a, b) = (boundary(a), boundary(b));
            let span = a.min(b)..a.max(b);
            let pieces = [Piece { span: span.clone(), shown }];
            for made in [excerpt(&source, &pieces, &span), unparsed(&source, &span, |_| Some(shown))] {
                prop_assert!(made.line >= 1 && made.column >= 1 && made.caret.start < made.caret.end);
                prop_assert!(!made.text.contains(char::is_control));
            }
        }
    }
}
