//! The network as it decodes, without gradients: plain f32 weights, an exact cache, one pass over several lanes at a time. A pass
//! computes the rows it stores and the open rows, nothing else; in the last layer stored rows attend to nothing, and only the
//! rows that somebody asks for go beyond attention. The same fused operations as in training, so the same numbers.

use std::collections::HashMap;
use std::ops::Range;

use rayon::prelude::*;

use super::cache::KeyValues;
use super::dit::sinusoids;
use super::fused::matmul::{Matrix, MatrixMut, Write, linear_forward, matmul};
use super::fused::norm::{Modulation, norm_modulate_forward};
use super::fused::residual::{Branch, Dropout, residual_forward};
use super::fused::{embed, gelu};
use crate::arch::{Arch, FREQUENCIES, Objective};
use crate::error::{Error, Result};
use crate::pass::{Cache, Denoiser, Lane, Proposal, propose};

/// A network ready to decode.
pub struct Decoder {
    arch: Arch,
    embedding: Vec<f32>,
    layers: Vec<Layer>,
    norm_final: Vec<f32>,
    /// Shift and scale of the output layer.
    modulation_final: Option<[Vec<f32>; 2]>,
    head: [Vec<f32>; 2],
    frequencies: Vec<f32>,
}

struct Layer {
    norm1: Vec<f32>,
    attn_qkv: Vec<f32>,
    attn_out: Vec<f32>,
    norm2: Vec<f32>,
    mlp_0: [Vec<f32>; 2],
    mlp_2: [Vec<f32>; 2],
    /// Shift, scale, gate of attention, then of the feed-forward branch: constants, as the network is told no noise level.
    modulation: Option<[Vec<f32>; 6]>,
}

impl Decoder {
    /// Builds a decoder from parameters, as [`super::Dit::from_parameters`] does.
    ///
    /// # Errors
    /// A score-entropy model: it answers with ratios at a noise level, which no rule here can use. A description of another
    /// shape.
    pub fn from_parameters(arch: &Arch, mut take: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>) -> Result<Self> {
        if arch.objective == Objective::Score {
            let expected = "a masked-diffusion or next-token model (a score-entropy model can be trained and measured)";
            return Err(Error::value("model", expected, "a score-entropy model"));
        }
        arch.dit()?;
        let mut all = HashMap::new();
        for (name, shape) in arch.tensors() {
            let data = take(&name, &shape)?;
            all.insert(name, data);
        }
        // Every name below comes from `arch.tensors()`.
        let mut get = |name: &str| all.remove(name).unwrap_or_else(|| unreachable!("{name} is not listed"));
        let conditioning = arch.modulated().then(|| {
            let maps = ["0.weight", "0.bias", "2.weight", "2.bias"].map(|n| get(&format!("sigma_map.mlp.{n}")));
            let [w0, b0, w2, b2] = &maps;
            silu(affine(&silu(affine(&sinusoids(&[0.0])[..FREQUENCIES], w0, b0)), w2, b2))
        });
        let d = arch.hidden;
        let mut layers = Vec::with_capacity(arch.layers);
        for index in 0..arch.layers {
            let mut own = |name: &str| get(&format!("blocks.{index}.{name}"));
            layers.push(Layer {
                norm1: own("norm1.weight"),
                attn_qkv: own("attn_qkv.weight"),
                attn_out: own("attn_out.weight"),
                norm2: own("norm2.weight"),
                mlp_0: ["mlp.0.weight", "mlp.0.bias"].map(&mut own),
                mlp_2: ["mlp.2.weight", "mlp.2.bias"].map(&mut own),
                modulation: conditioning.as_ref().map(|c| {
                    let all = affine(c, &own("adaLN_modulation.weight"), &own("adaLN_modulation.bias"));
                    std::array::from_fn(|i| all[i * d..(i + 1) * d].to_vec())
                }),
            });
        }
        let modulation_final = conditioning.as_ref().map(|c| {
            let [weight, bias] = ["weight", "bias"].map(|n| get(&format!("output_layer.adaLN_modulation.{n}")));
            let all = affine(c, &weight, &bias);
            std::array::from_fn(|i| all[i * d..(i + 1) * d].to_vec())
        });
        Ok(Self {
            arch: arch.clone(),
            embedding: get("vocab_embed.embedding"),
            layers,
            norm_final: get("output_layer.norm_final.weight"),
            modulation_final,
            head: ["weight", "bias"].map(|n| get(&format!("output_layer.linear.{n}"))),
            frequencies: arch.rotary_frequencies(),
        })
    }

