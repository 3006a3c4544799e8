//! What a sample has come to so far, for whoever made it.

use super::Sampler;
use super::step::Status;
use crate::event::Reason;
use crate::pass::Cache;

impl<C: Cache> Sampler<C> {
    /// Why it is done; `None` while it is not.
    pub fn reason(&self) -> Option<Reason> {
        match self.status {
            Status::Done(reason, _) => Some(reason),
            _ => None,
        }
    }

    /// Forward evaluations so far.
    pub fn passes(&self) -> u64 {
        self.passes
    }

    /// Keys and values as the last pass left them.
    pub fn cache(&self) -> &C {
        &self.cache
    }

    /// The same, for a later sample: see [`Sampler::new`].
    pub fn into_cache(self) -> C {
        self.cache
    }

    /// The text so far: the prompt and what is committed after it, cut to the length asked for.
    pub fn ids(&self) -> &[u32] {
        let text = self.canvas.text();
        match self.status {
            Status::Done(_, length) => &text[..length],
            _ => &text[..text.len().min(self.limit())],
        }
    }

    /// The committed tokens after the prompt.
    pub fn new_ids(&self) -> &[u32] {
        self.ids().get(self.canvas.given().len()..).unwrap_or_default()
    }

    /// How many tokens it wrote: after the prompt, and into gaps of it.
    pub fn written(&self) -> usize {
        self.new_ids().len() + self.canvas.gaps_filled()
    }
}
