//! A tile of attention: some queries of one head against all keys that any of them may see.
//!
//! The keys come from two places: a prefix of the `past` ones, and, for the noised stream, blocks of its `own`. The tile's
//! scores are `[rows, width]`: the columns of the prefix, then the own columns. Which columns a row may see
//! is one rule per place; the rest of the row gets probability 0.

use std::ops::Range;

use super::matmul::{Matrix, MatrixMut, Write, matmul};
use super::simd::{self, exp_and_sum, vectorised};

/// Queries in a tile, about.
const ROWS: usize = 64;
/// Fewest queries in one product with own keys: smaller blocks are computed together and masked.
const OWN_ROWS: usize = 16;

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile {
    /// Positions of the queries.
    pub rows: Range<usize>,
    /// Past keys `0..prefix` are computed.
    prefix: usize,
    /// Queries and the own keys that they are computed against; the queries partition `rows`.
    own: Vec<(Range<usize>, Range<usize>)>,
    /// Own columns: as many as the longest range of own keys.
    own_width: usize,
    block: usize,
}

/// Tiles in which block b sees the past blocks up to and with b.
pub fn causal_tiles(length: usize, block: usize) -> Vec<Tile> {
    let tile = |start: usize| {
        let rows = start..length.min(start + ROWS);
        Tile { prefix: ((rows.end - 1) / block + 1) * block, rows, own: Vec::new(), own_width: 0, block }
    };
    (0..length).step_by(ROWS).map(tile).collect()
}

/// Tiles in which block b sees the past blocks before b and its own.
pub fn offset_tiles(length: usize, block: usize) -> Vec<Tile> {
    let mut tiles = Vec::new();
    if block >= ROWS {
        for start in (0..length).step_by(block) {
            for row in (start..start + block).step_by(ROWS) {
                let rows = row..(start + block).min(row + ROWS);
                let own = vec![(rows.clone(), start..start + block)];
                tiles.push(Tile { rows, prefix: start, own, own_width: block, block });
            }
        }
    } else {
        let part = block * OWN_ROWS.div_ceil(block);
        let step = part * (ROWS / part).max(1);
        for start in (0..length).step_by(step) {
            let rows = start..length.min(start + step);
            let parts = rows.clone().step_by(part).map(|row| row..rows.end.min(row + part));
            let own = parts.map(|part| (part.clone(), part)).collect();
            tiles.push(Tile { prefix: (rows.end - 1) / block * block, rows, own, own_width: part, block });
        }
    }
    tiles
}

impl Tile {
    /// Columns of the scores.
    pub fn width(&self) -> usize {
        self.prefix + self.own_width
    }

    /// `out [rows, width] = x [rows, d] . transpose of the keys`, at the columns that are computed.
    pub fn against(&self, x: &[f32], (past, own): (&[f32], &[f32]), d: usize, out: &mut [f32]) {
        let width = self.width();
        if self.prefix > 0 {
            let keys = Matrix::strided(past, self.prefix, d, d).transposed();
            let out = MatrixMut::strided(out, self.rows.len(), self.prefix, width);
            matmul(out, Matrix::new(x, self.rows.len(), d), keys, Write::Replace);
        }
        for part in self.own_parts() {
            let queries = Matrix::strided(&x[part.first * d..], part.rows, d, d);
            let keys = Matrix::strided(&own[part.keys.start * d..], part.keys.len(), d, d).transposed();
            let out = &mut out[part.first * width + self.prefix..];
            matmul(MatrixMut::strided(out, part.rows, part.keys.len(), width), queries, keys, Write::Replace);
        }
    }

    /// `out [rows, d] = w [rows, width] . values`.
    pub fn weighted(&self, w: &[f32], (past, own): (&[f32], &[f32]), d: usize, out: &mut [f32]) {
        let width = self.width();
        if self.prefix > 0 {
            let w = Matrix::strided(w, self.rows.len(), self.prefix, width);
            let values = Matrix::strided(past, self.prefix, d, d);
            matmul(MatrixMut::strided(out, self.rows.len(), d, d), w, values, Write::Replace);
        }
        let write = if self.prefix > 0 { Write::Add } else { Write::Replace };
        for part in self.own_parts() {
            let w = Matrix::strided(&w[part.first * width + self.prefix..], part.rows, part.keys.len(), width);
            let values = Matrix::strided(&own[part.keys.start * d..], part.keys.len(), d, d);
            matmul(MatrixMut::strided(&mut out[part.first * d..], part.rows, d, d), w, values, write);
        }
    }

