//! The head of a file: header, metadata, tensor table. A file may be hostile: nothing is allocated, read or sliced on its word alone.

use std::collections::BTreeMap;
use std::path::Path;

use super::{ALIGNMENT, ALIGNMENT_KEY, AXES, Entry, Field, Kind, MAGIC, Type, VERSIONS, Value, type_number};
use crate::error::{Error, Result};

pub(super) const EXPECTED: &str = "a GGUF file";
/// Lists inside lists inside lists; what is written has one.
const DEPTH: usize = 8;

/// Names of the types that we don't read, by their numbers.
const OTHER_TYPES: &[(u32, &str)] = &[
    (6, "q5_0"),
    (7, "q5_1"),
    (9, "q8_1"),
    (10, "q2_k"),
    (11, "q3_k"),
    (13, "q5_k"),
    (15, "q8_k"),
    (16, "iq2_xxs"),
    (17, "iq2_xs"),
    (18, "iq3_xxs"),
    (19, "iq1_s"),
    (20, "iq4_nl"),
    (21, "iq3_s"),
    (22, "iq2_s"),
    (23, "iq4_xs"),
    (24, "i8"),
    (25, "i16"),
    (26, "i32"),
    (27, "i64"),
    (28, "f64"),
    (29, "iq1_m"),
    (34, "tq1_0"),
    (35, "tq2_0"),
    (39, "mxfp4"),
];

type Head = (BTreeMap<String, Field>, BTreeMap<String, Entry>);

/// Reads and checks everything before the numbers.
pub(super) fn head(path: &Path, bytes: &[u8]) -> Result<Head> {
    let mut reader = Reader { path, bytes, at: 0, part: "the header".into() };
    let magic: [u8; 4] = reader.array()?;
    if magic != MAGIC {
        let found = format!("a file that begins with {:?}", String::from_utf8_lossy(&magic));
        return Err(Error::file(path, EXPECTED, found));
    }
    let version = u32::from_le_bytes(reader.array()?);
    if !VERSIONS.contains(&version) {
        let swapped = if VERSIONS.contains(&version.swap_bytes()) { " (a big-endian file?)" } else { "" };
        return Err(Error::file(path, "GGUF of version 2 or 3", format!("version {version}{swapped}")));
    }
    let tensors = reader.count("tensors", 8 + 4 + 4 + 8)?;
    let keys = reader.count("keys", 8 + 4 + 1)?;
    let mut metadata = BTreeMap::new();
    for i in 0..keys {
        reader.part = format!("key {} of {keys}", i + 1);
        let key = reader.name()?;
        reader.part = format!("the value of `{key}`");
        let kind = reader.kind()?;
        let field = Field { kind, start: reader.at };
        reader.pass_over(kind, 0)?;
        if metadata.contains_key(&key) {
            return Err(Error::key(path, key, "each key once", "it twice"));
        }
        metadata.insert(key, field);
    }
    let mut entries = BTreeMap::new();
    for i in 0..tensors {
        reader.part = format!("tensor {} of {tensors}", i + 1);
        let name = reader.name()?;
        reader.part = format!("the table's line of tensor `{name}`");
        let entry = reader.entry(&name)?;
        if entries.insert(name.clone(), entry).is_some() {
            return Err(Error::key(path, name, "each tensor once", "it twice"));
        }
    }
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        None => ALIGNMENT,
        Some(field) => alignment(path, &Reader::of(path, bytes, ALIGNMENT_KEY, field).value(field.kind, 0)?)?,
    };
    place(path, bytes.len(), reader.at, alignment, &mut entries)?;
    Ok((metadata, entries))
}

fn alignment(path: &Path, value: &Value) -> Result<usize> {
    match value {
        Value::U32(n) if n.is_power_of_two() => Ok(*n as usize),
        other => {
            let found = format!("{other} of type {:?}", other.kind());
            Err(Error::key(path, ALIGNMENT_KEY, "a power of two of type U32", found))
        }
    }
}

