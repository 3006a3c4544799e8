//! What a curve compares: rules with their knobs, each at the block sizes where it says something. A rule more is a line more.

use bd3::{Error, Result};

/// A way to write.
pub struct Entry {
    /// Its name in tables and pictures.
    pub label: &'static str,
    /// The block size from which on it differs from first hitting.
    pub from: usize,
    /// Flags of `bd3 sample`; `{block/2}` becomes a half of the block size, and so on.
    pub flags: &'static str,
}

/// All of them, those that need most passes first.
pub const GRID: &[Entry] = &[
    Entry { label: "first-hitting", from: 1, flags: "--rule first-hitting" },
    Entry { label: "ancestral 2 a pass", from: 4, flags: "--rule ancestral --steps {block/2}" },
    Entry { label: "confidence 2 a pass", from: 4, flags: "--rule confidence --steps {block/2}" },
    Entry { label: "confidence 4 a pass", from: 4, flags: "--rule confidence --steps {block/4}" },
    Entry { label: "entropy bound 0.1", from: 4, flags: "--rule entropy-bound --bound 0.1" },
    Entry { label: "factor 1", from: 4, flags: "--rule factor --factor 1" },
    Entry { label: "threshold 0.9", from: 4, flags: "--rule threshold --threshold 0.9" },
    Entry { label: "threshold 0.5", from: 4, flags: "--rule threshold --threshold 0.5" },
    Entry { label: "threshold 0.2", from: 4, flags: "--rule threshold --threshold 0.2" },
];

impl Entry {
    /// The name of its rule.
    pub fn rule(&self) -> &'static str {
        let mut words = self.flags.split(' ').skip_while(|word| *word != "--rule");
        words.nth(1).unwrap_or_default()
    }

    /// Its flags at a block size.
    pub fn at(&self, block: usize) -> Vec<String> {
        let word = |word: &str| match word.strip_prefix("{block/").and_then(|rest| rest.strip_suffix('}')) {
            Some(parts) => parts.parse().map_or(word.to_string(), |parts: usize| (block / parts).max(1).to_string()),
            None => word.to_string(),
        };
        let flags = ["--block".into(), block.to_string()].into_iter();
        flags.chain(self.flags.split(' ').map(word)).collect()
    }
}

/// The entries of some rules, or of all.
///
/// # Errors
/// A rule that has no entry.
pub fn of_rules(rules: &[String]) -> Result<Vec<&'static Entry>> {
    if let Some(rule) = rules.iter().find(|rule| GRID.iter().all(|entry| entry.rule() != *rule)) {
        let mut known: Vec<&str> = GRID.iter().map(Entry::rule).collect();
        known.dedup();
        return Err(Error::value("--rule", format!("some of {}", known.join(", ")), format!("`{rule}`")));
    }
    Ok(GRID.iter().filter(|entry| rules.is_empty() || rules.iter().any(|rule| rule == entry.rule())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SampleArgs;

    #[test]
    fn every_entry_is_understood_at_every_block_size() {
        let model = crate::model::open(None).unwrap();
        for entry in GRID {
            for block in [4, 8, 32, 256] {
                let args = SampleArgs::within(&entry.at(block)).unwrap();
                let job = args.job(&model).unwrap();
                assert_eq!((job.options.block, job.options.rule.name()), (block, entry.rule()), "{}", entry.label);
            }
        }
    }

    #[test]
    fn flags_follow_the_block_size() {
        let entry = Entry { label: "", from: 4, flags: "--rule confidence --steps {block/4}" };
        assert_eq!(entry.at(32).join(" "), "--block 32 --rule confidence --steps 8");
        assert_eq!(entry.at(2).join(" "), "--block 2 --rule confidence --steps 1");
        let error = of_rules(&["luck".into()]).err().unwrap().to_string();
        assert!(
            error.contains("--rule: expected some of first-hitting, ") && error.ends_with("found `luck`"),
            "{error}"
        );
        assert_eq!(of_rules(&["threshold".into()]).unwrap().len(), 3);
    }
}
