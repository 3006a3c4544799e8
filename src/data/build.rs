//! From documents to a data folder: `train.bin`, `valid.bin`, `test.bin` (those with a share), `tokenizer.json` and
//! `summary.json`. Documents stream through; the folder appears under its name only when it is complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::shard::{Shard, Writer};
use super::split::{Shares, Split};
use crate::tokenizer::{Tokenizer, train_bpe};
use crate::{Error, Result};

/// Text that is encoded side by side: at least this much, in bytes, unless the documents end.
const TEXT_AT_ONCE: usize = 4 << 20;

/// What a data folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Documents in all splits.
    pub documents: u64,
    /// Ids in all splits, special ids not counted.
    pub tokens: u64,
    /// UTF-8 bytes of all documents, as encoded.
    pub bytes: u64,
    /// Documents of nothing but white space, left out.
    pub empty: u64,
    /// Ids of the tokenizer, the mask included.
    pub vocab_size: usize,
    /// By name of the split.
    pub splits: BTreeMap<String, Counts>,
}

/// The size of one split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents.
    pub documents: u64,
    /// Ids.
    pub tokens: u64,
    /// UTF-8 bytes.
    pub bytes: u64,
}

/// Refuses a folder that exists and is not empty.
///
/// # Errors
/// That, or a path that can't be looked at or is a file.
pub fn check_out(out: &Path) -> Result<()> {
    if out.is_symlink() {
        return Err(Error::file(out, "a new or empty folder", "a symbolic link"));
    }
    match std::fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(Error::file(out, "a new or empty folder", "one with files in it")),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(Error::io(out, e)),
    }
}

/// Encodes documents into a new folder `out`. `progress` hears the UTF-8 bytes encoded so far.
///
/// # Errors
/// An `out` that is not empty, a document that can't be read or that holds the mask id, no document at all, or a split with a
/// share and no document.
/// Then nothing is left behind.
pub fn build(
    documents: impl Iterator<Item = Result<String>>,
    tokenizer: &Tokenizer,
    shares: (Shares, u64),
    out: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Summary> {
    check_out(out)?;
    let temporary = Temporary::beside(out)?;
    let mut builder = Builder { tokenizer, shares, writers: Vec::new(), empty: 0, bytes: 0 };
    for split in Split::ALL.into_iter().filter(|&split| shares.0.of(split) > 0.0) {
        let path = temporary.path.join(split.name()).with_extension("bin");
        builder.writers.push((split, Writer::create(&path, tokenizer.vocab_size(), tokenizer.hash())?));
    }
    let (mut waiting, mut size) = (Vec::new(), 0);
    for document in documents {
        let document = document?;
        if document.trim().is_empty() {
            builder.empty += 1;
            continue;
        }
        size += document.len();
        waiting.push(document);
        if size >= TEXT_AT_ONCE {
            builder.push(&std::mem::take(&mut waiting))?;
            size = 0;
            progress(builder.bytes);
        }
    }
    builder.push(&waiting)?;
    progress(builder.bytes);
    let summary = builder.finish()?;
    tokenizer.save(&temporary.path)?;
    let path = temporary.path.join("summary.json");
    let text = serde_json::to_string_pretty(&summary).map_err(|e| Error::Run(e.to_string()))?;
    std::fs::write(&path, text + "\n").map_err(|e| Error::io(&path, e))?;
    temporary.rename(out)?;
    Ok(summary)
}

/// Text that a vocabulary is trained on, in bytes: more of the same text hardly changes the merges.
pub const TRAINED_ON: u64 = 32 << 20;

/// Trains a byte-level BPE on the training split's documents, or on a fair sample of about [`TRAINED_ON`] bytes of them
/// (chosen by their text, so that the vocabulary does not depend on their order). `documents` opens the texts anew: they
/// are read twice, and never held.
///
/// # Errors
/// A document that can't be read, or what [`train_bpe`] refuses.
pub fn train_tokenizer<I: Iterator<Item = Result<String>>>(
    documents: impl Fn() -> I,
    shares: (Shares, u64),
    vocab_size: usize,
) -> Result<Tokenizer> {
    let mut bytes = 0;
    for document in documents() {
        bytes += document?.len() as u64;
    }
    let share = (TRAINED_ON as f64 / bytes as f64).min(1.0);
    let sampled = Shares::parse(&format!("{share},{},0", 1.0 - share))?;
    let mut failed = None;
    let texts = documents().map_while(|document| document.map_err(|e| failed = Some(e)).ok()).filter(|text| {
        let trains = shares.0.of(Split::Train) == 0.0 || shares.0.split(shares.1, text) == Split::Train;
        trains && sampled.split(!shares.1, text) == Split::Train
    });
    let tokenizer = train_bpe(texts, vocab_size);
    failed.map_or(tokenizer, Err)
}

struct Builder<'a> {
    tokenizer: &'a Tokenizer,
    shares: (Shares, u64),
    writers: Vec<(Split, Writer)>,
    empty: u64,
    bytes: u64,
}

