//! `config print --config FILE`: what a configuration comes to.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use super::Failure;
use crate::config;

const EXAMPLES: &str = "\
Examples:
  contacts-gateway config print --config gateway.toml
  CONTACTS_GATEWAY__CACHE__FRESH_FOR=10m contacts-gateway config print --config gateway.toml | grep -v '# default'
      what differs from the defaults, and where it is set
  contacts-gateway config print --config gateway.toml > whole.toml
      a file that says the same without variables; claims are not printed, and must be added";

/// Shows configurations.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// Print every value that is in force, as TOML, and where it is from
    #[command(after_help = EXAMPLES)]
    Print(Args),
}

/// Prints every value that is in force: from the file, a variable or by default. No secret is read, and none is printed.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// Prints on standard output.
pub(super) fn run(command: &Command) -> Result<(), Failure> {
    let Command::Print(args) = command;
    let text = config::effective(&args.config, std::env::vars_os())?;
    io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
