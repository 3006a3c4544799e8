//! What the decoding loops of other model families decided, step by step, against what our rules decide from the same
//! probabilities. `BD3_FAMILIES=DIR` names another folder of the same kind: one folder per family, in it pairs of
//! `decode_*.safetensors` and `decode_*.json`. Shapes, thresholds and counts are read from the files.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::oracle::golden::{Check, Golden};

use super::{canvas, gemma, indel};

/// A recorded run.
pub struct Trace {
    pub golden: Golden,
    pub json: Value,
}

impl Trace {
    fn read(path: &Path) -> Result<Self, String> {
        let golden = Golden::read(path)?;
        let beside = path.with_extension("json");
        let text = std::fs::read_to_string(&beside).map_err(|e| format!("{}: {e}", beside.display()))?;
        let json = serde_json::from_str(&text).map_err(|e| format!("{}: {e}", beside.display()))?;
        Ok(Self { golden, json })
    }

    /// One row of a tensor, as whole numbers.
    pub fn row(&self, key: &str, step: usize) -> Result<Vec<i64>, String> {
        Ok(self.golden.get(key)?.at(step).data.iter().map(|&x| x as i64).collect())
    }

    /// One row of a tensor.
    pub fn numbers(&self, key: &str, step: usize) -> Result<Vec<f64>, String> {
        Ok(self.golden.get(key)?.at(step).data)
    }

    /// The positions of a row that are not 0.
    pub fn marked(&self, key: &str, step: usize) -> Result<Vec<usize>, String> {
        let row = self.numbers(key, step)?;
        Ok(row.iter().enumerate().filter(|(_, x)| **x != 0.0).map(|(i, _)| i).collect())
    }

    pub fn has(&self, key: &str) -> bool {
        self.golden.tensors.contains_key(key)
    }

    pub fn text(&self, key: &str) -> &str {
        self.json[key].as_str().unwrap_or_default()
    }

    pub fn setting(&self, key: &str) -> Result<f64, String> {
        self.json["settings"][key].as_f64().ok_or_else(|| format!("{}: no setting `{key}`", self.golden.path.display()))
    }

    pub fn count(&self, key: &str) -> Result<usize, String> {
        Ok(self.setting(key)? as usize)
    }
}

/// Checks a trace of a known kind; `Ok(None)` for one that only a model could check.
fn check(trace: &Trace) -> Result<Option<usize>, String> {
    if ["canvas_before", "committed", "open"].iter().all(|key| trace.has(key)) {
        return canvas::check(trace).map(Some);
    }
    if ["block_before", "mask_transfer", "edit_transfer"].iter().all(|key| trace.has(key)) {
        return indel::check(trace).map(Some);
    }
    if ["denoiser_draw", "renoise_draw", "accepted"].iter().all(|key| trace.has(key)) {
        return gemma::check(trace).map(Some);
    }
    if trace.has("histories") {
        return Ok(None);
    }
    Err(format!("{}: a trace of no known kind", trace.golden.path.display()))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|x| x == "safetensors")
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("decode_"))
        {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn report(dir: &Path) -> Check {
    let (mut checked, mut steps) = (0, 0);
    let mut wrong = Vec::new();
    let mut out = std::io::stderr().lock();
    for path in files(dir) {
        let name = path.strip_prefix(dir).unwrap_or(&path).display();
        match Trace::read(&path).and_then(|trace| check(&trace)) {
            Ok(Some(count)) => (checked, steps) = (checked + 1, steps + count),
            Ok(None) => {
                writeln!(out, "skipped {name}: it holds canvases and no probabilities, so it needs the model").unwrap()
            }
            Err(e) => wrong.push(e),
        }
    }
    writeln!(out, "checked {checked} traces, {steps} steps, in {}", dir.display()).unwrap();
    if checked == 0 {
        wrong.push(format!("{}: no trace", dir.display()));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn default_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/families")
}

#[test]
fn our_rules_decide_what_the_families_decided() {
    let dir = std::env::var_os("BD3_FAMILIES").map_or_else(default_dir, PathBuf::from);
    report(&dir).unwrap_or_else(|e| panic!("{e}"));
}

/// A change of one number in a trace.
type Spoil = fn(&mut Trace);

/// Changes the first number of a tensor that fits.
fn spoil(trace: &mut Trace, key: &str, (fits, to): (fn(f64) -> bool, f64)) {
    let tensor = trace.golden.tensors.get_mut(key).unwrap();
    let found = tensor.data.iter_mut().find(|x| fits(**x)).unwrap();
    *found = to;
}

#[test]
fn a_changed_number_is_noticed() {
    let committed: Spoil = |trace| spoil(trace, "committed", (|x| x == 1.0, 0.0));
    // The best row of the first pass becomes the worst one.
    let worst: Spoil = |trace| {
        let row = trace.marked("committed", 0).unwrap()[0];
        trace.golden.tensors.get_mut("confidence").unwrap().data[row] = -100.0;
    };
    let spoiled: [(&str, Spoil); 18] = [
        ("a2d-qwen3/decode_bd3lm_uneven_tail", |trace| trace.json["settings"]["steps_per_block"] = 4.into()),
        ("a2d-qwen3/decode_mdlm_static_blocks", worst),
        ("llada/decode_static", committed),
        ("llada/decode_threshold_09", |trace| trace.json["settings"]["threshold"] = 0.5.into()),
        ("sdar/decode_dynamic_085", |trace| trace.json["settings"]["confidence_threshold"] = 0.4.into()),
        ("sdar/decode_sequential", |trace| spoil(trace, "canvas_after", (|x| x == 119.0, 1.0))),
        ("dream/decode_entropy", worst),
        ("dream/decode_topk_margin", worst),
        ("dream/decode_origin", |trace| spoil(trace, "uniform", (|x| x > 0.5, 0.0))),
        ("fast_dllm_v2/decode_threshold_05_edge", |trace| trace.json["settings"]["threshold"] = 0.9.into()),
        ("llada2_moe/decode_v21_quality", |trace| spoil(trace, "edited", (|x| x == 1.0, 0.0))),
        ("llada2_moe/decode_v21_speed", |trace| trace.json["settings"]["max_post_steps"] = 1.into()),
        ("llada2_2_indel/decode_anti_loop", |trace| spoil(trace, "anti_loop_position", (|x| x >= 0.0, 1.0))),
        ("llada2_2_indel/decode_cleanup_scrub", |trace| spoil(trace, "final_cleanup", (|x| x == 1.0, 0.0))),
        ("llada2_2_indel/decode_quality_07_05", |trace| spoil(trace, "block_after", (|x| x == 120.0, 1.0))),
        ("diffusion_gemma/decode_early_stop", |trace| spoil(trace, "stop", (|x| x == 1.0, 0.0))),
        ("diffusion_gemma/decode_stability2", |trace| spoil(trace, "accepted", (|x| x == 1.0, 0.0))),
        ("diffusion_gemma/decode_stability2", |trace| trace.json["settings"]["t_max"] = 0.6.into()),
    ];
    for (name, change) in spoiled {
        let mut trace = Trace::read(&default_dir().join(format!("{name}.safetensors"))).unwrap();
        check(&trace).unwrap_or_else(|e| panic!("{e}"));
        change(&mut trace);
        assert!(check(&trace).is_err(), "{name} is still right with a wrong number");
    }
    let empty = std::env::temp_dir().join(format!("bd3-no-traces-{}", std::process::id()));
    std::fs::create_dir_all(&empty).unwrap();
    assert!(report(&empty).unwrap_err().contains("no trace"));
    std::fs::remove_dir(&empty).unwrap();
}
