//! `bd3 bench pass` and `bd3 bench decode`, on a model so small that its speed means nothing.

use serde_json::Value;

use super::{json, out, run};

const SMALL: [&str; 2] = ["--shape", "64x2,128,256"];

fn bench(what: &str, more: &[&'static str]) -> Vec<String> {
    [&["bench", what], &SMALL[..], more].concat().into_iter().map(str::to_string).collect()
}

fn object(what: &str, more: &[&'static str]) -> Value {
    let arguments = bench(what, more);
    json(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn passes_stand_beside_the_ceilings() {
    let more = ["--format", "q8_0,f16", "--rows", "1,3", "--depth", "0,5", "--repeat", "2", "--threads", "2", "--json"];
    let object = object("pass", &more);
    for ceiling in ["read_gb_s", "f32_gflop_s", "int8_gop_s"] {
        assert!(object["ceilings"][ceiling].as_f64().unwrap() > 0.0, "{ceiling}");
    }
    let rows = object["rows"].as_array().unwrap();
    let order: Vec<_> =
        rows.iter().map(|row| (row["format"].as_str(), row["depth"].as_u64(), row["rows"].as_u64())).collect();
    assert_eq!(
        (rows.len(), order[1], order[7]),
        (8, (Some("q8_0"), Some(0), Some(3)), (Some("f16"), Some(5), Some(3)))
    );
    for row in rows {
        let number = |key: &str| row[key].as_f64().unwrap();
        let ceiling = |key: &str| row["ceilings"][key].as_f64().unwrap() * 1e9;
        let least = (number("bytes") / ceiling("read_gb_s"))
            .max(number("ops") / ceiling("f32_gflop_s").max(ceiling("int8_gop_s")));
        assert!((number("share") / (least / number("ms") * 1e3) - 1.0).abs() < 1e-9, "{row}");
    }
    let text =
        String::from_utf8(out(&["bench", "pass", SMALL[0], SMALL[1], "--rows", "2", "--depth", "4", "--repeat", "1"]));
    let text = text.unwrap();
    assert!(text.lines().count() == 4 && text.contains("\nq8_0") && text.contains("\nceilings: read "), "{text}");
}

#[test]
fn every_set_of_instructions_and_every_format_decodes() {
    for format in ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"] {
        let object =
            object("decode", &["--format", format, "-n", "30", "--isa", "portable", "--repeat", "1", "--json"]);
        assert_eq!((&object["tokens"], &object["passes"]), (&30.into(), &16.into()), "{format}");
    }
    for format in ["q4_k", "q6_k"] {
        let shape = ["bench", "decode", "--shape", "256x1,256,256", "-n", "4", "--repeat", "1", "--json"];
        assert_eq!(json(&[&shape[..], &["--format", format]].concat())["tokens"], 4, "{format}");
    }
}

#[test]
fn a_decode_has_the_tokens_per_pass_asked_for() {
    for (block, per_pass, passes) in [("1", "1", 24), ("4", "2", 12), ("4", "3", 12), ("8", "8", 3), ("8", "1", 24)] {
        let arguments = bench("decode", &["-n", "24", "--repeat", "2", "--json"]);
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        arguments.extend(["--block", block, "--tokens-per-pass", per_pass]);
        let object = json(&arguments);
        assert_eq!(object["passes"], passes, "{block} {per_pass}");
        assert_eq!(object["tokens_per_pass"].as_f64(), Some(24.0 / f64::from(passes)));
        assert!(object["tokens_per_second"].as_f64().unwrap() > 0.0 && object["seconds"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn a_model_is_measured_as_it_is() {
    let pass = json(&["bench", "pass", "models/tiny", "--rows", "4", "--depth", "8", "--repeat", "1", "--json"]);
    assert_eq!((&pass["shape"], &pass["rows"][0]["format"]), (&"models/tiny".into(), &"f16".into()));
    let decode = json(&["bench", "decode", "models/tiny", "-n", "16", "--repeat", "1", "--exact", "--json"]);
    assert_eq!((&decode["tokens"], &decode["passes"]), (&16.into(), &8.into()));
}

#[test]
fn a_bench_that_can_not_be_is_refused() {
    let told = |what: &str, more: &[&'static str], part: &str| {
        let arguments = [&["bench", what], more].concat();
        let output = run(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && output.stdout.is_empty(), "{arguments:?}: {error}");
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    };
    told("pass", &["--shape", "768"], "HIDDENxLAYERS,FEED_FORWARD,VOCAB");
    told("pass", &["--shape", "60x1,64,9"], "multiples of 64");
    told("pass", &["--shape", "64x1,128,9", "--format", "q8_0,q4_k"], "multiples of 256 for q4_k");
    told("pass", &["--shape", "64x0,128,9"], "layers");
    told("pass", &["--format", "q2_0"], "one of f32, f16");
    told("pass", &["--isa", "avx3"], "portable");
    told("pass", &["--rows", "1,0"], "--rows: expected 1 to 1024, found 0");
    told("pass", &["--depth", "99999999999"], "--depth");
    told("pass", &["--repeat", "0"], "--repeat");
    told("pass", &["models/tiny", "--format", "q8_0"], "--format");
    told("pass", &["models/none"], "models/none");
    told("decode", &["--block", "4", "--tokens-per-pass", "5"], "--tokens-per-pass: expected 1 to 4");
    told("decode", &["--block", "0"], "--block");
    told("decode", &["-n", "0"], "-n: expected at least 1");
    told("decode", &["models/tiny", "--shape", "64x1,128,9"], "--shape");
}
