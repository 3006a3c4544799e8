//! Attention of a few rows over one head's keys and values: a tile of positions at a time, with the running maximum and sum of
//! Milakov and Gimelshein (2018, arXiv 1805.02867), so that nothing as long as the text is kept. Rows see prefixes of different
//! lengths; the order of a row's sums does not depend on the rows beside it.

// Loops over small constants, whose arrays stay in registers.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::cache::{Halves, Head, Kept, Precision, Singles};
use super::simd::{Kernel, LANES, Simd, exp};

/// Rows in a tile.
pub const ROWS: usize = 8;
/// Positions in a tile.
const TILE: usize = 128;

/// What a row sees of its lane's memory: all before `end`, and a stretch behind that, empty for most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sight {
    pub end: usize,
    /// From, to.
    pub own: (usize, usize),
}

impl Sight {
    /// All before `end`.
    pub fn before(end: usize) -> Self {
        Self { end, own: (end, end) }
    }
}

/// The rows of one tile and what they look at.
pub struct Attention<'a> {
    /// Keys and values.
    pub head: &'a Head,
    /// The first row in memory that is seen.
    pub start: usize,
    /// By row.
    pub seen: &'a [Sight],
    /// `[width][ROWS]`, scaled; rows beyond `seen.len()` do not matter.
    pub queries: &'a [f32],
    /// `[ROWS][width]`
    pub out: &'a mut [f32],
}

impl Kernel for Attention<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match (self.head.precision(), self.seen.len()) {
            (Precision::Half, 1) => attend::<S, Halves, 1, 32>(s, self),
            (Precision::Half, 2) => attend::<S, Halves, 2, 32>(s, self),
            (Precision::Half, 3 | 4) => attend::<S, Halves, 4, 32>(s, self),
            (Precision::Half, _) => attend::<S, Halves, 8, 32>(s, self),
            (Precision::Single, 1) => attend::<S, Singles, 1, 64>(s, self),
            (Precision::Single, 2) => attend::<S, Singles, 2, 64>(s, self),
            (Precision::Single, 3 | 4) => attend::<S, Singles, 4, 64>(s, self),
            (Precision::Single, _) => attend::<S, Singles, 8, 64>(s, self),
        }
    }
}

#[inline(always)]
fn attend<S: Simd, K: Kept<N>, const R: usize, const N: usize>(s: S, mut a: Attention<'_>) {
    let width = a.head.width();
    let count = a.seen.len().min(R);
    let shared = a.seen.iter().map(|sight| sight.end).fold(0, usize::max);
    let own =
        a.seen.iter().filter(|sight| sight.own.0 < sight.own.1).map(|sight| sight.own.0).fold(usize::MAX, usize::min);
    let end = a.seen.iter().map(|sight| sight.own.1).fold(shared, usize::max);
    let mut weights = [[0.0f32; TILE]; R];
    let (mut greatest, mut sums) = ([f32::NEG_INFINITY; R], [s.splat(0.0); R]);
    a.out.fill(0.0);
    // Tiles begin at whole panels.
    let mut tile = a.start / LANES * LANES;
    while tile < end {
        if tile >= shared && tile + TILE <= own {
            // Between what all see and what each sees alone lies nothing that counts.
            tile += TILE;
            continue;
        }
        let panels = (end - tile).min(TILE).div_ceil(LANES);
        let mut panel = 0;
        while panel < panels {
            // With few rows several panels side by side, so that no sum waits for itself.
            panel += match (R, panels - panel) {
                (1 | 2, 4..) => score::<S, K, R, 4, N>(s, &a, tile / LANES + panel, panel, &mut weights),
                (1 | 2 | 4, 2..) => score::<S, K, R, 2, N>(s, &a, tile / LANES + panel, panel, &mut weights),
                _ => score::<S, K, R, 1, N>(s, &a, tile / LANES + panel, panel, &mut weights),
            };
        }
        for r in 0..count {
            soften(s, &mut a, (tile, panels), r, (&mut weights[r], &mut greatest[r], &mut sums[r]));
        }
        let positions = tile..tile + panels * LANES;
        let mut column = 0;
        while column < width / LANES {
            column += match width / LANES - column {
                1 => gather::<S, K, R, 1, N>(s, &mut a, positions.clone(), column, &weights),
                4.. if S::ROWS == 8 => gather::<S, K, R, 4, N>(s, &mut a, positions.clone(), column, &weights),
                _ => gather::<S, K, R, 2, N>(s, &mut a, positions.clone(), column, &weights),
            };
        }
        tile += TILE;
    }
    for r in 0..count {
        let scale = s.splat(1.0 / s.sum(sums[r]));
        for out in a.out[r * width..][..width].as_chunks_mut::<LANES>().0 {
            s.store(s.mul(s.load(out), scale), out);
        }
    }
}

