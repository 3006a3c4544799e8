//! Published layouts to and from our models. One file per family translates configuration and names; what they share is here: a
//! checkpoint gives every tensor by its canonical name ([`Arch::tensors`]), as the file holds it. A model folder is `config.json`
//! + `model.safetensors` (or shards with an index) + `tokenizer.json`. It knows no tokenizer and builds no engine.

mod config;
pub mod dit;
mod files;
mod gguf;
pub mod llama;
mod save;

pub use config::Config;
#[cfg(feature = "train")]
pub use save::save_network;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

#[cfg(feature = "train")]
use burn::tensor::Device;

use crate::arch::{Arch, Shape};
use crate::engine::{Engine, Options};
use crate::error::{Error, Result};
use crate::format::gguf::{Gguf, Value};
use crate::format::safetensors::Tensors;
use crate::format::{Stored, Type, trim};
#[cfg(feature = "train")]
use crate::model::Dit;
use files::Files;
use gguf::Order;

/// Is a path that of a GGUF file?
pub fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && !path.is_dir()
}

/// Which layout the files have.
#[derive(Clone, Copy, Debug)]
enum Family {
    /// The BD3-LM code's.
    Dit,
    /// Hugging Face's of Llama, Qwen 2 and Qwen 3.
    Llama,
    /// llama.cpp's, of the same three.
    Ggml {
        /// Rows of q and k stand in pairs.
        paired: bool,
    },
    /// Ours in a GGUF file.
    Ours,
}

impl Family {
    /// The family of a config.json, by its `model_type`.
    fn of(config: &Config) -> Result<Self> {
        let expected = "one of bd3lm, mdlm, llama, qwen2, qwen3";
        match config.opt_str("model_type")?.ok_or_else(|| config.missing("model_type", expected))? {
            "bd3lm" | "mdlm" => Ok(Self::Dit),
            "llama" | "qwen2" | "qwen3" => Ok(Self::Llama),
            other => Err(Error::key(config.path(), "model_type", expected, format!("\"{other}\""))),
        }
    }

    /// What its files call a tensor.
    fn file_name(self, canonical: &str) -> String {
        match self {
            Self::Dit => format!("{}{canonical}", dit::PREFIX),
            Self::Llama | Self::Ours => canonical.into(),
            Self::Ggml { .. } => gguf::file_name(canonical),
        }
    }
}

/// A model as its files describe it, not yet in memory.
pub struct Checkpoint {
    /// The description.
    pub arch: Arch,
    /// Do the files name the mask? If not, `arch.mask` is a family's habit: the last id of a DiT's vocabulary, one beyond the
    /// vocabulary of a plain autoregressive model.
    pub mask_named: bool,
    family: Family,
    files: Files,
    /// The tensor that was given last, by the file's name.
    given: Mutex<Option<String>>,
}

