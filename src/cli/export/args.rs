//! What `export` is told, and its help.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ValueEnum, error::ErrorKind};
use http::{Uri, uri::Scheme};

use super::{ExportError, How, Verdict};
use crate::{
    cli::{misused, reach::Trust},
    contacts::ids::is_plain,
    upstream::secret::Secret,
};

/// Where the caller's key is, unless a file is named.
const KEY_VARIABLE: &str = "CONTACTS_GATEWAY_KEY";

/// The longest `--wait`.
const WAIT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

const EXAMPLES: &str = "\
Examples:
  contacts-gateway export --account 65f7d49a5dd06e2cefa00000 --stream st-1 --output contacts.csv
      a table; the file is replaced when the whole list is there, and only its owner may read it
  contacts-gateway export --stream st-1 --output contacts.ndjson --accept strict --fresh
      one contact on each line as upstream wrote it, read anew, and only if it is verified
  CONTACTS_GATEWAY_KEY=$(cat key) contacts-gateway export --url https://gateway.internal --stream st-1 | jq .id
      on standard output, once the whole list is there";

const DETAILS: &str = "\
CSV (RFC 4180, UTF-8): nested objects become dotted columns (cellPhone.phoneNumber; a dot in a key is written \\.), in the
order in which they first come. Arrays are JSON text in one cell. null, absent and an empty text are all an empty cell: in
NDJSON they differ. Of a key that stands twice the last counts. A text that a spreadsheet might run as a formula, since it
begins with = + - @, a tab or a line break, gets a ' before it; so does one of those that has a ' already. Numbers stay
as they are. A list may have 1,000 columns.

While the gateway reads the list (merge_in_progress), or its calls for this minute are spent, it is asked again when it
says, for up to --wait. Faults that may pass are waited out four times.

Without a terminal, progress is JSON on standard error, at most one line a second and one at each turn:
  event          asking, waiting, reading, writing, then end or error
  all but these  code, ask_again_s, pages_done, pages_needed, records, records_per_s, estimate_s, budget_wait_s, elapsed_s
  end            verdict, checks, gap (of a settled list: what upstream says less what it sent), records, pages, calls,
                 oldest_s, elapsed_s
  error          code (the gateway's, or a word of this command's own), detail
What is not known is left out.";

/// Writes a whole list to a file or to standard output, or nothing.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = after_help(), after_long_help = after_long_help())]
pub struct Args {
    /// The stream, by its id.
    #[arg(long, value_name = "ID", value_parser = plain)]
    pub stream: String,
    /// Its account, by its id; not needed where the gateway knows it from the stream.
    #[arg(long, value_name = "ID", value_parser = plain)]
    pub account: Option<String>,
    /// The gateway's traffic listener.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", value_parser = base)]
    pub url: Uri,
    #[command(flatten)]
    pub trust: Trust,
    /// A file with the caller's key, in place of the variable CONTACTS_GATEWAY_KEY.
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// The file to write, or - for standard output.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// By default what the file's name ends with, and NDJSON on standard output.
    #[arg(long)]
    pub format: Option<Format>,
    /// The verdicts that will do: verified alone, all but drifting, or any.
    #[arg(long, default_value = "default")]
    pub accept: Accept,
    /// Have the list read anew, however young the gateway's copy is.
    #[arg(long)]
    pub fresh: bool,
    /// Have the list read anew if the gateway's copy is older.
    #[arg(long, value_name = "TIME", conflicts_with = "fresh", value_parser = humantime::parse_duration)]
    pub max_age: Option<Duration>,
    /// How long to wait for the list to begin, at most 7 days.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = wait)]
    pub wait: Duration,
    /// How to show progress on standard error.
    #[arg(long, default_value = "auto")]
    pub progress: How,
}

/// How contacts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One contact on each line, byte for byte
    Ndjson,
    /// A table
    Csv,
}

/// Which verdicts will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accept {
    /// Only verified
    Strict,
    /// All but drifting
    Default,
    /// Any
    Lenient,
}

fn after_help() -> String {
    let codes = Verdict::ALL.map(|verdict| {
        let (code, word) = (verdict.exit_code(), verdict.word());
        format!("\n  {code}  {word:10}  {}", verdict.meaning())
    });
    format!(
        "{EXAMPLES}\n\nExit codes, with the whole list written:{}\nand with nothing written:\n  1  failed\n  2  wrong usage",
        codes.concat()
    )
}

fn after_long_help() -> String {
    format!("{}\n\n{DETAILS}", after_help())
}

fn plain(text: &str) -> Result<String, &'static str> {
    let plain = is_plain(text).then(|| text.to_owned());
    plain.ok_or("1 to 128 of A-Z, a-z, 0-9, - and _")
}

fn base(text: &str) -> Result<Uri, &'static str> {
    let url = text.parse::<Uri>().ok();
    let url = url.filter(|url| [Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&url.scheme()));
    let url = url.ok_or("use one as in http://127.0.0.1:8080")?;
    if url
        .authority()
        .is_none_or(|host| host.as_str().contains('@'))
    {
        return Err("a URL shows what is in it to others: the key has a variable or a file");
    }
    match url.query() {
        Some(_) => Err("use one without a query"),
        None => Ok(url),
    }
}

fn wait(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    (wait <= WAIT_MAX)
        .then_some(wait)
        .ok_or_else(|| "at most 7days".to_owned())
}

impl Args {
    /// `None` is standard output.
    pub(super) fn output(&self) -> Option<&Path> {
        Some(&*self.output).filter(|output| *output != Path::new("-"))
    }

    pub(super) fn format(&self) -> Result<Format, clap::Error> {
        let Some(output) = self.output() else {
            return Ok(self.format.unwrap_or(Format::Ndjson));
        };
        let ending = output
            .extension()
            .and_then(OsStr::to_str)
            .unwrap_or_default();
        let told = match ending.to_ascii_lowercase().as_str() {
            "csv" => Some(Format::Csv),
            "ndjson" | "jsonl" => Some(Format::Ndjson),
            _ => None,
        };
        self.format.or(told).ok_or_else(|| {
            let message = "the file's name ends with neither .ndjson, .jsonl nor .csv: add --format ndjson or --format csv";
            misused("export", ErrorKind::MissingRequiredArgument, message)
        })
    }

    /// The list's address.
    pub(super) fn list(&self) -> Result<Uri, http::Error> {
        let folder = self.url.path().trim_end_matches('/');
        let list = format!(
            "{folder}/agentassist/api/v1/public/{}/contacts?all=true&progress=true",
            self.stream
        );
        let mut parts = self.url.clone().into_parts();
        parts.path_and_query = Some(list.parse()?);
        Ok(Uri::from_parts(parts)?)
    }

    pub(super) fn key(&self) -> Result<Option<Secret>, ExportError> {
        if let Some(file) = &self.key_file {
            return Ok(Some(Secret::from_file(file)?));
        }
        let set =
            std::env::vars_os().find(|(name, value)| name == KEY_VARIABLE && !value.is_empty());
        let read = set.map(|(_, value)| Secret::from_variable(KEY_VARIABLE, Some(&value)));
        Ok(read.transpose()?)
    }
}
