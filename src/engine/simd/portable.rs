//! Plain loops over arrays of sixteen, which every compiler vectorises for its machine, and against which the other sets are
//! tested.

use half::f16;

use super::{Kernel, LANES, Quants, Simd};

/// Any machine.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

/// Activations as they are.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Plain {
    bytes: [i8; 32],
    starts: Starts,
}

impl Quants for Plain {
    fn scale(&self) -> f32 {
        self.starts.scale
    }

    fn total(&self) -> f32 {
        self.starts.total
    }
}

/// Where sums of products start, so that weights may be unsigned: minus the zero of each type times the sum of the activations.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(super) struct Starts {
    /// Weights that count from 128.
    pub eight: i32,
    /// From 8.
    pub four: i32,
    /// From 32, by sixteen of inputs.
    pub six: [i32; 2],
    /// Scale times the sum of the activations.
    pub total: f32,
    /// The scale.
    pub scale: f32,
}

impl Starts {
    /// From the sums of the first and the last sixteen.
    #[inline(always)]
    pub fn new([a, b]: [i32; 2], scale: f32) -> Self {
        Self {
            // Of what is not a number nothing is asked but that it does not end the program.
            eight: a.wrapping_add(b).wrapping_mul(-128),
            four: a.wrapping_add(b).wrapping_mul(-8),
            six: [a.wrapping_mul(-32), b.wrapping_mul(-32)],
            total: scale * a.wrapping_add(b) as f32,
            scale,
        }
    }
}

type F = [f32; LANES];
type I = [i32; LANES];

