//! Revision: what happens to rows that are known already. One published idea is one pure function from (block, proposals, random
//! numbers) to a list of [`Change`]s; nothing here knows a model or where in the text the block stands.

pub mod corrector;
pub mod edit;
pub mod indel;
mod remask;
pub mod remdm;
pub mod renoise;
mod reviser;

use serde::Serialize;

use super::{Budget, LookBack, Rule, SampleOptions};
use crate::error::{Error, Result};
use crate::event::{EditKind, Why};

use corrector::Corrector;
use edit::Editing;
pub use remask::remask;
use remdm::{Phase, Spread, Strength};
pub use reviser::Reviser;

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
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Revise {
    /// What is known stays.
    #[default]
    None,
    /// Tokens that were unlikely when they were drawn are masked and drawn again: see [`remask`]. Any model that fills masks.
    Remask {
        /// Below this probability.
        threshold: f64,
        /// Rounds, at most, in one block.
        rounds: usize,
    },
    /// The reverse process with re-masking on its schedule: see [`remdm`]. Any model that fills masks; rule ancestral, whose steps it
    /// takes.
    Remdm {
        /// How strongly.
        strength: Strength,
        /// Which rows.
        spread: Spread,
        /// When.
        phase: Phase,
    },
    /// Known tokens become likelier ones: see [`edit`]. Models that were trained with corrupted visible tokens.
    Edit(Editing),
    /// A full block is read at block size 1, and its unlikely tokens are drawn again: see [`corrector`]. Models trained at that size.
    Corrector(Corrector),
    /// Committed text is scored at a larger block size and taken back where it has become unlikely. Models trained at that size.
    LookBack(LookBack),
}

impl Revise {
    /// Refuses what is out of range or does not fit the other options.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self, options: &SampleOptions) -> Result<()> {
        if options.budget != Budget::default() && !matches!(self, Self::None | Self::LookBack(_)) {
            return Err(Error::value(
                "budget of a block",
                format!("none with revision {}, which has passes of its own", self.name()),
                "one",
            ));
        }
        match self {
            Self::None => Ok(()),
            Self::Remask { threshold, .. } if !(*threshold > 0.0 && *threshold <= 1.0) => {
                Err(Error::value("threshold of remask", "a probability in (0, 1]", threshold.to_string()))
            }
            Self::Remask { .. } => Ok(()),
            Self::Remdm { strength, phase, .. } => {
                if !matches!(options.rule, Rule::Ancestral { .. }) {
                    let found = format!("rule {}", options.rule.name());
                    return Err(Error::value(
                        "rule",
                        format!("ancestral for revision {}, as it gives the steps", self.name()),
                        found,
                    ));
                }
                strength.check()?;
                phase.check()
            }
            Self::Edit(editing) => editing.check(),
            Self::Corrector(how) => how.check(options.block),
            Self::LookBack(how) => how.check(options.block, options.train_length),
        }
    }

    /// Its name, that of its family where there are several.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Remask { .. } => "remask",
            Self::Remdm { .. } => "remdm",
            Self::Edit(_) => "edit",
            Self::Corrector(_) => "corrector",
            Self::LookBack(_) => "look-back",
        }
    }

    /// How committed text is looked at, if it is.
    pub fn look_back(&self) -> Option<LookBack> {
        match self {
            Self::LookBack(how) => Some(*how),
            _ => None,
        }
    }

    /// Does it take what a model says of a visible token? Under SUBS alone nothing has trained that.
    pub fn scores_visible(&self) -> bool {
        matches!(self, Self::Edit(_) | Self::LookBack(LookBack { groups: 0, .. }))
    }
}
