//! How weights lie in memory: panels of 32 outputs, each a run of units that hold some inputs of all 32. A product streams
//! through a panel once, whatever the number of rows. A unit keeps the file's own numbers (nothing is rounded again); only
//! their order changes:
//!
//! - plain floats: `[32 inputs][32 outputs]`, bf16 in pairs of inputs;
//! - bytes: a line of scales, then `[group of 4 inputs][32 outputs][4 inputs]`;
//! - nibbles: lines of scales, then `[half of 16 outputs][4 groups][16 outputs][4 inputs]`, group g + 4 above group g.

use super::simd::{LANES, Quants, Simd};
use crate::format::Type;

/// Outputs in a panel.
pub const OUTPUTS: usize = 32;
/// Inputs in a block, the piece that activations are quantised in.
pub const BLOCK: usize = 32;

/// Rows of quantised activations: those of block b, row r stand at `b * rows + r`.
#[derive(Clone, Copy)]
pub struct Tile<'a, Q> {
    /// All of them.
    pub quants: &'a [Q],
    /// Rows in a block, filled up to whole tiles.
    pub rows: usize,
    /// The first row of this tile.
    pub first: usize,
}

impl<'a, Q> Tile<'a, Q> {
    /// R rows of a block, one after the other.
    #[inline(always)]
    pub fn block<const R: usize>(self, block: usize) -> &'a [Q; R] {
        match self.quants[block * self.rows + self.first..].first_chunk() {
            Some(rows) => rows,
            None => unreachable!("rows are filled up to whole tiles"),
        }
    }
}

/// How one type lies in a unit.
pub trait Layout {
    /// Blocks of inputs in a unit.
    const BLOCKS: usize;
    /// Bytes of a unit.
    const UNIT: usize;
    /// Bytes of one output's row that a unit takes.
    const SOURCE: usize;

    /// Puts the numbers of output `output` into a unit.
    fn pack(source: &[u8], output: usize, unit: &mut [u8]);

    /// Numbers of 4 inputs (one group of one block) for 16 outputs (one half).
    fn decode<S: Simd>(s: S, unit: &[u8], at: Place) -> [S::F; 4];
}

/// Which numbers of a unit.
#[derive(Clone, Copy)]
pub struct Place {
    /// Block of 32 inputs, in the unit.
    pub block: usize,
    /// Half of the outputs.
    pub half: usize,
    /// Group of 4 inputs, in the block.
    pub group: usize,
}

/// A type whose products are made of integers.
pub trait Integers: Layout {
    /// Adds the products of a unit, whose first block is `first`, with R rows, for both halves of the outputs.
    fn accumulate<S: Simd, const R: usize>(
        s: S,
        unit: &[u8],
        tile: Tile<'_, S::Q>,
        first: usize,
        acc: &mut [[S::F; R]; 2],
    );
}

/// How far ahead of the products weights are asked for, in bytes: a few hundred nanoseconds of reading.
const AHEAD: usize = 4096;

/// Asks for the lines that lie [`AHEAD`] of some weights, once for all rows. With few rows the machine does so by itself; with more,
/// products take so long that its own window is too short.
#[inline(always)]
pub fn ahead<S: Simd, const R: usize>(s: S, weights: &[u8], first_row: usize) {
    if first_row > 0 {
        return;
    }
    for line in weights.chunks(64) {
        s.prefetch(line.as_ptr().wrapping_add(AHEAD));
    }
}

/// N bytes from a place on.
#[inline(always)]
fn at<const N: usize>(bytes: &[u8], start: usize) -> &[u8; N] {
    match bytes[start..].first_chunk() {
        Some(chunk) => chunk,
        None => unreachable!("a unit holds what its layout says"),
    }
}

/// One after the other, the four bytes of each lane.
#[inline(always)]
fn bytes<S: Simd>(s: S, fours: S::I) -> [S::I; 4] {
    let low = s.splat_i(255);
    [s.and(fours, low), s.and(s.shr::<8>(fours), low), s.and(s.shr::<16>(fours), low), s.shr::<24>(fours)]
}

