//! A limit on what a block may cost: the rule decides as ever, and where it takes too long, its best proposals are taken as well.

use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::event::Why;
use crate::pass::Proposal;

use super::ranked::{Accepted, best};

/// What a block may cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Budget {
    /// Passes, at most.
    pub passes: Option<usize>,
    /// Milliseconds, as far as whole passes allow.
    pub ms: Option<u64>,
}

impl Budget {
    /// Refuses a budget that no block can keep.
    ///
    /// # Errors
    /// When it has no pass or no time.
    pub fn check(self) -> Result<()> {
        if self.passes == Some(0) {
            return Err(Error::value("passes", "at least 1", "0"));
        }
        if self.ms == Some(0) {
            return Err(Error::value("budget", "at least 1 ms", "0"));
        }
        Ok(())
    }

    /// The passes left, this one included, after `done` passes of this block that took `spent`; `None` without a limit. Of time,
    /// as many as fit if one takes as long as they did on average, the first one being free.
    pub fn passes_left(self, done: usize, spent: Duration) -> Option<usize> {
        let counted = self.passes.map(|passes| passes.saturating_sub(done).max(1));
        let timed = self.ms.filter(|_| done > 0).map(|ms| {
            let left = Duration::from_millis(ms).saturating_sub(spent).as_secs_f64();
            let each = spent.as_secs_f64() / done as f64;
            if each > 0.0 { ((left / each) as usize).max(1) } else { usize::MAX }
        });
        counted.into_iter().chain(timed).min()
    }
}

/// The rows that must be settled in this pass, at least, so that the masked rows are settled within the passes left, this one
/// included: an even share, rounded up.
pub fn hurry(masked: usize, passes_left: usize) -> usize {
    masked.div_ceil(passes_left.max(1))
}

/// Adds the best of the other proposals, by the rule's own score, until `least` rows are accepted. Ascending.
pub fn hasten(
    mut accepted: Vec<Accepted>,
    proposals: &[Proposal],
    least: usize,
    score: impl Fn(&Proposal) -> f64,
) -> Vec<Accepted> {
    let missing = least.saturating_sub(accepted.len());
    if missing > 0 {
        let others = proposals.iter().filter(|p| accepted.iter().all(|a| a.row != p.row));
        let rows = best(others, missing, score);
        accepted.extend(rows.into_iter().map(|row| Accepted { row, why: Why::Hurry }));
        accepted.sort_unstable_by_key(|a| a.row);
    }
    accepted
}
