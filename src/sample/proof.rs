//! What the corrector reads with: a second cache, at block size 1. The open block's ids are stored there as if they were text, and masks
//! stand beside them, so that one pass gives every row its probability given what stands before it. It decides what to ask; what
//! follows is the revision's.

use super::{Canvas, SampleOptions};
use crate::pass::{Ask, Cache, Filter, Lane, Place, Proposal};

/// A sample's text, read at block size 1.
pub struct Proof<C> {
    /// Always a beginning of the text and the open block, but for what a window has dropped.
    cache: C,
    /// What the next pass stores, and the masks beside the last of it.
    store: Vec<u32>,
    open: Vec<u32>,
    ask: Ask,
    /// Row of the open block that the first mask stands beside.
    first: usize,
}

impl<C: Cache> Proof<C> {
    /// Nothing read yet. `cache` belongs to block size 1; `length`: how many ids are stored at once, at most.
    pub fn new(mut cache: C, canvas: &Canvas, length: usize) -> Self {
        cache.keep_equal(&canvas.text()[canvas.base()..canvas.next_start()]);
        cache.reserve(length);
        Self { cache, store: Vec::new(), open: Vec::new(), ask: Ask::none(), first: 0 }
    }

    /// Positions count anew from another base.
    pub fn restart(&mut self) {
        self.cache.keep_equal(&[]);
    }

    /// Decides what the next pass stores and asks; `piece`: ids that it stores, at most, or one block.
    pub fn plan(&mut self, canvas: &Canvas, piece: usize, options: &SampleOptions) {
        let (open_block, stored) = (canvas.open_block(), canvas.base() + self.cache.end());
        let start = open_block.start();
        let missing = start.saturating_sub(stored);
        self.store.clear();
        self.open.clear();
        self.ask = Ask::none();
        self.store.extend(canvas.text()[stored.min(start)..start].iter().take(piece));
        if missing == 0 || missing + open_block.ids().len() <= piece {
            // Rows that are stored stood there when they were read, and were good enough.
            let known = stored.saturating_sub(start);
            self.store.extend(&open_block.wanted()[known..]);
            let rows: Vec<usize> = open_block.drawn().into_iter().filter(|&row| row >= known).collect();
            self.first = rows.first().copied().unwrap_or(known);
            self.open.resize(open_block.wanted().len() - self.first, canvas.mask_id());
            let standing = rows.iter().map(|&row| open_block.ids()[row]).collect();
            let rows: Vec<usize> = rows.into_iter().map(|row| row - self.first).collect();
            // Nothing is drawn from what is read.
            let ask = Ask::new(rows.clone(), vec![0.5; rows.len()], Filter::GREEDY);
            self.ask = Ask { standing, alternatives: options.alternatives, ..ask };
        }
        let oldest = options.window.drop((self.cache.held(), self.store.len()), 1, options.train_length);
        if oldest > 0 {
            self.cache.drop_oldest(oldest);
        }
    }

    /// What the planned pass asks.
    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// The lane of the planned pass.
    pub fn lane(&mut self) -> Lane<'_, C> {
        Lane { place: Place::Beside, ..Lane::new(&mut self.cache, &self.store, &self.open, &self.ask) }
    }

    /// The answers of a pass by row of the open block; `None` where it stored a piece and no more.
    pub fn read(&self, proposals: &[Proposal]) -> Option<Vec<Proposal>> {
        let shifted = |p: &Proposal| Proposal { row: self.first + p.row, ..p.clone() };
        (!self.open.is_empty()).then(|| proposals.iter().map(shifted).collect())
    }

    /// Text from `position` on will be another.
    pub fn forget(&mut self, position: usize, canvas: &Canvas) {
        self.cache.truncate(position - canvas.base());
    }
}
