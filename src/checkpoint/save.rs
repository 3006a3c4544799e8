//! Writing a model from its tensors, one in memory at a time: a folder in Hugging Face layout, with the names and keys of its
//! family, so that the code which published the family reads it; or a GGUF file, which llama.cpp reads where it knows the shape.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use super::gguf::Order;
use super::{Family, dit, llama};
use crate::arch::{Arch, Shape};
use crate::error::{Error, Result};
use crate::format::gguf::Value;
use crate::format::quant::quantise;
use crate::format::{Header, Stored, Type, safetensors, write_atomic};
#[cfg(feature = "train")]
use crate::model::Dit;

/// Gives tensors by canonical name and shape.
pub(super) type Take<'t, 'a> = &'t mut dyn FnMut(&str, &[usize]) -> Result<Stored<'a>>;

/// Writes `config.json` and `model.safetensors`, each atomically. The folder is made if need be.
pub(super) fn folder<'a>(dir: &Path, arch: &Arch, ty: Type, take: Take<'_, 'a>) -> Result<()> {
    let (family, config, extras) = match &arch.shape {
        Shape::Dit(dit) => (Family::Dit, dit::config_json(arch, dit), dit::extras(arch)),
        Shape::Llama(shape) => (Family::Llama, llama::config_json(arch, shape)?, Vec::new()),
    };
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let path = dir.join("model.safetensors");
    let (mut headers, mut canonical) = (Vec::new(), HashMap::new());
    for (name, shape) in arch.tensors() {
        let file_name = family.file_name(&name);
        canonical.insert(file_name.clone(), name);
        headers.push(Header { name: file_name, ty, shape });
    }
    let mut more = HashMap::new();
    for (name, shape, numbers) in extras {
        headers.push(Header { name: name.into(), ty: Type::F32, shape });
        more.insert(name, numbers);
    }
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::write(&path, &metadata, &headers, |header| match more.get(header.name.as_str()) {
        Some(numbers) => quantise(header.ty, numbers).map(Cow::Owned),
        None => {
            let name = &canonical[&header.name];
            encoded(name, header, take(name, &header.shape)?)
        }
    })?;
    let text = serde_json::to_string_pretty(&config).map_err(|e| Error::Run(e.to_string()))?;
    write_atomic(&dir.join("config.json"), |out| writeln!(out, "{text}"))
}

/// Writes a GGUF file of this type with these further keys, atomically; returns how many matrices are f16 because their rows are
/// not whole blocks.
pub(super) fn gguf<'a>(
    path: &Path,
    arch: &Arch,
    (ty, vocabulary): (Type, Vec<(String, Value)>),
    take: Take<'_, 'a>,
) -> Result<usize> {
    let (config, paired) = match &arch.shape {
        Shape::Dit(dit) => (dit::config_json(arch, dit), false),
        Shape::Llama(shape) => (serde_json::Value::Null, llama::family(arch, shape)? == "llama"),
    };
    let mut keys = super::gguf::keys(arch, &config, ty)?;
    keys.extend(vocabulary);
    let keys: Vec<(&str, Value)> = keys.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let (mut headers, mut canonical) = (Vec::new(), HashMap::new());
    for (name, shape) in arch.tensors() {
        let header = super::gguf::header(arch, &name, &shape, ty);
        canonical.insert(header.name.clone(), name);
        headers.push(header);
    }
    let half = headers.iter().filter(|header| ty.block() > 1 && header.ty == Type::F16).count();
    crate::format::gguf::write(path, &keys, &headers, |header| {
        let name = &canonical[&header.name];
        let bytes = encoded(name, header, take(name, &header.shape)?)?;
        if !(paired && super::gguf::interleaved(name)) {
            return Ok(bytes);
        }
        let stored = Stored { ty: header.ty, shape: header.shape.clone(), bytes };
        Ok(super::gguf::reordered(&stored, arch.head_dim(), Order::Pairs).bytes)
    })?;
    Ok(half)
}

/// A tensor's bytes in the type that is wanted. Errors call it by its canonical name.
pub(super) fn encoded<'a>(name: &str, header: &Header, stored: Stored<'a>) -> Result<Cow<'a, [u8]>> {
    // What has blocks already would not come back to the same bytes; of plain floats the numbers are looked at.
    if stored.ty == header.ty && header.ty.block() > 1 {
        return Ok(stored.bytes);
    }
    let named = |e: Error| match e {
        Error::Value { expected, found, .. } => Error::value(name, expected, found),
        other => other,
    };
    quantise(header.ty, &stored.f32()).map(Cow::Owned).map_err(named)
}

/// Writes a trainable network as a folder.
///
/// # Errors
/// The folder can't be written; a number that is not finite or too large for the type.
#[cfg(feature = "train")]
pub fn save_network(dir: &Path, network: &Dit, ty: Type) -> Result<()> {
    let numbers: HashMap<String, Vec<f32>> = network.parameters()?.into_iter().collect();
    folder(dir, &network.arch, ty, &mut |name, shape| {
        let bytes = quantise(Type::F32, &numbers[name])?;
        Ok(Stored { ty: Type::F32, shape: shape.to_vec(), bytes: Cow::Owned(bytes) })
    })
}
