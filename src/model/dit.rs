//! The DiT of BD3-LM (spec of the official code, section 1), with its parameters under their published names.
//!
//! The paired pass carries two streams, the noised and the clean copy of the text, as two tensors: the clean one sees clean
//! blocks up to its own, the noised one its own block and the clean blocks before it. So no 2L x 2L mask is ever built, the
//! clean stream ends at the keys and values of the last layer, and it does not exist where one block is the whole length.
//! Nothing here knows noise schedules or losses.

use std::sync::Arc;

use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor, TensorData};

use super::ops::{self, Branch, Modulation};
use super::{Dropout, Form, Heads, Rotary};
use crate::arch::{Arch, FREQUENCIES, ROTARY_BASE};
use crate::block::Layout;
use crate::error::Result;

/// Parameters of one transformer layer. Vectors are `[1, width]`.
#[derive(Clone, Debug)]
struct Layer {
    norm1: Tensor<2>,
    attn_qkv: Tensor<2>,
    attn_out: Tensor<2>,
    norm2: Tensor<2>,
    mlp_0: [Tensor<2>; 2],
    mlp_2: [Tensor<2>; 2],
    modulation: Option<[Tensor<2>; 2]>,
}

/// The network. Cloning shares the parameters.
#[derive(Clone, Debug)]
pub struct Dit {
    /// Its description.
    pub arch: Arch,
    /// Which form of the hot operations it runs.
    pub form: Form,
    device: Device,
    embedding: Tensor<2>,
    sigma_map: Option<[Tensor<2>; 4]>,
    layers: Vec<Layer>,
    norm_final: Tensor<2>,
    head: [Tensor<2>; 2],
    final_modulation: Option<[Tensor<2>; 2]>,
    rotary: Arc<Rotary>,
}

/// The noise level that the network is told, one per row of text. Masked diffusion is told none.
pub type Sigma<'a> = Option<&'a [f32]>;

/// What one forward needs beside the ids.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// Rows of text in the batch.
    pub batch: usize,
    /// Block size; divides the length.
    pub block: usize,
    /// Noise level per row (score entropy only).
    pub sigma: Sigma<'a>,
    /// Dropout of this step; each branch derives its own key.
    pub dropout: Dropout,
}

impl<'a> View<'a> {
    /// Evaluation: no dropout, no noise level.
    pub fn plain(batch: usize, block: usize) -> Self {
        Self { batch, block, sigma: None, dropout: Dropout::OFF }
    }
}

impl Dit {
    /// Builds the network from its parameters: `take(name, shape)` gives each tensor's numbers under its published name.
    ///
    /// # Errors
    /// A description of another shape, and whatever `take` refuses.
    pub fn from_parameters(
        arch: &Arch,
        device: &Device,
        mut take: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        arch.dit()?;
        let mut parameters = std::collections::HashMap::new();
        for (name, shape) in arch.tensors() {
            let data = take(&name, &shape)?;
            let dims = [if shape.len() == 1 { 1 } else { shape[0] }, shape[shape.len() - 1]];
            parameters.insert(name, Tensor::<2>::from_data(TensorData::new(data, dims), device));
        }
        // Every name below comes from `arch.tensors()`.
        let mut get = |name: String| parameters.remove(&name).unwrap_or_else(|| unreachable!("{name} is not listed"));
        let modulated = arch.modulated();
        let layers = (0..arch.layers)
            .map(|i| {
                let mut own = |name: &str| get(format!("blocks.{i}.{name}"));
                Layer {
                    norm1: own("norm1.weight"),
                    attn_qkv: own("attn_qkv.weight"),
                    attn_out: own("attn_out.weight"),
                    norm2: own("norm2.weight"),
                    mlp_0: [own("mlp.0.weight"), own("mlp.0.bias")],
                    mlp_2: [own("mlp.2.weight"), own("mlp.2.bias")],
                    modulation: modulated.then(|| ["adaLN_modulation.weight", "adaLN_modulation.bias"].map(&mut own)),
                }
            })
            .collect();
        let sigma = ["0.weight", "0.bias", "2.weight", "2.bias"];
        Ok(Self {
            arch: arch.clone(),
            form: ops::best_form(device),
            device: device.clone(),
            embedding: get("vocab_embed.embedding".into()),
            sigma_map: modulated.then(|| sigma.map(|n| get(format!("sigma_map.mlp.{n}")))),
            layers,
            norm_final: get("output_layer.norm_final.weight".into()),
            head: ["weight", "bias"].map(|n| get(format!("output_layer.linear.{n}"))),
            final_modulation: modulated
                .then(|| ["weight", "bias"].map(|n| get(format!("output_layer.adaLN_modulation.{n}")))),
            rotary: Arc::new(Rotary::new(arch.length, arch.head_dim(), ROTARY_BASE)),
        })
    }

