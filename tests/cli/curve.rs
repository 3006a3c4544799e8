//! `bd3 curve` and `bd3 eval --judge`: the numbers of one are those of the other, and what was measured once is kept.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;

use super::{bd3, json, model, out, refused};

/// A folder, where a curve goes, and a text of a few rows.
fn place() -> (TempDir, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (curve, text) = (path("curve"), path("text.txt"));
    let line = |i: usize| format!("Once upon a time {i} little dogs and a cat went to the park to play. ");
    fs::write(&text, (0..120).map(line).collect::<String>()).unwrap();
    (dir, curve, text)
}

/// A curve of four points in a second.
fn small(out: &str) -> Vec<&str> {
    vec![
        "curve",
        "--block",
        "1,4",
        "--rule",
        "first-hitting,confidence",
        "-n",
        "16",
        "--out",
        out,
        "--json",
        "--samples",
    ]
}

fn lines(folder: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(folder).join("points.jsonl")).unwrap();
    text.lines().map(str::to_string).collect()
}

/// Runs a command that is told as a shell reads it; no word of it has a blank.
fn told(command: &Value) -> Vec<u8> {
    let words: Vec<&str> = command.as_str().unwrap().split(' ').collect();
    assert_eq!(words[0], "bd3");
    out(&words[1..])
}

#[test]
fn the_commands_of_a_point_give_its_numbers() {
    let (_dir, folder, text) = place();
    let curve = json(&[&small(&folder)[..], &["2", "--data", &text]].concat());
    let points = curve["points"].as_array().unwrap();
    let names: Vec<_> = points.iter().map(|p| (p["block"].as_u64().unwrap(), p["rule"].as_str().unwrap())).collect();
    let expected = [(1, "first-hitting"), (4, "first-hitting"), (4, "confidence 2 a pass"), (4, "confidence 4 a pass")];
    assert_eq!(names, expected);
    for point in [&points[0], &points[2]] {
        let block = point["block"].as_u64().unwrap().to_string();
        let judged = point["quality_command"].as_str().unwrap().replace(" -- ", " --json -- ");
        let judged: Value = serde_json::from_slice(&told(&judged.into())).unwrap();
        for key in ["perplexity", "stderr", "nats", "entropy", "repetition", "tokens", "passes", "tokens_per_pass"] {
            assert_eq!(judged["rows"][0][key], point[key], "{key} at block {block}");
        }
        let samples = String::from_utf8(told(&point["speed_command"])).unwrap();
        let samples: Vec<Value> = samples.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for key in ["tokens", "passes"] {
            let sum: u64 = samples.iter().map(|sample| sample[key].as_u64().unwrap()).sum();
            assert_eq!(point[key], sum, "{key} at block {block}");
        }
        let bound = json(&["eval", "tiny", &text, "--block", &block, "--json"]);
        assert_eq!(point["bound_command"], format!("bd3 eval tiny {text} --block {block}"));
        assert_eq!(bound["rows"][0]["perplexity"], point["bound_perplexity"]);
        assert!(
            point["tokens_per_second"].as_f64().unwrap() > 0.0 && point["first_block_seconds"].as_f64().unwrap() > 0.0
        );
    }
    let held_out = json(&["eval", "tiny", &text, "--judge", "tiny", "--generate", "2", "--json", "--", "-n", "16"]);
    for (key, value) in curve["held_out"].as_object().unwrap() {
        assert_eq!(&held_out["rows"][0][key], value, "{key} of the text held out");
    }
    let csv = fs::read_to_string(Path::new(&folder).join("curve.csv")).unwrap();
    assert_eq!(csv.lines().count(), 5, "{csv}");
    let kept: Value = serde_json::from_slice(&fs::read(Path::new(&folder).join("curve.json")).unwrap()).unwrap();
    assert_eq!(kept, curve);
    assert!(fs::read_to_string(Path::new(&folder).join("curve.svg")).unwrap().contains("confidence 4 a pass"));
}

