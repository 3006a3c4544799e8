//! Blocks of 32 numbers with a scale, and perhaps a minimum.

use super::*;
use crate::engine::simd::Quants;

/// Adds the integer sums of R rows, times the scales of weights and activations.
#[inline(always)]
pub(super) fn add<S: Simd, const R: usize>(s: S, sums: &[S::I; R], rows: &[S::Q; R], scale: S::F, acc: &mut [S::F; R]) {
    for r in 0..R {
        acc[r] = s.fma(s.float(sums[r]), s.mul(scale, s.splat(rows[r].scale())), acc[r]);
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
        ahead(s, at::<{ Self::UNIT }>(unit, 0), tile.fresh);
        let rows = tile.block::<R>(first);
        let sums = s.dot8(at(unit, 64), rows);
        for half in 0..2 {
            add(s, &sums[half], rows, s.load_f16(at(unit, half * 32)), &mut acc[half]);
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
        ahead(s, at::<{ Self::UNIT }>(unit, 0), tile.fresh);
        let rows = tile.block::<R>(first);
        let sums = s.dot4::<R, 8>(at(unit, 64), rows);
        for half in 0..2 {
            add(s, &sums[half], rows, s.load_f16(at(unit, half * 32)), &mut acc[half]);
        }
    }
}

/// One block of nibbles with a scale and a minimum for each half of the outputs: `scale * nibble + minimum`.
#[inline(always)]
pub(super) fn accumulate_affine<S: Simd, const R: usize>(
    s: S,
    weights: &[u8; 512],
    rows: &[S::Q; R],
    affine: [[S::F; 2]; 2],
    acc: &mut [[S::F; R]; 2],
) {
    let sums = s.dot4::<R, 0>(weights, rows);
    for half in 0..2 {
        let [scale, minimum] = affine[half];
        add(s, &sums[half], rows, scale, &mut acc[half]);
        for r in 0..R {
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
        ahead(s, at::<{ Self::UNIT }>(unit, 0), tile.fresh);
        let rows = tile.block::<R>(first);
        let affine =
            [[s.load_f16(at(unit, 0)), s.load_f16(at(unit, 64))], [s.load_f16(at(unit, 32)), s.load_f16(at(unit, 96))]];
        accumulate_affine(s, at(unit, 128), rows, affine, acc);
    }
}
