//! Constraints on a text: the regular expression, or the JSON schema, that all of it has to match, as a machine over tokens. Tokens that
//! lead every state to the same one are a class; all else is said of classes. It knows no sampler.

mod bytes;
mod lattice;
mod least;
mod scaled;
pub mod schema;
mod tokens;

use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::error::{Error, Result};
use crate::tokenizer::Tokenizer;
use bytes::Bytes;
pub use lattice::{Lattice, Slot, Sums, Weights};

/// A constraint for one tokenizer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Constraint {
    machine: Arc<Machine>,
}

/// A machine over classes of tokens.
#[derive(Debug, PartialEq)]
struct Machine {
    pattern: String,
    eos: u32,
    /// By id.
    class_of: Arc<[u32]>,
    classes: usize,
    /// The sets of classes that lead from one state to another, each ascending. Many states share one: what a string of JSON may go
    /// on with is the same wherever it stands.
    sets: Vec<Box<[u32]>>,
    /// The first is where a text begins, the last one is behind its end.
    states: Vec<State>,
}

/// One state of it.
#[derive(Debug, Default, PartialEq)]
pub struct State {
    /// May the text end here?
    pub accepting: bool,
    /// Tokens that it takes to where it may end, at least.
    pub least: usize,
    /// The states that a token can lead to, ascending, each with the number of the set of classes that do.
    pub edges: Vec<(u32, u32)>,
}

impl Constraint {
    /// All texts that match an expression (syntax of the `regex` crate) as a whole, ended by `eos`. Special and added tokens are no text.
    ///
    /// # Errors
    /// When it is no regular expression, when it is too large, or when no text of this tokenizer matches it.
    pub fn new(pattern: &str, tokenizer: &Tokenizer, eos: u32) -> Result<Self> {
        let bytes = Bytes::new(pattern)?;
        let text = |id: u32| if tokenizer.is_added(id) { Vec::new() } else { tokenizer.token_bytes(id) };
        let vocabulary: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as u32).map(text).collect();
        Self::of(pattern, &bytes, &vocabulary, eos)
    }

    /// The same for a vocabulary given as the bytes of each id, none for what is no text.
    ///
    /// # Errors
    /// As [`Constraint::new`].
    pub fn over(pattern: &str, vocabulary: &[Vec<u8>], eos: u32) -> Result<Self> {
        Self::of(pattern, &Bytes::new(pattern)?, vocabulary, eos)
    }

    fn of(pattern: &str, bytes: &Bytes, vocabulary: &[Vec<u8>], eos: u32) -> Result<Self> {
        if eos as usize >= vocabulary.len() {
            let expected = format!("an end-of-text id below {}", vocabulary.len());
            return Err(Error::value("constraint", expected, eos.to_string()));
        }
        let tokens::Lifted { class_of, classes, sets, states } = tokens::lift(bytes, vocabulary, eos)?;
        if states.first().is_none_or(|state| state.least == usize::MAX) {
            let expected = "an expression that a text of this vocabulary matches";
            return Err(Error::value("regex", expected, bytes::shown(pattern)));
        }
        let machine = Machine { pattern: pattern.into(), eos, class_of: class_of.into(), classes, sets, states };
        Ok(Self { machine: Arc::new(machine) })
    }

    /// The expression.
    pub fn pattern(&self) -> &str {
        &self.machine.pattern
    }

    /// The id that ends a text.
    pub fn eos(&self) -> u32 {
        self.machine.eos
    }

    /// Bytes of memory, about.
    pub fn bytes(&self) -> usize {
        let edges = self.states().iter().map(|state| 40 + 8 * state.edges.len()).sum::<usize>();
        let sets = self.sets().iter().map(|set| 16 + 4 * set.len()).sum::<usize>();
        self.pattern().len() + 4 * self.class_of().len() + edges + sets
    }

    /// The class of each id.
    pub fn class_of(&self) -> &Arc<[u32]> {
        &self.machine.class_of
    }

    /// How many classes there are.
    pub fn classes(&self) -> usize {
        self.machine.classes
    }

    /// States: the first is where a text begins, the last one is behind its end.
    pub fn states(&self) -> &[State] {
        &self.machine.states
    }

    /// How many ways there are from state to state: what a row costs, at most.
    pub fn ways(&self) -> usize {
        self.states().iter().map(|state| state.edges.len()).sum()
    }

    /// Sets of classes, each ascending.
    pub fn sets(&self) -> &[Box<[u32]>] {
        &self.machine.sets
    }

    /// Where a token of a class leads from a state.
    ///
    /// # Panics
    /// If there is no such state.
    pub fn next(&self, state: u32, class: u32) -> Option<u32> {
        // Behind an end anything may stand, also what the vocabulary does not know.
        let ended = Some(state).filter(|&state| state == self.behind());
        let leads = |&&(_, set): &&(u32, u32)| self.machine.sets[set as usize].binary_search(&class).is_ok();
        ended.or_else(|| self.machine.states[state as usize].edges.iter().find(leads).map(|&(to, _)| to))
    }

    /// The state behind the end of a text.
    pub fn behind(&self) -> u32 {
        self.machine.states.len() as u32 - 1
    }

    /// Tokens of the shortest text, without its end.
    pub fn least(&self) -> usize {
        self.machine.states[0].least
    }

    /// Where ids lead from a state; `None` where they are not allowed.
    ///
    /// # Panics
    /// If there is no such state.
    pub fn follow(&self, state: u32, ids: &[u32]) -> Option<u32> {
        ids.iter().try_fold(state, |state, &id| self.next(state, *self.machine.class_of.get(id as usize)?))
    }

    /// Whether ids, ended or not, are a whole text.
    pub fn accepts(&self, ids: &[u32]) -> bool {
        self.follow(0, ids).is_some_and(|state| self.machine.states[state as usize].accepting)
    }
}

impl PartialEq for Constraint {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.machine, &other.machine) || self.machine == other.machine
    }
}

impl Serialize for Constraint {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.pattern())
    }
}