#[inline(always)]
fn map2<T: Copy, U>(a: [T; LANES], b: [T; LANES], f: impl Fn(T, T) -> U) -> [U; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// Adds the products of one group of four inputs: `weights[16 outputs][4]` by 4 activations.
#[inline(always)]
fn group(acc: &mut I, weights: impl Fn(usize) -> i32, bytes: &[i8]) {
    for (output, acc) in acc.iter_mut().enumerate() {
        for (input, &byte) in bytes.iter().enumerate() {
            *acc = acc.wrapping_add(weights(output * 4 + input).wrapping_mul(i32::from(byte)));
        }
    }
}

impl Simd for Portable {
    type F = F;
    type I = I;
    type Q = Plain;
    const ROWS: usize = 4;

    fn vectorise<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &[f32; 16]) -> F {
        *from
    }
    #[inline(always)]
    fn store(self, x: F, to: &mut [f32; 16]) {
        *to = x;
    }
    #[inline(always)]
    fn load_f16(self, from: &[u8; 32]) -> F {
        std::array::from_fn(|i| f16::from_le_bytes([from[2 * i], from[2 * i + 1]]).to_f32())
    }
    #[inline(always)]
    fn store_f16(self, x: F, to: &mut [u8; 32]) {
        for (to, x) in to.as_chunks_mut::<2>().0.iter_mut().zip(x) {
            *to = f16::from_f32(x).to_le_bytes();
        }
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        map2(a, b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        map2(a, b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        map2(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        map2(a, b, |a, b| a / b)
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        map2(a, b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        map2(a, b, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    fn round(self, x: F) -> I {
        x.map(|x| x.round_ties_even() as i32)
    }
    #[inline(always)]
    fn float(self, x: I) -> F {
        x.map(|x| x as f32)
    }
    #[inline(always)]
    fn bits(self, x: I) -> F {
        x.map(|x| f32::from_bits(x as u32))
    }

    #[inline(always)]
    fn splat_i(self, x: i32) -> I {
        [x; LANES]
    }
    #[inline(always)]
    fn load_i(self, from: &[u8; 64]) -> I {
        let (chunks, _) = from.as_chunks::<4>();
        std::array::from_fn(|i| i32::from_le_bytes(chunks[i]))
    }
    #[inline(always)]
    fn store_i(self, x: I, to: &mut [i32; 16]) {
        *to = x;
    }
    #[inline(always)]
    fn load_u8(self, from: &[u8; 16]) -> I {
        from.map(i32::from)
    }
    #[inline(always)]
    fn load_i8(self, from: &[u8; 16]) -> I {
        from.map(|x| i32::from(x as i8))
    }
    #[inline(always)]
    fn add_i(self, a: I, b: I) -> I {
        map2(a, b, |a, b| a.wrapping_add(b))
    }
    #[inline(always)]
    fn and(self, a: I, b: I) -> I {
        map2(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn or(self, a: I, b: I) -> I {
        map2(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn shl<const N: i32>(self, x: I) -> I {
        x.map(|x| x << N)
    }
    #[inline(always)]
    fn shr<const N: i32>(self, x: I) -> I {
        x.map(|x| ((x as u32) >> N) as i32)
    }

    #[inline(always)]
    fn sum(self, x: F) -> f32 {
        // Halves folded onto each other: the order that a vector machine sums in.
        let x: [f32; 8] = std::array::from_fn(|i| x[i] + x[i + 8]);
        let x: [f32; 4] = std::array::from_fn(|i| x[i] + x[i + 4]);
        (x[0] + x[2]) + (x[1] + x[3])
    }
    #[inline(always)]
    fn largest(self, x: F) -> f32 {
        x.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn quants(self, integers: [I; 2], scale: f32) -> Plain {
        let bytes = std::array::from_fn(|i| integers[i / LANES][i % LANES] as i8);
        Plain {
            bytes,
            starts: Starts::new(integers.map(|half| half.iter().fold(0i32, |sum, x| sum.wrapping_add(*x))), scale),
        }
    }

    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn dot(self, acc: I, weights: I, fours: i32) -> I {
        map2(acc, weights, |acc, weights| {
            let products = weights.to_le_bytes().into_iter().zip(fours.to_le_bytes());
            products.fold(acc, |acc, (w, x)| acc.wrapping_add(i32::from(w) * i32::from(x as i8)))
        })
    }

    #[inline(always)]
    fn dot8<const R: usize>(self, weights: &[u8; 1024], rows: &[Plain; R]) -> [[I; R]; 2] {
        [0, 1].map(|half| {
            rows.each_ref().map(|row| {
                let mut acc = [row.starts.eight; LANES];
                let groups = weights.as_chunks::<64>().0.iter().skip(half).step_by(2);
                for (weights, bytes) in groups.zip(row.bytes.chunks(4)) {
                    group(&mut acc, |i| i32::from(weights[i]), bytes);
                }
                acc
            })
        })
    }

    #[inline(always)]
    fn dot4<const R: usize, const ZERO: i32>(self, weights: &[u8; 512], rows: &[Plain; R]) -> [[I; R]; 2] {
        [&weights[..256], &weights[256..]].map(|weights| {
            rows.each_ref().map(|row| {
                let mut acc = [if ZERO == 8 { row.starts.four } else { 0 }; LANES];
                let (low, high) = row.bytes.split_at(16);
                let inputs = low.chunks(4).zip(high.chunks(4));
                for (weights, (low, high)) in weights.as_chunks::<64>().0.iter().zip(inputs) {
                    group(&mut acc, |i| i32::from(weights[i] & 15), low);
                    group(&mut acc, |i| i32::from(weights[i] >> 4), high);
                }
                acc
            })
        })
    }

    #[inline(always)]
    fn dot6<const R: usize>(self, low: &[u8; 256], high: &[u8; 128], rows: &[Plain; R]) -> [[I; R]; 2] {
        let (low, high) = (low.as_chunks::<64>().0, high.as_chunks::<64>().0);
        [0, 1].map(|half| {
            rows.each_ref().map(|row| {
                let mut acc = [row.starts.six[half]; LANES];
                for (g, low) in low.iter().enumerate() {
                    let upper = |i: usize| i32::from(high[half][i] >> (2 * g) & 3) << 4;
                    let lower = |i: usize| i32::from(low[i] >> (4 * half) & 15);
                    group(&mut acc, |i| upper(i) | lower(i), &row.bytes[half * 16 + g * 4..][..4]);
                }
                acc
            })
        })
    }
}