/// Unsigned bytes as numbers that count from `zero`, times a scale.
#[inline(always)]
fn scaled<S: Simd>(s: S, fours: S::I, zero: i32, scale: S::F) -> [S::F; 4] {
    let [a, b, c, d] = bytes(s, fours);
    let zero = s.splat_i(-zero);
    let (a, b, c, d) = (s.add_i(a, zero), s.add_i(b, zero), s.add_i(c, zero), s.add_i(d, zero));
    [s.mul(s.float(a), scale), s.mul(s.float(b), scale), s.mul(s.float(c), scale), s.mul(s.float(d), scale)]
}

/// Unsigned bytes times a scale, plus a minimum.
#[inline(always)]
fn affine<S: Simd>(s: S, fours: S::I, [scale, minimum]: [S::F; 2]) -> [S::F; 4] {
    let [a, b, c, d] = bytes(s, fours);
    [
        s.fma(s.float(a), scale, minimum),
        s.fma(s.float(b), scale, minimum),
        s.fma(s.float(c), scale, minimum),
        s.fma(s.float(d), scale, minimum),
    ]
}

/// The group of nibbles as bytes: group g + 4 stands above group g.
#[inline(always)]
fn nibbles<S: Simd>(s: S, half: &[u8], group: usize) -> S::I {
    let both = s.load_i(at(half, group % 4 * 64));
    let shifted = if group < 4 { both } else { s.shr::<4>(both) };
    s.and(shifted, s.splat_i(0x0f0f_0f0f))
}

/// Writes 32 numbers of 4 bits, given as bytes, into the two halves' nibbles.
fn pack_nibbles(numbers: &[u8; BLOCK], output: usize, halves: &mut [u8]) {
    let half = &mut halves[output / LANES * 256..][..256];
    for group in 0..4 {
        for input in 0..4 {
            let (low, high) = (numbers[group * 4 + input], numbers[(group + 4) * 4 + input]);
            half[group * 64 + output % LANES * 4 + input] = low & 15 | high << 4;
        }
    }
}

/// The 32 nibbles of GGUF's 4-bit blocks: byte i holds number i below number i + 16.
fn file_nibbles(source: &[u8]) -> [u8; BLOCK] {
    std::array::from_fn(|i| if i < 16 { source[i] & 15 } else { source[i - 16] >> 4 })
}

/// Single precision.
pub struct F32;
/// Half precision.
pub struct F16;
/// Brain floats.
pub struct Bf16;
/// See [`Type::Q8_0`].
pub struct Q8;
/// See [`Type::Q4_0`].
pub struct Q4;
/// See [`Type::Q4_1`].
pub struct Q41;
/// See [`Type::Q4K`].
pub struct Q4K;
/// See [`Type::Q6K`].
pub struct Q6K;

/// Runs an expression with `$layout` as the layout of a type.
macro_rules! with_layout {
    ($ty:expr, $layout:ident => $body:expr) => {
        match $ty {
            $crate::format::Type::F32 => {
                type $layout = $crate::engine::panel::F32;
                $body
            }
            $crate::format::Type::F16 => {
                type $layout = $crate::engine::panel::F16;
                $body
            }
            $crate::format::Type::Bf16 => {
                type $layout = $crate::engine::panel::Bf16;
                $body
            }
            $crate::format::Type::Q8_0 => {
                type $layout = $crate::engine::panel::Q8;
                $body
            }
            $crate::format::Type::Q4_0 => {
                type $layout = $crate::engine::panel::Q4;
                $body
            }
            $crate::format::Type::Q4_1 => {
                type $layout = $crate::engine::panel::Q41;
                $body
            }
            $crate::format::Type::Q4K => {
                type $layout = $crate::engine::panel::Q4K;
                $body
            }
            $crate::format::Type::Q6K => {
                type $layout = $crate::engine::panel::Q6K;
                $body
            }
        }
    };
}
pub(super) use with_layout;

