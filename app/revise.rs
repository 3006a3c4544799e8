//! The flags that choose a revision. What the revisions do is the library's; what a model supports is said here.

use bd3::arch::{Arch, Objective};
use bd3::sample::revise::corrector::Corrector;
use bd3::sample::revise::edit::Editing;
use bd3::sample::revise::remdm::{Phase, Spread, Strength};
use bd3::sample::{LookBack, Revise};
use bd3::{Error, Result};
use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser};

use crate::counts;

/// What happens to tokens that are known.
#[derive(Args, Clone, Debug)]
pub struct ReviseArgs {
    /// What happens to tokens that are known already
    #[arg(long, value_name = "NAME", value_parser = names(), help_heading = "Revision")]
    revise: Option<String>,
    /// Remask, corrector, look-back: a token below it goes, default 0.1, 0.01, 0.01; edit: another one above it comes, default 0.9
    #[arg(allow_negative_numbers = true, long, value_name = "X", requires = "revise", help_heading = "Revision")]
    revise_threshold: Option<f64>,
    /// Remask and corrector: rounds in a block, default 1; edit: passes over a full block, default 4; look-back: retractions in a sample, default 4
    #[arg(long, value_name = "N", requires = "revise", value_parser = counts::size, help_heading = "Revision")]
    revise_rounds: Option<usize>,
    /// Remdm: how strongly, in [0, 1]; default 0.1, for remdm-conf 1, for remdm-loop 0.02
    #[arg(allow_negative_numbers = true, long, value_name = "X", requires = "revise", help_heading = "Revision")]
    eta: Option<f64>,
    /// Look-back: block size at which committed text is read again; default: the smallest trained one of four blocks or more
    #[arg(long, value_name = "N", requires = "revise", help_heading = "Revision")]
    look_window: Option<usize>,
}

/// The revisions, each with what it does.
pub const NAMES: [(&str, &str); 9] = [
    ("remask", "a full block's tokens that were unlikely when drawn are masked and drawn again (any masked model)"),
    (
        "remdm-cap",
        "rule ancestral re-masks tokens with probability eta at most (ReMDM, Wang et al. 2025; any masked model)",
    ),
    ("remdm-rescale", "the same, with the share eta of the most that keeps the schedule"),
    ("remdm-conf", "the same, tokens that were unlikely when drawn more often than others"),
    ("remdm-loop", "the same, in the middle of the process only, at a constant share of masks"),
    ("edit", "known tokens become likelier ones (LLaDA2.1; needs a model trained with corrupted visible tokens)"),
    (
        "corrector",
        "a full block is read from left to right, at block size 1; unlikely tokens are drawn again (BlockGen)",
    ),
    (
        "look-back",
        "the backspace: committed text is read again in a larger block and taken back to its first unlikely token",
    ),
    ("none", "what is known stays"),
];

fn names() -> PossibleValuesParser {
    PossibleValuesParser::new(NAMES.map(|(name, help)| PossibleValue::new(name).help(help)))
}

impl ReviseArgs {
    /// The revision, as far as the model supports it; `block` is the size that text is written at.
    ///
    /// # Errors
    /// A flag that the revision does not take; a model that cannot follow.
    pub fn revise(&self, arch: &Arch, block: usize) -> Result<Revise> {
        let name = self.revise.as_deref().unwrap_or("none");
        let remdm = name.starts_with("remdm");
        for (flag, given, taken) in [
            ("--revise-threshold", self.revise_threshold.is_some(), !remdm && name != "none"),
            ("--revise-rounds", self.revise_rounds.is_some(), !remdm && name != "none"),
            ("--eta", self.eta.is_some(), remdm),
            ("--look-window", self.look_window.is_some(), name == "look-back"),
        ] {
            if given && !taken {
                return Err(Error::value(flag, format!("none, since --revise {name} takes none"), "one"));
            }
        }
        if name != "none" && arch.objective != Objective::Masked {
            let found = "one that fills no masks";
            return Err(Error::value(format!("--revise {name}"), "a model that fills masks", found));
        }
        let eta = self.eta.unwrap_or(0.1);
        let remdm = |strength, spread, phase| Revise::Remdm { strength, spread, phase };
        let revise = match name {
            "remask" => Revise::Remask {
                threshold: self.revise_threshold.unwrap_or(0.1),
                rounds: self.revise_rounds.unwrap_or(1),
            },
            "remdm-cap" => remdm(Strength::Cap(eta), Spread::Even, Phase::Always),
            "remdm-rescale" => remdm(Strength::Rescale(eta), Spread::Even, Phase::Always),
            "remdm-conf" => remdm(Strength::Rescale(self.eta.unwrap_or(1.0)), Spread::Doubt, Phase::Always),
            // The times, the share of visible tokens and the strength of the paper's experiments.
            "remdm-loop" => remdm(
                Strength::Cap(self.eta.unwrap_or(0.02)),
                Spread::Even,
                Phase::Loop { on: 0.55, off: 0.05, visible: 0.9 },
            ),
            "edit" => Revise::Edit(Editing {
                threshold: self.revise_threshold.unwrap_or(0.9),
                passes: self.revise_rounds.unwrap_or(4),
            }),
            "corrector" => Revise::Corrector(self.corrector(arch)?),
            "look-back" => Revise::LookBack(self.look_back(arch, block)?),
            _ => Revise::None,
        };
        if matches!(revise, Revise::Edit(_)) && !arch.visible_loss {
            let expected = "a model trained with corrupted visible tokens (`visible_loss` in its config.json)";
            return Err(Error::value("--revise edit", expected, "one whose logits of known tokens are untrained"));
        }
        Ok(revise)
    }

    fn corrector(&self, arch: &Arch) -> Result<Corrector> {
        let sizes = arch.block_sizes();
        if !sizes.contains(&1) {
            let expected = "a model trained at block size 1 too, which it reads at";
            return Err(Error::value("--revise corrector", expected, format!("block sizes {sizes:?}")));
        }
        Ok(Corrector { threshold: self.revise_threshold.unwrap_or(0.01), rounds: self.revise_rounds.unwrap_or(1) })
    }

    fn look_back(&self, arch: &Arch, block: usize) -> Result<LookBack> {
        let sizes = arch.block_sizes();
        let fits = |size: &usize| *size > block && size.is_multiple_of(block) && 2 * size <= arch.length;
        let window = match self.look_window {
            Some(size) => size,
            None => {
                let least = |least: usize| sizes.iter().copied().filter(|&size| size >= least && fits(&size)).min();
                least(4 * block).or(least(block + 1)).ok_or_else(|| {
                    let expected =
                        format!("a model trained at a multiple of block size {block}, half its length at most");
                    Error::value("--revise look-back", expected, format!("block sizes {sizes:?}"))
                })?
            }
        };
        if !sizes.contains(&window) || !fits(&window) {
            let fitting: Vec<usize> = sizes.into_iter().filter(fits).collect();
            return Err(Error::value("--look-window", format!("one of {fitting:?}"), window.to_string()));
        }
        Ok(LookBack {
            window,
            every: (window / 4).max(block),
            threshold: self.revise_threshold.unwrap_or(0.01),
            budget: self.revise_rounds.unwrap_or(4),
            // Tokens are read as they stand where that was trained, and masked in turns elsewhere.
            groups: if arch.visible_loss { 0 } else { 4 },
        })
    }
}