/// One row's scores of a tile become weights, and what was added up before shrinks to the new maximum.
#[inline(always)]
fn soften<S: Simd>(
    s: S,
    a: &mut Attention<'_>,
    (tile, panels): (usize, usize),
    r: usize,
    (row, greatest, sums): (&mut [f32; TILE], &mut f32, &mut S::F),
) {
    let width = a.head.width();
    // What lies before the start, between the two stretches that the row sees, or beyond them does not count.
    let within = |at: usize, least: usize| at.saturating_sub(tile).min(TILE).max(least);
    let Sight { end, own } = a.seen[r];
    let from = within(a.start, 0);
    let to = within(end, from);
    let again = within(own.0, to);
    let last = within(own.1, again);
    if to == from && last == again {
        row.fill(0.0);
        return;
    }
    let blank = |row: &mut [f32; TILE], with: f32| {
        for range in [0..from, to..again, last..TILE] {
            row[range].fill(with);
        }
    };
    blank(row, f32::NEG_INFINITY);
    let (vectors, _) = row.as_chunks_mut::<LANES>();
    let mut most = s.splat(*greatest);
    for vector in vectors.iter().take(panels) {
        most = s.max(most, s.load(vector));
    }
    let most = s.largest(most);
    for vector in vectors.iter_mut().take(panels) {
        let weight = exp(s, s.sub(s.load(vector), s.splat(most)));
        s.store(weight, vector);
    }
    blank(row, 0.0);
    if most != *greatest {
        let mut shrunk = [0.0; LANES];
        if *greatest != f32::NEG_INFINITY {
            s.store(exp(s, s.splat(*greatest - most)), &mut shrunk);
        }
        *sums = s.mul(*sums, s.splat(shrunk[0]));
        *greatest = most;
        for out in a.out[r * width..][..width].as_chunks_mut::<LANES>().0 {
            s.store(s.mul(s.load(out), s.splat(shrunk[0])), out);
        }
    }
    for vector in row.as_chunks::<LANES>().0.iter().take(panels) {
        *sums = s.add(*sums, s.load(vector));
    }
}

/// Scores of P panels of 16 positions with R rows. Gives P.
#[inline(always)]
fn score<S: Simd, K: Kept<N>, const R: usize, const P: usize, const N: usize>(
    s: S,
    a: &Attention<'_>,
    panel: usize,
    column: usize,
    scores: &mut [[f32; TILE]; R],
) -> usize {
    let width = a.head.width();
    let keys = &a.head.keys.as_chunks::<N>().0[panel * width..][..P * width];
    let queries = &a.queries.as_chunks::<ROWS>().0[..width];
    let values = a.head.values.as_ptr().wrapping_add(panel * width * N);
    let mut acc = [[s.splat(0.0); R]; P];
    for i in 0..width {
        for p in 0..P {
            let key = &keys[p * width..][..width][i];
            if i % (64 / N) == 0 {
                // Values of the same positions lie as far from their beginning, and are wanted next.
                s.prefetch(values.wrapping_add((p * width + i) * N));
            }
            let key = K::load(s, key);
            for r in 0..R {
                acc[p][r] = s.fma(key, s.splat(queries[i][r]), acc[p][r]);
            }
        }
    }
    for r in 0..R {
        let (vectors, _) = scores[r].as_chunks_mut::<LANES>();
        for p in 0..P {
            s.store(acc[p][r], &mut vectors[column + p]);
        }
    }
    P
}

/// Adds a tile's values, weighted, to V columns of 16 numbers of all rows. Gives V.
#[inline(always)]
fn gather<S: Simd, K: Kept<N>, const R: usize, const V: usize, const N: usize>(
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
            1 => some::<S, K, 1, V, N>(s, a, positions.clone(), (first, column), rows),
            4.. if S::ROWS == 8 => some::<S, K, 4, V, N>(s, a, positions.clone(), (first, column), rows),
            _ => some::<S, K, 2, V, N>(s, a, positions.clone(), (first, column), rows),
        };
    }
    V
}

/// The same for G rows. Gives G.
#[inline(always)]
fn some<S: Simd, K: Kept<N>, const G: usize, const V: usize, const N: usize>(
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
    let step = width / LANES;
    let keys = a.head.keys.as_ptr().wrapping_add(positions.end * step * N);
    let values = &a.head.values.as_chunks::<N>().0[positions.start * step..positions.end * step];
    let Some(weights) = weights.first_chunk::<G>() else { unreachable!("rows come in groups") };
    for (index, values) in (0..TILE).zip(values.chunks_exact(step)) {
        let values = &values[column..][..V];
        for v in 0..V {
            if v % (64 / N) == 0 {
                // The next tile's keys.
                s.prefetch(keys.wrapping_add((index * step + column + v) * N));
            }
            let value = K::load(s, &values[v]);
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