/// Has the type products of integers?
pub fn is_integer(ty: Type) -> bool {
    !matches!(ty, Type::F32 | Type::F16 | Type::Bf16)
}

impl Layout for F32 {
    const BLOCKS: usize = 1;
    const UNIT: usize = 4096;
    const SOURCE: usize = 128;

    fn pack(source: &[u8], output: usize, unit: &mut [u8]) {
        for (input, number) in source.as_chunks::<4>().0.iter().enumerate() {
            unit[(input * OUTPUTS + output) * 4..][..4].copy_from_slice(number);
        }
    }

    #[inline(always)]
    fn decode<S: Simd>(s: S, unit: &[u8], p: Place) -> [S::F; 4] {
        let mut numbers = [s.splat(0.0); 4];
        for (i, numbers) in numbers.iter_mut().enumerate() {
            *numbers = s.bits(s.load_i(at(unit, (p.group * 4 + i) * 128 + p.half * 64)));
        }
        numbers
    }
}

impl Layout for F16 {
    const BLOCKS: usize = 1;
    const UNIT: usize = 2048;
    const SOURCE: usize = 64;

    fn pack(source: &[u8], output: usize, unit: &mut [u8]) {
        for (input, number) in source.as_chunks::<2>().0.iter().enumerate() {
            unit[(input * OUTPUTS + output) * 2..][..2].copy_from_slice(number);
        }
    }

    #[inline(always)]
    fn decode<S: Simd>(s: S, unit: &[u8], p: Place) -> [S::F; 4] {
        let mut numbers = [s.splat(0.0); 4];
        for (i, numbers) in numbers.iter_mut().enumerate() {
            *numbers = s.load_f16(at(unit, (p.group * 4 + i) * 64 + p.half * 32));
        }
        numbers
    }
}

impl Layout for Bf16 {
    const BLOCKS: usize = 1;
    const UNIT: usize = 2048;
    const SOURCE: usize = 64;

    fn pack(source: &[u8], output: usize, unit: &mut [u8]) {
        for (pair, numbers) in source.chunks(4).enumerate() {
            unit[(pair * OUTPUTS + output) * 4..][..numbers.len()].copy_from_slice(numbers);
        }
    }

    #[inline(always)]
    fn decode<S: Simd>(s: S, unit: &[u8], p: Place) -> [S::F; 4] {
        let start = p.group * 256 + p.half * 64;
        let (a, b) = (s.load_i(at(unit, start)), s.load_i(at(unit, start + 128)));
        let upper = s.splat_i(0xffff_0000_u32 as i32);
        [s.bits(s.shl::<16>(a)), s.bits(s.and(a, upper)), s.bits(s.shl::<16>(b)), s.bits(s.and(b, upper))]
    }
}

impl Layout for Q8 {
    const BLOCKS: usize = 1;
    const UNIT: usize = 64 + 1024;
    const SOURCE: usize = 34;

    fn pack(source: &[u8], output: usize, unit: &mut [u8]) {
        unit[output * 2..][..2].copy_from_slice(&source[..2]);
        for (group, bytes) in source[2..].as_chunks::<4>().0.iter().enumerate() {
            unit[64 + (group * OUTPUTS + output) * 4..][..4].copy_from_slice(&bytes.map(|x| x ^ 0x80));
        }
    }

    #[inline(always)]
    fn decode<S: Simd>(s: S, unit: &[u8], p: Place) -> [S::F; 4] {
        let scale = s.load_f16(at(unit, p.half * 32));
        let fours = s.load_i(at(unit, 64 + p.group * 128 + p.half * 64));
        scaled(s, fours, 128, scale)
    }
}

