//! The command line: which commands there are. The flags of each stand in its own file.

use clap::{Parser, Subcommand};

use crate::bench::BenchArgs;
use crate::completions::CompletionsArgs;
use crate::convert::ConvertArgs;
use crate::curve::CurveArgs;
use crate::data::DataArgs;
use crate::eval::EvalArgs;
use crate::noise::NoiseArgs;
use crate::replay::ReplayArgs;
use crate::sample::SampleArgs;
use crate::serve::{PlayArgs, ServeArgs};
use crate::train::TrainArgs;

/// Train, measure and sample block diffusion language models
///
/// Without a command: `bd3 sample` with the model inside the binary.
#[derive(Parser, Debug)]
#[command(name = "bd3", version)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    Sample(Box<SampleArgs>),
    Replay(ReplayArgs),
    Data(DataArgs),
    Train(TrainArgs),
    Eval(EvalArgs),
    Curve(CurveArgs),
    Noise(NoiseArgs),
    Serve(ServeArgs),
    Play(PlayArgs),
    Bench(BenchArgs),
    Convert(ConvertArgs),
    Completions(CompletionsArgs),
}

/// What the parser of the command line has to say, in one line: it prints a paragraph, tips, the usage and where to find help.
pub fn in_a_line(text: &str) -> String {
    let told = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let told: Vec<&str> = told.map(str::trim).filter(|line| !line.is_empty()).collect();
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("bd3");
    let command: Vec<&str> =
        usage.split(' ').take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '3')).collect();
    format!("{} (see {} --help)", told.join(" ").replace(" tip: ", "; "), command.join(" "))
}

/// An error's text, with the library's names of values as the flags that set them.
pub fn named_as_flags(error: &bd3::Error) -> String {
    let flag = |name: &str| {
        Some(match name {
            "block" | "block size" | "block size of the corrector" => "--block",
            "new tokens" => "-n",
            "least entropy" => "--stop-entropy",
            "detokenizer" => "--detokenize",
            "vocabulary size" => "--tokenizer",
            "temperature" => "--temperature",
            "top-p" => "--top-p",
            "threshold" => "--threshold",
            "threads" => "--threads",
            "steps" => "--steps",
            "share" => "--share",
            "low" => "--low",
            "factor" => "--factor",
            "bound" => "--bound",
            "drift" => "--drift",
            "stable" => "--stable",
            "rule" => "--rule",
            "window" => "--window",
            "passes" => "--passes",
            "guidance" => "--guidance",
            "template" => "--infill",
            "eta" => "--eta",
            "edit threshold" | "threshold of remask" | "threshold of look-back" | "threshold of the corrector" => {
                "--revise-threshold"
            }
            "edit passes" => "--revise-rounds",
            "window of look-back" => "--look-window",
            "draws" => "--draws",
            "batch" => "--batch",
            "split" => "--split",
            "wrap" => "--wrap",
            "separator" => "--separator",
            _ => return None,
        })
    };
    match error {
        bd3::Error::Value { name, expected, found } => {
            let name = flag(name).unwrap_or(name);
            format!("{name}: expected {expected}, found {found}")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_error_is_one_line() {
        for (arguments, told) in [
            (&["bd3", "train"][..], "error: the following required arguments were not provided: "),
            (&["bd3", "sample", "--sed", "1"], "error: unexpected argument '--sed' found"),
            (&["bd3", "smaple"], "error: unrecognized subcommand 'smaple'"),
            (&["bd3", "sample", "-n", "1000000000000000000"], "from 0 to 1000000000"),
        ] {
            let line = in_a_line(&Cli::try_parse_from(arguments).unwrap_err().to_string());
            assert!(line.contains(told) && line.lines().count() == 1 && line.contains("(see bd3"), "{line}");
        }
    }

    #[test]
    fn every_command_has_an_example_and_every_flag_a_help() {
        let mut pending = vec![Cli::command()];
        while let Some(command) = pending.pop() {
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
            if !command.has_subcommands() {
                let example = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(example.starts_with("Example:\n  bd3 "), "{}", command.get_name());
            }
            pending.extend(command.get_subcommands().cloned());
        }
    }
}
