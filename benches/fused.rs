//! Times the fused operations of a training step, one by one and as a whole step without a tensor library.
//!
//! `cargo bench --bench fused` prints, for the reference step (d 256, 6 layers, 4 heads, length 256, block 16, vocabulary 8192,
//! batch 8, logits at half of the positions), each operation's median time and rate, then the whole step's share of the time
//! that the machine's peak gives for the useful work. The peak is the quickest product of 2048 x 2048 matrices, before and after.

use std::hint::black_box;
use std::time::Instant;

use bd3::model::fused::adamw::{AdamW, Slot, adamw, square_sum};
use bd3::model::fused::attention::{self, KeyValueLayout, Shape};
use bd3::model::fused::embed::{embed_backward, embed_forward};
use bd3::model::fused::gelu::{bias_gelu_backward, bias_gelu_forward};
use bd3::model::fused::head::{Head, head_nll_and_grads};
use bd3::model::fused::matmul::{Matrix, Precision, linear_backward, linear_forward, product};
use bd3::model::fused::norm::{Modulation, norm_modulate_backward, norm_modulate_forward};
use bd3::model::fused::residual::{Branch, Dropout, residual_backward, residual_forward};
use bd3::model::fused::rotary::Rotary;

const D: usize = 256;
const LAYERS: usize = 6;
const VOCAB: usize = 8192;
const SHAPE: Shape = Shape { batch: 8, length: 256, heads: 4, head_dim: 64, block: 16 };
const ROWS: usize = SHAPE.batch * SHAPE.length;
const SCORED: usize = ROWS / 2;
const DROPOUT: Dropout = Dropout { key: 7, keep: 0.9 };

fn main() {
    let best = least_product();
    println!("peak {:.0} GFLOP/s on {} threads", peak_flop() / best / 1e9, rayon::current_num_threads());
    operations();
    steps();
}

/// Median and least seconds of `n` runs after one that is not counted.
fn time(n: usize, mut run: impl FnMut()) -> (f64, f64) {
    run();
    let mut seconds: Vec<f64> = (0..n)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    (seconds[n / 2], seconds[0])
}

fn peak_flop() -> f64 {
    2.0 * 2048f64.powi(3)
}

/// Least seconds of a product of 2048 x 2048 matrices.
fn least_product() -> f64 {
    let x = vec![0.5; 2048 * 2048];
    let x = Matrix::new(&x, 2048, 2048);
    time(9, || drop(black_box(product(x, x)))).1
}

/// Numbers in [-1, 1) times `scale`.
fn random(n: usize, scale: f32) -> Vec<f32> {
    let mut state = n as u64 | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| scale * next()).collect()
}

fn ids(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| i.wrapping_mul(2_654_435_761) % VOCAB as u32 % 8000 + 1).collect()
}

/// Prints a line; `work` is floating-point operations (unit "GFLOP/s") or bytes ("GB/s") of one call, `count` calls a step.
fn line(name: &str, count: usize, work: f64, unit: &str, run: impl FnMut()) {
    let (median, least) = time(15, run);
    let total = median * count as f64 * 1e3;
    println!(
        "{name:<34} {:>8.3} ms  least {:>8.3}  x {count:>3} = {total:>7.1} ms  {:>6.0} {unit}",
        median * 1e3,
        least * 1e3,
        work / median / 1e9
    );
}

