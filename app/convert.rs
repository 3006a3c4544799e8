//! `bd3 convert`: a model folder with its numbers stored in another float type.

use std::path::PathBuf;

use bd3::checkpoint::dit;
use bd3::data::build::check_out;
use bd3::format::safetensors::Float;
use burn::tensor::Device;
use clap::{Args, ValueEnum};

use crate::{model, view};

/// Store a model's numbers in another type
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bd3 convert runs/tiny/model models/tiny --to f16")]
pub struct ConvertArgs {
    /// A model folder
    model: PathBuf,
    /// The folder to write (new, or empty)
    out: PathBuf,
    /// How each number is stored
    #[arg(long, value_enum)]
    to: FloatName,
}

/// See [`Float`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FloatName {
    F32,
    F16,
}

/// Runs the command.
pub fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    check_out(&args.out)?;
    let model = model::open(Some(&args.model))?;
    let float = match args.to {
        FloatName::F32 => Float::F32,
        FloatName::F16 => Float::F16,
    };
    dit::save(&args.out, &model.checkpoint.model(&Device::flex())?, float)?;
    model.tokenizer.save(&args.out)?;
    Ok(view::print(&format!("{}\n", args.out.display()))?)
}
