//! Texts that have to match: whole at every block size and rule, and refused in a sentence where they can't be.

use regex::Regex;
use serde_json::{Value, json as value};

use super::{bd3, json, refused};

const STORY: &str = "There was a [a-z]+ (cat|dog|fox)\\.( [A-Z][a-z ,]+\\.){2}";

/// A file with this schema.
fn file(schema: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), schema.to_string()).unwrap();
    file
}

/// A sample as JSON.
fn sample(flags: &[&str]) -> Value {
    json(&[&["sample", "-p", "Once upon a time. ", "--view", "json"], flags].concat())
}

#[test]
fn texts_match_at_every_block_size() {
    let whole = Regex::new(&format!("^(?:{STORY})$")).unwrap();
    for (block, how) in [
        ("1", &["--top-p", "1"][..]),
        ("4", &["--rule", "threshold", "--threshold", "0.5"]),
        ("8", &["--rule", "ancestral", "--steps", "2", "--temperature", "1.5"]),
        ("8", &["--rule", "ancestral", "--steps", "3", "--revise", "remdm-cap"]),
        ("32", &["--rule", "entropy-bound", "--bound", "0.5", "--guidance", "1"]),
        ("32", &["--temperature", "0", "--rule", "confidence", "--steps", "4"]),
        ("256", &["--passes", "6", "--nucleus", "strict"]),
    ] {
        for seed in ["1", "2"] {
            let made = sample(&[&["--regex", STORY, "-n", "40", "--block", block, "--seed", seed], how].concat());
            let text = made["text"].as_str().unwrap();
            assert!(whole.is_match(text), "block {block} {how:?}: {text:?}");
        }
    }
}

#[test]
fn json_is_whole_however_few_tokens_are_left() {
    let schema = value!({
        "type": "object",
        "properties": {
            "name": { "type": "string", "minLength": 1 },
            "age": { "type": "integer", "minimum": 1, "maximum": 99 },
            "kind": { "enum": ["cat", "dog"] },
            "friends": { "type": "array", "items": { "type": "string" }, "maxItems": 3 },
        },
        "required": ["name", "age", "kind"],
    });
    let file = file(&schema);
    let path = file.path().to_str().unwrap();
    let mut ended = Vec::new();
    for (block, n) in [("1", "64"), ("4", "30"), ("8", "40"), ("32", "64"), ("256", "30")] {
        let made = sample(&["--json-schema", path, "-n", n, "--block", block, "--seed", "3"]);
        let told = made["text"].as_str().unwrap();
        let object: Value = serde_json::from_str(told).unwrap_or_else(|e| panic!("block {block}: {told} ({e})"));
        assert!(!object["name"].as_str().unwrap().is_empty(), "{told}");
        assert!((1..=99).contains(&object["age"].as_u64().unwrap()), "{told}");
        assert!(["cat", "dog"].contains(&object["kind"].as_str().unwrap()), "{told}");
        assert!(object["friends"].as_array().is_none_or(|friends| friends.len() <= 3), "{told}");
        ended.push(made["reason"].as_str().unwrap().to_string());
    }
    assert!(ended.iter().any(|reason| reason == "eos"), "{ended:?}");
    for seed in ["1", "2", "3"] {
        let made = sample(&["--json", "-n", "24", "--block", "4", "--seed", seed]);
        let told = made["text"].as_str().unwrap();
        assert!(serde_json::from_str::<Value>(told).is_ok_and(|value| value.is_object()), "{told}");
    }
}

#[test]
fn what_cannot_be_matched_is_refused() {
    refused(&["sample", "--regex", "("], &["error: --regex: expected ", "unclosed group"]);
    refused(
        &["sample", "--regex", "[0-9]{50}", "-n", "5"],
        &["-n: expected at least ", "tokens of the shortest text", "found 5"],
    );
    refused(&["sample", "--regex", "a", "--infill", "a ___"], &["--infill"]);
    refused(&["sample", "--regex", "a", "--revise", "look-back", "--block", "4"], &["--revise", "look-back"]);
    refused(&["eval", "tiny", "--judge", "tiny", "--generate", "1", "--", "--json"], &["--json"]);
    refused(&["sample", "--json-schema", "nowhere.json"], &["nowhere.json"]);
    let broken = file(&value!("x"));
    std::fs::write(broken.path(), "{").unwrap();
    refused(&["sample", "--json-schema", broken.path().to_str().unwrap()], &["a JSON schema", "broken JSON"]);
    let odd = file(&value!({ "type": "object", "propertes": {} }));
    refused(&["sample", "--json-schema", odd.path().to_str().unwrap()], &["#/propertes"]);
}

#[test]
fn a_race_keeps_the_constraint() {
    let mut race =
        bd3(&["sample", "--race", "--regex", "(red|blue|green)( (red|blue|green)){3}", "-n", "12", "--view", "json"]);
    let told = race.output().unwrap().stdout;
    let told = String::from_utf8(told).unwrap();
    let whole = Regex::new("^(red|blue|green)( (red|blue|green)){3}$").unwrap();
    assert_eq!(told.lines().count(), 3, "{told}");
    for line in told.lines() {
        let made: Value = serde_json::from_str(line).unwrap();
        assert!(whole.is_match(made["text"].as_str().unwrap()), "{line}");
    }
}
