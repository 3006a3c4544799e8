//! Where a rule stands in its block, and what it remembers of the passes before.

use super::Split;
use super::credit::Credit;
use super::klass::Past;

/// The state of a rule in one block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Clock {
    /// Masks in the block when it was opened.
    pub masks: usize,
    /// Rows of the block.
    pub block: usize,
    /// Steps done.
    pub step: usize,
    /// Rows that were asked for in this pass for want of time, ascending.
    pub hurried: Vec<usize>,
    /// What KLASS knows of each row that is still masked.
    pub past: Vec<Past>,
    /// What rows have earned so far.
    pub credit: Vec<Credit>,
}

impl Clock {
    /// A block opens with this many masks, all of it.
    pub fn new(masks: usize) -> Self {
        Self { masks, block: masks, ..Self::default() }
    }

    /// The same in a block of this many rows, some of them known from the beginning.
    #[must_use]
    pub fn of_block(self, block: usize) -> Self {
        Self { block, ..self }
    }

    /// The rows to settle in the next step that settles any. Steps without one are passed over.
    pub(super) fn count(&mut self, split: Split, steps: usize, left: usize) -> usize {
        loop {
            let count = split.quota((self.block, self.masks, left), steps, self.step);
            self.step += 1;
            if count > 0 || left == 0 {
                return count;
            }
        }
    }
}
