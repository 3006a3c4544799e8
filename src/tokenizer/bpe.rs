//! Byte-pair merges in little memory. The tokenizers library keeps every token as two texts on the heap, about 180 bytes for each;
//! here all names are one text, and a token costs about 40 bytes. Cutting a text into words is the library's, what a word's ids are
//! is the same (`ids_are_those_of_the_library`).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher, Hash};
use std::path::{Path, PathBuf};

use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::{DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper};
use tokenizers::{Model as _, Token, TokenizerImpl};

/// The library's way from text to ids, over a vocabulary of ours.
pub(super) type Inner =
    TokenizerImpl<Words, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// From a word to ids.
#[derive(Clone, Debug)]
pub(super) enum Words {
    /// Ours.
    Merged(Bpe),
    /// Any other kind that the library has.
    Library(ModelWrapper),
}

type Hasher = BuildHasherDefault<DefaultHasher>;

/// No number.
const NONE: u32 = u32::MAX;

/// Numbers of things, each at or after the place that the thing's hash says. The things are kept elsewhere.
#[derive(Clone, Default)]
struct Slots(Vec<u32>);

impl Slots {
    /// Where a thing is, or would go. There must be room.
    fn place(&self, thing: impl Hash, is_same: impl Fn(u32) -> bool) -> usize {
        let mask = self.0.len() - 1;
        let mut at = Hasher::default().hash_one(thing) as usize & mask;
        while self.0[at] != NONE && !is_same(self.0[at]) {
            at = (at + 1) & mask;
        }
        at
    }

    /// The number of a thing, if it is there.
    fn find(&self, thing: impl Hash, is_same: impl Fn(u32) -> bool) -> Option<u32> {
        (!self.0.is_empty()).then(|| self.0[self.place(thing, is_same)]).filter(|number| *number != NONE)
    }
}

/// Tokens by id, and ids by token.
#[derive(Clone, Default)]
pub(super) struct Names {
    text: String,
    /// Start and length in `text`, by id; an id that is no token begins beyond it.
    places: Vec<[u32; 2]>,
    /// Ids by token.
    slots: Slots,
    count: usize,
}

impl Names {
    /// Takes one more token.
    ///
    /// # Errors
    /// What is expected and found, where a token or an id comes twice, or ids are far beyond the number of tokens.
    pub fn add(&mut self, token: &str, id: u32) -> Result<(), [String; 2]> {
        const MORE: usize = 1 << 18;
        let (at, bytes) = (id as usize, token.len());
        if at > 2 * self.count + MORE || self.text.len() + bytes >= NONE as usize {
            return Err(["ids without large gaps, in their order".into(), format!("{id} after {} tokens", self.count)]);
        }
        if let Some(name) = self.name(id) {
            return Err(["each id once".into(), format!("{id} for {name:?} and {token:?}")]);
        }
        if self.slots.0.len() * 3 < (self.count + 1) * 4 {
            self.grow();
        }
        let slot = self.slot(token);
        if self.slots.0[slot] != NONE {
            return Err(["each token once".into(), format!("{token:?} as {} and {id}", self.slots.0[slot])]);
        }
        self.slots.0[slot] = id;
        if self.places.len() <= at {
            self.places.resize(at + 1, [NONE, 0]);
        }
        self.places[at] = [self.text.len() as u32, bytes as u32];
        self.text.push_str(token);
        self.count += 1;
        Ok(())
    }

    /// A token's id.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.slots.find(token, |id| self.name(id) == Some(token))
    }

    /// An id's token.
    pub fn name(&self, id: u32) -> Option<&str> {
        let [start, bytes] = self.places.get(id as usize)?.map(|x| x as usize);
        self.text.get(start..start + bytes)
    }

    /// Tokens and ids, in the order of the ids.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u32)> {
        (0..self.places.len() as u32).filter_map(|id| self.name(id).map(|name| (name, id)))
    }

    /// Where a token is, or would go.
    fn slot(&self, token: &str) -> usize {
        self.slots.place(token, |id| self.name(id) == Some(token))
    }

    fn grow(&mut self) {
        let size = (2 * self.slots.0.len()).max(64);
        let ids = std::mem::replace(&mut self.slots.0, vec![NONE; size]);
        for id in ids.into_iter().filter(|id| *id != NONE) {
            let slot = self.name(id).map(|name| self.slot(name));
            slot.into_iter().for_each(|slot| self.slots.0[slot] = id);
        }
    }

    /// Gives back what growing has left over.
    fn settle(&mut self) {
        self.text.shrink_to_fit();
        self.places.shrink_to_fit();
    }
}

