//! Activations as signed bytes, 32 to a scale, for the integer products.

use super::panel::BLOCK;
use super::simd::{LANES, Simd};

/// Blocks of no greater magnitude are zeros: one over it must be a number.
const LEAST: f32 = 1e-30;

/// Quantises 32 numbers: the scale is the greatest magnitude over 127, each number is rounded to nearest, so that none is off by
/// more than half a scale.
#[inline(always)]
pub fn quantise<S: Simd>(s: S, numbers: &[f32; BLOCK]) -> S::Q {
    let (halves, _) = numbers.as_chunks::<LANES>();
    let parts = [s.load(&halves[0]), s.load(&halves[1])];
    let zero = s.splat(0.0);
    let greatest = s.max(s.max(parts[0], s.sub(zero, parts[0])), s.max(parts[1], s.sub(zero, parts[1])));
    let greatest = s.largest(greatest);
    // What is not a number must reach the logits, where it is refused; a maximum may lose it, a sum does not.
    if !s.sum(s.mul(s.add(parts[0], parts[1]), zero)).eq(&0.0) {
        return s.quants([s.splat_i(0); 2], f32::NAN);
    }
    let inverse = s.splat(if greatest > LEAST { 127.0 / greatest } else { 0.0 });
    s.quants([s.round(s.mul(parts[0], inverse)), s.round(s.mul(parts[1], inverse))], greatest / 127.0)
}
