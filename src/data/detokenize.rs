//! Detokenizers of the zero-shot sets: they undo the token spacing in which these corpora are published, so that
//! perplexities compare with the published ones. Behaviour as in the official code, quirks included (held by goldens);
//! the rules of a set are applied one after the other, so their order matters.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

use crate::{Error, Result};

/// A zero-shot set whose spacing is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detokenizer {
    /// WikiText-2 and WikiText-103.
    Wikitext,
    /// Penn Treebank.
    Ptb,
    /// One Billion Words.
    Lm1b,
    /// LAMBADA as OpenAI published it.
    Lambada,
    /// Papers of PubMed and arXiv: WikiText's rules, then those of One Billion Words.
    ScientificPapers,
}

impl Detokenizer {
    /// All of them with the names by which a command line knows them.
    pub const NAMES: [(&'static str, Detokenizer); 5] = [
        ("wikitext", Detokenizer::Wikitext),
        ("ptb", Detokenizer::Ptb),
        ("lm1b", Detokenizer::Lm1b),
        ("lambada", Detokenizer::Lambada),
        ("scientific-papers", Detokenizer::ScientificPapers),
    ];

    /// By name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn named(name: &str) -> Result<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, d)| *d).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            Error::value("detokenizer", names.join(", "), format!("`{name}`"))
        })
    }

    /// The text as it would be written.
    pub fn apply(self, text: &str) -> String {
        match self {
            Detokenizer::Wikitext => run(&WIKITEXT, text),
            Detokenizer::Ptb => run(&PTB, text),
            Detokenizer::Lm1b => run(&LM1B, text),
            Detokenizer::Lambada => format!("\n{}", run(&LAMBADA, text).trim()),
            Detokenizer::ScientificPapers => run(&LM1B, &run(&WIKITEXT, text)),
        }
    }
}

/// One step of a chain.
enum Rule {
    /// Every occurrence, left to right.
    Text(&'static str, &'static str),
    /// Every match, left to right.
    Pattern(Regex, &'static str),
}

fn run(rules: &[Rule], text: &str) -> String {
    rules.iter().fold(text.to_string(), |text, rule| match rule {
        Rule::Text(from, to) => text.replace(from, to),
        Rule::Pattern(pattern, to) => match pattern.replace_all(&text, *to) {
            Cow::Borrowed(_) => text,
            Cow::Owned(changed) => changed,
        },
    })
}

fn text_rules(pairs: &[(&'static str, &'static str)]) -> impl Iterator<Item = Rule> {
    pairs.iter().map(|&(from, to)| Rule::Text(from, to))
}

fn pattern_rules(pairs: &[(&str, &'static str)]) -> impl Iterator<Item = Rule> {
    pairs.iter().map(|&(pattern, to)| {
        #[expect(clippy::expect_used, reason = "the patterns are constants of this file, all built by its tests")]
        Rule::Pattern(Regex::new(pattern).expect("a valid pattern"), to)
    })
}

static WIKITEXT: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    // Python's \s also takes the four ASCII separators 1c..1f.
    let brackets = [
        (r"\([\s\x1c-\x1f]*([^)]*?)[\s\x1c-\x1f]*\)", "($1)"),
        (r"\[[\s\x1c-\x1f]*([^\]]*?)[\s\x1c-\x1f]*\]", "[$1]"),
        (r"\{[\s\x1c-\x1f]*([^}]*?)[\s\x1c-\x1f]*\}", "{$1}"),
        ("\"[\\s\\x1c-\\x1f]*([^\"]*?)[\\s\\x1c-\\x1f]*\"", "\"$1\""),
        (r"'[\s\x1c-\x1f]*([^']*?)[\s\x1c-\x1f]*'", "'$1'"),
    ];
    text_rules(&[("s '", "s'")])
        // A slip of the original: this matches the slashes too, and writes the class out.
        .chain(pattern_rules(&[("/' [0-9]/", "/'[0-9]/")]))
        .chain(text_rules(&[(" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", ".")]))
        .chain(text_rules(&[(" : ", ": "), (" ; ", "; "), (" . ", ". "), (" ! ", "! "), (" ? ", "? "), (" , ", ", ")]))
        .chain(pattern_rules(&brackets))
        .chain(text_rules(&[("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" \u{b0} ", "\u{b0}")]))
        .chain(text_rules(&[(" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s")]))
        .collect()
});

static PTB: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let contractions = [(" 's", "'s"), ("s ' ", "s' "), (" n't", "n't"), (" \n ", "\n"), ("\\/", "/")];
    // Neighbouring numbers share a space, so that one round misses every second one: the original goes round ten times,
    // and after two nothing is left to change.
    text_rules(&contractions)
        .chain(text_rules(&[(" N ", " 1 "); 2]))
        .chain(text_rules(&[("$ 1", "$1"), ("# 1", "#1"), ("<unk>", "?")]))
        .collect()
});

static LM1B: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    // Python's `$` also matches before a final newline, which then stays.
    text_rules(&[("http : / / ", "http://"), ("https : / / ", "https://")])
        .chain(pattern_rules(&[(r" '(\w+)", "'$1"), (r" (\w+) \. ", " $1. "), (r" (\w+) \.(\n?)\z", " $1.$2")]))
        .chain(text_rules(&[(" ? ", "? ")]))
        .chain(pattern_rules(&[(r" \?(\n?)\z", "?$1")]))
        .chain(text_rules(&[(" ! ", "! ")]))
        .chain(pattern_rules(&[(r" !(\n?)\z", "!$1")]))
        .chain(text_rules(&[(" , ", ", "), (" : ", ": "), (" ; ", "; "), (" / ", "/")]))
        .chain(pattern_rules(&[
            ("\" ([^\"]+) \"", "\"$1\""),
            ("' ([^']+) '", "'$1'"),
            (r"\( ([^()]+) \)", "($1)"),
            (r"\[ ([^\[\]]+) \]", "[$1]"),
        ]))
        .chain(text_rules(&[("$ ", "$"), ("£ ", "£")]))
        .collect()
});

static LAMBADA: LazyLock<Vec<Rule>> = LazyLock::new(|| text_rules(&[("“", "\""), ("”", "\"")]).collect());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_numbers_are_all_found() {
        assert_eq!(Detokenizer::Ptb.apply("a N N N N N b $ N c"), "a 1 1 1 1 1 b $1 c");
    }

    #[test]
    fn a_final_newline_does_not_hide_the_end() {
        assert_eq!(Detokenizer::Lm1b.apply("is it so ?\n"), "is it so?\n");
        assert_eq!(Detokenizer::Lm1b.apply("it is so .\n"), "it is so.\n");
    }

    #[test]
    fn names_are_known_or_refused() {
        assert_eq!(Detokenizer::named("ptb").unwrap(), Detokenizer::Ptb);
        assert!(Detokenizer::named("pbt").unwrap_err().to_string().contains("wikitext, ptb"));
    }
}
