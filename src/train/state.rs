//! What a run needs to go on: parameters, moments, averages, place in the data, clip intervals, recipe. One file, written
//! atomically; there are no generator states, because every draw is a function of seed and step.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::data::Cursor;
use crate::error::{Error, Result};
use crate::format::safetensors::{self as st, Tensors};
use crate::format::{Header, Type};
use crate::model::{Dit, ops};
use crate::recipe::Recipe;

use super::optim::{Optimizer, Slot};

/// The numbers beside the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Finished optimiser steps.
    pub step: u64,
    /// Text tokens seen.
    pub tokens: u64,
    /// Place in the data.
    pub cursor: Cursor,
    /// Clip interval by block size, `[size, beta, omega]`.
    pub clips: Vec<(usize, f64, f64)>,
    /// True where the clip search and the validation of this step are still to come: a resumed run begins with them.
    #[serde(default)]
    pub unmeasured: bool,
    /// The recipe, every default written out.
    pub recipe: String,
}

const KEY: &str = "progress";
const KINDS: [&str; 4] = ["param", "m", "v", "ema"];

/// Where a run keeps its state.
pub fn path(dir: &Path) -> PathBuf {
    dir.join("state").join("state.safetensors")
}

/// Writes the state of a run.
///
/// # Errors
/// A file that can't be written; a device that fails; an optimiser of other shapes.
pub fn save(dir: &Path, model: &Dit, optimizer: &Optimizer, progress: &Progress) -> Result<()> {
    let path = path(dir);
    std::fs::create_dir_all(dir.join("state")).map_err(|e| Error::io(dir.join("state"), e))?;
    let (mut tensors, mut numbers) = (Vec::new(), HashMap::new());
    for ((name, data), slot) in model.parameters()?.into_iter().zip(&optimizer.slots) {
        for kind in KINDS {
            tensors.push(Header { name: format!("{kind}.{name}"), ty: Type::F32, shape: slot.m.dims().to_vec() });
        }
        numbers.insert(name, (data, slot));
    }
    let text = serde_json::to_string(progress).map_err(|e| Error::Run(e.to_string()))?;
    st::write(&path, &BTreeMap::from([(KEY.to_string(), text)]), &tensors, |tensor| {
        let (kind, name) = tensor.name.split_once('.').unwrap_or_default();
        let (data, slot) = &numbers[name];
        let bytes = |numbers: &[f32]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let moment = match kind {
            "m" => &slot.m,
            "v" => &slot.v,
            "ema" => &slot.ema,
            _ => return Ok(bytes(data)),
        };
        Ok(bytes(&ops::to_vec(moment.clone())?))
    })
}

/// The numbers of a run's state, without its tensors.
///
/// # Errors
/// A state that is missing, damaged, or without these numbers.
pub fn progress(dir: &Path) -> Result<Progress> {
    numbers(dir, &Tensors::open(&path(dir))?)
}

fn numbers(dir: &Path, tensors: &Tensors) -> Result<Progress> {
    let path = path(dir);
    let text = tensors.metadata().get(KEY).ok_or_else(|| Error::key(&path, KEY, "the run's numbers", "no such key"))?;
    serde_json::from_str(text).map_err(|e| Error::key(&path, KEY, "the run's numbers", e.to_string()))
}

/// Reads the state of a run: the network with its gradients on, the optimiser, and the numbers.
///
/// # Errors
/// As [`progress`]; an `arch` that is no DiT; a tensor that is missing, of another shape, or not finite.
pub fn load(dir: &Path, arch: &Arch, device: &Device) -> Result<(Dit, Optimizer, Progress)> {
    let tensors = Tensors::open(&path(dir))?;
    let progress = numbers(dir, &tensors)?;
    let read = |kind: &str, name: &str, shape: &[usize]| {
        let dims = [if shape.len() == 1 { 1 } else { shape[0] }, shape[shape.len() - 1]];
        Ok::<_, Error>((tensors.f32(&format!("{kind}.{name}"), &dims)?, dims))
    };
    let mut model = Dit::from_parameters(arch, device, |name, shape| Ok(read("param", name, shape)?.0))?;
    model.require_grad();
    let inner = device.clone().inner();
    let mut slots = Vec::new();
    for (name, shape) in arch.tensors() {
        let tensor = |kind: &str| {
            read(kind, &name, &shape).map(|(data, dims)| Tensor::<2>::from_data(TensorData::new(data, dims), &inner))
        };
        let (m, v, ema) = (tensor("m")?, tensor("v")?, tensor("ema")?);
        slots.push(Slot { name, m, v, ema });
    }
    Ok((model, Optimizer { slots, updates: progress.step }, progress))
}

/// Refuses to go on with a run under a recipe that means another run: whatever is not under `train` must be as it was, and so
/// must the optimiser, whose moments nothing else can use.
///
/// # Errors
/// As said; a `then` that is no TOML.
pub fn check_recipe(dir: &Path, then: &str, now: &Recipe) -> Result<()> {
    let path = path(dir);
    let damaged = |e: toml::de::Error| Error::key(&path, KEY, "the run's recipe", e.message().to_string());
    let parse = |text: &str| text.parse::<toml::Table>().map_err(damaged);
    let (then, now) = (parse(then)?, parse(&now.to_toml()?)?);
    for (key, value) in &now {
        let before = then.get(key);
        if key != "train" && before != Some(value) {
            let (key, expected, found) = difference(key, before, value);
            return Err(Error::key(dir, key, format!("{expected}, as when the run was started"), found));
        }
    }
    let optimizer = |recipe: &toml::Table| recipe.get("train")?.get("optimizer").map(toml::Value::to_string);
    if let (Some(then), Some(now)) = (optimizer(&then), optimizer(&now))
        && then != now
    {
        return Err(Error::key(dir, "train.optimizer", format!("{then}, as when the run was started"), now));
    }
    Ok(())
}

/// The first key at which two values differ, and both.
fn difference(key: &str, then: Option<&toml::Value>, now: &toml::Value) -> (String, String, String) {
    if let (Some(toml::Value::Table(then)), toml::Value::Table(now)) = (then, now)
        && let Some((inner, value)) = now.iter().find(|(k, v)| then.get(*k) != Some(v))
    {
        return difference(&format!("{key}.{inner}"), then.get(inner), value);
    }
    (key.into(), then.map_or("nothing".into(), toml::Value::to_string), now.to_string())
}
