//! The family of the BD3-LM code: bd3lm-owt-block_size4/8/16/1024, mdlm-owt, ar and sedd. What we train is written in this
//! layout and loads in the official code; what they publish loads here. Every tensor is under `backbone.`; the file may also
//! hold the rotary frequencies (recomputed, so only checked) and the learned clip interval as two scalars.

use serde_json::{Value, json};

use super::Config;
use super::files::Files;
use crate::arch::{self, Arch, Objective, Shape, SizeClip, SpecialIds};
use crate::error::{Error, Result};
use crate::noise::Clip;

pub(super) const PREFIX: &str = "backbone.";
const FREQUENCIES: &str = "backbone.rotary_emb.inv_freq";
const CLIP: [&str; 2] = ["sampling_eps_min", "sampling_eps_max"];
const ADAPTERS: &str = "kuleshov-group/bd3lm-owt-block_size4--";

/// Files may also have the learned clip interval and the rotary frequencies, which must be ours.
pub(super) fn may_have(arch: &Arch, files: &Files, name: &str) -> Result<bool> {
    if CLIP.contains(&name) {
        return Ok(true);
    }
    if name != FREQUENCIES {
        return Ok(false);
    }
    let ours = arch.rotary_frequencies();
    let theirs = files.stored(name, &[ours.len()])?.f32();
    for (index, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        if (a - b).abs() > 1e-2 * a || b.is_nan() {
            let expected = format!("{a} at index {index} (rotary base 10000)");
            return Err(Error::key(files.path(name), name, expected, b.to_string()));
        }
    }
    Ok(true)
}

/// The description in a config.json of this family.
///
/// # Errors
/// A key that is missing, has another type, or contradicts the others; else as [`Arch::check`].
pub fn read_config(config: &Config) -> Result<Arch> {
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
    let id = |key: &str| config.opt_id(key);
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
        visible_loss: config.opt_bool("visible_loss")?.unwrap_or(false),
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
pub(super) fn config_json(arch: &Arch, dit: &arch::Dit) -> Value {
    let clip = arch.sizes.iter().find(|s| s.size == arch.block);
    let (beta, omega) = clip.map_or((1e-3, 1.0), |c| (c.beta, c.omega));
    let sizes: Vec<Value> =
        arch.sizes.iter().map(|s| json!({"size": s.size, "beta": s.beta, "omega": s.omega})).collect();
    json!({
        "architectures": ["BD3LM"],
        "auto_map": {
            "AutoConfig": format!("{ADAPTERS}configuration_bd3lm.BD3LMConfig"),
            "AutoModelForMaskedLM": format!("{ADAPTERS}modeling_bd3lm.BD3LM"),
        },
        "model_type": "bd3lm",
        "block_size": arch.block,
        "block_sizes": sizes,
        "visible_loss": arch.visible_loss,
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
    })
}

/// The tensors that a folder has beside the network's own: the rotary frequencies, and the default size's clip interval as two
/// scalars.
pub(super) fn extras(arch: &Arch) -> Vec<(&'static str, Vec<usize>, Vec<f32>)> {
    let frequencies = arch.rotary_frequencies();
    let mut all = vec![(FREQUENCIES, vec![frequencies.len()], frequencies)];
    if let Some(clip) = arch.sizes.iter().find(|s| s.size == arch.block) {
        all.extend(CLIP.into_iter().zip([clip.beta, clip.omega]).map(|(name, x)| (name, Vec::new(), vec![x as f32])));
    }
    all
}
