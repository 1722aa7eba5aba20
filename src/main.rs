//! Arguments to exit code; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use contacts_gateway::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
