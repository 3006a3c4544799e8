//! The one door to the machine's vector instructions. A kernel is written once, over [`Simd`]: sixteen numbers at a time and a
//! few products of bytes; [`Isa::run`] compiles it for AVX-512 with VNNI, for AVX2 and for any machine, and the machine's own
//! set is chosen at run time. All `unsafe` of the kernels is below, in loads, stores and calls of instructions that the token
//! proves to exist.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;

/// Numbers in a vector.
pub const LANES: usize = 16;

/// 32 activations as signed bytes with one scale, in the arrangement that a set of instructions wants.
pub trait Quants: bytemuck::Pod + Send + Sync {
    /// What a byte is worth.
    fn scale(&self) -> f32;
    /// Scale times the sum of all bytes.
    fn total(&self) -> f32;
}

/// Sixteen numbers at a time. A value of the type proves that the machine has the instructions.
///
/// Weights of the integer products are unsigned bytes, `[group of 4 inputs][16 outputs][4 inputs]`: 64 bytes for each group.
pub trait Simd: Copy + Send + Sync + 'static {
    /// 16 floats.
    type F: Copy;
    /// 16 integers of 32 bits, or 64 bytes.
    type I: Copy;
    /// 32 quantised activations.
    type Q: Quants;
    /// Rows of activations that one read of the weights serves with the accumulators still in registers.
    const ROWS: usize;

    /// Runs a kernel with these instructions switched on.
    fn vectorise<K: Kernel>(self, kernel: K) -> K::Output;

    /// The same number 16 times.
    fn splat(self, x: f32) -> Self::F;
    /// 16 floats from memory.
    fn load(self, from: &[f32; 16]) -> Self::F;
    /// 16 floats to memory.
    fn store(self, x: Self::F, to: &mut [f32; 16]);
    /// 16 half-precision numbers from memory.
    fn load_f16(self, from: &[u8; 32]) -> Self::F;
    /// 16 half-precision numbers to memory, rounded to nearest even.
    fn store_f16(self, x: Self::F, to: &mut [u8; 32]);
    /// a + b
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a - b
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a / b
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a * b + c, rounded once where the machine can
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The greater
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The lesser
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// Nearest integers, ties to even.
    fn round(self, x: Self::F) -> Self::I;
    /// Integers as floats.
    fn float(self, x: Self::I) -> Self::F;
    /// The bits of integers as floats.
    fn bits(self, x: Self::I) -> Self::F;

    /// The same integer 16 times.
    fn splat_i(self, x: i32) -> Self::I;
    /// 64 bytes from memory.
    fn load_i(self, from: &[u8; 64]) -> Self::I;
    /// 16 integers to memory.
    fn store_i(self, x: Self::I, to: &mut [i32; 16]);
    /// 16 unsigned bytes from memory, one to a lane.
    fn load_u8(self, from: &[u8; 16]) -> Self::I;
    /// 16 signed bytes from memory, one to a lane.
    fn load_i8(self, from: &[u8; 16]) -> Self::I;
    /// a + b
    fn add_i(self, a: Self::I, b: Self::I) -> Self::I;
    /// a & b
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    /// a | b
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    /// Each lane shifted to the left.
    fn shl<const N: i32>(self, x: Self::I) -> Self::I;
    /// Each lane shifted to the right, zeros moving in.
    fn shr<const N: i32>(self, x: Self::I) -> Self::I;

    /// The sum of all lanes, in a fixed order.
    fn sum(self, x: Self::F) -> f32;
    /// The greatest lane.
    fn largest(self, x: Self::F) -> f32;

    /// 32 activations from integers that fit a signed byte, and the scale that makes them numbers.
    fn quants(self, integers: [Self::I; 2], scale: f32) -> Self::Q;

    /// Asks for a line of memory that will be read soon. Any address is allowed.
    fn prefetch(self, line: *const u8);

    /// `acc` plus four products in each lane: the unsigned bytes of `weights` by the four signed bytes of `fours`. Sums of two of
    /// the products must not leave 16 bits, where some machines saturate.
    fn dot(self, acc: Self::I, weights: Self::I, fours: i32) -> Self::I;
    /// Products of 32 bytes of weights for two times 16 outputs with R rows of activations: `[group][32 outputs][4]`; weights
    /// count from 128.
    fn dot8<const R: usize>(self, weights: &[u8; 1024], rows: &[Self::Q; R]) -> [[Self::I; R]; 2];
    /// The same for nibbles, `[half][group][16 outputs][4]`: in each byte group g below group g + 4; weights count from `zero`, which is 8 or 0.
    fn dot4<const R: usize, const ZERO: i32>(self, weights: &[u8; 512], rows: &[Self::Q; R]) -> [[Self::I; R]; 2];
    /// The same for 6 bits that count from 32, the two sixteens of inputs apart. `low` as in [`Simd::dot4`]; the upper two
    /// bits of group g stand in byte vector g / 4 of `high`, two bits each.
    fn dot6<const R: usize>(self, low: &[u8; 256], high: &[u8; 128], rows: &[Self::Q; R]) -> [[Self::I; R]; 2];
}

