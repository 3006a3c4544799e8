//! Products of packed weights with the rows of a pass: each panel is read once for a tile of rows. A row's numbers are added up
//! in the same order whatever its company, so a row alone and a row among sixty give the same bits.

use std::ops::Range;

use super::panel::{BLOCK, Integers, Layout, OUTPUTS, Place, Tile, ahead, is_integer, with_layout};
use super::simd::{Isa, Kernel, LANES, Simd};
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
    /// `[blocks of 32 inputs][rows][32]`, rows filled up to whole tiles (see [`filled`])
    Floats(&'a [f32]),
    /// `[blocks of 32 inputs][rows]`, filled up likewise, of the machine's [`super::simd::Quants`], as bytes.
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
                let place = Place { block: self.block % L::BLOCKS, half, group };
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

/// Rows of the largest tile on any machine.
const LARGEST_TILE: usize = 8;

/// How many rows the next tile takes when so many are left: 1, 2, 4 or 8 (a tile may be larger than what is left).
#[inline(always)]
fn tile(left: usize, most: usize) -> usize {
    left.next_power_of_two().min(most)
}

/// Rows filled up to whole tiles, on any machine.
pub fn filled(rows: usize) -> usize {
    let whole = rows / LARGEST_TILE * LARGEST_TILE;
    if rows == whole { rows } else { whole + (rows - whole).next_power_of_two() }
}

#[inline(always)]
fn integers<S: Simd, L: Integers>(s: S, panel: &[u8], quants: &[u8], rows: usize, out: &mut [f32]) {
    let quants: &[S::Q] = bytemuck::cast_slice(quants);
    let mut first = 0;
    while first < rows {
        let tile = Tile { quants, rows: filled(rows), first };
        let out = &mut out[first * OUTPUTS..];
        let size = self::tile(rows - first, S::ROWS);
        match size {
            1 => integers_tile::<S, L, 1>(s, panel, tile, out),
            2 => integers_tile::<S, L, 2>(s, panel, tile, out),
            8 if S::ROWS == 8 => integers_tile::<S, L, 8>(s, panel, tile, out),
            _ => integers_tile::<S, L, 4>(s, panel, tile, out),
        }
        first += size;
    }
}

#[inline(always)]
fn integers_tile<S: Simd, L: Integers, const R: usize>(s: S, panel: &[u8], tile: Tile<'_, S::Q>, out: &mut [f32]) {
    let mut acc = [[s.splat(0.0); R]; 2];
    for (index, unit) in panel.chunks_exact(L::UNIT).enumerate() {
        L::accumulate(s, unit, tile, index * L::BLOCKS, &mut acc);
    }
    store(s, acc, out);
}

#[inline(always)]
fn floats<S: Simd, L: Layout>(s: S, panel: &[u8], input: &[f32], rows: usize, out: &mut [f32]) {
    let (input, _) = input.as_chunks::<BLOCK>();
    let mut first = 0;
    while first < rows {
        let tile = Tile { quants: input, rows: filled(rows), first };
        let out = &mut out[first * OUTPUTS..];
        let size = self::tile(rows - first, S::ROWS);
        match size {
            1 => floats_tile::<S, L, 1>(s, panel, tile, out),
            2 => floats_tile::<S, L, 2>(s, panel, tile, out),
            8 if S::ROWS == 8 => floats_tile::<S, L, 8>(s, panel, tile, out),
            _ => floats_tile::<S, L, 4>(s, panel, tile, out),
        }
        first += size;
    }
}

#[inline(always)]
fn floats_tile<S: Simd, L: Layout, const R: usize>(s: S, panel: &[u8], tile: Tile<'_, [f32; BLOCK]>, out: &mut [f32]) {
    let mut acc = [[s.splat(0.0); R]; 2];
    for (index, unit) in panel.chunks_exact(L::UNIT).enumerate() {
        for block in 0..L::BLOCKS {
            // A unit of several blocks may reach beyond the inputs of a narrow matrix: never, as its rows are whole units.
            let rows = tile.block::<R>(index * L::BLOCKS + block);
            for group in 0..8 {
                let piece = L::UNIT / L::BLOCKS / 8;
                let at = (block * 8 + group) * piece;
                ahead::<S, R>(s, &unit[at..at + piece], tile.first);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::quants::quantise;
    use crate::engine::simd::Quants;
    use crate::rng::Rng;
    use half::f16;

    /// A matrix of random bytes with scales of a sensible size, row after row.
    fn random(ty: Type, outputs: usize, inputs: usize, rng: &mut Rng) -> Vec<Vec<u8>> {
        let scale = |rng: &mut Rng| f16::from_f32((rng.uniform() as f32 - 0.3) * 0.02).to_le_bytes();
        let block = |rng: &mut Rng| {
            let mut bytes: Vec<u8> = (0..ty.block_bytes()).map(|_| rng.below(256) as u8).collect();
            match ty {
                Type::F32 => bytes = (rng.uniform() as f32 - 0.5).to_le_bytes().to_vec(),
                Type::F16 => bytes = f16::from_f64(rng.uniform() - 0.5).to_le_bytes().to_vec(),
                Type::Bf16 => bytes = half::bf16::from_f64(rng.uniform() - 0.5).to_le_bytes().to_vec(),
                Type::Q8_0 | Type::Q4_0 => bytes[..2].copy_from_slice(&scale(rng)),
                Type::Q4_1 | Type::Q4K => {
                    bytes[..2].copy_from_slice(&scale(rng));
                    bytes[2..4].copy_from_slice(&scale(rng));
                }
                Type::Q6K => bytes[208..].copy_from_slice(&scale(rng)),
            }
            bytes
        };
        (0..outputs).map(|_| (0..inputs / ty.block()).flat_map(|_| block(rng)).collect()).collect()
    }

    fn packed(ty: Type, matrix: &[Vec<u8>], inputs: usize) -> Vec<u8> {
        let mut panels = vec![0; matrix.len().div_ceil(OUTPUTS) * panel_bytes(ty, inputs)];
        for (rows, panel) in matrix.chunks(OUTPUTS).zip(panels.chunks_mut(panel_bytes(ty, inputs))) {
            pack(ty, &rows.iter().map(Vec::as_slice).collect::<Vec<_>>(), panel);
        }
        panels
    }

    /// `[blocks][filled rows][32]`
    fn laid_out(rows: &[Vec<f32>], blocks: usize) -> Vec<f32> {
        let mut out = vec![0.0; blocks * filled(rows.len()) * BLOCK];
        for (index, block) in out.chunks_exact_mut(filled(rows.len()) * BLOCK).enumerate() {
            for (row, to) in rows.iter().zip(block.chunks_exact_mut(BLOCK)) {
                to.copy_from_slice(&row[index * BLOCK..][..BLOCK]);
            }
        }
        out
    }

    struct ToQuants<'a>(&'a [f32]);

    impl Kernel for ToQuants<'_> {
        type Output = Vec<u8>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<u8> {
            let quants: Vec<S::Q> = self.0.as_chunks::<BLOCK>().0.iter().map(|x| quantise(s, x)).collect();
            bytemuck::cast_slice(&quants).to_vec()
        }
    }

    /// The numbers that quantised activations stand for.
    fn rounded(input: &[f32]) -> Vec<f32> {
        input
            .as_chunks::<BLOCK>()
            .0
            .iter()
            .flat_map(|block| {
                let greatest = block.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                let inverse = if greatest > 0.0 { 127.0 / greatest } else { 0.0 };
                block.map(|x| (x * inverse).round_ties_even() * (greatest / 127.0))
            })
            .collect()
    }

    #[test]
    fn every_product_on_every_instruction_set_is_the_plain_sum() {
        let mut rng = Rng::new(5);
        for ty in Type::ALL {
            for (outputs, inputs, counts) in [(40, 512, &[1, 2, 3, 5, 8, 13, 33][..]), (64, 256, &[1, 4, 64])] {
                let matrix = random(ty, outputs, inputs, &mut rng);
                let panels = packed(ty, &matrix, inputs);
                let blocks = inputs / BLOCK;
                for isa in Isa::available() {
                    let numbers: Vec<Vec<f32>> = (0..outputs)
                        .map(|output| {
                            let mut row = vec![0.0; inputs];
                            let panel =
                                &panels[output / OUTPUTS * panel_bytes(ty, inputs)..][..panel_bytes(ty, inputs)];
                            for (block, row) in row.chunks_exact_mut(BLOCK).enumerate() {
                                row.copy_from_slice(&isa.run(Unpack { ty, panel, output: output % OUTPUTS, block }));
                            }
                            row
                        })
                        .collect();
                    for &count in counts {
                        // Extreme values: a row of zeros, one huge number among small ones, equal magnitudes.
                        let rows: Vec<Vec<f32>> = (0..count)
                            .map(|r| {
                                (0..inputs)
                                    .map(|i| match r % 4 {
                                        1 if i == 7 => 1e4,
                                        2 => {
                                            if i % 3 == 0 {
                                                2.0
                                            } else {
                                                -2.0
                                            }
                                        }
                                        3 if count > 4 => 0.0,
                                        _ => rng.uniform() as f32 * 4.0 - 2.0,
                                    })
                                    .collect()
                            })
                            .collect();
                        let input = laid_out(&rows, blocks);
                        let quants = isa.run(ToQuants(&input));
                        for integer in [false, true] {
                            if integer && !is_integer(ty) {
                                continue;
                            }
                            let mut out = vec![f32::NAN; panels.len() / panel_bytes(ty, inputs) * count * OUTPUTS];
                            let source = if integer { Input::Quants(&quants) } else { Input::Floats(&input) };
                            isa.run(Product { ty, panels: &panels, blocks, input: source, rows: count, out: &mut out });
                            let used = if integer { rounded(&input) } else { input.clone() };
                            for row in 0..count {
                                for output in 0..outputs {
                                    let terms = (0..inputs).map(|i| {
                                        f64::from(used[(i / BLOCK * filled(count) + row) * BLOCK + i % BLOCK])
                                            * f64::from(numbers[output][i])
                                    });
                                    let (mut sum, mut size) = (0.0, 0.0);
                                    terms.for_each(|x| {
                                        sum += x;
                                        size += x.abs()
                                    });
                                    let found = out[(output / OUTPUTS * count + row) * OUTPUTS + output % OUTPUTS];
                                    assert!(
                                        (f64::from(found) - sum).abs() <= 4e-6 * size + 1e-6,
                                        "{ty:?} {} integer {integer} rows {count} row {row} output {output}: {found} {sum}",
                                        isa.name()
                                    );
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn quants_say_their_sums() {
        for isa in Isa::available() {
            struct Sums;
            impl Kernel for Sums {
                type Output = (f32, f32);
                #[inline(always)]
                fn run<S: Simd>(self, s: S) -> Self::Output {
                    let numbers: [f32; BLOCK] = std::array::from_fn(|i| i as f32 - 4.0);
                    let q = quantise(s, &numbers);
                    (q.total(), q.scale())
                }
            }
            let (total, scale) = isa.run(Sums);
            let numbers: Vec<i32> =
                (0..32).map(|i| ((i as f32 - 4.0) * 127.0 / 27.0).round_ties_even() as i32).collect();
            assert!((total - numbers.iter().sum::<i32>() as f32 * 27.0 / 127.0).abs() < 1e-4);
            assert!((scale - 27.0 / 127.0).abs() < 1e-7);
        }
    }
}
