//! safetensors: named tensors in one file. Reads from a mapped file or from bytes inside the binary; writes the plain float types.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};

use super::mapped::Bytes;
use super::{Header, Stored, Type, finite, write_atomic};
use crate::error::{Error, Result};

/// One entry of a file's header.
#[derive(Clone, Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// An open safetensors file.
pub struct Tensors {
    path: PathBuf,
    bytes: Bytes,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl Tensors {
    /// Opens and checks a file.
    ///
    /// # Errors
    /// A file that can't be read, is empty, or is no safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(path, Bytes::open(path, "a safetensors file")?)
    }

    /// Reads a file that is part of the binary; `name` stands for its path in errors.
    ///
    /// # Errors
    /// Bytes that are no safetensors file.
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Self::parse(Path::new(name), Bytes::Static(bytes))
    }

    fn parse(path: &Path, bytes: Bytes) -> Result<Self> {
        let slice = bytes.as_slice();
        let refuse = |e: safetensors::SafeTensorError| Error::file(path, "a safetensors file", e.to_string());
        let (header_length, header) = SafeTensors::read_metadata(slice).map_err(refuse)?;
        let parsed = SafeTensors::deserialize(slice).map_err(refuse)?;
        let base = slice.as_ptr() as usize;
        debug_assert!(header_length < slice.len());
        let entries = parsed
            .iter()
            .map(|(name, view)| {
                let start = view.data().as_ptr() as usize - base;
                let entry =
                    Entry { dtype: view.dtype(), shape: view.shape().to_vec(), start, end: start + view.data().len() };
                (name.to_string(), entry)
            })
            .collect();
        let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        Ok(Self { path: path.into(), bytes, entries, metadata })
    }

    /// The file's path, for errors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All tensor names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The free-form metadata of the header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// A tensor's shape, if it is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// Checks that a float tensor of this shape is there.
    ///
    /// # Errors
    /// A missing name, another shape, or numbers that are not f32, f16 or bf16.
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.entry(name, shape).map(|_| ())
    }

    /// A tensor as f32, whatever float type the file has.
    ///
    /// # Errors
    /// As [`Tensors::expect`], and a number that is not finite.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        finite(&self.path, name, self.stored(name, shape)?.f32())
    }

    /// A float tensor as the file has it, not copied.
    ///
    /// # Errors
    /// As [`Tensors::expect`].
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>> {
        let (entry, ty) = self.entry(name, shape)?;
        let bytes = &self.bytes.as_slice()[entry.start..entry.end];
        Ok(Stored { ty, shape: entry.shape.clone(), bytes: bytes.into() })
    }

    /// Lets the system take back the memory that a tensor of a mapped file holds; it can still be read, from the file anew.
    pub fn release(&self, name: &str) {
        if let Some(entry) = self.entries.get(name) {
            self.bytes.release(entry.start..entry.end);
        }
    }

    /// The same for the whole file.
    pub fn release_all(&self) {
        self.bytes.release(0..self.bytes.as_slice().len());
    }

    fn entry(&self, name: &str, shape: &[usize]) -> Result<(&Entry, Type)> {
        let wanted = || format!("a float tensor of shape {shape:?}");
        let entry = self.entries.get(name).ok_or_else(|| {
            let near = self.entries.keys().find(|k| k.rsplit('.').next() == name.rsplit('.').next());
            let hint = near.map_or(String::new(), |k| format!(" (the file has `{k}`, for one)"));
            Error::key(&self.path, name, wanted(), format!("no such tensor{hint}"))
        })?;
        match float_type(entry.dtype) {
            Some(ty) if entry.shape == shape => Ok((entry, ty)),
            _ => {
                let found = format!("{:?} of shape {:?}", entry.dtype, entry.shape);
                Err(Error::key(&self.path, name, wanted(), found))
            }
        }
    }
}

fn float_type(dtype: Dtype) -> Option<Type> {
    match dtype {
        Dtype::F32 => Some(Type::F32),
        Dtype::F16 => Some(Type::F16),
        Dtype::BF16 => Some(Type::Bf16),
        _ => None,
    }
}

/// Writes a file atomically: string metadata, and the tensors, of which one at a time is in memory. `data` is asked for the bytes
/// of each.
///
/// # Errors
/// A type that this format does not have; bytes that are not the tensor's. Nothing is written then, nor where `data` fails.
pub fn write<'a>(
    path: &Path,
    metadata: &BTreeMap<String, String>,
    tensors: &[Header],
    mut data: impl FnMut(&Header) -> Result<Cow<'a, [u8]>>,
) -> Result<()> {
    let mut order = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let dtype = dtype(tensor.ty)
            .ok_or_else(|| Error::key(path, &tensor.name, "one of the types f32, f16, bf16", tensor.ty.name()))?;
        order.push((tensor, dtype));
    }
    // The order of the official writer, so that equal tensors make equal files.
    order.sort_by(|(left, a), (right, b)| b.cmp(a).then(left.name.cmp(&right.name)));
    let mut end = 0;
    let info = |&(tensor, dtype): &(&Header, Dtype)| {
        let start = end;
        end += tensor.shape.iter().product::<usize>() * tensor.ty.block_bytes();
        (tensor.name.clone(), TensorInfo { dtype, shape: tensor.shape.clone(), data_offsets: (start, end) })
    };
    let infos: Vec<(String, TensorInfo)> = order.iter().map(info).collect();
    let sizes: Vec<usize> = infos.iter().map(|(_, info)| info.data_offsets.1 - info.data_offsets.0).collect();
    let metadata = (!metadata.is_empty()).then(|| metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
    let failed = |e: &dyn std::fmt::Display| Error::Run(format!("{}: {e}", path.display()));
    let metadata = Metadata::new(metadata, infos).map_err(|e| failed(&e))?;
    let mut head = serde_json::to_vec(&metadata).map_err(|e| failed(&e))?;
    head.resize(head.len().next_multiple_of(8), b' ');
    let mut failed = None;
    let written = write_atomic(path, |out| {
        out.write_all(&(head.len() as u64).to_le_bytes())?;
        out.write_all(&head)?;
        for ((tensor, _), size) in order.iter().zip(sizes) {
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
        }
        Ok(())
    });
    failed.map_or(written, Err)
}

fn dtype(ty: Type) -> Option<Dtype> {
    match ty {
        Type::F32 => Some(Dtype::F32),
        Type::F16 => Some(Dtype::F16),
        Type::Bf16 => Some(Dtype::BF16),
        _ => None,
    }
}
