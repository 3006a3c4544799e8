//! Masks and scores again: the one revision that every model supports, since a masked row is what it was trained on.

use super::Change;
use crate::event::{EditKind, Why};
use crate::sample::Draft;

/// Once a block is full: every drawn row whose token had less than this probability when it was drawn becomes a mask again, but for
/// those drawn in this very pass, which saw all the others (after Ghazvininejad et al. 2019, mask-predict, with a threshold for
/// the count). Empty while there are masks.
pub fn remask(draft: &Draft, filled: &[usize], threshold: f64) -> Vec<Change> {
    if !draft.masked().is_empty() {
        return Vec::new();
    }
    let unlikely = |row: &usize| f64::from(draft.prob(*row)) < threshold && !filled.contains(row);
    let rows = draft.drawn().into_iter().filter(unlikely);
    let (kind, token, why) = (EditKind::Remask, draft.mask_id(), Why::Unlikely);
    rows.map(|row| Change { row, kind, token, why }).collect()
}