fn operations() {
    // Streams that go through a whole layer: noised in all, clean in all but the last.
    let streams = 2 * LAYERS - 1;
    linears(streams);
    elementwise(streams);
    attentions();
    let (x, params) = (random(SCORED * D, 1.0), Parameters::new());
    let targets = ids(SCORED);
    let weights = vec![1.0; SCORED];
    let head = Head { weight: &params.head, bias: &params.head_bias, banned: Some(0), precision: Precision::F32 };
    line("head forward and backward", 1, 6.0 * (SCORED * D * VOCAB) as f64, "GFLOP/s", || {
        black_box(head_nll_and_grads(&x, &targets, &weights, head));
    });
    let (table, ids, grad) = (random(VOCAB * D, 1.0), ids(ROWS), random(ROWS * D, 1.0));
    line("embed forward", 2, 8.0 * (ROWS * D) as f64, "GB/s", || drop(black_box(embed_forward(&table, &ids, D))));
    line("embed backward", 2, 4.0 * ((ROWS + VOCAB) * D) as f64, "GB/s", || {
        black_box(embed_backward(&grad, &ids, (VOCAB, D)));
    });
    let n = 10_240_000;
    let (mut param, mut m, mut v, mut ema) = (random(n, 1.0), random(n, 0.1), vec![0.1; n], random(n, 1.0));
    let grad = random(n, 1.0);
    line("adamw with ema", 1, 36.0 * n as f64, "GB/s", || {
        adamw(&OPTIMISER, &grad, Slot { param: &mut param, m: &mut m, v: &mut v, ema: Some((&mut ema, 0.999)) });
    });
    line("square sum", 1, 4.0 * n as f64, "GB/s", || {
        black_box(square_sum(&grad));
    });
}

/// The step is in f32; bf16 is shown beside it.
fn linears(streams: usize) {
    for (inputs, outputs) in [(D, 3 * D), (D, D), (D, 4 * D), (4 * D, D)] {
        let (x, w, g) = (random(ROWS * inputs, 1.0), random(outputs * inputs, 0.1), random(ROWS * outputs, 1.0));
        let flop = 2.0 * (ROWS * inputs * outputs) as f64;
        for (precision, count, name) in [(Precision::F32, streams, ""), (Precision::Bf16, 0, " bf16")] {
            let forward = || drop(black_box(linear_forward(&x, &w, ROWS, precision)));
            line(&format!("linear {inputs} to {outputs} forward{name}"), count, flop, "GFLOP/s", forward);
            let backward = || drop(black_box(linear_backward(&g, &x, &w, ROWS, precision)));
            line(&format!("linear {inputs} to {outputs} backward{name}"), count, 2.0 * flop, "GFLOP/s", backward);
        }
    }
}

fn elementwise(streams: usize) {
    let (x, weight, shift) = (random(ROWS * D, 1.0), random(D, 1.0), random(D, 1.0));
    let bytes = 4.0 * (ROWS * D) as f64;
    let modulation = Some(Modulation { shift: &shift, scale: &weight });
    line("norm forward", 2 * streams, 2.0 * bytes, "GB/s", || {
        black_box(norm_modulate_forward(&x, &weight, modulation));
    });
    let normed = norm_modulate_forward(&x, &weight, modulation);
    let grad = random(ROWS * D, 0.1);
    line("norm backward", 2 * streams, 3.0 * bytes, "GB/s", || {
        black_box(norm_modulate_backward(&grad, &x, (&normed.mean, &normed.rstd), &weight, modulation));
    });
    let branch = Branch { values: &grad, bias: Some(&shift), gate: Some(&weight), dropout: DROPOUT, d: D };
    line("residual forward", 2 * streams, 3.0 * bytes, "GB/s", || drop(black_box(residual_forward(&x, &branch))));
    line("residual backward", 2 * streams, 3.0 * bytes, "GB/s", || {
        black_box(residual_backward(&x, &branch));
    });
    let (z, bias, grad) = (random(ROWS * 4 * D, 3.0), random(4 * D, 1.0), random(ROWS * 4 * D, 1.0));
    line("gelu forward", streams, 8.0 * bytes, "GB/s", || drop(black_box(bias_gelu_forward(&z, &bias))));
    line("gelu backward", streams, 12.0 * bytes, "GB/s", || drop(black_box(bias_gelu_backward(&grad, &z, &bias))));
}

