//! Which documents are for training, which for validation, which for the test. A document's split is a function of its
//! text and the seed alone: it does not depend on the order of the files, and two copies of one document never lie on both
//! sides.

use sha2::{Digest, Sha256};

use crate::{Error, Result};

/// A part of a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Split {
    /// `train.bin`.
    Train,
    /// `valid.bin`.
    Valid,
    /// `test.bin`.
    Test,
}

impl Split {
    /// All of them, in the order of the shares.
    pub const ALL: [Split; 3] = [Split::Train, Split::Valid, Split::Test];

    /// The name, also of its file.
    pub fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Valid => "valid",
            Split::Test => "test",
        }
    }
}

/// The shares of the three splits, summing to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares([f64; 3]);

impl Shares {
    /// From `98,1,1`: train, valid, test, in any unit.
    ///
    /// # Errors
    /// Anything but three numbers that are not negative, one of them positive.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = || Error::value("split", "three shares such as 98,1,1", format!("`{text}`"));
        let shares: Vec<f64> =
            text.split(',').map(|part| part.trim().parse().map_err(|_| refused())).collect::<Result<_>>()?;
        let shares: [f64; 3] = shares.try_into().map_err(|_| refused())?;
        let sum: f64 = shares.iter().sum();
        if shares.iter().any(|share| !share.is_finite() || *share < 0.0) || sum <= 0.0 || !sum.is_finite() {
            return Err(refused());
        }
        Ok(Self(shares.map(|share| share / sum)))
    }

    /// The share of a split, in [0, 1].
    pub fn of(&self, split: Split) -> f64 {
        self.0[split as usize]
    }

    /// Where a document belongs.
    pub fn split(&self, seed: u64, text: &str) -> Split {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(text.as_bytes());
        let digest: [u8; 32] = hash.finalize().into();
        let bits = u64::from_le_bytes([
            digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7],
        ]);
        let point = (bits >> 11) as f64 / (1u64 << 53) as f64;
        let mut end = 0.0;
        let mut last = Split::Train;
        for split in Split::ALL {
            if self.of(split) > 0.0 {
                end += self.of(split);
                last = split;
                if point < end {
                    return split;
                }
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_met_and_copies_stay_together() {
        let shares = Shares::parse("8, 1,1").unwrap();
        let mut counts = [0usize; 3];
        for i in 0..10_000 {
            let text = format!("document {i}");
            let split = shares.split(3, &text);
            assert_eq!(split, shares.split(3, &text));
            counts[split as usize] += 1;
        }
        assert!((7800..8200).contains(&counts[0]) && (850..1150).contains(&counts[1]), "{counts:?}");
        let only = Shares::parse("0,0,5").unwrap();
        assert_eq!(only.split(3, "a"), Split::Test);
    }

    #[test]
    fn what_is_no_split_is_refused() {
        for text in ["", "98", "98,1", "98,1,x", "-1,1,1", "0,0,0", "1,1,1,1", "nan,1,1", "inf,1,1"] {
            assert!(Shares::parse(text).is_err(), "{text}");
        }
    }
}
