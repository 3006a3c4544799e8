//! How good generated text is, by numbers: perplexity under another model that reads it (generative perplexity, as in Arriola et
//! al. 2025, section 6.2, but of all tokens together, where they average the perplexities of samples), entropy of its tokens, and how
//! much of it is repeated. The last two tell what the first one hides: a judge likes text that says the same thing again and again.
//! Nothing here knows how text is made.

use std::collections::{HashMap, HashSet};

use super::{Likelihood, Noised, RowNats, Scorer};
use crate::arch::Objective;
use crate::block::Layout;
use crate::data::Batch;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::loss::Terms;
use crate::pass::Denoiser;
use crate::tokenizer::Tokenizer;

/// Tokens that count as a repetition when they were there before, in the same order.
pub const REPEATED: usize = 4;

/// Rows that a masked judge reads side by side, at most: each has a cache of its own.
const MOST_LANES: usize = 16;

/// A text to be judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passage {
    /// What stands in front and is not judged: a prompt.
    pub given: String,
    /// What is.
    pub text: String,
}

/// The passages of a sample: its `ids` are cut where a special id (an end of text, say) stands; `prompt` stands in front of the
/// first one. What is nothing but white space is left out.
pub fn passages(ids: &[u32], prompt: &str, tokenizer: &Tokenizer) -> Vec<Passage> {
    let special = tokenizer.special();
    let texts = ids.split(|&id| special.contains(id)).map(|ids| {
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| tokenizer.token_bytes(id)).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let given = std::iter::once(prompt).chain(std::iter::repeat(""));
    let all = texts.zip(given).map(|(text, given)| Passage { given: given.into(), text });
    all.filter(|passage| !passage.text.trim().is_empty()).collect()
}

/// A model that reads text: a next-token model, or a masked one at block size 1, which is autoregressive, too.
pub struct Judge<'a> {
    engine: &'a Engine,
    tokenizer: &'a Tokenizer,
}

/// What the judge reads in one go.
struct Reading {
    /// Which sample it belongs to.
    sample: usize,
    ids: Vec<u32>,
    /// The first position that is judged.
    from: usize,
}

impl<'a> Judge<'a> {
    /// A model and its tokenizer.
    pub fn new(engine: &'a Engine, tokenizer: &'a Tokenizer) -> Self {
        Self { engine, tokenizer }
    }

    /// How likely each sample is, in nats of the judge's tokens: its passages are encoded by the judge's tokenizer, whatever wrote
    /// them, and read one by one, each behind the judge's beginning of text, which is not judged itself. A judge without such a
    /// token has nothing to predict the first token from, which is then not judged. What is longer than the judge's length is
    /// read in pieces of that length.
    ///
    /// # Errors
    /// A text that the judge's tokenizer can't encode; when the model fails.
    pub fn read(&self, samples: &[Vec<Passage>]) -> Result<Vec<RowNats>> {
        let mut readings = Vec::new();
        for (sample, passages) in samples.iter().enumerate() {
            for passage in passages {
                self.pieces(passage, |ids, from| readings.push(Reading { sample, ids, from }))?;
            }
        }
        let nats = match self.engine.arch().objective {
            Objective::NextToken => readings.iter().map(|reading| self.read_on(reading)).collect::<Result<Vec<_>>>()?,
            _ => {
                let mut nats = Vec::with_capacity(readings.len());
                for readings in readings.chunks(MOST_LANES) {
                    nats.extend(self.unmask(readings)?);
                }
                nats
            }
        };
        let mut found = vec![RowNats::default(); samples.len()];
        for (reading, nats) in readings.iter().zip(nats) {
            let of = &mut found[reading.sample];
            of.nats += nats;
            of.tokens += reading.ids.len() - reading.from;
        }
        Ok(found)
    }

