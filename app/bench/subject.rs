//! What is measured: a model from its files, or random weights of a shape and a format, made tensor by tensor while the engine
//! packs them. How fast a pass is does not depend on the values, so random ones do; they only have to stay finite.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use bd3::arch::{Arch, Llama, MOST_PARAMETERS, Objective, Shape, SizeClip, SpecialIds};
use bd3::checkpoint::Checkpoint;
use bd3::engine::simd::Isa;
use bd3::engine::{Engine, Options};
use bd3::format::{Stored, Type};
use bd3::noise::Clip;
use bd3::rng::Rng;
use bd3::{Error, Result};
use clap::Args;

use crate::{counts, model};
use half::{bf16, f16};

/// Numbers in a head of a random model.
const HEAD: usize = 64;
/// Its block size and training length.
const BLOCK: usize = 4;
const LENGTH: usize = 2048;

/// Which model, and how the engine runs it.
#[derive(Args, Debug)]
pub struct SubjectArgs {
    /// A model folder, a .gguf file, or `tiny`, the model inside the binary; default: random weights
    pub model: Option<PathBuf>,
    /// Random weights of a Llama shape with heads of 64 numbers and a head of its own: width x layers, width of the feed-forward
    /// branch, vocabulary
    #[arg(
        long,
        value_name = "HIDDENxLAYERS,FEED_FORWARD,VOCAB",
        default_value = "768x12,2048,32000",
        conflicts_with = "model"
    )]
    shape: Dimensions,
    /// Threads; default: one for each core
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = counts::threads)]
    threads: usize,
    /// f32 throughout: no quantised activations, no half-precision cache
    #[arg(long)]
    exact: bool,
    /// The instructions to use: portable, avx2 or avx512; default: the best that the machine has
    #[arg(long, value_name = "NAME", value_parser = isa)]
    isa: Option<Isa>,
}

/// A type of numbers, by its name.
pub fn format(name: &str) -> Result<Type, String> {
    let found = Type::ALL.into_iter().find(|ty| ty.name() == name);
    found.ok_or_else(|| format!("expected one of {}", Type::ALL.map(Type::name).join(", ")))
}

fn isa(name: &str) -> Result<Isa, String> {
    let all = Isa::available();
    let names: Vec<&str> = all.iter().map(|isa| isa.name()).collect();
    let found = all.iter().find(|isa| isa.name() == name).copied();
    found.ok_or_else(|| format!("expected one of {}, which this machine has", names.join(", ")))
}

/// A model, ready to run.
pub struct Subject {
    /// Its shape or file, as the user wrote it.
    pub name: String,
    /// How its matrices are stored; of several types the one with most bytes first.
    pub format: String,
    /// Runs in f32 throughout.
    pub exact: bool,
    pub engine: Engine,
}

impl SubjectArgs {
    /// How many threads work on a pass.
    pub fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        if self.threads == 0 { cores() } else { self.threads }
    }

    pub fn isa(&self) -> Isa {
        self.isa.unwrap_or_else(Isa::best)
    }

    /// Refuses a format that random weights of this shape can't have.
    pub fn check(&self, format: Type) -> Result<()> {
        if self.model.is_some() { Ok(()) } else { self.shape.arch(format).map(|_| ()) }
    }

    /// Builds the engine; `format` is that of random weights.
    pub fn open(&self, format: Type) -> Result<Subject> {
        let options = Options { threads: self.threads(), exact: self.exact, isa: Some(self.isa()) };
        if let Some(path) = &self.model {
            let checkpoint = model::checkpoint(path)?;
            let (format, engine) = (formats(&checkpoint)?, checkpoint.engine(options)?);
            return Ok(Subject { name: path.display().to_string(), format, exact: self.exact, engine });
        }
        let arch = self.shape.arch(format)?;
        let engine = Engine::new(&arch, |name, shape| Ok(random(name, shape, format)), options)?;
        Ok(Subject { name: self.shape.to_string(), format: format.name().into(), exact: self.exact, engine })
    }
}

