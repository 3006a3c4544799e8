//! `bd3 sample --race`.

use serde_json::Value;

use super::{bd3, json, model, out, refused};

const RACE: [&str; 6] = ["-n", "40", "--race", "--block", "4", "--seed"];

#[test]
fn every_lane_writes_what_it_would_write_alone() {
    let arguments = [&["sample"], &RACE[..], &["5", "--view", "json"]].concat();
    let text = String::from_utf8(out(&arguments)).unwrap();
    let lanes: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let sizes: Vec<u64> = lanes.iter().map(|lane| lane["block"].as_u64().unwrap()).collect();
    assert_eq!(sizes, [1, 4, 256]);
    for (index, lane) in lanes.iter().enumerate() {
        let block = sizes[index].to_string();
        let alone = json(&["sample", "-n", "40", "--block", &block, "--seed", "5", "--view", "json"]);
        for key in ["text", "ids", "tokens", "passes", "reason", "seed", "model"] {
            assert_eq!(lane[key], alone[key], "{key} of block {block}");
        }
        assert_eq!(lane["lane"], index);
        assert!(lane["seconds"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_pipe_gets_a_line_per_lane() {
    let text = String::from_utf8(out(&[&["sample"], &RACE[..], &["6"]].concat())).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    for (line, block) in lines.iter().zip([1, 4, 256]) {
        assert!(line.starts_with(&format!("block {block} · ")) && line.contains(" passes · "), "{line}");
    }
}

#[test]
fn a_race_needs_two_block_sizes_and_one_sample() {
    let (_dir, model) = model();
    refused(&["sample", &model, "--race", "--samples", "2"], &["--race", "one sample", "2"]);
    assert_eq!(bd3(&["sample", &model, "--race", "--block", "64"]).output().unwrap().status.code(), Some(2));
}

#[cfg(unix)]
#[test]
fn an_interrupted_race_ends_with_the_texts_so_far() {
    use std::process::{Command, Stdio};
    let (_dir, model) = model();
    let child = bd3(&["sample", &model, "-n", "1000000", "--race", "--view", "json"]).stdout(Stdio::piped()).spawn();
    let child = child.unwrap();
    std::thread::sleep(std::time::Duration::from_millis(600));
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let lanes: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lanes.len(), 3);
    assert!(lanes.iter().all(|lane| lane["reason"] == "interrupted"));
    // The lanes stay abreast: none is ahead by more than a few of its passes.
    let seconds: Vec<f64> = lanes.iter().map(|lane| lane["seconds"].as_f64().unwrap()).collect();
    let (least, most) = (seconds.iter().copied().fold(f64::MAX, f64::min), seconds.iter().copied().fold(0.0, f64::max));
    assert!(most - least < 0.5 * most, "{seconds:?}");
}
