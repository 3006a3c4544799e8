//! The real binary: what it prints where, and how it exits.

mod bench;
mod constrain;
mod convert;
mod curve;
mod flags;
#[cfg(target_os = "linux")]
mod memory;
mod noise;
mod race;
mod replay;
mod revise;
mod train;

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use bd3::arch::{Arch, Dit, Objective, Shape, SizeClip, SpecialIds};
use bd3::checkpoint;
use bd3::format::Type;
use bd3::rng::Rng;
use bd3::tokenizer::Tokenizer;
use bd3::train::init;
use burn::tensor::Device;
use serde_json::Value;
use tempfile::TempDir;

fn bd3(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bd3"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    bd3(arguments).output().unwrap()
}

fn out(arguments: &[&str]) -> Vec<u8> {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_slice(&out(arguments)).unwrap()
}

/// Runs what must be refused: exit 2, nothing on stdout, one sentence that has all these parts.
fn refused(arguments: &[&str], parts: &[&str]) {
    let output = run(arguments);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(output.stdout.is_empty());
    let told: Vec<&str> = error.lines().filter(|line| !line.starts_with("note: ")).collect();
    assert!(told.len() == 1 && told[0].starts_with("error: "), "{error}");
    for part in parts {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
}

/// A model with fresh weights, which draws bytes at random.
fn model() -> (TempDir, String) {
    let tokenizer = Tokenizer::bytes();
    let special = tokenizer.special();
    let size = |size| SizeClip { size, beta: 1e-3, omega: 1.0 };
    let arch = Arch {
        vocab: tokenizer.vocab_size(),
        mask: special.mask,
        special: SpecialIds { bos: special.bos, eos: special.eos, pad: special.pad },
        hidden: 16,
        layers: 1,
        heads: 2,
        length: 32,
        objective: Objective::Masked,
        block: 8,
        sizes: vec![size(8), size(32)],
        visible_loss: false,
        shape: Shape::Dit(Dit { cond: 8, dropout: 0.0 }),
    };
    let dir = tempfile::tempdir().unwrap();
    let network = init::fresh(&arch, &Device::flex(), &Rng::new(1)).unwrap();
    checkpoint::save_network(dir.path(), &network, Type::F32).unwrap();
    tokenizer.save(dir.path()).unwrap();
    let path = dir.path().to_str().unwrap().to_string();
    (dir, path)
}

#[test]
fn the_bare_command_writes_a_story_at_once() {
    let text = String::from_utf8(out(&[])).unwrap();
    assert!(text.split_whitespace().count() >= 60, "{text}");
    assert_eq!(text.as_bytes(), out(&["sample"]));
    // Start, load and first block: the quickest of three, as the machine may be busy.
    let quickest = (0..3).map(|_| {
        let start = std::time::Instant::now();
        out(&["sample", "-n", "4"]);
        start.elapsed()
    });
    let quickest = quickest.min().unwrap();
    assert!(quickest < std::time::Duration::from_millis(500), "{quickest:?}");
}

#[test]
fn the_built_in_model_is_small_and_knows_its_block_sizes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/tiny");
    assert!(std::fs::metadata(folder.join("model.safetensors")).unwrap().len() <= 8_000_000);
    for block in ["1", "4", "8", "32", "256"] {
        let object = json(&["sample", "-p", "Once upon a time", "-n", "300", "--block", block, "--view", "json"]);
        assert!(object["tokens"].as_u64().unwrap() > 0, "{object}");
    }
}

#[test]
fn a_model_in_f16_is_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let to = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    out(&["convert", "models/tiny", &to("f32"), "--to", "f32"]);
    out(&["convert", &to("f32"), &to("f16"), "--to", "f16"]);
    let bytes = |dir: &str| std::fs::read(Path::new(dir).join("model.safetensors")).unwrap();
    assert!(bytes(&to("f16")) == bytes("models/tiny"));
    refused(&["convert", "models/tiny", &to("f16"), "--to", "f16"], &["f16", "empty folder"]);
}

#[test]
fn help_goes_to_stdout_and_shows_an_example() {
    for command in ["sample", "replay", "noise", "data", "train", "eval", "curve", "completions"] {
        let help = String::from_utf8(out(&[command, "--help"])).unwrap();
        assert!(help.contains(&format!("Example:\n  bd3 {command}")), "{help}");
    }
}

