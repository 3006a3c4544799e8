//! Text <-> ids. A tokenizer is either plain bytes or a Hugging Face `tokenizer.json`; both save to and load from one
//! file of that name, and both know the four special ids a block diffusion model needs (bos, eos, mask, pad). It knows
//! no model: whether an embedding table has more rows than the vocabulary is the model's affair.

mod bpe;
pub mod chat;
pub mod gguf;
mod gguf_write;
mod names;
mod parts;
mod source;
mod spelling;
mod train;

use std::path::Path;
use std::sync::OnceLock;

use rayon::prelude::*;
use serde_json::Value;

use crate::format::{Bytes, write_atomic};
use crate::{Error, Result};
use bpe::Inner;
use names::Names;
use parts::Parts;
use source::Source;
use spelling::{Spelling, cuts_at_words, pieces};

pub use gguf_write::Keys;
pub use train::{MIN_BPE_VOCAB, train_bpe};

/// Ids that are no text. `bos` may equal `eos` (GPT-2 has one `<|endoftext|>` for both).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// Begins a row.
    pub bos: Option<u32>,
    /// Ends a document.
    pub eos: Option<u32>,
    /// Stands for a token not yet known.
    pub mask: u32,
    /// Fills a row that is too short.
    pub pad: Option<u32>,
}

impl Special {
    /// True for each of the four ids.
    pub fn contains(&self, id: u32) -> bool {
        id == self.mask || [self.bos, self.eos, self.pad].contains(&Some(id))
    }
}

/// The usual names of the special tokens, most specific first: the first name that a vocabulary has is taken.
const BOS_NAMES: &[&str] =
    &["<bos>", "[BOS]", "<s>", "<|begin_of_text|>", "<|startoftext|>", "<|beginoftext|>", "[CLS]", "<|endoftext|>"];
const EOS_NAMES: &[&str] = &["<eos>", "[EOS]", "</s>", "<|end_of_text|>", "<|endoftext|>", "[SEP]"];
const MASK_NAMES: &[&str] = &["<mask>", "[MASK]", "<|mask|>", "<|mdm_mask|>", "<|MASK|>", "|<MASK>|"];
const PAD_NAMES: &[&str] = &["<pad>", "[PAD]", "<|pad|>", "<|padding|>"];

/// The byte tokenizer's ids: 0..=255 are the bytes, then these.
const BYTES_SPECIAL: Special = Special { bos: Some(256), eos: Some(257), mask: 258, pad: Some(259) };

/// The byte tokenizer's file: a small JSON object of its own kind, told apart from Hugging Face's by `type` at the root.
const BYTES_FILE: &str =
    "{\"type\":\"bytes\",\"version\":1,\"special\":{\"bos\":256,\"eos\":257,\"mask\":258,\"pad\":259}}\n";

const EXPECTED: &str = "a tokenizer (JSON, of Hugging Face or of type `bytes`)";

/// The tokenizers library takes about a hundred bytes of memory for each byte of a text, so a long document (a whole book,
/// a corpus in one file) is encoded in pieces of this many bytes where the tokenizer's way to cut words allows it.
const PIECE: usize = 1 << 18;

/// Text to ids and back. Cheap to share by reference between threads, dear to clone.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    kind: Kind,
    special: Special,
    /// Number of ids that the file itself defines.
    size: usize,
    /// What is hashed and saved.
    source: Source,
}

#[derive(Clone, Debug)]
enum Kind {
    Bytes,
    Model {
        inner: Box<Inner>,
        spelling: Spelling,
        /// Longest text that is encoded at once.
        piece: usize,
        /// The vocabulary lacks some bytes and has no unknown token: the library would drop them in silence.
        partial: bool,
        /// Of its special tokens, once somebody looks for them.
        names: OnceLock<Names>,
    },
}

