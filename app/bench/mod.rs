//! `bd3 bench`: end-to-end speed, beside the bound that the machine itself sets. What is timed is the real loop, not a copy of it.

mod ceilings;
mod decode;
mod pass;
mod subject;
mod train;

use clap::{Args, Subcommand};

/// Measure speed against what the machine allows
#[derive(Args, Debug)]
pub struct BenchArgs {
    /// What to measure
    #[command(subcommand)]
    what: What,
}

/// What is measured.
#[derive(Subcommand, Debug)]
enum What {
    /// Whole training steps of a small reference model: dropout, gradient clip, AdamW and moving average included
    #[command(after_help = "Example:\n  bd3 bench train --json")]
    Train(train::TrainArgs),
    /// Single passes of the engine, as a share of what memory and multipliers allow
    #[command(
        after_help = "Example:\n  bd3 bench pass --shape 768x12,2048,32000 --format q8_0,q4_0 --rows 1,4,16 --depth 256"
    )]
    Pass(pass::PassArgs),
    /// A whole decode, at a forced number of tokens per pass
    #[command(after_help = "Example:\n  bd3 bench decode --format q8_0 --block 4 --tokens-per-pass 2 -n 256")]
    Decode(decode::DecodeArgs),
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    match &args.what {
        What::Train(args) => train::run(args),
        What::Pass(args) => pass::run(args),
        What::Decode(args) => decode::run(args),
    }
}

/// The middle one of some measurements; of an even number, the upper of the two.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
