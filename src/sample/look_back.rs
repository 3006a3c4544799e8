//! Look-back, the backspace key: committed tokens are scored again with text on both sides, and where one has become unlikely the
//! text is taken back to it. The sampler at block size B never sees what follows a block; the same checkpoint at a larger size J
//! does, so the block of J ids that holds the end of the text stands open there, over a cache of its own: every written token is read
//! in company of what follows it, up to the end of its window. It decides what to ask and where
//! to cut; it knows no model and emits nothing.
//!
//! The price: a look is one pass over J rows (`groups` passes where visible tokens have no scores), once for `every` new ids, and stores
//! each id once more; a retraction costs the passes of what is written again, at most J ids. `budget` bounds the retractions, so
//! that every sample ends.

use serde::Serialize;

use super::{Canvas, SampleOptions};
use crate::error::{Error, Result};
use crate::pass::{Ask, Cache, Filter, Lane, Proposal};

/// How to look back.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LookBack {
    /// Block size J at which committed text is scored; the text can be taken back by fewer ids than that.
    pub window: usize,
    /// New ids between two looks.
    pub every: usize,
    /// A token below this probability is taken back.
    pub threshold: f64,
    /// Retractions, at most, in one sample.
    pub budget: usize,
    /// 0: tokens are scored as they stand, for models that were trained with corrupted visible tokens. Otherwise rows are masked
    /// in this many turns, a pass each, and scored there: the model's own training.
    pub groups: usize,
}

impl LookBack {
    /// Refuses numbers out of range; `block` is the size that the text is written at.
    ///
    /// # Errors
    /// When there is nothing to see or the threshold is no probability.
    pub fn check(&self, block: usize, train_length: usize) -> Result<()> {
        // Beside the open window at least one more is seen.
        let most = train_length / 2;
        if self.window <= block || !self.window.is_multiple_of(block) || self.window > most {
            let expected = format!("a multiple of the block size {block}, larger than it, up to {most}");
            return Err(Error::value("window of look-back", expected, self.window.to_string()));
        }
        if !(self.threshold > 0.0 && self.threshold < 1.0) {
            return Err(Error::value("threshold of look-back", "a probability in (0, 1)", self.threshold.to_string()));
        }
        if self.every == 0 {
            return Err(Error::value("ids between two looks", "at least 1", "0"));
        }
        Ok(())
    }
}

/// A committed token that is taken back, and what is written instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Regret {
    /// Its position.
    pub position: usize,
    /// Its probability with text on both sides.
    pub prob: f32,
    /// The better token and its probability.
    pub better: (u32, f32),
    /// The most probable tokens at its place, the best first, as many as the sample asks for.
    pub alternatives: Vec<(u32, f32)>,
}

/// What a sample remembers of its looks.
pub struct Watch<C> {
    how: LookBack,
    cache: C,
    left: usize,
    /// Length of the text when it was last looked at.
    seen: usize,
    /// Ids of the window as they are opened.
    open: Vec<u32>,
    ask: Ask,
    /// Absolute position of the window, and up to which the next pass stores.
    start: usize,
    until: usize,
    /// Turns done in this look.
    turn: usize,
    first: Option<Regret>,
    /// Where the text is cut if it ends here: what lies behind is not worth a look.
    end: usize,
}

impl<C: Cache> Watch<C> {
    /// Nothing seen yet; what stands in `canvas` needs no look. `cache` belongs to block size [`LookBack::window`].
    pub fn new(how: LookBack, mut cache: C, canvas: &Canvas) -> Self {
        let seen = canvas.text().len();
        cache.keep_equal(&canvas.text()[canvas.base()..]);
        let (open, ask, left) = (Vec::new(), Ask::none(), how.budget);
        Self { how, cache, left, seen, open, ask, start: 0, until: 0, turn: 0, first: None, end: 0 }
    }

    /// Is it time to look? Always where a window is full, and before the text would end, cut to length `ends`.
    pub fn is_due(&mut self, canvas: &Canvas, ends: Option<usize>) -> bool {
        self.end = ends.unwrap_or(canvas.text().len());
        let fresh = self.end.saturating_sub(self.seen);
        let full = (self.end - canvas.base().min(self.end)).is_multiple_of(self.how.window);
        let least = if ends.is_some() || full { 1 } else { self.how.every };
        self.left > 0 && fresh >= least && !self.drawn(canvas).1.is_empty()
    }

