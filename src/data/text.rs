//! Documents out of files: `.txt` (a whole file is one document, or it is cut at a separator) and `.jsonl` (one object a
//! line), plain, gzip or zstd by content. Documents come one at a time: memory holds the current one and no more. It knows
//! neither tokenizers nor shards.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;
use serde_json::Value;

use crate::{Error, Result};

/// How a file is cut into documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Lines,
}

const TEXT_ENDINGS: [&str; 3] = ["txt", "text", "md"];
const LINES_ENDINGS: [&str; 2] = ["jsonl", "ndjson"];
const EXPECTED_NAME: &str = "a name that ends in .txt, .text, .md, .jsonl or .ndjson (then perhaps .gz, .zst)";

const THERE_BEFORE: &str = "is a folder that was read already";

/// The form that a name promises; a compression ending is looked through.
fn form(path: &Path) -> Option<Form> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    let ending = name.rsplit_once('.')?.1;
    if TEXT_ENDINGS.contains(&ending) {
        Some(Form::Text)
    } else {
        LINES_ENDINGS.contains(&ending).then_some(Form::Lines)
    }
}

/// A list of text files and how to cut them.
#[derive(Clone, Debug)]
pub struct Texts {
    files: Vec<(PathBuf, Form)>,
    ignored: Vec<(PathBuf, &'static str)>,
    /// Folders seen, links followed: each is read once.
    seen: BTreeSet<PathBuf>,
    field: String,
    separator: Option<String>,
}

impl Texts {
    /// Files as given, folders replaced by the text files in them (recursively, by name in order; each folder once, however many links
    /// lead to it, and none of the names in it that begin with a dot).
    /// `field` is the key of a `.jsonl` object that holds the text; `separator` cuts `.txt` files into documents
    /// (`"\n\n"`, `"<|endoftext|>"`), without it each file is one document.
    ///
    /// # Errors
    /// A path that is missing or has another ending, a folder without text files, an empty list or separator.
    pub fn new(paths: &[PathBuf], field: &str, separator: Option<&str>) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::value("texts", "at least one file or folder", "none"));
        }
        if separator == Some("") {
            return Err(Error::value("separator", "at least one character", "an empty text"));
        }
        let (field, separator) = (field.to_string(), separator.map(str::to_string));
        let (files, ignored, seen) = (Vec::new(), Vec::new(), BTreeSet::new());
        let mut texts = Self { files, ignored, seen, field, separator };
        for path in paths {
            let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
            if meta.is_dir() {
                let before = texts.files.len();
                texts.walk(path)?;
                let there_before = texts.ignored.last().is_some_and(|(last, why)| last == path && *why == THERE_BEFORE);
                if texts.files.len() == before && !there_before {
                    return Err(Error::file(path, "a folder with text files in it", "none"));
                }
            } else {
                let form = form(path).ok_or_else(|| Error::file(path, EXPECTED_NAME, "another name"))?;
                texts.files.push((path.clone(), form));
            }
        }
        Ok(texts)
    }

    fn walk(&mut self, dir: &Path) -> Result<()> {
        if !self.seen.insert(dir.canonicalize().map_err(|e| Error::io(dir, e))?) {
            self.ignored.push((dir.into(), THERE_BEFORE));
            return Ok(());
        }
        let entries: std::io::Result<Vec<_>> =
            std::fs::read_dir(dir).and_then(|dir| dir.map(|entry| entry.map(|e| e.path())).collect());
        let mut entries = entries.map_err(|e| Error::io(dir, e))?;
        entries.sort();
        for path in entries {
            let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if hidden {
                self.ignored.push((path, "is hidden"));
            } else if path.is_dir() {
                self.walk(&path)?;
            } else if let Some(form) = form(&path) {
                self.files.push((path, form));
            } else {
                self.ignored.push((path, "is no .txt, .text, .md, .jsonl or .ndjson file"));
            }
        }
        Ok(())
    }

    /// The files to be read, in order.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|(path, _)| path.as_path())
    }

    /// What of the folders given is left out, and why: it is no text by its name, it is hidden, it is a folder that was there before.
    /// A caller says so.
    pub fn ignored(&self) -> &[(PathBuf, &'static str)] {
        &self.ignored
    }

    /// True where a file is cut at the separator.
    pub fn has_plain(&self) -> bool {
        self.files.iter().any(|(_, form)| *form == Form::Text)
    }

    /// True where a file has lines with a field.
    pub fn has_lines(&self) -> bool {
        self.files.iter().any(|(_, form)| *form == Form::Lines)
    }

    /// All documents of all files, in order. Documents that hold nothing but white space come too: whoever leaves them
    /// out counts them.
    pub fn documents(&self) -> Documents<'_> {
        Documents { texts: self, next: 0, open: None }
    }
}

/// The documents of [`Texts`], one at a time. After an error there are no more.
pub struct Documents<'a> {
    texts: &'a Texts,
    next: usize,
    open: Option<Cutter>,
}