/// The types of a model's matrices.
fn formats(checkpoint: &Checkpoint) -> Result<String> {
    let mut bytes = BTreeMap::new();
    for (name, shape) in checkpoint.arch.tensors().iter().filter(|(_, shape)| shape.len() == 2) {
        let stored = checkpoint.take(name, shape)?;
        *bytes.entry(stored.ty.name()).or_insert(0) += stored.bytes.len();
    }
    let mut names: Vec<(&str, usize)> = bytes.into_iter().collect();
    names.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let names: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
    Ok(names.join("+"))
}

/// Some ids, no mask among them.
pub fn ids(engine: &Engine, count: usize) -> Vec<u32> {
    let arch = engine.arch();
    let all = (0..arch.vocab as u32).filter(|&id| id != arch.mask);
    all.cycle().take(count).collect()
}

/// The dimensions of a random model.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Dimensions {
    hidden: usize,
    layers: usize,
    feed_forward: usize,
    vocab: usize,
}

impl FromStr for Dimensions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = || {
            let (hidden, rest) = text.split_once('x')?;
            let numbers: Vec<usize> =
                std::iter::once(hidden).chain(rest.split(',')).map(|n| n.parse().ok()).collect::<Option<_>>()?;
            numbers.try_into().ok()
        };
        let [hidden, layers, feed_forward, vocab] =
            numbers().ok_or("expected HIDDENxLAYERS,FEED_FORWARD,VOCAB, as in 768x12,2048,32000")?;
        Ok(Self { hidden, layers, feed_forward, vocab })
    }
}

impl fmt::Display for Dimensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{},{},{}", self.hidden, self.layers, self.feed_forward, self.vocab)
    }
}

impl Dimensions {
    /// A masked-diffusion model of these dimensions, whose last id is the mask.
    fn arch(self, format: Type) -> Result<Arch> {
        let Self { hidden, layers, feed_forward, vocab } = self;
        for (name, width) in [("width", hidden), ("width of the feed-forward branch", feed_forward)] {
            let whole = if name == "width" { HEAD.max(format.block()) } else { format.block() };
            if width == 0 || !width.is_multiple_of(whole) {
                let expected = format!("a {name} in multiples of {whole} for {}", format.name());
                return Err(Error::value("--shape", expected, width.to_string()));
            }
        }
        let sizes = [hidden, layers, feed_forward, vocab].map(|size| size as f64);
        let numbers = sizes[1] * sizes[0] * (4.0 * sizes[0] + 3.0 * sizes[2]) + 2.0 * sizes[0] * sizes[3];
        if numbers > MOST_PARAMETERS as f64 {
            return Err(Error::value("--shape", "a model of at most 2^34 parameters", format!("{numbers:.0}")));
        }
        if vocab < 2 {
            return Err(Error::value("--shape", "a vocabulary of a token and the mask at least", vocab.to_string()));
        }
        let llama = Llama {
            kv_heads: hidden / HEAD,
            head_dim: HEAD,
            feed_forward,
            norm_eps: 1e-5,
            rotary_base: 1e4,
            rotary_dim: HEAD,
            qk_norm: false,
            qkv_bias: false,
            tied: false,
        };
        let arch = Arch {
            vocab,
            mask: vocab as u32 - 1,
            special: SpecialIds::default(),
            hidden,
            layers,
            heads: hidden / HEAD,
            length: LENGTH,
            objective: Objective::Masked,
            block: BLOCK,
            sizes: vec![SizeClip { size: BLOCK, beta: Clip::FULL.beta(), omega: Clip::FULL.omega() }],
            visible_loss: false,
            shape: Shape::Llama(llama),
        };
        arch.check("--shape")?;
        Ok(arch)
    }
}

