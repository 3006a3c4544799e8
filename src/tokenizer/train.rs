//! Training of a byte-level BPE vocabulary: count words, merge the most frequent pair, repeat. Written here and not taken
//! from the tokenizers library because its result must be a function of the text alone: that trainer keeps pairs in hash
//! maps whose order is drawn anew in every process, and equal counts can then be merged in another order.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

use super::spelling::{byte_char, pieces};
use super::{PIECE, Tokenizer};
use crate::{Error, Result};

/// The special tokens of a trained vocabulary, its last four ids in this order; the mask is the very last.
const SPECIAL: [&str; 4] = ["<bos>", "<eos>", "<pad>", "<mask>"];

/// The smallest vocabulary: all bytes and the special tokens.
pub const MIN_BPE_VOCAB: usize = 256 + SPECIAL.len();

/// Texts that are cut into words side by side.
const TEXTS_AT_ONCE: usize = 256;

type Pair = (u32, u32);

/// Trains a byte-level BPE on texts: GPT-2's way to cut words, no prefix space, ids 0..=255 the bytes, then the merges in
/// order, then `<bos> <eos> <pad> <mask>`. The result depends on the texts and the size only (ties: the pair with the
/// smaller ids), not on their order, on threads or on the process. Memory grows with the number of distinct words.
///
/// # Errors
/// A size below [`MIN_BPE_VOCAB`], or texts with too few repeated pairs to reach exactly `vocab_size` ids.
pub fn train_bpe<S: AsRef<str> + Sync>(texts: impl Iterator<Item = S>, vocab_size: usize) -> Result<Tokenizer> {
    if !(MIN_BPE_VOCAB..=1 << 24).contains(&vocab_size) {
        let expected = format!("{MIN_BPE_VOCAB} to {} (256 bytes, {} special tokens, merges)", 1 << 24, SPECIAL.len());
        return Err(Error::value("vocabulary size", expected, vocab_size.to_string()));
    }
    let words = count_words(texts)?;
    let mut merger = Merger::new(words);
    let wanted = vocab_size - SPECIAL.len();
    while merger.tokens.len() < wanted {
        if !merger.merge_best() {
            let found = format!("only {} (in {} distinct words)", merger.tokens.len() + 4, merger.words.len());
            return Err(Error::value("text", format!("repeated pairs for a vocabulary of {vocab_size}"), found));
        }
    }
    let file = serde_json::to_vec(&merger.into_json()).map_err(|e| Error::Run(e.to_string()))?;
    Tokenizer::from_bytes(&file)
}

/// Every distinct word, spelt in the byte alphabet, with its count, sorted.
fn count_words<S: AsRef<str> + Sync>(mut texts: impl Iterator<Item = S>) -> Result<BTreeMap<String, u64>> {
    let mut all: HashMap<String, u64> = HashMap::new();
    loop {
        let some: Vec<S> = texts.by_ref().take(TEXTS_AT_ONCE).collect();
        if some.is_empty() {
            return Ok(all.into_iter().collect());
        }
        let counted: Result<Vec<_>> = some.par_iter().map(|text| words_of(text.as_ref())).collect();
        for (word, count) in counted?.into_iter().flatten() {
            *all.entry(word).or_default() += count;
        }
    }
}

fn words_of(text: &str) -> Result<HashMap<String, u64>> {
    let mut words = HashMap::new();
    for piece in pieces(text, PIECE) {
        let mut cut = PreTokenizedString::from(piece);
        ByteLevel::new(false, true, true).pre_tokenize(&mut cut).map_err(|e| Error::Run(e.to_string()))?;
        for (word, _, _) in cut.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            match words.get_mut(word) {
                Some(count) => *count += 1,
                None => {
                    words.insert(word.to_string(), 1);
                }
            }
        }
    }
    Ok(words)
}

/// The state of the training.
struct Merger {
    /// Each token's spelling, by id.
    tokens: Vec<String>,
    ids: HashMap<String, u32>,
    merges: Vec<Pair>,
    /// Each distinct word as ids, with its count.
    words: Vec<(Vec<u32>, u64)>,
    counts: HashMap<Pair, u64>,
    /// Words in which a pair stands or once stood.
    places: HashMap<Pair, Vec<u32>>,
    /// Candidates; an entry whose count is no longer true is put back when it comes up.
    heap: BinaryHeap<(u64, Reverse<Pair>)>,
}

impl Merger {
    fn new(words: BTreeMap<String, u64>) -> Self {
        let tokens: Vec<String> = (0..=255u8).map(|byte| byte_char(byte).to_string()).collect();
        let ids: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
        let spell =
            |word: &str| word.chars().filter_map(|c| ids.get(c.encode_utf8(&mut [0; 4]) as &str).copied()).collect();
        let words = words.into_iter().map(|(word, count)| (spell(&word), count)).collect();
        let mut merger = Self {
            tokens,
            ids,
            merges: Vec::new(),
            words,
            counts: HashMap::new(),
            places: HashMap::new(),
            heap: BinaryHeap::new(),
        };
        for index in 0..merger.words.len() {
            merger.enter(index);
        }
        merger.heap = merger.counts.iter().map(|(&pair, &count)| (count, Reverse(pair))).collect();
        merger
    }

