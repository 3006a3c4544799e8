//! Counts on the command line. What no run could ever reach is a slip of the finger, refused before anything is read.

/// The most of anything: at a thousand a second, eleven days.
const MOST: u64 = 1_000_000_000;
/// Threads that an engine takes.
const MOST_THREADS: u64 = 256;

/// How many of something, none included.
pub fn count(text: &str) -> Result<u64, String> {
    within(text, 0, MOST)
}

/// How many of something that must not be missing.
pub fn some(text: &str) -> Result<u64, String> {
    within(text, 1, MOST)
}

/// The same, as sizes are counted.
pub fn size(text: &str) -> Result<usize, String> {
    sized(count(text)?)
}

/// How many threads; 0: one for each core.
pub fn threads(text: &str) -> Result<usize, String> {
    sized(within(text, 0, MOST_THREADS)?)
}

fn within(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let refused = || format!("expected a whole number from {least} to {most}");
    text.parse().ok().filter(|count| (least..=most).contains(count)).ok_or_else(refused)
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
        assert!(some("0").is_err() && threads("257").is_err());
        assert_eq!(threads("256"), Ok(256));
    }
}
