//! `purge`: makes a running gateway's copies go.

use std::io::{self, Write};

use http::Method;

use super::{
    Failure,
    ask::{Admin, Question},
};

const EXAMPLES: &str = "\
Examples:
  contacts-gateway purge --account acme --dry-run
      how many copies of an account would go
  contacts-gateway purge --account acme --stream st-1
      all copies of a stream; nobody sees them again
  contacts-gateway purge --account acme --stream st-1 --skip 20 --limit 10
      one page
  contacts-gateway purge --all --soft
      everything is stale: fetched anew when asked for, and answered while that fails";

/// Makes copies go: hard, or with --soft stale.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The copies of all accounts.
    #[arg(long, conflicts_with = "account", required_unless_present = "account")]
    pub all: bool,
    /// The copies of one account, by its name or id.
    #[arg(long, value_name = "ACCOUNT")]
    pub account: Option<String>,
    /// Only those of one stream, by its id.
    #[arg(long, value_name = "ID", requires = "account")]
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
    let question = Question {
        method: Method::POST,
        target: &args.target(),
        account: None,
        cache_control: None,
    };
    let document = args.admin.ask(question).await?;
    writeln!(io::stdout(), "{document:#}")?;
    Ok(())
}
