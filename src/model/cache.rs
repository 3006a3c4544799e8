//! Keys and values of one sequence: rotated keys, by layer and head, in f32. Exact, not an approximation: in a block-causal model
//! nothing that is stored depends on what comes after its block.

use crate::pass::Cache;

/// The stored keys and values of one sequence.
#[derive(Clone, Debug)]
pub struct KeyValues {
    block: usize,
    width: usize,
    end: usize,
    held: usize,
    /// By layer and head: `[held, head_dim]` keys, and values.
    pub(super) heads: Vec<Vec<Head>>,
}

/// Keys and values of one head of one layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

impl KeyValues {
    /// Empty, for so many layers of so many heads of `width` numbers.
    pub(super) fn new(block: usize, layers: usize, heads: usize, width: usize) -> Self {
        Self { block, width, end: 0, held: 0, heads: vec![vec![Head::default(); heads]; layers] }
    }

    /// The block size it belongs to.
    pub fn block(&self) -> usize {
        self.block
    }

    /// Counts rows that every layer now holds.
    pub(super) fn stored(&mut self, count: usize) {
        self.end += count;
        self.held += count;
    }

    /// Forgets what a pass appended beyond the rows that count.
    pub(super) fn settle(&mut self) {
        let kept = self.held * self.width;
        self.each(|side| side.truncate(kept));
    }

    fn each(&mut self, f: impl Fn(&mut Vec<f32>)) {
        for head in self.heads.iter_mut().flatten() {
            f(&mut head.keys);
            f(&mut head.values);
        }
    }
}

impl Cache for KeyValues {
    fn end(&self) -> usize {
        self.end
    }

    fn held(&self) -> usize {
        self.held
    }

    fn truncate(&mut self, end: usize) {
        let oldest = self.end - self.held;
        assert!(
            end.is_multiple_of(self.block) && (oldest..=self.end).contains(&end),
            "a cut at a block border, inside"
        );
        // Nothing left: the next id is at position 0, whatever was dropped before.
        (self.held, self.end) = if end == oldest { (0, 0) } else { (end - oldest, end) };
        self.settle();
    }

    fn drop_oldest(&mut self, count: usize) {
        assert!(count <= self.held, "no more than is held");
        self.held -= count;
        let gone = count * self.width;
        self.each(|side| drop(side.drain(..gone)));
    }

    fn keep_equal(&mut self, _: &[u32]) -> usize {
        unimplemented!("goes away with this cache")
    }
}