#[test]
fn every_rule_writes_and_is_explained() {
    let help = String::from_utf8(out(&["sample", "--help"])).unwrap();
    for (rule, knobs) in [
        ("first-hitting", &[][..]),
        ("ancestral", &["--steps", "4"]),
        ("random", &["--steps", "4"]),
        ("left-to-right", &["--steps", "4", "--share", "linear"]),
        ("confidence", &["--steps", "4", "--share", "block"]),
        ("margin", &["--steps", "4", "--share", "dream"]),
        ("entropy", &["--steps", "4"]),
        ("threshold", &["--threshold", "0.9"]),
        ("dynamic", &["--threshold", "0.9", "--steps", "4"]),
        ("factor", &["--factor", "1"]),
        ("entropy-bound", &["--bound", "0.5"]),
        ("klass", &["--threshold", "0.5", "--drift", "0.1", "--stable", "1"]),
        ("hierarchy", &["--threshold", "0.9", "--low", "0.5"]),
        ("credit", &["--threshold", "0.9"]),
    ] {
        assert!(help.contains(&format!("- {rule}:")), "{rule}");
        let made = json(&[&["sample", "--view", "json", "-n", "32", "--rule", rule], knobs].concat());
        assert_eq!(made["tokens"], 32, "{rule}");
        assert!(made["passes"].as_u64().unwrap() <= 64, "{rule}");
    }
    for preset in ["--quality", "--fast"] {
        let made = json(&["sample", "--view", "json", "-n", "32", preset]);
        assert!(made["passes"].as_u64().unwrap() <= 64, "{preset}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(String::from_utf8(out(&["completions", shell])).unwrap().contains("sample"), "{shell}");
    }
}

#[test]
fn a_wrong_flag_is_refused() {
    refused(&["sample", "--no-such-flag"], &["unexpected argument '--no-such-flag'", "(see bd3 sample --help)"]);
    refused(&["sample", "--rule", "best"], &["'best'", "first-hitting", "threshold"]);
    refused(&["train"], &["<RECIPE>", "(see bd3 train --help)"]);
    refused(&["sing"], &["'sing'", "(see bd3 --help)"]);
    assert!(String::from_utf8(out(&["sample", "--help"])).unwrap().lines().count() > 20);
}

/// Before a model is even looked for.
#[test]
fn counts_that_no_run_could_reach_are_refused() {
    for flag in ["-n", "--samples", "--threads"] {
        refused(
            &["sample", "/no/such/model", flag, "1000000000000000000"],
            &[flag, "1000000000000000000", "a whole number from"],
        );
    }
    refused(&["sample", "--samples", "0"], &["--samples", "from 1 to"]);
    refused(&["eval", "models/tiny", "README.md", "--draws", "99999999999999"], &["--draws", "a whole number from"]);
}

#[test]
fn text_is_exactly_the_text_of_the_object() {
    let (_dir, model) = model();
    for more in [&["-n", "70"][..], &["-n", "5", "-p", "Once"], &["-n", "40", "--rule", "confidence", "--steps", "2"]] {
        let arguments = [&["sample", &model, "--seed", "3"], more].concat();
        let object = json(&[&arguments[..], &["--view", "json"]].concat());
        assert_eq!(out(&arguments), object["text"].as_str().unwrap().as_bytes(), "{more:?}");
        assert_eq!(object["ids"].as_array().unwrap().len() as u64, object["tokens"].as_u64().unwrap());
        assert!(object["passes"].as_u64().unwrap() > 0 && object["seconds"].as_f64().unwrap() > 0.0);
        assert_eq!((&object["seed"], &object["model"]), (&3.into(), &model.as_str().into()));
    }
}

#[test]
fn a_prompt_comes_from_a_flag_a_file_or_standard_input() {
    let (dir, model) = model();
    let common = ["sample", &model, "-n", "12", "--view", "json"];
    let by_flag = json(&[&common[..], &["-p", "Once é"]].concat());
    let file = dir.path().join("prompt.txt");
    std::fs::write(&file, "Once é").unwrap();
    let by_file = json(&[&common[..], &["--prompt-file", file.to_str().unwrap()]].concat());
    let mut child = bd3(&[&common[..], &["--prompt-file", "-"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all("Once é".as_bytes()).unwrap();
    let by_pipe: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    for other in [by_file, by_pipe] {
        assert_eq!((&other["ids"], &other["prompt"]), (&by_flag["ids"], &"Once é".into()));
    }
    std::fs::write(&file, b"Once \xe9").unwrap();
    refused(&[&common[..], &["--prompt-file", file.to_str().unwrap()]].concat(), &["prompt.txt", "UTF-8", "offset 5"]);
}

#[test]
fn samples_differ_and_come_back_by_their_seed() {
    let (_dir, model) = model();
    let lines = |samples| {
        let text =
            String::from_utf8(out(&["sample", &model, "-n", "16", "--samples", samples, "--view", "json"])).unwrap();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["ids"].clone()).collect::<Vec<_>>()
    };
    let three = lines("3");
    assert_eq!((three.len(), &three[..2]), (3, &lines("2")[..]));
    assert!(three[0] != three[1] && three[1] != three[2]);
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let (_dir, model) = model();
    let mut child =
        bd3(&["sample", &model, "-n", "4000"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &[][..]));
}

#[test]
fn bad_input_is_refused_in_one_sentence() {
    let (dir, model) = model();
    let sample = |more: &[&'static str]| [&["sample", &model[..]], more].concat();
    refused(&["sample", "/no/such/folder"], &["/no/such/folder"]);
    refused(&sample(&["--block", "64"]), &["block", "32", "64"]);
    refused(&sample(&["--rule", "threshold"]), &["threshold"]);
    refused(&sample(&["--rule", "factor", "--bound", "1"]), &["--bound", "factor"]);
    refused(&sample(&["--fast", "--steps", "4"]), &["--fast"]);
    refused(&sample(&["--steps", "3"]), &["steps", "first-hitting"]);
    refused(&sample(&["--top-p", "1.5"]), &["top-p", "1.5"]);
    refused(&sample(&["--temperature", "-1"]), &["temperature"]);

    let folder = dir.path().join("empty.gguf");
    std::fs::create_dir(&folder).unwrap();
    refused(
        &["sample", folder.to_str().unwrap()],
        &["empty.gguf: expected a model", "found a folder without config.json"],
    );
    let weights = dir.path().join("model.safetensors");
    refused(&["sample", weights.to_str().unwrap()], &["ends in .gguf", "found a file of another name"]);
    refused(&["sample", "/no/such/file.gguf"], &["file.gguf: expected a model", "found nothing of that name"]);

    let weights = dir.path().join("model.safetensors");
    let good = std::fs::read(&weights).unwrap();
    for bad in [&good[..0], &good[..4], &good[..good.len() - 1]] {
        std::fs::write(&weights, bad).unwrap();
        refused(&sample(&[]), &["model.safetensors: ", "expected", "found"]);
    }
    std::fs::write(&weights, &good).unwrap();
    spoil(dir.path(), "config.json", &model, &["", "{", "[]", "\u{fffd}", "{\"model_type\":\"gpt\"}"]);
    spoil(dir.path(), "tokenizer.json", &model, &["", "{", "[]", "{\"type\":\"words\"}"]);
    out(&sample(&["-n", "4"]));
}

/// Replaces one file of a model by each of these, expects a refusal that names it, and puts the good one back.
fn spoil(dir: &Path, name: &str, model: &str, contents: &[&str]) {
    let path = dir.join(name);
    let good = std::fs::read(&path).unwrap();
    for content in contents {
        std::fs::write(&path, content).unwrap();
        refused(&["sample", model], &[name, "expected", "found"]);
    }
    std::fs::write(&path, good).unwrap();
}

#[cfg(unix)]
#[test]
fn an_interrupted_sample_keeps_its_text() {
    let (_dir, model) = model();
    let mut child = bd3(&["sample", &model, "-n", "1000000", "--view", "json"]).stdout(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let object: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(object["reason"], "interrupted");
    assert!(object["tokens"].as_u64().unwrap() > 0);
}

#[test]
fn toy_stories_become_a_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("toy");
    let arguments = ["data", "--toy", "200", "--out", folder.to_str().unwrap(), "--tokenizer", "bytes"];
    let summary = json(&arguments);
    assert!(summary["nats_per_story"].as_f64().unwrap() > 0.0);
    assert!(folder.join("train.bin").is_file() && folder.join("tokenizer.json").is_file());
    refused(&arguments, &["toy", "empty folder"]);
}
