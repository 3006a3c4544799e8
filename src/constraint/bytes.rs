//! A regular expression as a machine over bytes: which states there are, where each byte leads, and in which of them a text may end.

use std::collections::HashMap;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::{primitives::StateID, start, syntax};
use regex_automata::{Anchored, MatchKind};

use super::least::parts;
use crate::error::{Error, Result};

/// Where no byte leads on.
pub const DEAD: u32 = u32::MAX;
/// States, at most.
const MOST_STATES: usize = 1 << 15;
/// Bytes of an expression, at most.
const MOST_PATTERN: usize = 1 << 20;
/// Bytes that building may take, at each of its stages.
const MOST_MEMORY: usize = 1 << 25;

/// A deterministic machine. State 0 is where a text begins; every state leads to an end.
pub struct Bytes {
    /// Bytes that always lead to the same states are one letter.
    letters: [u8; 256],
    width: usize,
    /// By state and letter.
    next: Vec<u32>,
    accepting: Vec<bool>,
}

impl Bytes {
    /// The machine of an expression (syntax of the `regex` crate) that a whole text has to match, with as few states as can be.
    ///
    /// # Errors
    /// When it is no such expression, when it is too large, or when no text matches it.
    pub fn new(pattern: &str) -> Result<Self> {
        let refuse = |expected: String, found: String| Err(Error::value("regex", expected, found));
        if pattern.len() > MOST_PATTERN {
            return refuse(format!("at most {MOST_PATTERN} bytes"), format!("{} bytes", pattern.len()));
        }
        let dfa = match build(pattern) {
            Ok(dfa) => dfa,
            Err(error) => {
                return refuse("a regular expression that can be made into a machine".into(), reason(&error));
            }
        };
        let all = Self::walk(&dfa)?;
        let live = all.live();
        if !live.first().is_some_and(|&live| live) {
            return refuse("an expression that some text matches".into(), shown(pattern));
        }
        let all = all.kept(&numbers(&live), live.iter().filter(|live| **live).count());
        let (parts, count) = parts(&all.next, all.width, &all.accepting);
        Ok(all.kept(&parts, count))
    }

    /// All states that a text can reach.
    fn walk(dfa: &dense::DFA<Vec<u32>>) -> Result<Self> {
        let begin = dfa
            .start_state(&start::Config::new().anchored(Anchored::Yes))
            .map_err(|error| Error::value("regex", "one that is matched from the start", error.to_string()))?;
        let classes = dfa.byte_classes();
        let letters: [u8; 256] = std::array::from_fn(|byte| classes.get(byte as u8));
        let width = usize::from(*letters.iter().max().unwrap_or(&0)) + 1;
        let byte_of: Vec<u8> = (0..width)
            .filter_map(|letter| (0..=255u8).find(|&byte| usize::from(letters[usize::from(byte)]) == letter))
            .collect();
        let mut ids = HashMap::from([(begin, 0)]);
        let mut states: Vec<StateID> = vec![begin];
        let (mut next, mut accepting) = (Vec::new(), Vec::new());
        while let Some(&state) = states.get(accepting.len()) {
            for &byte in &byte_of {
                let to = dfa.next_state(state, byte);
                next.push(match dfa.is_dead_state(to) {
                    true => DEAD,
                    false => *ids.entry(to).or_insert_with(|| {
                        states.push(to);
                        states.len() as u32 - 1
                    }),
                });
            }
            // A match is told one byte late, so that its end is asked for.
            accepting.push(dfa.is_match_state(dfa.next_eoi_state(state)));
            if states.len() > MOST_STATES {
                return Err(Error::value(
                    "regex",
                    format!("a machine of at most {MOST_STATES} states"),
                    "a larger one",
                ));
            }
        }
        Ok(Self { letters, width, next, accepting })
    }

