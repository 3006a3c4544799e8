//! `bd3 sample --trace` and `bd3 replay`.

use std::path::Path;

use super::{model, out, refused, run};

/// Samples into a trace; its text.
fn traced(model: &str, path: &str, more: &[&str]) -> String {
    let sample = ["sample", model, "--view", "text", "--trace", path];
    String::from_utf8(out(&[&sample[..], more].concat())).unwrap()
}

#[test]
fn a_trace_is_the_sample_without_its_model() {
    let (dir, model) = model();
    let path = dir.path().join("t.jsonl").to_str().unwrap().to_string();
    let first = traced(&model, &path, &["--seed", "3", "-n", "40"]);
    assert_eq!(first.as_bytes(), out(&["sample", &model, "-n", "40", "--seed", "3"]), "a trace changes nothing");
    // A second trace takes the place of the first, though it is shorter.
    let second = traced(&model, &path, &["--seed", "4", "-n", "9", "-p", "é"]);
    std::fs::remove_file(dir.path().join("model.safetensors")).unwrap();
    assert_eq!(out(&["replay", &path]), second.as_bytes());
    assert_eq!(out(&["replay", &path, "--view", "text", "--speed", "0.001"]), second.as_bytes());
    let canvas = String::from_utf8(out(&["replay", &path, "--view", "canvas", "--speed", "0"])).unwrap();
    assert!(canvas.contains('▢') && canvas.contains("tokens/pass") && canvas.contains('\u{1b}'), "{canvas:?}");
    let header: serde_json::Value =
        serde_json::from_str(std::fs::read_to_string(&path).unwrap().lines().next().unwrap()).unwrap();
    assert_eq!((&header["seed"], &header["settings"]["options"]["max_new"]), (&4.into(), &9.into()));
}

#[test]
fn a_trace_that_is_cut_short_is_shown_as_far_as_it_goes() {
    let (dir, model) = model();
    let path = dir.path().join("t.jsonl").to_str().unwrap().to_string();
    // Whole blocks, since without its end a trace does not know where the last one was cut.
    let text = traced(&model, &path, &["--seed", "3", "--block", "8", "-n", "39"]);
    let whole = std::fs::read(&path).unwrap();
    let commit = String::from_utf8_lossy(&whole).find("\"block_committed\"").unwrap();
    let header = String::from_utf8_lossy(&whole).find('\n').unwrap();
    for cut in [whole.len() - 1, whole.len() * 2 / 3, commit, header + 9] {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let output = run(&["replay", &path]);
        let (shown, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(1), "{cut}: {error}");
        assert!(error.starts_with("error: ") && error.contains("cut short after"), "{error}");
        // A character may be cut in two.
        assert!(text.starts_with(shown.trim_end_matches('\u{fffd}')), "{cut}: {shown:?}");
        assert_eq!(shown.is_empty(), cut <= commit, "{cut}: {shown:?}");
    }
    std::fs::write(&path, [&whole[..], b"half a line"].concat()).unwrap();
    assert_eq!(run(&["replay", &path]).status.code(), Some(1));
    let mut changed = whole;
    let digit = changed.iter().rposition(u8::is_ascii_digit).unwrap();
    changed[digit] ^= 1;
    std::fs::write(&path, &changed).unwrap();
    refused(&["replay", &path], &["t.jsonl", "sound line", "not as it was written"]);
}

#[test]
fn a_trace_is_begun_with_the_sample_and_not_before() {
    let (dir, model) = model();
    let path = dir.path().join("t.jsonl").to_str().unwrap().to_string();
    std::fs::write(&path, "kept").unwrap();
    for wrong in [&["--samples", "2"][..], &["--block", "64"], &["--race"], &["--prompt-file", "/no/such/file"]] {
        let arguments = [&["sample", &model, "--trace", &path], wrong].concat();
        assert_eq!(run(&arguments).status.code(), Some(2), "{wrong:?}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept");
    }
    refused(&["sample", &model, "--trace", &path, "--samples", "2"], &["--trace", "one sample", "2"]);
    refused(&["sample", &model, "--trace", "/no/such/folder/t"], &["/no/such/folder/t"]);
    refused(&["replay", &path], &["t.jsonl", "a trace"]);
    refused(&["replay", &path, "--speed", "-1"], &["--speed", "-1"]);
    refused(&["replay", "/no/such/file"], &["/no/such/file"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_the_sample_in_a_sentence() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let (_dir, model) = model();
    let output = run(&["sample", &model, "-n", "40", "--trace", "/dev/full"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.starts_with("error: /dev/full: the trace: ") && error.lines().count() == 1, "{error}");
}
