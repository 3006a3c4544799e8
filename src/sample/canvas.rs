//! The canvas: committed text and the open block. Blocks count from `base`, which is position 0 (bos)
//! until a window restarts. It knows no model and no rule.

use super::OpenBlock;

/// Text while it is made. Given ids never change; a mask id among them is a gap.
#[derive(Clone, Debug)]
pub struct Canvas {
    given: Vec<u32>,
    /// Committed ids, from position 0.
    text: Vec<u32>,
    open_block: OpenBlock,
    base: usize,
    block: usize,
    mask_id: u32,
    /// Nothing is written from this position on.
    end: usize,
}

impl Canvas {
    /// A canvas with given ids and no open block. Everything before the first gap counts as committed.
    pub fn new(given: &[u32], block: usize, mask_id: u32) -> Self {
        let known = given.iter().position(|&id| id == mask_id).unwrap_or(given.len());
        let text = given[..known].to_vec();
        Self { given: given.to_vec(), text, open_block: OpenBlock::default(), base: 0, block, mask_id, end: usize::MAX }
    }

    /// Only the gaps of the given ids are filled; what comes after them in the last block stays masked.
    pub fn end_with_given(&mut self) {
        self.end = self.given.len();
    }

    /// Opens the block that holds the first position not committed. It has full size, as in training: ids that are committed
    /// or given stand in it, everything else is masked, past the end too (the text is cut afterwards).
    pub fn open_next(&mut self) {
        let start = self.next_start();
        let id = |p: usize| self.text.get(p).or(self.given.get(p)).copied().unwrap_or(self.mask_id);
        let ids = (start..start + self.block).map(id).collect();
        self.open_block = OpenBlock::new(start, ids, self.mask_id).ending(self.end.saturating_sub(start));
    }

    /// Where the next block will start.
    pub fn next_start(&self) -> usize {
        self.base + (self.text.len() - self.base) / self.block * self.block
    }

    /// The open block.
    pub fn open_block(&self) -> &OpenBlock {
        &self.open_block
    }

    /// The open block, to be changed.
    pub fn open_block_mut(&mut self) -> &mut OpenBlock {
        &mut self.open_block
    }

    /// The open block becomes text.
    pub fn commit(&mut self) {
        self.text.truncate(self.open_block.start());
        self.text.extend(self.open_block.ids());
        self.open_block = OpenBlock::default();
    }

    /// What is known at the beginning of the open block becomes text: all that is left of it when a sample is stopped.
    pub fn commit_known(&mut self) {
        let open_block = std::mem::take(&mut self.open_block);
        if !open_block.ids().is_empty() {
            self.text.truncate(open_block.start());
            self.text.extend(open_block.ids().iter().take_while(|&&id| id != self.mask_id));
        }
    }

    /// Committed text from `position` on is taken back and returned; the next block opens where it ends.
    pub fn retract(&mut self, position: usize) -> Vec<u32> {
        self.text.split_off(position)
    }

    /// Is the id at this position given?
    pub fn is_given(&self, position: usize) -> bool {
        self.given.get(position).is_some_and(|&id| id != self.mask_id)
    }

    /// Blocks count anew, from the last `keep` committed ids: what lies before is no longer seen.
    pub fn restart(&mut self, keep: usize) {
        self.base = self.text.len() - keep.min(self.text.len());
    }

    /// Committed ids, from position 0.
    pub fn text(&self) -> &[u32] {
        &self.text
    }

    /// The id of the mask.
    pub fn mask_id(&self) -> u32 {
        self.mask_id
    }

    /// Absolute position from which blocks count.
    pub fn base(&self) -> usize {
        self.base
    }

    /// How many gaps of the given ids are committed.
    pub fn gaps_filled(&self) -> usize {
        self.given.iter().take(self.text.len()).filter(|&&id| id == self.mask_id).count()
    }

    /// The given ids.
    pub fn given(&self) -> &[u32] {
        &self.given
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{EditKind, Why};
    use crate::sample::revise::Change;

    const M: u32 = 0;

    fn fill(canvas: &mut Canvas, row: usize, token: u32) {
        let change = Change { row, kind: EditKind::Fill, token, why: Why::Rule };
        canvas.open_block_mut().change(change, 0.5).unwrap();
    }

    #[test]
    fn a_prompt_that_ends_inside_a_block_leaves_its_tail_fixed() {
        let mut canvas = Canvas::new(&[9, 1, 2, 3, 4, 5], 4, M);
        canvas.open_next();
        assert_eq!((canvas.open_block().start(), canvas.open_block().ids()), (4, &[4, 5, M, M][..]));
        assert_eq!(canvas.open_block().masked(), [2, 3]);
        assert!(canvas.open_block().is_fixed(0) && !canvas.open_block().is_fixed(2));
        fill(&mut canvas, 2, 6);
        fill(&mut canvas, 3, 7);
        canvas.commit();
        assert_eq!(canvas.text(), [9, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(canvas.retract(7), [7]);
        canvas.open_next();
        assert_eq!(canvas.open_block().ids(), [4, 5, 6, M]);
    }

    #[test]
    fn a_gap_ends_the_committed_text() {
        let mut canvas = Canvas::new(&[9, 1, M, 3, 4, 5], 2, M);
        assert_eq!(canvas.text(), [9, 1]);
        canvas.open_next();
        assert_eq!((canvas.open_block().start(), canvas.open_block().ids()), (2, &[M, 3][..]));
        fill(&mut canvas, 0, 2);
        canvas.commit();
        canvas.open_next();
        assert_eq!((canvas.open_block().ids(), canvas.open_block().masked().len()), (&[4, 5][..], 0));
        assert!(canvas.is_given(3) && !canvas.is_given(2) && !canvas.is_given(6));
    }

    #[test]
    fn a_restart_counts_blocks_from_what_is_kept() {
        let mut canvas = Canvas::new(&[9, 1, 2, 3, 4, 5, 6, 7], 4, M);
        canvas.restart(2);
        canvas.open_next();
        assert_eq!((canvas.base(), canvas.open_block().start(), canvas.open_block().ids()), (6, 6, &[6, 7, M, M][..]));
        fill(&mut canvas, 2, 8);
        fill(&mut canvas, 3, 8);
        canvas.commit();
        assert_eq!(canvas.text(), [9, 1, 2, 3, 4, 5, 6, 7, 8, 8]);
    }
}
