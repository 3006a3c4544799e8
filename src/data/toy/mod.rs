//! Short stories from a small grammar of our own, so that a clone can train with no download and compare what a model
//! reaches with what can be reached: every story comes with its exact -ln p, and the source's entropy is known exactly.
//!
//! A story's text determines all choices that made it (no alternative of a choice begins another one), so -ln p of the text
//! is the sum of -ln of the choices' probabilities, and [`read`] can say of any text whether it is a story at all. Who is in
//! a story, where, with what and why stays the same to its end: there is something to learn beyond the next word.

mod grammar;
#[rustfmt::skip]
mod stories;
mod walk;

use std::sync::LazyLock;

use crate::rng::Rng;
use grammar::Grammar;

/// A story and how surprising it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// Plain English, one paragraph of 60 to 150 words.
    pub text: String,
    /// -ln p of the text under the grammar.
    pub nats: f64,
}

static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| Grammar::parse(stories::TABLES, stories::RULES, stories::START));

/// Draws a story.
pub fn story(rng: &mut Rng) -> Story {
    let (text, nats) = GRAMMAR.draw(rng);
    Story { text, nats }
}

/// The expectation of [`Story::nats`], exact: no model can have a lower mean over stories.
pub fn entropy() -> f64 {
    GRAMMAR.entropy()
}

/// -ln p of a text under the grammar.
///
/// # Errors
/// For a text that is no story, the byte at which it leaves the grammar (the length, for one that stops too soon).
pub fn read(text: &str) -> Result<f64, usize> {
    GRAMMAR.read(text)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_mean_over_stories_is_the_entropy() {
        let mut rng = Rng::new(5).split("toy");
        let n = 20_000;
        let nats: Vec<f64> = (0..n).map(|_| story(&mut rng).nats).collect();
        let mean = nats.iter().sum::<f64>() / n as f64;
        let var = nats.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
        let error = (var / n as f64).sqrt();
        assert!((mean - entropy()).abs() < 4.0 * error, "mean {mean} +- {error}, entropy {}", entropy());
    }

    #[test]
    fn a_text_determines_its_choices() {
        let mut rng = Rng::new(6).split("toy");
        for _ in 0..3_000 {
            let story = story(&mut rng);
            let nats = read(&story.text).unwrap_or_else(|at| panic!("{}", &story.text[at..]));
            assert!((nats - story.nats).abs() < 1e-9, "{}", story.text);
            assert_eq!(GRAMMAR.conflict(&story.text), None, "{}", story.text);
        }
    }

    #[test]
    fn stories_are_short_plain_and_varied() {
        let mut rng = Rng::new(7).split("toy");
        let (mut words, mut texts) = (HashSet::new(), HashSet::new());
        for _ in 0..5_000 {
            let text = story(&mut rng).text;
            let count = text.split_whitespace().count();
            assert!((60..=150).contains(&count), "{count} words: {text}");
            assert!(
                text.is_ascii() && !text.contains("  ") && !text.contains(['[', ']', '{', '}', '<', '>', '|']),
                "{text}"
            );
            words.extend(text.split_whitespace().map(|w| w.trim_matches(|c: char| !c.is_alphabetic()).to_lowercase()));
            texts.insert(text);
        }
        assert!(words.len() > 300, "{} words", words.len());
        assert_eq!(texts.len(), 5_000);
    }

    #[test]
    fn what_is_no_story_is_told_where() {
        let text = story(&mut Rng::new(8)).text;
        assert_eq!(read(&text[..text.len() - 5]), Err(text.len() - 5));
        assert_eq!(read(&format!("{text} More.")), Err(text.len()));
        assert_eq!(read("Call me Ishmael."), Err(0));
    }
}
