//! safetensors: named tensors in one file. Reads from a mapped file or from bytes inside the binary; writes f32 and f16.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::f16;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::mapped::Bytes;
use super::{Stored, Type, finite, write_atomic};
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
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(path, Bytes::open(path, "a safetensors file")?)
    }

    /// Reads a file that is part of the binary; `name` stands for its path in errors.
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
    pub fn expect(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.entry(name, shape).map(|_| ())
    }

    /// A tensor as f32, whatever float type the file has. A missing name, another shape or a number that is not finite is an
    /// error.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        finite(&self.path, name, self.stored(name, shape)?.f32())
    }

    /// A float tensor as the file has it, not copied. A missing name, another shape or numbers that are no floats are an error.
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

/// The float types we write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Float {
    /// 32 bits.
    F32,
    /// 16 bits, IEEE half.
    F16,
}

/// A tensor to be written.
pub struct Named<'a> {
    /// Its key.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its numbers, row major.
    pub data: std::borrow::Cow<'a, [f32]>,
    /// How they are stored.
    pub float: Float,
}

/// Writes a file atomically: the tensors, in the order given, and string metadata.
pub fn write(path: &Path, tensors: &[Named<'_>], metadata: &BTreeMap<String, String>) -> Result<()> {
    for tensor in tensors.iter().filter(|t| t.float == Float::F16) {
        if let Some(x) = tensor.data.iter().find(|x| !f16::from_f32(**x).is_finite()) {
            return Err(Error::key(path, &tensor.name, "numbers within the range of f16", x.to_string()));
        }
    }
    let encoded: Vec<Vec<u8>> = tensors.iter().map(|t| encode(&t.data, t.float)).collect();
    let mut views = Vec::with_capacity(tensors.len());
    for (tensor, bytes) in tensors.iter().zip(&encoded) {
        let dtype = match tensor.float {
            Float::F32 => Dtype::F32,
            Float::F16 => Dtype::F16,
        };
        let view = TensorView::new(dtype, tensor.shape.clone(), bytes)
            .map_err(|e| Error::key(path, &tensor.name, format!("data of shape {:?}", tensor.shape), e.to_string()))?;
        views.push((tensor.name.as_str(), view));
    }
    let metadata = (!metadata.is_empty()).then(|| metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
    let file = safetensors::serialize(views, metadata).map_err(|e| Error::Run(format!("{}: {e}", path.display())))?;
    write_atomic(path, |out| out.write_all(&file))
}

fn encode(data: &[f32], float: Float) -> Vec<u8> {
    match float {
        Float::F32 => data.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Float::F16 => data.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
    }
}