impl Integers for Q8 {
    #[inline(always)]
    fn accumulate<S: Simd, const R: usize>(
        s: S,
        unit: &[u8],
        tile: Tile<'_, S::Q>,
        first: usize,
        acc: &mut [[S::F; R]; 2],
    ) {
        ahead::<S, R>(s, at::<{ Self::UNIT }>(unit, 0), tile.first);
        let rows = tile.block::<R>(first);
        let sums = s.dot8(at(unit, 64), rows);
        for half in 0..2 {
            let scale = s.load_f16(at(unit, half * 32));
            for r in 0..R {
                let scale = s.mul(scale, s.splat(rows[r].scale()));
                acc[half][r] = s.fma(s.float(sums[half][r]), scale, acc[half][r]);
            }
        }
    }
}

impl Layout for Q4 {
    const BLOCKS: usize = 1;
    const UNIT: usize = 64 + 512;
    const SOURCE: usize = 18;

    fn pack(source: &[u8], output: usize, unit: &mut [u8]) {
        unit[output * 2..][..2].copy_from_slice(&source[..2]);
        pack_nibbles(&file_nibbles(&source[2..]), output, &mut unit[64..]);
    }

    #[inline(always)]
    fn decode<S: Simd>(s: S, unit: &[u8], p: Place) -> [S::F; 4] {
        let scale = s.load_f16(at(unit, p.half * 32));
        let fours = nibbles(s, at::<256>(unit, 64 + p.half * 256), p.group);
        scaled(s, fours, 8, scale)
    }
}

impl Integers for Q4 {
    #[inline(always)]
    fn accumulate<S: Simd, const R: usize>(
        s: S,
        unit: &[u8],
        tile: Tile<'_, S::Q>,
        first: usize,
        acc: &mut [[S::F; R]; 2],
    ) {
        ahead::<S, R>(s, at::<{ Self::UNIT }>(unit, 0), tile.first);
        let rows = tile.block::<R>(first);
        let sums = s.dot4::<R, 8>(at(unit, 64), rows);
        for half in 0..2 {
            let scale = s.load_f16(at(unit, half * 32));
            for r in 0..R {
                let scale = s.mul(scale, s.splat(rows[r].scale()));
                acc[half][r] = s.fma(s.float(sums[half][r]), scale, acc[half][r]);
            }
        }
    }
}

/// One block of nibbles with a scale and a minimum for each half of the outputs: `scale * nibble + minimum`.
#[inline(always)]
fn accumulate_affine<S: Simd, const R: usize>(
    s: S,
    weights: &[u8; 512],
    rows: &[S::Q; R],
    affine: [[S::F; 2]; 2],
    acc: &mut [[S::F; R]; 2],
) {
    let sums = s.dot4::<R, 0>(weights, rows);
    for half in 0..2 {
        let [scale, minimum] = affine[half];
        for r in 0..R {
            let scale = s.mul(scale, s.splat(rows[r].scale()));
            acc[half][r] = s.fma(s.float(sums[half][r]), scale, acc[half][r]);
            acc[half][r] = s.fma(minimum, s.splat(rows[r].total()), acc[half][r]);
        }
    }
}

impl Layout for Q41 {
    const BLOCKS: usize = 1;
    const UNIT: usize = 128 + 512;
    const SOURCE: usize = 20;

    fn pack(source: &[u8], output: usize, unit: &mut [u8]) {
        unit[output * 2..][..2].copy_from_slice(&source[..2]);
        unit[64 + output * 2..][..2].copy_from_slice(&source[2..4]);
        pack_nibbles(&file_nibbles(&source[4..]), output, &mut unit[128..]);
    }

    #[inline(always)]
    fn decode<S: Simd>(s: S, unit: &[u8], p: Place) -> [S::F; 4] {
        let (scale, minimum) = (s.load_f16(at(unit, p.half * 32)), s.load_f16(at(unit, 64 + p.half * 32)));
        let fours = nibbles(s, at::<256>(unit, 128 + p.half * 256), p.group);
        affine(s, fours, [scale, minimum])
    }
}