    /// The ids of a passage in pieces that the judge's length holds, each with the first position that is judged.
    fn pieces(&self, passage: &Passage, mut piece: impl FnMut(Vec<u32>, usize)) -> Result<()> {
        let given = self.tokenizer.encode(&passage.given)?;
        let ids = self.tokenizer.encode(&(passage.given.clone() + &passage.text))?;
        // Where text meets prompt, the tokenizer may join what neither has alone: that token is judged.
        let mut from = given.iter().zip(&ids).take_while(|(a, b)| a == b).count();
        let bos: Vec<u32> = self.tokenizer.special().bos.into_iter().collect();
        let room = self.engine.arch().length.saturating_sub(bos.len()).max(1);
        for ids in ids.chunks(room) {
            let first = (from.min(ids.len()) + bos.len()).max(1);
            from = from.saturating_sub(ids.len());
            if first < bos.len() + ids.len() {
                piece([&bos[..], ids].concat(), first);
            }
        }
        Ok(())
    }

    /// From left to right, many tokens a pass.
    fn read_on(&self, Reading { ids, from, .. }: &Reading) -> Result<f64> {
        let (engine, mut nats) = (self.engine, 0.0);
        engine.read(&mut engine.cache(1), &ids[..ids.len() - 1], |i, logits| {
            if i + 1 >= *from {
                nats += crate::loss::nll(logits, ids[i + 1], engine.mask_id());
            }
        })?;
        if nats.is_finite() {
            return Ok(nats);
        }
        Err(Error::Run(
            "the judge gives logits that are not numbers, or its tokenizer ids that it does not know".into(),
        ))
    }

    /// Block size 1: each position masked, given all before it.
    fn unmask(&self, readings: &[Reading]) -> Result<Vec<f64>> {
        let mask = self.engine.mask_id();
        let length = readings.iter().map(|reading| reading.ids.len()).max().unwrap_or(1);
        let mut batch = Batch::new(length);
        let mut weights = Vec::with_capacity(readings.len() * length);
        for Reading { ids, from, .. } in readings {
            batch.ids.extend(ids);
            batch.ids.resize((batch.rows + 1) * length, mask);
            batch.rows += 1;
            batch.valid.push(ids.len());
            weights.extend((0..length).map(|i| if (*from..ids.len()).contains(&i) { 1.0 } else { 0.0 }));
        }
        let xt = vec![mask; batch.ids.len()];
        let mut terms = Terms::masked(&batch.ids, &xt, mask, length, |i| weights[i]);
        terms.retain_weighted();
        self.engine.masked(&batch, Layout::new(length, 1)?, &[Noised { xt, terms }])
    }
}

/// What the numbers say of some samples.
#[derive(Clone, Debug)]
pub struct Quality {
    /// Nats of the judge's tokens, by sample.
    pub judged: Likelihood,
    /// Unigram entropy of a sample's own tokens in nats, mean over the samples.
    pub entropy: f64,
    /// Share of repeated 4-grams of a sample's own tokens, mean over the samples that have any.
    pub repetition: f64,
}

impl Quality {
    /// From what the judge found, and the samples' own ids.
    ///
    /// # Errors
    /// Samples without a token to judge.
    pub fn new<'a>(judged: Vec<RowNats>, samples: impl Iterator<Item = &'a [u32]> + Clone) -> Result<Self> {
        let documents = (0..judged.len()).collect();
        let judged = Likelihood { rows: judged, documents, exact: true, draws: 1 };
        if judged.tokens() == 0 {
            return Err(Error::Run("the samples have no token to judge: all of them ended at once".into()));
        }
        let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
        Ok(Self {
            judged,
            entropy: mean(samples.clone().map(entropy).collect()),
            repetition: mean(samples.filter_map(|ids| repetition(ids, REPEATED)).collect()),
        })
    }

    /// Standard error of the perplexity, over samples (to first order: that of the nats, times the perplexity).
    pub fn perplexity_stderr(&self) -> f64 {
        self.judged.perplexity() * self.judged.stderr()
    }
}

