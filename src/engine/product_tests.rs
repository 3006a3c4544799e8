//! Every product of every type on every set of instructions, against plain sums.

use super::panel::{BLOCK, GROUP, OUTPUTS, is_integer};
use super::product::*;
use super::quants::quantise;
use super::simd::Quants;
use super::simd::{Isa, Kernel, Simd};
use crate::format::Type;
use crate::format::quant::dequantise;
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

/// `[groups][blocks][GROUP][32]`
fn laid_out(rows: &[Vec<f32>], blocks: usize) -> Vec<f32> {
    let mut out = vec![0.0; rows.len().div_ceil(GROUP) * blocks * GROUP * BLOCK];
    for (row, numbers) in rows.iter().enumerate() {
        for (block, numbers) in numbers.chunks(BLOCK).enumerate() {
            out[place(row, block, blocks)..][..BLOCK].copy_from_slice(numbers);
        }
    }
    out
}

/// Where a block of a row begins.
fn place(row: usize, block: usize, blocks: usize) -> usize {
    ((row / GROUP * blocks + block) * GROUP + row % GROUP) * BLOCK
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

/// Rows with extreme values among them: zeros, one huge number among small ones, equal magnitudes.
fn activations(count: usize, inputs: usize, rng: &mut Rng) -> Vec<Vec<f32>> {
    let mut number = |row: usize, i: usize| match row % 4 {
        1 if i == 7 => 1e4,
        2 if i.is_multiple_of(3) => 2.0,
        2 => -2.0,
        3 if count > 4 => 0.0,
        _ => rng.uniform() as f32 * 4.0 - 2.0,
    };
    (0..count).map(|row| (0..inputs).map(|i| number(row, i)).collect()).collect()
}

/// The product of one isa, held to a sum in double precision of the numbers that weights and activations stand for.
fn check(isa: Isa, (ty, panels): (Type, &[u8]), numbers: &[Vec<f32>], rows: &[Vec<f32>]) {
    let (count, inputs) = (rows.len(), numbers[0].len());
    let blocks = inputs / BLOCK;
    let input = laid_out(rows, blocks);
    let quants = isa.run(ToQuants(&input));
    for integer in [false, true] {
        if integer && !is_integer(ty) {
            continue;
        }
        let mut out = vec![f32::NAN; panels.len() / panel_bytes(ty, inputs) * count * OUTPUTS];
        let source = if integer { Input::Quants(&quants) } else { Input::Floats(&input) };
        isa.run(Product { ty, panels, blocks, input: source, rows: count, out: &mut out });
        let used = if integer { rounded(&input) } else { input.clone() };
        for (row, (output, weights)) in (0..count).flat_map(|row| numbers.iter().enumerate().map(move |n| (row, n))) {
            let used = (0..blocks).flat_map(|block| &used[place(row, block, blocks)..][..BLOCK]);
            let terms = used.zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b));
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), x| (sum + x, size + x.abs()));
            let found = f64::from(out[(output / OUTPUTS * count + row) * OUTPUTS + output % OUTPUTS]);
            let what = format!("{ty:?} {} integer {integer} rows {count} row {row} output {output}", isa.name());
            assert!((found - sum).abs() <= 4e-6 * size + 1e-6, "{what}: {found} {sum}");
        }
    }
}

#[test]
fn every_product_on_every_instruction_set_is_the_plain_sum() {
    let mut rng = Rng::new(5);
    for ty in Type::ALL {
        for (outputs, inputs, counts) in [(40, 512, &[1, 2, 3, 5, 8, 13, 33][..]), (64, 256, &[1, 4, 64])] {
            let matrix = random(ty, outputs, inputs, &mut rng);
            let panels = packed(ty, &matrix, inputs);
            let numbers: Vec<Vec<f32>> = matrix
                .iter()
                .map(|bytes| {
                    let mut row = vec![0.0; inputs];
                    dequantise(ty, bytes, &mut row);
                    row
                })
                .collect();
            for isa in Isa::available() {
                for &count in counts {
                    check(isa, (ty, &panels), &numbers, &activations(count, inputs, &mut rng));
                }
            }
        }
    }
}

/// Packing loses nothing: what is unpacked is what the format says, to the last place.
#[test]
fn a_packed_row_is_the_file_s_row() {
    let mut rng = Rng::new(6);
    for ty in Type::ALL {
        let matrix = random(ty, 40, 512, &mut rng);
        let panels = packed(ty, &matrix, 512);
        for isa in Isa::available() {
            for (output, bytes) in matrix.iter().enumerate() {
                let mut expected = [0.0; 512];
                dequantise(ty, bytes, &mut expected);
                let panel = &panels[output / OUTPUTS * panel_bytes(ty, 512)..][..panel_bytes(ty, 512)];
                for (block, expected) in expected.chunks(BLOCK).enumerate() {
                    let found = isa.run(Unpack { ty, panel, output: output % OUTPUTS, block });
                    for (a, b) in found.iter().zip(expected) {
                        assert!(
                            (a - b).abs() <= 2.0 * f32::EPSILON * (a.abs() + 0.1),
                            "{ty:?} {}: {a} {b}",
                            isa.name()
                        );
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
        let numbers: Vec<i32> = (0..32).map(|i| ((i as f32 - 4.0) * 127.0 / 27.0).round_ties_even() as i32).collect();
        assert!((total - numbers.iter().sum::<i32>() as f32 * 27.0 / 127.0).abs() < 1e-4);
        assert!((scale - 27.0 / 127.0).abs() < 1e-7);
    }
}
