//! Damaged model folders and states: one sentence that names file, key, expected and found; never a panic, never a guess; and the
//! undamaged file still loads afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use bd3::arch::{Arch, Dit, Objective, Shape, SizeClip, SpecialIds};
use bd3::checkpoint::{self, Checkpoint, Config, dit};
use bd3::data::{Cursor, reader::Place};
use bd3::format::Type;
use bd3::rng::Rng;
use bd3::train::init;
use bd3::train::optim::Optimizer;
use bd3::train::state::{self, Progress};
use burn::tensor::Device;
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

fn arch() -> Arch {
    Arch {
        vocab: 12,
        mask: 11,
        special: SpecialIds { bos: Some(9), eos: Some(10), pad: None },
        hidden: 8,
        layers: 1,
        heads: 2,
        length: 8,
        objective: Objective::Masked,
        block: 4,
        sizes: vec![SizeClip { size: 4, beta: 0.45, omega: 0.95 }, SizeClip { size: 8, beta: 1e-3, omega: 1.0 }],
        visible_loss: false,
        shape: Shape::Dit(Dit { cond: 4, dropout: 0.1 }),
    }
}

fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let model = init::fresh(&arch(), &Device::flex(), &Rng::new(1)).unwrap();
    checkpoint::save_network(dir.path(), &model, Type::F32).unwrap();
    dir
}

fn open(dir: &Path) -> bd3::Result<Arch> {
    let checkpoint = Checkpoint::open(dir)?;
    checkpoint.model(&Device::flex())?;
    checkpoint.engine(bd3::engine::Options::default())?;
    Ok(checkpoint.arch)
}

#[track_caller]
fn refused(dir: &Path, parts: &[&str]) {
    let message = open(dir).unwrap_err().to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
}

#[test]
fn what_is_written_reads_back() {
    let dir = folder();
    assert_eq!(open(dir.path()).unwrap(), arch());
    for objective in [Objective::NextToken, Objective::Score] {
        let block = if objective == Objective::NextToken { 1 } else { 8 };
        let sizes = vec![SizeClip { size: block, beta: 1e-3, omega: 1.0 }];
        let cond = if objective == Objective::NextToken { 0 } else { 4 };
        let shape = Shape::Dit(Dit { cond, dropout: 0.1 });
        let arch = Arch { objective, block, sizes, shape, ..arch() };
        let dir = tempfile::tempdir().unwrap();
        let network = init::fresh(&arch, &Device::flex(), &Rng::new(1)).unwrap();
        checkpoint::save_network(dir.path(), &network, Type::F16).unwrap();
        assert_eq!(Checkpoint::open(dir.path()).unwrap().arch, arch);
    }
}

#[test]
fn a_damaged_config_is_one_sentence() {
    let good = fs::read(folder().path().join("config.json")).unwrap();
    let edit = |key: &str, value: Value| {
        let mut config: Value = serde_json::from_slice(&good).unwrap();
        config[key] = value;
        serde_json::to_vec(&config).unwrap()
    };
    let cases: Vec<(Vec<u8>, Vec<&str>)> = vec![
        (Vec::new(), vec!["an empty file"]),
        (b"[1]".to_vec(), vec!["a JSON object", "a list"]),
        (good[..good.len() / 2].to_vec(), vec!["a JSON object", "EOF"]),
        (b"{\"a\": \xff}".to_vec(), vec!["UTF-8", "offset 6"]),
        (edit("model_type", json!("gpt2")), vec!["`model_type`", "\"gpt2\""]),
        (edit("hidden_dim", Value::Null), vec!["`hidden_dim`", "no such key"]),
        (edit("hidden_dim", json!("wide")), vec!["`hidden_dim`", "a whole number", "\"wide\""]),
        (edit("n_heads", json!(3)), vec!["number of heads", "a divisor of the width 8", "3"]),
        (edit("n_heads", json!(0)), vec!["number of heads", "0"]),
        (edit("block_size", json!(3)), vec!["block size", "a divisor of the length 8", "3"]),
        (edit("model_length", json!(0)), vec!["length", "0"]),
        (edit("mask_token_id", json!(12)), vec!["mask id", "below the vocabulary size 12", "12"]),
        (edit("block_sizes", json!([{"size": 0}])), vec!["`block_sizes`"]),
        (edit("n_blocks", json!(2)), vec!["backbone.blocks.1.norm1.weight", "no such tensor"]),
        (edit("hidden_dim", json!(16)), vec!["vocab_embed.embedding", "[12, 16]", "[12, 8]"]),
    ];
    for (bytes, parts) in cases {
        let dir = folder();
        fs::write(dir.path().join("config.json"), bytes).unwrap();
        refused(dir.path(), &parts);
        let message = open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("config.json") || message.contains("model.safetensors"), "{message}");
    }
}