/// Entropy in nats of the histogram of some ids; 0 of none.
pub fn entropy(ids: &[u32]) -> f64 {
    let mut counts: HashMap<u32, u32> = HashMap::new();
    for &id in ids {
        *counts.entry(id).or_default() += 1;
    }
    // Summed in sorted order: the order of a hash map changes from run to run, and with it the last bits.
    let mut counts: Vec<u32> = counts.into_values().collect();
    counts.sort_unstable();
    let share = |count: u32| f64::from(count) / ids.len() as f64;
    // A sum of -0 is told as 0.
    counts.into_iter().map(|count| -share(count) * share(count).ln()).sum::<f64>() + 0.0
}

/// The share of `n`-grams that were there before (Welleck et al. 2020, seq-rep-n); `None` where there is no `n`-gram.
pub fn repetition(ids: &[u32], n: usize) -> Option<f64> {
    let grams = ids.windows(n.max(1));
    let count = grams.len();
    let distinct = grams.collect::<HashSet<_>>().len();
    (count > 0).then(|| 1.0 - distinct as f64 / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_is_that_of_the_histogram() {
        // Shares 1/2, 1/4, 1/4: 1.5 bits.
        assert!((entropy(&[7, 7, 1, 2]) - 1.5 * std::f64::consts::LN_2).abs() < 1e-15);
        assert!((entropy(&[0, 1, 2, 3, 4]) - 5f64.ln()).abs() < 1e-15);
        assert_eq!((entropy(&[3; 9]), entropy(&[])), (0.0, 0.0));
    }

    #[test]
    fn a_repeated_gram_is_one_that_was_there_before() {
        assert_eq!(repetition(&[1, 2, 3, 4, 5], 4), Some(0.0));
        // 1212, 2121, 1212, 2121, 1212: five, two of them distinct.
        assert_eq!(repetition(&[1, 2, 1, 2, 1, 2, 1, 2], 4), Some(0.6));
        assert_eq!(repetition(&[5; 8], 4), Some(0.8));
        assert_eq!((repetition(&[1, 2, 3], 4), repetition(&[], 4)), (None, None));
    }

    #[test]
    fn quality_is_a_mean_over_samples_and_a_ratio_over_tokens() {
        let rows = vec![RowNats { nats: 6.0, tokens: 2 }, RowNats { nats: 2.0, tokens: 2 }];
        let samples: [&[u32]; 2] = [&[5; 8], &[1, 2, 1]];
        let quality = Quality::new(rows, samples.into_iter()).unwrap();
        assert!((quality.judged.perplexity() - 2f64.exp()).abs() < 1e-12);
        // Two rows, each 2 nats off the mean of 4: sqrt(8 * 2 / 1) / 4 = 1.
        assert!((quality.judged.stderr() - 1.0).abs() < 1e-12);
        assert!((quality.perplexity_stderr() - 2f64.exp()).abs() < 1e-12);
        let (third, rest) = (1.0 / 3.0, 2.0 / 3.0);
        let second: f64 = -(third * f64::ln(third) + rest * f64::ln(rest));
        assert!((quality.entropy - second / 2.0).abs() < 1e-12);
        assert_eq!(quality.repetition, 0.8);
        let error = Quality::new(vec![RowNats::default()], std::iter::once(&[][..])).unwrap_err();
        assert!(error.to_string().contains("no token to judge"), "{error}");
    }

    #[test]
    fn a_sample_is_cut_where_a_text_ends() {
        let tokenizer = Tokenizer::bytes();
        let ids = [&b"one "[..], b"two"].map(|text| text.iter().map(|&b| u32::from(b)).collect::<Vec<_>>());
        let ids = [&ids[0][..], &[257, 256], &[32], &[257], &ids[1]].concat();
        let passage = |given: &str, text: &str| Passage { given: given.into(), text: text.into() };
        assert_eq!(passages(&ids, "Told: ", &tokenizer), [passage("Told: ", "one "), passage("", "two")]);
        assert_eq!(passages(&ids[4..], "Told: ", &tokenizer), [passage("", "two")]);
    }
}
