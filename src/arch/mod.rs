//! A model's description as plain data: shape, objective, block sizes, special ids. Two shapes share it: the DiT of the BD3-LM
//! code and the Llama shape of most open language models. It knows no tensors and no files; the families in `checkpoint`
//! translate it to and from their own config.json.

mod tensors;

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

/// A model: what all shapes have, and what its own has.
#[derive(Clone, Debug, PartialEq)]
pub struct Arch {
    /// Vocabulary size, the mask included.
    pub vocab: usize,
    /// The mask's id. A Llama-shaped next-token model may have none: then it is an id from `vocab` on.
    pub mask: u32,
    /// Other special ids, as far as known.
    pub special: SpecialIds,
    /// Width d.
    pub hidden: usize,
    /// Transformer layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Training length in tokens, bos included.
    pub length: usize,
    /// What it answers.
    pub objective: Objective,
    /// The default block size: `length` for plain masked diffusion, 1 for a next-token model.
    pub block: usize,
    /// Every block size it was trained at, with the clip interval of each.
    pub sizes: Vec<SizeClip>,
    /// Visible tokens were corrupted in training and judged by the loss, so that logits of known rows mean something. Under SUBS alone
    /// they are untrained.
    pub visible_loss: bool,
    /// Which network, and what is particular to it.
    pub shape: Shape,
}

/// The network: what its layers are made of. Both rotate halves of a head (rotary embedding as in GPT-NeoX).
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// The BD3-LM code's.
    Dit(Dit),
    /// Llama's, with the variations of Qwen 2 and 3.
    Llama(Llama),
}

/// A DiT-style denoiser (the BD3-LM code, `models/dit.py`): layer norm with adaptive modulation, fused q/k/v, GELU. Heads share
/// the width evenly.
#[derive(Clone, Debug, PartialEq)]
pub struct Dit {
    /// Width of the conditioning vector; 0 and unused in a model without modulation.
    pub cond: usize,
    /// Dropout on the two branch outputs, in training only.
    pub dropout: f64,
}

/// A Llama-shaped network (Touvron et al. 2023, arXiv 2302.13971, section 2.2): RMSNorm before each branch, grouped heads,
/// SwiGLU with SiLU, no biases but those named here.
#[derive(Clone, Debug, PartialEq)]
pub struct Llama {
    /// Heads of keys and values; divides the attention heads.
    pub kv_heads: usize,
    /// Width of one head; heads times this need not be the model's width.
    pub head_dim: usize,
    /// Width of the feed-forward branch.
    pub feed_forward: usize,
    /// RMSNorm's epsilon.
    pub norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rotary_base: f64,
    /// How many numbers of each head are rotated, from its first on: even, at most `head_dim`.
    pub rotary_dim: usize,
    /// RMSNorm over each head's query and key, before they are rotated (Qwen 3).
    pub qk_norm: bool,
    /// Biases of the query, key and value maps (Qwen 2).
    pub qkv_bias: bool,
    /// The head is the embedding.
    pub tied: bool,
}

impl Arch {
    /// What is particular to a DiT.
    ///
    /// # Errors
    /// The model has another shape.
    pub fn dit(&self) -> Result<&Dit> {
        match &self.shape {
            Shape::Dit(dit) => Ok(dit),
            Shape::Llama(_) => Err(Error::value(
                "model",
                "a DiT (the BD3-LM network, the only one that can be trained)",
                "a Llama-shaped one",
            )),
        }
    }

    /// Width of one head.
    pub fn head_dim(&self) -> usize {
        match &self.shape {
            Shape::Dit(_) => self.hidden / self.heads,
            Shape::Llama(llama) => llama.head_dim,
        }
    }

    /// Heads of keys and values.
    pub fn kv_heads(&self) -> usize {
        match &self.shape {
            Shape::Dit(_) => self.heads,
            Shape::Llama(llama) => llama.kv_heads,
        }
    }

    /// Width of the feed-forward branch.
    pub fn feed_forward(&self) -> usize {
        match &self.shape {
            Shape::Dit(_) => MLP_RATIO * self.hidden,
            Shape::Llama(llama) => llama.feed_forward,
        }
    }

    /// Base of the rotary frequencies.
    pub fn rotary_base(&self) -> f64 {
        match &self.shape {
            Shape::Dit(_) => ROTARY_BASE,
            Shape::Llama(llama) => llama.rotary_base,
        }
    }

    /// How many numbers of each head are rotated, from its first on.
    pub fn rotary_dim(&self) -> usize {
        match &self.shape {
            Shape::Dit(_) => self.head_dim(),
            Shape::Llama(llama) => llama.rotary_dim,
        }
    }

    /// The rotary frequencies, `base^(-2i / rotary_dim)` for i in `0..rotary_dim / 2`, in radians per position.
    pub fn rotary_frequencies(&self) -> Vec<f32> {
        rotary_frequencies(self.rotary_dim(), self.rotary_base())
    }

