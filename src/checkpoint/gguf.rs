//! GGUF files: llama.cpp's keys and names for `llama`, `qwen2` and `qwen3`, and our own architecture `bd3lm`, whose tensors keep
//! their canonical names and whose keys are those of its config.json under `bd3lm.` (`block_sizes` as three lists side by side).
//!
//! llama.cpp rotates neighbouring numbers of a head where its architecture is `llama`, so that the rows of q and k stand in
//! another order there: per head, row 2i is our row i, row 2i + 1 our row i + head_dim / 2. They are put back, whole rows at a
//! time, so that quantised rows keep their bytes.
//!
//! Which types a file gets: vectors f32 always. In a quantised file the modulation of a DiT is f32 too (it is folded into
//! constants when a model is loaded), a matrix whose rows are not whole blocks f16, and embedding and head q8_0, because they
//! cost more likelihood per byte than the layers do.

use std::borrow::Cow;

use serde_json::{Map, Value as Json};

use super::{Config, llama};
use crate::arch::{Arch, Llama, Objective, Shape, SizeClip, SpecialIds};
use crate::error::{Error, Result};
use crate::format::gguf::{Gguf, Kind, Value};
use crate::format::{Header, Stored, Type};

/// Our architecture.
pub(super) const OURS: &str = "bd3lm";
const LISTS: [&str; 3] = ["block_sizes.size", "block_sizes.beta", "block_sizes.omega"];
/// What only the official Python code asks of a config.json.
const PYTHON: [&str; 5] = ["architectures", "auto_map", "attn_backend", "return_dict", "torch_dtype"];

/// The architecture that a file names: ours or one of llama.cpp's.
///
/// # Errors
/// Any other.
pub(super) fn architecture(file: &Gguf) -> Result<&str> {
    let (key, expected) = ("general.architecture", "one of bd3lm, llama, qwen2, qwen3");
    match file.text(key)?.ok_or_else(|| file.missing(key, expected))? {
        known @ (OURS | "llama" | "qwen2" | "qwen3") => Ok(known),
        other => Err(Error::key(file.path(), key, expected, other)),
    }
}

/// The description in the keys of llama.cpp.
///
/// # Errors
/// A key that is missing, has another type, or asks for what this shape does not have.
pub(super) fn read_llama(file: &Gguf, family: &str) -> Result<Arch> {
    let key = |name: &str| format!("{family}.{name}");
    let opt = |name: &str| file.count(&key(name));
    let count = |name: &str| opt(name)?.ok_or_else(|| file.missing(&key(name), "a whole number"));
    refuse_unsupported(file, family)?;
    let (hidden, heads) = (count("embedding_length")?, count("attention.head_count")?);
    let vocab = vocabulary(file, family)?;
    let head_dim = match opt("attention.key_length")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(file.missing(&key("attention.key_length"), "the width of a head")),
    };
    let rotary_dim = opt("rope.dimension_count")?.unwrap_or(head_dim);
    for (name, found, expected) in [
        ("attention.value_length", opt("attention.value_length")?, head_dim),
        // Where rows are interleaved, they are so over the whole head.
        ("rope.dimension_count", Some(rotary_dim).filter(|_| family == "llama"), head_dim),
    ] {
        if let Some(found) = found.filter(|found| *found != expected) {
            let expected = format!("{expected}, the width of a head (others are not supported)");
            return Err(Error::key(file.path(), key(name), expected, found.to_string()));
        }
    }
    let eps = key("attention.layer_norm_rms_epsilon");
    let shape = Llama {
        kv_heads: opt("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        feed_forward: count("feed_forward_length")?,
        norm_eps: file.number(&eps)?.ok_or_else(|| file.missing(&eps, "a number"))? as f32,
        rotary_base: file.number(&key("rope.freq_base"))?.unwrap_or(1e4),
        rotary_dim,
        qk_norm: family == "qwen3",
        qkv_bias: family == "qwen2",
        tied: file.shape(&file_name("lm_head.weight")).is_none(),
    };
    let special = SpecialIds { bos: id(file, "bos")?, eos: id(file, "eos")?, pad: id(file, "padding")? };
    let arch = Arch {
        vocab,
        mask: id(file, "mask")?.unwrap_or(llama::no_mask(vocab)),
        special,
        hidden,
        layers: count("block_count")?,
        heads,
        length: count("context_length")?,
        objective: Objective::NextToken,
        block: 1,
        sizes: vec![llama::NO_CLIP],
        visible_loss: false,
        shape: Shape::Llama(shape),
    };
    arch.check(&file.path().display().to_string())?;
    Ok(arch)
}