fn attentions() {
    let rotary = Rotary::new(SHAPE.length, SHAPE.head_dim, 10_000.0);
    let (noised, clean, grad) = (random(ROWS * 3 * D, 1.0), random(ROWS * 3 * D, 1.0), random(ROWS * D, 1.0));
    let layout = KeyValueLayout::qkv(D);
    // Both operations allow the same number of pairs; a product costs 2 head_dim for each.
    let pairs = SHAPE.batch * SHAPE.heads * SHAPE.length * (SHAPE.length + SHAPE.block) / 2;
    let flop = 2.0 * (pairs * SHAPE.head_dim) as f64;
    line("block_causal forward", LAYERS - 1, 2.0 * flop, "GFLOP/s", || {
        black_box(attention::block_causal(&clean, SHAPE, &rotary));
    });
    line("block_causal backward", LAYERS - 1, 4.0 * flop, "GFLOP/s", || {
        black_box(attention::block_causal_backward(&grad, &clean, SHAPE, &rotary));
    });
    line("offset_block forward", LAYERS, 2.0 * flop, "GFLOP/s", || {
        black_box(attention::offset_block(&noised, (&clean, layout), SHAPE, &rotary));
    });
    let mut clean_grad = vec![0.0; clean.len()];
    line("offset_block backward", LAYERS, 4.0 * flop, "GFLOP/s", || {
        let clean = (&clean[..], layout);
        black_box(attention::offset_block_backward(&grad, &noised, clean, &mut clean_grad, (SHAPE, &rotary)));
    });
}

const OPTIMISER: AdamW =
    AdamW { lr: 1e-4, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, step: 10, clip: 0.5 };

struct Layer {
    norm: [Vec<f32>; 2],
    qkv: Vec<f32>,
    out: Vec<f32>,
    up: Vec<f32>,
    up_bias: Vec<f32>,
    down: Vec<f32>,
    down_bias: Vec<f32>,
    /// shift, scale, gate of attention, then of the MLP.
    modulation: [Vec<f32>; 6],
}

struct Parameters {
    table: Vec<f32>,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    head: Vec<f32>,
    head_bias: Vec<f32>,
}

impl Parameters {
    fn new() -> Self {
        let layer = |_| Layer {
            norm: [vec![1.0; D], vec![1.0; D]],
            qkv: random(3 * D * D, 0.1),
            out: random(D * D, 0.1),
            up: random(4 * D * D, 0.1),
            up_bias: random(4 * D, 0.1),
            down: random(4 * D * D, 0.05),
            down_bias: random(D, 0.1),
            modulation: std::array::from_fn(|_| random(D, 0.5)),
        };
        Self {
            table: random(VOCAB * D, 1.0),
            layers: (0..LAYERS).map(layer).collect(),
            norm: vec![1.0; D],
            head: random(VOCAB * D, 0.05),
            head_bias: random(VOCAB, 0.05),
        }
    }
}

/// What the backward pass of one stream through one layer needs.
#[derive(Default)]
struct Saved {
    x: Vec<f32>,
    mean: [Vec<f32>; 2],
    rstd: [Vec<f32>; 2],
    normed: [Vec<f32>; 2],
    qkv: Vec<f32>,
    mixed: Vec<f32>,
    attended: Vec<f32>,
    middle: Vec<f32>,
    z: Vec<f32>,
    activated: Vec<f32>,
    fed: Vec<f32>,
}

/// Gradients that sum over rows, one after the other, as they are made.
type Sums = Vec<Vec<f32>>;

