//! How the steps of a block share its masks. Families differ, and a step more or less here is another text there.

use serde::Serialize;

use crate::error::{Error, Result};

/// How many rows a step settles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The masks shared evenly, the first steps taking the remainder (Nie et al. 2025, LLaDA; Fast-dLLM v1; Nemotron).
    #[default]
    Even,
    /// The block shared evenly, whatever part of it is masked (SDAR; LLaDA2.0).
    Block,
    /// The masks left times the probability to leave the mask on a linear grid, rounded half to even (dLLM, Tiny-A2D). The
    /// grid is computed in f32, as there: the rounding decides about a quarter of all splits.
    Linear,
    /// The same on the grid from 1 to 0.001, truncated, the last step taking the rest (Ye et al. 2025, Dream). In f32, as there.
    Dream,
}

impl Split {
    /// The names of all splits.
    pub const NAMES: [&str; 4] = ["even", "block", "linear", "dream"];

    /// The split of a name.
    ///
    /// # Errors
    /// When no split has this name.
    pub fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "even" => Self::Even,
            "block" => Self::Block,
            "linear" => Self::Linear,
            "dream" => Self::Dream,
            _ => return Err(Error::value("share", format!("one of {}", Self::NAMES.join(", ")), format!("`{name}`"))),
        })
    }

    /// The rows that step `step` of `steps` (at least 1) settles in a block of `block` rows of which `masks` were masked at
    /// first and `left` are now. It can be 0: the model would see the same ids again, so that such a step needs no pass. Steps
    /// past the last one (masks that a revision brought back) settle an even share.
    pub fn quota(self, (block, masks, left): (usize, usize, usize), steps: usize, step: usize) -> usize {
        let even = |rows: usize| rows / steps + usize::from(step < rows % steps);
        if step >= steps {
            return (masks / steps).clamp(1, left.max(1)).min(left);
        }
        let count = match self {
            Self::Even => even(masks),
            Self::Block => even(block),
            Self::Linear => linear(left, steps, step),
            Self::Dream if step + 1 == steps => left,
            Self::Dream => {
                let (t, s) = dream_times(steps, step);
                (left as f32 * (1.0 - s / t)) as usize
            }
        };
        count.min(left)
    }
}

/// The times of a step of Dream's grid: before and after it, in (0, 1]. A row leaves the mask with probability 1 - s/t, in the
/// last step with probability 1.
pub fn dream_times(steps: usize, step: usize) -> (f32, f32) {
    const LAST: f32 = 1e-3;
    let width = (LAST - 1.0) / steps as f32;
    // Counted from the nearer end, as the grid of the original is.
    let time = |i: usize| {
        if i < steps.div_ceil(2) { 1.0 + width * i as f32 } else { LAST - width * (steps - i) as f32 }
    };
    (time(step), time(step + 1))
}

/// See [`Split::Linear`].
fn linear(left: usize, steps: usize, step: usize) -> usize {
    let visible = |at: usize| 1.0 - (at as f64 / steps as f64) as f32;
    let (now, then) = (visible(steps - step), visible(steps - step - 1));
    let leave = 1.0 - (1.0 - then) / (1.0 - now);
    (left as f64 * f64::from(leave)).round_ties_even() as usize
}
