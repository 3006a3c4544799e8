//! The binary `bd3`: parses the command line, runs one command, and prints an error in one place. Results go to stdout,
//! everything else to stderr. Exit codes: 0 done, also where Ctrl-C ended it early and what it made is whole; 1 failed while running, 2
//! refused; a command that never watches for Ctrl-C is ended by it as any program is (130 in a shell).

/// A line on stderr. A reader of notes that is gone is no reason to fail (`eprintln!` would panic).
macro_rules! note {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}

mod args;
mod bench;
mod completions;
mod constrain;
mod convert;
mod counts;
mod curve;
mod data;
mod digest;
mod eval;
mod generate;
mod interrupt;
mod job;
mod model;
mod noise;
mod plot;
mod race;
mod record;
mod replay;
mod revise;
mod rule;
mod sample;
mod serve;
mod settle;
mod train;
mod view;

use std::io;
use std::process::ExitCode;

use args::{Cli, Command};
use sample::SampleArgs;

fn main() -> ExitCode {
    let cli = match args::parse::<Cli>(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            note!("{}", args::in_a_line(&error.to_string()));
            return ExitCode::from(2);
        }
        // Help and version, as asked for.
        Err(text) => {
            let _ = text.print();
            return ExitCode::SUCCESS;
        }
    };
    match run(&cli) {
        Err(error) if !reader_is_gone(&error) => {
            let ours = error.downcast_ref::<bd3::Error>();
            note!("error: {}", ours.map_or_else(|| error.to_string(), args::named_as_flags));
            let refused = ours.is_some_and(bd3::Error::is_refusal);
            ExitCode::from(if refused { 2 } else { 1 })
        }
        _ => ExitCode::SUCCESS,
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    match &cli.command {
        None => sample::run(&SampleArgs::bare()),
        Some(Command::Sample(args)) => sample::run(args),
        Some(Command::Replay(args)) => replay::run(args),
        Some(Command::Data(args)) => data::run(args),
        Some(Command::Train(args)) => train::run(args),
        Some(Command::Eval(args)) => eval::run(args),
        Some(Command::Curve(args)) => curve::run(args),
        Some(Command::Noise(args)) => noise::run(args),
        Some(Command::Serve(args)) => serve::run(args),
        Some(Command::Play(args)) => serve::play(args),
        Some(Command::Bench(args)) => bench::run(args),
        Some(Command::Convert(args)) => convert::run(args),
        Some(Command::Completions(args)) => completions::run(args),
    }
}

/// `bd3 | head` has all that it wanted.
fn reader_is_gone(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