/// The vocabulary's size, which the table of embeddings has.
fn vocabulary(file: &Gguf, family: &str) -> Result<usize> {
    let embedding = file_name("model.embed_tokens.weight");
    let vocab = match file.shape(&embedding) {
        Some([vocab, _]) => *vocab,
        Some(other) => return Err(Error::key(file.path(), &embedding, "a matrix", format!("shape {other:?}"))),
        None => return Err(file.missing(&embedding, "the table of embeddings")),
    };
    let key = format!("{family}.vocab_size");
    match file.count(&key)?.filter(|said| *said != vocab) {
        Some(said) => Err(Error::key(file.path(), key, format!("{vocab}, as {embedding} has"), said.to_string())),
        None => Ok(vocab),
    }
}

fn refuse_unsupported(file: &Gguf, family: &str) -> Result<()> {
    let refuse = |key: String, expected: &str, found: String| Err(Error::key(file.path(), key, expected, found));
    let scaling = format!("{family}.rope.scaling.");
    for (key, value) in file.values(&scaling)? {
        let plain = match value.as_text() {
            Some(kind) => kind == "none",
            None => !key.ends_with("factor") || value.as_number() == Some(1.0),
        };
        if !plain {
            let expected = "no scaling: a type `none` and factors 1 (others are not supported)";
            return refuse(key, expected, value.to_string());
        }
    }
    // What files had before `rope.scaling` came.
    let key = format!("{family}.rope.scale_linear");
    if let Some(found) = file.number(&key)?.filter(|scale| *scale != 1.0) {
        return refuse(key, "1 (scaled rotary embeddings are not supported)", found.to_string());
    }
    for name in ["expert_count", "attention.sliding_window"] {
        let key = format!("{family}.{name}");
        if let Some(found) = file.count(&key)?.filter(|found| *found > 0) {
            return refuse(key, "0 (not supported)", found.to_string());
        }
    }
    let key = format!("{family}.attention.causal");
    match file.flag(&key)? {
        Some(false) => refuse(key, "true, as in every next-token model", "false".into()),
        _ => Ok(()),
    }
}

/// The key of a special id.
fn id_key(name: &str) -> String {
    format!("tokenizer.ggml.{name}_token_id")
}

fn id(file: &Gguf, name: &str) -> Result<Option<u32>> {
    let key = id_key(name);
    let Some(found) = file.count(&key)? else { return Ok(None) };
    let id = u32::try_from(found).map_err(|_| Error::key(file.path(), &key, "a token id", found.to_string()))?;
    Ok(Some(id))
}

/// The config.json that our own keys are.
///
/// # Errors
/// Lists that do not stand side by side.
pub(super) fn read_config(file: &Gguf) -> Result<Config> {
    let prefix = format!("{OURS}.");
    let mut map = Map::from_iter([("model_type".to_string(), Json::from(OURS))]);
    for (key, value) in file.values(&prefix)? {
        if let Some(name) = key.strip_prefix(&prefix).filter(|name| !LISTS.contains(name)) {
            map.insert(name.into(), json(&value));
        }
    }
    let [sizes, betas, omegas] = LISTS.map(|name| format!("{prefix}{name}"));
    if let Some(sizes) = file.counts(&sizes)? {
        let list = |key: &str| match file.numbers(key)? {
            Some(list) if list.len() == sizes.len() => Ok(list),
            Some(list) => Err(Error::key(file.path(), key, format!("{} numbers", sizes.len()), list.len().to_string())),
            None => Err(file.missing(key, "a list of numbers")),
        };
        let clips = sizes.iter().zip(list(&betas)?.into_iter().zip(list(&omegas)?));
        let clips = clips.map(|(size, (beta, omega))| serde_json::json!({"size": size, "beta": beta, "omega": omega}));
        map.insert("block_sizes".into(), clips.collect());
    }
    Ok(Config::of_map(file.path(), prefix, map))
}