/// Something to run with the machine's instructions. `run` must be `#[inline(always)]`, and so must all that it calls.
pub trait Kernel {
    /// What comes out.
    type Output;
    /// The work.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// A set of instructions that this machine has.
#[derive(Clone, Copy, Debug)]
pub enum Isa {
    /// Whatever the compiler makes of plain loops.
    Portable(Portable),
    /// AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
    /// AVX-512 (F, BW, VL, DQ) and its VNNI.
    #[cfg(target_arch = "x86_64")]
    Avx512(Avx512),
}

impl Isa {
    /// All that this machine has, best last.
    pub fn available() -> Vec<Self> {
        let mut all = vec![Self::Portable(Portable)];
        #[cfg(target_arch = "x86_64")]
        {
            all.extend(Avx2::new().map(Self::Avx2));
            all.extend(Avx512::new().map(Self::Avx512));
        }
        all
    }

    /// The best that this machine has.
    pub fn best() -> Self {
        Self::available().pop().unwrap_or(Self::Portable(Portable))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable(_) => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "avx2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "avx512",
        }
    }

    /// Runs a kernel.
    pub fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            Self::Portable(simd) => simd.vectorise(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => simd.vectorise(kernel),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => simd.vectorise(kernel),
        }
    }
}

/// e^x to 2e-7 (relative); 1.2e-38 for all that is below.
#[inline(always)]
pub fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // Of a number that is none, both give their second operand: x stays what it is.
    let x = s.max(s.splat(-87.3), s.min(s.splat(88.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let whole = s.float(n);
    // ln 2 in two parts, so that n ln 2 loses nothing.
    let r = s.fma(whole, s.splat(-0.693_359_4), x);
    let r = s.fma(whole, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.987_569_1e-4);
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = s.fma(p, r, s.splat(c));
    }
    let p = s.add(s.fma(s.mul(r, r), p, r), s.splat(1.0));
    s.mul(p, s.bits(s.shl::<23>(s.add_i(n, s.splat_i(127)))))
}

/// x / (1 + e^-x)
#[inline(always)]
pub fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(x, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// The tanh form of GELU: x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3).
#[inline(always)]
pub fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let cube = s.mul(s.mul(x, x), x);
    let u = s.mul(s.splat(-1.595_769_2), s.fma(cube, s.splat(0.044_715), x));
    s.div(x, s.add(s.splat(1.0), exp(s, u)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four products in each lane.
    struct Dot([u8; 64]);

    impl Kernel for Dot {
        type Output = [i32; 16];

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> [i32; 16] {
            let mut out = [0; 16];
            let fours = i32::from_le_bytes([127, -128i8 as u8, 1, -64i8 as u8]);
            s.store_i(s.dot(s.splat_i(-5), s.load_i(&self.0), fours), &mut out);
            out
        }
    }

    #[test]
    fn four_products_are_the_same_everywhere() {
        let weights = std::array::from_fn(|i| (i * 37 % 256) as u8);
        let expected: [i32; 16] = std::array::from_fn(|lane| {
            let products = [127, -128, 1, -64].iter().zip(&weights[4 * lane..]).map(|(x, &w)| x * i32::from(w));
            products.sum::<i32>() - 5
        });
        for isa in Isa::available() {
            assert_eq!(isa.run(Dot(weights)), expected, "{}", isa.name());
        }
    }
}
