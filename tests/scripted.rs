//! A denoiser whose answers are scripted, so that decoding is tested without any weights, and no machine's last bits decide.
//! It holds the sampler to the contract of a pass: whole blocks are stored in order, directly before the open one; only a long
//! prompt's pieces are stored without one. Blocks that stand beside stored ones see what is before those.

use std::cell::Cell;

use bd3::Result;
use bd3::pass::{Cache, Denoiser, Lane, Place, Proposal, Query, propose};
use bd3::rng::Rng;

/// What stands before the open block, as ids.
pub struct Kept {
    ids: Vec<u32>,
    dropped: usize,
    block: usize,
}

impl Cache for Kept {
    fn end(&self) -> usize {
        self.dropped + self.ids.len()
    }

    fn held(&self) -> usize {
        self.ids.len()
    }

    fn truncate(&mut self, end: usize) {
        assert_eq!(end % self.block, 0, "cut inside a block");
        self.ids.truncate(end.checked_sub(self.dropped).expect("cut before what is held"));
    }

    fn drop_oldest(&mut self, count: usize) {
        assert_eq!(count % self.block, 0, "dropped a part of a block");
        assert!(count <= self.ids.len(), "dropped more than is held");
        self.dropped += count;
        self.ids.drain(..count);
    }

    fn keep_equal(&mut self, ids: &[u32]) -> usize {
        let equal = self.ids.iter().zip(ids).take_while(|(a, b)| a == b).count();
        let kept = if self.dropped == 0 { equal / self.block * self.block } else { 0 };
        self.ids.truncate(kept);
        self.dropped = 0;
        kept
    }
}

/// A denoiser that answers by `answer(ids before the open block, open ids, query)`.
pub struct Scripted<F> {
    pub mask_id: u32,
    pub answer: F,
    /// The most ids that may be seen at once.
    pub most_seen: usize,
    /// Lanes answered so far, over all passes.
    pub lanes: Cell<u64>,
    /// Ids stored so far, over all lanes.
    pub stored: Cell<usize>,
}

/// Ids that a pass stores, at most, or one block.
pub const PIECE: usize = 64;

impl<F: Fn(&[u32], &[u32], &Query) -> Result<Proposal>> Scripted<F> {
    pub fn new(mask_id: u32, answer: F) -> Self {
        Self { mask_id, answer, most_seen: usize::MAX, lanes: Cell::new(0), stored: Cell::new(0) }
    }
}

impl<F: Fn(&[u32], &[u32], &Query) -> Result<Proposal>> Scripted<F> {
    /// The answer for one row, whose lane has stored what it stores.
    fn row(&self, lane: &Lane<'_, Kept>, query: &Query) -> Result<Proposal> {
        let (ids, block) = (&lane.cache.ids, lane.cache.block);
        let (seen, first) = match lane.place {
            Place::After => (ids.len(), 0),
            Place::Beside => (ids.len() - lane.open.len() + query.row / block * block, query.row / block * block),
        };
        assert!(seen + block <= self.most_seen, "saw more than the window");
        let within = Query { row: query.row - first, ..*query };
        let proposal = (self.answer)(&ids[..seen], &lane.open[first..first + block], &within)?;
        Ok(Proposal { row: query.row, ..proposal })
    }
}

impl<F: Fn(&[u32], &[u32], &Query) -> Result<Proposal>> Denoiser for Scripted<F> {
    type Cache = Kept;

    fn mask_id(&self) -> u32 {
        self.mask_id
    }

    fn cache(&self, block: usize) -> Kept {
        Kept { ids: Vec::new(), dropped: 0, block }
    }

    fn each(&self, lanes: &mut [Lane<'_, Kept>]) -> Result<Vec<Result<Vec<Proposal>>>> {
        let mut answers = Vec::new();
        for lane in lanes {
            self.lanes.set(self.lanes.get() + 1);
            assert_eq!(lane.store.len() % lane.cache.block, 0, "stored a part of a block");
            assert!(!lane.store.contains(&self.mask_id), "stored a mask");
            if let Some(guide) = &mut lane.guide {
                assert_eq!((guide.cache.end(), guide.store.len()), (lane.cache.end(), lane.store.len()));
                assert_eq!(guide.open.len(), lane.open.len());
                guide.cache.ids.extend(guide.store);
            }
            assert!(lane.store.len() <= PIECE.max(lane.cache.block), "stored too much at once");
            if lane.open.is_empty() {
                assert!(!lane.store.is_empty(), "a pass for nothing");
            } else {
                let (whole, block) = (lane.open.len().is_multiple_of(lane.cache.block), lane.cache.block);
                assert!(whole && lane.open.len() <= lane.store.len().max(block), "opened a part of a block");
                assert!(lane.place == Place::Beside || lane.open.len() == block, "opened more than a block");
            }
            assert_eq!(lane.ask.rows.is_empty(), lane.open.is_empty(), "asked for nothing");
            self.stored.set(self.stored.get() + lane.store.len());
            lane.cache.ids.extend(lane.store);
            let queries = (0..lane.ask.rows.len()).map(|i| lane.ask.query(i, lane.open, self.mask_id));
            answers.push(queries.map(|query| self.row(lane, &query)).collect());
        }
        Ok(answers)
    }
}

/// A number that depends on everything in sight and on the row.
pub fn digest(seen: &[u32], open: &[u32], row: usize) -> u64 {
    let mix = |state: u64, &id: &u32| (state ^ u64::from(id)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    let state = seen.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    open.iter().chain([&(row as u32)]).fold(state ^ 1, mix)
}

/// Answers with logits that depend on everything in sight; ids 1..vocab, the mask is 0.
pub fn from_digest(vocab: usize) -> impl Fn(&[u32], &[u32], &Query) -> Result<Proposal> {
    move |seen, open, query| {
        let mut rng = Rng::new(digest(seen, open, query.row));
        let logits: Vec<f32> = (0..vocab).map(|_| (3.0 * rng.normal()) as f32).collect();
        propose(&logits, query)
    }
}

/// Answers with round probabilities and no arithmetic, for files that must be the same everywhere.
pub fn round_numbers(seen: &[u32], open: &[u32], query: &Query) -> Result<Proposal> {
    let digest = digest(seen, open, query.row);
    let (token, other) = (1 + (digest >> 8) as u32 % 7, 1 + (digest >> 16) as u32 % 7);
    let prob = ((digest >> 24) % 63 + 1) as f64 / 64.0;
    Ok(Proposal {
        row: query.row,
        token,
        raw_prob: prob,
        prob,
        entropy: 1.0 - prob,
        runner_up: (other, 1.0 / 128.0),
        standing: 0.0,
        alternatives: Vec::new(),
        classes: Vec::new(),
    })
}
