//! The open block: what its rows hold, what is known of them, and how changes become edits. Rows that were known when
//! the block opened are fixed. It knows no model, no rule and no revision.

use super::revise::Change;
use crate::error::{Error, Result};
use crate::event::{Edit, EditKind};

/// The open block.
#[derive(Clone, Debug, Default)]
pub struct OpenBlock {
    mask_id: u32,
    start: usize,
    ids: Vec<u32>,
    fixed: Vec<bool>,
    /// Probability of each row's id as last known, before temperature and nucleus; 0 for a mask.
    probs: Vec<f32>,
}

impl OpenBlock {
    /// A block that opens at absolute position `start`; what is no mask is fixed.
    pub fn new(start: usize, ids: Vec<u32>, mask_id: u32) -> Self {
        let fixed: Vec<bool> = ids.iter().map(|&id| id != mask_id).collect();
        let probs = fixed.iter().map(|&fixed| f32::from(fixed)).collect();
        Self { mask_id, start, ids, fixed, probs }
    }

    /// Rows from `end` on stay as they are, masks too: the text ends before them.
    pub fn ending(mut self, end: usize) -> Self {
        self.end_at(end);
        self
    }

    /// The same of a block that is open.
    pub fn end_at(&mut self, end: usize) {
        self.fixed.iter_mut().skip(end).for_each(|fixed| *fixed = true);
    }

    /// Its ids up to the end of the text.
    pub fn wanted(&self) -> &[u32] {
        let cut = self.ids.iter().zip(&self.fixed).position(|(&id, &fixed)| fixed && id == self.mask_id);
        &self.ids[..cut.unwrap_or(self.ids.len())]
    }

    /// Do rows past the end hold masks?
    pub fn is_cut(&self) -> bool {
        self.wanted().len() < self.ids.len()
    }

    /// Absolute position of its first row.
    pub fn start(&self) -> usize {
        self.start
    }

    /// Its ids.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// The id of the mask.
    pub fn mask_id(&self) -> u32 {
        self.mask_id
    }

    /// Is this row known since before the block opened?
    pub fn is_fixed(&self, row: usize) -> bool {
        self.fixed[row]
    }

    /// Probability of the row's id as last known.
    pub fn prob(&self, row: usize) -> f32 {
        self.probs[row]
    }

    /// What a pass says of the id that stands in a row.
    pub fn rescored(&mut self, row: usize, prob: f32) {
        self.probs[row] = prob;
    }

    /// Masked rows that are to be filled, ascending.
    pub fn masked(&self) -> Vec<usize> {
        (0..self.ids.len()).filter(|&row| self.ids[row] == self.mask_id && !self.fixed[row]).collect()
    }

    /// Rows that hold a token and may change, ascending.
    pub fn drawn(&self) -> Vec<usize> {
        (0..self.ids.len()).filter(|&row| self.ids[row] != self.mask_id && !self.fixed[row]).collect()
    }

    /// Changes a row. `prob` is the probability of the new token.
    ///
    /// # Errors
    /// When the change does not fit what stands there, or would move or change a fixed row.
    pub fn change(&mut self, change: Change, prob: f32) -> Result<Edit> {
        let Change { row, kind, token, why } = change;
        let (mask, last) = (self.mask_id, self.ids.len() - 1);
        let moved = if matches!(kind, EditKind::Insert | EditKind::Delete) { row..last + 1 } else { row..row + 1 };
        let (old, old_prob) = match kind {
            EditKind::Insert => (self.ids[last], self.probs[last]),
            _ => (self.ids[row], self.probs[row]),
        };
        let fits = match kind {
            EditKind::Fill => old == mask && token != mask,
            EditKind::Revise => ![mask, token].contains(&old) && token != mask,
            EditKind::Remask | EditKind::Delete => self.ids[row] != mask,
            EditKind::Insert => true,
        };
        if !fits || self.fixed[moved].contains(&true) {
            return Err(Error::Run(format!(
                "{kind:?} of id {old} in row {row} to id {token}: the row does not allow it"
            )));
        }
        let (token, prob) = if matches!(kind, EditKind::Fill | EditKind::Revise) { (token, prob) } else { (mask, 0.0) };
        match kind {
            EditKind::Fill | EditKind::Revise | EditKind::Remask => (self.ids[row], self.probs[row]) = (token, prob),
            EditKind::Insert => {
                self.ids[row..].rotate_right(1);
                self.probs[row..].rotate_right(1);
                (self.ids[row], self.probs[row]) = (mask, 0.0);
            }
            EditKind::Delete => {
                self.ids[row..].rotate_left(1);
                self.probs[row..].rotate_left(1);
                (self.ids[last], self.probs[last]) = (mask, 0.0);
            }
        }
        let (new, prob) = (self.ids[row], self.probs[row]);
        let position = self.start + row;
        Ok(Edit { position, kind, old, new, old_prob, prob, why, alternatives: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Why;

    const M: u32 = 0;

    fn change(open_block: &mut OpenBlock, row: usize, kind: EditKind, token: u32) -> Result<Edit> {
        open_block.change(Change { row, kind, token, why: Why::Rule }, 0.5)
    }

    #[test]
    fn changes_become_edits_and_fixed_rows_stay() {
        let mut open_block = OpenBlock::new(8, vec![3, M, M, M], M);
        assert_eq!((open_block.masked(), open_block.drawn()), (vec![1, 2, 3], vec![]));
        let edit = change(&mut open_block, 2, EditKind::Fill, 5).unwrap();
        assert_eq!(edit, Edit::fill(10, M, 5, 0.5));
        let edit = change(&mut open_block, 2, EditKind::Revise, 6).unwrap();
        assert_eq!((edit.old, edit.new, edit.old_prob), (5, 6, 0.5));
        assert_eq!(change(&mut open_block, 1, EditKind::Insert, M).unwrap().old, M);
        assert_eq!(open_block.ids(), [3, M, M, 6]);
        let edit = change(&mut open_block, 3, EditKind::Insert, M).unwrap();
        assert_eq!((edit.old, edit.old_prob, open_block.ids()), (6, 0.5, &[3, M, M, M][..]));
        change(&mut open_block, 1, EditKind::Fill, 5).unwrap();
        change(&mut open_block, 2, EditKind::Fill, 6).unwrap();
        let edit = change(&mut open_block, 1, EditKind::Delete, M).unwrap();
        assert_eq!((edit.old, edit.new, open_block.ids()), (5, 6, &[3, 6, M, M][..]));
        assert_eq!(change(&mut open_block, 1, EditKind::Remask, M).unwrap().new, M);
        for (row, kind, token) in [
            (0, EditKind::Revise, 4),
            (0, EditKind::Remask, M),
            (0, EditKind::Insert, M),
            (1, EditKind::Remask, M),
            (1, EditKind::Fill, M),
            (1, EditKind::Revise, 4),
            (1, EditKind::Delete, M),
        ] {
            assert!(change(&mut open_block, row, kind, token).is_err(), "{row} {kind:?}");
        }
        let mut cut = OpenBlock::new(4, vec![3, M, M, M], M).ending(2);
        assert_eq!((cut.masked(), cut.is_cut(), open_block.is_cut()), (vec![1], true, false));
        assert!(change(&mut cut, 2, EditKind::Fill, 5).is_err());
        let mut tail = OpenBlock::new(0, vec![M, M, 4], M);
        assert!(change(&mut tail, 0, EditKind::Insert, M).is_err());
    }
}