    /// Where the window begins, and its rows that the model wrote.
    fn drawn(&self, canvas: &Canvas) -> (usize, Vec<usize>) {
        let (base, end) = (canvas.base(), self.end.max(canvas.base() + 1));
        let start = base + (end - 1 - base) / self.how.window * self.how.window;
        (start, (start..end).filter(|&position| !canvas.is_given(position)).map(|p| p - start).collect())
    }

    /// The rows whose turn it is; turns without any are passed over.
    fn rows_of_turn(&mut self, drawn: &[usize]) -> Vec<usize> {
        let turns = self.how.groups.max(1);
        while self.turn < turns {
            let rows: Vec<usize> = drawn.iter().copied().filter(|row| row % turns == self.turn).collect();
            if !rows.is_empty() {
                return rows;
            }
            self.turn += 1;
        }
        Vec::new()
    }

    /// Blocks count anew from another base.
    pub fn restart(&mut self) {
        self.cache.keep_equal(&[]);
    }

    /// Decides what the next pass of a look is asked. `piece`: ids that a pass stores, at most.
    pub fn plan(&mut self, canvas: &Canvas, piece: usize, options: &SampleOptions) {
        let (base, text, window, length) = (canvas.base(), canvas.text(), self.how.window, options.shown());
        let (start, drawn) = self.drawn(canvas);
        self.start = start;
        let stored = base + self.cache.end();
        let piece = piece.min(length - window);
        self.until = self.start.min(stored + (piece / window).max(1) * window);
        self.open.clear();
        self.ask = Ask::none();
        if self.until == self.start {
            self.open.extend(text[self.start..].iter().take(window));
            self.open.resize(window, canvas.mask_id());
            let rows = self.rows_of_turn(&drawn);
            // The most probable token is what matters, so there is nothing to draw.
            let (uniforms, standing) = (vec![0.5; rows.len()], rows.iter().map(|&row| self.open[row]).collect());
            if self.how.groups > 0 {
                rows.iter().for_each(|&row| self.open[row] = canvas.mask_id());
            }
            // What is written instead is bound by the bias as any other token is.
            let (alternatives, bias) = (options.alternatives, options.bias.clone());
            self.ask = Ask { standing, alternatives, bias, ..Ask::new(rows, uniforms, Filter::GREEDY) };
        }
        let fresh = self.until - stored + self.open.len();
        let spare = (self.cache.held() + fresh).saturating_sub(length).next_multiple_of(window);
        self.cache.drop_oldest(spare.min(self.cache.held()));
    }

    /// What the planned pass asks.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The lane of the planned pass.
    pub fn lane<'a>(&'a mut self, canvas: &'a Canvas) -> Lane<'a, C> {
        let stored = canvas.base() + self.cache.end();
        Lane::new(&mut self.cache, &canvas.text()[stored..self.until], &self.open, &self.ask)
    }

    /// Takes the answers of a pass; true when the look is done.
    pub fn take(&mut self, proposals: &[Proposal], canvas: &Canvas) -> bool {
        if self.until < self.start {
            return false;
        }
        for proposal in proposals.iter().filter(|proposal| proposal.standing < self.how.threshold) {
            let position = self.start + proposal.row;
            // The first one: later blocks were written after it.
            let first = self.first.as_ref().is_none_or(|regret| position < regret.position);
            if first && proposal.raw_prob > proposal.standing {
                let better = (proposal.token, proposal.raw_prob as f32);
                let alternatives = proposal.alternatives.iter().map(|&(id, prob)| (id, prob as f32)).collect();
                self.first = Some(Regret { position, prob: proposal.standing as f32, better, alternatives });
            }
        }
        self.turn += 1;
        let (_, drawn) = self.drawn(canvas);
        self.rows_of_turn(&drawn).is_empty()
    }

    /// Ends a look: what is taken back, if anything.
    pub fn verdict(&mut self) -> Option<Regret> {
        self.turn = 0;
        self.seen = self.end;
        let regret = self.first.take()?;
        self.left -= 1;
        self.seen = regret.position;
        Some(regret)
    }
}