impl Builder<'_> {
    fn push(&mut self, documents: &[String]) -> Result<()> {
        let encoded: Vec<_> = documents
            .par_iter()
            .map(|text| {
                Ok((self.shares.0.split(self.shares.1, text), encode(self.tokenizer, text)?, text.len() as u64))
            })
            .collect::<Result<_>>()?;
        for (split, ids, bytes) in encoded {
            if let Some((_, writer)) = self.writers.iter_mut().find(|(of, _)| *of == split) {
                writer.push(&ids, bytes)?;
            }
            self.bytes += bytes;
        }
        Ok(())
    }

    fn finish(self) -> Result<Summary> {
        let mut summary = Summary { empty: self.empty, vocab_size: self.tokenizer.vocab_size(), ..Summary::default() };
        for (split, writer) in &self.writers {
            let header = writer.header();
            let counts = Counts { documents: header.documents, tokens: header.ids, bytes: header.bytes };
            summary.documents += counts.documents;
            summary.tokens += counts.tokens;
            summary.bytes += counts.bytes;
            summary.splits.insert(split.name().into(), counts);
        }
        if summary.documents == 0 {
            return Err(Error::value("texts", "at least one document with text", "none"));
        }
        if let Some((name, _)) = summary.splits.iter().find(|(_, counts)| counts.documents == 0) {
            let expected = "a document in every split with a share (else give other shares, another seed, or a \
                            separator that cuts the text into more documents)";
            return Err(Error::value("split", expected, format!("none of {} in {name}", summary.documents)));
        }
        for (_, writer) in self.writers {
            writer.finish()?;
        }
        Ok(summary)
    }
}

/// The ids of a document, none of them the mask: as a token of a text it would pass for one that is not known yet.
fn encode(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    let (ids, mask) = (tokenizer.encode(text)?, tokenizer.special().mask);
    match ids.iter().position(|&id| id == mask) {
        None => Ok(ids),
        Some(place) => {
            let start: String = text.chars().take(40).collect();
            let found = format!("it as token {place} of the document that begins {start:?}");
            Err(Error::value("texts", format!("no document with the mask, which is id {mask}"), found))
        }
    }
}

/// A folder beside the final one, removed unless renamed, with the folders above it that were not there before.
struct Temporary {
    path: PathBuf,
    /// Folders made for it, the deepest first.
    parents: Vec<PathBuf>,
}

impl Temporary {
    fn beside(out: &Path) -> Result<Self> {
        let Some(name) = out.file_name() else {
            return Err(Error::file(out, "a path that ends in the new folder's name", "another path"));
        };
        let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let path = parent.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        let missing = parent.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists());
        let temporary = Self { parents: missing.map(Path::to_path_buf).collect(), path };
        // The name of what would be there for a moment only tells nobody anything.
        std::fs::create_dir_all(&temporary.path).map_err(|e| Error::io(out, e))?;
        Ok(temporary)
    }

    fn rename(mut self, out: &Path) -> Result<()> {
        if out.exists() {
            // Empty, or `check_out` had refused it; fails if files came in meanwhile.
            std::fs::remove_dir(out).map_err(|e| Error::io(out, e))?;
        }
        std::fs::rename(&self.path, out).map_err(|e| Error::io(out, e))?;
        self.parents.clear();
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Nothing is there after a rename; otherwise something else already went wrong and is being told.
        let _ = std::fs::remove_dir_all(&self.path);
        for parent in &self.parents {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// An open data folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    tokenizer: Arc<Tokenizer>,
}

impl Folder {
    /// Opens a folder that [`build`] wrote.
    ///
    /// # Errors
    /// A `tokenizer.json` that is missing or broken.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let tokenizer = Arc::new(Tokenizer::load(path.join("tokenizer.json"))?);
        Ok(Self { path, tokenizer })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tokenizer of its shards.
    pub fn tokenizer(&self) -> &Arc<Tokenizer> {
        &self.tokenizer
    }

    /// The splits that it has; a split without a share has no shard.
    pub fn splits(&self) -> Vec<Split> {
        Split::ALL.into_iter().filter(|&split| self.file(split).exists()).collect()
    }

    fn file(&self, split: Split) -> PathBuf {
        self.path.join(split.name()).with_extension("bin")
    }

    /// One of its shards, checked to be of its tokenizer.
    ///
    /// # Errors
    /// A shard that is missing, damaged, or made with another tokenizer.
    pub fn shard(&self, split: Split) -> Result<Shard> {
        let splits = self.splits();
        if !splits.is_empty() && !splits.contains(&split) {
            let found = splits.iter().map(|split| split.name()).collect::<Vec<_>>().join(" and ");
            return Err(Error::file(&self.path, format!("a split `{}`", split.name()), format!("only {found}")));
        }
        let shard = Shard::open(self.file(split))?;
        let (header, tokenizer) = (shard.header(), &self.tokenizer);
        if header.tokenizer != tokenizer.hash() {
            let expected = format!("{} as the hash of the tokenizer.json beside it", tokenizer.hash());
            return Err(Error::key(shard.path(), "tokenizer", expected, &header.tokenizer));
        }
        if header.vocab_size != tokenizer.vocab_size() {
            let expected = tokenizer.vocab_size().to_string();
            return Err(Error::key(shard.path(), "vocab_size", expected, header.vocab_size.to_string()));
        }
        Ok(shard)
    }
}
