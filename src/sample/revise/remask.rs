//! Masks and scores again: the one revision that every model supports, since a masked row is what it was trained on.

use super::Change;
use crate::event::{EditKind, Why};
use crate::sample::OpenBlock;

/// Once a block is full: every drawn row whose token had less than this probability when it was drawn becomes a mask again, but for
/// those drawn in this very pass, which saw all the others (after Ghazvininejad et al. 2019, mask-predict, with a threshold for
/// the count). Empty while there are masks.
pub fn remask(open_block: &OpenBlock, filled: &[usize], threshold: f64) -> Vec<Change> {
    if !open_block.masked().is_empty() {
        return Vec::new();
    }
    let unlikely = |row: &usize| f64::from(open_block.prob(*row)) < threshold && !filled.contains(row);
    let rows = open_block.drawn().into_iter().filter(unlikely);
    let (kind, token, why) = (EditKind::Remask, open_block.mask_id(), Why::Unlikely);
    rows.map(|row| Change { row, kind, token, why }).collect()
}
