//! The network as the engine reads it: every map packed into panels in one block of memory, every norm and bias as plain numbers
//! with the constants of time conditioning folded in. Two shapes become one: what a layer lacks is absent.

use memmap2::MmapMut;
use rayon::prelude::*;

use super::panel::OUTPUTS;
use super::product::{Packed, pack, panel_bytes};
use crate::arch::{Arch, FREQUENCIES, Objective, Shape};
use crate::error::{Error, Result};
use crate::format::{Stored, Type};

/// Gives a tensor by its canonical name ([`Arch::tensors`]) and shape.
pub type Take<'a, 'f> = &'a mut dyn FnMut(&str, &[usize]) -> Result<Stored<'f>>;

/// The whole network.
pub struct Weights {
    /// All packed maps.
    arena: MmapMut,
    /// Rows are tokens. Also the head of a tied model.
    pub embedding: Packed,
    pub layers: Vec<Layer>,
    pub norm: Norm,
    pub head: Map,
}

/// A norm with everything folded in: `(x - mean) / deviation * weight + bias`, or without a mean.
pub struct Norm {
    pub centred: bool,
    pub eps: f32,
    pub weight: Vec<f32>,
    /// Empty: none.
    pub bias: Vec<f32>,
}

/// A linear map. What it gives is multiplied by `scale`, then `bias` is added; both are empty where there is none, and else filled up
/// to whole panels.
pub struct Map {
    pub weights: Packed,
    pub scale: Vec<f32>,
    pub bias: Vec<f32>,
}

/// One layer.
pub struct Layer {
    pub norm1: Norm,
    /// Queries, keys and values: one map, or three.
    pub qkv: Vec<Map>,
    /// Norms of each head's query and key; empty: none.
    pub qk_norm: [Vec<f32>; 2],
    pub out: Map,
    pub norm2: Norm,
    /// The map into the feed-forward branch (GELU), or gate and map (SwiGLU).
    pub up: Vec<Map>,
    pub down: Map,
}

impl Weights {
    /// Packs a network.
    ///
    /// # Errors
    /// Those of `take`; a number that is not finite; memory that the system refuses.
    pub fn new(arch: &Arch, take: Take<'_, '_>) -> Result<Self> {
        let mut builder = Builder { end: 0, jobs: Vec::new(), take };
        let parts = match &arch.shape {
            Shape::Dit(dit) => builder.dit(arch, dit.cond)?,
            Shape::Llama(_) => builder.llama(arch)?,
        };
        let Builder { end, mut jobs, take } = builder;
        let memory = |e: std::io::Error| Error::Run(format!("no {end} bytes of memory for the weights: {e}"));
        let mut arena = MmapMut::map_anon(end.max(1)).map_err(memory)?;
        // Large pages spare the machine a look into its page tables every 4096 bytes. Where they are refused, small ones do.
        #[cfg(target_os = "linux")]
        let _ = arena.advise(memmap2::Advice::HugePage);
        // The largest first: then the file's own copy of it is gone before the memory is full.
        jobs.sort_by_key(|job| std::cmp::Reverse(job.packed.place.len()));
        for Job { name, packed } in jobs {
            let stored = take(&name, &[packed.outputs, packed.inputs])?;
            fill(&mut arena[packed.place.clone()], &name, &packed, &stored)?;
        }
        let (embedding, layers, norm, head) = parts;
        Ok(Self { arena, embedding, layers, norm, head })
    }

    /// The bytes of some panels of a map.
    pub fn panels(&self, map: &Packed, panels: std::ops::Range<usize>) -> &[u8] {
        let size = map.panel_bytes();
        &self.arena[map.place.clone()][panels.start * size..panels.end * size]
    }

    /// Bytes of all packed maps.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }
}

fn fill(place: &mut [u8], name: &str, packed: &Packed, stored: &Stored<'_>) -> Result<()> {
    let row_bytes = stored.bytes.len() / packed.outputs;
    let panels = place.par_chunks_mut(packed.panel_bytes()).zip(stored.bytes.par_chunks(row_bytes * OUTPUTS));
    panels.try_for_each(|(panel, rows)| {
        let rows: Vec<&[u8]> = rows.chunks(row_bytes).collect();
        if !rows.iter().all(|row| finite(packed.ty, row)) {
            return Err(Error::value(name, "finite numbers", "one that is not"));
        }
        pack(packed.ty, &rows, panel);
        Ok(())
    })
}

