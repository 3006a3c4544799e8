//! Classifier-free guidance: the text without its prompt, as a second context of the same rows. Only the prompt is masked there; what
//! was generated stays in sight (Nie et al. 2025, LLaDA, `generate`; the first token, the beginning of text, is no condition and stays too).

use super::Canvas;
use crate::pass::{Cache, Guide};

/// The context without the prompt.
pub struct Unguided<C> {
    weight: f32,
    cache: C,
    store: Vec<u32>,
    open: Vec<u32>,
}

impl<C: Cache> Unguided<C> {
    /// Nothing stored yet.
    pub fn new(weight: f32, mut cache: C) -> Self {
        cache.truncate(0);
        Self { weight, cache, store: Vec::new(), open: Vec::new() }
    }

    /// Cuts what is stored, as the lane does.
    pub fn truncate(&mut self, end: usize) {
        self.cache.truncate(end);
    }

    /// Takes the same ids as the lane: what is stored (absolute positions), and the open block; drops as many of the oldest.
    pub fn plan(&mut self, canvas: &Canvas, (stored, until): (usize, usize), oldest: usize) {
        let hide = |(position, id): (usize, u32)| {
            let hidden = position > 0 && canvas.is_given(position);
            if hidden { canvas.mask_id() } else { id }
        };
        let ids = canvas.text()[stored..until].iter().copied();
        self.store = (stored..).zip(ids).map(hide).collect();
        self.open = (canvas.open_block().start()..).zip(canvas.open_block().ids().iter().copied()).map(hide).collect();
        if oldest > 0 {
            self.cache.drop_oldest(oldest);
        }
    }

    /// The guide of the planned pass.
    pub fn lead(&mut self, asks: bool) -> Guide<'_, C> {
        let open = if asks { &self.open[..] } else { &[] };
        Guide { cache: &mut self.cache, store: &self.store, open, weight: self.weight }
    }
}