    /// Counts the pairs of a word. Returns them.
    fn enter(&mut self, index: usize) -> Vec<Pair> {
        let (ids, count) = &self.words[index];
        let pairs: Vec<Pair> = ids.windows(2).map(|w| (w[0], w[1])).collect();
        for &pair in &pairs {
            *self.counts.entry(pair).or_default() += count;
            let places = self.places.entry(pair).or_default();
            if places.last() != Some(&(index as u32)) {
                places.push(index as u32);
            }
        }
        pairs
    }

    /// Takes a word's pairs out of the counts.
    fn leave(&mut self, index: usize) {
        let (ids, count) = &self.words[index];
        for pair in ids.windows(2) {
            if let Some(entry) = self.counts.get_mut(&(pair[0], pair[1])) {
                *entry -= count;
            }
        }
    }

    /// Merges the most frequent pair; `false` when none stands twice.
    fn merge_best(&mut self) -> bool {
        let pair = loop {
            let Some((count, Reverse(pair))) = self.heap.pop() else { return false };
            let now = self.counts.get(&pair).copied().unwrap_or(0);
            if now == count && count >= 2 {
                break pair;
            }
            if now >= 2 && now != count {
                self.heap.push((now, Reverse(pair)));
            }
        };
        let token = format!("{}{}", self.tokens[pair.0 as usize], self.tokens[pair.1 as usize]);
        // Two ways to merge can spell one token (ab+c, a+bc): it keeps its id and both merges are kept.
        let id = self.ids.get(&token).copied().unwrap_or(self.tokens.len() as u32);
        if id as usize == self.tokens.len() {
            self.tokens.push(token.clone());
            self.ids.insert(token, id);
        }
        self.merges.push(pair);
        let mut places = self.places.remove(&pair).unwrap_or_default();
        places.sort_unstable();
        places.dedup();
        let mut touched: Vec<Pair> = Vec::new();
        for index in places {
            let index = index as usize;
            self.leave(index);
            self.words[index].0 = merged(&self.words[index].0, pair, id);
            touched.extend(self.enter(index).into_iter().filter(|p| p.0 == id || p.1 == id));
        }
        touched.sort_unstable();
        touched.dedup();
        for pair in touched {
            self.heap.push((self.counts[&pair], Reverse(pair)));
        }
        true
    }

    /// The file, in Hugging Face's form.
    fn into_json(self) -> Value {
        let base = self.tokens.len();
        let special = SPECIAL.iter().enumerate().map(|(i, name)| (*name, base + i));
        let vocab: Map<String, Value> = self
            .tokens
            .iter()
            .enumerate()
            .map(|(id, token)| (token.clone(), id.into()))
            .chain(special.clone().map(|(name, id)| (name.to_string(), id.into())))
            .collect();
        let spelt = |id: u32| self.tokens[id as usize].as_str();
        let merges: Vec<String> = self.merges.iter().map(|&(a, b)| format!("{} {}", spelt(a), spelt(b))).collect();
        let added: Vec<Value> = special
            .map(|(name, id)| {
                json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                       "normalized": false, "special": true})
            })
            .collect();
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": merges,
            },
        })
    }
}

/// A word with every occurrence of the pair, from the left, replaced.
fn merged(word: &[u32], pair: Pair, id: u32) -> Vec<u32> {
    let mut out = Vec::with_capacity(word.len());
    let mut at = 0;
    while at < word.len() {
        if at + 1 < word.len() && (word[at], word[at + 1]) == pair {
            out.push(id);
            at += 2;
        } else {
            out.push(word[at]);
            at += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 3] =
        ["the cat and the hat", "the rat, the mat, the bat", "a cat sat on that mat; that was that"];

    #[test]
    fn the_size_is_exactly_the_one_asked_for_and_the_mask_is_last() {
        let tokenizer = train_bpe(TEXTS.iter(), 270).unwrap();
        assert_eq!(tokenizer.vocab_size(), 270);
        let special = tokenizer.special();
        assert_eq!((special.bos, special.eos, special.pad, special.mask), (Some(266), Some(267), Some(268), 269));
        let text = "the bat <mask> sät\n\n on  <eos>";
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()).unwrap(), text);
        assert_eq!(tokenizer.encode_template("<bos>the<mask>").unwrap().last(), Some(&269));
    }

    #[test]
    fn the_file_depends_on_the_texts_only() {
        let once = train_bpe(TEXTS.iter(), 269).unwrap();
        let again = train_bpe(TEXTS.iter().rev(), 269).unwrap();
        assert_eq!(once.file(), again.file());
    }

    #[test]
    fn sizes_that_cannot_be_reached_are_refused() {
        assert!(train_bpe(TEXTS.iter(), 259).is_err());
        assert!(train_bpe(TEXTS.iter(), 5000).unwrap_err().to_string().contains("found only"));
    }

    #[test]
    fn repeated_letters_merge_from_the_left() {
        assert_eq!(merged(&[1, 1, 1], (1, 1), 9), [9, 1]);
        assert_eq!(merged(&[2, 1, 1, 1, 1], (1, 1), 9), [2, 9, 9]);
    }
}