    /// The norms' epsilon.
    pub fn norm_eps(&self) -> f32 {
        match &self.shape {
            Shape::Dit(_) => NORM_EPS,
            Shape::Llama(llama) => llama.norm_eps,
        }
    }

    /// Has adaptive layer norm (every DiT but next-token models).
    pub fn modulated(&self) -> bool {
        matches!(self.shape, Shape::Dit(_)) && self.objective != Objective::NextToken
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
    ///
    /// # Errors
    /// Another block size.
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
    ///
    /// # Errors
    /// A number that is out of range or does not divide what it should, a mask id beyond the vocabulary, or an objective that the
    /// shape does not have.
    pub fn check(&self, name: &str) -> Result<()> {
        let refuse = |key: &str, expected: String, found: String| Err(refusal(name, key, expected, found));
        // Far beyond any model, and small enough that a damaged file can't ask for all the memory there is.
        for (key, value, most) in [
            ("vocabulary size", self.vocab, MOST_WIDE),
            ("width", self.hidden, MOST_WIDE),
            ("number of layers", self.layers, 1 << 12),
            ("number of heads", self.heads, MOST_WIDE),
            ("length", self.length, 1 << 24),
            ("block size", self.block, 1 << 24),
        ] {
            in_range(name, key, value, most)?;
        }
        let maskless = match &self.shape {
            Shape::Dit(dit) => {
                self.check_dit(dit, name)?;
                false
            }
            Shape::Llama(llama) => {
                self.check_llama(llama, name)?;
                self.objective == Objective::NextToken
            }
        };
        if self.mask as usize >= self.vocab && !maskless {
            return refuse("mask id", format!("an id below the vocabulary size {}", self.vocab), self.mask.to_string());
        }
        for size in self.block_sizes().into_iter().chain([self.block]) {
            if !self.length.is_multiple_of(size) {
                let expected = format!("a divisor of the length {}", self.length);
                return refuse("block size", expected, size.to_string());
            }
        }
        Ok(())
    }

    fn check_dit(&self, dit: &Dit, name: &str) -> Result<()> {
        if !self.hidden.is_multiple_of(self.heads) || !self.head_dim().is_multiple_of(2) {
            let expected = format!("a divisor of the width {} with an even quotient", self.hidden);
            return Err(refusal(name, "number of heads", expected, self.heads.to_string()));
        }
        if self.modulated() {
            in_range(name, "width of the conditioning vector", dit.cond, MOST_WIDE)?;
        }
        if !(0.0..1.0).contains(&dit.dropout) {
            return Err(refusal(name, "dropout", "a number in [0, 1)".into(), dit.dropout.to_string()));
        }
        Ok(())
    }

    fn check_llama(&self, llama: &Llama, name: &str) -> Result<()> {
        in_range(name, "width of a head", llama.head_dim, MOST_WIDE)?;
        in_range(name, "width of the feed-forward branch", llama.feed_forward, MOST_WIDE)?;
        if llama.kv_heads == 0 || !self.heads.is_multiple_of(llama.kv_heads) {
            let expected = format!("a divisor of the {} attention heads", self.heads);
            return Err(refusal(name, "number of key and value heads", expected, llama.kv_heads.to_string()));
        }
        if !(2..=llama.head_dim).contains(&llama.rotary_dim) || !llama.rotary_dim.is_multiple_of(2) {
            let expected = format!("an even number, at most the width of a head, {}", llama.head_dim);
            return Err(refusal(name, "rotated numbers of a head", expected, llama.rotary_dim.to_string()));
        }
        let positive = |x: f64| x.is_finite() && x > 0.0;
        if !positive(llama.rotary_base) {
            return Err(refusal(name, "rotary base", "a number above 0".into(), llama.rotary_base.to_string()));
        }
        if !positive(f64::from(llama.norm_eps)) {
            return Err(refusal(name, "epsilon of the norms", "a number above 0".into(), llama.norm_eps.to_string()));
        }
        if self.objective == Objective::Score {
            let expected = "masked diffusion or next-token prediction, as a Llama shape is told no noise level";
            return Err(refusal(name, "objective", expected.into(), "score entropy".into()));
        }
        Ok(())
    }

    /// Number of trainable parameters.
    pub fn parameters(&self) -> usize {
        self.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }
}

fn refusal(name: &str, key: &str, expected: String, found: String) -> Error {
    Error::value(format!("{name}: {key}"), expected, found)
}

fn in_range(name: &str, key: &str, value: usize, most: usize) -> Result<()> {
    match value {
        0 => Err(refusal(name, key, "at least 1".into(), "0".into())),
        _ if value > most => Err(refusal(name, key, format!("at most {most}"), value.to_string())),
        _ => Ok(()),
    }
}

/// `base^(-2i / dim)` for i in `0..dim / 2`, in radians per position.
pub fn rotary_frequencies(dim: usize, base: f64) -> Vec<f32> {
    (0..dim / 2).map(|i| base.powf(-(2.0 * i as f64) / dim as f64) as f32).collect()
}

/// Parameters of a model that is made here, at most: more than any that a CPU trains, and few enough for 64-bit sums and a clear
/// refusal of memory.
pub const MOST_PARAMETERS: u64 = 1 << 34;
/// No table and no map has more rows or columns.
const MOST_WIDE: usize = 1 << 24;
/// Width of the sinusoidal embedding of the noise level.
pub const FREQUENCIES: usize = 256;
/// Feed-forward width over model width of a DiT.
pub const MLP_RATIO: usize = 4;
/// Base of the rotary frequencies of a DiT.
pub const ROTARY_BASE: f64 = 10_000.0;
/// Epsilon of a DiT's layer norm.
pub const NORM_EPS: f32 = 1e-5;

#[cfg(test)]
mod tests {
    use super::*;

