//! The family of the BD3-LM code: bd3lm-owt-block_size4/8/16/1024, mdlm-owt, ar and sedd. What we train is written in this
//! layout and loads in the official code; what they publish loads here. Every tensor is under `backbone.`; the file may also
//! hold the rotary frequencies (recomputed, so only checked) and the learned clip interval as two scalars.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use burn::tensor::Device;
use serde_json::{Value, json};

use super::Config;
use crate::arch::{self, Arch, Objective, ROTARY_BASE, Shape, SizeClip, SpecialIds};
use crate::error::{Error, Result};
use crate::format::safetensors::{self as st, Float, Named, Tensors};
use crate::format::write_atomic;
use crate::model::{Decoder, Dit, Rotary};
use crate::noise::Clip;

const PREFIX: &str = "backbone.";
const FREQUENCIES: &str = "backbone.rotary_emb.inv_freq";
const CLIP: [&str; 2] = ["sampling_eps_min", "sampling_eps_max"];
const ADAPTERS: &str = "kuleshov-group/bd3lm-owt-block_size4--";

/// A model as its files describe it, not yet on a device.
pub struct Checkpoint {
    /// The description.
    pub arch: Arch,
    /// Does config.json name the mask? If not, `arch.mask` is the last id, as in GPT-2's vocabulary plus a mask.
    pub mask_named: bool,
    tensors: Tensors,
}

impl Checkpoint {
    /// Opens a model folder and checks that description and tensors agree: nothing missing, nothing unknown.
    pub fn open(dir: &Path) -> Result<Self> {
        let config = Config::open(&dir.join("config.json"))?;
        Self::new(&config, Tensors::open(&dir.join("model.safetensors"))?)
    }

    /// From a description and open tensors.
    pub fn new(config: &Config, tensors: Tensors) -> Result<Self> {
        let arch = read_config(config)?;
        let checkpoint = Self { arch, mask_named: config.get("mask_token_id").is_some(), tensors };
        checkpoint.check_names()?;
        Ok(checkpoint)
    }

    /// The tensors' file.
    pub fn path(&self) -> &Path {
        self.tensors.path()
    }

    /// One tensor by its published name (without the prefix).
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        self.tensors.f32(&format!("{PREFIX}{name}"), shape)
    }

    /// Builds the network.
    pub fn model(&self, device: &Device) -> Result<Dit> {
        Dit::from_parameters(&self.arch, device, |name, shape| self.tensor(name, shape))
    }

    /// Builds the decoder: the network without gradients, on the CPU.
    pub fn decoder(&self) -> Result<Decoder> {
        Decoder::from_parameters(&self.arch, |name, shape| self.tensor(name, shape))
    }

    fn check_names(&self) -> Result<()> {
        let mut known = HashSet::new();
        for (name, shape) in self.arch.tensors() {
            let name = format!("{PREFIX}{name}");
            // A renamed tensor is told by its new name, below; a wrong shape here.
            if self.tensors.shape(&name).is_some() {
                self.tensors.expect(&name, &shape)?;
            }
            known.insert(name);
        }
        for name in self.tensors.names() {
            if !CLIP.contains(&name) && name != FREQUENCIES && !known.contains(name) {
                let expected = format!("only tensors of a {}-layer model of this family", self.arch.layers);
                return Err(Error::key(self.path(), name, expected, "an unknown tensor"));
            }
        }
        self.arch
            .tensors()
            .iter()
            .try_for_each(|(name, shape)| self.tensors.expect(&format!("{PREFIX}{name}"), shape))?;
        match self.tensors.shape(FREQUENCIES) {
            Some(_) => self.check_frequencies(),
            None => Ok(()),
        }
    }

    fn check_frequencies(&self) -> Result<()> {
        let ours = Rotary::frequencies(self.arch.head_dim(), ROTARY_BASE);
        let theirs = self.tensors.f32(FREQUENCIES, &[ours.len()])?;
        for (index, (a, b)) in ours.iter().zip(&theirs).enumerate() {
            if (a - b).abs() > 1e-2 * a {
                let expected = format!("{a} at index {index} (rotary base 10000)");
                return Err(Error::key(self.path(), FREQUENCIES, expected, b.to_string()));
            }
        }
        Ok(())
    }
}

/// The description in a config.json of this family.
pub fn read_config(config: &Config) -> Result<Arch> {
    let family = config.opt_str("model_type")?.ok_or_else(|| config.missing("model_type", "\"bd3lm\" or \"mdlm\""))?;
    if !["bd3lm", "mdlm"].contains(&family) {
        return Err(Error::key(config.path(), "model_type", "\"bd3lm\" or \"mdlm\"", format!("\"{family}\"")));
    }
    let length = config.usize("model_length")?;
    let vocab = config.usize("vocab_size")?;
    let objective = match (config.opt_bool("causal")?, config.opt_bool("time_conditioning")?) {
        (Some(true), _) => Objective::NextToken,
        (_, Some(true)) => Objective::Score,
        _ => Objective::Masked,
    };
    if let Some(adaln) = config.opt_bool("adaln")?
        && adaln == (objective == Objective::NextToken)
    {
        let expected = format!("{}, as every published model of this kind has it", !adaln);
        return Err(Error::key(config.path(), "adaln", expected, adaln.to_string()));
    }
    // Plain masked diffusion and score entropy see the whole length as one block; the published configs of these say so by
    // `cross_attn` (absent in mdlm), and their `block_size`, where present, is not what they were trained with.
    let crossed = config.opt_bool("cross_attn")?.unwrap_or(false);
    let block = match objective {
        Objective::NextToken => 1,
        _ if crossed => config.usize("block_size")?,
        _ => length,
    };
    let id = |key: &str| config.opt_usize(key).map(|v| v.map(|v| v as u32));
    let cond = if objective == Objective::NextToken { 0 } else { config.usize("cond_dim")? };
    let arch = Arch {
        vocab,
        // The official vocabulary is the tokenizer's plus a mask at the end, unless ours says otherwise.
        mask: id("mask_token_id")?.unwrap_or((vocab.max(1) - 1) as u32),
        special: SpecialIds { bos: id("bos_token_id")?, eos: id("eos_token_id")?, pad: id("pad_token_id")? },
        hidden: config.usize("hidden_dim")?,
        layers: config.usize("n_blocks")?,
        heads: config.usize("n_heads")?,
        length,
        objective,
        block,
        sizes: read_sizes(config, block)?,
        shape: Shape::Dit(arch::Dit { cond, dropout: config.opt_f64("dropout")?.unwrap_or(0.0) }),
    };
    arch.check(&config.path().display().to_string())?;
    Ok(arch)
}

