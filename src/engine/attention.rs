//! Attention of a few rows over one head's keys and values: a tile of positions at a time, with the running maximum and sum of
//! Milakov and Gimelshein (2018, arXiv 1805.02867), so that nothing as long as the text is kept. Rows see prefixes of different
//! lengths; the order of a row's sums does not depend on the rows beside it.

use std::ops::Range;

use super::cache::{Head, Precision};
use super::simd::{Kernel, LANES, Simd, exp};

/// Rows in a tile.
pub const ROWS: usize = 8;
/// Positions in a tile.
const TILE: usize = 64;

/// The rows of one tile and what they look at.
pub struct Attention<'a> {
    /// Keys and values.
    pub head: &'a Head,
    /// How precisely they are kept.
    pub precision: Precision,
    /// The first row in memory that is seen.
    pub start: usize,
    /// By row, the end of what it sees.
    pub seen: &'a [usize],
    /// `[ROWS][width]`, scaled; rows beyond `seen.len()` are not read.
    pub queries: &'a [f32],
    /// `[ROWS][width]`
    pub out: &'a mut [f32],
}

impl Kernel for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match (self.precision, self.seen.len()) {
            (Precision::Half, 1) => attend::<S, Halves, 1>(s, self),
            (Precision::Half, 2) => attend::<S, Halves, 2>(s, self),
            (Precision::Half, 3 | 4) => attend::<S, Halves, 4>(s, self),
            (Precision::Half, _) => attend::<S, Halves, 8>(s, self),
            (Precision::Single, 1) => attend::<S, Singles, 1>(s, self),
            (Precision::Single, 2) => attend::<S, Singles, 2>(s, self),
            (Precision::Single, 3 | 4) => attend::<S, Singles, 4>(s, self),
            (Precision::Single, _) => attend::<S, Singles, 8>(s, self),
        }
    }
}

/// How sixteen numbers are read.
trait Numbers {
    fn load<S: Simd>(s: S, bytes: &[u8], index: usize) -> S::F;
}

struct Halves;
struct Singles;

impl Numbers for Halves {
    #[inline(always)]
    fn load<S: Simd>(s: S, bytes: &[u8], index: usize) -> S::F {
        match bytes[2 * index..].first_chunk() {
            Some(chunk) => s.load_f16(chunk),
            None => unreachable!("whole panels"),
        }
    }
}

impl Numbers for Singles {
    #[inline(always)]
    fn load<S: Simd>(s: S, bytes: &[u8], index: usize) -> S::F {
        match bytes[4 * index..].first_chunk() {
            Some(chunk) => s.bits(s.load_i(chunk)),
            None => unreachable!("whole panels"),
        }
    }
}

