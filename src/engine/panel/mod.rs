//! How weights lie in memory: panels of 32 outputs, each a run of units that hold some inputs of all 32. A product streams
//! through a panel once, whatever the number of rows. A unit keeps the file's own numbers (nothing is rounded again); only
//! their order changes:
//!
//! - plain floats: `[32 inputs][32 outputs]`, bf16 in pairs of inputs;
//! - bytes: a line of scales, then `[group of 4 inputs][32 outputs][4 inputs]`;
//! - nibbles: lines of scales, then `[half of 16 outputs][4 groups][16 outputs][4 inputs]`, group g + 4 above group g.

mod blocks;
mod floats;
mod k;

use super::simd::{LANES, Simd};
use crate::format::Type;

/// Outputs in a panel.
pub const OUTPUTS: usize = 32;
/// Inputs in a block, the piece that activations are quantised in.
pub const BLOCK: usize = 32;

/// Rows of activations that lie side by side: all blocks of eight rows, then those of the next eight. So what a tile of rows reads
/// is one run of memory, which a cache holds better than pieces at equal distances.
pub const GROUP: usize = 8;

/// Some rows of a group.
#[derive(Clone, Copy)]
pub struct Tile<'a, Q> {
    /// The group's, `[blocks][GROUP]`.
    pub group: &'a [Q],
    /// The first row of this tile in the group.
    pub first: usize,
    /// Is it the first tile of all, for which weights come from memory?
    pub fresh: bool,
}

impl<'a, Q> Tile<'a, Q> {
    /// R rows of a block.
    #[inline(always)]
    pub fn block<const R: usize>(self, block: usize) -> &'a [Q; R] {
        match self.group[block * GROUP..][..GROUP][self.first..].first_chunk() {
            Some(rows) => rows,
            None => unreachable!("a tile lies in its group"),
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
const AHEAD: usize = 8192;

/// Asks for the lines that lie [`AHEAD`] of some weights, once for all rows. The machine does so by itself, but not across
/// pages, and its window is short where products take long.
#[inline(always)]
pub fn ahead<S: Simd>(s: S, weights: &[u8], fresh: bool) {
    if !fresh {
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
