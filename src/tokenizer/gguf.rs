//! A tokenizer from the metadata of a GGUF file, which holds the vocabulary, the merges or scores, and the name of a way to cut
//! words. It is written out as the `tokenizer.json` that the model was published with, as far as its ids go, and takes the common
//! path from there. It knows no tensors.

use serde_json::{Value, json};

use super::bpe::{Bpe, How, Names, Words};
use super::gguf_write::WHOLE;
use super::parts::put_together;
use super::source::Source;
use super::{Special, Tokenizer, refused};
use crate::format::gguf::Gguf;
use crate::{Error, Result};

pub(super) const MODEL: &str = "tokenizer.ggml.model";
pub(super) const PRE: &str = "tokenizer.ggml.pre";
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
pub(super) const KINDS: &str = "tokenizer.ggml.token_type";
pub(super) const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
pub(super) const ADDS_BOS: &str = "tokenizer.ggml.add_bos_token";
const SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";

/// How words are cut before merging, by the name that llama.cpp gave it.
pub(super) struct Cut {
    /// Several families have the same.
    pub names: &'static [&'static str],
    /// Each match becomes a piece of its own, one expression after the other; GPT-2's follows where `then_gpt2`.
    matches: &'static [&'static str],
    then_gpt2: bool,
    /// Unicode's composed form first, as the published tokenizer does.
    composed: bool,
    /// A piece that is a token is that token, whatever the merges say.
    pub whole_first: bool,
    /// The family's texts begin with bos, unless the file says otherwise.
    bos: bool,
}

const PLAIN: Cut = Cut { names: &[], matches: &[], then_gpt2: false, composed: false, whole_first: false, bos: false };

pub(super) const CUTS: &[Cut] = &[
    Cut {
        names: &["default"],
        matches: &[
            r"[\p{P}\$\+<=>\^~\|]+",
            r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
            r"\p{N}+",
            "[0-9][0-9][0-9]",
        ],
        ..PLAIN
    },
    Cut { names: &["gpt-2", "phi-2", "mpt", "olmo", "jais"], then_gpt2: true, ..PLAIN },
    Cut {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell"],
        matches: &[r"\p{N}"],
        then_gpt2: true,
        ..PLAIN
    },
    Cut {
        names: &["llama-bpe", "llama3", "llama-v3"],
        matches: &[concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )],
        whole_first: true,
        bos: true,
        ..PLAIN
    },
    Cut {
        names: &["qwen2", "deepseek-r1-qwen"],
        matches: &[concat!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
            r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        )],
        composed: true,
        ..PLAIN
    },
    Cut {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        matches: &[concat!(
            r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}",
            r"| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
        )],
        ..PLAIN
    },
];

impl Tokenizer {
    /// The tokenizer of a GGUF file: the `tokenizer.json` inside it where there is one, else built from its vocabulary, with the
    /// special ids that the file names.
    ///
    /// # Errors
    /// A missing or contradictory key, and a kind of tokenizer or way to cut words that we don't have, by its name.
    pub fn from_gguf(file: &Gguf) -> Result<Self> {
        let tokenizer = match file.shared_text(WHOLE)? {
            Some((bytes, part)) => {
                Self::parse(file.path(), &bytes.as_slice()[part.clone()], Source::shared(&bytes, part))?
            }
            None => {
                let (skeleton, bpe) = build(file)?;
                let inner = put_together(Words::Merged(bpe), &skeleton).map_err(|why| refused(file.path(), &why))?;
                Self::of(file.path(), inner, &skeleton.clone(), Source::made(skeleton))?
            }
        };
        let id = |name: &str, known: Option<u32>, limit: usize| {
            let key = format!("tokenizer.ggml.{name}_token_id");
            match file.count(&key)? {
                None => Ok(known),
                Some(id) if id < limit => Ok(Some(id as u32)),
                Some(id) => Err(Error::key(file.path(), key, format!("an id below {limit}"), id.to_string())),
            }
        };
        // Nothing of it is borrowed from the file.
        file.release_all();
        let (known, size) = (tokenizer.special(), tokenizer.size);
        tokenizer.with_special(Special {
            bos: id("bos", known.bos, size)?,
            eos: id("eos", known.eos, size)?,
            mask: id("mask", Some(known.mask), size + 1)?.unwrap_or(known.mask),
            pad: id("padding", known.pad, size)?,
        })
    }
}

