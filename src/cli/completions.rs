//! `completions SHELL`: what a shell needs to complete this program's commands and flags.

use std::io::{self, Write};

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::{Cli, Failure};

const EXAMPLES: &str = "\
Examples:
  contacts-gateway completions bash > /etc/bash_completion.d/contacts-gateway
  contacts-gateway completions zsh > ~/.zfunc/_contacts-gateway
      with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
  contacts-gateway completions fish > ~/.config/fish/completions/contacts-gateway.fish";

/// Prints a shell's completions on standard output.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell that they are for.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints them.
pub(super) fn run(args: Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(
        args.shell,
        &mut Cli::command(),
        "contacts-gateway",
        &mut script,
    );
    // Of a program with a dash in its name, clap_complete looks for bash's commands under another name than it gives them.
    let script =
        String::from_utf8_lossy(&script).replace("contacts__subcmd__gateway", "contacts__gateway");
    Ok(io::stdout().write_all(script.as_bytes())?)
}