    /// Its description.
    pub fn arch(&self) -> &Arch {
        &self.arch
    }

    /// Logits `[rows, vocab]` of the rows that the lanes ask for, lane by lane; stores what the lanes store.
    pub fn logits(&self, lanes: &mut [Lane<'_, KeyValues>]) -> Result<Vec<f32>> {
        let plan = self.plan(lanes)?;
        let d = self.arch.hidden;
        let mut x = embed::embed_forward(&self.embedding, &plan.ids, d);
        for (index, layer) in self.layers.iter().enumerate() {
            let rows = plan.ids.len();
            let h = normed(&x, &layer.norm1, layer.modulation.as_ref().map(|m| [&m[0], &m[1]]));
            let mut qkv = linear_forward(&h, &layer.attn_qkv, rows);
            self.append(&mut qkv, &plan, lanes, index);
            let attended = self.attend(&qkv, &plan, lanes, index);
            x = if index + 1 < self.layers.len() {
                layer.finish(&x, &attended)
            } else if plan.asked.is_empty() {
                Vec::new()
            } else {
                layer.finish(&picked(&x, &plan.asked, d), &picked(&attended, &plan.asked, d))
            };
        }
        for (lane, part) in lanes.iter_mut().zip(&plan.parts) {
            lane.cache.stored(part.stored);
            lane.cache.settle();
        }
        if plan.asked.is_empty() {
            return Ok(Vec::new());
        }
        let h = normed(&x, &self.norm_final, self.modulation_final.as_ref().map(|m| [&m[0], &m[1]]));
        let mut logits = linear_forward(&h, &self.head[0], plan.asked.len());
        logits.chunks_mut(self.arch.vocab).for_each(|row| row.iter_mut().zip(&self.head[1]).for_each(|(x, b)| *x += b));
        Ok(logits)
    }

    /// Which rows the pass computes, and who sees what.
    fn plan(&self, lanes: &[Lane<'_, KeyValues>]) -> Result<PassPlan> {
        let mut plan = PassPlan::default();
        let next_token = self.arch.objective == Objective::NextToken;
        for lane in lanes {
            let first = plan.ids.len();
            let block = lane.cache.block();
            if !lane.store.len().is_multiple_of(block) {
                return Err(Error::Run(format!("{} ids to store are not whole blocks of {block}", lane.store.len())));
            }
            plan.ids.extend(lane.store);
            let (held, end) = (lane.cache.held(), lane.cache.end());
            let mut groups: Vec<(Range<usize>, usize)> = (0..lane.store.len() / block)
                .map(|b| (first + b * block..first + (b + 1) * block, held + (b + 1) * block))
                .collect();
            if next_token {
                // A shifted model predicts the open position from the last stored one; a mask row means nothing to it.
                if lane.store.is_empty() || lane.open.len() > 1 {
                    return Err(Error::Run("a next-token model stores at least one id and opens one position".into()));
                }
                plan.asked.extend(lane.ask.rows.iter().map(|_| plan.ids.len() - 1));
            } else {
                let start = plan.ids.len();
                plan.ids.extend(lane.open);
                groups.push((start..plan.ids.len(), held + lane.store.len() + lane.open.len()));
                plan.asked.extend(lane.ask.rows.iter().map(|row| start + row));
            }
            let rows = first..plan.ids.len();
            plan.turns.extend((0..rows.len()).map(|i| self.turn(end + i)));
            plan.parts.push(Part { rows, stored: lane.store.len(), groups });
        }
        if let Some(id) = plan.ids.iter().find(|&&id| id as usize >= self.arch.vocab) {
            return Err(Error::Run(format!("id {id} is beyond the vocabulary of {}", self.arch.vocab)));
        }
        Ok(plan)
    }

    /// Cosines and sines of a position, one per pair of dimensions.
    fn turn(&self, position: usize) -> Vec<(f32, f32)> {
        self.frequencies.iter().map(|f| (position as f32 * f).sin_cos()).map(|(sin, cos)| (cos, sin)).collect()
    }

    /// Rotates queries and keys in place and appends keys and values to the caches.
    fn append(&self, qkv: &mut [f32], plan: &PassPlan, lanes: &mut [Lane<'_, KeyValues>], layer: usize) {
        let (d, dim) = (self.arch.hidden, self.arch.head_dim());
        for (row, turn) in qkv.chunks_mut(3 * d).zip(&plan.turns) {
            row[..2 * d].chunks_mut(dim).for_each(|head| rotate(head, turn));
        }
        for (lane, part) in lanes.iter_mut().zip(&plan.parts) {
            for row in qkv[part.rows.start * 3 * d..part.rows.end * 3 * d].chunks(3 * d) {
                let parts = row[d..2 * d].chunks(dim).zip(row[2 * d..].chunks(dim));
                for (head, (key, value)) in lane.cache.heads[layer].iter_mut().zip(parts) {
                    head.keys.extend_from_slice(key);
                    head.values.extend_from_slice(value);
                }
            }
        }
    }

    /// Attention of every group over what it sees: `[rows, d]`, zeros for groups that nothing reads.
    fn attend(&self, qkv: &[f32], plan: &PassPlan, lanes: &[Lane<'_, KeyValues>], layer: usize) -> Vec<f32> {
        // Only the head reads the last layer.
        let last = layer + 1 == self.layers.len();
        let read = |rows: &Range<usize>| !last || plan.asked.iter().any(|row| rows.contains(row));
        let (d, dim) = (self.arch.hidden, self.arch.head_dim());
        let mut work = Vec::new();
        for (lane, part) in lanes.iter().zip(&plan.parts) {
            for (rows, seen) in part.groups.iter().filter(|(rows, _)| read(rows)) {
                work.extend(
                    (0..self.arch.heads).map(|head| (rows.clone(), *seen, head, &lane.cache.heads[layer][head])),
                );
            }
        }
        let results: Vec<Vec<f32>> = work
            .par_iter()
            .map(|(rows, seen, head, side)| {
                let queries = &qkv[rows.start * 3 * d + head * dim..];
                let queries = Matrix::strided(queries, rows.len(), dim, 3 * d);
                let keys = Matrix::new(&side.keys[..seen * dim], *seen, dim);
                let values = Matrix::new(&side.values[..seen * dim], *seen, dim);
                attention(queries, keys, values, (rows.len(), *seen, dim))
            })
            .collect();
        let mut out = vec![0.0; plan.ids.len() * d];
        for ((rows, _, head, _), result) in work.iter().zip(results) {
            for (row, result) in rows.clone().zip(result.chunks(dim)) {
                out[row * d + head * dim..][..dim].copy_from_slice(result);
            }
        }
        out
    }
}

/// The rows of one pass.
#[derive(Default)]
struct PassPlan {
    ids: Vec<u32>,
    /// Rotary turn of each row.
    turns: Vec<Vec<(f32, f32)>>,
    /// Rows that the head answers for.
    asked: Vec<usize>,
    /// By lane.
    parts: Vec<Part>,
}

struct Part {
    rows: Range<usize>,
    stored: usize,
    /// Rows that see the same keys, and how many of the lane's keys that is.
    groups: Vec<(Range<usize>, usize)>,
}

impl Layer {
    /// The attention branch's output map and residual, then the feed-forward branch.
    fn finish(&self, x: &[f32], attended: &[f32]) -> Vec<f32> {
        let d = self.norm1.len();
        let rows = x.len() / d;
        let gate = |i: usize| self.modulation.as_ref().map(|m| m[i].as_slice());
        let values = linear_forward(attended, &self.attn_out, rows);
        let branch = Branch { values: &values, bias: None, gate: gate(2), dropout: Dropout::OFF, d };
        let x = residual_forward(x, &branch);
        let h = normed(&x, &self.norm2, self.modulation.as_ref().map(|m| [&m[3], &m[4]]));
        let h = gelu::bias_gelu_forward(&linear_forward(&h, &self.mlp_0[0], rows), &self.mlp_0[1]);
        let values = linear_forward(&h, &self.mlp_2[0], rows);
        let bias = Some(self.mlp_2[1].as_slice());
        residual_forward(&x, &Branch { values: &values, bias, gate: gate(5), dropout: Dropout::OFF, d })
    }
}

impl Denoiser for Decoder {
    type Cache = KeyValues;

    fn mask_id(&self) -> u32 {
        self.arch.mask
    }

    fn cache(&self, block: usize) -> KeyValues {
        KeyValues::new(block, self.arch.layers, self.arch.heads, self.arch.head_dim())
    }

    fn pass(&self, lanes: &mut [Lane<'_, KeyValues>]) -> Result<Vec<Vec<Proposal>>> {
        let logits = self.logits(lanes)?;
        let mask = self.arch.mask;
        let queries = lanes.iter().flat_map(|l| (0..l.ask.rows.len()).map(|i| l.ask.query(i, l.open, mask)));
        let rows: Vec<_> = queries.zip(logits.chunks(self.arch.vocab)).collect();
        let mut proposals: Vec<Proposal> =
            rows.par_iter().map(|(query, logits)| propose(logits, query)).collect::<Result<_>>()?;
        let mut answers = Vec::with_capacity(lanes.len());
        for lane in lanes.iter().rev() {
            answers.push(proposals.split_off(proposals.len() - lane.ask.rows.len()));
        }
        answers.reverse();
        Ok(answers)
    }
}

fn attention(queries: Matrix, keys: Matrix, values: Matrix, (rows, seen, dim): (usize, usize, usize)) -> Vec<f32> {
    let mut scores = vec![0.0; rows * seen];
    matmul(MatrixMut::strided(&mut scores, rows, seen, seen), queries, keys.transposed(), Write::Replace);
    let scale = 1.0 / (dim as f32).sqrt();
    for row in scores.chunks_mut(seen) {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        row.iter_mut().for_each(|s| *s = ((*s - max) * scale).exp());
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|s| *s /= sum);
    }
    let mut out = vec![0.0; rows * dim];
    let weights = Matrix::new(&scores, rows, seen);
    matmul(MatrixMut::strided(&mut out, rows, dim, dim), weights, values, Write::Replace);
    out
}

fn rotate(head: &mut [f32], turn: &[(f32, f32)]) {
    let (low, high) = head.split_at_mut(turn.len());
    for ((a, b), (cos, sin)) in low.iter_mut().zip(high).zip(turn) {
        (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
    }
}

fn normed(x: &[f32], weight: &[f32], modulation: Option<[&Vec<f32>; 2]>) -> Vec<f32> {
    let modulation = modulation.map(|[shift, scale]| Modulation { shift, scale });
    norm_modulate_forward(x, weight, modulation).y
}

fn picked(x: &[f32], rows: &[usize], d: usize) -> Vec<f32> {
    rows.iter().flat_map(|row| &x[row * d..(row + 1) * d]).copied().collect()
}

fn affine(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
    let row = |w: &[f32]| w.iter().zip(x).map(|(w, x)| w * x).sum::<f32>();
    weight.chunks(x.len()).zip(bias).map(|(w, b)| row(w) + b).collect()
}

fn silu(x: Vec<f32>) -> Vec<f32> {
    x.into_iter().map(|x| x / (1.0 + (-x).exp())).collect()
}