impl Iterator for Documents<'_> {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(cutter) = &mut self.open {
                match cutter.next_document().transpose() {
                    Some(Ok(text)) => return Some(Ok(text)),
                    Some(Err(e)) => {
                        self.next = self.texts.files.len();
                        self.open = None;
                        return Some(Err(e));
                    }
                    None => self.open = None,
                }
            }
            let (path, form) = self.texts.files.get(self.next)?;
            self.next += 1;
            let cut = match form {
                Form::Text => Cut::At(self.texts.separator.clone()),
                Form::Lines => Cut::Field(self.texts.field.clone()),
            };
            match Cutter::open(path, cut) {
                Ok(cutter) => self.open = Some(cutter),
                Err(e) => {
                    self.next = self.texts.files.len();
                    return Some(Err(e));
                }
            }
        }
    }
}

enum Cut {
    /// Plain text, cut at the separator or not at all.
    At(Option<String>),
    /// The field of one JSON object a line.
    Field(String),
}

/// One open file.
struct Cutter {
    path: PathBuf,
    input: Box<dyn BufRead>,
    cut: Cut,
    /// Bytes read but not yet handed out.
    buffer: Vec<u8>,
    /// Where `buffer` begins in the (unpacked) file.
    offset: u64,
    /// Lines read so far.
    line: u64,
    done: bool,
}

/// Opens a file and unpacks it when its first bytes say gzip or zstd.
fn unpacked(path: &Path) -> std::io::Result<Box<dyn BufRead>> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let start = file.fill_buf()?;
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(BufReader::new(MultiGzDecoder::new(file))))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(file)?)))
    } else {
        Ok(Box::new(file))
    }
}

/// What reading failed with: the operating system, or what unpacks.
fn failed(path: &Path, error: std::io::Error) -> Error {
    match error.raw_os_error() {
        Some(_) => Error::io(path, error),
        None => Error::file(path, "whole gzip or zstd data", format!("what can't be unpacked ({error})")),
    }
}

impl Cutter {
    fn open(path: &Path, cut: Cut) -> Result<Self> {
        let mut input = unpacked(path).map_err(|e| failed(path, e))?;
        // A byte-order mark says that the text is UTF-8, and is no part of it.
        let mark = input.fill_buf().map_err(|e| failed(path, e))?.starts_with(b"\xef\xbb\xbf");
        let offset = if mark { 3 } else { 0 };
        input.consume(offset);
        let offset = offset as u64;
        Ok(Self { path: path.to_path_buf(), input, cut, buffer: Vec::new(), offset, line: 0, done: false })
    }

    fn next_document(&mut self) -> Result<Option<String>> {
        match &self.cut {
            Cut::At(separator) => {
                let separator = separator.clone();
                self.next_piece(separator.as_deref())
            }
            Cut::Field(field) => {
                let field = field.clone();
                self.next_line(&field)
            }
        }
    }

    /// Text up to the next separator, or to the end.
    fn next_piece(&mut self, separator: Option<&str>) -> Result<Option<String>> {
        let mut searched = 0;
        loop {
            if let Some(separator) = separator.map(str::as_bytes) {
                let found = self.buffer[searched..].windows(separator.len()).position(|w| w == separator);
                if let Some(at) = found.map(|at| at + searched) {
                    let rest = self.buffer.split_off(at + separator.len());
                    let mut piece = std::mem::replace(&mut self.buffer, rest);
                    piece.truncate(at);
                    return self.checked(piece, separator.len() as u64).map(Some);
                }
                searched = (self.buffer.len() + 1).saturating_sub(separator.len());
            }
            if self.done {
                let rest = std::mem::take(&mut self.buffer);
                return if rest.is_empty() { Ok(None) } else { self.checked(rest, 0).map(Some) };
            }
            let before = self.buffer.len();
            let more = self.input.by_ref().take(1 << 16).read_to_end(&mut self.buffer);
            more.map_err(|e| failed(&self.path, e))?;
            self.done = self.buffer.len() == before;
        }
    }

    /// The text field of the next line that is not blank.
    fn next_line(&mut self, field: &str) -> Result<Option<String>> {
        loop {
            let mut line = Vec::new();
            if self.input.read_until(b'\n', &mut line).map_err(|e| failed(&self.path, e))? == 0 {
                return Ok(None);
            }
            self.line += 1;
            let line = self.checked(line, 0)?;
            if line.trim().is_empty() {
                continue;
            }
            let at = format!("line {}", self.line);
            let value: Value = serde_json::from_str(&line)
                .map_err(|e| Error::key(&self.path, &at, "one JSON object", format!("broken JSON ({e})")))?;
            let Value::Object(mut object) = value else {
                return Err(Error::key(&self.path, &at, "one JSON object", "JSON of another kind"));
            };
            return match object.remove(field) {
                Some(Value::String(text)) => Ok(Some(text)),
                Some(_) => Err(Error::key(&self.path, &at, format!("a string in field `{field}`"), "another type")),
                None => {
                    let keys: Vec<&str> = object.keys().map(String::as_str).collect();
                    let found = format!("only [{}]", keys.join(", "));
                    Err(Error::key(&self.path, &at, format!("a field `{field}`"), found))
                }
            };
        }
    }

    /// Bytes as text; counts them, and `more` that are left out, as read.
    fn checked(&mut self, bytes: Vec<u8>, more: u64) -> Result<String> {
        let start = self.offset;
        self.offset += bytes.len() as u64 + more;
        String::from_utf8(bytes).map_err(|e| {
            let at = start + e.utf8_error().valid_up_to() as u64;
            Error::file(&self.path, "UTF-8 text", format!("a byte that is not UTF-8 at offset {at}"))
        })
    }
}
