//! What the decoding loops of other model families decided, step by step, against what our rules decide from the same
//! probabilities. `BD3_FAMILIES=DIR` names another folder of the same kind: one folder per family, in it pairs of
//! `decode_*.safetensors` and `decode_*.json`. Shapes, thresholds and counts are read from the files.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::oracle::golden::{Check, Golden};

use super::canvas;

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

/// Checks a file of a known kind; `Ok(None)` for one that only a model could check.
fn check(path: &Path) -> Result<Option<usize>, String> {
    let trace = Trace::read(path)?;
    if ["canvas_before", "committed", "open"].iter().all(|key| trace.has(key)) {
        return canvas::check(&trace).map(Some);
    }
    if trace.has("histories") {
        return Ok(None);
    }
    Err(format!("{}: a trace of no known kind", path.display()))
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
        match check(&path) {
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

#[test]
fn our_rules_decide_what_the_families_decided() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/families");
    let dir = std::env::var_os("BD3_FAMILIES").map_or(default, PathBuf::from);
    report(&dir).unwrap_or_else(|e| panic!("{e}"));
}
