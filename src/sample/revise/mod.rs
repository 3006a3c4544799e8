//! Revision: what happens to rows that are known already. One published idea is one pure function from (block, proposals, random
//! numbers) to a list of [`Change`]s; nothing here knows a model or where in the text the block stands.

use crate::event::{EditKind, Why};

pub mod edit;
pub mod indel;
pub mod remdm;
pub mod renoise;

/// What happens to one row of the open block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The row.
    pub row: usize,
    /// How it changes.
    pub kind: EditKind,
    /// The id that stands there afterwards.
    pub token: u32,
    /// The reason.
    pub why: Why,
}
