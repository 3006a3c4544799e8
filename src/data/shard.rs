//! A token shard: the ids of many documents in one file that is mapped into memory, never read as a whole. Ids are stored
//! as the tokenizer gave them, without special ids; [`super::pack`] adds those.
//!
//! # The file, version 1 (little endian)
//!
//! | bytes | what |
//! | --- | --- |
//! | 0..512 | a JSON object, then spaces, the last byte a newline: see [`Header`] |
//! | 512.. | the ids, `width` bytes each, then zeros up to a multiple of 8 |
//! | then | per document two u64: where it starts (in ids), and its length as UTF-8 (in bytes) |
//!
//! Documents are never empty, so starts rise strictly, from 0.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::format::map_file;
use crate::{Error, Result};

#[cfg(target_endian = "big")]
compile_error!("token shards are mapped as little-endian numbers");

const FORMAT: &str = "bd3-ids";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 512;
/// Bytes that are hashed at a time, side by side.
const PART: usize = 1 << 24;

/// What the first line of a shard says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Always `bd3-ids`.
    pub format: String,
    /// Version of the layout.
    pub version: u32,
    /// Bytes of one id: 2 where the vocabulary fits, else 4.
    pub width: usize,
    /// Number of ids of the tokenizer, the mask included.
    pub vocab_size: usize,
    /// Number of ids in the file.
    pub ids: u64,
    /// Number of documents.
    pub documents: u64,
    /// UTF-8 bytes of all documents: the denominator of bits per byte.
    pub bytes: u64,
    /// The tokenizer's hash (SHA-256 of its file).
    pub tokenizer: String,
}

impl Header {
    /// Of a shard without documents yet.
    fn new(vocab_size: usize, hash: &str) -> Self {
        let (format, tokenizer) = (FORMAT.to_string(), hash.to_string());
        let width = width(vocab_size);
        Self { format, version: VERSION, width, vocab_size, ids: 0, documents: 0, bytes: 0, tokenizer }
    }

    /// Where the table of documents begins, if the numbers make sense at all.
    fn table(&self) -> Option<u64> {
        let ids = self.ids.checked_mul(self.width as u64)?;
        ids.checked_next_multiple_of(8)?.checked_add(HEADER_BYTES as u64)
    }

    fn length(&self) -> Option<u64> {
        self.documents.checked_mul(16)?.checked_add(self.table()?)
    }
}

/// Writes a shard, document by document; nothing bears its final name before [`Writer::finish`].
pub struct Writer {
    path: PathBuf,
    temporary: PathBuf,
    ids: BufWriter<File>,
    table: BufWriter<File>,
    header: Header,
}

impl Writer {
    /// A shard to be at `path`, for a tokenizer's vocabulary size and hash.
    ///
    /// # Errors
    /// The file, or the two temporary ones beside it, can't be written.
    pub fn create(path: &Path, vocab_size: usize, hash: &str) -> Result<Self> {
        let temporary = with_ending(path, "tmp");
        let spill = with_ending(path, "documents.tmp");
        let open = |path: &Path| {
            let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
            file.map(|file| BufWriter::with_capacity(1 << 18, file)).map_err(|e| Error::io(path, e))
        };
        let mut ids = open(&temporary)?;
        let table = open(&spill)?;
        // Open but without a name: gone when this process is.
        std::fs::remove_file(&spill).map_err(|e| Error::io(&spill, e))?;
        ids.write_all(&[b' '; HEADER_BYTES]).map_err(|e| Error::io(&temporary, e))?;
        let header = Header::new(vocab_size, hash);
        Ok(Self { path: path.into(), temporary, ids, table, header })
    }

    /// What has been written so far.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Adds a document of `bytes` UTF-8 bytes.
    ///
    /// # Errors
    /// No ids, an id beyond the vocabulary, or the disk.
    pub fn push(&mut self, ids: &[u32], bytes: u64) -> Result<()> {
        check_document(ids, self.header.vocab_size)?;
        let written = match self.header.width {
            2 => ids.iter().try_for_each(|&id| self.ids.write_all(&(id as u16).to_le_bytes())),
            _ => ids.iter().try_for_each(|&id| self.ids.write_all(&id.to_le_bytes())),
        };
        let written = written.and_then(|()| self.table.write_all(&self.header.ids.to_le_bytes()));
        let written = written.and_then(|()| self.table.write_all(&bytes.to_le_bytes()));
        written.map_err(|e| Error::io(&self.temporary, e))?;
        self.header.ids += ids.len() as u64;
        self.header.documents += 1;
        self.header.bytes += bytes;
        Ok(())
    }