    fn small(shape: Shape) -> Arch {
        Arch {
            vocab: 50258,
            mask: 50257,
            special: SpecialIds::default(),
            hidden: 768,
            layers: 12,
            heads: 12,
            length: 1024,
            objective: Objective::Masked,
            block: 4,
            sizes: Vec::new(),
            visible_loss: false,
            shape,
        }
    }

    /// DiT small with GPT-2's vocabulary: 169.63 M parameters (spec section 1, measured on the official code).
    #[test]
    fn the_published_small_model_has_its_published_size() {
        let mut arch = small(Shape::Dit(Dit { cond: 128, dropout: 0.1 }));
        assert_eq!((arch.parameters() as f64 / 1e4).round(), 16963.0);
        arch.objective = Objective::NextToken;
        assert_eq!((arch.parameters() as f64 / 1e5).round(), 1622.0);
    }

    fn llama(kv_heads: usize, head_dim: usize, feed_forward: usize) -> Llama {
        let (norm_eps, rotary_base) = (1e-6, 1e6);
        let (qk_norm, qkv_bias, tied) = (false, false, true);
        Llama { kv_heads, head_dim, feed_forward, norm_eps, rotary_base, rotary_dim: head_dim, qk_norm, qkv_bias, tied }
    }

    fn next_token(vocab: usize, hidden: usize, layers: usize, heads: usize, llama: Llama) -> Arch {
        let (mask, objective, block) = (vocab as u32, Objective::NextToken, 1);
        Arch { vocab, mask, hidden, layers, heads, objective, block, ..small(Shape::Llama(llama)) }
    }

    /// SmolLM2-135M has 134,515,008 parameters, Qwen2.5-0.5B 494,032,768, Qwen3-0.6B 596,049,920 (their model cards round).
    #[test]
    fn published_llama_shapes_have_their_published_sizes() {
        let smol = next_token(49152, 576, 30, 9, llama(3, 64, 1536));
        assert_eq!(smol.parameters(), 134_515_008);
        let qwen2 = next_token(151_936, 896, 24, 14, Llama { qkv_bias: true, ..llama(2, 64, 4864) });
        assert_eq!(qwen2.parameters(), 494_032_768);
        let qwen3 = next_token(151_936, 1024, 28, 16, Llama { qk_norm: true, ..llama(8, 128, 3072) });
        assert_eq!(qwen3.parameters(), 596_049_920);
        for arch in [&smol, &qwen2, &qwen3] {
            arch.check("here").unwrap();
        }
    }

    #[test]
    fn a_shape_that_means_nothing_is_refused() {
        let good = next_token(100, 32, 1, 4, llama(2, 8, 64));
        good.check("here").unwrap();
        let told = |arch: &Arch| arch.check("here").unwrap_err().to_string();
        let with = |change: &dyn Fn(&mut Llama)| {
            let mut changed = llama(2, 8, 64);
            change(&mut changed);
            told(&Arch { shape: Shape::Llama(changed), ..good.clone() })
        };
        assert!(with(&|l| l.kv_heads = 3).contains("a divisor of the 4 attention heads"));
        assert!(with(&|l| l.kv_heads = 0).contains("key and value heads"));
        assert!(with(&|l| l.rotary_dim = 10).contains("at most the width of a head, 8"));
        assert!(with(&|l| l.rotary_dim = 3).contains("an even number"));
        assert!(with(&|l| l.rotary_base = f64::NAN).contains("rotary base"));
        assert!(with(&|l| l.norm_eps = 0.0).contains("epsilon"));
        assert!(with(&|l| l.feed_forward = 1 << 40).contains("feed-forward"));
        assert!(told(&Arch { objective: Objective::Masked, ..good.clone() }).contains("mask id"));
        assert!(told(&Arch { objective: Objective::Score, mask: 0, ..good.clone() }).contains("score entropy"));
        Arch { objective: Objective::Masked, mask: 99, ..good.clone() }.check("here").unwrap();
        assert!(good.dit().unwrap_err().to_string().contains("Llama-shaped"));
    }
}
