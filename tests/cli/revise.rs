//! `bd3 sample --revise` and `--infill`, on the model inside the binary.

use serde_json::Value;

use super::{model, out, refused};

fn sample(more: &[&str]) -> Value {
    serde_json::from_slice(&out(&[&["sample", "--view", "json"], more].concat())).unwrap()
}

#[test]
fn each_revision_does_what_its_name_says() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.jsonl").to_str().unwrap().to_string();
    for (flags, kind, why) in [
        (&["--revise", "remask", "--revise-threshold", "0.5"][..], "remask", "unlikely"),
        (&["--block", "8", "--revise", "corrector", "--revise-threshold", "0.1"], "remask", "unlikely"),
        (&["--block", "8", "--revise", "edit", "--revise-threshold", "0.3"], "revise", "better"),
        (&["--revise", "look-back", "--revise-threshold", "0.2"], "retracted", "unlikely"),
        (&["--rule", "ancestral", "--steps", "8", "--block", "8", "--revise", "remdm-cap"], "remask", "schedule"),
        (&["--rule", "ancestral", "--steps", "8", "--block", "8", "--revise", "remdm-rescale"], "remask", "schedule"),
        (&["--rule", "ancestral", "--steps", "9", "--block", "32", "--revise", "remdm-conf"], "remask", "unlikely"),
        (&["--rule", "ancestral", "--steps", "40", "--block", "32", "--revise", "remdm-loop"], "remask", "schedule"),
    ] {
        let made = sample(&[&["-n", "96", "--seed", "2", "--trace", &path], flags].concat());
        assert_eq!(made["tokens"], 96, "{flags:?}");
        let trace = std::fs::read_to_string(&path).unwrap();
        let (kind, why) = (format!("\"{kind}\""), format!("\"why\":\"{why}\""));
        assert!(trace.lines().any(|line| line.contains(&kind) && line.contains(&why)), "{flags:?}");
        assert_eq!(out(&["replay", &path]), made["text"].as_str().unwrap().as_bytes(), "{flags:?}");
    }
}

#[test]
fn a_revision_that_a_model_or_a_flag_does_not_support_is_refused() {
    let (_dir, plain) = model();
    refused(&["sample", &plain, "--revise", "edit"], &["--revise edit", "visible_loss"]);
    refused(&["sample", "--revise", "remdm-cap"], &["--rule: ", "ancestral", "remdm", "first-hitting"]);
    refused(&["sample", "--revise", "remask", "--eta", "0.1"], &["--eta", "remask takes none"]);
    refused(&["sample", "--revise", "edit", "--look-window", "32"], &["--look-window"]);
    refused(&["sample", "--revise", "look-back", "--look-window", "64"], &["--look-window", "one of [8, 32]"]);
    refused(&["sample", "--revise", "look-back", "--block", "256"], &["look-back", "256"]);
    refused(&["sample", "--revise", "remask", "--revise-threshold", "2"], &["--revise-threshold", "(0, 1]"]);
    refused(&["sample", "--revise", "corrector", "--block", "1"], &["--block", "at least 2"]);
    refused(&["sample", "--revise", "corrector", "--revise-threshold", "0"], &["--revise-threshold"]);
    refused(&["sample", "--revise", "corrector", "--passes", "3"], &["--passes", "corrector"]);
    refused(&["sample", &plain, "--revise", "corrector"], &["--revise corrector", "trained at block size 1"]);
    refused(&["sample", "--revise-rounds", "3"], &["--revise"]);
    refused(&["sample", "--revise", "remask", "--passes", "3"], &["--passes", "remask"]);
}

#[test]
fn a_template_is_filled_and_its_words_stay() {
    let template = "Once ___{2,3} there was a ___ who lived in___{4}. The end.";
    let made = sample(&["--infill", template, "--seed", "3"]);
    let text = made["text"].as_str().unwrap();
    assert!(text.starts_with("Once") && text.contains(" there was a") && text.ends_with(". The end."), "{text}");
    let tokens = made["tokens"].as_u64().unwrap();
    assert!((7..=15).contains(&tokens), "{tokens}");
    assert!(made["ids"].as_array().unwrap().len() as u64 > tokens);
    let shown = out(&["sample", "--infill", template, "--seed", "3", "--view", "text"]);
    assert_eq!(shown, text.as_bytes());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.jsonl").to_str().unwrap().to_string();
    out(&["sample", "--infill", template, "--seed", "3", "--trace", &path]);
    assert_eq!(out(&["replay", &path]), text.as_bytes());
    let longer = sample(&["--infill", "A ___{2} cat.", "-n", "5"]);
    assert_eq!(longer["tokens"], 7);
    refused(&["sample", "--infill", "a ___{256}"], &["--infill", "at most 256 tokens", "258"]);
    refused(&["sample", "--infill", "no gap"], &["--infill", "`___`"]);
    refused(&["sample", "--infill", "a ___", "-p", "b"], &["--infill"]);
}

#[test]
fn guidance_and_budgets_are_heard() {
    let plain = sample(&["-p", "Tom had a red ball.", "-n", "24"]);
    let led = sample(&["-p", "Tom had a red ball.", "-n", "24", "--guidance", "2"]);
    assert_ne!(plain["text"], led["text"]);
    assert_eq!(plain["passes"], led["passes"]);
    let short = sample(&["-n", "32", "--block", "8", "--passes", "2"]);
    assert!(short["passes"].as_u64().unwrap() <= 10, "{short}");
    assert_eq!(short["tokens"], 32);
    refused(&["sample", "--guidance", "-1", "-p", "A"], &["--guidance"]);
    refused(&["sample", "--guidance", "1"], &["--guidance", "prompt"]);
    refused(&["sample", "--rule", "ancestral", "--steps", "4000000000"], &["steps", "1000000"]);
    refused(&["sample", "--passes", "0"], &["--passes"]);
    refused(&["sample", "--budget-ms", "0"], &["budget"]);
}
