//! A regular expression as a machine over bytes: which states there are, where each byte leads, and in which of them a text may end.

use std::collections::HashMap;

use regex_automata::dfa::{Automaton, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::{primitives::StateID, start, syntax};
use regex_automata::{Anchored, MatchKind};

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
    /// By state and byte.
    next: Vec<[u32; 256]>,
    accepting: Vec<bool>,
}

impl Bytes {
    /// The machine of an expression (syntax of the `regex` crate) that a whole text has to match.
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
        let live = Self::walk(&dfa)?.live();
        if live.next.is_empty() {
            return refuse("an expression that some text matches".into(), format!("`{pattern}`"));
        }
        Ok(live.least())
    }

    /// All states that a text can reach.
    fn walk(dfa: &dense::DFA<Vec<u32>>) -> Result<Self> {
        let begin = dfa
            .start_state(&start::Config::new().anchored(Anchored::Yes))
            .map_err(|error| Error::value("regex", "one that is matched from the start", error.to_string()))?;
        let mut ids = HashMap::from([(begin, 0)]);
        let mut states: Vec<StateID> = vec![begin];
        let (mut next, mut accepting) = (Vec::new(), Vec::new());
        while let Some(&state) = states.get(next.len()) {
            let mut row = [DEAD; 256];
            for byte in 0..=255u8 {
                let to = dfa.next_state(state, byte);
                if !dfa.is_dead_state(to) {
                    row[usize::from(byte)] = *ids.entry(to).or_insert_with(|| {
                        states.push(to);
                        states.len() as u32 - 1
                    });
                }
            }
            next.push(row);
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
        Ok(Self { next, accepting })
    }

    /// Without the states that lead to no end; empty where the beginning is one.
    fn live(self) -> Self {
        let mut before: Vec<Vec<u32>> = vec![Vec::new(); self.next.len()];
        for (state, row) in (0..).zip(&self.next) {
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
        if !live.first().is_some_and(|&live| live) {
            return Self { next: Vec::new(), accepting: Vec::new() };
        }
        let mut ids = vec![DEAD; live.len()];
        for (id, state) in (0..live.len()).filter(|&state| live[state]).enumerate() {
            ids[state] = id as u32;
        }
        let kept = |row: [u32; 256]| row.map(|to| if to == DEAD { DEAD } else { ids[to as usize] });
        let states = self.next.into_iter().zip(self.accepting).zip(live);
        let (next, accepting) =
            states.filter(|(_, live)| *live).map(|((row, accepting), _)| (kept(row), accepting)).unzip();
        Self { next, accepting }
    }

    /// With one state for all that have the same futures (Moore 1956): states are told apart by whether a text may end there, then by
    /// where bytes lead, until nothing new is told.
    fn least(self) -> Self {
        let bytes = self.unlike_bytes();
        let mut parts: Vec<u32> = self.accepting.iter().map(|&accepting| u32::from(accepting)).collect();
        let mut count = 0;
        loop {
            let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
            let mut finer = Vec::with_capacity(parts.len());
            for (row, &part) in self.next.iter().zip(&parts) {
                let led = bytes.iter().map(|&byte| row[byte]);
                let key = led.map(|to| if to == DEAD { DEAD } else { parts[to as usize] }).chain([part]).collect();
                let fresh = known.len() as u32;
                finer.push(*known.entry(key).or_insert(fresh));
            }
            parts = finer;
            if known.len() == count {
                break;
            }
            count = known.len();
        }
        let (mut next, mut accepting) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (state, row) in self.next.iter().enumerate() {
            // Parts are numbered in the order of their first states, so state 0 stays the first.
            if parts[state] as usize == next.len() {
                next.push(row.map(|to| if to == DEAD { DEAD } else { parts[to as usize] }));
                accepting.push(self.accepting[state]);
            }
        }
        Self { next, accepting }
    }

    /// One of each kind of bytes that lead to the same states from all states.
    fn unlike_bytes(&self) -> Vec<usize> {
        let mut columns: HashMap<Vec<u32>, usize> = HashMap::new();
        for byte in 0..256 {
            columns.entry(self.next.iter().map(|row| row[byte]).collect()).or_insert(byte);
        }
        let mut bytes: Vec<usize> = columns.into_values().collect();
        bytes.sort_unstable();
        bytes
    }

    /// Where a byte leads.
    pub fn next(&self, state: u32, byte: u8) -> u32 {
        self.next[state as usize][usize::from(byte)]
    }

    /// May a text end here?
    pub fn accepts(&self, state: u32) -> bool {
        self.accepting[state as usize]
    }
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

/// Why it can't be built, in one line: errors of syntax draw a picture.
fn reason(error: &dense::BuildError) -> String {
    let source = std::error::Error::source(error)
        .map(|cause| std::error::Error::source(cause).map_or_else(|| cause.to_string(), ToString::to_string));
    let text = source.unwrap_or_else(|| error.to_string());
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
            (r"a\bb", "word boundaries"),
            ("(?:.{1000}){1000}", "exceeded"),
        ] {
            let error = Bytes::new(pattern).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.starts_with("regex: expected ") && error.contains(words), "{pattern}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn equal_futures_are_one_state() {
        assert_eq!(Bytes::new("(?:ax|bx|cx)*").unwrap().next.len(), 2);
    }
}
