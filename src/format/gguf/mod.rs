//! GGUF: typed metadata and named tensors in one file, versions 2 and 3. Reads from a mapped file or from bytes inside the binary,
//! and checks all of it but the numbers when it opens. It knows no model and no tokenizer: whoever reads a key knows what it means.

mod read;
mod value;
mod write;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::mapped::Bytes;
use super::{Stored, Type, finite};
use crate::error::{Error, Result};

use read::Reader;
pub use value::{Kind, Value};
pub use write::{Header, write};

/// The first four bytes of a file.
const MAGIC: [u8; 4] = *b"GGUF";
/// Versions that are read: their layout is the same. The last is the one that is written.
const VERSIONS: [u32; 2] = [2, 3];
/// Where tensors may begin, unless `general.alignment` says otherwise.
const ALIGNMENT: usize = 32;
/// Its key.
const ALIGNMENT_KEY: &str = "general.alignment";
/// Axes that a tensor may have.
const AXES: usize = 4;

/// The number by which GGUF knows a type.
fn type_number(ty: Type) -> u32 {
    match ty {
        Type::F32 => 0,
        Type::F16 => 1,
        Type::Q4_0 => 2,
        Type::Q4_1 => 3,
        Type::Q8_0 => 8,
        Type::Q4K => 12,
        Type::Q6K => 14,
        Type::Bf16 => 30,
    }
}

/// One tensor of a file's table; the range is that of its bytes in the file.
#[derive(Clone, Debug)]
struct Entry {
    ty: Type,
    shape: Vec<usize>,
    start: usize,
    end: usize,
}

/// Where a value of the metadata begins. Values stay in the file: they are read when somebody asks.
#[derive(Clone, Copy, Debug)]
struct Field {
    kind: Kind,
    start: usize,
}

/// An open GGUF file.
pub struct Gguf {
    path: PathBuf,
    bytes: Arc<Bytes>,
    metadata: BTreeMap<String, Field>,
    entries: BTreeMap<String, Entry>,
}

impl Gguf {
    /// Opens and checks a file.
    ///
    /// # Errors
    /// One sentence for everything that a file of this kind can't be, the key or tensor named where one is at fault.
    pub fn open(path: &Path) -> Result<Self> {
        Self::parse(path, Bytes::open(path, read::EXPECTED)?)
    }