impl Tokenizer {
    /// One id per byte, then bos, eos, mask, pad: 260 ids.
    pub fn bytes() -> Self {
        let source = Source::owned(BYTES_FILE.as_bytes());
        Self { kind: Kind::Bytes, special: BYTES_SPECIAL, size: 260, source }
    }

    /// Loads a `tokenizer.json`, or the one inside a folder.
    ///
    /// # Errors
    /// One sentence for a file that is missing, empty, not UTF-8, not JSON, or JSON of another kind.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let path = if path.is_dir() { path.join("tokenizer.json") } else { path.to_path_buf() };
        let bytes = Bytes::open(&path, EXPECTED)?;
        let bytes = std::sync::Arc::new(bytes);
        let all = 0..bytes.as_slice().len();
        let tokenizer = Self::parse(&path, bytes.as_slice(), Source::shared(&bytes, all.clone()))?;
        bytes.release(all);
        Ok(tokenizer)
    }

    /// Loads the content of a `tokenizer.json` that is not a file of its own (the model inside the binary).
    ///
    /// # Errors
    /// As [`Tokenizer::load`]; the messages call the file `tokenizer.json`.
    pub fn from_bytes(file: &[u8]) -> Result<Self> {
        Self::parse(Path::new("tokenizer.json"), file, Source::owned(file))
    }

    fn parse(path: &Path, file: &[u8], source: Source) -> Result<Self> {
        if file.is_empty() {
            return Err(Error::file(path, EXPECTED, "an empty file"));
        }
        let text = std::str::from_utf8(file).map_err(|e| {
            Error::file(path, EXPECTED, format!("bytes that are not UTF-8 at offset {}", e.valid_up_to()))
        })?;
        let parts = Parts::read(text).map_err(|e| Error::file(path, EXPECTED, format!("broken JSON ({e})")))?;
        let json = &parts.skeleton;
        match json.get("type").and_then(Value::as_str) {
            Some("bytes") => {
                let ours: Value = serde_json::from_str(BYTES_FILE).unwrap_or_default();
                if *json != ours {
                    return Err(Error::file(path, format!("the byte tokenizer {}", ours), json.to_string()));
                }
                return Ok(Self::bytes());
            }
            Some(other) => return Err(Error::key(path, "type", "`bytes` or no such key", format!("`{other}`"))),
            None => {}
        }
        if !json.get("model").is_some_and(Value::is_object) {
            return Err(Error::key(path, "model", "an object, as in a Hugging Face tokenizer.json", "none"));
        }
        let (inner, json) = parts.assemble(text).map_err(|why| refused(path, &why))?;
        Self::of(path, inner, &json, source)
    }

    /// From the library's tokenizer and the file's JSON, vocabulary and merges left out.
    fn of(path: &Path, inner: Inner, json: &Value, source: Source) -> Result<Self> {
        let added = inner.get_added_tokens_decoder();
        let Some(last) = inner.get_model().last().max(added.into_keys().max()) else {
            return Err(Error::key(path, "model.vocab", "at least one token", "none"));
        };
        let size = last as usize + 1;
        let find = |names: &[&str]| names.iter().find_map(|name| inner.token_to_id(name));
        let mask = find(MASK_NAMES).unwrap_or(size as u32);
        let special = Special { bos: find(BOS_NAMES), eos: find(EOS_NAMES), mask, pad: find(PAD_NAMES) };
        let piece = if cuts_at_words(json) { PIECE } else { usize::MAX };
        let spelling = Spelling::of(json);
        let partial = json["model"]["unk_token"].is_null() && !spelling.is_complete(&inner);
        let kind = Kind::Model { spelling, inner: Box::new(inner), piece, partial, names: OnceLock::new() };
        Ok(Self { kind, special, size, source })
    }

    /// The same tokenizer with special ids given explicitly (a model's configuration knows better than the names).
    /// The mask may be one beyond the file's ids, the others must be among them.
    ///
    /// # Errors
    /// An id outside that range.
    pub fn with_special(mut self, special: Special) -> Result<Self> {
        let check = |name: &str, id: Option<u32>, limit: usize| match id {
            Some(id) if id as usize >= limit => {
                Err(Error::value(format!("{name} id"), format!("an id below {limit}"), id.to_string()))
            }
            _ => Ok(()),
        };
        check("bos", special.bos, self.size)?;
        check("eos", special.eos, self.size)?;
        check("pad", special.pad, self.size)?;
        check("mask", Some(special.mask), self.size + 1)?;
        self.special = special;
        Ok(self)
    }

    /// The special ids.
    pub fn special(&self) -> Special {
        self.special
    }

    /// Number of ids, the mask included even where the file has none (then it is the last one).
    pub fn vocab_size(&self) -> usize {
        self.size.max(self.special.mask as usize + 1)
    }

    /// The ids of a text. No special ids are added, and names of special tokens in the text are plain text.
    ///
    /// # Errors
    /// The tokenizer's own (a word-level vocabulary without an unknown token, for example).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        match &self.kind {
            Kind::Bytes => Ok(text.bytes().map(u32::from).collect()),
            Kind::Model { inner, spelling, piece, partial, .. } => {
                if *partial && let Some(c) = text.chars().find(|&c| !spelling.has(c, inner)) {
                    return Err(Error::value("text", "characters that the vocabulary can write", format!("{c:?}")));
                }
                let encode = |part: &str| match inner.encode_fast(part, false) {
                    Ok(encoding) => Ok(encoding.get_ids().to_vec()),
                    Err(e) => Err(Error::value("text", "a text the tokenizer knows", e.to_string())),
                };
                if text.len() <= *piece {
                    return encode(text);
                }
                let parts: Vec<&str> = pieces(text, *piece).collect();
                let ids: Vec<Vec<u32>> = parts.into_par_iter().map(encode).collect::<Result<_>>()?;
                Ok(ids.concat())
            }
        }
    }

    /// The text of ids, special ids left out. Bytes that are no UTF-8 become U+FFFD, as everywhere in the field; a
    /// view that must not lose any joins [`Tokenizer::token_bytes`].
    ///
    /// # Errors
    /// An id outside the vocabulary, or the tokenizer's own.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        if let Some(id) = ids.iter().find(|&&id| id as usize >= self.vocab_size()) {
            return Err(Error::value("id", format!("an id below {}", self.vocab_size()), id.to_string()));
        }
        let text: Vec<u32> = ids.iter().copied().filter(|&id| !self.special.contains(id)).collect();
        match &self.kind {
            Kind::Bytes => {
                let bytes: Vec<u8> = text.iter().filter_map(|&id| u8::try_from(id).ok()).collect();
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            Kind::Model { inner, .. } => inner
                .decode(&text, true)
                .map_err(|e| Error::value("ids", "ids the tokenizer can decode", e.to_string())),
        }
    }

    /// The exact bytes that one id adds to a text: none for a special id, perhaps a part of a character otherwise.
    /// (WordPiece: a word that begins a text carries its leading space all the same.)
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        if self.special.contains(id) {
            return Vec::new();
        }
        match &self.kind {
            Kind::Bytes => u8::try_from(id).map(|byte| vec![byte]).unwrap_or_default(),
            Kind::Model { inner, spelling, .. } => {
                match inner.get_added_vocabulary().get_added_tokens_decoder().get(&id) {
                    Some(token) if token.special => Vec::new(),
                    Some(token) => token.content.clone().into_bytes(),
                    None => inner.id_to_token(id).map(|token| spelling.bytes(&token)).unwrap_or_default(),
                }
            }
        }
    }

    /// The name of an id in the file (`<bos>`, `Ġthe`, `##ing`); for text, see [`Tokenizer::token_bytes`].
    pub fn name(&self, id: u32) -> Option<String> {
        match &self.kind {
            Kind::Bytes => None,
            Kind::Model { inner, .. } => inner.id_to_token(id),
        }
    }

    /// SHA-256 of the file, 64 hexadecimal digits: two tokenizers with one hash give the same ids.
    pub fn hash(&self) -> &str {
        self.source.hash(&self.kind)
    }

    /// The file as [`Tokenizer::save`] writes it.
    pub fn file(&self) -> &[u8] {
        self.source.bytes(&self.kind)
    }

    /// Writes `tokenizer.json` into a folder that exists: byte for byte the file this was loaded from.
    ///
    /// # Errors
    /// The folder can't be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<()> {
        write_atomic(&dir.as_ref().join("tokenizer.json"), |out| out.write_all(self.file()))
    }
}

