//! From a MODEL on the command line to a description, a tokenizer and a network. A MODEL is a folder in Hugging Face layout.

use std::path::Path;

use bd3::arch::Arch;
use bd3::checkpoint::dit::Checkpoint;
use bd3::tokenizer::{Special, Tokenizer};
use bd3::{Error, Result};

/// A model whose files have been read, not yet on a device.
pub struct Model {
    /// As the user wrote it.
    pub name: String,
    /// Description and tensors.
    pub checkpoint: Checkpoint,
    /// Its tokenizer, with the special ids that the model says.
    pub tokenizer: Tokenizer,
}

/// Opens a model folder, or the model inside the binary.
pub fn open(path: Option<&Path>) -> Result<Model> {
    let Some(dir) = path else {
        return Err(Error::value("MODEL", "a folder with config.json, model.safetensors and tokenizer.json", "none"));
    };
    let checkpoint = Checkpoint::open(dir)?;
    let tokenizer = told(Tokenizer::load(dir)?, &checkpoint.arch, dir)?;
    Ok(Model { name: dir.display().to_string(), checkpoint, tokenizer })
}

/// The tokenizer of the model inside the binary, if there is one.
pub fn built_in_tokenizer() -> Result<Option<Tokenizer>> {
    Ok(None)
}

/// The tokenizer with the special ids of the model; what the model does not say, the names of the tokenizer do.
fn told(tokenizer: Tokenizer, arch: &Arch, dir: &Path) -> Result<Tokenizer> {
    let (ours, named) = (arch.special, tokenizer.special());
    let tokenizer = tokenizer.with_special(Special {
        bos: ours.bos.or(named.bos),
        eos: ours.eos.or(named.eos),
        pad: ours.pad.or(named.pad),
        mask: arch.mask,
    })?;
    if tokenizer.vocab_size() > arch.vocab {
        let expected = format!("at most {} ids, as config.json says", arch.vocab);
        return Err(Error::file(dir.join("tokenizer.json"), expected, tokenizer.vocab_size().to_string()));
    }
    Ok(tokenizer)
}

impl Model {
    /// Scratch.
    pub fn denoiser(&self) -> Result<crate::fake::Fake> {
        Ok(crate::fake::Fake(self.checkpoint.arch.mask))
    }
}
