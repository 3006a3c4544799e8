//! `bd3 convert`: folders and GGUF files, both ways.

use std::fs;
use std::path::Path;

use bd3::checkpoint::Checkpoint;
use bd3::format::gguf::Gguf;
use bd3::format::quant::quantise;
use bd3::format::{Header, Type, safetensors};
use bd3::rng::Rng;
use bd3::tokenizer::{self, Tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{json, out, refused, run};

fn place(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().unwrap().to_string()
}

#[test]
fn the_built_in_model_is_the_same_in_a_gguf_file() {
    let dir = tempfile::tempdir().unwrap();
    let (half, eight, back) = (place(&dir, "half.gguf"), place(&dir, "eight.gguf"), place(&dir, "back"));
    out(&["convert", "models/tiny", &half, "--to", "f16"]);
    out(&["convert", &half, &back, "--to", "f16"]);
    for name in ["config.json", "tokenizer.json"] {
        let read = |dir: &str| fs::read_to_string(Path::new(dir).join(name)).unwrap();
        assert_eq!(read(&back), read("models/tiny"), "{name}");
    }
    out(&["convert", &half, &eight, "--to", "q8_0"]);
    assert!(fs::metadata(&eight).unwrap().len() < fs::metadata(&half).unwrap().len() * 3 / 4);
    let text = |model: &str| json(&["sample", model, "-p", "Once", "-n", "60", "--seed", "5", "--view", "json"]);
    // Vectors are f16 in the folder and f32 in the file, with the same numbers.
    assert_eq!(text(&half)["ids"], text("models/tiny")["ids"]);
    assert_eq!(text(&eight)["tokens"], text("models/tiny")["tokens"]);
}

#[test]
fn what_can_not_be_written_is_refused_before_anything_is() {
    let dir = tempfile::tempdir().unwrap();
    refused(&["convert", "models/tiny", &place(&dir, "x"), "--to", "q4_0"], &["--to", ".gguf", "q4_0"]);
    fs::write(dir.path().join("x.gguf"), "mine").unwrap();
    refused(&["convert", "models/tiny", &place(&dir, "x.gguf"), "--to", "f16"], &["x.gguf", "a new file"]);
    refused(&["convert", &place(&dir, "x.gguf"), &place(&dir, "y"), "--to", "f16"], &["x.gguf", "GGUF"]);
    refused(&["convert", "models/tiny", &place(&dir, "no/y.gguf"), "--to", "f16"], &["no/y.gguf"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// A Llama with a byte-level BPE, a chat template, and a width of 48, so that some rows are not whole blocks of 32.
fn llama() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = tokenizer::train_bpe(["the cat sat on the mat"].into_iter(), 262).unwrap();
    tokenizer.save(dir.path()).unwrap();
    fs::write(dir.path().join("chat_template.jinja"), "{{ messages[0].content }}!").unwrap();
    let config = json!({
        "model_type": "llama", "vocab_size": 264, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 3, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": true,
        "bos_token_id": tokenizer.special().bos, "eos_token_id": tokenizer.special().eos,
    });
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let file = bd3::checkpoint::Config::open(&dir.path().join("config.json")).unwrap();
    let tensors = bd3::checkpoint::llama::read_config(&file).unwrap().tensors();
    let headers: Vec<Header> = tensors.into_iter().map(|(name, shape)| Header { name, ty: Type::F32, shape }).collect();
    safetensors::write(&dir.path().join("model.safetensors"), &Default::default(), &headers, |header| {
        let mut rng = Rng::new(1).split(&header.name);
        let numbers: Vec<f32> = (0..header.shape.iter().product()).map(|_| rng.normal() as f32).collect();
        Ok(quantise(Type::F32, &numbers)?.into())
    })
    .unwrap();
    dir
}

#[test]
fn a_llama_becomes_a_file_of_llama_cpps_and_comes_back() {
    let model = llama();
    let (source, file) = (model.path().to_str().unwrap(), place(&model, "m.gguf"));
    let output = run(&["convert", source, &file, "--to", "q4_0"]);
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("6 matrices are f16") || notes.contains("7 matrices are f16"), "{notes}");
    assert_eq!(notes.lines().count(), 1, "{notes}");
    let gguf = Gguf::open(Path::new(&file)).unwrap();
    assert_eq!(gguf.text("general.architecture").unwrap(), Some("llama"));
    assert_eq!(gguf.text("tokenizer.ggml.model").unwrap(), Some("gpt2"));
    assert_eq!(gguf.texts("tokenizer.ggml.tokens").unwrap().unwrap().len(), 264);
    assert_eq!(gguf.text("tokenizer.chat_template").unwrap(), Some("{{ messages[0].content }}!"));
    assert_eq!(Tokenizer::from_gguf(&gguf).unwrap().hash(), Tokenizer::load(model.path()).unwrap().hash());
    let (again, back) = (place(&model, "again.gguf"), place(&model, "back"));
    out(&["convert", &file, &again, "--to", "q8_0"]);
    out(&["convert", &again, &back, "--to", "bf16"]);
    let arch = |path: &str| Checkpoint::open(Path::new(path)).unwrap().arch;
    assert_eq!((arch(&back), arch(&again)), (arch(source), arch(source)));
    for name in ["tokenizer.json", "chat_template.jinja"] {
        assert!(fs::read(Path::new(&back).join(name)).unwrap() == fs::read(model.path().join(name)).unwrap(), "{name}");
    }
}

/// A real file there and back: every tensor and the whole vocabulary are as they were.
#[test]
fn smollm2_comes_back() {
    let Some(path) = std::env::var_os("BD3_SMOLLM2") else {
        return println!("skipped: BD3_SMOLLM2 names no file");
    };
    let dir = tempfile::tempdir().unwrap();
    let (path, again) = (path.to_str().unwrap(), place(&dir, "again.gguf"));
    out(&["convert", path, &again, "--to", "q4_1"]);
    let (ours, theirs) = (Gguf::open(Path::new(&again)).unwrap(), Gguf::open(Path::new(path)).unwrap());
    assert_eq!(ours.names().collect::<Vec<_>>(), theirs.names().collect::<Vec<_>>());
    for name in theirs.names() {
        let shape = theirs.shape(name).unwrap();
        let (a, b) = (ours.stored(name, shape).unwrap(), theirs.stored(name, shape).unwrap());
        assert!(a.ty == b.ty && a.bytes == b.bytes, "{name}");
    }
    for (key, value) in &theirs.values("tokenizer.").unwrap() {
        assert_eq!(ours.value(key).unwrap().as_ref(), Some(value), "{key}");
    }
    // Through a folder the vocabulary is written anew, and is the same one.
    let (folder, third) = (place(&dir, "folder"), place(&dir, "third.gguf"));
    out(&["convert", path, &folder, "--to", "f16"]);
    out(&["convert", &folder, &third, "--to", "q8_0"]);
    let third = Gguf::open(Path::new(&third)).unwrap();
    for key in ["model", "pre", "tokens", "merges", "token_type", "bos_token_id", "eos_token_id"] {
        let key = format!("tokenizer.ggml.{key}");
        assert_eq!(third.value(&key).unwrap().as_ref(), theirs.value(&key).unwrap().as_ref(), "{key}");
    }
}

/// The tensor is told as the file that has it calls it, the new file isn't there, and no note comes before.
#[test]
fn a_number_that_is_none_is_told_by_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let tiny = Checkpoint::open(Path::new("models/tiny")).unwrap();
    let spoiled = dir.path().join("spoiled");
    fs::create_dir(&spoiled).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(Path::new("models/tiny").join(name), spoiled.join(name)).unwrap();
    }
    tiny.save(&spoiled, Type::F32).unwrap();
    let weights = spoiled.join("model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let start = 8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize;
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&weights, bytes).unwrap();
    for (name, to) in [("x.gguf", "q8_0"), ("x", "f16")] {
        let to = ["convert", spoiled.to_str().unwrap(), &place(&dir, name), "--to", to];
        let output = run(&to);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.lines().count()), (Some(2), 1), "{told}");
        assert!(told.contains("spoiled/model.safetensors: `backbone.") && told.contains("NaN"), "{told}");
        assert!(!dir.path().join("x.gguf").exists());
    }
}

/// Of the several tokens that end a chat or a text a tokenizer's names tell one; an ordinary token is none of them.
#[test]
fn a_llama_ends_with_an_added_token() {
    let dir = llama();
    let (path, model) = (dir.path().join("config.json"), dir.path().to_str().unwrap());
    let special = Tokenizer::load(dir.path()).unwrap().special();
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let mut with = |eos: u32| {
        config["eos_token_id"] = json!([eos, special.eos]);
        fs::write(&path, config.to_string()).unwrap();
    };
    with(65);
    refused(&["sample", model], &["config.json", "`eos_token_id`", "end of text", "65"]);
    with(special.pad.unwrap());
    out(&["sample", model, "-n", "2"]);
}
