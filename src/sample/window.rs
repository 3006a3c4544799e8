//! Windows: what a sample sees once it is longer than the model was trained for.

use serde::Serialize;

use crate::error::{Error, Result};

/// What happens past the training length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// Nothing: the cache grows, positions go on beyond those seen in training. For models that extrapolate.
    Grow,
    /// The oldest stored blocks are dropped; the others keep their absolute, rotated keys (rotary attention only sees
    /// differences). Their keys still carry what they learned from dropped text. The official code drops likewise, but counts
    /// positions anew (Arriola et al. 2025, section 4).
    Slide,
    /// The last half of the training length is kept as if it were a prompt: stored anew from position 0 in the next pass. So
    /// a block as long as the training length goes on too, half of it fixed (Sahoo et al. 2024, semi-autoregressive decoding).
    /// The sample is a function of what the window holds, at the price of storing half a window once per half window.
    Recompute,
}

impl Window {
    /// How many of the last committed ids a restart keeps.
    pub fn keep(self, block: usize, train_length: usize) -> usize {
        match self {
            Self::Grow => usize::MAX,
            Self::Slide => (train_length - block) / block * block,
            Self::Recompute => train_length / 2,
        }
    }

    /// How many of the `held` stored ids to drop before a pass over `fresh` more (to store and open).
    pub fn drop(self, (held, fresh): (usize, usize), block: usize, train_length: usize) -> usize {
        match self {
            Self::Slide => (held + fresh).saturating_sub(train_length).div_ceil(block) * block,
            Self::Grow | Self::Recompute => 0,
        }
    }

    /// How many ids of a text of this length are stored at once, at most.
    pub fn most(self, length: usize, train_length: usize) -> usize {
        if self == Self::Grow { length } else { length.min(train_length) }
    }

    /// Refuses a window that would leave a block without anything to see. `length`: how long the text may become, prompt and
    /// whole last block included; `gaps`: how many masks the prompt holds.
    ///
    /// # Errors
    /// When the block is longer than the training length, or the text becomes longer than that and the window is too narrow.
    pub fn check(self, block: usize, train_length: usize, (length, gaps): (usize, usize)) -> Result<()> {
        if block == 0 || block > train_length {
            return Err(Error::value("block", format!("1 to {train_length} (the training length)"), block.to_string()));
        }
        if length <= train_length || self == Self::Grow {
            return Ok(());
        }
        let least = if self == Self::Slide { 2 * block } else { 2 };
        if train_length < least {
            let expected = format!("a training length of at least {least} for texts of {length} tokens");
            return Err(Error::value("window", expected, train_length.to_string()));
        }
        if self == Self::Slide && gaps > 0 {
            let expected = format!("at most {train_length} tokens (the training length) in a prompt with gaps");
            return Err(Error::value("window", expected, length.to_string()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sliding_window_drops_whole_blocks_and_only_what_it_must() {
        for (held, fresh, dropped) in [(0, 4, 0), (12, 4, 0), (8, 8, 0), (12, 8, 4), (16, 8, 8), (13, 4, 4)] {
            assert_eq!(Window::Slide.drop((held, fresh), 4, 16), dropped, "{held} {fresh}");
            assert_eq!(Window::Grow.drop((held, fresh), 4, 16), 0);
        }
        assert_eq!(Window::Slide.keep(4, 18), 12);
    }

    #[test]
    fn windows_without_context_are_refused() {
        assert!(Window::Slide.check(16, 16, (32, 0)).is_err());
        assert!(Window::Slide.check(16, 16, (16, 0)).is_ok());
        assert!(Window::Slide.check(8, 16, (32, 0)).is_ok());
        assert!(Window::Slide.check(8, 16, (32, 1)).is_err());
        assert!(Window::Recompute.check(16, 16, (32, 0)).is_ok());
        assert!(Window::Recompute.check(1, 1, (2, 0)).is_err());
        assert!(Window::Grow.check(32, 16, (8, 0)).is_err());
        assert!(Window::Grow.check(0, 16, (8, 0)).is_err());
    }
}
