//! Products of packed weights with the rows of a pass: each panel is read once for a tile of rows. A row's numbers are added up
//! in the same order whatever its company, so a row alone and a row among sixty give the same bits.

use std::ops::Range;

use super::panel::{BLOCK, GROUP, Integers, Layout, OUTPUTS, Place, Tile, ahead, is_integer, with_layout};
use super::simd::{Kernel, LANES, Simd};
use crate::format::Type;

/// Where one packed matrix lies, and what it is.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Type of the numbers.
    pub ty: Type,
    /// Rows of the matrix.
    pub outputs: usize,
    /// Columns of the matrix.
    pub inputs: usize,
    /// Its bytes in the arena.
    pub place: Range<usize>,
}

/// What a product is made with.
#[derive(Clone, Copy)]
pub enum Input<'a> {
    /// `[groups of rows][blocks of 32 inputs][GROUP][32]`
    Floats(&'a [f32]),
    /// `[groups of rows][blocks of 32 inputs][GROUP]` of the machine's [`super::simd::Quants`], as bytes.
    Quants(&'a [u8]),
}

impl Packed {
    /// Blocks of 32 inputs, the last one perhaps filled up with zeros.
    pub fn blocks(&self) -> usize {
        self.inputs.div_ceil(BLOCK)
    }

    /// Panels of 32 outputs, the last one perhaps filled up with zeros.
    pub fn panels(&self) -> usize {
        self.outputs.div_ceil(OUTPUTS)
    }

    /// Bytes of a panel.
    pub fn panel_bytes(&self) -> usize {
        panel_bytes(self.ty, self.inputs)
    }

    /// Is the product made of integers (or must the input be floats)?
    pub fn is_integer(&self) -> bool {
        is_integer(self.ty)
    }
}

/// Bytes of a panel of 32 outputs of so many inputs.
pub fn panel_bytes(ty: Type, inputs: usize) -> usize {
    with_layout!(ty, L => inputs.div_ceil(BLOCK * L::BLOCKS) * L::UNIT)
}

/// Packs one panel. `rows`: the bytes of up to 32 rows; `panel` must be zeros.
pub fn pack(ty: Type, rows: &[&[u8]], panel: &mut [u8]) {
    with_layout!(ty, L => {
        for (output, row) in rows.iter().enumerate() {
            for (source, unit) in row.chunks(L::SOURCE).zip(panel.chunks_exact_mut(L::UNIT)) {
                L::pack(source, output, unit);
            }
        }
    });
}

/// One block of one output of a panel, as numbers.
pub struct Unpack<'a> {
    /// Type of the weights.
    pub ty: Type,
    /// The panel's bytes.
    pub panel: &'a [u8],
    /// Which output.
    pub output: usize,
    /// Which block of 32 inputs.
    pub block: usize,
}

impl Kernel for Unpack<'_> {
    type Output = [f32; BLOCK];

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> [f32; BLOCK] {
        let (half, lane) = (self.output / LANES, self.output % LANES);
        let mut numbers = [0.0; BLOCK];
        with_layout!(self.ty, L => {
            let unit = &self.panel[self.block / L::BLOCKS * L::UNIT..][..L::UNIT];
            for (group, numbers) in numbers.chunks_exact_mut(4).enumerate() {
                let block = self.block - self.block / L::BLOCKS * L::BLOCKS;
                let place = Place { block, half, group };
                for (number, decoded) in numbers.iter_mut().zip(L::decode(s, unit, place)) {
                    let mut all = [0.0; LANES];
                    s.store(decoded, &mut all);
                    *number = all[lane];
                }
            }
        });
        numbers
    }
}

/// The products of some panels with all rows.
pub struct Product<'a> {
    /// Type of the weights.
    pub ty: Type,
    /// The panels' bytes.
    pub panels: &'a [u8],
    /// Blocks of 32 inputs.
    pub blocks: usize,
    /// What they are multiplied with.
    pub input: Input<'a>,
    /// How many rows.
    pub rows: usize,
    /// `[panels][rows][32]`
    pub out: &'a mut [f32],
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Self { ty, panels, blocks, input, rows, out } = self;
        let panels = panels.chunks_exact(panel_bytes(ty, blocks * BLOCK));
        for (panel, out) in panels.zip(out.chunks_exact_mut(rows * OUTPUTS)) {
            match (ty, input) {
                (_, Input::Floats(input)) => with_layout!(ty, L => floats::<S, L>(s, panel, input, rows, out)),
                (Type::Q8_0, Input::Quants(q)) => integers::<S, super::panel::Q8>(s, panel, q, rows, out),
                (Type::Q4_0, Input::Quants(q)) => integers::<S, super::panel::Q4>(s, panel, q, rows, out),
                (Type::Q4_1, Input::Quants(q)) => integers::<S, super::panel::Q41>(s, panel, q, rows, out),
                (Type::Q4K, Input::Quants(q)) => integers::<S, super::panel::Q4K>(s, panel, q, rows, out),
                (Type::Q6K, Input::Quants(q)) => integers::<S, super::panel::Q6K>(s, panel, q, rows, out),
                (ty, Input::Quants(_)) => unreachable!("{} has no integer product", ty.name()),
            }
        }
    }
}

