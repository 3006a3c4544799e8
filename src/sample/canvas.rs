//! The canvas: committed text, and the open block with its fixed positions. Blocks count from `base`, which is position 0 (bos)
//! until a window restarts. It knows no model and no rule.

/// Text while it is made. Given ids never change; a mask id among them is a gap.
#[derive(Clone, Debug)]
pub struct Canvas {
    given: Vec<u32>,
    /// Committed ids, from position 0.
    text: Vec<u32>,
    open: Vec<u32>,
    /// Absolute position of the first token of the open block.
    start: usize,
    base: usize,
    block: usize,
    mask_id: u32,
}

impl Canvas {
    /// A canvas with given ids and no open block. Everything before the first gap counts as committed.
    pub fn new(given: &[u32], block: usize, mask_id: u32) -> Self {
        let known = given.iter().position(|&id| id == mask_id).unwrap_or(given.len());
        let text = given[..known].to_vec();
        Self { given: given.to_vec(), text, open: Vec::new(), start: 0, base: 0, block, mask_id }
    }

    /// Opens the block that holds the first position not committed. It has full size, as in training: ids that are committed
    /// or given stand in it, everything else is masked, past the end too (the text is cut afterwards).
    pub fn open_next(&mut self) {
        self.start = self.next_start();
        let id = |p: usize| self.text.get(p).or(self.given.get(p)).copied().unwrap_or(self.mask_id);
        self.open = (self.start..self.start + self.block).map(id).collect();
    }

    /// Where the next block will start.
    pub fn next_start(&self) -> usize {
        self.base + (self.text.len() - self.base) / self.block * self.block
    }

    /// Rows of the open block that are masked, ascending.
    pub fn masked(&self) -> Vec<usize> {
        (0..self.open.len()).filter(|&row| self.open[row] == self.mask_id).collect()
    }

    /// Puts a token into a masked row and returns true; a row that is known already stays, and false is returned.
    #[must_use]
    pub fn fill(&mut self, row: usize, id: u32) -> bool {
        let masked = self.open[row] == self.mask_id;
        if masked {
            self.open[row] = id;
        }
        masked
    }

    /// The open block becomes text.
    pub fn commit(&mut self) {
        self.text.truncate(self.start);
        self.text.append(&mut self.open);
    }

    /// Blocks count anew, from the last `keep` committed ids: what lies before is no longer seen.
    pub fn restart(&mut self, keep: usize) {
        self.base = self.text.len() - keep.min(self.text.len());
    }

    /// Committed ids, from position 0.
    pub fn text(&self) -> &[u32] {
        &self.text
    }

    /// The ids of the open block.
    pub fn open(&self) -> &[u32] {
        &self.open
    }

    /// Absolute position of the open block.
    pub fn start(&self) -> usize {
        self.start
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

    const M: u32 = 0;

    #[test]
    fn a_prompt_that_ends_inside_a_block_leaves_its_tail_fixed() {
        let mut canvas = Canvas::new(&[9, 1, 2, 3, 4, 5], 4, M);
        canvas.open_next();
        assert_eq!((canvas.start(), canvas.open()), (4, &[4, 5, M, M][..]));
        assert_eq!(canvas.masked(), [2, 3]);
        assert!(!canvas.fill(0, 7) && canvas.fill(2, 6) && canvas.fill(3, 7));
        canvas.commit();
        assert_eq!(canvas.text(), [9, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn a_gap_ends_the_committed_text() {
        let mut canvas = Canvas::new(&[9, 1, M, 3, 4, 5], 2, M);
        assert_eq!(canvas.text(), [9, 1]);
        canvas.open_next();
        assert_eq!((canvas.start(), canvas.open()), (2, &[M, 3][..]));
        assert!(canvas.fill(0, 2));
        canvas.commit();
        canvas.open_next();
        assert_eq!((canvas.open(), canvas.masked().len()), (&[4, 5][..], 0));
    }

    #[test]
    fn a_restart_counts_blocks_from_what_is_kept() {
        let mut canvas = Canvas::new(&[9, 1, 2, 3, 4, 5, 6, 7], 4, M);
        canvas.restart(2);
        canvas.open_next();
        assert_eq!((canvas.base(), canvas.start(), canvas.open()), (6, 6, &[6, 7, M, M][..]));
        assert!(canvas.fill(2, 8) && canvas.fill(3, 8));
        canvas.commit();
        assert_eq!(canvas.text(), [9, 1, 2, 3, 4, 5, 6, 7, 8, 8]);
    }
}