#[inline(always)]
fn attend<S: Simd, N: Numbers, const R: usize>(s: S, mut a: Attention<'_>) {
    let width = a.head.width();
    let count = a.seen.len().min(R);
    let end = a.seen.iter().copied().fold(0, usize::max);
    let mut weights = [[0.0f32; TILE]; R];
    let (mut greatest, mut sum) = ([f32::NEG_INFINITY; R], [0.0f32; R]);
    a.out.fill(0.0);
    // Tiles begin at whole panels.
    let mut tile = a.start / LANES * LANES;
    while tile < end {
        let panels = (end - tile).min(TILE).div_ceil(LANES);
        for panel in 0..panels {
            score::<S, N, R>(s, &a, tile / LANES + panel, panel, &mut weights);
        }
        for r in 0..count {
            let row = &mut weights[r];
            // What lies before the start or beyond the end of what the row sees does not count.
            let (from, to) = (a.start.saturating_sub(tile).min(TILE), a.seen[r].saturating_sub(tile).min(TILE));
            row[..from].fill(f32::NEG_INFINITY);
            row[to.max(from)..].fill(f32::NEG_INFINITY);
            if to <= from {
                row.fill(0.0);
                continue;
            }
            let (vectors, _) = row.as_chunks_mut::<LANES>();
            let mut most = s.splat(greatest[r]);
            for vector in vectors.iter().take(panels) {
                most = s.max(most, s.load(vector));
            }
            let most = s.largest(most);
            let mut total = s.splat(0.0);
            for vector in vectors.iter_mut().take(panels) {
                let weight = exp(s, s.sub(s.load(vector), s.splat(most)));
                s.store(weight, vector);
            }
            row[..from].fill(0.0);
            row[to..].fill(0.0);
            let (vectors, _) = row.as_chunks::<LANES>();
            for vector in vectors.iter().take(panels) {
                total = s.add(total, s.load(vector));
            }
            let before = s.sub(s.splat(greatest[r]), s.splat(most));
            let mut shrunk = [0.0; LANES];
            s.store(exp(s, before), &mut shrunk);
            let shrunk = if greatest[r] == f32::NEG_INFINITY { 0.0 } else { shrunk[0] };
            sum[r] = sum[r] * shrunk + s.sum(total);
            greatest[r] = most;
            let (out, _) = a.out[r * width..][..width].as_chunks_mut::<LANES>();
            for out in out {
                let scaled = s.mul(s.load(out), s.splat(shrunk));
                s.store(scaled, out);
            }
        }
        let positions = tile..tile + panels * LANES;
        let mut column = 0;
        while column < width / LANES {
            column += match width / LANES - column {
                1 => gather::<S, N, R, 1>(s, &mut a, positions.clone(), column, &weights),
                4.. if S::ROWS == 8 => gather::<S, N, R, 4>(s, &mut a, positions.clone(), column, &weights),
                _ => gather::<S, N, R, 2>(s, &mut a, positions.clone(), column, &weights),
            };
        }
        tile += TILE;
    }
    for r in 0..count {
        let (out, _) = a.out[r * width..][..width].as_chunks_mut::<LANES>();
        for out in out {
            let scaled = s.mul(s.load(out), s.splat(1.0 / sum[r]));
            s.store(scaled, out);
        }
    }
}

/// Scores of one panel of 16 positions with R rows.
#[inline(always)]
fn score<S: Simd, N: Numbers, const R: usize>(
    s: S,
    a: &Attention<'_>,
    panel: usize,
    column: usize,
    scores: &mut [[f32; TILE]; R],
) {
    let width = a.head.width();
    let keys = &a.head.keys;
    let mut acc = [s.splat(0.0); R];
    for i in 0..width {
        let key = N::load(s, keys, (panel * width + i) * LANES);
        for r in 0..R {
            acc[r] = s.fma(key, s.splat(a.queries[r * width + i]), acc[r]);
        }
    }
    for r in 0..R {
        s.store(acc[r], &mut scores[r].as_chunks_mut::<LANES>().0[column]);
    }
}

/// Adds a tile's values, weighted, to V columns of 16 numbers of all rows. Gives V.
#[inline(always)]
fn gather<S: Simd, N: Numbers, const R: usize, const V: usize>(
    s: S,
    a: &mut Attention<'_>,
    positions: Range<usize>,
    column: usize,
    weights: &[[f32; TILE]; R],
) -> usize {
    let mut first = 0;
    while first < R {
        let rows = &weights[first..];
        first += match R {
            1 => some::<S, N, 1, V>(s, a, positions.clone(), (first, column), rows),
            4.. if S::ROWS == 8 => some::<S, N, 4, V>(s, a, positions.clone(), (first, column), rows),
            _ => some::<S, N, 2, V>(s, a, positions.clone(), (first, column), rows),
        };
    }
    V
}

/// The same for G rows. Gives G.
#[inline(always)]
fn some<S: Simd, N: Numbers, const G: usize, const V: usize>(
    s: S,
    a: &mut Attention<'_>,
    positions: Range<usize>,
    (first, column): (usize, usize),
    weights: &[[f32; TILE]],
) -> usize {
    let width = a.head.width();
    let mut acc = [[s.splat(0.0); V]; G];
    for r in 0..G {
        for v in 0..V {
            acc[r][v] = s.load(&a.out[(first + r) * width..].as_chunks::<LANES>().0[column + v]);
        }
    }
    let values = &a.head.values;
    for (index, position) in positions.enumerate() {
        for v in 0..V {
            let value = N::load(s, values, position * width + (column + v) * LANES);
            for r in 0..G {
                acc[r][v] = s.fma(value, s.splat(weights[r][index]), acc[r][v]);
            }
        }
    }
    for r in 0..G {
        for v in 0..V {
            s.store(acc[r][v], &mut a.out[(first + r) * width..].as_chunks_mut::<LANES>().0[column + v]);
        }
    }
    G
}
