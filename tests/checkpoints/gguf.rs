//! GGUF files and what is written: every type opens again as the same model, hostile files are one sentence, real files open.

use std::fs;
use std::path::{Path, PathBuf};

use bd3::checkpoint::Checkpoint;
use bd3::format::gguf::{self, Gguf, Value as Entry};
use bd3::format::{Header, Type};
use tempfile::TempDir;

use super::{bound, config, folder, holds, numbers, open, refused};

fn saved(checkpoint: &Checkpoint, ty: Type) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    checkpoint.save_gguf(&path, ty, Vec::new()).unwrap();
    (dir, path)
}

#[test]
fn a_model_comes_back_from_every_type() {
    for family in ["llama", "qwen2", "qwen3"] {
        let dir = folder(&config(family));
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        for ty in [Type::F32, Type::F16, Type::Bf16] {
            let out = tempfile::tempdir().unwrap();
            checkpoint.save(out.path(), ty).unwrap();
            let again = Checkpoint::open(out.path()).unwrap();
            assert_eq!(again.arch, checkpoint.arch);
            assert!(again.arch.tensors().iter().all(|(name, shape)| again.take(name, shape).unwrap().ty == ty));
            holds(&again, bound);
        }
        for ty in [Type::F32, Type::F16, Type::Bf16, Type::Q8_0, Type::Q4_0, Type::Q4_1] {
            let (_dir, path) = saved(&checkpoint, ty);
            let again = Checkpoint::open(&path).unwrap();
            assert_eq!(again.arch, checkpoint.arch);
            holds(&again, bound);
            let ty_of = |name: &str, shape: &[usize]| again.take(name, shape).unwrap().ty;
            assert_eq!(ty_of("model.layers.1.mlp.down_proj.weight", &[32, 96]), ty);
            assert_eq!(ty_of("model.norm.weight", &[32]), Type::F32);
            // And what is quantised stays so, byte for byte.
            let (_dir, twice) = saved(&again, ty);
            assert!(fs::read(&path).unwrap() == fs::read(&twice).unwrap());
        }
        assert!(checkpoint.save(dir.path(), Type::Q8_0).unwrap_err().to_string().contains(".gguf"));
    }
}

/// llama.cpp's order of q and k (its converter: reshape to [heads, 2, head_dim / 2], swap the last two), for `llama` only.
#[test]
fn rows_of_q_and_k_stand_in_pairs_where_llama_cpp_wants_it() {
    for family in ["llama", "qwen2", "qwen3"] {
        let dir = folder(&config(family));
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let (_dir, path) = saved(&checkpoint, Type::F32);
        let file = Gguf::open(&path).unwrap();
        for (theirs, ours, heads) in [("attn_q", "q_proj", 4), ("attn_k", "k_proj", 2), ("attn_v", "v_proj", 2)] {
            let found = file.f32(&format!("blk.1.{theirs}.weight"), &[heads * 16, 32]).unwrap();
            let wanted = numbers(&format!("model.layers.1.self_attn.{ours}.weight"), &[heads * 16, 32]);
            for row in 0..heads * 16 {
                let (head, i) = (row / 16, row % 16);
                let paired = family == "llama" && theirs != "attn_v";
                let source = if paired { head * 16 + i / 2 + i % 2 * 8 } else { row };
                assert_eq!(found[row * 32..][..32], wanted[source * 32..][..32], "{family} {theirs} {row}");
            }
        }
    }
}

