//! AVX-512 with VNNI: a vector is one register, and four products of bytes are one instruction.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::portable::Starts;
use super::{Kernel, Quants, Simd};

/// Proof that the machine has AVX-512 (F, BW, DQ, VL) and VNNI.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// Asks the machine.
    pub fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

/// Activations, four bytes to a number, as the instruction broadcasts them.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Fours {
    fours: [i32; 8],
    starts: Starts,
    /// A row of a block is one cache line.
    unused: [i32; 2],
}

impl Quants for Fours {
    #[inline(always)]
    fn scale(&self) -> f32 {
        self.starts.scale
    }

    #[inline(always)]
    fn total(&self) -> f32 {
        self.starts.total
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn vectorised<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
    kernel.run(simd)
}

// SAFETY of every block below: the token exists, so the machine has the instructions; loads and stores go through references to
// arrays of exactly the size that they touch, and need no alignment.
impl Simd for Avx512 {
    type F = __m512;
    type I = __m512i;
    type Q = Fours;
    const ROWS: usize = 8;

    fn vectorise<K: Kernel>(self, kernel: K) -> K::Output {
        unsafe { vectorised(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> __m512 {
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn store(self, x: __m512, to: &mut [f32; 16]) {
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), x) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn store_f16(self, x: __m512, to: &mut [u8; 32]) {
        unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x)) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn round(self, x: __m512) -> __m512i {
        unsafe { _mm512_cvtps_epi32(x) }
    }
    #[inline(always)]
    fn float(self, x: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(x) }
    }
    #[inline(always)]
    fn bits(self, x: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(x) }
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    fn load_i(self, from: &[u8; 64]) -> __m512i {
        unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
    }
    #[inline(always)]
    fn store_i(self, x: __m512i, to: &mut [i32; 16]) {
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), x) }
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; 16]) -> __m512i {
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_i8(self, from: &[u8; 16]) -> __m512i {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn add_i(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn or(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    fn shl<const N: i32>(self, x: __m512i) -> __m512i {
        unsafe { _mm512_sll_epi32(x, _mm_cvtsi32_si128(N)) }
    }
    #[inline(always)]
    fn shr<const N: i32>(self, x: __m512i) -> __m512i {
        unsafe { _mm512_srl_epi32(x, _mm_cvtsi32_si128(N)) }
    }

    #[inline(always)]
    fn sum(self, x: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(x) }
    }
    #[inline(always)]
    fn largest(self, x: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(x) }
    }

    #[inline(always)]
    fn quants(self, integers: [__m512i; 2], scale: f32) -> Fours {
        unsafe {
            let [a, b] = [_mm512_cvtepi32_epi8(integers[0]), _mm512_cvtepi32_epi8(integers[1])];
            let mut fours = [0; 8];
            _mm256_storeu_si256(fours.as_mut_ptr().cast(), _mm256_set_m128i(b, a));
            let sums = [_mm512_reduce_add_epi32(integers[0]), _mm512_reduce_add_epi32(integers[1])];
            Fours { fours, starts: Starts::new(sums, scale), unused: [0; 2] }
        }
    }

    #[inline(always)]
    fn prefetch(self, line: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }

    #[inline(always)]
    fn dot(self, acc: __m512i, weights: __m512i, fours: i32) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(acc, weights, _mm512_set1_epi32(fours)) }
    }

    #[inline(always)]
    fn dot8<const R: usize>(self, weights: &[u8; 1024], rows: &[Fours; R]) -> [[__m512i; R]; 2] {
        let (chunks, _) = weights.as_chunks::<64>();
        let mut acc = [[self.splat_i(0); R]; 2];
        for r in 0..R {
            acc[0][r] = self.splat_i(rows[r].starts.eight);
            acc[1][r] = acc[0][r];
        }
        // Both halves in one turn, so that one broadcast serves two products.
        for g in 0..8 {
            let (low, high) = (self.load_i(&chunks[2 * g]), self.load_i(&chunks[2 * g + 1]));
            for r in 0..R {
                let fours = self.splat_i(rows[r].fours[g]);
                acc[0][r] = unsafe { _mm512_dpbusd_epi32(acc[0][r], low, fours) };
                acc[1][r] = unsafe { _mm512_dpbusd_epi32(acc[1][r], high, fours) };
            }
        }
        acc
    }

    #[inline(always)]
    fn dot4<const R: usize, const ZERO: i32>(self, weights: &[u8; 512], rows: &[Fours; R]) -> [[__m512i; R]; 2] {
        let (chunks, _) = weights.as_chunks::<64>();
        let nibble = self.splat_i(0x0f0f_0f0f);
        let mut acc = [[self.splat_i(0); R]; 2];
        if ZERO == 8 {
            for r in 0..R {
                acc[0][r] = self.splat_i(rows[r].starts.four);
                acc[1][r] = acc[0][r];
            }
        }
        for g in 0..4 {
            let both = [self.load_i(&chunks[g]), self.load_i(&chunks[4 + g])];
            let low = [self.and(both[0], nibble), self.and(both[1], nibble)];
            for r in 0..R {
                let fours = self.splat_i(rows[r].fours[g]);
                acc[0][r] = unsafe { _mm512_dpbusd_epi32(acc[0][r], low[0], fours) };
                acc[1][r] = unsafe { _mm512_dpbusd_epi32(acc[1][r], low[1], fours) };
            }
            let high = [self.and(self.shr::<4>(both[0]), nibble), self.and(self.shr::<4>(both[1]), nibble)];
            for r in 0..R {
                let fours = self.splat_i(rows[r].fours[g + 4]);
                acc[0][r] = unsafe { _mm512_dpbusd_epi32(acc[0][r], high[0], fours) };
                acc[1][r] = unsafe { _mm512_dpbusd_epi32(acc[1][r], high[1], fours) };
            }
        }
        acc
    }

    #[inline(always)]
    fn dot6<const R: usize>(self, low: &[u8; 256], high: &[u8; 128], rows: &[Fours; R]) -> [[__m512i; R]; 2] {
        let mut acc = [[self.splat_i(0); R]; 2];
        for (r, row) in rows.iter().enumerate() {
            acc[0][r] = self.splat_i(row.starts.six[0]);
            acc[1][r] = self.splat_i(row.starts.six[1]);
        }
        let (nibble, upper) = unsafe { (_mm512_set1_epi8(15), _mm512_set1_epi8(0x30)) };
        let (chunks, _) = high.as_chunks::<64>();
        let mut high = [self.load_i(&chunks[0]), self.load_i(&chunks[1])];
        for (g, low) in low.as_chunks::<64>().0.iter().enumerate() {
            let low = self.load_i(low);
            let parts = [self.and(low, nibble), self.and(self.shr::<4>(low), nibble)];
            for half in 0..2 {
                let bits = self.and(self.shl::<4>(high[half]), upper);
                let weights = self.or(parts[half], bits);
                for (acc, row) in acc[half].iter_mut().zip(rows) {
                    let fours = unsafe { _mm512_set1_epi32(row.fours[half * 4 + g]) };
                    *acc = unsafe { _mm512_dpbusd_epi32(*acc, weights, fours) };
                }
                high[half] = self.shr::<2>(high[half]);
            }
        }
        acc
    }
}
