//! The one verb of decoding: a pass over lanes. A model stores finished ids (keys and values), scores open ids, and answers
//! one [`Proposal`] for each row asked for. Prefill, denoising, storing and several sequences side by side are all this one
//! call, so one counter counts passes. Nothing here decides which proposal is accepted (that is `sample`) and nothing here
//! knows how a model computes.

use std::sync::Arc;

use serde::Serialize;

use crate::error::{Error, Result};

mod classes;
mod propose;

pub use classes::{Class, Classes, classes};
pub use propose::{Query, cut, nucleus, propose};

/// How a row of logits becomes a distribution to draw from. Order: ban the mask id, temperature, nucleus, renormalise, draw.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Filter {
    /// Logits are divided by this; 0 means the most probable token.
    pub temperature: f64,
    /// Which tail is cut.
    pub nucleus: Nucleus,
}

impl Filter {
    /// The model's own distribution.
    pub const NONE: Self = Self { temperature: 1.0, nucleus: Nucleus::Off };
    /// Always the most probable token.
    pub const GREEDY: Self = Self { temperature: 0.0, nucleus: Nucleus::Off };

    /// Refuses what is no filter.
    ///
    /// # Errors
    /// When the temperature is negative or not finite, or a nucleus probability does not lie in (0, 1].
    pub fn check(&self) -> Result<()> {
        if !((self.temperature as f32).is_finite() && self.temperature >= 0.0) {
            return Err(Error::value(
                "temperature",
                "a number that is not negative, up to 3e38",
                self.temperature.to_string(),
            ));
        }
        match self.nucleus {
            Nucleus::Usual(p) | Nucleus::Strict(p) if !(p > 0.0 && p <= 1.0) => {
                Err(Error::value("top-p", "a number in (0, 1]", p.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// Nucleus filtering (Holtzman et al. 2020), in the two variants that are in use.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Nucleus {
    /// Keep everything.
    Off,
    /// Keep the smallest set whose probability reaches `p`: the token that crosses `p` is kept.
    Usual(f64),
    /// The official BD3-LM rule: keep tokens whose cumulative probability is at most `p` (the one that crosses is dropped),
    /// and always the most probable one.
    Strict(f64),
}

/// Which open rows to answer for, and how.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Rows of the open ids, ascending, each below `open.len()`.
    pub rows: Vec<usize>,
    /// One uniform number in [0, 1) per row: the draw.
    pub uniforms: Vec<f64>,
    /// How logits become a distribution.
    pub filter: Filter,
    /// How many most probable alternatives to report per row (0: none).
    pub alternatives: usize,
    /// Ids by row, whose probability is reported as [`Proposal::standing`]; none: the ids that stand there now.
    pub standing: Vec<u32>,
    /// Added to the logits of these ids before anything else, in every row.
    pub bias: Bias,
    /// What a constraint wants to know of these rows, if there is one.
    pub classes: Option<Classes>,
}

/// Ids, ascending, and what is added to their logits.
pub type Bias = Arc<[(u32, f32)]>;

impl Ask {
    /// Asks for nothing.
    pub fn none() -> Self {
        Self::new(Vec::new(), Vec::new(), Filter::GREEDY)
    }

    /// Asks for these rows, with a uniform each.
    pub fn new(rows: Vec<usize>, uniforms: Vec<f64>, filter: Filter) -> Self {
        Self { rows, uniforms, filter, alternatives: 0, standing: Vec::new(), bias: Bias::default(), classes: None }
    }

    /// Refuses rows that are not open, and rows without a uniform number each.
    ///
    /// # Errors
    /// As said.
    pub fn check(&self, open: usize) -> Result<()> {
        if let Some(row) = self.rows.iter().find(|&&row| row >= open) {
            return Err(Error::Run(format!("row {row} is asked for, {open} are open")));
        }
        if self.rows.len() != self.uniforms.len() {
            let (rows, found) = (self.rows.len(), self.uniforms.len());
            return Err(Error::Run(format!(
                "{rows} rows are asked for with {found} uniform numbers: expected one each"
            )));
        }
        if let Some(classes) = &self.classes {
            let known = classes.allowed.iter().map(Vec::len).filter(|&count| count > 0).min().unwrap_or(usize::MAX);
            if classes.allowed.len() != self.rows.len() || classes.of.iter().any(|&class| class as usize >= known) {
                let rows = self.rows.len();
                return Err(Error::Run(format!("classes of tokens that do not fit the {rows} rows asked for")));
            }
        }
        Ok(())
    }

    /// What to ask of the `index`-th row, for a model that answers with [`propose`].
    ///
    /// # Panics
    /// If [`Ask::check`] refuses this.
    pub fn query(&self, index: usize, open: &[u32], mask_id: u32) -> Query<'_> {
        let row = self.rows[index];
        Query {
            row,
            standing: self.standing.get(index).copied().unwrap_or(open[row]),
            uniform: self.uniforms[index],
            filter: self.filter,
            alternatives: self.alternatives,
            mask_id,
            classes: self
                .classes
                .as_ref()
                .map(|classes| (&*classes.of, &*classes.allowed[index]))
                .filter(|(_, allowed)| !allowed.is_empty()),
        }
    }
}

/// What the model says about one row of the open block.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Row in the open block.
    pub row: usize,
    /// The token drawn.
    pub token: u32,
    /// Its probability before temperature and nucleus (the mask id banned).
    pub raw_prob: f64,
    /// Its probability after temperature and nucleus.
    pub prob: f64,
    /// Entropy in nats of the distribution before temperature and nucleus.
    pub entropy: f64,
    /// The most probable other token and its probability, before temperature and nucleus.
    pub runner_up: (u32, f64),
    /// Probability of the id that stands in this row now, or of the one that [`Ask::standing`] names, before temperature and nucleus
    /// (0 for the mask id).
    pub standing: f64,
    /// The most probable tokens, best first, before temperature and nucleus.
    pub alternatives: Vec<(u32, f64)>,
    /// What [`Ask::classes`] asks for: the allowed classes, ascending.
    pub classes: Vec<Class>,
}

/// Where a lane's open ids stand. Either way they are not written to the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// One block, directly after the stored ids. It sees the cache, the stored ids and itself.
    #[default]
    After,
    /// Whole blocks, as many as they are, at the positions of the last stored blocks. Each sees the cache, the stored blocks before
    /// its own, not the one in whose place it stands, and itself: training's noised half beside the clean one, so that one pass
    /// scores many blocks of a text that is known. For models that fill masks, without a guide.
    Beside,
}

/// One sequence in a pass.
pub struct Lane<'a, C> {
    /// Keys and values of the blocks stored so far.
    pub cache: &'a mut C,
    /// Finished ids to store, in front of the open ones: whole blocks, directly after what the cache holds.
    pub store: &'a [u32],
    /// The open ids (may be empty: store only).
    pub open: &'a [u32],
    /// Where they stand.
    pub place: Place,
    /// Which rows to answer for.
    pub ask: &'a Ask,
    /// Answers are led away from what another context would give.
    pub guide: Option<Guide<'a, C>>,
}

