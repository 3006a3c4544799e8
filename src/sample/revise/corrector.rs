//! The corrector: a full block is read from left to right, by the same checkpoint at block size 1, and what it finds unlikely is drawn
//! again beside all the rest (BlockGen, arXiv 2606.02241, its predictor-corrector; after it the rule fills the masks as before). A block's
//! rows were drawn together or in any order, from contexts with masks; at block size 1 each token has a probability given all before it,
//! and the product of these is the model's exact likelihood.

use serde::Serialize;

use super::Change;
use crate::error::{Error, Result};
use crate::event::{EditKind, Why};
use crate::pass::Proposal;
use crate::sample::OpenBlock;

/// How to correct.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Corrector {
    /// A token whose probability given the text before it is below this is drawn again.
    pub threshold: f64,
    /// Readings, at most, in one block: a pass each, and the passes that fill what it masks.
    pub rounds: usize,
}

impl Corrector {
    /// Refuses numbers out of range; `block` is the size that the text is written at.
    ///
    /// # Errors
    /// When the threshold is no probability, or the text is written at block size 1 already.
    pub fn check(&self, block: usize) -> Result<()> {
        if !(self.threshold > 0.0 && self.threshold <= 1.0) {
            let found = self.threshold.to_string();
            return Err(Error::value("threshold of the corrector", "a probability in (0, 1]", found));
        }
        if block == 1 {
            return Err(Error::value("block size of the corrector", "at least 2, since it reads at size 1", "1"));
        }
        Ok(())
    }
}

/// The rows of a full block that become masks again: drawn ones whose token has less than this probability. `read` are the answers at
/// block size 1, with [`Proposal::standing`] that of the token that stands in the row.
pub fn unlikely(open_block: &OpenBlock, read: &[Proposal], threshold: f64) -> Vec<Change> {
    let (kind, token, why) = (EditKind::Remask, open_block.mask_id(), Why::Unlikely);
    let goes = |proposal: &&Proposal| !open_block.is_fixed(proposal.row) && proposal.standing < threshold;
    read.iter().filter(goes).map(|proposal| Change { row: proposal.row, kind, token, why }).collect()
}