#[test]
fn a_gguf_file_that_asks_for_more_is_refused_by_name() {
    let dir = folder(&config("llama"));
    let (_dir, path) = saved(&Checkpoint::open(dir.path()).unwrap(), Type::Q8_0);
    let good = Gguf::open(&path).unwrap();
    let bad = dir.path().join("bad.gguf");
    let with = |key: &str, value: Option<Entry>| {
        let mut metadata = good.values("").unwrap();
        match value {
            Some(value) => metadata.insert(key.into(), value),
            None => metadata.remove(key),
        };
        let metadata: Vec<(&str, Entry)> = metadata.iter().map(|(k, v)| (k.as_str(), v.clone())).collect();
        let header = |name: &str| {
            let (ty, shape) = (good.type_of(name).unwrap(), good.shape(name).unwrap().to_vec());
            Header { name: name.into(), ty, shape }
        };
        let headers: Vec<Header> = good.names().map(header).collect();
        gguf::write(&bad, &metadata, &headers, |h| Ok(good.stored(&h.name, &h.shape)?.bytes)).unwrap();
    };
    let text = |text: &str| Some(Entry::Text(text.into()));
    let cases = [
        ("general.architecture", text("gemma"), vec!["llama", "found gemma"]),
        ("general.architecture", None, vec!["no such key"]),
        ("llama.rope.scaling.type", text("yarn"), vec!["scaling", "\"yarn\""]),
        ("llama.rope.scaling.factor", Some(Entry::F32(4.0)), vec!["scaling", "found 4"]),
        ("llama.rope.scale_linear", Some(Entry::F32(2.0)), vec!["scaled rotary", "found 2"]),
        ("llama.expert_count", Some(Entry::U32(8)), vec!["not supported", "found 8"]),
        ("llama.attention.sliding_window", Some(Entry::U32(8)), vec!["not supported", "found 8"]),
        ("llama.attention.causal", Some(Entry::Bool(false)), vec!["true", "found false"]),
        ("llama.rope.dimension_count", Some(Entry::U32(8)), vec!["16, the width of a head", "found 8"]),
        ("llama.attention.value_length", Some(Entry::U32(8)), vec!["16", "found 8"]),
        ("llama.vocab_size", Some(Entry::U32(41)), vec!["40", "found 41"]),
        ("llama.block_count", None, vec!["no such key"]),
        ("llama.embedding_length", Some(Entry::F32(1.0)), vec!["a whole number"]),
        ("tokenizer.ggml.bos_token_id", Some(Entry::U64(1 << 40)), vec!["a token id"]),
    ];
    for (key, value, parts) in cases {
        with(key, value);
        refused(&bad, &[parts, vec![key, "bad.gguf"]].concat());
    }
    with("llama.attention.head_count", Some(Entry::U32(8)));
    refused(&bad, &["`blk.0.attn_q.weight`", "[128, 32]", "[64, 32]"]);
    with("llama.block_count", Some(Entry::U32(1)));
    refused(&bad, &["`blk.1.attn_k.weight`", "1-layer", "an unknown tensor"]);
    with("llama.block_count", Some(Entry::U32(3)));
    refused(&bad, &["`blk.2.attn_norm.weight`", "no such tensor"]);
    with("llama.rope.scaling.type", text("none"));
    open(&bad).unwrap();
}

/// The model inside the binary, as a GGUF file: every number of config.json comes back.
#[test]
fn a_dit_comes_back_from_a_gguf_file() {
    let tiny = Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny")).unwrap();
    for ty in [Type::F16, Type::Q8_0, Type::Q4_0] {
        let (_dir, path) = saved(&tiny, ty);
        let again = Checkpoint::open(&path).unwrap();
        assert_eq!(again.arch, tiny.arch);
        assert_eq!(again.mask_named, tiny.mask_named);
        for (name, shape) in tiny.arch.tensors() {
            let (ours, theirs) = (tiny.f32(&name, &shape).unwrap(), again.f32(&name, &shape).unwrap());
            let bound = bound(again.take(&name, &shape).unwrap().ty);
            let columns = shape[shape.len() - 1];
            for (a, b) in ours.chunks(columns).zip(theirs.chunks(columns)) {
                let largest = a.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                assert!(a.iter().zip(b).all(|(a, b)| (a - b).abs() <= bound * largest), "{name}");
            }
        }
    }
}

/// Real checkpoints, where they are: `BD3_STORIES260K` names a folder, `BD3_SMOLLM2` a file.
#[test]
fn stories260k_opens() {
    let Some(path) = std::env::var_os("BD3_STORIES260K") else {
        return println!("skipped: BD3_STORIES260K names no folder");
    };
    let arch = open(Path::new(&path)).unwrap();
    assert_eq!((arch.parameters(), arch.heads, arch.kv_heads(), arch.length), (260_032, 8, 4, 512));
}

#[test]
fn smollm2_opens() {
    let Some(path) = std::env::var_os("BD3_SMOLLM2") else {
        return println!("skipped: BD3_SMOLLM2 names no file");
    };
    let checkpoint = Checkpoint::open(Path::new(&path)).unwrap();
    let arch = &checkpoint.arch;
    assert_eq!((arch.parameters(), arch.heads, arch.kv_heads(), arch.length), (134_515_008, 9, 3, 8192));
    let stored = checkpoint.take("model.layers.29.self_attn.q_proj.weight", &[576, 576]).unwrap();
    assert_eq!((stored.ty, stored.bytes.len()), (Type::Q4_1, 576 * 18 * 20));
    assert_eq!(checkpoint.take("model.embed_tokens.weight", &[49152, 576]).unwrap().ty, Type::Q8_0);
}
