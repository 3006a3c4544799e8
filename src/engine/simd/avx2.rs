//! AVX2 with FMA and F16C: a vector is two registers. There is no product of four bytes that does not saturate, so bytes are
//! multiplied as halves of 16 bits, and nibbles as bytes whose sums stay below 2^15.
#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::portable::Starts;
use super::{Kernel, Quants, Simd};

/// Proof that the machine has AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// Asks the machine.
    pub fn new() -> Option<Self> {
        let has =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        has.then_some(Self(()))
    }
}

/// Activations in fours of bytes, and in pairs of 16 bits: inputs 0 and 2 of each four, and inputs 1 and 3, as weights unpack.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Pairs {
    fours: [i32; 8],
    even: [i32; 8],
    odd: [i32; 8],
    starts: Starts,
}

impl Quants for Pairs {
    #[inline(always)]
    fn scale(&self) -> f32 {
        self.starts.scale
    }

    #[inline(always)]
    fn total(&self) -> f32 {
        self.starts.total
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn vectorised<K: Kernel>(simd: Avx2, kernel: K) -> K::Output {
    kernel.run(simd)
}

type F = [__m256; 2];
type I = [__m256i; 2];

macro_rules! each {
    ($f:ident($($x:expr),*)) => {
        unsafe { [$f($($x[0]),*), $f($($x[1]),*)] }
    };
}

/// Four groups of products of nibbles that count from nothing: eight sums of at most 2 * 15 * 127 stay below 2^15.
#[inline(always)]
fn nibbles<const R: usize>(_: Avx2, vectors: &[[__m256i; 2]; 4], rows: &[Pairs; R]) -> [__m256i; R] {
    // SAFETY: an `Avx2` is only made where the processor has the instructions.
    unsafe {
        let mut sums = [_mm256_setzero_si256(); R];
        for (sum, row) in sums.iter_mut().zip(rows) {
            let mut acc = _mm256_setzero_si256();
            for (g, [low, high]) in vectors.iter().enumerate() {
                acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(*low, _mm256_set1_epi32(row.fours[g])));
                acc = _mm256_add_epi16(acc, _mm256_maddubs_epi16(*high, _mm256_set1_epi32(row.fours[g + 4])));
            }
            *sum = _mm256_madd_epi16(acc, _mm256_set1_epi16(1));
        }
        sums
    }
}

/// Products of 32 bytes for 16 outputs, as halves of 16 bits.
#[inline(always)]
fn bytes<const R: usize>(s: Avx2, weights: &[u8; 1024], half: usize, rows: &[Pairs; R]) -> [I; R] {
    let mut acc = [s.splat_i(0); R];
    for (acc, row) in acc.iter_mut().zip(rows) {
        *acc = s.splat_i(row.starts.eight);
    }
    let (chunks, _) = weights.as_chunks::<64>();
    for g in 0..8 {
        let weights = s.load_i(&chunks[2 * g + half]);
        unsafe {
            let even = s.and(weights, s.splat_i(0x00ff_00ff));
            let odd = [_mm256_srli_epi16::<8>(weights[0]), _mm256_srli_epi16::<8>(weights[1])];
            for (acc, row) in acc.iter_mut().zip(rows) {
                let (a, b) = (_mm256_set1_epi32(row.even[g]), _mm256_set1_epi32(row.odd[g]));
                for half in 0..2 {
                    acc[half] = _mm256_add_epi32(acc[half], _mm256_madd_epi16(even[half], a));
                    acc[half] = _mm256_add_epi32(acc[half], _mm256_madd_epi16(odd[half], b));
                }
            }
        }
    }
    acc
}

// SAFETY of every block below: the token exists, so the machine has the instructions; loads and stores go through references to
// arrays of exactly the size that they touch, and need no alignment.
impl Simd for Avx2 {
    type F = F;
    type I = I;
    type Q = Pairs;
    const ROWS: usize = 4;