    /// Which states lead to an end.
    fn live(&self) -> Vec<bool> {
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); self.accepting.len()];
        for (state, row) in (0..).zip(self.next.chunks_exact(self.width)) {
            let mut to: Vec<u32> = row.iter().copied().filter(|&to| to != DEAD).collect();
            to.sort_unstable();
            to.dedup();
            to.iter().for_each(|&to| before[to as usize].push(state));
        }
        let mut live = self.accepting.clone();
        let mut found: Vec<u32> = (0..).zip(&live).filter(|&(_, &live)| live).map(|(state, _)| state).collect();
        while let Some(state) = found.pop() {
            for &from in &before[state as usize] {
                if !std::mem::replace(&mut live[from as usize], true) {
                    found.push(from);
                }
            }
        }
        live
    }

    /// States by other numbers, given in the order of the first states that have them; those without one are left out.
    fn kept(&self, numbers: &[u32], count: usize) -> Self {
        let (mut next, mut accepting) = (Vec::with_capacity(count * self.width), Vec::with_capacity(count));
        for (state, row) in self.next.chunks_exact(self.width).enumerate() {
            if numbers[state] as usize == accepting.len() {
                next.extend(row.iter().map(|&to| if to == DEAD { DEAD } else { numbers[to as usize] }));
                accepting.push(self.accepting[state]);
            }
        }
        Self { next, accepting, ..*self }
    }

    /// Where a byte leads.
    pub fn next(&self, state: u32, byte: u8) -> u32 {
        self.next[state as usize * self.width + usize::from(self.letters[usize::from(byte)])]
    }

    /// May a text end here?
    pub fn accepts(&self, state: u32) -> bool {
        self.accepting[state as usize]
    }
}

/// New numbers for those that are kept.
fn numbers(kept: &[bool]) -> Vec<u32> {
    let mut fresh = 0;
    let number = |&kept: &bool| {
        fresh += u32::from(kept);
        if kept { fresh - 1 } else { DEAD }
    };
    kept.iter().map(number).collect()
}

fn build(pattern: &str) -> Result<dense::DFA<Vec<u32>>, Box<dense::BuildError>> {
    // Every match counts, not the first of its alternatives: `a|ab` is a text `ab`, too.
    let config = dense::Config::new()
        .start_kind(StartKind::Anchored)
        .match_kind(MatchKind::All)
        .dfa_size_limit(Some(MOST_MEMORY))
        .determinize_size_limit(Some(MOST_MEMORY));
    dense::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new().utf8(true).nest_limit(1 << 10))
        .thompson(thompson::Config::new().utf8(true).nfa_size_limit(Some(MOST_MEMORY)))
        .build(pattern)
        .map_err(Box::new)
}

/// An expression in an error: its beginning, where it is long.
pub fn shown(pattern: &str) -> String {
    match pattern.char_indices().nth(80) {
        Some((end, _)) => format!("`{}...`", &pattern[..end]),
        None => format!("`{pattern}`"),
    }
}

/// Why it can't be built, in one line: errors of syntax draw a picture.
fn reason(error: &dense::BuildError) -> String {
    let source = std::error::Error::source(error)
        .map(|cause| std::error::Error::source(cause).map_or_else(|| cause.to_string(), ToString::to_string));
    let text = source.unwrap_or_else(|| error.to_string());
    if text.contains("Unicode word boundaries") {
        return "a Unicode word boundary (one of ASCII is `(?-u:\\b)`)".into();
    }
    match text.rsplit_once("error: ") {
        Some((_, last)) => last.trim().to_string(),
        None => text.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(pattern: &str, text: &str) -> bool {
        let bytes = Bytes::new(pattern).unwrap();
        let end = text.bytes().try_fold(0, |state, byte| Some(bytes.next(state, byte)).filter(|&next| next != DEAD));
        end.is_some_and(|state| bytes.accepts(state))
    }

    #[test]
    fn whole_texts_match() {
        for (pattern, text, yes) in [
            ("a|ab", "a", true),
            ("a|ab", "ab", true),
            ("a|ab", "abb", false),
            ("", "", true),
            ("", "a", false),
            ("a*?b??", "aab", true),
            ("^ab$", "ab", true),
            ("(?s).*", "\nü", true),
            (".", "ü", true),
            (".", "\u{1f600}", true),
            ("ü", "u", false),
            (r"(?-u:\b)ab(?-u:\b)", "ab", true),
            ("(?i)yes", "YeS", true),
        ] {
            assert_eq!(accepts(pattern, text), yes, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_machine_is_refused() {
        for (pattern, words) in [
            ("(", "unclosed group"),
            ("a{2", "unclosed"),
            (r"(a)\1", "backreferences are not supported"),
            ("(?=a)b", "look-around"),
            (r"[a&&b]", "some text matches"),
            (r"a\bb", "word boundary"),
            ("(?:.{1000}){1000}", "exceeded"),
        ] {
            let error = Bytes::new(pattern).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with("regex: expected ") && error.contains(words), "{pattern}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn equal_futures_are_one_state() {
        assert_eq!(Bytes::new("(?:ax|bx|cx)*").unwrap().accepting.len(), 2);
    }
}
