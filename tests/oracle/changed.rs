//! Shows that the checks look: a number changed in any tensor of any file is noticed.

use std::fs;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

use super::checks_of;

/// Draws that decide by comparison: a small change rarely changes an outcome. The last is empty.
const TOLERANT: [&str; 5] =
    ["a.draws", "b.draws", "c.draws", "traj_ddpm_T16_block4.safetensors: u", "block4.safetensors: ind"];

/// Places spread among `count`, not in step with any row length.
fn places(count: usize) -> Vec<usize> {
    let some = count.min(16);
    (0..some).map(|i| (i * count / some + i * 7) % count).collect()
}

/// The file with one number of each tensor changed in turn: the name of the tensor, and the versions.
fn changed_tensors(bytes: &[u8]) -> Vec<(String, Vec<Vec<u8>>)> {
    let (header, metadata) = SafeTensors::read_metadata(bytes).unwrap();
    let change = |dtype: Dtype, (start, end): (usize, usize)| {
        let size = dtype.bitsize() / 8;
        // The top of a float's mantissa (of a double's exponent, too), or the low bits of an id.
        let byte = if matches!(dtype, Dtype::F32 | Dtype::F64) { size - 2 } else { 0 };
        let versions = places((end - start) / size).into_iter().map(|place| {
            let mut bytes = bytes.to_vec();
            bytes[8 + header + start + place * size + byte] ^= 0x10;
            bytes
        });
        versions.collect()
    };
    metadata.tensors().into_iter().map(|(name, info)| (name, change(info.dtype, info.data_offsets))).collect()
}

/// The `place`-th number below a value.
fn number<'a>(value: &'a mut Value, place: &mut usize) -> Option<&'a mut Value> {
    match value {
        Value::Number(_) if *place == 0 => Some(value),
        Value::Number(_) => {
            *place -= 1;
            None
        }
        Value::Array(items) => items.iter_mut().find_map(|item| number(item, place)),
        Value::Object(items) => items.values_mut().find_map(|item| number(item, place)),
        _ => None,
    }
}

/// The file with one number changed.
fn changed_json(bytes: &[u8]) -> Vec<(String, Vec<Vec<u8>>)> {
    let value: Value = serde_json::from_slice(bytes).unwrap();
    let mut left = usize::MAX;
    assert!(number(&mut value.clone(), &mut left).is_none());
    let count = usize::MAX - left;
    let versions = places(count).into_iter().map(|place| {
        let mut value = value.clone();
        let number = number(&mut value, &mut { place }).unwrap();
        *number = number.as_u64().map_or_else(|| (number.as_f64().unwrap() + 0.25).into(), |whole| (whole ^ 16).into());
        serde_json::to_vec(&value).unwrap()
    });
    vec![("numbers".into(), versions.collect())]
}

/// Checks that run the network take longer: fewer changes there. Weights have no numbers beside them to disagree with: a
/// changed weight shows in the other files, and in none of its own.
fn changes_tried(name: &str) -> usize {
    let network = ["bd3lm_", "mdlm_", "ar.", "sedd.", "train_", "embedders."];
    match name {
        _ if name.starts_with("weights") => 0,
        _ if network.iter().any(|start| name.starts_with(start)) => 4,
        _ => 16,
    }
}

#[test]
fn a_changed_number_is_noticed() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/bd3lm");
    let copy = tempfile::tempdir().unwrap();
    let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    for name in &names {
        fs::copy(dir.join(name), copy.path().join(name)).unwrap();
    }
    for name in names {
        let Some(checks) = checks_of(&name) else { continue };
        let (bytes, changed) = (fs::read(dir.join(&name)).unwrap(), copy.path().join(&name));
        let tensors = if name.ends_with(".json") { changed_json(&bytes) } else { changed_tensors(&bytes) };
        for (tensor, mut versions) in tensors {
            versions.truncate(changes_tried(&name));
            let count = versions.len();
            let noticed = versions.into_iter().any(|version| {
                fs::write(&changed, &version).unwrap();
                checks.iter().any(|check| check(copy.path(), &changed).is_err())
            });
            let label = format!("{name}: {tensor}");
            assert!(
                count == 0 || noticed || TOLERANT.iter().any(|t| label.ends_with(t)),
                "{label}: none of {count} changes noticed"
            );
        }
        fs::write(&changed, bytes).unwrap();
    }
}