fn json(value: &Value) -> Json {
    match value {
        Value::Text(text) => text.as_str().into(),
        Value::Bool(flag) => (*flag).into(),
        Value::List(_, items) => items.iter().map(json).collect(),
        number => match number.as_count() {
            Some(count) => count.into(),
            None => number.as_number().map_or(Json::Null, Json::from),
        },
    }
}

/// The keys of a description, those of its tokenizer's special ids among them.
///
/// # Errors
/// A shape that none of the architectures has.
pub(super) fn keys(arch: &Arch, config: &Json, ty: Type) -> Result<Vec<(String, Value)>> {
    let mut keys = vec![("general.type".to_string(), Value::Text("model".into()))];
    keys.push(("general.quantization_version".into(), Value::U32(2)));
    keys.push(("general.file_type".into(), Value::U32(file_type(ty))));
    match &arch.shape {
        Shape::Dit(_) => our_keys(config, &arch.sizes, &mut keys),
        Shape::Llama(shape) => llama_keys(arch, shape, &mut keys)?,
    }
    let ids = arch.special;
    let mask = Some(arch.mask).filter(|mask| (*mask as usize) < arch.vocab);
    for (name, id) in [("bos", ids.bos), ("eos", ids.eos), ("padding", ids.pad), ("mask", mask)] {
        keys.extend(id.map(|id| (id_key(name), Value::U32(id))));
    }
    Ok(keys)
}

fn our_keys(config: &Json, sizes: &[SizeClip], keys: &mut Vec<(String, Value)>) {
    keys.push(("general.architecture".into(), Value::Text(OURS.into())));
    for (name, value) in config.as_object().into_iter().flatten() {
        let value = match value {
            _ if PYTHON.contains(&name.as_str()) || name == "model_type" => continue,
            Json::String(text) => Value::Text(text.clone()),
            Json::Bool(flag) => Value::Bool(*flag),
            Json::Number(number) => match number.as_u64() {
                Some(count) => Value::U64(count),
                None => Value::F64(number.as_f64().unwrap_or(f64::NAN)),
            },
            _ => continue,
        };
        keys.push((format!("{OURS}.{name}"), value));
    }
    let list = |kind, of: &dyn Fn(&SizeClip) -> Value| Value::List(kind, sizes.iter().map(of).collect());
    let lists = [
        list(Kind::U64, &|clip| Value::U64(clip.size as u64)),
        list(Kind::F64, &|clip| Value::F64(clip.beta)),
        list(Kind::F64, &|clip| Value::F64(clip.omega)),
    ];
    keys.extend(LISTS.into_iter().zip(lists).map(|(name, list)| (format!("{OURS}.{name}"), list)));
}

fn llama_keys(arch: &Arch, shape: &Llama, keys: &mut Vec<(String, Value)>) -> Result<()> {
    let family = llama::family(arch, shape)?;
    if family == "llama" && shape.rotary_dim != shape.head_dim {
        let found = format!("{} of {} numbers", shape.rotary_dim, shape.head_dim);
        return Err(Error::value("model", "one that rotates whole heads, as GGUF's llama does", found));
    }
    keys.push(("general.architecture".into(), Value::Text(family.into())));
    for (name, count) in [
        ("vocab_size", arch.vocab),
        ("context_length", arch.length),
        ("embedding_length", arch.hidden),
        ("block_count", arch.layers),
        ("feed_forward_length", shape.feed_forward),
        ("attention.head_count", arch.heads),
        ("attention.head_count_kv", shape.kv_heads),
        ("attention.key_length", shape.head_dim),
        ("attention.value_length", shape.head_dim),
        ("rope.dimension_count", shape.rotary_dim),
    ] {
        // `Arch::check` keeps them all far below.
        keys.push((format!("{family}.{name}"), Value::U32(u32::try_from(count).unwrap_or(u32::MAX))));
    }
    keys.push((format!("{family}.attention.layer_norm_rms_epsilon"), Value::F32(shape.norm_eps)));
    keys.push((format!("{family}.rope.freq_base"), Value::F32(shape.rotary_base as f32)));
    Ok(())
}