impl Integers for Q41 {
    #[inline(always)]
    fn accumulate<S: Simd, const R: usize>(
        s: S,
        unit: &[u8],
        tile: Tile<'_, S::Q>,
        first: usize,
        acc: &mut [[S::F; R]; 2],
    ) {
        ahead::<S, R>(s, at::<{ Self::UNIT }>(unit, 0), tile.first);
        let rows = tile.block::<R>(first);
        let affine =
            [[s.load_f16(at(unit, 0)), s.load_f16(at(unit, 64))], [s.load_f16(at(unit, 32)), s.load_f16(at(unit, 96))]];
        accumulate_affine(s, at(unit, 128), rows, affine, acc);
    }
}

/// Bytes of one block in a unit of Q4_K: scales, minima, nibbles.
const Q4K_BLOCK: usize = 64 + 512;

impl Q4K {
    /// Scale and minus the minimum of one half of a block.
    #[inline(always)]
    fn affine<S: Simd>(s: S, unit: &[u8], block: usize, half: usize) -> [S::F; 2] {
        let start = 128 + block * Q4K_BLOCK;
        let scale = s.float(s.load_u8(at(unit, start + half * 16)));
        let minimum = s.float(s.load_u8(at(unit, start + 32 + half * 16)));
        let (d, dmin) = (s.load_f16(at(unit, half * 32)), s.load_f16(at(unit, 64 + half * 32)));
        [s.mul(d, scale), s.sub(s.splat(0.0), s.mul(dmin, minimum))]
    }
}

impl Layout for Q4K {
    const BLOCKS: usize = 8;
    const UNIT: usize = 128 + 8 * Q4K_BLOCK;
    const SOURCE: usize = 144;

    fn pack(source: &[u8], output: usize, unit: &mut [u8]) {
        unit[output * 2..][..2].copy_from_slice(&source[..2]);
        unit[64 + output * 2..][..2].copy_from_slice(&source[2..4]);
        // 6-bit scales and minima: eight of each in 12 bytes.
        let packed = &source[4..16];
        for block in 0..8 {
            let (scale, minimum) = match block {
                0..4 => (packed[block] & 63, packed[block + 4] & 63),
                _ => (
                    packed[block + 4] & 15 | packed[block - 4] >> 6 << 4,
                    packed[block + 4] >> 4 | packed[block] >> 6 << 4,
                ),
            };
            // Blocks 2i and 2i + 1 are the lower and the upper nibbles of 32 bytes.
            let both = &source[16 + block / 2 * 32..][..32];
            let numbers = std::array::from_fn(|i| if block % 2 == 0 { both[i] & 15 } else { both[i] >> 4 });
            let place = &mut unit[128 + block * Q4K_BLOCK..][..Q4K_BLOCK];
            place[output] = scale;
            place[32 + output] = minimum;
            pack_nibbles(&numbers, output, &mut place[64..]);
        }
    }

    #[inline(always)]
    fn decode<S: Simd>(s: S, unit: &[u8], p: Place) -> [S::F; 4] {
        let fours = nibbles(s, at::<256>(unit, 128 + p.block * Q4K_BLOCK + 64 + p.half * 256), p.group);
        affine(s, fours, Self::affine(s, unit, p.block, p.half))
    }
}

impl Integers for Q4K {
    #[inline(always)]
    fn accumulate<S: Simd, const R: usize>(
        s: S,
        unit: &[u8],
        tile: Tile<'_, S::Q>,
        first: usize,
        acc: &mut [[S::F; R]; 2],
    ) {
        for block in 0..8 {
            ahead::<S, R>(s, at::<{ Self::UNIT / 8 }>(unit, block * (Self::UNIT / 8)), tile.first);
            let rows = tile.block::<R>(first + block);
            let affine = [Self::affine(s, unit, block, 0), Self::affine(s, unit, block, 1)];
            accumulate_affine(s, at(unit, 128 + block * Q4K_BLOCK + 64), rows, affine, acc);
        }
    }
}