    /// Adds `transpose of w [rows, width] . x [rows, d]` to the keys' places.
    pub fn spread(&self, w: &[f32], x: &[f32], d: usize, (past, own): (&mut [f32], &mut [f32])) {
        let width = self.width();
        if self.prefix > 0 {
            let w = Matrix::strided(w, self.rows.len(), self.prefix, width).transposed();
            let x = Matrix::new(x, self.rows.len(), d);
            matmul(MatrixMut::strided(past, self.prefix, d, d), w, x, Write::Add);
        }
        for part in self.own_parts() {
            let w = Matrix::strided(&w[part.first * width + self.prefix..], part.rows, part.keys.len(), width);
            let x = Matrix::strided(&x[part.first * d..], part.rows, d, d);
            let out = MatrixMut::strided(&mut own[part.keys.start * d..], part.keys.len(), d, d);
            matmul(out, w.transposed(), x, Write::Add);
        }
    }

    /// Scores to probabilities in place; columns that a row may not see become 0.
    pub fn softmax(&self, scores: &mut [f32]) {
        for (row, scores) in self.rows.clone().zip(scores.chunks_exact_mut(self.width())) {
            let (past, own) = self.visible(row);
            softmax_row(scores, past, own);
        }
    }

    /// From the gradient of the probabilities that of the scores, in place: `p (grad - sum of p grad)`.
    pub fn score_grad(&self, probabilities: &[f32], grad: &mut [f32]) {
        let width = self.width();
        for (row, (p, grad)) in
            self.rows.clone().zip(probabilities.chunks_exact(width).zip(grad.chunks_exact_mut(width)))
        {
            let (past, own) = self.visible(row);
            score_grad_row(p, grad, past, own);
        }
    }

    /// The columns that a row sees: `0..past`, and a range of own ones.
    fn visible(&self, row: usize) -> (usize, Range<usize>) {
        let block = row / self.block * self.block;
        match self.own.iter().find(|(rows, _)| rows.contains(&row)) {
            None => (block + self.block, self.prefix..self.prefix),
            Some((_, keys)) => {
                let first = self.prefix + block - keys.start;
                (block, first..first + self.block)
            }
        }
    }

    fn own_parts(&self) -> impl Iterator<Item = Part> {
        self.own.iter().map(|(rows, keys)| Part {
            first: rows.start - self.rows.start,
            rows: rows.len(),
            keys: keys.clone(),
        })
    }
}

/// Queries computed together against own keys.
struct Part {
    /// First query, counted in the tile.
    first: usize,
    rows: usize,
    keys: Range<usize>,
}

vectorised! {
    fn softmax_row(scores: &mut [f32], past: usize, own: Range<usize>) {
        let top_past = simd::max(&scores[..past]);
        let top_own = simd::max(&scores[own.clone()]);
        let top = if top_own > top_past { top_own } else { top_past };
        let total = exp_and_sum::<FMA>(&mut scores[..past], top) + exp_and_sum::<FMA>(&mut scores[own.clone()], top);
        let factor = 1.0 / total;
        for part in [0..past, own.clone()] {
            for score in &mut scores[part] {
                *score *= factor;
            }
        }
        scores[past..own.start].fill(0.0);
        scores[own.end..].fill(0.0);
    }
}

vectorised! {
    fn score_grad_row(p: &[f32], grad: &mut [f32], past: usize, own: Range<usize>) {
        let mut mean = 0.0;
        for part in [0..past, own.clone()] {
            mean += simd::sum([&p[part.clone()], &grad[part]], |[p, grad]| p * grad);
        }
        for part in [0..past, own.clone()] {
            for (p, grad) in p[part.clone()].iter().zip(&mut grad[part]) {
                *grad = p * (*grad - mean);
            }
        }
        grad[past..own.start].fill(0.0);
        grad[own.end..].fill(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_the_rows_and_compute_what_rows_see() {
        for (length, block) in [(64, 1), (96, 4), (240, 24), (80, 40), (200, 100), (7, 7), (256, 16), (5, 1), (60, 15)]
        {
            for tiles in [causal_tiles(length, block), offset_tiles(length, block)] {
                let rows: Vec<usize> = tiles.iter().flat_map(|tile| tile.rows.clone()).collect();
                assert_eq!(rows, (0..length).collect::<Vec<_>>());
                for tile in &tiles {
                    for row in tile.rows.clone() {
                        let (past, own) = tile.visible(row);
                        assert!(past <= tile.prefix && own.end <= tile.width(), "{length} {block} {tile:?} {row}");
                    }
                }
            }
        }
    }
}