    fn vectorise<K: Kernel>(self, kernel: K) -> K::Output {
        unsafe { vectorised(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> F {
        let p = from.as_ptr();
        unsafe { [_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))] }
    }
    #[inline(always)]
    fn store(self, x: F, to: &mut [f32; 16]) {
        let p = to.as_mut_ptr();
        unsafe {
            _mm256_storeu_ps(p, x[0]);
            _mm256_storeu_ps(p.add(8), x[1]);
        }
    }
    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> F {
        let p: *const __m128i = from.as_ptr().cast();
        unsafe { [_mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128(p.add(1)))] }
    }
    #[inline(always)]
    fn store_f16(self, x: F, to: &mut [u8; 32]) {
        let p: *mut __m128i = to.as_mut_ptr().cast();
        unsafe {
            _mm_storeu_si128(p, _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x[0]));
            _mm_storeu_si128(p.add(1), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(x[1]));
        }
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        each!(_mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        each!(_mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        each!(_mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        each!(_mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        each!(_mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        each!(_mm256_max_ps(a, b))
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        each!(_mm256_min_ps(a, b))
    }
    #[inline(always)]
    fn round(self, x: F) -> I {
        each!(_mm256_cvtps_epi32(x))
    }
    #[inline(always)]
    fn float(self, x: I) -> F {
        each!(_mm256_cvtepi32_ps(x))
    }
    #[inline(always)]
    fn bits(self, x: I) -> F {
        each!(_mm256_castsi256_ps(x))
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        unsafe { [_mm256_set1_epi32(x); 2] }
    }
    #[inline(always)]
    fn load_i(self, from: &[u8; 64]) -> I {
        let p: *const __m256i = from.as_ptr().cast();
        unsafe { [_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1))] }
    }
    #[inline(always)]
    fn store_i(self, x: I, to: &mut [i32; 16]) {
        let p: *mut __m256i = to.as_mut_ptr().cast();
        unsafe {
            _mm256_storeu_si256(p, x[0]);
            _mm256_storeu_si256(p.add(1), x[1]);
        }
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; 16]) -> I {
        unsafe {
            let x = _mm_loadu_si128(from.as_ptr().cast());
            [_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128::<8>(x))]
        }
    }
    #[inline(always)]
    fn load_i8(self, from: &[u8; 16]) -> I {
        unsafe {
            let x = _mm_loadu_si128(from.as_ptr().cast());
            [_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128::<8>(x))]
        }
    }
    #[inline(always)]
    fn add_i(self, a: I, b: I) -> I {
        each!(_mm256_add_epi32(a, b))
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        each!(_mm256_and_si256(a, b))
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        each!(_mm256_or_si256(a, b))
    }
    #[inline(always)]
    fn shl<const N: i32>(self, x: I) -> I {
        unsafe { [_mm256_slli_epi32::<N>(x[0]), _mm256_slli_epi32::<N>(x[1])] }
    }
    #[inline(always)]
    fn shr<const N: i32>(self, x: I) -> I {
        unsafe { [_mm256_srli_epi32::<N>(x[0]), _mm256_srli_epi32::<N>(x[1])] }
    }

