//! The operations of a training step on a CPU, forward and backward, as pure functions on slices.
//!
//! Each reads its inputs once and writes its outputs once; what a backward pass needs beyond the inputs is either
//! returned by the forward pass or cheap enough to compute again. All matrices are row-major and contiguous unless a
//! stride is given; weights are `[out, in]`. `rows` counts tokens, whatever batch and length they came from.
//!
//! Results do not depend on the number of threads: work is cut into pieces of a fixed size, and sums over pieces are
//! taken in their order. They do depend on the instruction set (see `simd`).
//!
//! Lengths are the caller's duty and are asserted: a wrong one is a bug, not an input error. This module knows
//! nothing of tensors, gradients as a graph, models or losses in context; the composed forms define what it computes.

pub mod adamw;
pub mod attention;
pub mod bf16;
pub mod embed;
pub mod gelu;
pub mod head;
pub mod matmul;
pub mod muon;
pub mod norm;
pub mod residual;
pub mod rotary;

#[cfg(target_arch = "x86_64")]
mod bf16_avx512;
mod pieces;
mod simd;
mod tile;

#[cfg(test)]
mod check;