/// Our key `block_sizes`, `[{size, beta, omega}]`, or the one size of an official config with its learned interval.
fn read_sizes(config: &Config, block: usize) -> Result<Vec<SizeClip>> {
    let Some(list) = config.get("block_sizes") else {
        let beta = config.opt_f64("sampling_eps_min")?.unwrap_or(1e-3);
        let omega = config.opt_f64("sampling_eps_max")?.unwrap_or(1.0);
        if Clip::new(beta, omega).is_err() {
            let found = format!("{beta} with a sampling_eps_max of {omega}");
            return Err(Error::key(config.path(), "sampling_eps_min", "a number in (0, sampling_eps_max]", found));
        }
        return Ok(vec![SizeClip { size: block, beta, omega }]);
    };
    let expected = "a list of {\"size\", \"beta\", \"omega\"} with 0 < beta <= omega <= 1";
    let bad = |found: &Value| Error::key(config.path(), "block_sizes", expected, found.to_string());
    let entries = list.as_array().filter(|entries| !entries.is_empty()).ok_or_else(|| bad(list))?;
    let one = |entry: &Value| {
        let size = entry.get("size")?.as_u64().filter(|s| *s > 0)? as usize;
        let clip = Clip::new(entry.get("beta")?.as_f64()?, entry.get("omega")?.as_f64()?).ok()?;
        Some(SizeClip { size, beta: clip.beta(), omega: clip.omega() })
    };
    entries.iter().map(|entry| one(entry).ok_or_else(|| bad(entry))).collect()
}

/// The config.json of a description.
pub fn config_json(arch: &Arch) -> Result<Value> {
    let dit = arch.dit()?;
    let clip = arch.sizes.iter().find(|s| s.size == arch.block);
    let (beta, omega) = clip.map_or((1e-3, 1.0), |c| (c.beta, c.omega));
    let sizes: Vec<Value> =
        arch.sizes.iter().map(|s| json!({"size": s.size, "beta": s.beta, "omega": s.omega})).collect();
    Ok(json!({
        "architectures": ["BD3LM"],
        "auto_map": {
            "AutoConfig": format!("{ADAPTERS}configuration_bd3lm.BD3LMConfig"),
            "AutoModelForMaskedLM": format!("{ADAPTERS}modeling_bd3lm.BD3LM"),
        },
        "model_type": "bd3lm",
        "block_size": arch.block,
        "block_sizes": sizes,
        "vocab_size": arch.vocab,
        "mask_token_id": arch.mask,
        "bos_token_id": arch.special.bos,
        "eos_token_id": arch.special.eos,
        "pad_token_id": arch.special.pad,
        "hidden_dim": arch.hidden,
        "cond_dim": dit.cond,
        "n_blocks": arch.layers,
        "n_heads": arch.heads,
        "model_length": arch.length,
        "dropout": dit.dropout,
        "adaln": arch.modulated(),
        "causal": arch.objective == Objective::NextToken,
        "cross_attn": arch.objective == Objective::Masked && arch.sizes.iter().any(|s| s.size < arch.length),
        "time_conditioning": arch.time_conditioned(),
        "attn_backend": "sdpa",
        "return_dict": false,
        "var_min": true,
        "sampling_eps_min": beta,
        "sampling_eps_max": omega,
        "torch_dtype": "float32",
    }))
}

/// Writes `config.json` and `model.safetensors` into a folder, each atomically. The folder is made if need be.
pub fn save(dir: &Path, model: &Dit, float: Float) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let arch = &model.arch;
    let values = model.parameters()?;
    let mut tensors: Vec<Named<'_>> = arch
        .tensors()
        .into_iter()
        .zip(values)
        .inspect(|((listed, _), (name, _))| debug_assert_eq!(listed, name))
        .map(|((name, shape), (_, data))| Named { name: format!("{PREFIX}{name}"), shape, data: data.into(), float })
        .collect();
    let frequencies = Rotary::frequencies(arch.head_dim(), ROTARY_BASE);
    let shape = vec![frequencies.len()];
    tensors.push(Named { name: FREQUENCIES.into(), shape, data: Cow::Owned(frequencies), float: Float::F32 });
    if let Some(clip) = arch.sizes.iter().find(|s| s.size == arch.block) {
        for (name, value) in CLIP.into_iter().zip([clip.beta, clip.omega]) {
            let data = Cow::Owned(vec![value as f32]);
            tensors.push(Named { name: name.into(), shape: Vec::new(), data, float: Float::F32 });
        }
    }
    let metadata = BTreeMap::from([("format".to_string(), "pt".to_string())]);
    st::write(&dir.join("model.safetensors"), &tensors, &metadata)?;
    let text = serde_json::to_string_pretty(&config_json(arch)?).map_err(|e| Error::Run(e.to_string()))?;
    write_atomic(&dir.join("config.json"), |out| writeln!(out, "{text}"))
}