/// What a vocabulary does with a word beside merging.
#[derive(Clone, Debug, Default)]
pub(super) struct How {
    /// Stands for a character that is no token.
    pub unknown: Option<String>,
    /// Several of these in a row are one.
    pub fuse_unknown: bool,
    /// A character that is no token becomes the tokens `<0xAB>` of its bytes, where all are there.
    pub byte_fallback: bool,
    /// A word that is a token is that token, whatever the merges say.
    pub whole_first: bool,
}

/// A vocabulary with merges.
#[derive(Clone)]
pub(super) struct Bpe {
    names: Names,
    /// Two neighbours and their joint token, by rank.
    merges: Vec<[u32; 3]>,
    /// Ranks by neighbours.
    ranks: Slots,
    how: How,
    unknown: Option<u32>,
}

impl Bpe {
    /// Merges in the order of their rank.
    ///
    /// # Errors
    /// What is expected and found, where a merge or the unknown token names what is no token.
    pub fn new<S: AsRef<str>>(
        mut names: Names,
        merges: impl ExactSizeIterator<Item = (S, S)>,
        how: How,
    ) -> Result<Self, [String; 2]> {
        names.settle();
        let mut ranks = Slots(vec![NONE; (merges.len() * 4 / 3 + 1).next_power_of_two()]);
        let mut list: Vec<[u32; 3]> = Vec::with_capacity(merges.len());
        let mut joint = String::new();
        for (left, right) in merges {
            let (left, right) = (left.as_ref(), right.as_ref());
            joint.clear();
            joint.push_str(left);
            joint.push_str(right);
            let id = |token: &str| {
                names.id(token).ok_or_else(|| {
                    let found = format!("{token:?} in the merge of {left:?} and {right:?}");
                    ["merges of tokens that make a token".to_string(), found]
                })
            };
            let pair = [id(left)?, id(right)?];
            // Of a pair that comes twice the last counts, as in the library.
            let place = ranks.place(pair, |rank| list[rank as usize][..2] == pair);
            ranks.0[place] = list.len() as u32;
            list.push([pair[0], pair[1], id(&joint)?]);
        }
        let id =
            |token: &String| names.id(token).ok_or_else(|| ["an unknown token that is a token".into(), token.clone()]);
        let unknown = how.unknown.as_ref().map(id).transpose()?;
        Ok(Self { names, merges: list, ranks, how, unknown })
    }

