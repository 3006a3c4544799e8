//! Counts on the command line. What no run could ever reach is a slip of the finger, refused before anything is read.

use bd3::engine::MOST_THREADS;

/// The most of anything: at a thousand a second, eleven days.
const MOST: u64 = 1_000_000_000;
/// Samples to judge: each is kept until all are there.
const MOST_SAMPLES: u64 = 1_000_000;

/// How many of something, none included.
pub fn count(text: &str) -> Result<u64, String> {
    within(text, 0, MOST)
}

/// How many of something that must not be missing.
pub fn some(text: &str) -> Result<u64, String> {
    within(text, 1, MOST)
}

/// How many samples that are kept.
pub fn samples(text: &str) -> Result<u64, String> {
    within(text, 1, MOST_SAMPLES)
}

/// How many levels of noise, 0 and 1 included: as many as the server gives.
pub fn levels(text: &str) -> Result<usize, String> {
    sized(within(text, 2, 101)?)
}

/// The same as [`some`], as sizes are counted.
pub fn some_size(text: &str) -> Result<usize, String> {
    sized(some(text)?)
}

/// The same as [`count`], as sizes are counted.
pub fn size(text: &str) -> Result<usize, String> {
    sized(count(text)?)
}

/// How many threads; 0: one for each core.
pub fn threads(text: &str) -> Result<usize, String> {
    sized(within(text, 0, MOST_THREADS as u64)?)
}

fn within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let refused = || format!("expected a whole number from {least} to {most}");
    text.trim().parse().ok().filter(|count| (least..=most).contains(count)).ok_or_else(refused)
}

fn sized(count: u64) -> Result<usize, String> {
    usize::try_from(count).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_mean_nothing_are_refused() {
        assert_eq!((count("0"), some("1"), size("1000000000")), (Ok(0), Ok(1), Ok(1_000_000_000)));
        for refused in ["1000000001", "1000000000000000000", "99999999999999999999999", "-1", "x", ""] {
            assert!(count(refused).is_err() && some(refused).is_err() && size(refused).is_err(), "{refused}");
        }
        assert_eq!((some_size(" 4"), samples("16")), (Ok(4), Ok(16)));
        assert!(samples("1000001").is_err() && some_size("0").is_err());
        assert!(some("0").is_err() && threads("257").is_err());
        assert_eq!(threads("256"), Ok(256));
    }
}
