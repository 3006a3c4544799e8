//! The families whose tensors have Hugging Face's names of Llama: Llama itself, Qwen 2 (biases of q, k and v) and Qwen 3 (norms of
//! q and k). A plain autoregressive checkpoint is a next-token model of block size 1 without a mask. What this shape does not
//! have (scaled rotary embeddings, sliding windows, other activations, further biases, quantised folders) is refused by name.
//!
//! What a config.json leaves out has the value that transformers gives it: `num_key_value_heads` the number of heads,
//! `head_dim` the width over the heads, `rope_theta` 10000, `partial_rotary_factor` 1, `tie_word_embeddings` false. Where
//! `eos_token_id` is a list, its first id is the end of text.

use serde_json::{Value, json};

use super::Config;
use super::files::Files;
use crate::arch::{Arch, Llama, Objective, Shape, SizeClip, SpecialIds};
use crate::error::{Error, Result};

/// Clip intervals mean nothing to a next-token model, but every size has one.
pub(super) const NO_CLIP: SizeClip = SizeClip { size: 1, beta: 1e-3, omega: 1.0 };

/// The mask of a model that has none: an id beyond its vocabulary.
pub(super) fn no_mask(vocab: usize) -> u32 {
    u32::try_from(vocab).unwrap_or(u32::MAX)
}

/// The description in a config.json of these families.
///
/// # Errors
/// A key that is missing, has another type, or asks for what this shape does not have.
pub fn read_config(config: &Config) -> Result<Arch> {
    let family = config.opt_str("model_type")?.unwrap_or_default();
    refuse_unsupported(config, family)?;
    let (vocab, hidden) = (config.usize("vocab_size")?, config.usize("hidden_size")?);
    let heads = config.usize("num_attention_heads")?;
    let head_dim = match config.opt_usize("head_dim")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => {
            let expected = format!("a divisor of the hidden_size {hidden}, as there is no head_dim");
            return Err(config.refusal("num_attention_heads", &expected, heads.to_string()));
        }
    };
    let (rotary_base, factor) = rotary(config)?;
    let rotary_dim = (head_dim as f64 * factor) as usize;
    let llama = Llama {
        kv_heads: config.opt_usize("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        feed_forward: config.usize("intermediate_size")?,
        norm_eps: config.opt_f64("rms_norm_eps")?.ok_or_else(|| config.missing("rms_norm_eps", "a number"))? as f32,
        rotary_base,
        rotary_dim,
        qk_norm: family == "qwen3",
        qkv_bias: family == "qwen2",
        tied: config.opt_bool("tie_word_embeddings")?.unwrap_or(false),
    };
    let special = SpecialIds {
        bos: config.opt_id("bos_token_id")?,
        eos: first_eos(config)?,
        pad: config.opt_id("pad_token_id")?,
    };
    let arch = Arch {
        vocab,
        mask: config.opt_id("mask_token_id")?.unwrap_or(no_mask(vocab)),
        special,
        hidden,
        layers: config.usize("num_hidden_layers")?,
        heads,
        length: config.usize("max_position_embeddings")?,
        objective: Objective::NextToken,
        block: 1,
        sizes: vec![NO_CLIP],
        visible_loss: false,
        shape: Shape::Llama(llama),
    };
    arch.check(&config.path().display().to_string())?;
    Ok(arch)
}

fn refuse_unsupported(config: &Config, family: &str) -> Result<()> {
    let refuse = |key: &str, expected: &str, found: String| Err(config.refusal(key, expected, found));
    match config.opt_str("hidden_act")? {
        Some("silu") | None => {}
        Some(other) => {
            return refuse("hidden_act", "\"silu\", the only activation of this shape", format!("\"{other}\""));
        }
    }
    // Qwen 2 has biases of q, k and v whatever it says; elsewhere this key also means one of the output map.
    let biased = family == "qwen2";
    if config.opt_bool("attention_bias")?.is_some_and(|bias| bias != biased) {
        return refuse("attention_bias", &format!("{biased}, as in every {family}"), (!biased).to_string());
    }
    for key in ["mlp_bias", "use_sliding_window"] {
        if config.opt_bool(key)? == Some(true) {
            return refuse(key, "false (not supported)", "true".into());
        }
    }
    // Beside `use_sliding_window` (Qwen) the width alone says nothing.
    let mut unsupported = vec!["quantization_config"];
    if config.get("use_sliding_window").is_none() && family == "llama" {
        unsupported.push("sliding_window");
    }
    for key in unsupported {
        if let Some(found) = config.get(key) {
            return refuse(key, "null or no such key (not supported)", found.to_string());
        }
    }
    let full = |kinds: &Value| kinds.as_array().is_some_and(|all| all.iter().all(|kind| kind == "full_attention"));
    match config.get("layer_types") {
        Some(kinds) if !full(kinds) => refuse("layer_types", "only \"full_attention\"", kinds.to_string()),
        _ => Ok(()),
    }
}

