//! Stop rules: when a sample ends, and where it is cut. Judged after each committed block.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::event::Reason;
use crate::likelihood::judge::entropy;

/// How many of the last tokens the entropy rule looks at.
pub(super) const ENTROPY_WINDOW: usize = 256;

/// Which rules may end a sample before its length does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stop {
    /// End of text: ends a sample at this id; the id itself is not part of the text.
    pub eos: Option<u32>,
    /// Low entropy: ends a sample whose last 256 tokens have a histogram of less entropy (nats), a sign of repetition.
    pub low_entropy: Option<f64>,
}

impl Stop {
    /// Refuses what is no entropy.
    ///
    /// # Errors
    /// When the least entropy is negative or not finite.
    pub fn check(&self) -> Result<()> {
        match self.low_entropy {
            Some(least) if !(least.is_finite() && least >= 0.0) => {
                Err(Error::value("least entropy", "a number of nats that is not negative", least.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// The verdict after a block is committed: the reason and the length that the text is cut to, or `None` to go on. `text`
    /// is everything committed; positions from `fresh` on are new; `limit` is the length asked for.
    pub fn judge(&self, text: &[u32], fresh: usize, limit: usize) -> Option<(Reason, usize)> {
        let end = text.len().min(limit);
        let eos = self.eos.and_then(|eos| (fresh..end).find(|&position| text[position] == eos));
        if let Some(position) = eos {
            return Some((Reason::Eos, position));
        }
        let low = |least| text.len() > ENTROPY_WINDOW && last_entropy(text) < least;
        if self.low_entropy.is_some_and(low) {
            return Some((Reason::Entropy, end));
        }
        (text.len() >= limit).then_some((Reason::Length, limit))
    }
}

/// Entropy in nats of the histogram of the last 256 ids.
pub(super) fn last_entropy(text: &[u32]) -> f64 {
    entropy(&text[text.len().saturating_sub(ENTROPY_WINDOW)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const EOS: u32 = 7;

    #[test]
    fn the_first_end_of_text_in_what_is_new_and_asked_for_ends() {
        let stop = Stop { eos: Some(EOS), low_entropy: None };
        let text = [EOS, 1, EOS, 3, EOS, 5];
        assert_eq!(stop.judge(&text, 3, 10), Some((Reason::Eos, 4)));
        assert_eq!(stop.judge(&text, 3, 4), Some((Reason::Length, 4)));
        assert_eq!(stop.judge(&text, 5, 10), None);
        assert_eq!(Stop::default().judge(&text, 3, 10), None);
        assert_eq!(Stop::default().judge(&text, 3, 6), Some((Reason::Length, 6)));
    }

    #[test]
    fn repetition_ends_once_a_whole_window_is_there() {
        let stop = Stop { eos: None, low_entropy: Some(1.0) };
        assert_eq!(stop.judge(&[1; 256], 0, 1000), None);
        assert_eq!(stop.judge(&[1; 257], 0, 1000), Some((Reason::Entropy, 257)));
        let varied: Vec<u32> = (0..300).collect();
        assert_eq!(stop.judge(&varied, 0, 1000), None);
    }

    #[test]
    fn entropy_of_a_uniform_histogram() {
        let ids: Vec<u32> = (0..64).flat_map(|id| [id; 4]).collect();
        assert!((entropy(&ids) - 64f64.ln()).abs() < 1e-12);
    }
}