    /// Calls `f` with every parameter and its published name, in the order of the official parameter list; what `f` leaves
    /// is the new parameter.
    pub fn visit(&mut self, f: &mut dyn FnMut(&str, &mut Tensor<2>)) {
        fn all<const N: usize>(
            prefix: &str,
            names: [&str; N],
            tensors: [&mut Tensor<2>; N],
            f: &mut dyn FnMut(&str, &mut Tensor<2>),
        ) {
            for (name, tensor) in names.iter().zip(tensors) {
                f(&format!("{prefix}{name}"), tensor);
            }
        }
        let pair = ["weight", "bias"];
        all("", ["vocab_embed.embedding"], [&mut self.embedding], f);
        if let Some(map) = &mut self.sigma_map {
            all("sigma_map.mlp.", ["0.weight", "0.bias", "2.weight", "2.bias"], map.each_mut(), f);
        }
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let prefix = format!("blocks.{i}.");
            let names = ["norm1.weight", "attn_qkv.weight", "attn_out.weight", "norm2.weight"];
            let tensors = [&mut layer.norm1, &mut layer.attn_qkv, &mut layer.attn_out, &mut layer.norm2];
            all(&prefix, names, tensors, f);
            all(&format!("{prefix}mlp.0."), pair, layer.mlp_0.each_mut(), f);
            all(&format!("{prefix}mlp.2."), pair, layer.mlp_2.each_mut(), f);
            if let Some(modulation) = &mut layer.modulation {
                all(&format!("{prefix}adaLN_modulation."), pair, modulation.each_mut(), f);
            }
        }
        all("output_layer.", ["norm_final.weight"], [&mut self.norm_final], f);
        all("output_layer.linear.", pair, self.head.each_mut(), f);
        if let Some(modulation) = &mut self.final_modulation {
            all("output_layer.adaLN_modulation.", pair, modulation.each_mut(), f);
        }
    }

    /// Every parameter's published name and numbers, in the order of the official list.
    ///
    /// # Errors
    /// As [`ops::to_vec`].
    pub fn parameters(&self) -> Result<Vec<(String, Vec<f32>)>> {
        let mut all = Vec::new();
        let mut failed = None;
        self.clone().visit(&mut |name, tensor| match ops::to_vec(tensor.clone()) {
            Ok(data) => all.push((name.to_string(), data)),
            Err(e) => failed = Some(e),
        });
        failed.map_or(Ok(all), Err)
    }

    /// The same network outside autodiff, sharing the parameters: for evaluation.
    pub fn without_autodiff(mut self) -> Self {
        self.device = self.device.inner();
        self.visit(&mut |_, tensor| *tensor = tensor.clone().without_autodiff());
        self
    }

    /// Makes every parameter a leaf whose gradient is kept. The device must be an autodiff one.
    pub fn require_grad(&mut self) {
        self.visit(&mut |_, tensor| *tensor = tensor.clone().require_grad());
    }

    /// The device its parameters live on.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The output layer's weight `[vocab, d]` and bias `[1, vocab]`.
    pub fn head(&self) -> &[Tensor<2>; 2] {
        &self.head
    }

    /// The paired pass: the noised stream `[batch * length, d]` before the output layer's linear map. `noised` and `clean`
    /// are `[batch, length]` ids; at block = length nothing reads the clean text, and its stream is not computed.
    ///
    /// # Errors
    /// A block size that does not divide the length.
    pub fn paired(&self, noised: &[u32], clean: &[u32], view: &View<'_>) -> Result<Tensor<2>> {
        let conditioning = self.conditioning(view);
        let mut last = None;
        self.run_paired(noised, clean, view, conditioning.as_ref(), |x| last = Some(x.clone()))?;
        let x = last.unwrap_or_else(|| self.embed(noised));
        Ok(self.final_norm(x, conditioning.as_ref()))
    }

    /// The noised stream of [`Dit::paired`] after every layer.
    ///
    /// # Errors
    /// As [`Dit::paired`].
    pub fn paired_hidden(&self, noised: &[u32], clean: &[u32], view: &View<'_>) -> Result<Vec<Tensor<2>>> {
        let mut after = Vec::with_capacity(self.layers.len());
        self.run_paired(noised, clean, view, self.conditioning(view).as_ref(), |x| after.push(x.clone()))?;
        Ok(after)
    }

    /// One stream that sees blocks up to its own: next-token models (block 1), masked diffusion (block = length), or the
    /// clean text. `[batch * length, d]` before the output layer's linear map.
    ///
    /// # Errors
    /// As [`Dit::paired`].
    pub fn single(&self, ids: &[u32], view: &View<'_>) -> Result<Tensor<2>> {
        let x = self.hidden(ids, view)?.pop().unwrap_or_else(|| self.embed(ids));
        Ok(self.final_norm(x, self.conditioning(view).as_ref()))
    }

    /// The stream of [`Dit::single`] after every layer.
    ///
    /// # Errors
    /// As [`Dit::paired`].
    pub fn hidden(&self, ids: &[u32], view: &View<'_>) -> Result<Vec<Tensor<2>>> {
        let layout = Layout::new(ids.len() / view.batch, view.block)?;
        let conditioning = self.conditioning(view);
        let mut x = self.embed(ids);
        let runs = self.runs(view, layout.length, conditioning.as_ref());
        Ok(runs
            .map(|run| {
                x = run.single(x.clone());
                x.clone()
            })
            .collect())
    }

    fn run_paired(
        &self,
        noised: &[u32],
        clean: &[u32],
        view: &View<'_>,
        conditioning: Option<&Tensor<2>>,
        mut after: impl FnMut(&Tensor<2>),
    ) -> Result<()> {
        let layout = Layout::new(noised.len() / view.batch, view.block)?;
        let mut x = self.embed(noised);
        let mut clean = (layout.blocks() > 1).then(|| self.embed(clean));
        for run in self.runs(view, layout.length, conditioning) {
            (x, clean) = match clean {
                None => (run.single(x), None),
                Some(clean) if run.index + 1 == self.layers.len() => (run.noised(x, run.keys_values(clean)), None),
                Some(clean) => {
                    let qkv = run.qkv(&clean);
                    (run.noised(x, qkv.clone()), Some(run.clean(clean, qkv)))
                }
            };
            after(&x);
        }
        Ok(())
    }

    /// The layers in order, each ready to run on this batch.
    fn runs<'a>(
        &'a self,
        view: &'a View<'a>,
        length: usize,
        conditioning: Option<&'a Tensor<2>>,
    ) -> impl Iterator<Item = LayerRun<'a>> {
        let rotary = self.rotary.clone();
        let heads = Heads { batch: view.batch, length, count: self.arch.heads, dim: self.arch.head_dim(), rotary };
        self.layers.iter().enumerate().map(move |(index, layer)| {
            let modulation = Modulation::of(layer.modulation.as_ref(), conditioning, self.arch.hidden);
            LayerRun { layer, modulation, heads: heads.clone(), view, form: self.form, index }
        })
    }

    /// Logits `[rows, vocab]` of rows of a stream.
    pub fn logits(&self, stream: Tensor<2>) -> Tensor<2> {
        ops::linear(self.form, stream, self.head[0].clone()) + self.head[1].clone()
    }

    fn embed(&self, ids: &[u32]) -> Tensor<2> {
        ops::gather(self.form, self.embedding.clone(), ids)
    }

    fn final_norm(&self, x: Tensor<2>, conditioning: Option<&Tensor<2>>) -> Tensor<2> {
        let modulation = Modulation::of(self.final_modulation.as_ref(), conditioning, self.arch.hidden);
        ops::norm(self.form, x, self.norm_final.clone(), modulation.part(0))
    }

    /// The conditioning vector: `[1, cond]` for a network that is told nothing (sigma = 0), `[batch, cond]` else.
    fn conditioning(&self, view: &View<'_>) -> Option<Tensor<2>> {
        let sigma = if self.arch.time_conditioned() { view.sigma.unwrap_or(&[0.0]) } else { &[0.0] };
        self.embed_sigma(sigma).map(|(_, conditioning)| conditioning)
    }

    /// The embedding of noise levels, `[sigmas, cond]`, before and after the last SiLU.
    pub fn embed_sigma(&self, sigma: &[f32]) -> Option<(Tensor<2>, Tensor<2>)> {
        let [w0, b0, w2, b2] = self.sigma_map.clone()?;
        let embedded = TensorData::new(sinusoids(sigma), [sigma.len(), FREQUENCIES]);
        let x = Tensor::<2>::from_data(embedded, &self.device);
        let x = silu(x.matmul(w0.transpose()) + b0).matmul(w2.transpose()) + b2;
        Some((x.clone(), silu(x)))
    }
}

