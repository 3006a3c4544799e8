//! Checkpoints of the Llama families in folders, whole and in shards: what they say is understood, what they ask beyond that is
//! refused in one sentence. The other layouts stand in `gguf.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use bd3::arch::{Arch, Objective, Shape};
use bd3::checkpoint::Checkpoint;
use bd3::format::quant::quantise;
use bd3::format::safetensors::{self, Tensors};
use bd3::format::{Header, Type};
use bd3::rng::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

mod gguf;

/// A config of each family: heads wider than the width allows for, grouped, every optional tensor somewhere.
fn config(family: &str) -> Value {
    json!({
        "model_type": family, "vocab_size": 40, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5, "rope_theta": 5e5, "tie_word_embeddings": family == "qwen3", "hidden_act": "silu",
        "bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": null, "rope_scaling": null,
    })
}

/// What every file of these tests holds under a name.
fn numbers(name: &str, shape: &[usize]) -> Vec<f32> {
    let mut rng = Rng::new(3).split(name);
    (0..shape.iter().product()).map(|_| rng.normal() as f32).collect()
}

/// A tensor's name and shape.
type Named = (String, Vec<usize>);

fn header(name: &str, shape: &[usize]) -> Header {
    Header { name: name.into(), ty: Type::F32, shape: shape.to_vec() }
}

fn write(path: &Path, tensors: &[Named]) {
    let headers: Vec<Header> = tensors.iter().map(|(name, shape)| header(name, shape)).collect();
    safetensors::write(path, &BTreeMap::new(), &headers, |header| {
        Ok(quantise(Type::F32, &numbers(&header.name, &header.shape))?.into())
    })
    .unwrap();
}

/// The description in a config.
fn arch(config: &Value) -> Arch {
    let file = bd3::checkpoint::Config::parse(Path::new("config.json"), config.to_string().as_bytes()).unwrap();
    bd3::checkpoint::llama::read_config(&file).unwrap()
}

fn folder(config: &Value) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    write(&dir.path().join("model.safetensors"), &arch(config).tensors());
    dir
}

fn open(path: &Path) -> bd3::Result<Arch> {
    Checkpoint::open(path).map(|checkpoint| checkpoint.arch)
}

#[track_caller]
fn refused(path: &Path, parts: &[&str]) {
    let message = open(path).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

/// Every tensor of a checkpoint equals these numbers within what its type may cost.
#[track_caller]
fn holds(checkpoint: &Checkpoint, bound: impl Fn(Type) -> f32) {
    for (name, shape) in checkpoint.arch.tensors() {
        let (ty, wanted) = (checkpoint.take(&name, &shape).unwrap().ty, numbers(&name, &shape));
        let found = checkpoint.f32(&name, &shape).unwrap();
        let columns = shape[shape.len() - 1];
        for (found, wanted) in found.chunks(columns).zip(wanted.chunks(columns)) {
            let largest = wanted.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            let worst = found.iter().zip(wanted).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst <= bound(ty) * largest, "{name}: {worst} of {largest} in {ty:?}");
        }
    }
}