/// True when a text begins with bos: as the file says, or else as llama.cpp does for its kind of tokenizer.
///
/// # Errors
/// As [`Tokenizer::from_gguf`] for the keys that are read.
pub fn adds_bos(file: &Gguf) -> Result<bool> {
    match file.flag(ADDS_BOS)? {
        Some(said) => Ok(said),
        None if file.text(MODEL)? == Some("llama") => Ok(true),
        None if file.text(MODEL)? == Some("gpt2") => Ok(cut(file)?.bos),
        None => Ok(false),
    }
}

/// A token's kind, as the file numbers them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal = 1,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

const ALL_KINDS: [Kind; 6] = [Kind::Normal, Kind::Unknown, Kind::Control, Kind::UserDefined, Kind::Unused, Kind::Byte];

struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    kinds: Vec<Kind>,
    names: Names,
}

impl<'a> Vocabulary<'a> {
    fn read(file: &'a Gguf) -> Result<Self> {
        let tokens = file.texts(TOKENS)?.ok_or_else(|| file.missing(TOKENS, "the list of tokens"))?;
        let mut names = Names::default();
        for (token, id) in tokens.iter().zip(0..) {
            names.add(token, id).map_err(|[expected, found]| Error::key(file.path(), TOKENS, expected, found))?;
        }
        let kind = |number: usize| {
            let kind = ALL_KINDS.into_iter().find(|kind| *kind as usize == number);
            kind.ok_or_else(|| Error::key(file.path(), KINDS, "kinds from 1 to 6", number.to_string()))
        };
        let kinds = match file.counts(KINDS)? {
            None => vec![Kind::Normal; tokens.len()],
            Some(numbers) => numbers.into_iter().map(kind).collect::<Result<_>>()?,
        };
        same_length(file, KINDS, kinds.len(), tokens.len())?;
        Ok(Self { tokens, kinds, names })
    }

    /// Tokens that are found in a text before it is cut: those with a meaning of their own, and those added by hand.
    fn added(&self) -> Vec<Value> {
        let added = |(id, kind): (usize, &Kind)| {
            let special = match kind {
                Kind::Control | Kind::Unknown => true,
                Kind::UserDefined => false,
                Kind::Normal | Kind::Unused | Kind::Byte => return None,
            };
            Some(json!({"id": id, "content": self.tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special}))
        };
        self.kinds.iter().enumerate().filter_map(added).collect()
    }
}

fn same_length(file: &Gguf, key: &str, found: usize, tokens: usize) -> Result<()> {
    if found == tokens {
        return Ok(());
    }
    Err(Error::key(file.path(), key, format!("{tokens} values, as there are tokens"), found.to_string()))
}

/// The `tokenizer.json` of a file's vocabulary: its skeleton, its vocabulary and merges.
fn build(file: &Gguf) -> Result<(Value, Bpe)> {
    let expected = "gpt2 (byte-level BPE) or llama (SentencePiece BPE)";
    match file.text(MODEL)?.ok_or_else(|| file.missing(MODEL, expected))? {
        "gpt2" => byte_level(file),
        "llama" => sentence(file),
        other => Err(Error::key(file.path(), MODEL, expected, other)),
    }
}

fn cut(file: &Gguf) -> Result<&'static Cut> {
    let names = || CUTS.iter().flat_map(|cut| cut.names).copied().collect::<Vec<_>>().join(", ");
    let pre = file.text(PRE)?.ok_or_else(|| file.missing(PRE, &format!("a way to cut words: {}", names())))?;
    let found = CUTS.iter().find(|cut| cut.names.contains(&pre));
    found.ok_or_else(|| Error::key(file.path(), PRE, format!("one of {}", names()), pre))
}

/// The normalizer and the pre-tokenizer of a way to cut words.
pub(super) fn before_merges(cut: &Cut) -> (Value, Value) {
    let split =
        |regex: &&str| json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false});
    let mut parts: Vec<Value> = cut.matches.iter().map(split).collect();
    parts.push(byte_pieces(cut.then_gpt2));
    let pre = match parts.len() {
        1 => parts.remove(0),
        _ => json!({"type": "Sequence", "pretokenizers": parts}),
    };
    let normalizer = if cut.composed { json!({"type": "NFC"}) } else { Value::Null };
    (normalizer, pre)
}

fn byte_pieces(regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": regex})
}

