//! From a MODEL on the command line to a description, a tokenizer and a network. A MODEL is a folder in Hugging Face layout, a
//! GGUF file, or nothing: then it is the model inside the binary.

use std::path::{Path, PathBuf};

use bd3::arch::Shape;
use bd3::checkpoint::{Checkpoint, Config};
use bd3::format::safetensors::Tensors;
use bd3::tokenizer::chat::ChatTemplate;
use bd3::tokenizer::{Special, Tokenizer};
use bd3::{Error, Result};

use crate::digest;

/// The files of the model inside the binary: description, tensors, tokenizer.
const BUILT_IN: [&[u8]; 3] = [
    include_bytes!("../models/tiny/config.json"),
    include_bytes!("../models/tiny/model.safetensors"),
    include_bytes!("../models/tiny/tokenizer.json"),
];
/// A MODEL of this name is the one inside the binary, where nothing else has it.
pub const BUILT_IN_NAME: &str = "tiny";

/// A model whose files have been read, not yet on a device.
pub struct Model {
    /// As the user wrote it.
    pub name: String,
    /// Its folder or file; `None` inside the binary.
    path: Option<PathBuf>,
    /// Description and tensors.
    pub checkpoint: Checkpoint,
    /// Its tokenizer, with the special ids that the model says.
    pub tokenizer: Tokenizer,
}

impl Model {
    /// Says on stderr when a block size was not trained.
    pub fn note_untrained(&self, block: usize) {
        let sizes = self.checkpoint.arch.block_sizes();
        if !sizes.contains(&block) {
            note!("note: {} was trained at block sizes {sizes:?}, not at {block}", self.name);
        }
    }

    /// SHA-256 of its files: what was measured with it belongs to these weights.
    ///
    /// # Errors
    /// A file that can't be read.
    pub fn hash(&self) -> Result<String> {
        self.path.as_ref().map_or_else(|| Ok(digest::bytes(&BUILT_IN)), |path| digest::model(path))
    }

    /// Its chat template.
    ///
    /// # Errors
    /// It has none.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        let none = || Error::value("--chat", "a model with a chat template", format!("none in {}", self.name));
        self.find_chat_template()?.ok_or_else(none)
    }

    /// Its chat template, if it has one.
    ///
    /// # Errors
    /// One that can't be read.
    pub fn find_chat_template(&self) -> Result<Option<ChatTemplate>> {
        match (self.checkpoint.gguf(), &self.path) {
            (Some(file), _) => ChatTemplate::from_gguf(file, &self.tokenizer),
            (None, Some(dir)) => ChatTemplate::from_folder(dir, &self.tokenizer),
            (None, None) => Ok(None),
        }
    }
}

/// Opens a model folder, a GGUF file, or the model inside the binary.
pub fn open(path: Option<&Path>) -> Result<Model> {
    let Some(path) = path.filter(|path| !is_built_in(path)) else { return built_in() };
    let mut checkpoint = Checkpoint::open(path)?;
    let tokenizer = match checkpoint.gguf() {
        Some(file) => Tokenizer::from_gguf(file)?,
        None => Tokenizer::load(path)?,
    };
    let tokenizer = told(tokenizer, &mut checkpoint, path)?;
    Ok(Model { name: path.display().to_string(), path: Some(path.into()), checkpoint, tokenizer })
}

/// The weights alone: a model folder without a tokenizer will do.
pub fn checkpoint(path: &Path) -> Result<Checkpoint> {
    if is_built_in(path) { built_in().map(|model| model.checkpoint) } else { Checkpoint::open(path) }
}

/// A name that means the model inside the binary, as nothing else has it.
fn is_built_in(path: &Path) -> bool {
    path == Path::new(BUILT_IN_NAME) && !path.exists()
}

/// The tokenizer of the model inside the binary.
pub fn built_in_tokenizer() -> Result<Tokenizer> {
    Tokenizer::from_bytes(BUILT_IN[2])
}

fn built_in() -> Result<Model> {
    let [config, tensors, tokenizer] = BUILT_IN;
    let dir = Path::new(BUILT_IN_NAME);
    let config = Config::parse(&dir.join("config.json"), config)?;
    let mut checkpoint = Checkpoint::new(&config, Tensors::embedded("tiny/model.safetensors", tensors)?)?;
    let tokenizer = told(Tokenizer::from_bytes(tokenizer)?, &mut checkpoint, dir)?;
    Ok(Model { name: BUILT_IN_NAME.into(), path: None, checkpoint, tokenizer })
}

/// The tokenizer with the special ids of the model; what the model does not say, the names of the tokenizer do. A plain
/// autoregressive model has no mask; what then stands for a token not yet known is an id that the tokenizer does not use.
fn told(tokenizer: Tokenizer, checkpoint: &mut Checkpoint, path: &Path) -> Result<Tokenizer> {
    let named = tokenizer.special();
    let vocab = checkpoint.arch.vocab;
    let maskless = !checkpoint.mask_named && matches!(checkpoint.arch.shape, Shape::Llama(_));
    if maskless || !checkpoint.mask_named && (named.mask as usize) < vocab {
        checkpoint.arch.mask = named.mask;
    }
    let arch = &checkpoint.arch;
    // In a GGUF file all of it is one file.
    let beside = |name: &str| if checkpoint.gguf().is_some() { path.to_path_buf() } else { path.join(name) };
    if arch.mask != named.mask {
        let expected = format!("{}, the mask of the tokenizer.json beside it", named.mask);
        return Err(Error::key(beside("config.json"), "mask_token_id", expected, arch.mask.to_string()));
    }
    let ours = arch.special;
    if checkpoint.gguf().is_none() {
        for (key, what, ours, named) in
            [("bos_token_id", "beginning", ours.bos, named.bos), ("eos_token_id", "end", ours.eos, named.eos)]
        {
            let Some(id) = ours else { continue };
            let refuse = |expected| Err(Error::key(beside("config.json"), key, expected, id.to_string()));
            if id == arch.mask {
                return refuse(format!("a token other than the mask {id}"));
            }
            // A Llama-like model may name several, of which a chat ends with another than a text does: all are added tokens.
            let other = matches!(arch.shape, Shape::Llama(_)) && tokenizer.is_added(id);
            if let Some(named) = named.filter(|&named| named != id && !other) {
                return refuse(format!("{named}, the {what} of text of the tokenizer.json beside it"));
            }
        }
    }
    let special = Special {
        bos: ours.bos.or(named.bos),
        eos: ours.eos.or(named.eos),
        pad: ours.pad.or(named.pad),
        mask: arch.mask,
    };
    let tokenizer = tokenizer.with_special(special).map_err(|error| match error {
        Error::Value { name, expected, found } => {
            Error::key(beside("config.json"), name.replace(" id", "_token_id"), expected, found)
        }
        other => other,
    })?;
    let beyond = maskless && arch.mask as usize == vocab;
    if tokenizer.vocab_size() > vocab + usize::from(beyond) {
        let expected = format!("at most {vocab} ids, as the model has");
        return Err(Error::file(beside("tokenizer.json"), expected, tokenizer.vocab_size().to_string()));
    }
    Ok(tokenizer)
}
