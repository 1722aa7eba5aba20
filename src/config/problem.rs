//! What is wrong with a configuration, as an operator reads it: place, key, what is the matter, and the line itself.

use std::{fmt, io, path::PathBuf};

use super::excerpt::Excerpt;
use crate::{edge::server::tls::TlsProblem, upstream::secret::SecretProblem};

/// Problems that are shown; the rest is only counted.
const SHOWN_MAX: usize = 50;

/// Everything that is wrong with a configuration, in order of position: the file first, then variables by name.
#[derive(Debug)]
pub struct Problems {
    shown: Vec<Problem>,
    count: usize,
}

/// One thing that is wrong.
#[derive(Debug)]
pub struct Problem {
    pub(crate) place: Place,
    /// The key in full, as in `accounts[0].name`; empty if the problem is about no key.
    pub(crate) key: String,
    pub(crate) fault: Fault,
}

/// Where a problem is.
#[derive(Debug)]
pub(crate) enum Place {
    Line(PathBuf, Excerpt),
    File(PathBuf),
    Variable(String),
}

/// Characters of a variable's name that are shown at most. No key's comes near.
const VARIABLE_SHOWN: usize = 200;

/// What is the matter. No variant holds text that may be a secret.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    #[error("is not a regular file, and only such a one is read again")]
    NotAFile,
    #[error("is larger than {0} bytes, which no configuration is")]
    TooLarge(u64),
    #[error("is not UTF-8 text")]
    NotUtf8,
    #[error("{0}")]
    Syntax(String),
    #[error("unknown key (did you mean {0}?)")]
    Misspelt(String),
    #[error("unknown key; known here: {0}")]
    Unknown(String),
    #[error(
        "a secret does not belong in this file: name the file that holds it with client_secret_file, or the environment \
         variable with client_secret_env"
    )]
    SecretInFile,
    #[error("is a section: write [{0}] and its keys below it")]
    Section(String),
    #[error("is not a table: write one [[{0}]] and its keys below it")]
    Item(String),
    #[error("is a list of tables: write [[{0}]], with two brackets, for each")]
    List(String),
    #[error("{shown} {wanted}")]
    Value { shown: String, wanted: String },
    #[error("cannot be set by a variable: what is in a list stands in the file only")]
    ListInVariable,
    #[error("names a section: add __ and one of its keys: {0}")]
    SectionInVariable(String),
    #[error("{0}")]
    Rule(String),
    #[error("{message} (the first is on line {line})")]
    Duplicate { message: String, line: usize },
    #[error("{0}")]
    Secret(#[source] SecretProblem),
    #[error("{0}")]
    Certificate(#[source] TlsProblem),
    /// Should not happen: everything serde refuses was judged before.
    #[error("does not fit")]
    Refused,
}

impl Problems {
    /// `render` turns the first of `raw` into problems; the others are counted.
    pub(crate) fn new<T>(raw: Vec<T>, render: impl FnMut(T) -> Problem) -> Self {
        let count = raw.len();
        Self {
            shown: raw.into_iter().take(SHOWN_MAX).map(render).collect(),
            count,
        }
    }

    pub(crate) fn one(problem: Problem) -> Self {
        Self {
            shown: vec![problem],
            count: 1,
        }
    }

    /// How many there are, shown or not. Never zero.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The first 50.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.shown.iter()
    }
}

impl std::error::Error for Problems {}

/// Every problem on lines of its own, without a newline at the end.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.shown.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        match self.count - self.shown.len() {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// `FILE:LINE:COLUMN: KEY: MESSAGE`, the line and a caret; or `VARIABLE: MESSAGE`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Line(file, Excerpt { line, column, .. }) => {
                write!(f, "{}:{line}:{column}: ", file.display())?
            }
            Place::File(file) => write!(f, "{}: ", file.display())?,
            Place::Variable(name) => {
                let mut name = name.escape_debug();
                let shown: String = name.by_ref().take(VARIABLE_SHOWN).collect();
                let more = name.next().map_or("", |_| "...");
                write!(f, "{shown}{more}: ")?;
            }
        }
        if !self.key.is_empty() && !matches!(self.place, Place::Variable(_)) {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.fault)?;
        if let Place::Line(
            _,
            Excerpt {
                line, text, caret, ..
            },
        ) = &self.place
        {
            let margin = " ".repeat(line.to_string().len());
            let (indent, carets) = (" ".repeat(caret.start), "^".repeat(caret.len()));
            write!(f, "\n{line} | {text}\n{margin} | {indent}{carets}")?;
        }
        Ok(())
    }
}

/// Text from outside as it may stand in a message: quoted, escaped and of bounded length.
pub(crate) fn quoted(text: &str) -> String {
    const CHARACTERS: usize = 48;
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