/// Turns offsets within the data into ranges of the file, after checking that tensors lie apart, aligned, and in the file.
fn place(path: &Path, size: usize, head: usize, align: usize, entries: &mut BTreeMap<String, Entry>) -> Result<()> {
    let data = head.checked_next_multiple_of(align);
    for (name, entry) in entries.iter_mut() {
        let bytes = entry.end - entry.start;
        if !entry.start.is_multiple_of(align) {
            let found = format!("offset {}", entry.start);
            return Err(Error::key(path, name, format!("an offset that is a multiple of {align}"), found));
        }
        let start = data.and_then(|data| data.checked_add(entry.start));
        match start.and_then(|start| Some((start, start.checked_add(bytes)?))) {
            Some((start, end)) if end <= size => (entry.start, entry.end) = (start, end),
            _ => {
                let found = format!("offset {} in a file of {size} bytes, whose data begin at {head}", entry.start);
                return Err(Error::key(path, name, format!("{bytes} bytes inside the file"), found));
            }
        }
    }
    let mut order: Vec<(&String, &Entry)> = entries.iter().filter(|(_, entry)| entry.start < entry.end).collect();
    order.sort_by_key(|(_, entry)| entry.start);
    match order.windows(2).find(|pair| pair[0].1.end > pair[1].1.start) {
        None => Ok(()),
        Some(pair) => Err(Error::key(path, pair[1].0, "bytes of its own", format!("some of tensor `{}`", pair[0].0))),
    }
}

/// A place in the bytes; every read is checked, and knows what it was reading.
pub(super) struct Reader<'a> {
    path: &'a Path,
    bytes: &'a [u8],
    at: usize,
    part: String,
}

impl<'a> Reader<'a> {
    /// At the value of a key.
    pub(super) fn of(path: &'a Path, bytes: &'a [u8], key: &str, field: &Field) -> Self {
        Self { path, bytes, at: field.start, part: format!("the value of `{key}`") }
    }