/// The rotary base and the share of a head that is rotated, from the keys of transformers 4 or the object of transformers 5.
fn rotary(config: &Config) -> Result<(f64, f64)> {
    let parameters = config.section("rope_parameters")?;
    for section in [config.section("rope_scaling")?, parameters.clone()].into_iter().flatten() {
        for key in ["rope_type", "type"] {
            if let Some(kind) = section.opt_str(key)?
                && kind != "default"
            {
                let expected = "\"default\" (scaled rotary embeddings are not supported)";
                return Err(section.refusal(key, expected, format!("\"{kind}\"")));
            }
        }
        if let Some(factor) = section.get("factor") {
            return Err(section.refusal("factor", "no such key (not supported)", factor.to_string()));
        }
    }
    let either = |key: &str, default: f64| {
        let (old, new) = (config.opt_f64(key)?, parameters.as_ref().map(|p| p.opt_f64(key)).transpose()?.flatten());
        match (old, new) {
            (Some(old), Some(new)) if old != new => {
                Err(config.refusal(key, &format!("{new}, as in rope_parameters"), old.to_string()))
            }
            _ => Ok(new.or(old).unwrap_or(default)),
        }
    };
    let (base, factor) = (either("rope_theta", 1e4)?, either("partial_rotary_factor", 1.0)?);
    if !(0.0..=1.0).contains(&factor) {
        return Err(config.refusal("partial_rotary_factor", "a number in (0, 1]", factor.to_string()));
    }
    Ok((base, factor))
}

fn first_eos(config: &Config) -> Result<Option<u32>> {
    let Some(Value::Array(list)) = config.get("eos_token_id") else { return config.opt_id("eos_token_id") };
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    let ids: Option<Vec<u32>> = list.iter().map(id).collect();
    match ids.as_deref() {
        Some([first, ..]) => Ok(Some(*first)),
        _ => Err(config.refusal(
            "eos_token_id",
            "an id, or a list of at least one",
            Value::from(list.clone()).to_string(),
        )),
    }
}

/// The `model_type` of a shape: what says which biases and norms it has.
///
/// # Errors
/// No published family has both biases and norms of q and k, or is not a next-token model.
pub(super) fn family(arch: &Arch, llama: &Llama) -> Result<&'static str> {
    let refuse = |found: &str| Err(Error::value("model", "a shape that Llama, Qwen 2 or Qwen 3 has", found));
    match (arch.objective, llama.qkv_bias, llama.qk_norm) {
        (Objective::Masked | Objective::Score, ..) => refuse("a Llama shape that predicts masked tokens"),
        (_, true, true) => refuse("one with both biases and norms of q and k"),
        (_, true, false) => Ok("qwen2"),
        (_, false, true) => Ok("qwen3"),
        (_, false, false) => Ok("llama"),
    }
}

/// The config.json of a description.
///
/// # Errors
/// A shape that none of the families has.
pub(super) fn config_json(arch: &Arch, llama: &Llama) -> Result<Value> {
    let family = family(arch, llama)?;
    let architecture = match family {
        "qwen2" => "Qwen2ForCausalLM",
        "qwen3" => "Qwen3ForCausalLM",
        _ => "LlamaForCausalLM",
    };
    let mut config = json!({
        "architectures": [architecture],
        "model_type": family,
        "vocab_size": arch.vocab,
        "hidden_size": arch.hidden,
        "intermediate_size": llama.feed_forward,
        "num_hidden_layers": arch.layers,
        "num_attention_heads": arch.heads,
        "num_key_value_heads": llama.kv_heads,
        "head_dim": llama.head_dim,
        "max_position_embeddings": arch.length,
        // The shortest text of the f32, not that of the f64 it becomes.
        "rms_norm_eps": llama.norm_eps.to_string().parse::<f64>().unwrap_or(f64::from(llama.norm_eps)),
        "rope_theta": llama.rotary_base,
        "tie_word_embeddings": llama.tied,
        "hidden_act": "silu",
        "attention_bias": llama.qkv_bias,
        "bos_token_id": arch.special.bos,
        "eos_token_id": arch.special.eos,
        "pad_token_id": arch.special.pad,
    });
    if (arch.mask as usize) < arch.vocab {
        config["mask_token_id"] = arch.mask.into();
    }
    if llama.rotary_dim != llama.head_dim {
        config["partial_rotary_factor"] = factor(llama.rotary_dim, llama.head_dim).into();
    }
    Ok(config)
}

/// The share of a head that is rotated. Readers cut its product with the width of a head down to a whole number, so a quotient that
/// was rounded down would lose one.
fn factor(rotary_dim: usize, head_dim: usize) -> f64 {
    let factor = rotary_dim as f64 / head_dim as f64;
    if (head_dim as f64 * factor) as usize == rotary_dim { factor } else { factor.next_up() }
}

/// Files may also have the rotary frequencies, and the head of a tied model, which must be the embedding once more.
pub(super) fn may_have(arch: &Arch, files: &Files, name: &str) -> Result<bool> {
    if name == "lm_head.weight" {
        let shape = [arch.vocab, arch.hidden];
        let (head, embedding) = (files.stored(name, &shape)?, files.stored("model.embed_tokens.weight", &shape)?);
        if (head.ty, &head.bytes) != (embedding.ty, &embedding.bytes) {
            let expected = "the embedding once more, as tie_word_embeddings says";
            return Err(Error::key(files.path(name), name, expected, "other numbers"));
        }
        files.release(name);
        return Ok(true);
    }
    Ok(name.ends_with("rotary_emb.inv_freq"))
}

#[cfg(test)]
mod tests {
    use super::factor;

    #[test]
    fn the_share_that_is_rotated_comes_back() {
        for head in 1..=256usize {
            for rotary in 1..head {
                assert_eq!((head as f64 * factor(rotary, head)) as usize, rotary, "{rotary} of {head}");
            }
        }
    }
}
