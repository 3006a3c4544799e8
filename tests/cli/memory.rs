//! How much memory a sample takes at its peak: the weights as they are stored, the cache, and at most 15 % more.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use bd3::arch::Arch;
use bd3::checkpoint::{Checkpoint, Config, llama};
use bd3::format::gguf::Gguf;
use bd3::format::quant::quantise;
use bd3::format::{Header, Type, safetensors};
use bd3::rng::Rng;
use bd3::tokenizer::{Tokenizer, train_bpe};
use serde_json::{Value, json};

use super::{bd3, out};

const VOCAB: usize = 32_768;

/// A byte-level BPE of many tokens, each made of two earlier ones at random.
fn tokenizer() -> Tokenizer {
    let small = train_bpe(std::iter::once("ab"), 260).unwrap();
    let mut file: Value = serde_json::from_slice(small.file()).unwrap();
    let mut rng = Rng::new(1);
    let mut tokens: Vec<String> = (0..256).map(|id| small.name(id).unwrap()).collect();
    let mut known: HashSet<String> = tokens.iter().cloned().collect();
    let mut merges = Vec::new();
    while tokens.len() < VOCAB {
        let [left, right] = [(); 2].map(|()| tokens[rng.below(tokens.len())].clone());
        let joint = format!("{left}{right}");
        if joint.len() < 16 && known.insert(joint.clone()) {
            tokens.push(joint);
            merges.push(json!([left, right]));
        }
    }
    file["added_tokens"] = json!([]);
    file["model"]["vocab"] = tokens.iter().zip(0..).map(|(token, id)| (token.clone(), Value::from(id))).collect();
    file["model"]["merges"] = merges.into();
    Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap()
}

/// A Llama of 110 million random weights in f16. Gives its bytes, too.
fn folder(dir: &Path) -> (Arch, usize) {
    let config = json!({"model_type": "llama", "vocab_size": VOCAB, "hidden_size": 768, "intermediate_size": 2048,
        "num_hidden_layers": 12, "num_attention_heads": 12, "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
        "tie_word_embeddings": true, "bos_token_id": 0});
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let arch = llama::read_config(&Config::open(&dir.join("config.json")).unwrap()).unwrap();
    let header = |(name, shape)| Header { name, ty: Type::F16, shape };
    let headers: Vec<Header> = arch.tensors().into_iter().map(header).collect();
    let mut rng = Rng::new(2);
    let numbers: Vec<f32> = (0..1 << 16).map(|_| 0.05 * rng.normal() as f32).collect();
    let pattern = quantise(Type::F16, &numbers).unwrap();
    let bytes = |header: &Header| 2 * header.shape.iter().product::<usize>();
    safetensors::write(&dir.join("model.safetensors"), &Default::default(), &headers, |header| {
        Ok(pattern.iter().copied().cycle().take(bytes(header)).collect::<Vec<u8>>().into())
    })
    .unwrap();
    tokenizer().save(dir).unwrap();
    (arch, headers.iter().map(bytes).sum())
}

/// The most memory that a process has had, in bytes, when its first sample was written.
fn peak(model: &str) -> usize {
    let arguments = ["sample", model, "-n", "207", "--samples", "1000000", "--view", "json"];
    let mut child = bd3(&arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.contains("\"tokens\":207"), "{line}");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    1024 * peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
}

#[test]
fn a_sample_takes_little_more_than_weights_and_cache() {
    let dir = tempfile::tempdir().unwrap();
    let (arch, half) = folder(dir.path());
    let folder = dir.path().to_str().unwrap();
    let file = dir.path().join("eight.gguf");
    out(&["convert", folder, file.to_str().unwrap(), "--to", "q8_0"]);
    let gguf = Gguf::open(&file).unwrap();
    let checkpoint = Checkpoint::open(&file).unwrap();
    let eight: usize =
        checkpoint.arch.tensors().iter().map(|(name, shape)| checkpoint.take(name, shape).unwrap().bytes.len()).sum();
    assert!(gguf.keys().any(|key| key == "tokenizer.ggml.merges"));
    let cache = 208 * arch.layers * 2 * arch.kv_heads() * arch.head_dim() * 2;
    for (model, weights) in [(folder, half), (file.to_str().unwrap(), eight)] {
        let peak = peak(model);
        let share = peak as f64 / (weights + cache) as f64;
        println!("{model}: {peak} bytes at the peak, {share:.3} of {weights} for weights and {cache} for the cache");
        assert!(
            share <= 1.15,
            "{model}: {peak} bytes at the peak for {weights} of weights and {cache} of cache: {share:.3}"
        );
    }
}