impl Checkpoint {
    /// Opens a model folder, or a file that ends in `.gguf`, and checks that description and tensors agree: nothing missing, nothing unknown, every shape as it
    /// should be.
    ///
    /// # Errors
    /// A path that is no model, a file that can't be read or is damaged, an index that contradicts its shards; else as
    /// [`Checkpoint::new`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::check_place(path)?;
        if is_gguf(path) {
            return Self::of_gguf(Gguf::open(path)?);
        }
        let config = Config::open(&path.join("config.json"))?;
        let family = Family::of(&config)?;
        Self::described(&config, family, Files::open(path)?)
    }

    fn check_place(path: &Path) -> Result<()> {
        let expected =
            "a model: a folder with config.json, model.safetensors and tokenizer.json, or a file that ends in .gguf";
        let found = match std::fs::metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => "nothing of that name",
            Err(e) => return Err(Error::io(path, e)),
            Ok(there) if there.is_dir() && !path.join("config.json").exists() => "a folder without config.json",
            Ok(there) if !there.is_dir() && !is_gguf(path) => "a file of another name",
            Ok(_) => return Ok(()),
        };
        Err(Error::file(path, expected, found))
    }

    /// From a description and open tensors (the model inside the binary).
    ///
    /// # Errors
    /// A family that is not known, a description that makes no model, or tensors that are not those of the description.
    pub fn new(config: &Config, tensors: Tensors) -> Result<Self> {
        Self::described(config, Family::of(config)?, Files::one(tensors))
    }

    fn described(config: &Config, family: Family, files: Files) -> Result<Self> {
        let arch = match family {
            Family::Dit | Family::Ours => dit::read_config(config)?,
            Family::Llama | Family::Ggml { .. } => llama::read_config(config)?,
        };
        Self::checked(arch, config.get("mask_token_id").is_some(), family, files)
    }

    fn of_gguf(file: Gguf) -> Result<Self> {
        let family = gguf::architecture(&file)?;
        if family == gguf::OURS {
            let config = gguf::read_config(&file)?;
            return Self::described(&config, Family::Ours, Files::Gguf(file));
        }
        let arch = gguf::read_llama(&file, family)?;
        let (mask_named, paired) = ((arch.mask as usize) < arch.vocab, family == "llama");
        Self::checked(arch, mask_named, Family::Ggml { paired }, Files::Gguf(file))
    }

    fn checked(arch: Arch, mask_named: bool, family: Family, files: Files) -> Result<Self> {
        let checkpoint = Self { arch, mask_named, family, files, given: Mutex::default() };
        checkpoint.check_tensors()?;
        Ok(checkpoint)
    }

    /// The file, where it is a GGUF file: it may hold a tokenizer and a chat template, too.
    pub fn gguf(&self) -> Option<&Gguf> {
        match &self.files {
            Files::Gguf(file) => Some(file),
            Files::Folder { .. } => None,
        }
    }

    /// A tensor by its canonical name and shape. The tensor given before may be dropped from memory: a borrowed one can still
    /// be read, but is read from the file anew.
    ///
    /// # Errors
    /// A name or shape that the files do not have.
    pub fn take(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>> {
        let file_name = self.family.file_name(name);
        let stored = self.files.stored(&file_name, shape)?;
        let before = self.given.lock().unwrap_or_else(PoisonError::into_inner).replace(file_name);
        if let Some(before) = before {
            self.files.release(&before);
        }
        match self.family {
            Family::Ggml { paired: true } if gguf::interleaved(name) => {
                Ok(gguf::reordered(&stored, self.arch.head_dim(), Order::Halves))
            }
            _ => Ok(stored),
        }
    }

    /// The numbers of [`Checkpoint::take`].
    ///
    /// # Errors
    /// As there; a number that is not finite.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let numbers = self.take(name, shape)?.f32();
        match numbers.iter().position(|x| !x.is_finite()) {
            None => Ok(numbers),
            Some(i) => {
                let name = self.family.file_name(name);
                Err(Error::key(self.files.path(&name), &name, "finite numbers", format!("{} at index {i}", numbers[i])))
            }
        }
    }

    /// Builds the trainable network.
    ///
    /// # Errors
    /// A model of another shape than DiT; a number that is not finite.
    #[cfg(feature = "train")]
    pub fn model(&self, device: &Device) -> Result<Dit> {
        Dit::from_parameters(&self.arch, device, |name, shape| self.f32(name, shape))
    }

    /// Builds the engine.
    ///
    /// # Errors
    /// As [`Engine::new`]; a number that is not finite names its file.
    pub fn engine(&self, options: Options) -> Result<Engine> {
        // The weights come on top of what has been read before them, so that goes first.
        self.files.release_all();
        trim();
        let engine = Engine::new(&self.arch, |name, shape| self.take(name, shape), options);
        self.files.release_all();
        engine.map_err(|e| self.named(e))
    }

    /// An error about a tensor, by the file that has it and the name there.
    fn named(&self, error: Error) -> Error {
        match error {
            Error::Value { name, expected, found } if self.arch.tensors().iter().any(|(known, _)| *known == name) => {
                let name = self.family.file_name(&name);
                Error::key(self.files.path(&name), &name, expected, found)
            }
            other => other,
        }
    }

    /// Writes it as a folder in Hugging Face layout, `config.json` and `model.safetensors`, whose numbers are plain floats.
    ///
    /// # Errors
    /// A type with blocks; a shape that no published family has; a number that is not finite or too large for the type.
    pub fn save(&self, dir: &Path, ty: Type) -> Result<()> {
        if ty.block() > 1 {
            let expected = "one of f32, f16, bf16 in a folder (the others need a file that ends in .gguf)";
            return Err(Error::value("type", expected, ty.name()));
        }
        save::folder(dir, &self.published(), ty, &mut |name, shape| self.take(name, shape)).map_err(|e| self.named(e))
    }

    /// Writes it as a GGUF file, atomically: with llama.cpp's keys and names where it is Llama-shaped, else with ours. `vocabulary`
    /// are the keys of its tokenizer. Says how many matrices got f16 because their rows are not whole blocks.
    ///
    /// # Errors
    /// A shape that none of the architectures has; a number that is not finite or too large for the type.
    pub fn save_gguf(&self, path: &Path, ty: Type, vocabulary: Vec<(String, Value)>) -> Result<usize> {
        save::gguf(path, &self.published(), (ty, vocabulary), &mut |name, shape| self.take(name, shape))
            .map_err(|e| self.named(e))
    }

    /// The description as files have it: a plain autoregressive model has no mask, whatever stands in for one while it is used.
    fn published(&self) -> Arch {
        let mut arch = self.arch.clone();
        if !self.mask_named && matches!(arch.shape, Shape::Llama(_)) {
            arch.mask = llama::no_mask(arch.vocab);
        }
        arch
    }

    fn check_tensors(&self) -> Result<()> {
        let wanted = self.arch.tensors().into_iter().map(|(name, shape)| (self.family.file_name(&name), shape));
        let wanted: Vec<(String, Vec<usize>)> = wanted.collect();
        let check = |(name, shape): &(String, Vec<usize>)| self.files.stored(name, shape).map(|_| ());
        let names = self.files.names();
        // A renamed tensor is told by its new name: wrong shapes come first, then unknown tensors, then missing ones.
        let there: HashSet<&str> = names.iter().copied().collect();
        wanted.iter().filter(|(name, _)| there.contains(name.as_str())).try_for_each(check)?;
        let known: HashSet<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        for name in names {
            if !known.contains(name) && !self.may_have(name)? {
                let expected = format!("only tensors of a {}-layer model of this family", self.arch.layers);
                return Err(Error::key(self.files.path(name), name, expected, "an unknown tensor"));
            }
        }
        wanted.iter().try_for_each(check)
    }

    /// Is this a tensor that the family's files may have beside the network's own? Checks what it holds where that matters.
    fn may_have(&self, name: &str) -> Result<bool> {
        match self.family {
            Family::Dit => dit::may_have(&self.arch, &self.files, name),
            Family::Llama => llama::may_have(&self.arch, &self.files, name),
            Family::Ggml { .. } | Family::Ours => Ok(false),
        }
    }
}