/// Are the floats of a row, or the scales of its blocks, finite?
fn finite(ty: Type, row: &[u8]) -> bool {
    let half = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]) & 0x7c00 != 0x7c00;
    match ty {
        Type::F32 => row.as_chunks::<4>().0.iter().all(|b| f32::from_le_bytes(*b).is_finite()),
        Type::F16 => row.as_chunks::<2>().0.iter().all(|b| half(b)),
        Type::Bf16 => row.as_chunks::<2>().0.iter().all(|b| u16::from_le_bytes(*b) & 0x7f80 != 0x7f80),
        Type::Q8_0 | Type::Q4_0 => row.chunks(ty.block_bytes()).all(half),
        Type::Q4_1 | Type::Q4K => row.chunks(ty.block_bytes()).all(|b| half(b) && half(&b[2..])),
        Type::Q6K => row.chunks(ty.block_bytes()).all(|b| half(&b[208..])),
    }
}

/// A map that waits for its numbers.
struct Job {
    name: String,
    packed: Packed,
}

struct Builder<'a, 'f> {
    /// Bytes of the arena so far.
    end: usize,
    jobs: Vec<Job>,
    take: Take<'a, 'f>,
}

type Parts = (Packed, Vec<Layer>, Norm, Map);

impl Builder<'_, '_> {
    /// Finds a place for a map.
    fn packed(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Packed> {
        let ty = (self.take)(name, &[outputs, inputs])?.ty;
        let bytes = outputs.div_ceil(OUTPUTS) * panel_bytes(ty, inputs);
        let packed = Packed { ty, outputs, inputs, place: self.end..self.end + bytes };
        self.end += bytes;
        self.jobs.push(Job { name: name.into(), packed: packed.clone() });
        Ok(packed)
    }

    fn map(&mut self, name: &str, outputs: usize, inputs: usize) -> Result<Map> {
        Ok(Map { weights: self.packed(name, outputs, inputs)?, scale: Vec::new(), bias: Vec::new() })
    }

    /// Plain numbers.
    fn numbers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let numbers = (self.take)(name, shape)?.f32();
        match numbers.iter().position(|x| !x.is_finite()) {
            None => Ok(numbers),
            Some(i) => Err(Error::value(name, "finite numbers", format!("{} at index {i}", numbers[i]))),
        }
    }

    fn bias(&mut self, name: &str, width: usize) -> Result<Vec<f32>> {
        Ok(filled_up(self.numbers(name, &[width])?))
    }

    fn llama(&mut self, arch: &Arch) -> Result<Parts> {
        let Shape::Llama(llama) = &arch.shape else { unreachable!("the caller looked") };
        let (d, f) = (arch.hidden, llama.feed_forward);
        let (q, kv) = (arch.heads * llama.head_dim, llama.kv_heads * llama.head_dim);
        let norm = |weight| Norm { centred: false, eps: llama.norm_eps, weight, bias: Vec::new() };
        let embedding = self.packed("model.embed_tokens.weight", arch.vocab, d)?;
        let mut layers = Vec::with_capacity(arch.layers);
        for layer in 0..arch.layers {
            let own = |name: &str| format!("model.layers.{layer}.{name}");
            let mut qkv = Vec::new();
            for (name, width) in [("q", q), ("k", kv), ("v", kv)] {
                let mut map = self.map(&own(&format!("self_attn.{name}_proj.weight")), width, d)?;
                if llama.qkv_bias {
                    map.bias = self.bias(&own(&format!("self_attn.{name}_proj.bias")), width)?;
                }
                qkv.push(map);
            }
            let mut qk_norm = [Vec::new(), Vec::new()];
            if llama.qk_norm {
                for (norm, name) in qk_norm.iter_mut().zip(["q", "k"]) {
                    *norm = self.numbers(&own(&format!("self_attn.{name}_norm.weight")), &[llama.head_dim])?;
                }
            }
            layers.push(Layer {
                norm1: norm(self.numbers(&own("input_layernorm.weight"), &[d])?),
                qkv,
                qk_norm,
                out: self.map(&own("self_attn.o_proj.weight"), d, q)?,
                norm2: norm(self.numbers(&own("post_attention_layernorm.weight"), &[d])?),
                up: vec![self.map(&own("mlp.gate_proj.weight"), f, d)?, self.map(&own("mlp.up_proj.weight"), f, d)?],
                down: self.map(&own("mlp.down_proj.weight"), d, f)?,
            });
        }
        let last = norm(self.numbers("model.norm.weight", &[d])?);
        let head = match llama.tied {
            true => Map { weights: embedding.clone(), scale: Vec::new(), bias: Vec::new() },
            false => self.map("lm_head.weight", arch.vocab, d)?,
        };
        Ok((embedding, layers, last, head))
    }