/// Largest error over the largest number of a row: half a step of the coarsest grid, and the scale's own rounding.
fn bound(ty: Type) -> f32 {
    match ty {
        Type::F32 => 0.0,
        Type::F16 => 1.0 / 2048.0,
        Type::Bf16 => 1.0 / 256.0,
        Type::Q8_0 => 0.5 / 127.0 + 1e-3,
        Type::Q4_0 => 1.0 / 8.0 + 1e-3,
        Type::Q4_1 => 1.0 / 15.0 + 2e-3,
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_family_opens_with_what_it_has() {
    for family in ["llama", "qwen2", "qwen3"] {
        let dir = folder(&config(family));
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let arch = &checkpoint.arch;
        let Shape::Llama(shape) = &arch.shape else { panic!("{arch:?}") };
        assert_eq!(
            (shape.qkv_bias, shape.qk_norm, shape.tied),
            (family == "qwen2", family == "qwen3", family == "qwen3")
        );
        assert_eq!((arch.objective, arch.block, arch.block_sizes()), (Objective::NextToken, 1, vec![1]));
        assert_eq!((arch.mask, arch.special.eos, checkpoint.mask_named), (40, Some(2), false));
        assert_eq!((arch.rotary_base(), arch.rotary_dim(), arch.norm_eps()), (5e5, 16, 1e-5));
        holds(&checkpoint, bound);
        assert!(checkpoint.arch.dit().is_err());
    }
}

#[test]
fn what_transformers_leaves_out_or_moves_is_understood() {
    let mut old = config("llama");
    for key in ["head_dim", "num_key_value_heads", "rope_theta", "rope_scaling", "tie_word_embeddings", "hidden_act"] {
        old.as_object_mut().unwrap().remove(key);
    }
    let read = arch(&old);
    assert_eq!((read.head_dim(), read.kv_heads(), read.rotary_base()), (8, 4, 1e4));
    let mut new = config("llama");
    new.as_object_mut().unwrap().remove("rope_theta");
    new["rope_parameters"] = json!({"rope_type": "default", "rope_theta": 7e4, "partial_rotary_factor": 0.5});
    let read = arch(&new);
    assert_eq!((read.rotary_base(), read.rotary_dim()), (7e4, 8));
    new["layer_types"] = json!(["full_attention", "full_attention"]);
    new["sliding_window"] = Value::Null;
    arch(&new);
    let mut qwen = config("qwen2");
    qwen["sliding_window"] = json!(32);
    qwen["use_sliding_window"] = json!(false);
    arch(&qwen);
}

#[test]
fn what_the_shape_does_not_have_is_refused_by_name() {
    let cases: Vec<(&str, Value, Vec<&str>)> = vec![
        ("model_type", json!("gemma"), vec!["`model_type`", "llama", "\"gemma\""]),
        ("model_type", Value::Null, vec!["`model_type`", "no such key"]),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": 8.0}), vec!["`rope_scaling.rope_type`", "llama3"]),
        ("rope_scaling", json!({"type": "linear", "factor": 2.0}), vec!["`rope_scaling.type`", "linear"]),
        ("rope_scaling", json!({"factor": 2.0}), vec!["`rope_scaling.factor`", "2.0"]),
        ("rope_scaling", json!(4), vec!["`rope_scaling`", "an object", "4"]),
        ("rope_parameters", json!({"rope_theta": 1e4}), vec!["`rope_theta`", "10000", "500000"]),
        ("rope_parameters", json!({"rope_type": "yarn"}), vec!["`rope_parameters.rope_type`", "yarn"]),
        ("hidden_act", json!("gelu"), vec!["`hidden_act`", "silu", "\"gelu\""]),
        ("attention_bias", json!(true), vec!["`attention_bias`", "false", "true"]),
        ("mlp_bias", json!(true), vec!["`mlp_bias`", "false", "true"]),
        ("use_sliding_window", json!(true), vec!["`use_sliding_window`"]),
        ("sliding_window", json!(16), vec!["`sliding_window`", "16"]),
        ("layer_types", json!(["sliding_attention"]), vec!["`layer_types`", "sliding_attention"]),
        ("quantization_config", json!({"bits": 4}), vec!["`quantization_config`", "bits"]),
        ("partial_rotary_factor", json!(2.0), vec!["`partial_rotary_factor`", "2"]),
        ("partial_rotary_factor", json!(0.2), vec!["rotated numbers of a head", "found 3"]),
        ("num_key_value_heads", json!(3), vec!["key and value heads", "a divisor of the 4", "3"]),
        ("head_dim", json!(0), vec!["width of a head", "0"]),
        ("num_hidden_layers", json!(1u64 << 60), vec!["number of layers", "at most"]),
        ("vocab_size", json!(1u64 << 60), vec!["vocabulary size", "at most"]),
        ("intermediate_size", json!(-1), vec!["`intermediate_size`", "a whole number", "-1"]),
        ("rms_norm_eps", Value::Null, vec!["`rms_norm_eps`", "no such key"]),
        ("eos_token_id", json!([]), vec!["`eos_token_id`", "at least one", "[]"]),
        ("eos_token_id", json!(1u64 << 40), vec!["`eos_token_id`", "a token id"]),
        ("hidden_size", json!(16), vec!["`model.embed_tokens.weight`", "[40, 16]", "[40, 32]"]),
        ("tie_word_embeddings", json!(true), vec!["`lm_head.weight`", "the embedding once more", "other numbers"]),
    ];
    for (key, value, parts) in cases {
        let good = config("llama");
        let dir = folder(&good);
        let mut bad = good;
        bad[key] = value;
        fs::write(dir.path().join("config.json"), bad.to_string()).unwrap();
        refused(dir.path(), &[parts, vec![dir.path().to_str().unwrap()]].concat());
    }
}

#[test]
fn tensors_that_are_not_the_models_are_refused() {
    let config = config("qwen3");
    let (dir, wanted) = (folder(&config), arch(&config).tensors());
    let path = dir.path().join("model.safetensors");
    let with = |change: &dyn Fn(&mut Vec<Named>)| {
        let mut tensors = wanted.clone();
        change(&mut tensors);
        write(&path, &tensors);
    };
    with(&|t| t.push(("model.layers.0.self_attn.rotary_emb.inv_freq".into(), vec![8])));
    open(dir.path()).unwrap();
    let head = header("lm_head.weight", &[40, 32]);
    let headers: Vec<Header> = wanted.iter().map(|(name, shape)| header(name, shape)).chain([head]).collect();
    safetensors::write(&path, &BTreeMap::new(), &headers, |header| {
        let name = if header.name == "lm_head.weight" { "model.embed_tokens.weight" } else { &header.name };
        Ok(quantise(Type::F32, &numbers(name, &header.shape))?.into())
    })
    .unwrap();
    open(dir.path()).expect("a tied model may have its head once more");
    with(&|t| t.push(("lm_head.weight".into(), vec![40, 16])));
    refused(dir.path(), &["`lm_head.weight`", "[40, 32]", "[40, 16]"]);
    with(&|t| t.push(("model.layers.2.mlp.up_proj.weight".into(), vec![96, 32])));
    refused(dir.path(), &["`model.layers.2.mlp.up_proj.weight`", "2-layer", "an unknown tensor"]);
    with(&|t| t.retain(|(name, _)| name != "model.norm.weight"));
    refused(dir.path(), &["`model.norm.weight`", "[32]", "no such tensor"]);
    with(&|t| t[1].1 = vec![33]);
    refused(dir.path(), &[&wanted[1].0, "[32]", "[33]"]);
}

#[test]
fn shards_are_one_model() {
    let config = config("llama");
    let (dir, wanted) = (folder(&config), arch(&config).tensors());
    fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    let (left, right) = wanted.split_at(7);
    let mut map = serde_json::Map::new();
    for (file, part) in [("model-1.safetensors", left), ("model-2.safetensors", right)] {
        write(&dir.path().join(file), part);
        map.extend(part.iter().map(|(name, _)| (name.clone(), json!(file))));
    }
    let index = dir.path().join("model.safetensors.index.json");
    let put = |map: &serde_json::Map<String, Value>| {
        fs::write(&index, json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
    };
    put(&map);
    holds(&Checkpoint::open(dir.path()).unwrap(), bound);
    let with = |name: &str, value: Value| {
        let mut bad = map.clone();
        bad.insert(name.into(), value);
        put(&bad);
    };
    for bad in [json!("../model-1.safetensors"), json!("/etc/passwd"), json!(".."), json!(""), json!(7)] {
        with("model.norm.weight", bad.clone());
        refused(dir.path(), &["index.json", "`weight_map`", &bad.to_string()]);
    }
    with("model.norm.weight", json!("model-1.safetensors"));
    refused(dir.path(), &["index.json", "`model.norm.weight`", "model-2.safetensors", "model-1.safetensors"]);
    with("model.norm.weight", json!("model-3.safetensors"));
    refused(dir.path(), &["model-3.safetensors"]);
    write(&dir.path().join("model-2.safetensors"), &right[1..]);
    put(&map);
    refused(dir.path(), &["index.json", &right[0].0, "no such tensor"]);
    fs::write(&index, "{}").unwrap();
    refused(dir.path(), &["index.json", "`weight_map`", "no such key"]);
}

#[test]
fn a_damaged_file_beside_a_good_config_is_one_sentence() {
    let dir = folder(&config("llama"));
    let path = dir.path().join("model.safetensors");
    assert!(Tensors::open(&path).is_ok());
    fs::write(&path, b"").unwrap();
    refused(dir.path(), &["model.safetensors", "an empty file"]);
    fs::remove_file(&path).unwrap();
    refused(dir.path(), &["model.safetensors"]);
    refused(Path::new("no such file.gguf"), &["no such file.gguf"]);
}
