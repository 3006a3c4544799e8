//! Decoding from uniform noise (DiffusionGemma): a block begins as random tokens and has no masks. In each pass the rows that an
//! entropy bound accepts take their draw, and all others become random tokens again.

use crate::event::{EditKind, Why};
use crate::pass::Proposal;
use crate::sample::rule::entropy_bound;

use super::Change;

/// The temperature of a pass: linear from `most` in the first pass to just above `least` in the last one. `left` counts passes,
/// this one included, of `steps`.
pub fn temperature((least, most): (f64, f64), left: usize, steps: usize) -> f64 {
    least + (most - least) * left as f64 / steps as f64
}

/// What a pass changes: rows accepted by [`entropy_bound`] (in nats; at temperature 1, since [`Proposal::entropy`] is taken before the temperature) take their draw,
/// all others take their id in `noise` (one per row of the block). Rows whose id does not change are left out. There is one
/// proposal per row.
pub fn renoise(block: &[u32], proposals: &[Proposal], bound: f64, noise: &[u32]) -> Vec<Change> {
    let accepted = entropy_bound(proposals, bound);
    let change = |p: &Proposal| {
        let (token, why) = if accepted.contains(&p.row) { (p.token, Why::Rule) } else { (noise[p.row], Why::Schedule) };
        Change { row: p.row, kind: EditKind::Revise, token, why }
    };
    proposals.iter().map(change).filter(|change| block[change.row] != change.token).collect()
}

/// When a block has come to rest: see [`Rest::settled`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rest {
    /// How many passes before this one must have had the same most probable tokens. DiffusionGemma: 1.
    pub stable: usize,
    /// Nats, below which the mean entropy must be. DiffusionGemma: 0.005.
    pub entropy: f64,
}

impl Rest {
    /// True when the most probable tokens are those of the last `stable` passes and the mean entropy of the rows is small.
    /// `past` belongs to the block. The most probable tokens of the last pass are the block's final text.
    pub fn settled(self, best: &[u32], mean_entropy: f64, past: &mut Vec<Vec<u32>>) -> bool {
        let same = past.iter().rev().take_while(|before| *before == best).count();
        past.push(best.to_vec());
        same >= self.stable && mean_entropy < self.entropy
    }
}
