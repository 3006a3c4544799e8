//! Block formats and GGUF files against numbers of the reference implementation (the Python package `gguf` 0.19.0).
//! `BD3_GGUF_ORACLE=DIR` names another folder with the same kinds of file; the default is the copy in `tests/oracle/gguf`.

use std::fs;
use std::path::{Path, PathBuf};

use bd3::format::gguf::Gguf;
use bd3::format::quant::{dequantise, quantise};
use bd3::format::{Stored, Type};
use safetensors::SafeTensors;
use serde_json::Value;

fn folder() -> PathBuf {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/oracle/gguf");
    std::env::var_os("BD3_GGUF_ORACLE").map_or(default, PathBuf::from)
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data();
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

/// The same bits, or both not a number.
#[track_caller]
fn same(name: &str, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    for (i, (x, y)) in found.iter().zip(expected).enumerate() {
        assert!(x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan(), "{name}[{i}]: {x:?}, expected {y:?}");
    }
}

#[test]
fn block_formats_are_those_of_the_reference() {
    let bytes = fs::read(folder().join("dequant_rows.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let source = floats(&file, "quantize.src_f32");
    let mut written = 0;
    for ty in Type::ALL.into_iter().filter(|ty| *ty != Type::F32) {
        let name = ty.name().to_uppercase();
        let raw = file.tensor(&format!("{name}.raw")).unwrap().data();
        let expected = floats(&file, &format!("{name}.f32"));
        let mut found = vec![0.0; expected.len()];
        dequantise(ty, raw, &mut found);
        same(&name, &found, &expected);
        same(&name, &Stored { ty, shape: vec![expected.len()], bytes: raw.into() }.f32(), &expected);
        if let Ok(expected) = file.tensor(&format!("quantize.{name}.raw")) {
            assert_eq!(quantise(ty, &source).unwrap(), expected.data(), "{name}");
            written += 1;
        }
    }
    assert_eq!(written, 3);
}

/// Every tensor of every model: name, type, shape, and the numbers of its first rows; or its type named, where we have none such.
#[test]
fn models_hold_what_their_writer_put_in() {
    let mut seen = 0;
    for path in fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()) {
        let Some(stem) = path.to_string_lossy().strip_suffix(".gguf").map(str::to_string) else { continue };
        let table: Value = serde_json::from_slice(&fs::read(format!("{stem}_tensors.json")).unwrap()).unwrap();
        let table = table["tensors"].as_array().unwrap();
        let ty = |line: &Value| Type::ALL.into_iter().find(|ty| line["type"] == ty.name().to_uppercase());
        seen += 1;
        if let Some(line) = table.iter().find(|line| ty(line).is_none()) {
            let message = Gguf::open(&path).err().expect("a type that we don't read").to_string();
            assert!(message.contains(&line["type"].as_str().unwrap().to_lowercase()), "{message}");
            continue;
        }
        let file = Gguf::open(&path).unwrap();
        let golden = fs::read(format!("{stem}_golden.safetensors")).unwrap();
        let golden = SafeTensors::deserialize(&golden).unwrap();
        assert_eq!(file.names().count(), table.len());
        for line in table {
            let name = line["name"].as_str().unwrap();
            let mut shape: Vec<usize> = serde_json::from_value(line["dims"].clone()).unwrap();
            shape.reverse();
            assert_eq!(file.type_of(name), ty(line), "{name}");
            let expected = floats(&golden, &format!("dequant.{name}"));
            let found = file.f32(name, &shape).unwrap();
            same(name, &found[..expected.len()], &expected);
        }
    }
    assert!(seen > 0);
}