/// The tensors of a file, as they may be changed and written again.
fn rewrite(path: &Path, change: impl Fn(&mut Vec<(String, Vec<usize>, Vec<u8>)>)) {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: Vec<_> =
        file.tensors().into_iter().map(|(name, view)| (name, view.shape().to_vec(), view.data().to_vec())).collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, shape, data)| {
        (name.as_str(), TensorView::new(safetensors::Dtype::F32, shape.clone(), data).unwrap())
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn a_damaged_tensor_file_is_one_sentence() {
    let weights = |dir: &tempfile::TempDir| dir.path().join("model.safetensors");
    let dir = folder();
    let good = fs::read(weights(&dir)).unwrap();
    for (bytes, parts) in [
        (Vec::new(), vec!["an empty file"]),
        (good[..good.len() - 1].to_vec(), vec!["a safetensors file"]),
        (good[..20].to_vec(), vec!["a safetensors file"]),
        ([&u64::MAX.to_le_bytes()[..], &good[8..]].concat(), vec!["a safetensors file"]),
        (b"PK\x03\x04 a zip file, as torch.save writes".to_vec(), vec!["a safetensors file"]),
    ] {
        fs::write(weights(&dir), bytes).unwrap();
        refused(dir.path(), &[parts, vec!["model.safetensors"]].concat());
    }
    let named = |tensors: &mut Vec<(String, Vec<usize>, Vec<u8>)>, name: &str| {
        tensors.iter().position(|(n, _, _)| n == name).unwrap()
    };
    let dir = folder();
    rewrite(&weights(&dir), |t| {
        let at = named(t, "backbone.blocks.0.norm1.weight");
        t[at].0 = "backbone.blocks.0.norm_1.weight".into();
    });
    refused(dir.path(), &["backbone.blocks.0.norm_1.weight", "an unknown tensor"]);
    let dir = folder();
    rewrite(&weights(&dir), |t| {
        let at = named(t, "backbone.blocks.0.norm1.weight");
        t.remove(at);
    });
    refused(dir.path(), &["backbone.blocks.0.norm1.weight", "[8]", "no such tensor"]);
    let dir = folder();
    rewrite(&weights(&dir), |t| {
        let at = named(t, "backbone.blocks.0.attn_out.weight");
        t[at].1 = vec![4, 16];
    });
    refused(dir.path(), &["backbone.blocks.0.attn_out.weight", "[8, 8]", "[4, 16]"]);
    let dir = folder();
    rewrite(&weights(&dir), |t| {
        let at = named(t, "backbone.rotary_emb.inv_freq");
        t[at].2.fill(0);
    });
    refused(dir.path(), &["backbone.rotary_emb.inv_freq", "rotary base 10000"]);
    let dir = folder();
    rewrite(&weights(&dir), |t| {
        let at = named(t, "backbone.blocks.0.attn_out.weight");
        t[at].2[0..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    refused(dir.path(), &["backbone.blocks.0.attn_out.weight", "finite", "NaN"]);
    fs::write(weights(&dir), good).unwrap();
    assert_eq!(open(dir.path()).unwrap(), arch());
}

fn saved_state() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let model = init::fresh(&arch(), &Device::flex(), &Rng::new(1)).unwrap();
    let cursor = Cursor { row: 3, sources: vec![Place { rows: 9, digest: None, weight: 1.0, epoch: 0, taken: 3 }] };
    let recipe = String::new();
    let clips = vec![(4, 0.45, 0.95), (8, 1e-3, 1.0)];
    let progress = Progress { step: 2, tokens: 48, cursor, clips, unmeasured: false, recipe };
    state::save(dir.path(), &model, &Optimizer::new(&model), &progress).unwrap();
    let path = state::path(dir.path());
    (dir, path)
}

#[test]
fn a_damaged_state_is_one_sentence() {
    let (dir, path) = saved_state();
    let load = || state::load(dir.path(), &arch(), &Device::flex().autodiff()).map(|(_, _, progress)| progress.step);
    assert_eq!(load().unwrap(), 2);
    let good = fs::read(&path).unwrap();
    for bytes in [&[][..], &good[..good.len() / 2], &good[..30]] {
        fs::write(&path, bytes).unwrap();
        let message = load().unwrap_err().to_string();
        assert!(message.contains("state.safetensors") && message.lines().count() == 1, "{message}");
    }
    fs::write(&path, &good).unwrap();
    rewrite(&path, |_| {});
    assert!(load().unwrap_err().to_string().contains("`progress`"), "the numbers were dropped");
    fs::write(&path, &good).unwrap();
    assert_eq!(load().unwrap(), 2);
}

proptest! {
    /// Any bytes in any place: an answer or a sentence, never a panic.
    #[test]
    fn spoilt_bytes_never_panic(place in any::<prop::sample::Index>(), byte in any::<u8>(), file in 0usize..2) {
        let dir = folder();
        let path = dir.path().join(["config.json", "model.safetensors"][file]);
        let mut bytes = fs::read(&path).unwrap();
        let place = place.index(bytes.len().min(4000));
        bytes[place] = byte;
        fs::write(&path, bytes).unwrap();
        if let Err(e) = open(dir.path()) {
            prop_assert_eq!(e.to_string().lines().count(), 1);
        }
    }

    #[test]
    fn spoilt_text_is_no_config(text in ".{0,200}") {
        let _ = Config::parse(Path::new("config.json"), text.as_bytes()).and_then(|c| dit::read_config(&c));
    }
}