/// A tensor of random numbers, the same for the same name; a vector is ones, as all vectors of this shape are norms.
fn random(name: &str, shape: &[usize], ty: Type) -> Stored<'static> {
    let &[rows, columns] = shape else {
        return Stored::of_f32(shape, &vec![1.0; shape.iter().product()]);
    };
    let mut rng = Rng::new(0).split(name);
    let mut bytes = vec![0; rows * columns / ty.block() * ty.block_bytes()];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&rng.bits().to_le_bytes()[..chunk.len()]);
    }
    // A variance of one over the number of inputs, so that what passes through keeps its size.
    let deviation = 1.0 / (columns as f32).sqrt();
    bytes.chunks_exact_mut(ty.block_bytes()).for_each(|block| sensible(ty, block, deviation));
    Stored { ty, shape: shape.to_vec(), bytes: bytes.into() }
}

/// Makes random bytes a block of numbers with this deviation: plain numbers are taken as signed integers, and of a block with
/// scales only these are set.
fn sensible(ty: Type, block: &mut [u8], deviation: f32) {
    // Uniform integers of n bits have a deviation of 2^n / sqrt(12).
    let per_step = |bits: i32| deviation * 12f32.sqrt() / 2f32.powi(bits);
    let half = |block: &mut [u8], at: usize, x: f32| block[at..at + 2].copy_from_slice(&f16::from_f32(x).to_le_bytes());
    // How much random 6-bit scales and minima spread the numbers of q4_k, and random signed scales those of q6_k.
    let (scales, signed) = (56.0, 74.0);
    match ty {
        Type::F32 => {
            let number = f32::from(i16::from_le_bytes([block[0], block[1]])) * per_step(16);
            block.copy_from_slice(&number.to_le_bytes());
        }
        Type::F16 => half(block, 0, f32::from(i16::from_le_bytes([block[0], block[1]])) * per_step(16)),
        Type::Bf16 => {
            let number = f32::from(i16::from_le_bytes([block[0], block[1]])) * per_step(16);
            block.copy_from_slice(&bf16::from_f32(number).to_le_bytes());
        }
        Type::Q8_0 => half(block, 0, per_step(8)),
        Type::Q4_0 => half(block, 0, per_step(4)),
        Type::Q4_1 => {
            half(block, 0, per_step(4));
            half(block, 2, -7.5 * per_step(4));
        }
        Type::Q4K => {
            half(block, 0, per_step(4) / scales);
            half(block, 2, 7.5 * per_step(4) / scales);
        }
        Type::Q6K => half(block, 208, per_step(6) / signed),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A random model's description.
    pub fn arch(shape: &str) -> Arch {
        shape.parse::<Dimensions>().unwrap().arch(Type::F32).unwrap()
    }

    #[test]
    fn dimensions_are_read_and_written() {
        let text = "768x12,2048,32000";
        let read: Dimensions = text.parse().unwrap();
        assert_eq!(read, Dimensions { hidden: 768, layers: 12, feed_forward: 2048, vocab: 32000 });
        assert_eq!(read.to_string(), text);
        for bad in ["", "768", "768x12", "768x12,2048", "768x12,2048,32000,1", "ax1,2,3", "768,12,2048,32000"] {
            assert!(bad.parse::<Dimensions>().unwrap_err().contains("768x12,2048,32000"), "{bad}");
        }
        assert_eq!(read.arch(Type::Q4K).unwrap().parameters(), 134_105_856);
        for (bad, ty) in
            [("32x1,64,9", Type::F32), ("64x1,64,9", Type::Q4K), ("64x1,48,9", Type::Q8_0), ("64x1,64,1", Type::F16)]
        {
            let message = bad.parse::<Dimensions>().unwrap().arch(ty).unwrap_err().to_string();
            assert!(message.contains("--shape"), "{message}");
        }
    }

    #[test]
    fn random_numbers_of_every_type_have_the_size_of_weights() {
        for ty in Type::ALL {
            let numbers = random("a", &[32, 256], ty).f32();
            let mean_square = numbers.iter().map(|&x| f64::from(x * x)).sum::<f64>() / numbers.len() as f64;
            assert!((0.8..1.25).contains(&(mean_square * 256.0)), "{ty:?}: {}", mean_square * 256.0);
        }
    }
}
