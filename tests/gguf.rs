//! Block formats and GGUF files against numbers of the reference implementation (the Python package `gguf` 0.19.0).
//! `BD3_GGUF_ORACLE=DIR` names another folder with the same kinds of file; the default is the copy in `tests/oracle/gguf`.

use std::fs;
use std::path::{Path, PathBuf};

use bd3::format::quant::{dequantise, quantise};
use bd3::format::{Stored, Type};
use safetensors::SafeTensors;

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
