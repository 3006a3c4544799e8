//! The trainable denoisers, on the tensor library. `dit` is the network, `ops` its hot operations, each in two forms:
//! `composed` (the definition, any device) and `fused` (the CPU, with a backward of its own).

pub mod composed;
pub mod dit;
pub mod fused;
pub mod ops;

pub use dit::Dit;

use crate::arch::ROTARY_BASE;

/// Which form of the hot operations to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Plain tensor operations, any device.
    Composed,
    /// One operation each, on the CPU.
    Fused,
}

/// The shape of an attention call, and its rotary table.
#[derive(Clone, Debug)]
pub struct Heads {
    /// Rows of text.
    pub batch: usize,
    /// Tokens in a row.
    pub length: usize,
    /// Heads.
    pub count: usize,
    /// Width of a head.
    pub dim: usize,
    /// Cosines and sines by position.
    pub rotary: std::sync::Arc<Rotary>,
}

/// `cos` and `sin` of position * base^(-2i / head_dim), each `[length, head_dim / 2]`, computed in f32 as the official code
/// does.
#[derive(Debug)]
pub struct Rotary {
    /// Cosines.
    pub cos: Vec<f32>,
    /// Sines.
    pub sin: Vec<f32>,
}

impl Rotary {
    /// The table for positions 0..length.
    pub fn new(length: usize, head_dim: usize) -> Self {
        let frequencies = Self::frequencies(head_dim);
        let angles = (0..length).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f));
        let (sin, cos) = angles.map(f32::sin_cos).unzip();
        Self { cos, sin }
    }

    /// `base^(-2i / head_dim)` for i in 0..head_dim / 2.
    pub fn frequencies(head_dim: usize) -> Vec<f32> {
        (0..head_dim / 2).map(|i| 1.0 / (ROTARY_BASE as f32).powf((2 * i) as f32 / head_dim as f32)).collect()
    }
}

/// Dropout of one branch output in one step. The mask is a function of the key and the element's index alone, so that a
/// resumed run, another batch split or another form draws the same one.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// Names the draw: seed, step, layer and branch.
    pub key: u64,
    /// Probability of dropping an element.
    pub rate: f64,
}

impl Dropout {
    /// The factor of each of the first `count` elements: 0 where dropped, 1 / (1 - rate) where kept.
    pub fn factors(self, count: usize) -> Vec<f32> {
        (0..count as u64).map(|i| self.factor(i)).collect()
    }

    /// Of one element. Splitmix64 of key and index; the upper half against the rate.
    fn factor(self, index: u64) -> f32 {
        let mut z = self.key.wrapping_add(index.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let threshold = (self.rate * (1u64 << 32) as f64) as u64;
        if ((z ^ (z >> 31)) >> 32) < threshold { 0.0 } else { (1.0 / (1.0 - self.rate)) as f32 }
    }
}
