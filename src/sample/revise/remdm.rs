//! Re-masking on a schedule (Wang et al. 2025, ReMDM, arXiv 2503.00307): known tokens become masks again with probability sigma,
//! and masks are filled a little faster in return, so that with [`Spread::Even`] the share of masks at each time is that of the plain process.
//! `visible` is alpha, the probability of a token to be visible: 0 where all is masked, 1 at the end.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::event::{EditKind, Why};

use super::Change;

/// The visible share before and after a pass: alpha at t and at s < t.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Alpha at t, in [0, 1].
    pub now: f64,
    /// Alpha at s, from `now` to 1.
    pub then: f64,
    /// Whether tokens may be re-masked in this pass.
    pub remask: bool,
}

/// How strongly tokens are re-masked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Strength {
    /// At most eta (ReMDM-cap, section 4.1): min(eta, sigma max).
    Cap(f64),
    /// The share eta of the most that is possible (ReMDM-rescale): eta sigma max.
    Rescale(f64),
}

/// When tokens are re-masked.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// In every pass.
    Always,
    /// Between two times, at a constant visible share (ReMDM-loop, section 4.2): first the plain process up to `visible`, then
    /// a loop that re-masks as much as it fills, then the plain process to the end.
    Loop {
        /// The time at which it begins, in (off, 1).
        on: f64,
        /// The time at which it ends, in (0, on).
        off: f64,
        /// The visible share in it, in (0, 1).
        visible: f64,
    },
}

impl Strength {
    /// Refuses a strength out of range.
    ///
    /// # Errors
    /// When eta does not lie in [0, 1].
    pub fn check(self) -> Result<()> {
        let (Self::Cap(eta) | Self::Rescale(eta)) = self;
        if (0.0..=1.0).contains(&eta) {
            Ok(())
        } else {
            Err(Error::value("eta", "a number in [0, 1]", eta.to_string()))
        }
    }
}

impl Phase {
    /// Refuses a loop that has no place between the plain processes before and after it.
    ///
    /// # Errors
    /// When not 0 < off < on < 1, or the visible share does not lie in (0, 1).
    pub fn check(self) -> Result<()> {
        match self {
            Self::Loop { on, off, .. } if !(0.0 < off && off < on && on < 1.0) => {
                Err(Error::value("loop", "times 0 < off < on < 1", format!("off {off} and on {on}")))
            }
            Self::Loop { visible, .. } if !(visible > 0.0 && visible < 1.0) => {
                Err(Error::value("visible share", "a number in (0, 1)", visible.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// The visible share before and after step `step` of `steps` on a linear grid from t = 1 to t = 0.
    pub fn span(self, step: usize, steps: usize) -> Span {
        let time = |step: usize| 1.0 - step.min(steps) as f64 / steps as f64;
        let (t, s) = (time(step), time(step + 1));
        match self {
            Self::Always => Span { now: 1.0 - t, then: 1.0 - s, remask: true },
            Self::Loop { on, off, visible } => {
                let share = |t: f64| match t {
                    t if t > on => (1.0 - t) * visible / (1.0 - on),
                    t if t > off => visible,
                    t => 1.0 - t * (1.0 - visible) / off,
                };
                Span { now: share(t), then: share(s), remask: t <= on && t > off }
            }
        }
    }
}

impl Span {
    /// The largest re-masking probability that keeps the share of masks right (equation 6): min(1, (1 - alpha s) / alpha t).
    pub fn most(self) -> f64 {
        if self.now > 0.0 { ((1.0 - self.then) / self.now).clamp(0.0, 1.0) } else { 1.0 }
    }

    /// Sigma, the probability of a known token to become a mask.
    pub fn sigma(self, strength: Strength) -> f64 {
        match strength {
            _ if !self.remask => 0.0,
            Strength::Cap(eta) => eta.min(self.most()),
            Strength::Rescale(eta) => eta * self.most(),
        }
    }

    /// The probability of a mask to become a token (equation 5): (alpha s - (1 - sigma) alpha t) / (1 - alpha t).
    pub fn fill(self, sigma: f64) -> f64 {
        let masked = 1.0 - self.now;
        if masked > 0.0 { ((self.then - (1.0 - sigma) * self.now) / masked).clamp(0.0, 1.0) } else { 1.0 }
    }
}

/// How sigma is spread over the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// Every known token has sigma.
    Even,
    /// By how improbable each token was when it was filled (ReMDM-conf): see [`doubts`].
    Doubt,
}

/// What stands in a row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Row {
    /// A mask.
    Mask,
    /// A token that was given and stays.
    Given,
    /// A token that had this probability when it was filled.
    Filled(f64),
}

/// What a pass does to the rows of a block.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Remasked {
    /// Masked rows to fill with what the model proposes, ascending.
    pub fill: Vec<usize>,
    /// Known rows that become masks, ascending.
    pub changes: Vec<Change>,
}

/// The share of sigma that falls on each row (ReMDM-conf, section 4.1): the softmax of the negative probabilities at which the
/// tokens were filled; masks and given tokens have none.
pub fn doubts(rows: &[Row]) -> Vec<f64> {
    let weight = |row: &Row| if let Row::Filled(prob) = row { (-prob).exp() } else { 0.0 };
    let total: f64 = rows.iter().map(weight).sum();
    rows.iter().map(|row| if total > 0.0 { weight(row) / total } else { 0.0 }).collect()
}

/// Decides for each row by itself, with one uniform number in [0, 1) each: is a mask filled, does a token become one.
pub fn remask(
    rows: &[Row],
    span: Span,
    (strength, spread): (Strength, Spread),
    uniforms: &[f64],
    mask_id: u32,
) -> Remasked {
    let sigma = span.sigma(strength);
    let (shares, why) = match spread {
        Spread::Even => (vec![1.0; rows.len()], Why::Schedule),
        Spread::Doubt => (doubts(rows), Why::Unlikely),
    };
    let mut out = Remasked::default();
    for (row, ((standing, share), &uniform)) in rows.iter().zip(shares).zip(uniforms).enumerate() {
        match standing {
            Row::Mask if uniform < span.fill(share * sigma) => out.fill.push(row),
            Row::Filled(_) if uniform < share * sigma => {
                out.changes.push(Change { row, kind: EditKind::Remask, token: mask_id, why });
            }
            _ => {}
        }
    }
    out
}
