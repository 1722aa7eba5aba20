//! `purge`: makes a running gateway's copies go.

use std::io::{self, Write};

use clap::ArgGroup;
use http::Method;

use super::{
    Failure,
    ask::{Admin, Question},
};
use crate::contacts::ids::is_plain;

const EXAMPLES: &str = "\
Examples:
  contacts-gateway purge --account acme --dry-run
      how many copies of an account would go
  contacts-gateway purge --account acme --stream st-1
      all copies of a stream; nobody sees them again
  contacts-gateway purge --account acme --stream st-1 --skip 20 --limit 10
      one page, and the whole list that it might be cut from
  contacts-gateway purge --all --soft
      everything is stale: fetched anew when asked for, and answered while that fails
  contacts-gateway purge --all --admin https://gateway.internal:8081 --ca-file authority.pem --token-file token
      over TLS, where the gateway's certificate is from an authority of one's own";

/// Makes copies go: hard, or with --soft stale.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES, group(ArgGroup::new("whose").required(true)))]
pub struct Args {
    /// The copies of all accounts.
    #[arg(long, group = "whose")]
    pub all: bool,
    /// The copies of one account, by its name or id.
    #[arg(long, value_name = "ACCOUNT", group = "whose", value_parser = plain)]
    pub account: Option<String>,
    /// Only those of one stream, by its id.
    #[arg(long, value_name = "ID", requires = "account", conflicts_with = "all", value_parser = plain)]
    pub stream: Option<String>,
    /// Only the page at this place.
    #[arg(long, value_name = "N", requires = "stream")]
    pub skip: Option<u64>,
    /// The page's size, if it is not 10.
    #[arg(long, value_name = "N", requires = "skip")]
    pub limit: Option<u32>,
    /// They become stale, and stay of use while upstream fails.
    #[arg(long)]
    pub soft: bool,
    /// Only count them.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub admin: Admin,
}

/// What stands in a query as it is. A `#` would end it there, and more would be purged than was meant.
fn plain(text: &str) -> Result<String, &'static str> {
    let plain = is_plain(text).then(|| text.to_owned());
    plain.ok_or("1 to 128 of A-Z, a-z, 0-9, - and _")
}

impl Args {
    /// What the admin listener is asked.
    fn target(&self) -> String {
        let texts = [("account", &self.account), ("stream", &self.stream)];
        let numbers = [("skip", self.skip), ("limit", self.limit.map(u64::from))];
        let flags = [
            ("all", self.all),
            ("soft", self.soft),
            ("dry_run", self.dry_run),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(name, text)| Some(format!("{name}={}", text.as_ref()?)));
        let numbers = numbers
            .into_iter()
            .filter_map(|(name, number)| Some(format!("{name}={}", number?)));
        let flags = flags
            .into_iter()
            .filter(|(_, set)| *set)
            .map(|(name, _)| format!("{name}=true"));
        let query: Vec<_> = texts.chain(numbers).chain(flags).collect();
        format!("/api/purge?{}", query.join("&"))
    }
}

/// Prints what was purged, or would be, on standard output.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let target = args.target();
    let question = Question {
        method: Method::POST,
        ..Question::get(&target)
    };
    let document = args.admin.ask(question).await?;
    writeln!(io::stdout(), "{document:#}")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Purge {
        #[command(flatten)]
        args: Args,
    }

    fn target(words: &[&str]) -> Result<String, clap::Error> {
        let words = std::iter::once(&"purge").chain(words);
        Ok(Purge::try_parse_from(words)?.args.target())
    }

    #[test]
    fn nothing_wider_is_purged_than_was_meant() {
        let page = [
            "--account",
            "acme",
            "--stream",
            "st-1",
            "--skip",
            "20",
            "--dry-run",
        ];
        let expected = "/api/purge?account=acme&stream=st-1&skip=20&dry_run=true";
        assert_eq!(target(&page).unwrap(), expected);
        for bad in ["st-1#", "st-1&soft=true", "st%2d1", "", "st 1"] {
            assert!(target(&["--account", bad, "--dry-run"]).is_err(), "{bad}");
            assert!(
                target(&["--account", "acme", "--stream", bad]).is_err(),
                "{bad}"
            );
        }
        assert!(target(&["--all", "--account", "acme"]).is_err());
        assert!(target(&["--all", "--stream", "st-1"]).is_err());
    }

    /// Whoever says nothing is not told to purge everything.
    #[test]
    fn both_ways_to_say_whose_are_named() {
        let error = target(&[]).unwrap_err().to_string();
        assert!(error.contains("<--all|--account <ACCOUNT>>"), "{error}");
    }
}
