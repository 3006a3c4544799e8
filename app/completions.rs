//! `bd3 completions`: the command line as a shell understands it.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::view;

/// Print a completion script for a shell
#[derive(clap::Args, Debug)]
#[command(after_help = "Example:\n  bd3 completions bash > ~/.local/share/bash-completion/completions/bd3")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the command.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "bd3", &mut script);
    Ok(view::print(&String::from_utf8(script)?)?)
}