/// Bytes of one block in a unit of Q6_K: two lines of scales, then for each half lower nibbles and upper bits.
const Q6K_BLOCK: usize = 64 + 2 * (256 + 128);

impl Q6K {
    /// The scale of one sixteen of inputs of one half of a block.
    #[inline(always)]
    fn scale<S: Simd>(s: S, unit: &[u8], block: usize, half: usize, sixteen: usize) -> S::F {
        let d = s.load_f16(at(unit, half * 32));
        s.mul(d, s.float(s.load_i8(at(unit, 64 + block * Q6K_BLOCK + sixteen * 32 + half * 16))))
    }
}

impl Layout for Q6K {
    const BLOCKS: usize = 8;
    const UNIT: usize = 64 + 8 * Q6K_BLOCK;
    const SOURCE: usize = 210;

    fn pack(source: &[u8], output: usize, unit: &mut [u8]) {
        unit[output * 2..][..2].copy_from_slice(&source[208..210]);
        let (lower, upper, scales) = (&source[..128], &source[128..192], &source[192..208]);
        for block in 0..8 {
            // Number n of each 128: 4 bits in 64 bytes (the second 64 above the first), 2 bits in 32 bytes.
            let (part, quarter) = (block / 4, block % 4);
            let numbers: [u8; BLOCK] = std::array::from_fn(|i| {
                let low = lower[part * 64 + quarter % 2 * 32 + i] >> (quarter / 2 * 4) & 15;
                low | (upper[part * 32 + i] >> (quarter * 2) & 3) << 4
            });
            let place = &mut unit[64 + block * Q6K_BLOCK..][..Q6K_BLOCK];
            place[output] = scales[block * 2];
            place[32 + output] = scales[block * 2 + 1];
            let half = &mut place[64 + output / LANES * 384..][..384];
            for group in 0..8 {
                for input in 0..4 {
                    let (number, lane) = (numbers[group * 4 + input], output % LANES * 4 + input);
                    half[group % 4 * 64 + lane] |= (number & 15) << (group / 4 * 4);
                    half[256 + group / 4 * 64 + lane] |= number >> 4 << (group % 4 * 2);
                }
            }
        }
    }

    #[inline(always)]
    fn decode<S: Simd>(s: S, unit: &[u8], p: Place) -> [S::F; 4] {
        let half = at::<384>(unit, 64 + p.block * Q6K_BLOCK + 64 + p.half * 384);
        let high = s.load_i(at(half, 256 + p.group / 4 * 64));
        let high = match p.group % 4 {
            0 => s.shl::<4>(high),
            1 => s.shl::<2>(high),
            2 => high,
            _ => s.shr::<2>(high),
        };
        let fours = s.or(nibbles(s, half, p.group), s.and(high, s.splat_i(0x3030_3030)));
        let scale = Self::scale(s, unit, p.block, p.half, p.group / 4);
        scaled(s, fours, 32, scale)
    }
}

impl Integers for Q6K {
    #[inline(always)]
    fn accumulate<S: Simd, const R: usize>(
        s: S,
        unit: &[u8],
        tile: Tile<'_, S::Q>,
        first: usize,
        acc: &mut [[S::F; R]; 2],
    ) {
        for block in 0..8 {
            ahead::<S, R>(s, at::<{ Self::UNIT / 8 }>(unit, block * (Self::UNIT / 8)), tile.first);
            let rows = tile.block::<R>(first + block);
            for (half, acc) in acc.iter_mut().enumerate() {
                let bytes = at::<384>(unit, 64 + block * Q6K_BLOCK + 64 + half * 384);
                let sums = s.dot6(at(bytes, 0), at(bytes, 256), rows);
                for (sixteen, sums) in sums.into_iter().enumerate() {
                    let scale = Self::scale(s, unit, block, half, sixteen);
                    for r in 0..R {
                        acc[r] = s.fma(s.float(sums[r]), s.mul(scale, s.splat(rows[r].scale())), acc[r]);
                    }
                }
            }
        }
    }
}
