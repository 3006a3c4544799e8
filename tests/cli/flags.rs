//! Flags that mean nothing are refused by their names, and what is said is true.

use std::fs;
use std::path::Path;

use serde_json::{Value, json as value};

use super::{json, model, out, refused, run};

/// A folder with this file in it; gives the paths of both.
fn with_file(name: &str, content: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap().to_string();
    (dir, path)
}

#[test]
fn a_flag_for_what_is_not_there_is_refused() {
    let (_dir, text) = with_file("a.txt", "Once upon a time. ");
    let (dir, lines) = with_file("a.jsonl", "{\"text\":\"Once.\"}\n");
    let to = dir.path().join("out").to_str().unwrap().to_string();
    refused(&["eval", "tiny", &lines, "--split", "valid"], &["--split", "bd3 data"]);
    refused(&["data", &lines, "--out", &to, "--separator", "x"], &["--separator", ".txt"]);
    refused(&["data", &text, "--out", &to, "--field", "foo"], &["--field", ".jsonl"]);
    refused(&["data", &text, "--out", &to, "--separator", "\\q"], &["--separator", "\\n", "`\\q`"]);
    assert!(!Path::new(&to).exists());
    let cut = run(&["data", &text, "--out", &to, "--separator", "\\t", "--split", "0,0,100"]);
    assert!(String::from_utf8_lossy(&cut.stderr).contains("test: 1 document, "), "{cut:?}");
    refused(&["eval", "tiny", &to, "--split", "valid"], &["--split", "test, as", "valid"]);
    let (_dir, nothing) = with_file("empty.jsonl", "");
    refused(&["eval", "tiny", &nothing], &["DATA", "a text", "no token"]);
    json(&["eval", "tiny", &text, "--block", "1, 4", "--json"]);
}

#[test]
fn figures_that_are_not_there_are_a_dash() {
    let table =
        String::from_utf8(out(&["eval", "tiny", "--judge", "tiny", "--generate", "1", "--", "-n", "1"])).unwrap();
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[4], row[5], row[6]), ("-", "0.000", "-"), "{table}");
}

#[test]
fn a_budget_and_a_revision_that_part_are_told_by_their_flags() {
    refused(&["sample", "--budget-ms", "0"], &["error: --budget-ms: "]);
    refused(&["sample", "--seed", "-1"], &["'-1' for '--seed <N>'", "a whole number"]);
    refused(&["train", "recipes/smoke.toml", "--out", "x", "--set", "train=1"], &["--set train=1", "a table"]);
}

#[test]
fn the_newline_that_ends_a_file_is_none_of_the_prompts() {
    for (content, prompt) in [("Once\n", "Once"), ("Once\r\n", "Once"), ("Once\n\n", "Once\n"), ("Once", "Once")] {
        let (_dir, file) = with_file("prompt.txt", content);
        assert_eq!(json(&["sample", "--prompt-file", &file, "-n", "2", "--view", "json"])["prompt"], prompt);
    }
}

#[test]
fn the_model_inside_the_binary_has_a_name_everywhere() {
    out(&["bench", "decode", "tiny", "-n", "4", "--repeat", "1", "--json"]);
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("run").to_str().unwrap().to_string();
    // Its tokenizer is none that a run of toy stories has: found, and refused for that.
    let start = ["train", "recipes/smoke.toml", "--out", &to, "--init", "tiny", "--set", "model.heads=6"];
    let more = ["--set", "model.layers=5", "--set", "data.toy=60", "--set", "data.tokenizer=bytes"];
    refused(&[&start[..], &more].concat(), &["tiny/config.json", "mask id"]);
    assert!(!Path::new(&to).exists());
}

/// As the mask is: a model whose config.json begins or ends texts with other tokens than its tokenizer.json.
#[test]
fn ids_of_begin_and_end_are_those_of_the_tokenizer() {
    let (dir, model) = model();
    let path = dir.path().join("config.json");
    let good = fs::read_to_string(&path).unwrap();
    for (key, id, parts) in [
        ("bos_token_id", 5, ["256", "beginning of text"]),
        ("eos_token_id", 30, ["257", "end of text"]),
        ("eos_token_id", 256, ["257", "end of text"]),
        ("eos_token_id", 258, ["other than the mask", "258"]),
        ("bos_token_id", 99999, ["99999", "256"]),
        ("pad_token_id", 99999, ["99999", "below 260"]),
    ] {
        let mut config: Value = serde_json::from_str(&good).unwrap();
        config[key] = value!(id);
        fs::write(&path, config.to_string()).unwrap();
        refused(&["sample", &model], &[&["config.json", key][..], &parts].concat());
    }
    let mut config: Value = serde_json::from_str(&good).unwrap();
    config["bos_token_id"] = Value::Null;
    fs::write(&path, config.to_string()).unwrap();
    out(&["sample", &model, "-n", "4"]);
}