    fn dit(&mut self, arch: &Arch, cond: usize) -> Result<Parts> {
        if arch.objective == Objective::Score {
            let expected = "a masked-diffusion or next-token model (a score-entropy model can be trained and measured)";
            return Err(Error::value("model", expected, "a score-entropy model"));
        }
        let (d, f) = (arch.hidden, arch.feed_forward());
        let constant = match arch.modulated() {
            true => Some(self.conditioning(cond)?),
            false => None,
        };
        let embedding = self.packed("vocab_embed.embedding", arch.vocab, d)?;
        let mut layers = Vec::with_capacity(arch.layers);
        for layer in 0..arch.layers {
            let own = |name: &str| format!("blocks.{layer}.{name}");
            let modulation = self.modulation(&own("adaLN_modulation"), constant.as_deref(), 6, d)?;
            let part = |i: usize| modulation.as_ref().map(|m| m[i].as_slice());
            let norm1 = self.layer_norm(&own("norm1.weight"), part(0), part(1), d)?;
            let norm2 = self.layer_norm(&own("norm2.weight"), part(3), part(4), d)?;
            let mut out = self.map(&own("attn_out.weight"), d, d)?;
            out.scale = filled_up(part(2).unwrap_or_default().to_vec());
            let mut up = self.map(&own("mlp.0.weight"), f, d)?;
            up.bias = self.bias(&own("mlp.0.bias"), f)?;
            let mut down = self.map(&own("mlp.2.weight"), d, f)?;
            down.scale = filled_up(part(5).unwrap_or_default().to_vec());
            down.bias = self.bias(&own("mlp.2.bias"), d)?;
            // gate (W h + b) = gate W h + gate b
            down.bias.iter_mut().zip(&down.scale).for_each(|(bias, scale)| *bias *= scale);
            let qkv = vec![self.map(&own("attn_qkv.weight"), 3 * d, d)?];
            let qk_norm = [Vec::new(), Vec::new()];
            layers.push(Layer { norm1, qkv, qk_norm, out, norm2, up: vec![up], down });
        }
        let modulation = self.modulation("output_layer.adaLN_modulation", constant.as_deref(), 2, d)?;
        let part = |i: usize| modulation.as_ref().map(|m| m[i].as_slice());
        let norm = self.layer_norm("output_layer.norm_final.weight", part(0), part(1), d)?;
        let mut head = self.map("output_layer.linear.weight", arch.vocab, d)?;
        head.bias = self.bias("output_layer.linear.bias", arch.vocab)?;
        Ok((embedding, layers, norm, head))
    }

    /// The conditioning vector, a constant where the network is told no noise level: its input is that of sigma = 0.
    fn conditioning(&mut self, cond: usize) -> Result<Vec<f32>> {
        // Cosines of 0, then sines of 0.
        let mut c: Vec<f32> = (0..FREQUENCIES).map(|i| if i < FREQUENCIES / 2 { 1.0 } else { 0.0 }).collect();
        for (layer, inputs) in [(0, FREQUENCIES), (2, cond)] {
            let weight = self.numbers(&format!("sigma_map.mlp.{layer}.weight"), &[cond, inputs])?;
            let bias = self.numbers(&format!("sigma_map.mlp.{layer}.bias"), &[cond])?;
            c = affine(&c, &weight, &bias).into_iter().map(|x| x / (1.0 + (-x).exp())).collect();
        }
        Ok(c)
    }

    /// `parts` vectors of width d made of the conditioning vector.
    fn modulation(&mut self, name: &str, c: Option<&[f32]>, parts: usize, d: usize) -> Result<Option<Vec<Vec<f32>>>> {
        let Some(c) = c else { return Ok(None) };
        let weight = self.numbers(&format!("{name}.weight"), &[parts * d, c.len()])?;
        let bias = self.numbers(&format!("{name}.bias"), &[parts * d])?;
        Ok(Some(affine(c, &weight, &bias).chunks(d).map(<[f32]>::to_vec).collect()))
    }

    /// `norm(x) * weight * (1 + scale) + shift`
    fn layer_norm(&mut self, name: &str, shift: Option<&[f32]>, scale: Option<&[f32]>, d: usize) -> Result<Norm> {
        let mut weight = self.numbers(name, &[d])?;
        weight.iter_mut().zip(scale.unwrap_or_default()).for_each(|(weight, scale)| *weight *= 1.0 + scale);
        Ok(Norm { centred: true, eps: crate::arch::NORM_EPS, weight, bias: shift.unwrap_or_default().to_vec() })
    }
}

fn affine(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let row = |w: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
    weight.chunks(x.len()).zip(bias).map(|(w, b)| row(w) + b).collect()
}

/// Zeros up to whole panels.
fn filled_up(mut numbers: Vec<f32>) -> Vec<f32> {
    numbers.resize(numbers.len().next_multiple_of(OUTPUTS), 0.0);
    numbers
}
