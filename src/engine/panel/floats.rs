//! Plain floats.

use super::{Bf16, F16, F32, Layout, OUTPUTS, Place, at};
use crate::engine::simd::Simd;

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