/// Classifier-free guidance (Ho and Salimans 2022; for masked diffusion Nie et al. 2025, LLaDA): the same rows are scored a second time
/// in a context that lacks the condition, and the answers come from `logits + weight * (logits - those)`.
pub struct Guide<'a, C> {
    /// Keys and values of the context without the condition.
    pub cache: &'a mut C,
    /// As [`Lane::store`], in that context.
    pub store: &'a [u32],
    /// As [`Lane::open`]: as long as the lane's.
    pub open: &'a [u32],
    /// How far; 0 changes nothing.
    pub weight: f32,
}

impl<'a, C> Lane<'a, C> {
    /// A lane without a guide, open after what is stored.
    pub fn new(cache: &'a mut C, store: &'a [u32], open: &'a [u32], ask: &'a Ask) -> Self {
        Self { cache, store, open, place: Place::After, ask, guide: None }
    }

    /// Rows that a pass computes for it.
    pub fn rows(&self) -> usize {
        let own = self.store.len() + self.open.len();
        own + self.guide.as_ref().map_or(0, |guide| guide.store.len() + guide.open.len())
    }
}

/// A sequence's stored keys and values. They belong to one model and one block size.
pub trait Cache {
    /// So many positions may come to be held: a cache that would otherwise grow by more than it needs can make room for them.
    fn reserve(&mut self, positions: usize) {
        let _ = positions;
    }
    /// Number of positions ever stored, that is the absolute position of the next id.
    fn end(&self) -> usize;
    /// Number of positions held now (less than `end` after `drop_oldest`).
    fn held(&self) -> usize;
    /// Forget everything from absolute position `end` on. It must lie on a block border and inside what is held.
    fn truncate(&mut self, end: usize);
    /// Forget the oldest `count` held positions; the others keep their absolute, rotated keys.
    fn drop_oldest(&mut self, count: usize);
    /// Cut back to the longest beginning that is equal to `ids`, in whole blocks, and give its length: what a later request need
    /// not store again. A cache that has dropped its oldest positions keeps nothing.
    fn keep_equal(&mut self, ids: &[u32]) -> usize;
}

/// A model that decodes.
pub trait Denoiser {
    /// Its cache.
    type Cache: Cache;

    /// The id of the mask.
    fn mask_id(&self) -> u32;

    /// An empty cache for one sequence decoded at this block size.
    fn cache(&self, block: usize) -> Self::Cache;

    /// One forward evaluation over all lanes: store, score, answer. Answers come lane by lane, the proposals of each in the order of
    /// `ask.rows`. A lane that the model has no answer for (a logit that is no number, say) has its own error; the others have theirs
    /// all the same.
    ///
    /// # Errors
    /// What concerns all of them: lanes that mean nothing to the model, a model that is broken.
    fn each(&self, lanes: &mut [Lane<'_, Self::Cache>]) -> Result<Vec<Result<Vec<Proposal>>>>;

    /// The same for lanes that belong together, so that one without an answer fails for all.
    ///
    /// # Errors
    /// As [`Denoiser::each`], and the first lane's that has one.
    fn pass(&self, lanes: &mut [Lane<'_, Self::Cache>]) -> Result<Vec<Vec<Proposal>>> {
        self.each(lanes)?.into_iter().collect()
    }
}
