//! Names of special tokens in a text: where they stand, found in one pass however many there are, and how a text is written so that
//! none stands in it.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};

use super::bpe::Inner;
use super::{Kind, Tokenizer};
use crate::{Error, Result};

/// The names of a tokenizer's special tokens, ready to be looked for.
#[derive(Clone, Debug)]
pub struct Names {
    /// Where one name begins another, the longer one is meant.
    longest: AhoCorasick,
    /// Each of them, also those inside others.
    all: AhoCorasick,
    texts: Vec<String>,
    /// Of each name.
    ids: Vec<u32>,
}

impl Names {
    /// Of the tokens that a tokenizer's file calls special.
    pub fn of(inner: &Inner) -> Result<Self> {
        let added = inner.get_added_tokens_decoder().into_iter();
        let mut named: Vec<(String, u32)> = added
            .filter(|(_, token)| token.special && !token.content.is_empty())
            .map(|(id, token)| (token.content, id))
            .collect();
        named.sort();
        let (texts, ids): (Vec<String>, Vec<u32>) = named.into_iter().unzip();
        let automaton = |kind| {
            let made = AhoCorasick::builder().match_kind(kind).build(&texts);
            made.map_err(|e| {
                Error::value("tokenizer.json", "names of special tokens that fit into memory", e.to_string())
            })
        };
        Ok(Self { longest: automaton(MatchKind::LeftmostLongest)?, all: automaton(MatchKind::Standard)?, texts, ids })
    }

    /// Does one stand in it?
    fn is_in(&self, text: &str) -> bool {
        self.all.is_match(text)
    }

    /// First characters of names, where names stand in these texts.
    fn heads(&self, texts: &[&str]) -> BTreeSet<char> {
        let hits = texts.iter().flat_map(|text| self.all.find_overlapping_iter(*text));
        hits.filter_map(|hit| self.texts[hit.pattern()].chars().next()).collect()
    }
}

/// Texts that are no program's: each first character of a name in them is another one, which stands nowhere else, so that no name
/// is found in them. They have as many characters as before.
pub struct Veil {
    /// A character, and what stands for it.
    pairs: Vec<(char, char)>,
}

impl Veil {
    /// Over these texts; none where no name stands in them. What `others` holds, beside which they may come to stand, is no stand-in.
    ///
    /// # Errors
    /// Texts in which every character occurs that could stand for another.
    pub fn over(names: &Names, texts: &[&str], others: &str) -> Result<Option<Self>> {
        if !texts.iter().any(|text| names.is_in(text)) {
            return Ok(None);
        }
        let named = names.texts.iter().map(String::as_str);
        let used: BTreeSet<char> = texts.iter().copied().chain(named).chain([others]).flat_map(str::chars).collect();
        let mut free = STAND_INS.into_iter().flatten().filter(|c| !used.contains(c));
        let pair = |head| free.next().map(|free| (head, free));
        let pairs: Option<Vec<_>> = names.heads(texts).into_iter().map(pair).collect();
        let none = || Error::value("messages", "a private character that no message uses", "all of them used");
        Ok(Some(Self { pairs: pairs.ok_or_else(none)? }))
    }

    /// A text with every name in it hidden.
    pub fn hide(&self, names: &Names, text: &str) -> String {
        let starts: BTreeSet<usize> = names.all.find_overlapping_iter(text).map(|hit| hit.start()).collect();
        let one = |(at, c): (usize, char)| {
            let found = self.pairs.iter().find(|(head, _)| *head == c && starts.contains(&at));
            found.map_or(c, |&(_, stands)| stands)
        };
        text.char_indices().map(one).collect()
    }

    /// The text as it was.
    pub fn lift(&self, text: &str) -> String {
        let one = |c: char| self.pairs.iter().find(|(_, stands)| *stands == c).map_or(c, |&(head, _)| head);
        text.chars().map(one).collect()
    }
}

/// Characters that mean nothing to anybody: those that Unicode keeps for a program's own use inside, then its private ones.
const STAND_INS: [std::ops::RangeInclusive<char>; 2] = ['\u{fdd0}'..='\u{fdef}', '\u{e000}'..='\u{f8ff}'];

impl Tokenizer {
    /// The names of its special tokens; none where it has no names.
    pub(super) fn names(&self) -> Result<Option<&Names>> {
        let Kind::Model { inner, names, .. } = &self.kind else { return Ok(None) };
        if names.get().is_none() {
            let _ = names.set(Names::of(inner)?);
        }
        Ok(names.get())
    }

    /// The ids of a text in which names of special tokens (of a chat template, say) stand for their ids.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_template(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_under(None, text)
    }

    /// The same, in which what a veil hides is text.
    pub(super) fn encode_under(&self, veil: Option<&Veil>, text: &str) -> Result<Vec<u32>> {
        let plain = |text: &str| match veil {
            _ if text.is_empty() => Ok(Vec::new()),
            Some(veil) => self.encode(&veil.lift(text)),
            None => self.encode(text),
        };
        let Some(names) = self.names()? else { return plain(text) };
        let (mut ids, mut end) = (Vec::new(), 0);
        for hit in names.longest.find_iter(text) {
            ids.extend(plain(&text[end..hit.start()])?);
            ids.push(names.ids[hit.pattern().as_usize()]);
            end = hit.end();
        }
        ids.extend(plain(&text[end..])?);
        Ok(ids)
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
