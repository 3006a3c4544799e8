//! Noise schedules: how likely a token is masked at noise level t, and the weight of its log-probability in the bound.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

use super::Clip;

/// Keeps mask probabilities away from 0 and 1 where the official code does.
const EPS: f64 = 1e-3;

/// The mask probability as a function of the noise level t in (0, 1]; alpha = 1 - `mask_prob`. Names and formulas are those
/// of the official code (Arriola et al. 2025, appendix C); "linear" in the paper is `LogLinear` here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// p = t.
    LogLinear,
    /// p = 1 - (1 - 1e-3) cos(pi t / 2).
    Cosine,
    /// p = max(t^2, 1e-3).
    Square,
    /// p = max(t^(1/2), 1e-3).
    SquareRoot,
    /// p = log2(1 + t).
    Log,
}

impl Schedule {
    /// Every schedule, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::LogLinear, Self::Cosine, Self::Square, Self::SquareRoot, Self::Log];

    /// The official name.
    pub fn name(self) -> &'static str {
        match self {
            Self::LogLinear => "loglinear",
            Self::Cosine => "cosine",
            Self::Square => "square",
            Self::SquareRoot => "square_root",
            Self::Log => "log",
        }
    }

    /// Probability that a token is masked at noise level `t`.
    pub fn mask_prob(self, t: f64) -> f64 {
        match self {
            Self::LogLinear => t,
            Self::Cosine => 1.0 - (1.0 - EPS) * (std::f64::consts::FRAC_PI_2 * t).cos(),
            Self::Square => (t * t).max(EPS),
            Self::SquareRoot => t.sqrt().max(EPS),
            Self::Log => t.ln_1p() / std::f64::consts::LN_2,
        }
    }

    /// The interval of mask probabilities, [p(beta), p(omega)], that a clip interval of noise levels leads to. The share of
    /// masked tokens in a block is compared with this one; the official code compares it with the levels, which is the same
    /// for `LogLinear`, the one schedule that it clips.
    pub fn clip_of_probs(self, clip: Clip) -> Clip {
        clip.map(|t| self.mask_prob(t))
    }

    /// Weight of -log p(x0) of a masked token in the bound, p'(t) / p(t) (Sahoo et al. 2024, equation 10). Positive: the
    /// official `loss_scale` is its negative. In nats per nat, no unit.
    pub fn weight(self, t: f64) -> f64 {
        let p = self.mask_prob(t);
        match self {
            Self::LogLinear => 1.0 / t,
            Self::Cosine => {
                let angle = std::f64::consts::FRAC_PI_2 * t;
                (1.0 - EPS) * angle.sin() * std::f64::consts::FRAC_PI_2 / (p + EPS)
            }
            Self::Square => 2.0 * t / p,
            Self::SquareRoot => 0.5 / t.sqrt() / p,
            Self::Log => 1.0 / (p * std::f64::consts::LN_2 * (1.0 + t)),
        }
    }

    /// The weight that the official code uses in training: it is replaced by 1 when the clip interval starts above one half.
    pub fn official_weight(self, t: f64, clip: Clip) -> f64 {
        if clip.beta() > 0.5 { 1.0 } else { self.weight(t) }
    }
}

/// Total noise of the loglinear schedule, sigma(t) = -log(1 - (1 - 1e-3) t), as the official code has it. Only the cap of [`sigma`] is
/// made of it here: what a time-conditioned network sees belongs to the mask probability itself.
pub fn total_noise(t: f64) -> f64 {
    -(-(1.0 - EPS) * t).ln_1p()
}

/// Derivative of [`total_noise`].
pub fn rate_noise(t: f64) -> f64 {
    (1.0 - EPS) / (1.0 - (1.0 - EPS) * t)
}

/// Total noise at t = 1, the cap of [`sigma`].
pub fn sigma_max() -> f64 {
    total_noise(1.0)
}

/// Total noise that belongs to a mask probability: -log(1 - p), capped at [`sigma_max`].
pub fn sigma(mask_prob: f64) -> f64 {
    (-(-mask_prob).ln_1p()).min(sigma_max())
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|schedule| schedule.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::value("schedule", format!("one of {names}"), format!("`{name}`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_others_are_refused() {
        for schedule in Schedule::ALL {
            assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
        }
        let refused = "linear".parse::<Schedule>().unwrap_err().to_string();
        assert!(refused.contains("loglinear") && refused.contains("`linear`"), "{refused}");
    }

    #[test]
    fn the_weight_is_the_logarithmic_derivative_of_the_mask_probability() {
        for schedule in Schedule::ALL {
            for i in 1..20 {
                let (t, h) = (f64::from(i) / 20.0, 1e-6);
                let slope = (schedule.mask_prob(t + h).ln() - schedule.mask_prob(t - h).ln()) / (2.0 * h);
                // The official cosine weight has 1e-3 added to its denominator once more.
                let tolerance = if schedule == Schedule::Cosine { 0.25 } else { 1e-6 };
                assert!((schedule.weight(t) / slope - 1.0).abs() < tolerance, "{schedule} at {t}");
            }
        }
    }

    #[test]
    fn a_clip_of_levels_becomes_one_of_mask_probabilities() {
        let clip = Clip::new(0.3, 0.8).unwrap();
        assert_eq!(Schedule::LogLinear.clip_of_probs(clip), clip);
        let square = Schedule::Square.clip_of_probs(clip);
        assert!((square.beta() - 0.09).abs() < 1e-12 && (square.omega() - 0.64).abs() < 1e-12, "{square}");
        for schedule in Schedule::ALL {
            assert_eq!(schedule.clip_of_probs(Clip::FULL), Clip::FULL, "{schedule}");
            assert_eq!(schedule.clip_of_probs(Clip::MASKED), Clip::MASKED, "{schedule}");
            let probs = schedule.clip_of_probs(Clip::new(f64::from(1e-3f32), 0.5).unwrap());
            assert!(Clip::new(probs.beta(), probs.omega()).is_ok(), "{schedule}: {probs}");
        }
    }

    #[test]
    fn the_official_weight_is_dropped_above_one_half() {
        let clip = |beta, omega| Clip::new(beta, omega).unwrap();
        assert_eq!(Schedule::LogLinear.official_weight(0.25, clip(0.2, 0.7)), 4.0);
        assert_eq!(Schedule::LogLinear.official_weight(0.8, clip(0.55, 0.95)), 1.0);
        assert_eq!(Schedule::LogLinear.official_weight(0.8, clip(0.5, 1.0)), 1.25);
    }
}
