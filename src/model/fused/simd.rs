//! Loops compiled once per instruction set, and the two functions that they need: `exp` and sums over lanes.
//!
//! A function written inside `vectorised!` is compiled for AVX-512, for AVX2 and for the plain target; the first that
//! the machine has is taken when it runs. Inside, `FMA` says whether a fused multiply-add is one instruction: where it
//! is not, `f32::mul_add` would be a library call. Loops are written so that the compiler vectorises them: no early
//! exit, no index check, and sums in `LANES` partial sums, because floating-point addition may not be reordered.

/// Partial sums of one reduction; one AVX-512 register, two of AVX2.
pub const LANES: usize = 16;

macro_rules! vectorised {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[multiversion::multiversion(targets(
            "x86_64+avx512f+avx512bw+avx512cd+avx512dq+avx512vl+avx2+fma",
            "x86_64+avx2+fma"
        ))]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[allow(dead_code, reason = "not every loop has a multiply-add")]
            const FMA: bool =
                cfg!(target_arch = "aarch64") || multiversion::target::target_cfg_f!(target_feature = "fma");
            $body
        }
    };
}
pub(crate) use vectorised;

vectorised! {
    /// Each number times `factor`.
    pub fn scale(x: &mut [f32], factor: f32) {
        for x in x {
            *x *= factor;
        }
    }
}

/// `a * b + c`, fused where `FMA`.
#[inline(always)]
pub fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `e^x` to about 2 units in the last place. Below -87 it is 0, above 88 it is about 1.7e38 (never infinite), NaN stays
/// NaN. Range reduction by the nearest multiple of ln 2, then a polynomial of degree 6 (Cephes' `expf`).
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    const TO_INTEGER: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
    let low = x < -87.0;
    let x = if x > 88.0 { 88.0 } else { x };
    let x = if low { -87.0 } else { x };
    let shifted = mul_add::<FMA>(x, std::f32::consts::LOG2_E, TO_INTEGER);
    let n = shifted - TO_INTEGER;
    let r = mul_add::<FMA>(n, -0.693_359_4, x);
    let r = mul_add::<FMA>(n, 2.121_944_4e-4, r);
    let p = mul_add::<FMA>(r, 1.987_569_1e-4, 1.398_199_9e-3);
    let p = mul_add::<FMA>(p, r, 8.333_452e-3);
    let p = mul_add::<FMA>(p, r, 4.166_579_6e-2);
    let p = mul_add::<FMA>(p, r, 1.666_666_5e-1);
    let p = mul_add::<FMA>(p, r, 0.5);
    let y = mul_add::<FMA>(p, r * r, r + 1.0);
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    if low { 0.0 } else { y * power }
}

/// Sum of `term` over the elements of `N` slices of one length, in `LANES` partial sums.
#[inline(always)]
pub fn sum<const N: usize>(x: [&[f32]; N], term: impl Fn([f32; N]) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (whole, rest) = (x.map(|x| x.as_chunks::<LANES>().0), x.map(|x| x.as_chunks::<LANES>().1));
    for chunk in 0..whole[0].len() {
        let part = whole.map(|x| &x[chunk]);
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(part.map(|x| x[lane]));
        }
    }
    for i in 0..rest[0].len() {
        lanes[i] += term(rest.map(|x| x[i]));
    }
    fold(lanes, |a, b| a + b)
}

/// Replaces each x by `e^(x - top)` and returns their sum.
#[inline(always)]
pub fn exp_and_sum<const FMA: bool>(x: &mut [f32], top: f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (whole, rest) = x.as_chunks_mut::<LANES>();
    for chunk in whole {
        for (x, total) in chunk.iter_mut().zip(&mut lanes) {
            *x = exp::<FMA>(*x - top);
            *total += *x;
        }
    }
    for (x, total) in rest.iter_mut().zip(&mut lanes) {
        *x = exp::<FMA>(*x - top);
        *total += *x;
    }
    fold(lanes, |a, b| a + b)
}

/// The largest number in `x`, or -inf if there is none. A NaN is passed over: the sums after it carry it on.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let pick = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for chunk in whole {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = pick(*lane, *value);
        }
    }
    for (lane, value) in lanes.iter_mut().zip(rest) {
        *lane = pick(*lane, *value);
    }
    fold(lanes, pick)
}

/// Combines the lanes pairwise, so that the order is the same on every machine.
#[inline(always)]
fn fold(mut lanes: [f32; LANES], combine: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] = combine(lanes[i], lanes[i + half]);
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    vectorised! {
        fn exp_all(x: &[f32], y: &mut [f32]) {
            for (y, x) in y.iter_mut().zip(x) {
                *y = exp::<FMA>(*x);
            }
        }
    }

    #[test]
    fn exp_is_accurate_and_saturates() {
        let x: Vec<f32> = (-8690..8790).map(|i| i as f32 * 0.01).collect();
        let mut y = vec![0.0; x.len()];
        exp_all(&x, &mut y);
        for (x, y) in x.iter().zip(&y) {
            let want = f64::from(*x).exp();
            assert!((f64::from(*y) - want).abs() <= 3e-7 * want, "exp({x}) = {y}, expected {want}");
        }
        let mut edge = [1.0; 4];
        exp_all(&[f32::NEG_INFINITY, f32::INFINITY, f32::NAN, 0.0], &mut edge);
        assert!(edge[0] == 0.0 && edge[1].is_finite() && edge[1] > 1e38 && edge[2].is_nan() && edge[3] == 1.0);
    }

    #[test]
    fn reductions_take_every_number() {
        for n in 0..40 {
            let x: Vec<f32> = (0..n).map(|i| i as f32 - 7.0).collect();
            let total: f32 = x.iter().sum();
            assert_eq!(sum([&x], |[x]| x), total);
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