fn byte_level(file: &Gguf) -> Result<(Value, Bpe)> {
    let vocabulary = Vocabulary::read(file)?;
    let cut = cut(file)?;
    let merges = file.texts(MERGES)?.ok_or_else(|| file.missing(MERGES, "the list of merges"))?;
    fn pair(merge: &str) -> Option<(&str, &str)> {
        merge.split_once(' ').filter(|(_, right)| !right.contains(' '))
    }
    if let Some(merge) = merges.iter().find(|merge| pair(merge).is_none()) {
        return Err(Error::key(file.path(), MERGES, "two tokens with one space between", format!("{merge:?}")));
    }
    let (normalizer, pre) = before_merges(cut);
    let how = How { whole_first: cut.whole_first, ..How::default() };
    let skeleton = whole(vocabulary.added(), normalizer, pre, byte_pieces(true), model(&how));
    let merges = merges.iter().map(|merge| pair(merge).unwrap_or_default());
    Ok((skeleton, merged(file, vocabulary.names, merges, how)?))
}

fn merged<'m>(
    file: &Gguf,
    names: Names,
    merges: impl ExactSizeIterator<Item = (&'m str, &'m str)>,
    how: How,
) -> Result<Bpe> {
    Bpe::new(names, merges, how).map_err(|[expected, found]| Error::key(file.path(), MERGES, expected, found))
}

/// The model of a `tokenizer.json`, without vocabulary and merges.
fn model(how: &How) -> Value {
    json!({"type": "BPE", "dropout": null, "unk_token": how.unknown, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": how.fuse_unknown, "byte_fallback": how.byte_fallback,
        "ignore_merges": how.whole_first, "vocab": {}, "merges": []})
}

/// SentencePiece BPE joins the neighbours whose joint token has the highest score: as merges, all pairs that make a token, by
/// its score (what transformers' `SentencePieceExtractor` does).
fn sentence(file: &Gguf) -> Result<(Value, Bpe)> {
    let vocabulary = Vocabulary::read(file)?;
    let scores = file.numbers(SCORES)?.ok_or_else(|| file.missing(SCORES, "the list of scores"))?;
    same_length(file, SCORES, scores.len(), vocabulary.tokens.len())?;
    let unknown = vocabulary.kinds.iter().position(|kind| *kind == Kind::Unknown).map(|id| vocabulary.tokens[id]);
    if unknown.is_none() && !vocabulary.kinds.contains(&Kind::Byte) {
        return Err(Error::key(file.path(), KINDS, "an unknown token, or tokens for bytes", "neither"));
    }
    let mut pairs = Vec::new();
    for (id, token) in vocabulary.tokens.iter().enumerate().filter(|(id, _)| vocabulary.kinds[*id] == Kind::Normal) {
        for (at, _) in token.char_indices().skip(1) {
            let part =
                |text: &str| vocabulary.names.id(text).filter(|id| vocabulary.kinds[*id as usize] == Kind::Normal);
            if let (Some(left), Some(right)) = (part(&token[..at]), part(&token[at..])) {
                pairs.push((scores[id], left, right));
            }
        }
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let prefix = file.flag(SPACE_PREFIX)?.unwrap_or(true);
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    let how = How { unknown: unknown.map(str::to_string), fuse_unknown: true, byte_fallback: true, whole_first: false };
    let normalizer = json!({"type": "Sequence", "normalizers": normalizers});
    let decoder = json!({"type": "Sequence", "decoders": decoders});
    let skeleton = whole(vocabulary.added(), normalizer, Value::Null, decoder, model(&how));
    let (tokens, names) = (vocabulary.tokens, vocabulary.names);
    let merges = pairs.iter().map(|(_, left, right)| (tokens[*left as usize], tokens[*right as usize]));
    Ok((skeleton, merged(file, names, merges, how)?))
}

/// The parts of a `tokenizer.json` in the order in which it has them.
fn whole(added: Vec<Value>, normalizer: Value, pre_tokenizer: Value, decoder: Value, model: Value) -> Value {
    let parts = [
        ("version", "1.0".into()),
        ("truncation", Value::Null),
        ("padding", Value::Null),
        ("added_tokens", added.into()),
        ("normalizer", normalizer),
        ("pre_tokenizer", pre_tokenizer),
        ("post_processor", Value::Null),
        ("decoder", decoder),
        ("model", model),
    ];
    Value::Object(parts.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

#[cfg(test)]
#[path = "gguf_tests.rs"]
mod tests;
