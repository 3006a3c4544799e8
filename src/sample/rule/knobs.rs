//! The names of the rules, and the numbers that each of them takes.

use crate::error::{Error, Result};

use super::{Rule, Split};

/// The numbers that a rule may take, as given by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Knobs {
    /// Steps per block.
    pub steps: Option<usize>,
    /// How the steps share the masks; without one, evenly.
    pub share: Option<Split>,
    /// A probability.
    pub threshold: Option<f64>,
    /// The lower of two probabilities.
    pub low: Option<f64>,
    /// See [`Rule::Factor`].
    pub factor: Option<f64>,
    /// Entropy, in nats.
    pub bound: Option<f64>,
    /// Divergence, in nats.
    pub drift: Option<f64>,
    /// Passes.
    pub stable: Option<usize>,
}

/// A rule's name, what it does in one line, and the knobs that it takes.
pub(super) type Kind = (&'static str, &'static str, &'static [&'static str]);

const SHARED: &[&str] = &["steps", "share"];

/// All rules.
pub(super) const KINDS: [Kind; 14] = [
    ("first-hitting", "one row per pass, at random: the exact reverse process", &[]),
    ("ancestral", "the reverse process on a grid of --steps times", &["steps"]),
    ("random", "random rows, in --steps passes", SHARED),
    ("left-to-right", "the first masked rows, in --steps passes", SHARED),
    ("confidence", "the most probable rows, in --steps passes (LLaDA)", SHARED),
    ("margin", "the rows furthest ahead of their runner-up, in --steps passes (Dream)", SHARED),
    ("entropy", "the rows of the least entropy, in --steps passes (Dream)", SHARED),
    ("threshold", "every row of at least --threshold, and the best one (Fast-dLLM)", &["threshold"]),
    (
        "dynamic",
        "every row above --threshold, or the step's share of best ones (SDAR)",
        &["threshold", "steps", "share"],
    ),
    ("factor", "the most rows n with (n + 1)(1 - p) below --factor (Fast-dLLM)", &["factor"]),
    (
        "entropy-bound",
        "the surest rows, as long as the entropies of all but the last sum to --bound nats (EB-sampler)",
        &["bound"],
    ),
    (
        "klass",
        "rows of at least --threshold that moved less than --drift for --stable passes",
        &["threshold", "drift", "stable"],
    ),
    ("hierarchy", "rows above --threshold, and the best of every gap above --low (dInfer)", &["threshold", "low"]),
    ("credit", "as threshold, where tokens that were often on top are trusted earlier (dInfer)", &["threshold"]),
];

/// Steps of a block, at most: each is passed over even where it settles nothing.
const MOST_STEPS: usize = 1_000_000;

impl Rule {
    /// The names of all rules.
    pub const NAMES: [&'static str; KINDS.len()] = {
        let mut names = [""; KINDS.len()];
        let mut i = 0;
        while i < names.len() {
            names[i] = KINDS[i].0;
            i += 1;
        }
        names
    };

