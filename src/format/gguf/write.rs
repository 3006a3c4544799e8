//! Writing a file: version 3, little-endian, one tensor in memory at a time.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::Path;

use super::{ALIGNMENT, ALIGNMENT_KEY, AXES, Kind, MAGIC, Type, VERSIONS, Value, type_number};
use crate::error::{Error, Result};
use crate::format::write_atomic;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// What its bytes are.
    pub ty: Type,
    /// Outermost axis first.
    pub shape: Vec<usize>,
}

/// Writes a file atomically: keys and tensors in the order given. `data` is asked for the bytes of one tensor after the other.
///
/// # Errors
/// A name twice, a list of mixed types, an alignment of one's own, a shape that the type can't have, bytes that are not the
/// tensor's: nothing is written then, nor where `data` fails or the file can't be written.
pub fn write<'a>(
    path: &Path,
    metadata: &[(&str, Value)],
    tensors: &[Header],
    mut data: impl FnMut(&Header) -> Result<Cow<'a, [u8]>>,
) -> Result<()> {
    let (head, sizes) = head(path, metadata, tensors)?;
    let mut failed = None;
    let written = write_atomic(path, |out| {
        out.write_all(&head)?;
        for (tensor, &size) in tensors.iter().zip(&sizes) {
            let bytes = data(tensor).and_then(|bytes| match bytes.len() == size {
                true => Ok(bytes),
                false => Err(Error::key(path, &tensor.name, format!("{size} bytes"), bytes.len().to_string())),
            });
            match bytes {
                Ok(bytes) => out.write_all(&bytes)?,
                Err(e) => {
                    failed = Some(e);
                    return Err(std::io::ErrorKind::Other.into());
                }
            }
            out.write_all(&[0; ALIGNMENT][..padding(size)])?;
        }
        Ok(())
    });
    failed.map_or(written, Err)
}

/// Bytes up to where the next tensor may begin.
fn padding(size: usize) -> usize {
    size.next_multiple_of(ALIGNMENT) - size
}

/// Everything before the numbers, and the bytes of each tensor.
fn head(path: &Path, metadata: &[(&str, Value)], tensors: &[Header]) -> Result<(Vec<u8>, Vec<usize>)> {
    let mut head = MAGIC.to_vec();
    head.extend(VERSIONS[1].to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((metadata.len() as u64).to_le_bytes());
    let mut names = BTreeSet::new();
    for (key, value) in metadata {
        if !names.insert(*key) {
            return Err(Error::key(path, *key, "each key once", "it twice"));
        }
        if *key == ALIGNMENT_KEY && *value != Value::U32(ALIGNMENT as u32) {
            return Err(Error::key(path, *key, format!("{ALIGNMENT}, as is written"), value.to_string()));
        }
        put_text(&mut head, key);
        head.extend((value.kind() as u32).to_le_bytes());
        put_value(&mut head, value).map_err(|(expected, found)| {
            Error::key(path, *key, format!("values of type {expected:?} only"), format!("one of type {found:?}"))
        })?;
    }
    let mut names = BTreeSet::new();
    let (mut sizes, mut offset) = (Vec::new(), 0);
    for tensor in tensors {
        let Header { name, ty, shape } = tensor;
        if !names.insert(name) {
            return Err(Error::key(path, name, "each tensor once", "it twice"));
        }
        if shape.len() > AXES || !shape.last().unwrap_or(&1).is_multiple_of(ty.block()) {
            let expected = format!("at most {AXES} axes, the last a multiple of {} for type {}", ty.block(), ty.name());
            return Err(Error::key(path, name, expected, format!("shape {shape:?}")));
        }
        put_text(&mut head, name);
        head.extend((shape.len() as u32).to_le_bytes());
        shape.iter().rev().for_each(|n| head.extend((*n as u64).to_le_bytes()));
        head.extend(type_number(*ty).to_le_bytes());
        head.extend((offset as u64).to_le_bytes());
        let size = shape.iter().product::<usize>() / ty.block() * ty.block_bytes();
        offset += size + padding(size);
        sizes.push(size);
    }
    head.resize(head.len() + padding(head.len()), 0);
    Ok((head, sizes))
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

/// Fails with the type of a list and that of a value in it.
fn put_value(out: &mut Vec<u8>, value: &Value) -> Result<(), (Kind, Kind)> {
    match value {
        Value::U8(n) => out.push(*n),
        Value::I8(n) => out.extend(n.to_le_bytes()),
        Value::U16(n) => out.extend(n.to_le_bytes()),
        Value::I16(n) => out.extend(n.to_le_bytes()),
        Value::U32(n) => out.extend(n.to_le_bytes()),
        Value::I32(n) => out.extend(n.to_le_bytes()),
        Value::U64(n) => out.extend(n.to_le_bytes()),
        Value::I64(n) => out.extend(n.to_le_bytes()),
        Value::F32(x) => out.extend(x.to_le_bytes()),
        Value::F64(x) => out.extend(x.to_le_bytes()),
        Value::Bool(flag) => out.push((*flag).into()),
        Value::Text(text) => put_text(out, text),
        Value::List(kind, items) => {
            out.extend((*kind as u32).to_le_bytes());
            out.extend((items.len() as u64).to_le_bytes());
            for item in items {
                if item.kind() != *kind {
                    return Err((*kind, item.kind()));
                }
                put_value(out, item)?;
            }
        }
    }
    Ok(())
}