impl Layer {
    fn modulation(&self, half: usize) -> Option<Modulation<'_>> {
        Some(Modulation { shift: &self.modulation[3 * half], scale: &self.modulation[3 * half + 1] })
    }

    fn branch<'a>(&'a self, half: usize, values: &'a [f32]) -> Branch<'a> {
        let bias = (half == 1).then_some(&self.down_bias[..]);
        Branch { values, bias, gate: Some(&self.modulation[3 * half + 2]), dropout: DROPOUT, d: D }
    }

    /// Norm and keys, values (and queries, if `weight` has them) of one stream.
    fn enter(&self, x: Vec<f32>, weight: &[f32]) -> Saved {
        let normed = norm_modulate_forward(&x, &self.norm[0], self.modulation(0));
        let qkv = linear_forward(&normed.y, weight, ROWS, Precision::F32);
        Saved {
            x,
            mean: [normed.mean, Vec::new()],
            rstd: [normed.rstd, Vec::new()],
            normed: [normed.y, Vec::new()],
            qkv,
            ..Saved::default()
        }
    }

    /// From the attention's output to the layer's.
    fn leave(&self, saved: &mut Saved, mixed: Vec<f32>) -> Vec<f32> {
        saved.mixed = mixed;
        saved.attended = linear_forward(&saved.mixed, &self.out, ROWS, Precision::F32);
        saved.middle = residual_forward(&saved.x, &self.branch(0, &saved.attended));
        let normed = norm_modulate_forward(&saved.middle, &self.norm[1], self.modulation(1));
        (saved.normed[1], saved.mean[1], saved.rstd[1]) = (normed.y, normed.mean, normed.rstd);
        saved.z = linear_forward(&saved.normed[1], &self.up, ROWS, Precision::F32);
        saved.activated = bias_gelu_forward(&saved.z, &self.up_bias);
        saved.fed = linear_forward(&saved.activated, &self.down, ROWS, Precision::F32);
        residual_forward(&saved.middle, &self.branch(1, &saved.fed))
    }

    /// From the gradient of the layer's output those of the residual stream at its start and of the attention's output.
    fn leave_backward(&self, grad: Vec<f32>, saved: &Saved, sums: &mut Sums) -> (Vec<f32>, Vec<f32>) {
        let fed = residual_backward(&grad, &self.branch(1, &saved.fed));
        let (dactivated, ddown) = linear_backward(&fed.values, &saved.activated, &self.down, ROWS, Precision::F32);
        let (dz, dbias) = bias_gelu_backward(&dactivated, &saved.z, &self.up_bias);
        let (dnormed, dup) = linear_backward(&dz, &saved.normed[1], &self.up, ROWS, Precision::F32);
        let statistics = (&saved.mean[1][..], &saved.rstd[1][..]);
        let norm = norm_modulate_backward(&dnormed, &saved.middle, statistics, &self.norm[1], self.modulation(1));
        let grad = sum(grad, &norm.x);
        let attended = residual_backward(&grad, &self.branch(0, &saved.attended));
        let (dmixed, dout) = linear_backward(&attended.values, &saved.mixed, &self.out, ROWS, Precision::F32);
        sums.extend([ddown, dbias, dup, norm.weight, dout]);
        (grad, dmixed)
    }

    fn enter_backward(&self, grad: Vec<f32>, dqkv: &[f32], weight: &[f32], saved: &Saved, sums: &mut Sums) -> Vec<f32> {
        let (dnormed, dweight) = linear_backward(dqkv, &saved.normed[0], weight, ROWS, Precision::F32);
        let statistics = (&saved.mean[0][..], &saved.rstd[0][..]);
        let norm = norm_modulate_backward(&dnormed, &saved.x, statistics, &self.norm[0], self.modulation(0));
        sums.extend([dweight, norm.weight]);
        if grad.is_empty() { norm.x } else { sum(grad, &norm.x) }
    }
}

fn sum(mut x: Vec<f32>, y: &[f32]) -> Vec<f32> {
    use rayon::prelude::*;
    x.par_chunks_mut(1 << 14)
        .zip(y.par_chunks(1 << 14))
        .for_each(|(x, y)| x.iter_mut().zip(y).for_each(|(x, y)| *x += y));
    x
}