#[test]
fn a_curve_goes_on_where_it_stopped_and_grows() {
    let (_dir, folder, _) = place();
    let command = [&small(&folder)[..], &["2"]].concat();
    let whole = json(&command);
    let all = lines(&folder);
    // Settings; two samples of four points, written and judged.
    assert_eq!(all.len(), 1 + 8 + 8);
    fs::write(Path::new(&folder).join("points.jsonl"), all[..6].join("\n") + "\n{\"sample\":{\"fl").unwrap();
    let again = json(&command);
    let kept = lines(&folder);
    assert_eq!((&kept[..6], kept.len()), (&all[..6], all.len()));
    for (a, b) in whole["points"].as_array().unwrap().iter().zip(again["points"].as_array().unwrap()) {
        assert_eq!((&a["perplexity"], &a["entropy"]), (&b["perplexity"], &b["entropy"]));
    }
    // Nothing is measured again where nothing is missing, and more samples are added to those that are there.
    assert_eq!(json(&command), again);
    json(&[&small(&folder)[..], &["3"]].concat());
    let more = lines(&folder);
    assert_eq!((&more[..kept.len()], more.len()), (&kept[..], kept.len() + 8));

    let other = |flags: &[&'static str], parts: &[&str]| refused(&[&small(&folder)[..], &["2"], flags].concat(), parts);
    let file = format!("{folder}/points.jsonl");
    other(&["--seed", "5"], &[&file, "`flags`", "--seed 5", "--seed 0", "--out"]);
    other(&["--threads", "1"], &[&file, "`flags`", "--threads 1"]);
    let (_model, model) = model();
    refused(&[&small(&folder)[..], &["2", "--judge", &model]].concat(), &[&file, "`judge`", "--out"]);
    assert_eq!(lines(&folder), more);
}

#[test]
fn a_curve_is_measured_again_where_that_is_asked() {
    let (_dir, folder, _) = place();
    let command = [&small(&folder)[..], &["1"]].concat();
    let again = [&command[..], &["--again"]].concat();
    let old = |number| fs::read_to_string(Path::new(&folder).join(format!("points.old{number}.jsonl"))).unwrap();
    // Where nothing is there, where all is, and where a part is.
    json(&again);
    let first = lines(&folder);
    json(&again);
    let second = lines(&folder);
    assert!(second[0] == first[0] && second.len() == first.len() && second[1] != first[1]);
    assert_eq!(old(""), first.join("\n") + "\n");
    fs::write(Path::new(&folder).join("points.jsonl"), second[..4].join("\n") + "\n").unwrap();
    json(&again);
    assert_eq!((&lines(&folder)[..4], lines(&folder).len()), (&second[..4], second.len()));
    // Made with other settings, by another version, as it were; or no record at all.
    let third = lines(&folder);
    json(&[&again[..], &["--seed", "5"]].concat());
    assert!(lines(&folder)[0].contains("--seed 5") && old("-2") == third.join("\n") + "\n");
    fs::write(Path::new(&folder).join("points.jsonl"), "{}\n").unwrap();
    json(&again);
    assert_eq!((old("-3").as_str(), lines(&folder).len()), ("{}\n", first.len()));
    // More samples than the record has make no less of it.
    let fourth = lines(&folder);
    json(&[&small(&folder)[..], &["2", "--again"]].concat());
    assert_eq!((old("-4"), lines(&folder).len()), (fourth.join("\n") + "\n", 2 * first.len() - 1));
}

#[cfg(unix)]
#[test]
fn a_curve_that_is_stopped_keeps_its_samples() {
    let (_dir, folder, _) = place();
    let command = [&small(&folder)[..], &["100000"]].concat();
    let child = bd3(&command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let file = Path::new(&folder).join("points.jsonl");
    let begun = (0..3000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::metadata(&file).is_ok_and(|meta| meta.len() >= 5000)
    });
    assert!(begun, "no samples after a minute");
    std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{error}");
    assert!(error.contains("stopped") && error.contains("points.jsonl"), "{error}");
    assert!(!Path::new(&folder).join("curve.json").exists());
    let kept = lines(&folder);
    json(&[&small(&folder)[..], &["1"]].concat());
    assert_eq!(lines(&folder)[..kept.len()], kept);
}

#[test]
fn samples_are_judged_beside_text_that_people_wrote() {
    let (_dir, _, text) = place();
    let common = ["eval", "tiny", &text, "--judge", "models/tiny", "--generate", "3", "--block", "1,8"];
    let flags = ["--", "-n", "20", "--seed", "4", "--rule", "confidence", "--steps", "1", "-p", "Once upon"];
    let object = json(&[&common[..], &["--json"], &flags].concat());
    assert_eq!((&object["model"], &object["judge"]), (&"tiny".into(), &"models/tiny".into()));
    let rows = object["rows"].as_array().unwrap();
    let of: Vec<_> = rows.iter().map(|row| (row["text"].as_str().unwrap(), row["block"].as_u64())).collect();
    assert_eq!(of, [("held out", None), ("samples", Some(1)), ("samples", Some(8))]);
    for row in rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!((number("nats").exp() / number("perplexity") - 1.0).abs() < 1e-9);
        assert!(number("stderr") > 0.0 && number("entropy") > 0.0 && number("judge_tokens") > 0.0);
    }
    assert!(rows[0]["passes"].is_null() && rows[0]["tokens"] == 60);
    assert!(rows[2]["tokens_per_pass"].as_f64().unwrap() > rows[1]["tokens_per_pass"].as_f64().unwrap());
    let table = String::from_utf8(out(&[&common[..], &flags].concat())).unwrap();
    assert_eq!(table.lines().count(), 4, "{table}");
}