    /// The vocabulary.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The pairs that are merged, first the first.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        let name = |id: u32| self.names.name(id).unwrap_or_default();
        self.merges.iter().map(|[left, right, _]| (name(*left), name(*right))).collect()
    }

    /// The rank of two neighbours and their joint token, if they are merged.
    fn merged(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let rank = self.ranks.find([left, right], |rank| self.merges[rank as usize][..2] == [left, right])?;
        Some((rank, self.merges[rank as usize][2]))
    }

    /// A word's ids, each with the bytes that it covers.
    fn ids(&self, word: &str) -> Vec<(u32, usize)> {
        if self.how.whole_first
            && let Some(id) = self.names.id(word)
        {
            return vec![(id, word.len())];
        }
        let mut parts: Vec<Part> = Vec::with_capacity(word.len());
        // Several unknown characters in a row wait to be one.
        let mut waiting: Option<usize> = None;
        for c in word.chars() {
            let mut buffer = [0; 4];
            let c = &*c.encode_utf8(&mut buffer);
            let token = self.names.id(c);
            let bytes = if token.is_none() { self.bytes(c) } else { Vec::new() };
            // As in the library, what waits stays behind tokens of bytes.
            if bytes.is_empty() && (token.is_some() || !self.how.fuse_unknown) {
                parts.extend(waiting.take().and_then(|bytes| self.unknown.map(|id| Part::new(id, bytes))));
            }
            match token {
                Some(id) => parts.push(Part::new(id, c.len())),
                None if bytes.is_empty() => waiting = Some(waiting.unwrap_or(0) + c.len()),
                None => parts.extend(bytes),
            }
        }
        if let Some(bytes) = waiting {
            parts.extend(self.unknown.map(|id| Part::new(id, bytes)));
        }
        self.merge(&mut parts);
        parts.iter().filter(|part| part.bytes > 0).map(|part| (part.id, part.bytes)).collect()
    }

    /// The tokens of a character's bytes, or nothing.
    fn bytes(&self, c: &str) -> Vec<Part> {
        let byte = |byte: u8| self.names.id(&format!("<0x{byte:02X}>")).map(|id| Part::new(id, 1));
        let bytes: Option<Vec<Part>> = c.bytes().filter(|_| self.how.byte_fallback).map(byte).collect();
        bytes.unwrap_or_default()
    }

    /// Joins the pair of the lowest rank, the leftmost first, until there is none.
    fn merge(&self, parts: &mut [Part]) {
        let count = parts.len();
        let (mut before, mut after): (Vec<usize>, Vec<usize>) = (0..count).map(|i| (i.wrapping_sub(1), i + 1)).unzip();
        let pair = |parts: &[Part], at: usize, next: usize| {
            let (rank, joint) = self.merged(parts[at].id, parts.get(next)?.id)?;
            Some(Reverse((rank, at, joint)))
        };
        let mut queue: BinaryHeap<_> = (0..count).filter_map(|at| pair(parts, at, at + 1)).collect();
        while let Some(Reverse((_, at, joint))) = queue.pop() {
            let next = after[at];
            // A pair of which one part has been merged meanwhile is no longer there.
            let there = parts[at].bytes > 0 && pair(parts, at, next).is_some_and(|Reverse((.., now))| now == joint);
            if !there {
                continue;
            }
            parts[at] = Part::new(joint, parts[at].bytes + parts[next].bytes);
            parts[next].bytes = 0;
            after[at] = after[next];
            if let Some(before) = before.get_mut(after[at]) {
                *before = at;
            }
            queue.extend(pair(parts, at, after[at]));
            queue.extend(Some(before[at]).filter(|at| *at < count).and_then(|before| pair(parts, before, at)));
        }
    }
}

impl std::fmt::Debug for Bpe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bpe of {} tokens, {} merges, {:?}", self.names.count, self.merges.len(), self.how)
    }
}

/// A token in the making; of no bytes where another has taken it in.
#[derive(Clone, Copy)]
struct Part {
    id: u32,
    bytes: usize,
}

impl Part {
    fn new(id: u32, bytes: usize) -> Self {
        Self { id, bytes }
    }
}

impl Words {
    /// The largest id.
    pub fn last(&self) -> Option<u32> {
        match self {
            Self::Merged(bpe) => bpe.names.places.len().checked_sub(1).map(|last| last as u32),
            Self::Library(model) => model.get_vocab().into_values().max(),
        }
    }
}

impl tokenizers::Model for Words {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, word: &str) -> tokenizers::Result<Vec<Token>> {
        let bpe = match self {
            Self::Merged(bpe) => bpe,
            Self::Library(model) => return model.tokenize(word),
        };
        let mut start = 0;
        let token = |(id, bytes)| {
            start += bytes;
            Token::new(id, bpe.names.name(id).unwrap_or_default().into(), (start - bytes, start))
        };
        Ok(bpe.ids(word).into_iter().map(token).collect())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            Self::Merged(bpe) => bpe.names.id(token),
            Self::Library(model) => model.token_to_id(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            Self::Merged(bpe) => bpe.names.name(id).map(str::to_string),
            Self::Library(model) => model.id_to_token(id),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            Self::Merged(bpe) => bpe.names.iter().map(|(name, id)| (name.to_string(), id)).collect(),
            Self::Library(model) => model.get_vocab(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            Self::Merged(bpe) => bpe.names.count,
            Self::Library(model) => model.get_vocab_size(),
        }
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        match self {
            Self::Merged(_) => Err("a tokenizer is saved as the file that it was loaded from".into()),
            Self::Library(model) => model.save(folder, prefix),
        }
    }

    fn get_trainer(&self) -> TrainerWrapper {
        match self {
            Self::Merged(_) => tokenizers::models::bpe::BpeTrainer::default().into(),
            Self::Library(model) => model.get_trainer(),
        }
    }
}

#[cfg(test)]
#[path = "bpe_tests.rs"]
mod tests;