    /// Reads a file that is part of the binary; `name` stands for its path in errors.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn embedded(name: &str, bytes: &'static [u8]) -> Result<Self> {
        Self::parse(Path::new(name), Bytes::Static(bytes))
    }

    fn parse(path: &Path, bytes: Bytes) -> Result<Self> {
        let (metadata, entries) = read::head(path, bytes.as_slice())?;
        Ok(Self { path: path.into(), bytes: Arc::new(bytes), metadata, entries })
    }

    /// The file's path, for errors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All keys, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.metadata.keys().map(String::as_str)
    }

    /// The value of a key, if the key is there.
    ///
    /// # Errors
    /// As [`Gguf::open`], where the file has changed since.
    pub fn value(&self, key: &str) -> Result<Option<Value>> {
        self.field(key).map(|(mut reader, kind)| reader.value(kind, 0)).transpose()
    }

    /// All keys that begin with a text, and their values, in alphabetical order.
    ///
    /// # Errors
    /// As [`Gguf::value`].
    pub fn values(&self, prefix: &str) -> Result<BTreeMap<String, Value>> {
        let keys = self.keys().filter(|key| key.starts_with(prefix));
        keys.filter_map(|key| self.value(key).transpose().map(|value| Ok((key.to_string(), value?)))).collect()
    }

    /// All tensor names in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// A tensor's shape, outermost axis first (the file has it the other way round), if the tensor is there.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// What a tensor's bytes are, if it is there.
    pub fn type_of(&self, name: &str) -> Option<Type> {
        self.entries.get(name).map(|e| e.ty)
    }

    /// A tensor as the file has it, not copied.
    ///
    /// # Errors
    /// A missing name or another shape.
    pub fn stored(&self, name: &str, shape: &[usize]) -> Result<Stored<'_>> {
        let wanted = || format!("a tensor of shape {shape:?}");
        let entry = self.entries.get(name).ok_or_else(|| {
            let found = format!("no such tensor among {}", self.entries.len());
            Error::key(&self.path, name, wanted(), found)
        })?;
        if entry.shape != shape {
            let found = format!("{} of shape {:?}", entry.ty.name(), entry.shape);
            return Err(Error::key(&self.path, name, wanted(), found));
        }
        let bytes = &self.bytes.as_slice()[entry.start..entry.end];
        Ok(Stored { ty: entry.ty, shape: entry.shape.clone(), bytes: bytes.into() })
    }

    /// A tensor as f32, whatever type the file has.
    ///
    /// # Errors
    /// As [`Gguf::stored`], and a number that is not finite.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        finite(&self.path, name, self.stored(name, shape)?.f32())
    }

    /// Lets the system take back the memory that a tensor of a mapped file holds; it can still be read, from the file anew.
    pub fn release(&self, name: &str) {
        if let Some(entry) = self.entries.get(name) {
            self.bytes.release(entry.start..entry.end);
        }
    }

    /// The same for the whole file, metadata included.
    pub fn release_all(&self) {
        self.bytes.release(0..self.bytes.as_slice().len());
    }

    /// The file's bytes, and where among them the text under a key stands, if the key is there.
    ///
    /// # Errors
    /// A value that is no text.
    pub(crate) fn shared_text(&self, key: &str) -> Result<Option<(Arc<Bytes>, Range<usize>)>> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        let start = text.as_ptr().addr() - self.bytes.as_slice().as_ptr().addr();
        Ok(Some((self.bytes.clone(), start..start + text.len())))
    }

    /// The text under a key, if the key is there.
    ///
    /// # Errors
    /// A value that is no text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.get(key, "a text", |reader, kind| if kind == Kind::Text { reader.text().map(Some) } else { Ok(None) })
    }

    /// The truth value under a key, if the key is there.
    ///
    /// # Errors
    /// A value that is neither true nor false.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.get(key, "true or false", |reader, kind| Ok(reader.value(kind, 0)?.as_flag()))
    }

    /// The count under a key, of whatever integer type, if the key is there.
    ///
    /// # Errors
    /// A value that is no integer, or negative.
    pub fn count(&self, key: &str) -> Result<Option<usize>> {
        self.get(key, "a whole number that is not negative", |reader, kind| Ok(reader.value(kind, 0)?.as_count()))
    }

    /// The number under a key, of whatever numeric type, if the key is there.
    ///
    /// # Errors
    /// A value that is no number, or not finite.
    pub fn number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key, "a finite number", |reader, kind| Ok(reader.value(kind, 0)?.as_number()))
    }

    /// The list of texts under a key, if the key is there.
    ///
    /// # Errors
    /// A value that is no such list.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.list(key, "a list of texts", |reader, kind| match kind {
            Kind::Text => reader.text().map(Some),
            _ => Ok(None),
        })
    }

    /// The list of counts under a key, if the key is there.
    ///
    /// # Errors
    /// A value that is no such list.
    pub fn counts(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let expected = "a list of whole numbers that are not negative";
        self.list(key, expected, |reader, kind| Ok(reader.value(kind, 1)?.as_count()))
    }

    /// The list of numbers under a key, if the key is there.
    ///
    /// # Errors
    /// A value that is no such list.
    pub fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.list(key, "a list of finite numbers", |reader, kind| Ok(reader.value(kind, 1)?.as_number()))
    }

    /// The error for a key that has to be there and is not.
    pub fn missing(&self, key: &str, expected: &str) -> Error {
        Error::key(&self.path, key, expected, "no such key")
    }

    fn field<'a>(&'a self, key: &str) -> Option<(Reader<'a>, Kind)> {
        let field = self.metadata.get(key)?;
        Some((Reader::of(&self.path, self.bytes.as_slice(), key, field), field.kind))
    }

    fn get<'a, T>(&'a self, key: &str, expected: &str, read: impl Read<'a, T>) -> Result<Option<T>> {
        let Some((mut reader, kind)) = self.field(key) else { return Ok(None) };
        match read(&mut reader, kind)? {
            Some(value) => Ok(Some(value)),
            None => {
                let found = self.value(key)?.map_or_else(String::new, |value| value.to_string());
                Err(Error::key(&self.path, key, expected, found))
            }
        }
    }

    fn list<'a, T>(&'a self, key: &str, expected: &str, read: impl Read<'a, T>) -> Result<Option<Vec<T>>> {
        self.get(key, expected, |reader, kind| {
            if kind != Kind::List {
                return Ok(None);
            }
            let (kind, count) = reader.list(0)?;
            (0..count).map(|_| read(reader, kind)).collect()
        })
    }
}

/// Reads a value of some type; `None`: it is not what is expected.
trait Read<'a, T>: Fn(&mut Reader<'a>, Kind) -> Result<Option<T>> {}

impl<'a, T, F: Fn(&mut Reader<'a>, Kind) -> Result<Option<T>>> Read<'a, T> for F {}

#[cfg(test)]
mod tests;
