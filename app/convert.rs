//! `bd3 convert`: a model folder with its numbers stored in another float type.

use std::path::PathBuf;

use bd3::data::build::check_out;
use bd3::format::Type;
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
    to: TypeName,
}

/// See [`Type`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum TypeName {
    F32,
    F16,
    Bf16,
}

/// Runs the command.
pub fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    check_out(&args.out)?;
    let model = model::open(Some(&args.model))?;
    let ty = match args.to {
        TypeName::F32 => Type::F32,
        TypeName::F16 => Type::F16,
        TypeName::Bf16 => Type::Bf16,
    };
    model.checkpoint.save(&args.out, ty)?;
    model.tokenizer.save(&args.out)?;
    Ok(view::print(&format!("{}\n", args.out.display()))?)
}
