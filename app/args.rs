//! The command line: which commands there are. The flags of each stand in its own file.

use std::ffi::OsString;

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

/// Reads words of a command line. A negative number is a value wherever one is taken, so that what is refused is the number.
///
/// # Errors
/// What the parser has to say.
pub fn parse<P: Parser>(words: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<P, clap::Error> {
    let mut command = taking_numbers(P::command());
    let mut matches = command.try_get_matches_from_mut(words)?;
    P::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

fn taking_numbers(command: clap::Command) -> clap::Command {
    let takes = |argument: &clap::Arg| !argument.is_positional() && argument.get_action().takes_values();
    let command =
        command.mut_args(|argument| if takes(&argument) { argument.allow_negative_numbers(true) } else { argument });
    command.mut_subcommands(taking_numbers)
}

/// What Rust says of texts that are no numbers, and the same as the rest of the program says it.
const WORDS: [(&str, &str); 6] = [
    ("invalid digit found in string", "expected a whole number that is not negative"),
    ("cannot parse integer from empty string", "expected a whole number"),
    ("number too large to fit in target type", "expected a smaller number"),
    ("number would be zero for non-zero type", "expected a whole number above 0"),
    ("invalid float literal", "expected a number"),
    ("cannot parse float from empty string", "expected a number"),
];

/// What the parser of the command line has to say, in one line: it prints a paragraph, tips, the usage and where to find help.
pub fn in_a_line(text: &str) -> String {
    let told = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let told: Vec<&str> = told.map(str::trim).filter(|line| !line.is_empty()).collect();
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("bd3");
    let command: Vec<&str> =
        usage.split(' ').take_while(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '3')).collect();
    let told = told.join(" ").replace(" tip: ", "; ");
    let told = WORDS.iter().fold(told, |told, (theirs, ours)| told.replace(theirs, ours));
    format!("{told} (see {} --help)", command.join(" "))
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
            "budget" => "--budget-ms",
            "budget of a block" => "--passes, --budget-ms",
            "guidance" => "--guidance",
            "revision" => "--revise",
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
            (&["bd3", "sample", "--seed", "-1"], "'-1' for '--seed <N>': expected a whole number that is not negative"),
            (&["bd3", "sample", "--budget-ms", "-3"], "'-3' for '--budget-ms <MS>': expected a whole number"),
            (&["bd3", "sample", "--budget-ms", "nan"], "expected a whole number"),
            (&["bd3", "bench", "pass", "--rows", "1,x"], "expected a whole number"),
            (&["bd3", "eval", "tiny", "a.txt", "--block", "1, x"], "expected a whole number from 1"),
            (&["bd3", "curve", "--block", "0"], "expected a whole number from 1"),
            (&["bd3", "noise", "hi", "--levels", "4000000000"], "expected a whole number from 2 to 101"),
            (&["bd3", "eval", "tiny", "--judge", "tiny", "--generate", "1000000000"], "from 1 to 1000000"),
            (&["bd3", "serve", "--host", "local"], "expected an address, such as 127.0.0.1, or localhost"),
            (&["bd3", "serve", "--lanes", "0"], "expected a whole number from 1"),
            (&["bd3", "serve", "--time-limit", "0"], "expected a whole number from 1"),
            (&["bd3", "serve", "--api-key", ""], "--api-key"),
            (&["bd3", "serve", "--alias", ""], "--alias"),
        ] {
            let line = in_a_line(&parse::<Cli>(arguments).unwrap_err().to_string());
            assert!(!line.contains("'-- "), "{line}");
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
