//! The trainable denoisers, on the tensor library. `dit` is the network, `ops` its hot operations, each in two forms:
//! `composed` (the definition, any device) and `fused` (the CPU, with a backward of its own).

pub mod composed;
mod custom;
pub mod dit;
pub mod fused;
pub mod ops;

pub use dit::Dit;
pub use fused::matmul::Precision;
pub use fused::residual::Dropout;
pub use fused::rotary::Rotary;

/// Which form of the hot operations to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Plain tensor operations, any device.
    Composed,
    /// One operation each, on the CPU, its large products with this precision.
    Fused(Precision),
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

impl Heads {
    /// As the fused operations want it.
    fn shape(&self, block: usize) -> fused::attention::Shape {
        let Self { batch, length, count: heads, dim: head_dim, .. } = *self;
        fused::attention::Shape { batch, length, heads, head_dim, block }
    }
}