    /// Writes table and header and gives the file its name.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(mut self) -> Result<Header> {
        self.complete().map_err(|e| Error::io(&self.temporary, e))?;
        std::fs::rename(&self.temporary, &self.path).map_err(|e| Error::io(&self.path, e))?;
        Ok(self.header.clone())
    }

    fn complete(&mut self) -> std::io::Result<()> {
        let end = self.header.ids as usize * self.header.width;
        self.ids.write_all(&[0; 8][..end.next_multiple_of(8) - end])?;
        self.table.flush()?;
        let table = self.table.get_mut();
        table.seek(SeekFrom::Start(0))?;
        std::io::copy(table, &mut self.ids)?;
        let mut line = serde_json::to_vec(&self.header)?;
        if line.len() >= HEADER_BYTES {
            return Err(std::io::Error::other("the shard's header is longer than its place"));
        }
        line.resize(HEADER_BYTES - 1, b' ');
        line.push(b'\n');
        self.ids.seek(SeekFrom::Start(0))?;
        self.ids.write_all(&line)?;
        self.ids.flush()?;
        self.ids.get_ref().sync_all()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // After `finish` there is none left; after an error it is of no use.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

/// Bytes that an id takes.
fn width(vocab_size: usize) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

fn check_document(ids: &[u32], vocab_size: usize) -> Result<()> {
    if ids.is_empty() {
        return Err(Error::value("document", "at least one id", "none"));
    }
    match ids.iter().find(|&&id| id as usize >= vocab_size) {
        Some(id) => Err(Error::value("id", format!("an id below {vocab_size}"), id.to_string())),
        None => Ok(()),
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(format!(".{ending}"));
    name.into()
}

/// An open shard. Everything it says has been checked against everything else, so reading it can't fail.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    header: Header,
    store: Store,
}

/// Where the ids are.
#[derive(Debug)]
enum Store {
    Map(Mmap),
    Memory { ids: Vec<u32>, table: Vec<(u64, u64)> },
}

impl Shard {
    /// Maps and checks a shard: header, lengths, borders, and that every id is in the vocabulary (one read of the file).
    ///
    /// # Errors
    /// Each way in which it can be damaged, naming file, key, expected, found.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let map = map_file(path)?;
        let header = read_header(path, &map)?;
        let shard = Self { path: path.into(), header, store: Store::Map(map) };
        shard.check_documents()?;
        shard.check_ids()?;
        Ok(shard)
    }

    /// A shard of a few documents (ids and UTF-8 bytes of each) that is never written; `name` stands for its path.
    ///
    /// # Errors
    /// A document without ids, or an id beyond the vocabulary.
    pub fn in_memory(name: &str, vocab_size: usize, documents: impl Iterator<Item = (Vec<u32>, u64)>) -> Result<Self> {
        let (mut all, mut table) = (Vec::new(), Vec::new());
        for (ids, bytes) in documents {
            check_document(&ids, vocab_size)?;
            table.push((all.len() as u64, bytes));
            all.extend_from_slice(&ids);
        }
        let mut header = Header::new(vocab_size, "");
        header.ids = all.len() as u64;
        header.documents = table.len() as u64;
        header.bytes = table.iter().map(|(_, bytes)| bytes).sum();
        Ok(Self { path: name.into(), header, store: Store::Memory { ids: all, table } })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its first line.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.header.ids as usize
    }

    /// True when it has no ids.
    pub fn is_empty(&self) -> bool {
        self.header.ids == 0
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.header.documents as usize
    }

    /// Where a document lies, in ids.
    pub fn document(&self, index: usize) -> Range<usize> {
        let end = if index + 1 == self.documents() { self.len() } else { self.entry(index + 1).0 as usize };
        self.entry(index).0 as usize..end
    }

    /// UTF-8 bytes of a document.
    pub fn document_bytes(&self, index: usize) -> u64 {
        self.entry(index).1
    }

    /// Appends the ids of a range (in ids, within the shard).
    pub fn read(&self, range: Range<usize>, into: &mut Vec<u32>) {
        let width = self.header.width;
        let bytes = match &self.store {
            Store::Map(map) => &map[HEADER_BYTES + range.start * width..HEADER_BYTES + range.end * width],
            Store::Memory { ids, .. } => return into.extend_from_slice(&ids[range]),
        };
        match width {
            2 => into.extend(bytes.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]])))),
            _ => into.extend(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        }
    }

    /// Tells this text, as this tokenizer cuts it, from every other one: SHA-256 of the hashes of its file's parts (one read of the file).
    pub fn digest(&self) -> String {
        let whole: Cow<[u8]> = match &self.store {
            Store::Map(map) => Cow::Borrowed(map),
            Store::Memory { ids, table } => {
                let table = table.iter().flat_map(|&(start, bytes)| [start, bytes]);
                Cow::Owned(ids.iter().map(|&id| u64::from(id)).chain(table).flat_map(u64::to_le_bytes).collect())
            }
        };
        let parts: Vec<_> = whole.par_chunks(PART).map(Sha256::digest).collect();
        Sha256::digest(parts.concat()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Start and bytes of a document.
    fn entry(&self, index: usize) -> (u64, u64) {
        match &self.store {
            Store::Map(map) => {
                let table = HEADER_BYTES + (self.len() * self.header.width).next_multiple_of(8);
                let entry: &[u64] = bytemuck::cast_slice(&map[table + 16 * index..table + 16 * (index + 1)]);
                (entry[0], entry[1])
            }
            Store::Memory { table, .. } => table[index],
        }
    }

    fn check_documents(&self) -> Result<()> {
        let refused =
            |key: String, expected: String, found: u64| Err(Error::key(&self.path, key, expected, found.to_string()));
        let mut bytes = 0u64;
        let mut last = None;
        for index in 0..self.documents() {
            let (start, length) = self.entry(index);
            let rises = last.map_or(start == 0, |last| start > last);
            if !rises {
                let expected = last.map_or("a start at 0".to_string(), |last| format!("a start after {last}"));
                return refused(format!("document {index}"), expected, start);
            }
            if start >= self.header.ids {
                return refused(format!("document {index}"), format!("a start before {}", self.header.ids), start);
            }
            bytes = bytes.saturating_add(length);
            last = Some(start);
        }
        if bytes != self.header.bytes {
            return refused("bytes".into(), format!("the sum over documents, {bytes}"), self.header.bytes);
        }
        if self.header.documents == 0 && self.header.ids > 0 {
            return refused("documents".into(), "at least one for its ids".into(), 0);
        }
        Ok(())
    }

    fn check_ids(&self) -> Result<()> {
        let width = self.header.width;
        let Store::Map(map) = &self.store else { return Ok(()) };
        let bytes = &map[HEADER_BYTES..HEADER_BYTES + self.len() * width];
        let limit = self.header.vocab_size;
        let largest = match width {
            2 => bytemuck::cast_slice::<u8, u16>(bytes).par_iter().copied().max().map(u32::from),
            _ => bytemuck::cast_slice::<u8, u32>(bytes).par_iter().copied().max(),
        };
        match largest.filter(|&id| id as usize >= limit) {
            Some(id) => Err(Error::key(&self.path, "ids", format!("ids below vocab_size {limit}"), id.to_string())),
            None => Ok(()),
        }
    }
}

fn read_header(path: &Path, map: &[u8]) -> Result<Header> {
    let expected = "a token shard (a JSON line of 512 bytes, then ids)";
    let Some(line) = map.get(..HEADER_BYTES) else {
        return Err(Error::file(path, expected, format!("a file of {} bytes", map.len())));
    };
    if !line.starts_with(b"{") || line.last() != Some(&b'\n') {
        return Err(Error::file(path, expected, "another beginning"));
    }
    let header: Header =
        serde_json::from_slice(line).map_err(|e| Error::file(path, expected, format!("a broken header ({e})")))?;
    if header.format != FORMAT {
        return Err(Error::key(path, "format", format!("`{FORMAT}`"), format!("`{}`", header.format)));
    }
    if header.version != VERSION {
        return Err(Error::key(path, "version", VERSION.to_string(), header.version.to_string()));
    }
    let width = width(header.vocab_size);
    if header.width != width {
        let expected = format!("{width} for a vocabulary of {}", header.vocab_size);
        return Err(Error::key(path, "width", expected, header.width.to_string()));
    }
    if header.length() != Some(map.len() as u64) {
        let expected = match header.length() {
            Some(length) => format!("{length} bytes for {} ids and {} documents", header.ids, header.documents),
            None => "numbers of ids and documents that a file can hold".into(),
        };
        return Err(Error::key(path, "length", expected, format!("{} bytes", map.len())));
    }
    Ok(header)
}
