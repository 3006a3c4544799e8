//! Revision: what happens to rows that are known already. One published idea is one pure function from (block, proposals, random
//! numbers) to a list of [`Change`]s; nothing here knows a model or where in the text the block stands.

mod remask;

use super::{Draft, LookBack, SampleOptions};
use crate::error::{Error, Result};
use crate::event::{EditKind, Why};
use crate::pass::Proposal;

pub use remask::remask;

pub mod edit;
pub mod indel;
pub mod remdm;
pub mod renoise;

/// What happens to one row of the open block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row.
    pub row: usize,
    /// How it changes.
    pub kind: EditKind,
    /// The id that stands there afterwards.
    pub token: u32,
    /// The reason.
    pub why: Why,
}

/// A revision. Under SUBS a known token has probability 1 and logits that no training touched, so each says what it scores with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Revise {
    /// What is known stays.
    #[default]
    None,
    /// Tokens that were unlikely when they were drawn are masked and drawn again: see [`remask`].
    Remask {
        /// Below this probability.
        threshold: f64,
        /// Rounds, at most, in one block.
        rounds: usize,
    },
    /// Committed text is scored at a larger block size and taken back where it has become unlikely.
    LookBack(LookBack),
}

impl Revise {
    /// Refuses what is out of range or does not fit the other options.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self, options: &SampleOptions) -> Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Remask { threshold, .. } if !(*threshold > 0.0 && *threshold <= 1.0) => {
                Err(Error::value("threshold of remask", "a probability in (0, 1]", threshold.to_string()))
            }
            Self::Remask { .. } => Ok(()),
            Self::LookBack(how) => how.check(options.block, options.train_length),
        }
    }

    /// How committed text is looked at, if it is.
    pub fn look_back(&self) -> Option<LookBack> {
        match self {
            Self::LookBack(how) => Some(*how),
            _ => None,
        }
    }
}

/// A revision at work in one block.
#[derive(Clone, Debug)]
pub struct Reviser {
    how: Revise,
    round: usize,
}

impl Reviser {
    /// A block opens.
    pub fn new(how: Revise) -> Self {
        Self { how, round: 0 }
    }

    /// Known rows to ask for in the next pass, ascending.
    pub fn rows(&self, _draft: &Draft) -> Vec<usize> {
        Vec::new()
    }

    /// What changes after the rule's fills of this pass, which are in `draft` already; `filled`: their rows.
    pub fn changes(&mut self, draft: &Draft, filled: &[usize], _proposals: &[Proposal]) -> Vec<Change> {
        match self.how {
            Revise::Remask { threshold, rounds } if self.round < rounds => {
                let changes = remask(draft, filled, threshold);
                self.round += usize::from(!changes.is_empty());
                changes
            }
            _ => Vec::new(),
        }
    }

    /// May the block be committed as it stands?
    pub fn is_settled(&self, draft: &Draft) -> bool {
        draft.masked().is_empty()
    }
}
