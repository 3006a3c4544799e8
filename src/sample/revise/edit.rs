//! Token-to-token edits (LLaDA2.1): a known token is replaced when the model has come to prefer another one clearly. Masks are
//! filled by a rule of their own ([`crate::sample::rule::dynamic`] with one row per pass) in the same pass.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::event::{EditKind, Why};
use crate::pass::Proposal;

use super::Change;

/// The numbers of an editing loop.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Editing {
    /// The probability that another token must exceed, in [0, 1). LLaDA2.1: 0.9, in its faster modes 0.5 and 0.
    pub threshold: f64,
    /// Passes over a block without a mask, at most. LLaDA2.1: 16.
    pub passes: usize,
}

impl Editing {
    /// Refuses numbers out of range.
    ///
    /// # Errors
    /// When the threshold does not lie in [0, 1), or there is no pass.
    pub fn check(self) -> Result<()> {
        if !(0.0..1.0).contains(&self.threshold) {
            return Err(Error::value("edit threshold", "a probability in [0, 1)", self.threshold.to_string()));
        }
        if self.passes == 0 {
            return Err(Error::value("edit passes", "at least 1", "0"));
        }
        Ok(())
    }
}

/// The known rows whose proposal is another token of more than this probability. `proposals` are those of rows that may change:
/// known ones of the open block that were not given.
pub fn edits(block: &[u32], proposals: &[Proposal], threshold: f64) -> Vec<Change> {
    let better = |p: &&Proposal| p.token != block[p.row] && p.raw_prob > threshold;
    let change = |p: &Proposal| Change { row: p.row, kind: EditKind::Revise, token: p.token, why: Why::Better };
    proposals.iter().filter(better).map(change).collect()
}

/// Where an editing loop stands in its block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Edited {
    passes: usize,
}

impl Edited {
    /// True when the block is final after a pass that began with this many masks and led to this many edits: when a pass over a
    /// full block changes nothing, or enough of these were made. At least one pass over a full block is always made.
    pub fn done(&mut self, masks_before: usize, edits: usize, editing: Editing) -> bool {
        if masks_before > 0 {
            return false;
        }
        self.passes += 1;
        edits == 0 || self.passes >= editing.passes
    }
}

/// A guard against going round in circles: the states that a block was in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    states: Vec<Vec<u32>>,
}

impl Seen {
    /// Was the block in this state before? It is remembered in any case.
    pub fn again(&mut self, block: &[u32]) -> bool {
        let again = self.states.iter().any(|state| state == block);
        if !again {
            self.states.push(block.to_vec());
        }
        again
    }
}
