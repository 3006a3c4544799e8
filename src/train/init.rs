//! Initial weights, as the official code draws them (spec section 1): uniform within 1/sqrt(inputs) for maps and the
//! embedding, ones for norms, zeros for every adaptive-norm map and for the output layer, so that a fresh model answers with
//! the uniform distribution.

use burn::tensor::Device;

use crate::arch::Arch;
use crate::error::Result;
use crate::model::Dit;
use crate::rng::Rng;

/// A fresh network. Each tensor has a stream of its own, so that adding a layer changes no other weight.
///
/// # Errors
/// A description of another shape than DiT.
pub fn fresh(arch: &Arch, device: &Device, rng: &Rng) -> Result<Dit> {
    Dit::from_parameters(arch, device, |name, shape| Ok(initial(arch, name, shape, rng)))
}

fn initial(arch: &Arch, name: &str, shape: &[usize], rng: &Rng) -> Vec<f32> {
    let count = shape.iter().product();
    if name.contains("norm") {
        return vec![1.0; count];
    }
    if name.contains("adaLN_modulation") || name.starts_with("output_layer") {
        return vec![0.0; count];
    }
    // A bias is drawn like the weight beside it.
    let inputs = if shape.len() == 2 { shape[1] } else { inputs_of_bias(arch, name) };
    let bound = 1.0 / (inputs as f64).sqrt();
    let mut rng = rng.split("init").split(name);
    (0..count).map(|_| (bound * (2.0 * rng.uniform() - 1.0)) as f32).collect()
}

fn inputs_of_bias(arch: &Arch, name: &str) -> usize {
    let weight = name.replace(".bias", ".weight");
    let shape = arch.tensors().into_iter().find(|(n, _)| *n == weight).map(|(_, shape)| shape);
    shape.map_or(1, |s| s[s.len() - 1])
}