#[inline(always)]
fn integers<S: Simd, L: Integers>(s: S, panel: &[u8], quants: &[u8], rows: usize, out: &mut [f32]) {
    let quants: &[S::Q] = bytemuck::cast_slice(quants);
    let groups = quants.chunks_exact(quants.len() / rows.div_ceil(GROUP));
    for (index, (group, out)) in groups.zip(out.chunks_mut(GROUP * OUTPUTS)).enumerate() {
        let mut first = 0;
        while first < out.len() / OUTPUTS {
            let tile = Tile { group, first, fresh: index == 0 && first == 0 };
            let out = &mut out[first * OUTPUTS..];
            first += match tile_rows::<S>(out.len() / OUTPUTS) {
                1 => integers_tile::<S, L, 1>(s, panel, tile, out),
                2 => integers_tile::<S, L, 2>(s, panel, tile, out),
                8 if S::ROWS == 8 => integers_tile::<S, L, 8>(s, panel, tile, out),
                _ => integers_tile::<S, L, 4>(s, panel, tile, out),
            };
        }
    }
}

/// How many rows the next tile takes when so many are left in the group: 1, 2, 4 or 8 (a tile may be larger than what is left).
#[inline(always)]
fn tile_rows<S: Simd>(left: usize) -> usize {
    left.next_power_of_two().min(S::ROWS)
}

#[inline(always)]
fn integers_tile<S: Simd, L: Integers, const R: usize>(
    s: S,
    panel: &[u8],
    tile: Tile<'_, S::Q>,
    out: &mut [f32],
) -> usize {
    let mut acc = [[s.splat(0.0); R]; 2];
    for (index, unit) in panel.chunks_exact(L::UNIT).enumerate() {
        L::accumulate(s, unit, tile, index * L::BLOCKS, &mut acc);
    }
    store(s, acc, out);
    R
}

#[inline(always)]
fn floats<S: Simd, L: Layout>(s: S, panel: &[u8], input: &[f32], rows: usize, out: &mut [f32]) {
    let (input, _) = input.as_chunks::<BLOCK>();
    let groups = input.chunks_exact(input.len() / rows.div_ceil(GROUP));
    for (index, (group, out)) in groups.zip(out.chunks_mut(GROUP * OUTPUTS)).enumerate() {
        let mut first = 0;
        while first < out.len() / OUTPUTS {
            let tile = Tile { group, first, fresh: index == 0 && first == 0 };
            let out = &mut out[first * OUTPUTS..];
            first += match tile_rows::<S>(out.len() / OUTPUTS) {
                1 => floats_tile::<S, L, 1>(s, panel, tile, out),
                2 => floats_tile::<S, L, 2>(s, panel, tile, out),
                8 if S::ROWS == 8 => floats_tile::<S, L, 8>(s, panel, tile, out),
                _ => floats_tile::<S, L, 4>(s, panel, tile, out),
            };
        }
    }
}

#[inline(always)]
fn floats_tile<S: Simd, L: Layout, const R: usize>(
    s: S,
    panel: &[u8],
    tile: Tile<'_, [f32; BLOCK]>,
    out: &mut [f32],
) -> usize {
    let mut acc = [[s.splat(0.0); R]; 2];
    for (index, unit) in panel.chunks_exact(L::UNIT).enumerate() {
        for block in 0..L::BLOCKS {
            // A unit of several blocks may reach beyond the inputs of a narrow matrix: never, as its rows are whole units.
            let rows = tile.block::<R>(index * L::BLOCKS + block);
            for group in 0..8 {
                let piece = L::UNIT / L::BLOCKS / 8;
                let at = (block * 8 + group) * piece;
                ahead(s, &unit[at..at + piece], tile.fresh);
                let weights = [
                    L::decode(s, unit, Place { block, half: 0, group }),
                    L::decode(s, unit, Place { block, half: 1, group }),
                ];
                for input in 0..4 {
                    for r in 0..R {
                        let x = s.splat(rows[r][group * 4 + input]);
                        acc[0][r] = s.fma(weights[0][input], x, acc[0][r]);
                        acc[1][r] = s.fma(weights[1][input], x, acc[1][r]);
                    }
                }
            }
        }
    }
    store(s, acc, out);
    R
}

/// Writes a tile, as far as there are rows.
#[inline(always)]
fn store<S: Simd, const R: usize>(s: S, acc: [[S::F; R]; 2], out: &mut [f32]) {
    for (r, row) in out.chunks_exact_mut(OUTPUTS).take(R).enumerate() {
        let (halves, _) = row.as_chunks_mut::<LANES>();
        s.store(acc[0][r], &mut halves[0]);
        s.store(acc[1][r], &mut halves[1]);
    }
}