    /// What the rule of a name does, in one line.
    pub fn about(name: &str) -> Option<&'static str> {
        KINDS.iter().find(|kind| kind.0 == name).map(|kind| kind.1)
    }

    /// The numbers that the rule of a name takes, by name.
    pub fn knobs(name: &str) -> &'static [&'static str] {
        KINDS.iter().find(|kind| kind.0 == name).map_or(&[], |kind| kind.2)
    }

    /// The rule of a name with its knobs. `share`, `low`, `drift` and `stable` have defaults: evenly, and as published.
    ///
    /// # Errors
    /// When no rule has this name, or it misses a knob, or is given one that it does not take, or one out of range.
    pub fn named(name: &str, knobs: Knobs) -> Result<Self> {
        let Some(kind) = KINDS.iter().find(|kind| kind.0 == name) else {
            return Err(Error::value("rule", format!("one of {}", Self::NAMES.join(", ")), format!("`{name}`")));
        };
        knobs.only(name, kind.2)?;
        let steps = || knobs.steps.ok_or_else(|| missing("steps", "a number", name));
        let threshold = || knobs.threshold.ok_or_else(|| missing("threshold", "a probability", name));
        let split = knobs.share.unwrap_or_default();
        let rule = match name {
            "first-hitting" => Self::FirstHitting,
            "ancestral" => Self::Ancestral { steps: steps()? },
            "random" => Self::Random { steps: steps()?, split },
            "left-to-right" => Self::LeftToRight { steps: steps()?, split },
            "confidence" => Self::Confidence { steps: steps()?, split },
            "margin" => Self::Margin { steps: steps()?, split },
            "entropy" => Self::Entropy { steps: steps()?, split },
            "threshold" => Self::Threshold { threshold: threshold()? },
            "dynamic" => Self::Dynamic { threshold: threshold()?, steps: steps()?, split },
            "factor" => Self::Factor { factor: knobs.factor.ok_or_else(|| missing("factor", "a number", name))? },
            "entropy-bound" => {
                Self::EntropyBound { bound: knobs.bound.ok_or_else(|| missing("bound", "an entropy in nats", name))? }
            }
            "klass" => Self::Klass {
                threshold: threshold()?,
                drift: knobs.drift.unwrap_or(0.01),
                stable: knobs.stable.unwrap_or(2),
            },
            "hierarchy" => {
                let threshold = threshold()?;
                Self::Hierarchy { threshold, low: knobs.low.unwrap_or(threshold.min(0.62)) }
            }
            "credit" => Self::Credit { threshold: threshold()? },
            _ => unreachable!("every kind has its arm"),
        };
        rule.check()?;
        Ok(rule)
    }

    /// Good text rather than few passes: rows as long as their entropies sum to 0.1 nats, the bound that DiffusionGemma is
    /// released with.
    pub fn quality() -> Self {
        Self::EntropyBound { bound: 0.1 }
    }

    /// Few passes rather than the best text: the factor rule at 1 (Fast-dLLM).
    pub fn fast() -> Self {
        Self::Factor { factor: 1.0 }
    }

    /// Refuses numbers out of range.
    ///
    /// # Errors
    /// When there are no steps, a probability does not lie in (0, 1], or another number is not positive and finite.
    pub fn check(self) -> Result<()> {
        let probability = |key: &'static str, x: f64| {
            let good = x > 0.0 && x <= 1.0;
            if good { Ok(()) } else { Err(Error::value(key, "a probability in (0, 1]", x.to_string())) }
        };
        let positive = |key: &'static str, x: f64| {
            let good = x > 0.0 && x.is_finite();
            if good { Ok(()) } else { Err(Error::value(key, "a number above 0", x.to_string())) }
        };
        if let Some(steps) = self.steps().filter(|steps| !(1..=MOST_STEPS).contains(steps)) {
            return Err(Error::value("steps", format!("1 to {MOST_STEPS}"), steps.to_string()));
        }
        match self {
            Self::Threshold { threshold } | Self::Dynamic { threshold, .. } | Self::Credit { threshold } => {
                probability("threshold", threshold)
            }
            Self::Factor { factor } => positive("factor", factor),
            Self::EntropyBound { bound: 0.0 } => Ok(()),
            Self::EntropyBound { bound } => positive("bound", bound),
            Self::Klass { stable: 0, .. } => Err(Error::value("stable", "at least 1 pass", "0")),
            Self::Klass { threshold, drift, .. } => {
                probability("threshold", threshold)?;
                positive("drift", drift)
            }
            Self::Hierarchy { threshold, low } => {
                probability("threshold", threshold)?;
                probability("low", low)?;
                if low > threshold {
                    return Err(Error::value("low", format!("at most {threshold} (the threshold)"), low.to_string()));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Knobs {
    /// Refuses knobs other than these.
    fn only(&self, rule: &str, taken: &[&str]) -> Result<()> {
        for (knob, given) in [
            ("steps", self.steps.is_some()),
            ("share", self.share.is_some()),
            ("threshold", self.threshold.is_some()),
            ("low", self.low.is_some()),
            ("factor", self.factor.is_some()),
            ("bound", self.bound.is_some()),
            ("drift", self.drift.is_some()),
            ("stable", self.stable.is_some()),
        ] {
            if given && !taken.contains(&knob) {
                return Err(Error::value(knob, format!("none, since rule {rule} takes none"), "one"));
            }
        }
        Ok(())
    }
}

fn missing(key: &'static str, what: &str, rule: &str) -> Error {
    Error::value(key, format!("{what} for rule {rule}"), "none")
}
