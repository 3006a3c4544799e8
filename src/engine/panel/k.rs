//! Blocks of 256 numbers, whose pieces have small integers as scales.

use super::blocks::{accumulate_affine, add};
use super::*;

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
            ahead(s, at::<{ Self::UNIT / 8 }>(unit, block * (Self::UNIT / 8)), tile.fresh);
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
            ahead(s, at::<{ Self::UNIT / 8 }>(unit, block * (Self::UNIT / 8)), tile.fresh);
            let rows = tile.block::<R>(first + block);
            for (half, acc) in acc.iter_mut().enumerate() {
                let bytes = at::<384>(unit, 64 + block * Q6K_BLOCK + 64 + half * 384);
                let sums = s.dot6(at(bytes, 0), at(bytes, 256), rows);
                for (sixteen, sums) in sums.into_iter().enumerate() {
                    let scale = Self::scale(s, unit, block, half, sixteen);
                    add(s, &sums, rows, scale, acc);
                }
            }
        }
    }
}