    fn refuse<T>(&self, expected: impl Into<String>, found: impl Into<String>) -> Result<T> {
        Err(Error::file(self.path, format!("{} in {} at byte {}", expected.into(), self.part, self.at), found))
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        if count > self.left() {
            return self.refuse(format!("{count} bytes"), format!("the end of the file after {}", self.left()));
        }
        let slice = &self.bytes[self.at..][..count];
        self.at += count;
        Ok(slice)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn number(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A count of things that take at least so many bytes each: a lie is found before any of them is read.
    fn count(&mut self, things: &str, bytes: usize) -> Result<usize> {
        let count = u64::from_le_bytes(self.array()?);
        match usize::try_from(count).ok().filter(|count| *count <= self.left() / bytes) {
            Some(count) => Ok(count),
            None => self.refuse(
                format!("at most {} {things}, as the rest of the file can hold,", self.left() / bytes),
                count.to_string(),
            ),
        }
    }

    pub(super) fn text(&mut self) -> Result<&'a str> {
        let length = self.count("bytes of text", 1)?;
        let bytes = self.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text),
            Err(e) => self.refuse("UTF-8", format!("other bytes at offset {} of a text before it", e.valid_up_to())),
        }
    }

    /// A text that names something in error sentences.
    fn name(&mut self) -> Result<String> {
        match self.text()? {
            name if name.chars().any(char::is_control) => {
                self.refuse("a name without control characters", format!("{name:?} before it"))
            }
            name => Ok(name.to_string()),
        }
    }

    fn kind(&mut self) -> Result<Kind> {
        let number = self.number()?;
        match Kind::ALL.get(number as usize) {
            Some(kind) => Ok(*kind),
            None => self.refuse(format!("a type of value below {}", Kind::ALL.len()), number.to_string()),
        }
    }

    /// The type of a list's values, and how many follow.
    pub(super) fn list(&mut self, depth: usize) -> Result<(Kind, usize)> {
        if depth == DEPTH {
            return self.refuse(format!("lists at most {DEPTH} deep"), "one more");
        }
        let kind = self.kind()?;
        Ok((kind, self.count("values", kind.least_bytes())?))
    }

    /// Checks a value and keeps nothing of it: a vocabulary is longer than all other keys together.
    fn pass_over(&mut self, kind: Kind, depth: usize) -> Result<()> {
        match kind {
            Kind::Text => self.text().map(|_| ()),
            Kind::List => {
                let (kind, count) = self.list(depth)?;
                (0..count).try_for_each(|_| self.pass_over(kind, depth + 1))
            }
            _ => self.value(kind, depth).map(|_| ()),
        }
    }

    pub(super) fn value(&mut self, kind: Kind, depth: usize) -> Result<Value> {
        Ok(match kind {
            Kind::U8 => Value::U8(u8::from_le_bytes(self.array()?)),
            Kind::I8 => Value::I8(i8::from_le_bytes(self.array()?)),
            Kind::U16 => Value::U16(u16::from_le_bytes(self.array()?)),
            Kind::I16 => Value::I16(i16::from_le_bytes(self.array()?)),
            Kind::U32 => Value::U32(self.number()?),
            Kind::I32 => Value::I32(i32::from_le_bytes(self.array()?)),
            Kind::F32 => Value::F32(f32::from_le_bytes(self.array()?)),
            Kind::U64 => Value::U64(u64::from_le_bytes(self.array()?)),
            Kind::I64 => Value::I64(i64::from_le_bytes(self.array()?)),
            Kind::F64 => Value::F64(f64::from_le_bytes(self.array()?)),
            Kind::Text => Value::Text(self.text()?.to_string()),
            Kind::Bool => match self.array()? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => return self.refuse("0 or 1 for false or true", other.to_string()),
            },
            Kind::List => {
                let (kind, count) = self.list(depth)?;
                let items = (0..count).map(|_| self.value(kind, depth + 1)).collect::<Result<_>>()?;
                Value::List(kind, items)
            }
        })
    }

    /// A line of the tensor table, its range relative to where the data begin.
    fn entry(&mut self, name: &str) -> Result<Entry> {
        let path = self.path;
        let wrong = |expected: String, found: String| Err(Error::key(path, name, expected, found));
        let axes = self.number()?;
        if axes as usize > AXES {
            return wrong(format!("at most {AXES} axes"), axes.to_string());
        }
        let mut shape = Vec::new();
        for _ in 0..axes {
            shape.push(u64::from_le_bytes(self.array()?));
        }
        let number = self.number()?;
        let offset = u64::from_le_bytes(self.array()?);
        let Some(ty) = Type::ALL.into_iter().find(|ty| type_number(*ty) == number) else {
            let ours: Vec<&str> = Type::ALL.into_iter().map(Type::name).collect();
            let other = OTHER_TYPES.iter().find(|(other, _)| *other == number).map_or("unknown", |(_, name)| *name);
            return wrong(format!("numbers of type {}", ours.join(", ")), format!("type {number} ({other})"));
        };
        let columns = shape.first().copied().unwrap_or(1);
        if !columns.is_multiple_of(ty.block() as u64) {
            let expected = format!("rows of a multiple of {} numbers, as type {} has them", ty.block(), ty.name());
            return wrong(expected, columns.to_string());
        }
        let size = |shape: &[u64]| {
            let count = shape.iter().try_fold(1usize, |count, n| count.checked_mul(usize::try_from(*n).ok()?))?;
            (count / ty.block()).checked_mul(ty.block_bytes())
        };
        let start = usize::try_from(offset).ok();
        match start.and_then(|start| Some((start, start.checked_add(size(&shape)?)?))) {
            None => wrong("a tensor that fits into memory".into(), format!("shape {shape:?} at offset {offset}")),
            Some((start, end)) => {
                let shape = shape.iter().rev().map(|n| *n as usize).collect();
                Ok(Entry { ty, shape, start, end })
            }
        }
    }
}