    #[inline(always)]
    fn sum(self, x: F) -> f32 {
        unsafe {
            let x = _mm256_add_ps(x[0], x[1]);
            let x = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }
    #[inline(always)]
    fn largest(self, x: F) -> f32 {
        unsafe {
            let x = _mm256_max_ps(x[0], x[1]);
            let x = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_shuffle_ps::<1>(x, x)))
        }
    }

    #[inline(always)]
    fn quants(self, integers: [I; 2], scale: f32) -> Pairs {
        let mut numbers = [[0i32; 16]; 2];
        self.store_i(integers[0], &mut numbers[0]);
        self.store_i(integers[1], &mut numbers[1]);
        let number = |i: usize| numbers[i / 16][i % 16];
        let pair = |a: i32, b: i32| a & 0xffff | b << 16;
        let byte = |i: usize, at: i32| (number(i) & 255) << (8 * at);
        let mut all = Pairs { fours: [0; 8], even: [0; 8], odd: [0; 8], starts: Starts::new([0; 2], scale) };
        let mut sums = [0; 2];
        for g in 0..8 {
            let i = 4 * g;
            all.fours[g] = byte(i, 0) | byte(i + 1, 1) | byte(i + 2, 2) | byte(i + 3, 3);
            all.even[g] = pair(number(i), number(i + 2));
            all.odd[g] = pair(number(i + 1), number(i + 3));
            for k in i..i + 4 {
                sums[g / 4] = i32::wrapping_add(sums[g / 4], number(k));
            }
        }
        all.starts = Starts::new(sums, scale);
        all
    }

    #[inline(always)]
    fn prefetch(self, line: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) }
    }

    #[inline(always)]
    fn dot(self, acc: I, weights: I, fours: i32) -> I {
        unsafe {
            let (fours, ones) = (_mm256_set1_epi32(fours), _mm256_set1_epi16(1));
            let products = [_mm256_maddubs_epi16(weights[0], fours), _mm256_maddubs_epi16(weights[1], fours)];
            self.add_i(acc, [_mm256_madd_epi16(products[0], ones), _mm256_madd_epi16(products[1], ones)])
        }
    }

    #[inline(always)]
    fn dot8<const R: usize>(self, weights: &[u8; 1024], rows: &[Pairs; R]) -> [[I; R]; 2] {
        [bytes(self, weights, 0, rows), bytes(self, weights, 1, rows)]
    }

    #[inline(always)]
    fn dot4<const R: usize, const ZERO: i32>(self, weights: &[u8; 512], rows: &[Pairs; R]) -> [[I; R]; 2] {
        let (chunks, _) = weights.as_chunks::<64>();
        let mut acc = [[self.splat_i(0); R]; 2];
        // A quarter of the outputs at a time: their weights unpacked fill half of the registers.
        for quarter in 0..4 {
            let (half, part) = (quarter / 2, quarter % 2);
            let mut vectors = [[self.splat_i(0)[0]; 2]; 4];
            for (g, vectors) in vectors.iter_mut().enumerate() {
                let both = self.load_i(&chunks[half * 4 + g])[part];
                unsafe {
                    let nibble = _mm256_set1_epi8(15);
                    *vectors = [_mm256_and_si256(both, nibble), _mm256_and_si256(_mm256_srli_epi16::<4>(both), nibble)];
                }
            }
            let sums = nibbles(self, &vectors, rows);
            for r in 0..R {
                let start = if ZERO == 8 { rows[r].starts.four } else { 0 };
                acc[half][r][part] = unsafe { _mm256_add_epi32(sums[r], _mm256_set1_epi32(start)) };
            }
        }
        acc
    }

    #[inline(always)]
    fn dot6<const R: usize>(self, low: &[u8; 256], high: &[u8; 128], rows: &[Pairs; R]) -> [[I; R]; 2] {
        let (low, high) = (low.as_chunks::<64>().0, high.as_chunks::<64>().0);
        let (nibble, upper) = (self.splat_i(0x0f0f_0f0f), self.splat_i(0x3030_3030));
        let ones = unsafe { _mm256_set1_epi16(1) };
        let mut acc = [[self.splat_i(0); R]; 2];
        for (r, row) in rows.iter().enumerate() {
            acc[0][r] = self.splat_i(row.starts.six[0]);
            acc[1][r] = self.splat_i(row.starts.six[1]);
        }
        for half in 0..2 {
            let mut bits = self.load_i(&high[half]);
            for (g, low) in low.iter().enumerate() {
                let low = self.load_i(low);
                let low = if half == 0 { low } else { self.shr::<4>(low) };
                let weights = self.or(self.and(low, nibble), self.and(self.shl::<4>(bits), upper));
                for (acc, row) in acc[half].iter_mut().zip(rows) {
                    let fours = unsafe { _mm256_set1_epi32(row.fours[half * 4 + g]) };
                    let products = unsafe {
                        [
                            _mm256_madd_epi16(_mm256_maddubs_epi16(weights[0], fours), ones),
                            _mm256_madd_epi16(_mm256_maddubs_epi16(weights[1], fours), ones),
                        ]
                    };
                    *acc = self.add_i(*acc, products);
                }
                bits = self.shr::<2>(bits);
            }
        }
        acc
    }
}