fn refused(path: &Path, why: &str) -> Error {
    Error::file(path, EXPECTED, format!("what the tokenizers library refuses ({why})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_their_own_ids() {
        let tokenizer = Tokenizer::bytes();
        assert_eq!(tokenizer.encode("aé").unwrap(), [97, 195, 169]);
        assert_eq!(tokenizer.decode(&[256, 97, 195, 169, 258, 257]).unwrap(), "aé");
        assert_eq!(tokenizer.vocab_size(), 260);
        assert_eq!(tokenizer.token_bytes(195), [195]);
        assert!(tokenizer.token_bytes(258).is_empty());
        assert!(tokenizer.decode(&[260]).is_err());
    }

    #[test]
    fn the_byte_file_is_recognised_and_nothing_like_it() {
        let tokenizer = Tokenizer::from_bytes(Tokenizer::bytes().file()).unwrap();
        assert_eq!(tokenizer.hash(), Tokenizer::bytes().hash());
        let other = BYTES_FILE.replace("256", "255");
        assert!(Tokenizer::from_bytes(other.as_bytes()).is_err());
    }

    #[test]
    fn a_byte_that_the_vocabulary_lacks_is_not_dropped_in_silence() {
        let file = br#"{"version":"1.0","added_tokens":[],"normalizer":null,"post_processor":null,
            "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
            "decoder":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
            "model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}}"#;
        let tokenizer = Tokenizer::from_bytes(file).unwrap();
        assert_eq!(tokenizer.encode("abba").unwrap(), [0, 1, 1, 0]);
        assert!(tokenizer.encode("abc").unwrap_err().to_string().ends_with("found 'c'"));
    }

    #[test]
    fn a_text_in_pieces_has_the_same_ids() {
        let text = "It's  one of the things\n\nthat I don't   like: a b c, d e 12 3 four\n five's six \u{e9} \u{e9}t\u{e9} x's ".repeat(3);
        let mut tokenizer = train_bpe(std::iter::once(text.as_str()), 300).unwrap();
        let whole = tokenizer.encode(&text).unwrap();
        assert!(matches!(tokenizer.kind, Kind::Model { piece: PIECE, .. }));
        for size in 1..40 {
            if let Kind::Model { piece, .. } = &mut tokenizer.kind {
                *piece = size;
            }
            assert_eq!(tokenizer.encode(&text).unwrap(), whole);
        }
    }

    #[test]
    fn a_tokenizer_without_a_mask_gets_one_beyond() {
        let file = br#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[
            {"id":2,"content":"<|endoftext|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],
            "normalizer":null,"pre_tokenizer":null,"post_processor":null,"decoder":null,
            "model":{"type":"WordLevel","vocab":{"a":0,"b":1,"<|endoftext|>":2},"unk_token":"a"}}"#;
        let tokenizer = Tokenizer::from_bytes(file).unwrap();
        assert_eq!(tokenizer.special(), Special { bos: Some(2), eos: Some(2), mask: 3, pad: None });
        assert_eq!(tokenizer.vocab_size(), 4);
        let moved = Special { bos: Some(0), eos: Some(1), mask: 2, pad: None };
        assert_eq!(tokenizer.clone().with_special(moved).unwrap().vocab_size(), 3);
        assert!(tokenizer.with_special(Special { mask: 4, ..moved }).is_err());
    }
}
