//! How a sample is made, and what that means for its canvas and cache.

use serde::Serialize;

use super::{Budget, Canvas, Revise, Rule, Stop, Window};
use crate::constraint::Constraint;
use crate::error::{Error, Result};
use crate::pass::{Bias, Filter};

/// Ways from state to state over all rows of a block, at most, for a constraint: some tenths of a second a pass.
const MOST_WAYS: usize = 1 << 22;

/// How a sample is made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SampleOptions {
    /// Block size. The open block always has full size, as in training; the text is cut afterwards.
    pub block: usize,
    /// New tokens after the prompt, at most.
    pub max_new: usize,
    /// Which rows become known in a pass.
    pub rule: Rule,
    /// What a block may cost.
    pub budget: Budget,
    /// What happens to rows that are known.
    pub revise: Revise,
    /// How logits become a distribution.
    pub filter: Filter,
    /// Added to logits; a bias of minus infinity would be no number, -1000 bans a token.
    pub bias: Bias,
    /// What the new text has to match as a whole. It is whole within `max_new` tokens, if nothing else ends it.
    pub constraint: Option<Constraint>,
    /// Classifier-free guidance away from the same text without its prompt (see [`crate::pass::Guide`]); 0: none.
    pub guidance: f32,
    /// The most probable tokens to report with each edit.
    pub alternatives: usize,
    /// The length that the model was trained for.
    pub train_length: usize,
    /// What happens past it.
    pub window: Window,
    /// What ends a sample early.
    pub stop: Stop,
}

impl SampleOptions {
    /// The model's own distribution, no revision, no limit but the length, and a window that grows.
    pub fn new(block: usize, max_new: usize, rule: Rule) -> Self {
        Self {
            block,
            max_new,
            rule,
            budget: Budget::default(),
            revise: Revise::None,
            filter: Filter::NONE,
            bias: Bias::default(),
            constraint: None,
            guidance: 0.0,
            alternatives: 0,
            train_length: usize::MAX,
            window: Window::Grow,
            stop: Stop::default(),
        }
    }

    /// Refuses what cannot be done with this prompt; gives the length that the whole text may have, in whole blocks.
    ///
    /// # Errors
    /// As said: a prompt that does not begin with a token, an option out of range.
    pub fn check(&self, prompt: &[u32], mask_id: u32) -> Result<usize> {
        if prompt.first().is_none_or(|&bos| bos == mask_id) {
            let found = if prompt.is_empty() { "no token" } else { "the mask" };
            return Err(Error::value("prompt", "a first token (beginning of text)", found));
        }
        self.rule.check()?;
        self.budget.check()?;
        self.revise.check(self)?;
        self.filter.check()?;
        if let Some((id, bias)) = self.bias.iter().find(|(_, bias)| !bias.is_finite()) {
            return Err(Error::value("bias", "finite numbers", format!("{bias} for id {id}")));
        }
        self.stop.check()?;
        if !(self.guidance.is_finite() && self.guidance >= 0.0) {
            return Err(Error::value("guidance", "a weight that is not negative", self.guidance.to_string()));
        }
        self.check_constraint(prompt, mask_id)?;
        if self.revise.look_back().is_some() && self.max_new == 0 && prompt.len() <= self.block {
            let expected = format!("another one for a template within one block of {}", self.block);
            return Err(Error::value("revision", expected, "look-back, which reads what stands before the last block"));
        }
        let gaps = prompt.iter().filter(|&&id| id == mask_id).count();
        // Whole blocks, as the last one is decoded whole. The window refuses a block of 0.
        let length = prompt.len().checked_add(self.max_new);
        let length = length.and_then(|length| length.checked_next_multiple_of(self.block.max(1)));
        let length = length
            .ok_or_else(|| Error::value("new tokens", "a number that memory can hold", self.max_new.to_string()))?;
        self.window.check(self.block, self.train_length, (length, gaps))?;
        Ok(length)
    }

    fn check_constraint(&self, prompt: &[u32], mask_id: u32) -> Result<()> {
        let Some(constraint) = &self.constraint else { return Ok(()) };
        let refuse = |name: &str, expected: String, found: String| Err(Error::value(name, expected, found));
        if self.stop.eos != Some(constraint.eos()) {
            let found = self.stop.eos.map_or("none".into(), |eos| eos.to_string());
            return refuse("end of text", format!("id {}, as in the constraint", constraint.eos()), found);
        }
        if prompt.contains(&mask_id) {
            return refuse("constraint", "a text that is continued".into(), "one with gaps".into());
        }
        if matches!(self.revise, Revise::Edit(_) | Revise::LookBack(_)) {
            let expected = "no revision that writes tokens of its own with a constraint";
            return refuse("revision", expected.into(), self.revise.name().into());
        }
        if self.stop.low_entropy.is_some() {
            return refuse(
                "least entropy",
                "none beside a constraint, whose texts end where they are whole".into(),
                "one".into(),
            );
        }
        let ways = constraint.ways().saturating_mul(self.block.min(self.max_new.max(1)));
        if ways > MOST_WAYS {
            let expected = format!("a constraint of at most {} ways from state to state", MOST_WAYS / self.block);
            return refuse("block", expected, format!("one of {}", constraint.ways()));
        }
        if constraint.least() > self.max_new {
            let expected =
                format!("at least {}, the tokens of the shortest text that the constraint allows", constraint.least());
            return refuse("new tokens", expected, self.max_new.to_string());
        }
        Ok(())
    }

    /// How many caches a sample holds: its own, a guide's, and one for a revision that reads committed text or blocks at another size.
    pub fn caches(&self) -> usize {
        let reads = matches!(self.revise, Revise::LookBack(_) | Revise::Corrector(_));
        1 + usize::from(self.guidance > 0.0) + usize::from(reads)
    }

    /// Leaves behind what a window does not show beside the next block; true where that is anything.
    pub(super) fn narrow(&self, canvas: &mut Canvas) -> bool {
        let Self { window, block, train_length, .. } = *self;
        let narrow = window != Window::Grow && canvas.next_start() - canvas.base() + block > train_length;
        if narrow {
            canvas.restart(window.keep(block, train_length));
        }
        narrow
    }

    /// What a cache may keep of the ids that stand before the first block. A next-token model answers from the last id that it
    /// stores, so that at block size 1 the last one is stored in any case.
    pub(super) fn kept<'a>(&self, canvas: &'a Canvas) -> &'a [u32] {
        let ids = &canvas.text()[canvas.base()..canvas.next_start()];
        if self.block == 1 { &ids[..ids.len().saturating_sub(1)] } else { ids }
    }

    /// Ids that a window shows, at most.
    pub(super) fn shown(&self) -> usize {
        if self.window == Window::Grow { usize::MAX } else { self.train_length }
    }
}
