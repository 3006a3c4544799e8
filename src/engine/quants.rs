//! Activations as signed bytes, 32 to a scale, for the integer products.

use super::panel::BLOCK;
use super::simd::{LANES, Simd};

/// Quantises 32 numbers: the scale is the greatest magnitude over 127, each number is rounded to nearest, so that none is off by
/// more than half a scale.
#[inline(always)]
pub fn quantise<S: Simd>(s: S, numbers: &[f32; BLOCK]) -> S::Q {
    let (halves, _) = numbers.as_chunks::<LANES>();
    let parts = [s.load(&halves[0]), s.load(&halves[1])];
    let zero = s.splat(0.0);
    let greatest = s.max(s.max(parts[0], s.sub(zero, parts[0])), s.max(parts[1], s.sub(zero, parts[1])));
    let greatest = s.largest(greatest);
    let inverse = s.splat(if greatest > 0.0 { 127.0 / greatest } else { 0.0 });
    s.quants([s.round(s.mul(parts[0], inverse)), s.round(s.mul(parts[1], inverse))], greatest / 127.0)
}