/// The sinusoidal embedding of noise levels, `[sigmas, 256]`: cosines, then sines, of sigma * 10000^(-k / 128).
pub fn sinusoids(sigma: &[f32]) -> Vec<f32> {
    let half = FREQUENCIES / 2;
    let frequency = |k: usize| (-(10_000f32.ln()) * k as f32 / half as f32).exp();
    sigma
        .iter()
        .flat_map(|&s| {
            let angles = (0..half).map(move |k| s * frequency(k));
            angles.clone().map(f32::cos).chain(angles.map(f32::sin))
        })
        .collect()
}

/// One layer at work on one batch.
struct LayerRun<'a> {
    layer: &'a Layer,
    modulation: Modulation,
    heads: Heads,
    view: &'a View<'a>,
    form: Form,
    index: usize,
}

/// Which stream a branch belongs to; each draws its own dropout.
#[derive(Clone, Copy)]
enum Stream {
    Noised,
    Clean,
}

impl LayerRun<'_> {
    fn single(&self, x: Tensor<2>) -> Tensor<2> {
        let attended = ops::block_causal(self.form, self.qkv(&x), &self.heads, self.view.block);
        self.finish(x, attended, Stream::Noised)
    }

    fn noised(&self, x: Tensor<2>, clean: Tensor<2>) -> Tensor<2> {
        let attended = ops::offset_block(self.form, self.qkv(&x), clean, &self.heads, self.view.block);
        self.finish(x, attended, Stream::Noised)
    }

    fn clean(&self, x: Tensor<2>, qkv: Tensor<2>) -> Tensor<2> {
        let attended = ops::block_causal(self.form, qkv, &self.heads, self.view.block);
        self.finish(x, attended, Stream::Clean)
    }

    fn qkv(&self, x: &Tensor<2>) -> Tensor<2> {
        let h = ops::norm(self.form, x.clone(), self.layer.norm1.clone(), self.modulation.part(0));
        ops::linear(self.form, h, self.layer.attn_qkv.clone())
    }

    /// Keys and values alone, where nothing reads the queries.
    fn keys_values(&self, x: Tensor<2>) -> Tensor<2> {
        let width = self.heads.count * self.heads.dim;
        let h = ops::norm(self.form, x, self.layer.norm1.clone(), self.modulation.part(0));
        ops::linear(self.form, h, self.layer.attn_qkv.clone().narrow(0, width, 2 * width))
    }

    /// The attention branch's output map and residual, then the feed-forward branch.
    fn finish(&self, x: Tensor<2>, attended: Tensor<2>, stream: Stream) -> Tensor<2> {
        let (form, layer) = (self.form, self.layer);
        let value = ops::linear(form, attended, layer.attn_out.clone());
        let (gate, dropout) = (self.modulation.gate(0), self.dropout(stream, 0));
        let x = ops::residual(form, x, Branch { value, bias: None, gate, dropout });
        let h = ops::norm(form, x.clone(), layer.norm2.clone(), self.modulation.part(1));
        let h = ops::bias_gelu(form, ops::linear(form, h, layer.mlp_0[0].clone()), layer.mlp_0[1].clone());
        let value = ops::linear(form, h, layer.mlp_2[0].clone());
        let (gate, dropout) = (self.modulation.gate(1), self.dropout(stream, 1));
        ops::residual(form, x, Branch { value, bias: Some(layer.mlp_2[1].clone()), gate, dropout })
    }

    fn dropout(&self, stream: Stream, branch: u64) -> Dropout {
        let Dropout { key, keep } = self.view.dropout;
        let place = self.index as u64 * 4 + stream as u64 * 2 + branch;
        Dropout { key: key.wrapping_add(place.wrapping_mul(0x9E37_79B9_7F4A_7C15)), keep }
    }
}
