//! Rows cut into pieces of a fixed size, worked on in parallel: the one place that decides how elementwise operations
//! are spread over threads, and how sums over rows are put together.
//!
//! An output is allocated without a pass over it: each task clears its own piece just before it fills it, while the
//! piece is small enough to stay in the core's cache.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::ops::Range;

use rayon::prelude::*;

/// Rows in a piece, at most.
const ROWS: usize = 64;

/// Consecutive rows of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    /// The group that the rows belong to.
    pub group: usize,
    /// Row numbers, counted over all groups.
    pub rows: Range<usize>,
}

/// Cuts `rows` rows, in `groups` groups of equal size, into pieces; none crosses the border of a group.
///
/// # Panics
/// If the rows cannot be split evenly over the groups.
pub fn cut(rows: usize, groups: usize) -> Vec<Piece> {
    assert!(groups > 0 && rows.is_multiple_of(groups), "{rows} rows cannot be split evenly over {groups} groups");
    let size = rows / groups;
    (0..groups)
        .flat_map(|group| {
            (0..size).step_by(ROWS).map(move |start| {
                let end = size.min(start + ROWS);
                Piece { group, rows: group * size + start..group * size + end }
            })
        })
        .collect()
}

/// One piece for each of `groups` groups of `size` rows.
pub fn whole_groups(groups: usize, size: usize) -> Vec<Piece> {
    (0..groups).map(|group| Piece { group, rows: group * size..(group + 1) * size }).collect()
}

/// A new `[rows, width]` made piece by piece: `fill(piece, out, side)` gets the piece's part of the output, cleared,
/// and its item of `sides`.
pub fn build<S: Send>(
    pieces: &[Piece],
    width: usize,
    sides: impl IndexedParallelIterator<Item = S>,
    fill: impl Fn(&Piece, &mut [f32], S) + Sync,
) -> Vec<f32> {
    assert_eq!(sides.len(), pieces.len(), "one side item for each piece");
    let len = pieces.last().map_or(0, |last| last.rows.end * width);
    let mut out = Vec::with_capacity(len);
    let slots = split(pieces, &mut out.spare_capacity_mut()[..len], width);
    pieces.par_iter().zip(slots).zip(sides).for_each(|((piece, slot), side)| {
        slot.fill(MaybeUninit::new(0.0));
        // SAFETY: the line above has written every element of the slot.
        fill(piece, unsafe { slot.assume_init_mut() }, side);
    });
    // SAFETY: `split` asserts that the slots partition the first `len` elements, and each has been written.
    unsafe { out.set_len(len) };
    out
}

/// The pieces' parts of `data`, which holds `width` items for each row.
///
/// # Panics
/// If the pieces do not cover `data` exactly.
pub fn split<'a, T>(pieces: &[Piece], data: &'a mut [T], width: usize) -> Vec<&'a mut [T]> {
    let mut rest = data;
    let mut parts = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let (part, after) = rest.split_at_mut(piece.rows.len() * width);
        parts.push(part);
        rest = after;
    }
    assert!(rest.is_empty(), "the pieces cover all rows");
    parts
}

/// Sides for `build` that carry nothing.
pub fn no_sides(pieces: &[Piece]) -> impl IndexedParallelIterator<Item = ()> {
    rayon::iter::repeat_n((), pieces.len())
}

/// The sum of the pieces' partial sums `[pieces, width]` per group, `[groups, width]`, in the order of the pieces.
pub fn sum_groups(pieces: &[Piece], partial: &[f32], width: usize) -> Vec<f32> {
    let groups = pieces.last().map_or(0, |last| last.group + 1);
    let mut total = vec![0.0; groups * width];
    for (piece, part) in pieces.iter().zip(partial.chunks_exact(width)) {
        let into = &mut total[piece.group * width..][..width];
        for (total, part) in into.iter_mut().zip(part) {
            *total += part;
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_rows_and_respect_groups() {
        let pieces = cut(300, 3);
        assert_eq!(pieces.len(), 6);
        assert_eq!(pieces[1], Piece { group: 0, rows: 64..100 });
        let out = build(&pieces, 2, no_sides(&pieces), |piece, out, ()| {
            for (row, pair) in piece.rows.clone().zip(out.chunks_exact_mut(2)) {
                pair.copy_from_slice(&[row as f32, piece.group as f32]);
            }
        });
        assert!(out.chunks_exact(2).enumerate().all(|(row, pair)| pair == [row as f32, (row / 100) as f32]));
        assert!(cut(0, 1).is_empty());
    }
}
