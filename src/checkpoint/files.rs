//! The tensors of a checkpoint, in one file or several. It knows the names that the files have, not what they mean.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::Config;
use crate::error::{Error, Result};
use crate::format::Stored;
use crate::format::gguf::Gguf;
use crate::format::safetensors::Tensors;

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Open files.
pub(super) enum Files {
    /// One safetensors file, or the shards that an index names.
    Folder {
        /// The file, or the index: what is at fault where a tensor is nowhere.
        path: PathBuf,
        shards: Vec<Tensors>,
    },
    /// One GGUF file.
    Gguf(Gguf),
}

impl Files {
    /// One open file.
    pub fn one(tensors: Tensors) -> Self {
        Self::Folder { path: tensors.path().into(), shards: vec![tensors] }
    }

    /// Opens `model.safetensors` of a folder, or the shards of `model.safetensors.index.json` where there is no such file.
    pub fn open(dir: &Path) -> Result<Self> {
        let index = dir.join(INDEX);
        if dir.join(SINGLE).exists() || !index.exists() {
            return Tensors::open(&dir.join(SINGLE)).map(Self::one);
        }
        let config = Config::open(&index)?;
        let expected = "an object from names of tensors to names of files in the same folder";
        let map = config.get("weight_map").ok_or_else(|| config.missing("weight_map", expected))?;
        let bad = |found: &Value| Error::key(&index, "weight_map", expected, found.to_string());
        let map = map.as_object().ok_or_else(|| bad(map))?;
        let mut names = BTreeSet::new();
        for file in map.values() {
            names.insert(file.as_str().filter(|name| is_plain(name)).ok_or_else(|| bad(file))?);
        }
        let shards = names.iter().map(|name| Tensors::open(&dir.join(name))).collect::<Result<Vec<Tensors>>>()?;
        // A tensor in a shard that the index does not name for it could be a stale one: which is meant is not ours to guess.
        for (shard, file) in shards.iter().zip(&names) {
            for name in shard.names() {
                if map.get(name).and_then(Value::as_str) != Some(*file) {
                    let found = map.get(name).map_or("no such key".into(), Value::to_string);
                    return Err(Error::key(&index, name, format!("\"{file}\", the file that has it"), found));
                }
            }
        }
        Ok(Self::Folder { path: index, shards })
    }

    /// The file to name in an error about a tensor.
    pub fn path(&self, name: &str) -> &Path {
        match self {
            Self::Folder { path, shards } => shard(shards, name).map_or(path, Tensors::path),
            Self::Gguf(file) => file.path(),
        }
    }

    /// Every tensor's name.
    pub fn names(&self) -> Vec<&str> {
        match self {
            Self::Folder { shards, .. } => shards.iter().flat_map(Tensors::names).collect(),
            Self::Gguf(file) => file.names().collect(),
        }
    }

    /// A tensor as its file holds it.
    ///
    /// # Errors
    /// It is missing, or has another shape or a type of numbers that is not ours.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>> {
        match self {
            Self::Folder { path, shards } => match (shard(shards, name), shards.as_slice()) {
                (Some(tensors), _) | (None, [tensors]) => tensors.stored(name, shape),
                (None, _) => {
                    Err(Error::key(path, name, format!("a float tensor of shape {shape:?}"), "no such tensor"))
                }
            },
            Self::Gguf(file) => file.stored(name, shape),
        }
    }

    /// Lets the system take back a tensor's memory.
    pub fn release(&self, name: &str) {
        match self {
            Self::Folder { shards, .. } => shards.iter().for_each(|tensors| tensors.release(name)),
            Self::Gguf(file) => file.release(name),
        }
    }

    /// The same for everything.
    pub fn release_all(&self) {
        match self {
            Self::Folder { shards, .. } => shards.iter().for_each(Tensors::release_all),
            Self::Gguf(file) => file.release_all(),
        }
    }
}

fn shard<'a>(shards: &'a [Tensors], name: &str) -> Option<&'a Tensors> {
    shards.iter().find(|tensors| tensors.shape(name).is_some())
}

/// The name of a file, not a way to another folder.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
}