/// The number by which llama.cpp knows what most of a file's tensors are.
fn file_type(ty: Type) -> u32 {
    match ty {
        Type::F32 => 0,
        Type::F16 => 1,
        Type::Q4_0 => 2,
        Type::Q4_1 => 3,
        Type::Q8_0 => 7,
        Type::Q4K => 15,
        Type::Q6K => 18,
        Type::Bf16 => 32,
    }
}

/// What llama.cpp calls a tensor of a Llama shape.
pub(super) fn file_name(canonical: &str) -> String {
    let (stem, end) = canonical.rsplit_once('.').unwrap_or((canonical, ""));
    let (layer, name) = match stem.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.')) {
        Some((layer, name)) => (format!("blk.{layer}."), name),
        None => (String::new(), stem),
    };
    let name = match name {
        "model.embed_tokens" => "token_embd",
        "model.norm" => "output_norm",
        "lm_head" => "output",
        "input_layernorm" => "attn_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "post_attention_layernorm" => "ffn_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        other => other,
    };
    format!("{layer}{name}.{end}")
}

/// The type that a tensor has in a file of this type.
pub(super) fn type_in_file(canonical: &str, shape: &[usize], ty: Type) -> Type {
    let quantised = ty.block() > 1;
    let modulation = canonical.contains("adaLN_modulation") || canonical.starts_with("sigma_map");
    let outer = ["model.embed_tokens.weight", "lm_head.weight", "vocab_embed.embedding", "output_layer.linear.weight"];
    match shape {
        [_, columns] if quantised && !modulation => {
            let ty = if outer.contains(&canonical) { Type::Q8_0 } else { ty };
            if columns.is_multiple_of(ty.block()) { ty } else { Type::F16 }
        }
        [_, _] if !quantised => ty,
        _ => Type::F32,
    }
}

/// Are these rows in another order in llama.cpp's `llama`?
pub(super) fn interleaved(canonical: &str) -> bool {
    ["q_proj.", "k_proj."].iter().any(|name| canonical.contains(name))
}

/// The order of the rows of q and k.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// First halves of each head, then second halves: ours.
    Halves,
    /// A first half's row beside its second half's: llama.cpp's.
    Pairs,
}

/// Rows in the order wanted, from the other one.
pub(super) fn reordered<'a>(stored: &Stored<'_>, head_dim: usize, wanted: Order) -> Stored<'a> {
    let rows = stored.shape[0].max(1);
    let row = stored.bytes.len() / rows;
    let mut bytes = Vec::with_capacity(stored.bytes.len());
    for at in 0..rows {
        let (head, i) = (at / head_dim * head_dim, at % head_dim);
        let source = match wanted {
            Order::Halves => i % (head_dim / 2) * 2 + i / (head_dim / 2),
            Order::Pairs => i / 2 + i % 2 * (head_dim / 2),
        };
        bytes.extend_from_slice(&stored.bytes[(head + source) * row..][..row]);
    }
    Stored { ty: stored.ty, shape: stored.shape.clone(), bytes: Cow::Owned(bytes) }
}

/// The header of a tensor in a file.
pub(super) fn header(arch: &Arch, canonical: &str, shape: &[usize], ty: Type) -> Header {
    let name = if arch.dit().is_ok() { canonical.into() } else { file_name(canonical) };
    Header { name, ty: type_in_file(canonical, shape, ty), shape: shape.to_vec() }
}
