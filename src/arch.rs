//! A model's description as plain data: shape, objective, block sizes, special ids. It knows no tensors and no files; the
//! families in `checkpoint` translate it to and from their own config.json.

use crate::error::{Error, Result};
pub use crate::recipe::Objective;

/// The interval [beta, omega] that noise levels are drawn from in training, for one block size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizeClip {
    /// The block size.
    pub size: usize,
    /// Lower end.
    pub beta: f64,
    /// Upper end.
    pub omega: f64,
}

/// Ids with a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SpecialIds {
    /// Begin of text; stands in position 0 of every row.
    pub bos: Option<u32>,
    /// End of text.
    pub eos: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
}

/// A DiT-style denoiser (spec of the BD3-LM code, section 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Arch {
    /// Vocabulary size, the mask included.
    pub vocab: usize,
    /// The mask's id.
    pub mask: u32,
    /// Other special ids, as far as known.
    pub special: SpecialIds,
    /// Width d.
    pub hidden: usize,
    /// Width of the conditioning vector; unused by a model without modulation.
    pub cond: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Training length in tokens, bos included.
    pub length: usize,
    /// Dropout on the two branch outputs, in training only.
    pub dropout: f64,
    /// What it answers.
    pub objective: Objective,
    /// The default block size: `length` for plain masked diffusion, 1 for a next-token model.
    pub block: usize,
    /// Every block size it was trained at, with the clip interval of each.
    pub sizes: Vec<SizeClip>,
}

impl Arch {
    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Has adaptive layer norm (all but next-token models).
    pub fn modulated(&self) -> bool {
        self.objective != Objective::NextToken
    }

    /// Is the network told the noise level (score entropy only)?
    pub fn time_conditioned(&self) -> bool {
        self.objective == Objective::Score
    }

    /// The block sizes it was trained at.
    pub fn block_sizes(&self) -> Vec<usize> {
        self.sizes.iter().map(|s| s.size).collect()
    }

    /// Refuses a block size that means nothing to the model: a next-token model has 1, score entropy the whole length.
    pub fn check_block(&self, block: usize) -> Result<()> {
        let only = match self.objective {
            Objective::Masked => return Ok(()),
            Objective::NextToken => 1,
            Objective::Score => self.length,
        };
        if block == only {
            return Ok(());
        }
        Err(Error::value("block size", format!("{only}, the only one that this kind of model has"), block.to_string()))
    }

    /// Checks what every part relies on; `name` is the file or recipe at fault.
    pub fn check(&self, name: &str) -> Result<()> {
        let refuse =
            |key: &str, expected: String, found: String| Err(Error::value(format!("{name}: {key}"), expected, found));
        for (key, value) in [
            ("vocabulary size", self.vocab),
            ("width", self.hidden),
            ("number of layers", self.layers),
            ("number of heads", self.heads),
            ("length", self.length),
            ("block size", self.block),
        ] {
            if value == 0 {
                return refuse(key, "at least 1".into(), "0".into());
            }
        }
        // Far beyond any model, and small enough that a damaged file can't ask for all the memory there is.
        for (key, value, most) in [("number of layers", self.layers, 1 << 12), ("length", self.length, 1 << 24)] {
            if value > most {
                return refuse(key, format!("at most {most}"), value.to_string());
            }
        }
        if !self.hidden.is_multiple_of(self.heads) || !self.head_dim().is_multiple_of(2) {
            let expected = format!("a divisor of the width {} with an even quotient", self.hidden);
            return refuse("number of heads", expected, self.heads.to_string());
        }
        if self.modulated() && self.cond == 0 {
            return refuse("width of the conditioning vector", "at least 1".into(), "0".into());
        }
        if self.mask as usize >= self.vocab {
            return refuse("mask id", format!("an id below the vocabulary size {}", self.vocab), self.mask.to_string());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return refuse("dropout", "a number in [0, 1)".into(), self.dropout.to_string());
        }
        for size in self.block_sizes().into_iter().chain([self.block]) {
            if !self.length.is_multiple_of(size) {
                let expected = format!("a divisor of the length {}", self.length);
                return refuse("block size", expected, size.to_string());
            }
        }
        Ok(())
    }

    /// All tensors of the network with their published names (without the family's prefix) and shapes, in the order of the
    /// official parameter list.
    pub fn tensors(&self) -> Vec<(String, Vec<usize>)> {
        let (d, c) = (self.hidden, self.cond);
        let mut all: Vec<(String, Vec<usize>)> = vec![("vocab_embed.embedding".into(), vec![self.vocab, d])];
        if self.modulated() {
            all.push(("sigma_map.mlp.0.weight".into(), vec![c, FREQUENCIES]));
            all.push(("sigma_map.mlp.0.bias".into(), vec![c]));
            all.push(("sigma_map.mlp.2.weight".into(), vec![c, c]));
            all.push(("sigma_map.mlp.2.bias".into(), vec![c]));
        }
        for layer in 0..self.layers {
            let mut add = |name: &str, shape: Vec<usize>| all.push((format!("blocks.{layer}.{name}"), shape));
            add("norm1.weight", vec![d]);
            add("attn_qkv.weight", vec![3 * d, d]);
            add("attn_out.weight", vec![d, d]);
            add("norm2.weight", vec![d]);
            add("mlp.0.weight", vec![MLP_RATIO * d, d]);
            add("mlp.0.bias", vec![MLP_RATIO * d]);
            add("mlp.2.weight", vec![d, MLP_RATIO * d]);
            add("mlp.2.bias", vec![d]);
            if self.modulated() {
                add("adaLN_modulation.weight", vec![6 * d, c]);
                add("adaLN_modulation.bias", vec![6 * d]);
            }
        }
        all.push(("output_layer.norm_final.weight".into(), vec![d]));
        all.push(("output_layer.linear.weight".into(), vec![self.vocab, d]));
        all.push(("output_layer.linear.bias".into(), vec![self.vocab]));
        if self.modulated() {
            all.push(("output_layer.adaLN_modulation.weight".into(), vec![2 * d, c]));
            all.push(("output_layer.adaLN_modulation.bias".into(), vec![2 * d]));
        }
        all
    }

    /// Number of trainable parameters.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

/// Width of the sinusoidal embedding of the noise level.
pub const FREQUENCIES: usize = 256;
/// Feed-forward width over model width.
pub const MLP_RATIO: usize = 4;
/// Base of the rotary frequencies.
pub const ROTARY_BASE: f64 = 10_000.0;
/// Layer norm's epsilon.
pub const NORM_EPS: f32 = 1e-5;

#[cfg(test)]
mod tests {
    use super::*;

    /// DiT small with GPT-2's vocabulary: 169.63 M parameters (spec section 1, measured on the official code).
    #[test]
    fn the_published_small_model_has_its_published_size() {
        let mut arch = Arch {
            vocab: 50258,
            mask: 50257,
            special: SpecialIds::default(),
            hidden: 768,
            cond: 128,
            layers: 12,
            heads: 12,
            length: 1024,
            dropout: 0.1,
            objective: Objective::Masked,
            block: 4,
            sizes: Vec::new(),
        };
        assert_eq!((arch.parameters() as f64 / 1e4).round(), 16963.0);
        arch.objective = Objective::NextToken;
        assert_eq!((arch.parameters() as f64 / 1e5).round(), 1622.0);
    }
}
