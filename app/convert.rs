//! `bd3 convert`: a model with its numbers stored in another type, as a folder in Hugging Face layout or as a GGUF file.

use std::path::{Path, PathBuf};

use bd3::checkpoint::is_gguf;
use bd3::data::build::check_out;
use bd3::format::gguf::Value;
use bd3::format::{Type, write_atomic};
use bd3::tokenizer::chat::{self, ChatTemplate};
use bd3::{Error, Result};
use clap::{Args, ValueEnum};

use crate::model::{self, Model};
use crate::view;

/// Store a model's numbers in another type, as a folder or as a GGUF file
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bd3 convert runs/tiny/model tiny.gguf --to q8_0")]
pub struct ConvertArgs {
    /// A model folder, a .gguf file, or `tiny`, the model inside the binary
    model: PathBuf,
    /// The folder to write (new, or empty), or a new file that ends in .gguf
    out: PathBuf,
    /// How each number is stored; the types with blocks (q...) need a .gguf file
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
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q4_0")]
    Q4_0,
    #[value(name = "q4_1")]
    Q4_1,
}

/// Runs the command.
pub fn run(args: &ConvertArgs) -> anyhow::Result<()> {
    let ty = match args.to {
        TypeName::F32 => Type::F32,
        TypeName::F16 => Type::F16,
        TypeName::Bf16 => Type::Bf16,
        TypeName::Q8_0 => Type::Q8_0,
        TypeName::Q4_0 => Type::Q4_0,
        TypeName::Q4_1 => Type::Q4_1,
    };
    if is_gguf(&args.out) {
        if args.out.exists() {
            return Err(Error::file(&args.out, "a new file", "one that is there").into());
        }
        file(&model::open(Some(&args.model))?, args, ty)?;
    } else {
        if ty.block() > 1 {
            let expected = format!("f32, f16 or bf16 for a folder, or an OUT that ends in .gguf for {}", ty.name());
            return Err(Error::value("--to", expected, ty.name()).into());
        }
        check_out(&args.out)?;
        folder(&model::open(Some(&args.model))?, args, ty)?;
    }
    Ok(view::print(&format!("{}\n", args.out.display()))?)
}

fn folder(model: &Model, args: &ConvertArgs, ty: Type) -> Result<()> {
    let (template, left_out) = template(model, &args.model);
    model.checkpoint.save(&args.out, ty)?;
    model.tokenizer.save(&args.out)?;
    say(left_out);
    match template {
        Some(text) => write_atomic(&args.out.join("chat_template.jinja"), |out| out.write_all(text.as_bytes())),
        None => Ok(()),
    }
}

fn file(model: &Model, args: &ConvertArgs, ty: Type) -> Result<()> {
    // What is worth a note is said once the file is there.
    let mut notes = Vec::new();
    let keys = match model.checkpoint.gguf() {
        // What the other file says about texts and about itself is true of this one, too.
        Some(file) => file.values("")?.into_iter().filter(|(key, _)| is_kept(key)).collect(),
        None => {
            let vocabulary = model.tokenizer.to_gguf(model.checkpoint.arch.vocab)?;
            if let Some(why) = vocabulary.missing.filter(|_| model.checkpoint.arch.dit().is_err()) {
                notes.push(format!("llama.cpp can't read the tokenizer in this file ({why}); bd3 can"));
            }
            let mut keys = vocabulary.keys;
            let (template, left_out) = template(model, &args.model);
            notes.extend(left_out);
            keys.extend(template.map(|text| (chat::KEY.to_string(), Value::Text(text))));
            keys
        }
    };
    let half = model.checkpoint.save_gguf(&args.out, ty, keys)?;
    if half > 0 {
        notes.push(format!("{half} matrices are f16, as their rows are not whole blocks of {}", ty.block()));
    }
    say(notes);
    Ok(())
}

fn say(notes: impl IntoIterator<Item = String>) {
    notes.into_iter().for_each(|note| note!("note: {note}"));
}

/// Keys that are neither the model's own nor about how its numbers are stored: those are written anew.
fn is_kept(key: &str) -> bool {
    let anew = ["architecture", "type", "file_type", "quantization_version", "alignment"];
    match key.split_once('.') {
        Some(("general", name)) => !anew.contains(&name),
        Some(("tokenizer", name)) => {
            !["bos", "eos", "padding", "mask"].iter().any(|id| name == format!("ggml.{id}_token_id"))
        }
        _ => false,
    }
}

/// The source of the chat template, if there is one that can be read, and a note if there is one that can't.
fn template(model: &Model, path: &Path) -> (Option<String>, Option<String>) {
    let found = match model.checkpoint.gguf() {
        Some(file) => ChatTemplate::from_gguf(file, &model.tokenizer),
        None => ChatTemplate::from_folder(path, &model.tokenizer),
    };
    match found {
        Ok(template) => (template.map(|template| template.source().to_string()), None),
        Err(error) => (None, Some(format!("the chat template is left out ({error})"))),
    }
}
