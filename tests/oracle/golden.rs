//! Reads the tensors of a golden file, and compares with a tolerance beside each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};

/// Whatever went wrong, as one line that names the tensor and the numbers.
pub type Check = Result<(), String>;

/// One tensor, every number as f64 (ids and masks are exact there).
#[derive(Clone, Debug)]
pub struct Tensor {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Tensor {
    /// The `i`-th slice along the first axis.
    pub fn at(&self, i: usize) -> Tensor {
        let size: usize = self.shape[1..].iter().product();
        Tensor { shape: self.shape[1..].to_vec(), data: self.data[i * size..(i + 1) * size].to_vec() }
    }

    /// The numbers in rows of the last axis.
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.data.chunks(self.shape.last().copied().unwrap_or(1).max(1))
    }

    /// The `i`-th row of the last axis.
    pub fn row(&self, i: usize) -> &[f64] {
        self.rows().nth(i).unwrap_or_default()
    }

    /// The numbers as ids.
    pub fn ids(&self) -> Vec<u32> {
        self.data.iter().map(|&x| x as u32).collect()
    }

    /// The numbers as f32, as they stood in the file.
    pub fn f32s(&self) -> Vec<f32> {
        self.data.iter().map(|&x| x as f32).collect()
    }
}

/// A golden safetensors file.
pub struct Golden {
    pub path: PathBuf,
    pub tensors: BTreeMap<String, Tensor>,
    pub metadata: BTreeMap<String, String>,
}

impl Golden {
    pub fn read(path: &Path) -> Result<Self, String> {
        let name = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let bytes = fs::read(path).map_err(|e| name(&e))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| name(&e))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| name(&e))?;
        let mut tensors = BTreeMap::new();
        for (key, view) in file.tensors() {
            let data = numbers(view.dtype(), view.data()).ok_or_else(|| name(&format!("{key}: {:?}", view.dtype())))?;
            tensors.insert(key, Tensor { shape: view.shape().to_vec(), data });
        }
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { path: path.to_owned(), tensors, metadata })
    }

    pub fn get(&self, key: &str) -> Result<&Tensor, String> {
        self.tensors.get(key).ok_or_else(|| format!("{}: no tensor `{key}`", self.path.display()))
    }

    /// The tensor whose name begins with `start` and goes on with numbers, each behind its letters: `t0p7_dt0p1` is 0.7 and
    /// 0.1, `t1em5` is 1e-5.
    pub fn labelled<const N: usize>(&self, start: &str) -> Result<(&Tensor, [f64; N]), String> {
        let found = self.tensors.iter().find_map(|(key, tensor)| {
            let labels = key.strip_prefix(start)?.split('_');
            let number = |label: &str| {
                let digits = label.trim_start_matches(|c: char| !c.is_ascii_digit());
                digits.replace('p', ".").replace("em", "e-").parse::<f64>().ok()
            };
            let numbers: Vec<f64> = labels.map(number).collect::<Option<_>>()?;
            Some((tensor, numbers.try_into().ok()?))
        });
        found.ok_or_else(|| format!("{}: no tensor `{start}` with {N} numbers in its name", self.path.display()))
    }

    pub fn meta(&self, key: &str) -> Result<&str, String> {
        let value = self.metadata.get(key).map(String::as_str);
        value.ok_or_else(|| format!("{}: no metadata `{key}`", self.path.display()))
    }
}

fn numbers(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f64>> {
    fn each<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks().0.iter().map(|chunk| number(*chunk)).collect()
    }
    Some(match dtype {
        Dtype::F64 => each(bytes, f64::from_le_bytes),
        Dtype::F32 => each(bytes, |b| f64::from(f32::from_le_bytes(b))),
        Dtype::I64 => each(bytes, |b| i64::from_le_bytes(b) as f64),
        Dtype::I32 => each(bytes, |b| f64::from(i32::from_le_bytes(b))),
        Dtype::U8 | Dtype::BOOL => each(bytes, |[b]: [u8; 1]| f64::from(b)),
        _ => return None,
    })
}

/// The files of a golden folder, by name.
pub fn paths(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "json" || e == "safetensors"));
    paths.sort();
    Ok(paths)
}

/// The JSON file beside the golden files that describes their model, or any other.
pub fn json(path: &Path) -> Result<serde_json::Value, String> {
    let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

/// A whole number of `config.json` in the golden folder.
pub fn config(dir: &Path, key: &str) -> Result<usize, String> {
    let value = json(&dir.join("config.json"))?[key].as_u64();
    value.map(|n| n as usize).ok_or_else(|| format!("{}: no whole number `{key}`", dir.join("config.json").display()))
}

/// Fails when a number differs by more than `absolute + relative * |expected|`, or the counts differ.
pub fn close(name: &str, found: &[f64], expected: &[f64], (absolute, relative): (f64, f64)) -> Check {
    if found.len() != expected.len() {
        return Err(format!("{name}: {} numbers, expected {}", found.len(), expected.len()));
    }
    for (i, (&f, &e)) in found.iter().zip(expected).enumerate() {
        let same = f == e || (f - e).abs() <= absolute + relative * e.abs();
        if !same {
            return Err(format!("{name}[{i}]: {f}, expected {e}"));
        }
    }
    Ok(())
}