#[test]
fn flags_that_mean_nothing_are_refused_and_nothing_is_written() {
    let (_dir, folder, text) = place();
    let curve = |flags: &[&str], parts: &[&str]| {
        refused(&[&["curve", "--out", &folder, "-n", "8"], flags].concat(), parts);
        assert!(!Path::new(&folder).exists(), "{flags:?}");
    };
    curve(&["--rule", "luck"], &["--rule", "first-hitting", "`luck`"]);
    curve(&["--rule", "threshold", "--block", "1"], &["--block", "first hitting", "[1]"]);
    curve(&["--block", "0"], &["--block", "0"]);
    curve(&["--block", "512"], &["--block", "256", "512"]);
    curve(&["--block", "5", "--data", &text], &["--block", "256", "5"]);
    curve(&["--samples", "0"], &["--samples", "a whole number from 1"]);
    curve(&["--data", "no-such.txt"], &["no-such.txt"]);
    curve(&["--judge", "no-such-folder"], &["no-such-folder"]);
    curve(&["no-such-folder"], &["no-such-folder"]);
    curve(&["--", "--samples", "3"], &["flags of bd3 sample", "--samples"]);
    curve(&["--", "--seed", "3"], &["flags of bd3 sample", "--seed"]);
    curve(&["--", "--luck"], &["flags of bd3 sample", "--luck"]);
    curve(&["--", "--top-p", "7"], &["top-p", "7"]);
    refused(&["curve", "-n", "0", "--out", &folder], &["-n", "a whole number from 1"]);

    let eval = |flags: &[&str], parts: &[&str]| refused(&[&["eval", "tiny", "--judge", "tiny"], flags].concat(), parts);
    eval(&["--generate", "0"], &["--generate", "a whole number from 1"]);
    eval(&["--block", "4", "--", "--block", "8"], &["--block", "before or after"]);
    eval(&["--", "models/tiny"], &["flags of bd3 sample", "a model"]);
    eval(&["--", "--chat"], &["flags of bd3 sample", "--chat"]);
    eval(&["--", "-n", "0"], &["-n", "at least 1"]);
    eval(&["--split", "valid"], &["DATA"]);
    eval(&[&text, "--", "-n", "1000000"], &["DATA", "1000000 tokens"]);
}