/// Forward, backward and optimiser of the reference step.
fn step(params: &Parameters, state: &mut [Vec<f32>; 4], rotary: &Rotary) {
    let ids = ids(ROWS);
    let mut noised = embed_forward(&params.table, &ids, D);
    let mut clean = embed_forward(&params.table, &ids, D);
    let mut saved = Vec::with_capacity(LAYERS);
    for (i, layer) in params.layers.iter().enumerate() {
        let last = i + 1 == LAYERS;
        let (weight, layout) = clean_keys(layer, last);
        let (mut n, mut c) = (layer.enter(noised, &layer.qkv), layer.enter(clean, weight));
        let mixed = attention::offset_block(&n.qkv, (&c.qkv, layout), SHAPE, rotary);
        noised = layer.leave(&mut n, mixed);
        clean = Vec::new();
        if !last {
            let mixed = attention::block_causal(&c.qkv, SHAPE, rotary);
            clean = layer.leave(&mut c, mixed);
        }
        saved.push((n, c));
    }
    let x = &noised[..SCORED * D];
    let normed = norm_modulate_forward(x, &params.norm, None);
    let head = Head { weight: &params.head, bias: &params.head_bias, banned: Some(0), precision: Precision::F32 };
    let (nll, grads) = head_nll_and_grads(&normed.y, &ids[..SCORED], &[1.0; SCORED], head);
    black_box(nll);
    let norm = norm_modulate_backward(&grads.x, x, (&normed.mean, &normed.rstd), &params.norm, None);
    let mut sums = vec![grads.weight, grads.bias, norm.weight];
    let mut noised_grad = norm.x;
    noised_grad.resize(ROWS * D, 0.0);
    let mut clean_grad = Vec::new();
    for (i, layer) in params.layers.iter().enumerate().rev() {
        let last = i + 1 == LAYERS;
        let (n, c) = saved.pop().expect("one for each layer");
        let (weight, layout) = clean_keys(layer, last);
        let (dnoised, dmixed) = layer.leave_backward(noised_grad, &n, &mut sums);
        let mut dclean = vec![0.0; if last { c.qkv.len() } else { 0 }];
        let mut residual = Vec::new();
        if !last {
            let (grad, dmixed) = layer.leave_backward(clean_grad, &c, &mut sums);
            dclean = attention::block_causal_backward(&dmixed, &c.qkv, SHAPE, rotary);
            residual = grad;
        }
        let streams = (&c.qkv[..], layout);
        let dqkv = attention::offset_block_backward(&dmixed, &n.qkv, streams, &mut dclean, (SHAPE, rotary));
        noised_grad = layer.enter_backward(dnoised, &dqkv, &layer.qkv, &n, &mut sums);
        clean_grad = layer.enter_backward(residual, &dclean, weight, &c, &mut sums);
    }
    sums.push(embed_backward(&noised_grad, &ids, (VOCAB, D)));
    sums.push(embed_backward(&clean_grad, &ids, (VOCAB, D)));
    update(&sums, state);
}

/// In the last layer the clean stream has keys and values only.
fn clean_keys(layer: &Layer, last: bool) -> (&[f32], KeyValueLayout) {
    if last { (&layer.qkv[D * D..], KeyValueLayout::kv(D)) } else { (&layer.qkv, KeyValueLayout::qkv(D)) }
}

/// Norm and optimiser over as many numbers as the model has; which gradient meets which parameter costs nothing here.
fn update(grads: &Sums, state: &mut [Vec<f32>; 4]) {
    let norm = grads.iter().map(|g| square_sum(g)).sum::<f64>().sqrt();
    let settings = AdamW { clip: 1.0 / norm.max(1.0), ..OPTIMISER };
    let [param, m, v, ema] = state;
    let mut start = 0;
    for grad in grads {
        let at = start..(start + grad.len()).min(param.len());
        start = at.end;
        let ema = Some((&mut ema[at.clone()], 0.999));
        let slot = Slot { param: &mut param[at.clone()], m: &mut m[at.clone()], v: &mut v[at.clone()], ema };
        adamw(&settings, &grad[..at.len()], slot);
    }
}

fn steps() {
    let params = Parameters::new();
    let rotary = Rotary::new(SHAPE.length, SHAPE.head_dim, 10_000.0);
    let n = 10_240_000;
    let mut state = [random(n, 0.1), vec![0.0; n], vec![0.0; n], random(n, 0.1)];
    let (median, least) = time(9, || step(&params, &mut state, &rotary));
    let best = least_product();
    let linear = 6.0 * (ROWS * D * D) as f64 * (12 * (2 * LAYERS - 1) + 2) as f64;
    let pairs = (SHAPE.batch * SHAPE.heads * SHAPE.length * (SHAPE.length + SHAPE.block) / 2 * (2 * LAYERS - 1)) as f64;
    let useful = linear + 6.0 * (SCORED * D * VOCAB) as f64 + 12.0 * SHAPE.head_dim as f64 * pairs;
    let bound = useful * best / peak_flop();
    println!(
        "step: {:.0} ms, least {:.0} ms; useful {:.1} GFLOP; bound at {:.0} GFLOP/s {:.0} ms; share {:.2}, best {:.2}; {:.0} tokens/s",
        median * 1e3,
        least * 1e3,
        useful / 1e9,
        peak_flop() / best / 1e9,
        bound * 1e3,
        bound / median,
        bound / least,
        ROWS as f64 / median
    );
}
