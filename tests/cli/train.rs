//! `bd3 train`, `bd3 eval` and `bd3 bench train`.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use super::{json, out, refused, run};
use serde_json::Value;

const RECIPE: &str = r#"
[data]
toy = 60
tokenizer = "bytes"
[model]
hidden = 16
layers = 1
heads = 2
cond = 8
length = 32
dropout = 0.1
[blocks]
sizes = [{ size = 4 }, { size = 32 }]
[train]
steps = 6
batch = 4
lr = 1e-2
checkpoint_every = 2
validate_every = 3
validate_rows = 4
"#;

/// A folder with a recipe in it; gives the paths of the recipe and of a run beside it.
fn place() -> (tempfile::TempDir, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let recipe = dir.path().join("recipe.toml");
    fs::write(&recipe, RECIPE).unwrap();
    let [recipe, run] = [recipe, dir.path().join("run")].map(|path| path.to_str().unwrap().to_string());
    (dir, recipe, run)
}

/// The rows of a run's log that have this key.
fn log(run: &str, key: &str) -> Vec<Value> {
    let text = fs::read_to_string(Path::new(run).join("log.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.filter(|row| row.get(key).is_some()).collect()
}

fn losses(run: &str) -> Vec<f64> {
    log(run, "loss").iter().map(|row| row["loss"].as_f64().unwrap()).collect()
}

#[test]
fn a_run_leaves_a_log_a_picture_and_a_model() {
    let (_dir, recipe, dir) = place();
    assert_eq!(out(&["train", &recipe, "--out", &dir]), format!("{dir}/model\n").as_bytes());
    let rows = log(&dir, "loss");
    assert_eq!(rows.len(), 6);
    for key in ["step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second"] {
        assert!(rows[0][key].is_number(), "{key}");
    }
    let validation = log(&dir, "perplexity");
    assert_eq!(validation.len(), 4);
    for key in ["step", "block", "nats"] {
        assert!(validation[0][key].is_number(), "{key}");
    }
    assert!(fs::read_to_string(Path::new(&dir).join("loss.svg")).unwrap().contains("</svg>"));
    refused(&["train", &recipe, "--out", &dir], &["run", "empty folder", "--resume"]);
    let none = "corrupt={share=0.0,rows=0.0,weight=0.0}";
    let again = run(&["train", &recipe, "--out", &dir, "--resume", "--set", "train.steps=4", "--set", none]);
    assert!(String::from_utf8_lossy(&again.stderr).contains("already at step 6 of 4"), "{again:?}");
    out(&["sample", &format!("{dir}/model"), "-n", "8"]);
}

#[test]
fn a_resumed_run_has_the_losses_of_an_uninterrupted_one() {
    let (_dir, recipe, whole) = place();
    let parts = format!("{whole}-parts");
    out(&["train", &recipe, "--out", &whole]);
    out(&["train", &recipe, "--out", &parts, "--resume", "--set", "train.steps=4"]);
    out(&["train", &recipe, "--out", &parts, "--resume"]);
    assert_eq!(losses(&parts), losses(&whole));
    assert_eq!(log(&parts, "resumed"), [serde_json::json!({"resumed": 4})]);
}

#[test]
fn a_bad_recipe_is_refused_and_nothing_is_written() {
    let (_dir, recipe, dir) = place();
    let set = |setting: &str, parts: &[&str]| {
        refused(&["train", &recipe, "--out", &dir, "--set", setting], parts);
        assert!(!Path::new(&dir).exists(), "{setting}");
    };
    set("train.speed=9", &["speed"]);
    set("model.length=30", &["blocks.sizes", "30"]);
    set("train.batch=0", &["train.batch", "at least 1"]);
    set("train.steps", &["train.steps", "KEY=VALUE"]);
    set("model.heads=3", &["`model.heads`", "divisor of the width 16", "3"]);
    set("blocks.default=8", &["blocks.default", "8"]);
    set("blocks.search=[0.0]", &["blocks.search", "0"]);
    let never = ["--set", "blocks.search=[0.5]", "--set", "train.validate_every=0"];
    refused(&[&["train", &recipe, "--out", &dir][..], &never].concat(), &["`train.validate_every`", "blocks.search"]);
    assert!(!Path::new(&dir).exists());
    set("blocks.schedule=linear", &["blocks.schedule", "loglinear", "linear"]);
    set("model.objective=score", &["blocks.sizes", "32"]);
    set("data.tokenizer=words", &["data.tokenizer", "words"]);
    set("train.matrix_lr=0.01", &["train.matrix_lr", "muon", "0.01"]);
    set("corrupt={share=0.1}", &["`corrupt.rows`", "above 0", "found 0"]);
    set("corrupt={share=0.1, rows=0.5}", &["`corrupt.weight`", "above 0", "found 0"]);
    set("corrupt={rows=0.5, weight=0.1}", &["`corrupt.share`", "above 0", "found 0"]);
    set("train.optimizer=sgd", &["train.optimizer", "adamw", "sgd"]);
    set("data.wrap=rows", &["data.wrap", "starts", "rows"]);
    set("model.hidden=1000000", &["`model`", "2^34", "hidden"]);
    set("train.batch=100000000", &["`train.batch`", "at most 131072 rows", "100000000"]);
    set("data.toy=1000000000000", &["`data.toy`", "at most"]);
    set("model.hidden=0", &["`model.hidden`", "at least 1"]);
    set("model.dropout=1.5", &["`model.dropout`", "[0, 1)"]);
    set("data.tokenizer=train:3", &["`data.tokenizer`"]);
    set("train.steps=18446744073709551615", &["train.steps", "a whole number"]);
    set("train.precision=f16", &["train.precision", "bf16", "f16"]);
    refused(&["train", &recipe, "--out", &dir, "--init", "no-such-model"], &["no-such-model"]);
    assert!(!Path::new(&dir).exists());
    refused(&["train", "no-such.toml", "--out", &dir], &["no-such.toml"]);
}

#[test]
fn weights_of_another_model_start_a_run_only_where_they_fit() {
    let (_dir, recipe, first) = place();
    out(&["train", &recipe, "--out", &first]);
    let (init, second) = (format!("{first}/model"), format!("{first}-second"));
    let with = |settings: &[&str]| {
        let mut arguments = vec!["train", &recipe, "--out", &second, "--init", &init];
        settings.iter().for_each(|s| arguments.extend(["--set", s]));
        arguments.iter().map(|s| s.to_string()).collect::<Vec<_>>()
    };
    let refused_with = |settings: &[&str], parts: &[&str]| {
        let arguments = with(settings);
        refused(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), parts);
        assert!(!Path::new(&second).exists());
    };
    refused_with(&["model.hidden=32"], &["model.safetensors", "vocab_embed", "[260, 32]", "[260, 16]"]);
    refused_with(&["model.heads=4"], &["config.json", "n_heads", "4", "2"]);
    refused_with(
        &["model.objective=next-token", "blocks.sizes=[{size=1}]"],
        &["config.json", "objective `next-token`", "`masked`"],
    );
    refused_with(&["data.tokenizer=train:300"], &["config.json", "mask id"]);
    // Another length has the same weights, and other positions.
    let arguments = with(&["model.length=64", "blocks.sizes=[{size=64}]"]);
    out(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(losses(&second)[0] < losses(&first)[0]);
}

#[test]
fn a_run_goes_on_only_under_its_own_recipe() {
    let (_dir, recipe, dir) = place();
    out(&["train", &recipe, "--out", &dir, "--set", "train.steps=2"]);
    let on = |setting: &str, parts: &[&str]| {
        refused(&["train", &recipe, "--out", &dir, "--resume", "--set", setting], parts);
    };
    on("model.hidden=32", &["`model.hidden`", "16, as when the run was started", "32"]);
    assert!(!Path::new(&dir).join("toy-61-bytes-seed-0").exists());
    on("seed=5", &["`seed`", "0, as when the run was started", "5"]);
    on("model.dropout=0.2", &["`model.dropout`", "0.1", "0.2"]);
    refused(&["train", &recipe, "--out", &dir, "--resume", "--init", "models/tiny"], &["--init", "models/tiny"]);
    on("data.toy=61", &["`data.toy`", "60", "61"]);
    on("train.optimizer=muon", &["`train.optimizer`", "adamw", "muon"]);
    out(&["train", &recipe, "--out", &dir, "--resume", "--set", "train.lr=1e-3"]);
    assert_eq!(losses(&dir).len(), 6);
    fs::remove_dir_all(Path::new(&dir).join("state")).unwrap();
    refused(&["train", &recipe, "--out", &dir, "--resume"], &["state.safetensors", "no such file"]);
}

#[test]
fn two_runs_do_not_share_a_folder() {
    let (_dir, recipe, dir) = place();
    let mut child = super::bd3(&["train", &recipe, "--out", &dir, "--set", "train.steps=100000"]);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !Path::new(&dir).join("log.jsonl").exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let second = std::panic::catch_unwind(|| {
        refused(&["train", &recipe, "--out", &dir, "--resume"], &["run", "a run at work"]);
    });
    child.kill().unwrap();
    child.wait().unwrap();
    second.unwrap();
}

/// The one that is refused takes nothing away from the other.
#[test]
fn of_two_runs_that_start_at_once_one_goes_on() {
    let (place, _, _) = place();
    let path = |name: &str| place.path().join(name).to_str().unwrap().to_string();
    // So much text that opening it takes a while.
    let (data, recipe) = (path("data"), path("own.toml"));
    out(&["data", "--toy", "20000", "--out", &data, "--tokenizer", "bytes", "--split", "100,0,0"]);
    let own = RECIPE.replace("toy = 60\ntokenizer = \"bytes\"", &format!("sources = [{{ path = {data:?} }}]"));
    fs::write(&recipe, own).unwrap();
    for run in 0..4 {
        let dir = path(&format!("run-{run}"));
        let settings = ["--set", "train.steps=2", "--set", "train.validate_every=0"];
        let arguments = [&["train", &recipe, "--out", &dir][..], &settings].concat();
        let start = || super::bd3(&arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let ended = [start(), start()].map(|child| child.wait_with_output().unwrap());
        let mut codes = ended.each_ref().map(|output| output.status.code());
        codes.sort_unstable();
        assert_eq!(codes, [Some(0), Some(2)], "{ended:?}");
        assert_eq!(losses(&dir).len(), 2);
        out(&[&arguments[..], &["--resume"]].concat());
    }
}

/// One row and one block: now and then nothing is masked.
#[test]
fn a_batch_in_which_nothing_is_masked_is_no_failure() {
    let (_dir, recipe, dir) = place();
    let sizes = "blocks.sizes=[{size=32, clip=[0.001, 0.05]}]";
    out(&["train", &recipe, "--out", &dir, "--set", "train.batch=1", "--set", sizes, "--set", "train.steps=40"]);
    let losses = losses(&dir);
    assert!(losses.contains(&0.0) && losses.iter().any(|loss| *loss > 0.0), "{losses:?}");
}

#[test]
fn a_loss_that_is_no_number_ends_a_run_with_exit_1() {
    let (_dir, recipe, dir) = place();
    let output = run(&["train", &recipe, "--out", &dir, "--set", "train.lr=1e30"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("step"), "{error}");
}

#[test]
fn eval_gives_a_row_for_each_block_whatever_the_batch() {
    let (_dir, recipe, dir) = place();
    out(&["train", &recipe, "--out", &dir]);
    let (model, data) = (format!("{dir}/model"), format!("{dir}/toy-60-bytes-seed-0"));
    let common = ["eval", &model, &data, "--split", "valid", "--block", "1,4,32"];
    let object = json(&[&common[..], &["--json", "--draws", "2"]].concat());
    assert_eq!((&object["model"], &object["data"]), (&model.as_str().into(), &data.as_str().into()));
    let rows = object["rows"].as_array().unwrap();
    let kinds: Vec<&Value> = rows.iter().map(|row| &row["kind"]).collect();
    assert_eq!(kinds, ["exact", "bound", "bound"]);
    for (row, block) in rows.iter().zip([1, 4, 32]) {
        assert_eq!(row["block"], block);
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!((number("nats").exp() / number("perplexity") - 1.0).abs() < 1e-9);
        assert!(number("stderr") > 0.0 && number("bits_per_byte") > 0.0 && number("tokens") > 0.0);
    }
    let other = json(&[&common[..], &["--json", "--draws", "2", "--batch", "3"]].concat());
    for (a, b) in rows.iter().zip(other["rows"].as_array().unwrap()) {
        assert!((a["nats"].as_f64().unwrap() - b["nats"].as_f64().unwrap()).abs() < 1e-5);
    }
    let table = String::from_utf8(out(&common)).unwrap();
    assert_eq!(table.lines().count(), 4, "{table}");
    let official = json(&[&common[..], &["--json", "--draws", "2", "--estimator", "official"]].concat());
    assert_eq!(official["rows"][0], rows[0], "block size 1 is exact whatever the estimator");
    let near = |a: &Value, b: &Value, tolerance: f64| {
        let nats = |rows: &Value| rows["rows"][1]["nats"].as_f64().unwrap();
        assert!((nats(a) - nats(b)).abs() < tolerance, "{} {}", nats(a), nats(b));
    };
    let exact = json(&[&common[..], &["--json", "--draws", "2", "--exact", "--threads", "1"]].concat());
    near(&object, &exact, 0.02);
    let each = json(&[&common[..], &["--json", "--draws", "2", "--each"]].concat());
    for (row, whole) in each["rows"].as_array().unwrap().iter().zip(rows) {
        let lines: Vec<(f64, f64, usize)> = serde_json::from_value(row["each"].clone()).unwrap();
        let [nats, tokens] = [lines.iter().map(|l| l.0).sum::<f64>(), lines.iter().map(|l| l.1).sum()];
        assert_eq!(tokens, whole["tokens"].as_f64().unwrap());
        assert!((nats / tokens - whole["nats"].as_f64().unwrap()).abs() < 1e-9);
        assert!(
            lines.is_sorted_by_key(|l| l.2) && lines[0].2 == 0 && lines.last().unwrap().2 > 0,
            "documents in order"
        );
    }
    let short = json(&[&common[..5], &["--block", "4,16", "--length", "16", "--json"]].concat());
    assert_eq!(short["rows"][1]["tokens"], rows[1]["tokens"], "shorter rows predict as many tokens");
    for (length, found) in [("1", "found 1"), ("33", "found 33")] {
        refused(&["eval", &model, &data, "--length", length], &["--length", "2 to 32 (the training length)", found]);
    }
    refused(&["eval", &model, &data, "--length", "16", "--block", "32"], &["--block", "16", "32"]);
    refused(&["eval", &model, &data, "--block", "5"], &["--block", "32", "5"]);
    refused(&["eval", &model, "no-such.txt"], &["no-such.txt"]);
}

/// Score entropy is the network's, which runs in f32 on all cores anyway.
#[test]
fn eval_measures_score_entropy_without_the_engine() {
    let (_dir, recipe, dir) = place();
    let settings = ["--set", "model.objective=score", "--set", "blocks.sizes=[{ size = 32 }]"];
    out(&[&["train", &recipe, "--out", &dir][..], &settings].concat());
    let (model, data) = (format!("{dir}/model"), format!("{dir}/toy-60-bytes-seed-0"));
    let common = ["eval", &model, &data, "--split", "valid"];
    let object = json(&[&common[..], &["--json"]].concat());
    assert!(object["rows"][0]["kind"] == "bound" && object["rows"][0]["nats"].as_f64().unwrap() > 0.0);
    refused(&[&common[..], &["--exact"]].concat(), &["--exact", "score-entropy"]);
    refused(&[&common[..], &["--threads", "1"]].concat(), &["--threads", "score-entropy"]);
}

#[test]
fn the_reference_step_is_measured_beside_the_machine() {
    let object = json(&["bench", "train", "--steps", "1", "--json", "--precision", "bf16"]);
    assert_eq!(object["precision"], "bf16");
    for key in ["tokens_per_second", "peak_gflop_s", "useful_flops_per_step", "bound_tokens_per_second", "share"] {
        assert!(object[key].as_f64().unwrap() > 0.0, "{key}");
    }
}

#[test]
fn a_run_is_resumed_in_no_folder_of_something_else() {
    let (_dir, recipe, dir) = place();
    let dir = Path::new(&dir);
    let at = dir.to_str().unwrap();
    let resume = ["train", &recipe, "--out", at, "--resume"];
    let first = || fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    for (name, content) in [
        ("log.jsonl", "{\"precious\":1}\n"),
        ("story.txt", "Once."),
        ("config.json", "{}"),
        ("lock", "mine"),
        ("model/config.json", "{}"),
        ("state/notes.txt", "mine"),
        ("toy-mine/a.txt", "mine"),
    ] {
        let file = dir.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
        let before = first();
        refused(&resume, &[at]);
        assert_eq!((fs::read_to_string(&file).unwrap().as_str(), first()), (content, before), "{name}");
        fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn a_run_that_ended_before_its_first_state_is_started_again() {
    let (_dir, recipe, whole) = place();
    let parts = format!("{whole}-parts");
    out(&["train", &recipe, "--out", &whole]);
    out(&["train", &recipe, "--out", &parts]);
    // As a crash leaves it: the lock, the stories, a log whose last line is cut, a part of a state.
    for gone in ["model", "state"] {
        fs::remove_dir_all(Path::new(&parts).join(gone)).unwrap();
    }
    fs::remove_file(Path::new(&parts).join("loss.svg")).unwrap();
    let log = fs::read_to_string(Path::new(&parts).join("log.jsonl")).unwrap();
    fs::write(Path::new(&parts).join("log.jsonl"), &log[..log.len() / 5]).unwrap();
    fs::create_dir(Path::new(&parts).join("state")).unwrap();
    fs::write(Path::new(&parts).join("state/state.safetensors.tmp"), "part").unwrap();
    refused(&["train", &recipe, "--out", &parts], &["--resume"]);
    out(&["train", &recipe, "--out", &parts, "--resume"]);
    assert_eq!(losses(&parts), losses(&whole));
}

#[test]
fn a_text_without_a_valid_split_needs_no_validation() {
    let (dir, _, run) = place();
    let data = dir.path().join("data");
    let data = data.to_str().unwrap();
    out(&["data", "--toy", "40", "--out", data, "--tokenizer", "bytes", "--split", "100,0,0"]);
    let recipe = dir.path().join("own.toml");
    let own = RECIPE.replace("toy = 60\ntokenizer = \"bytes\"", &format!("sources = [{{ path = {data:?} }}]"));
    fs::write(&recipe, own).unwrap();
    let recipe = recipe.to_str().unwrap();
    refused(&["train", recipe, "--out", &run], &["`train.validate_every`", data, "split `valid`"]);
    out(&["train", recipe, "--out", &run, "--set", "train.validate_every=0"]);
    assert_eq!((log(&run, "loss").len(), log(&run, "perplexity").len()), (6, 0));
    refused(&["eval", "tiny", data], &["tokenizer.json"]);
}

#[test]
fn a_valid_split_of_less_than_a_row_is_not_measured() {
    let (dir, _, run) = place();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let [texts, data, recipe] = ["texts.jsonl", "data", "own.toml"].map(path);
    fs::write(&texts, (10..90).map(|i| format!("{{\"text\":\"{i} cats\"}}\n")).collect::<String>()).unwrap();
    out(&["data", &texts, "--out", &data, "--tokenizer", "bytes", "--split", "98,2,0"]);
    let own = RECIPE.replace("toy = 60\ntokenizer = \"bytes\"", &format!("sources = [{{ path = {data:?} }}]"));
    fs::write(&recipe, own).unwrap();
    let train = ["train", &recipe, "--out", &run];
    let official = [&train[..], &["--set", "data.wrap=official"]].concat();
    refused(&official, &["`train.validate_every`", &data, "no row of 32 tokens in its split `valid`", "found 3"]);
    let search = [&train[..], &["--set", "blocks.search=[0.5]"]].concat();
    refused(&search, &["`blocks.search`", "at least 2 blocks of 4", &data, "found 0, in 0 such rows"]);
    assert!(!Path::new(&run).exists());
    out(&[&official[..], &["--set", "train.validate_every=0"]].concat());
    assert_eq!((log(&run, "loss").len(), log(&run, "perplexity").len()), (6, 0));
}
