//! The hot operations composed from tensor operations: their definition. They run on any device and are what the fused
//! forms in `fused` are held to. All tensors are two-dimensional: `[rows, width]`, vectors `[1, width]`.

use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Bool, Int, Tensor, TensorData};

use super::Heads;
use super::fused::adamw::AdamW;
use super::fused::muon::{COEFFICIENTS, ITERATIONS, Muon};
use super::fused::residual::dropout_keep;
use super::ops::Branch;
use crate::arch::NORM_EPS;
use crate::block::{Half, Layout, Place, attends};

/// Rows of a table by id: `[ids, width]`.
pub fn gather(table: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    let index: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
    let index = Tensor::<1, Int>::from_data(TensorData::new(index, [ids.len()]), &table.device());
    table.select(0, index)
}

/// `x` `[rows, in]` times `weight` `[out, in]` transposed.
pub fn linear(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    x.matmul(weight.transpose())
}

/// Spreads `[groups, width]` over `rows` rows: each group serves rows / groups rows in turn.
fn spread(x: Tensor<2>, rows: usize) -> Tensor<2> {
    let [groups, width] = x.dims();
    x.reshape([groups, 1, width]).expand([groups, rows / groups, width]).reshape([rows, width])
}

/// Layer norm without bias, then scale and shift of the modulation: `LN(x) * weight * (1 + scale) + shift`.
pub fn norm(x: Tensor<2>, weight: Tensor<2>, modulation: Option<(Tensor<2>, Tensor<2>)>) -> Tensor<2> {
    let rows = x.dims()[0];
    let centred = x.clone() - x.mean_dim(1);
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    let normed = centred / (variance + NORM_EPS).sqrt() * weight;
    match modulation {
        Some((shift, scale)) => normed * (spread(scale, rows) + 1.0) + spread(shift, rows),
        None => normed,
    }
}

/// `gelu(z + bias)`, tanh approximation.
pub fn bias_gelu(z: Tensor<2>, bias: Tensor<2>) -> Tensor<2> {
    let z = z + bias;
    let inner = (z.clone() + z.clone().powf_scalar(3.0) * 0.044715) * (2.0 / std::f64::consts::PI).sqrt();
    z * (inner.tanh() + 1.0) * 0.5
}

/// `x + gate * dropout(branch + bias)`.
pub fn residual(x: Tensor<2>, branch: Branch) -> Tensor<2> {
    let [rows, width] = x.dims();
    let mut value = match branch.bias {
        Some(bias) => branch.value + bias,
        None => branch.value,
    };
    if branch.dropout.keep < 1.0 {
        let factors = dropout_keep(branch.dropout.key, branch.dropout.keep, 0..(rows * width) as u64);
        let factors = TensorData::new(factors, [rows, width]);
        value = value * Tensor::<2>::from_data(factors, &x.device());
    }
    match branch.gate {
        Some(gate) => x + spread(gate, rows) * value,
        None => x + value,
    }
}

/// Columns `index * d ..` of a stream as `[batch, heads, length, head_dim]`.
fn part(stream: &Tensor<2>, index: usize, heads: &Heads) -> Tensor<4> {
    let width = heads.count * heads.dim;
    let columns = stream.clone().narrow(1, index * width, width);
    columns.reshape([heads.batch, heads.length, heads.count, heads.dim]).swap_dims(1, 2)
}

/// Rotated queries of a stream `[batch * length, 3d]` (q|k|v).
fn queries(stream: &Tensor<2>, heads: &Heads) -> Tensor<4> {
    rotate(part(stream, 0, heads), heads)
}

/// Rotated keys, and values, of a stream (q|k|v) or (k|v).
fn keys_values(stream: &Tensor<2>, heads: &Heads) -> [Tensor<4>; 2] {
    let parts = stream.dims()[1] / (heads.count * heads.dim);
    [rotate(part(stream, parts - 2, heads), heads), part(stream, parts - 1, heads)]
}

/// Rotary embedding, rotate-half pairing (i, i + head_dim / 2), positions 0..length.
fn rotate(x: Tensor<4>, heads: &Heads) -> Tensor<4> {
    let half = heads.dim / 2;
    let table = |values: &[f32]| {
        Tensor::<4>::from_data(
            TensorData::new(values[..heads.length * half].to_vec(), [1, 1, heads.length, half]),
            &x.device(),
        )
    };
    let (cos, sin) = (table(heads.rotary.cos()), table(heads.rotary.sin()));
    let (low, high) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let rotated_low = low.clone() * cos.clone() - high.clone() * sin.clone();
    Tensor::cat(vec![rotated_low, high * cos + low * sin], 3)
}

/// Softmax attention; `allowed` is true where a query may look. Returns `[batch * length, d]`.
fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, allowed: &[bool], heads: &Heads) -> Tensor<2> {
    let keys = k.dims()[2];
    let shape = [heads.batch, heads.count, heads.length, keys];
    let scores = q.matmul(k.swap_dims(2, 3)) / (heads.dim as f64).sqrt();
    let refused: Vec<bool> = allowed.iter().map(|ok| !ok).collect();
    let refused = Tensor::<4, Bool>::from_data(TensorData::new(refused, [1, 1, heads.length, keys]), &scores.device());
    let weights = softmax(scores.mask_fill(refused.expand(shape), f32::NEG_INFINITY), 3);
    weights.matmul(v).swap_dims(1, 2).reshape([heads.batch * heads.length, heads.count * heads.dim])
}

fn mask(length: usize, block: usize, keys: &[Half], half: Half) -> Vec<bool> {
    let layout = Layout { length, size: block };
    let place = |half, position: usize| Place { half, block: position / layout.size };
    (0..length)
        .flat_map(|q| keys.iter().flat_map(move |&h| (0..length).map(move |k| attends(place(half, q), place(h, k)))))
        .collect()
}

/// A stream that sees its own blocks up to the query's: the clean half, or a model without halves.
pub fn block_causal(qkv: &Tensor<2>, heads: &Heads, block: usize) -> Tensor<2> {
    let [k, v] = keys_values(qkv, heads);
    attend(queries(qkv, heads), k, v, &mask(heads.length, block, &[Half::Clean], Half::Clean), heads)
}

/// The noised half: its own block, and the clean blocks strictly before it.
pub fn offset_block(noised: &Tensor<2>, clean: &Tensor<2>, heads: &Heads, block: usize) -> Tensor<2> {
    let q = queries(noised, heads);
    let [noised_k, noised_v] = keys_values(noised, heads);
    let [clean_k, clean_v] = keys_values(clean, heads);
    let k = Tensor::cat(vec![noised_k, clean_k], 2);
    let v = Tensor::cat(vec![noised_v, clean_v], 2);
    attend(q, k, v, &mask(heads.length, block, &[Half::Noised, Half::Clean], Half::Noised), heads)
}

/// `-log p(target)` per row, `[rows, 1]`, of `softmax(x weight^T + bias)` with one id banned.
pub fn head_nll(x: Tensor<2>, head: &[Tensor<2>; 2], targets: &[u32], banned: u32) -> Tensor<2> {
    let device = x.device();
    let logits = linear(x, head[0].clone()) + head[1].clone();
    let [rows, vocab] = logits.dims();
    let mut ban = vec![0f32; vocab];
    ban[banned as usize] = -1e30;
    let logits = logits + Tensor::<2>::from_data(TensorData::new(ban, [1, vocab]), &device);
    let targets: Vec<i32> = targets.iter().map(|&t| t as i32).collect();
    let targets = Tensor::<2, Int>::from_data(TensorData::new(targets, [rows, 1]), &device);
    -log_softmax(logits, 1).gather(1, targets)
}

/// One AdamW step (as PyTorch: decoupled decay first, eps outside the root) and one of the moving average.
pub fn adamw(s: &AdamW, decay: f64, grad: Tensor<2>, [param, m, v, ema]: [Tensor<2>; 4]) -> [Tensor<2>; 4] {
    let grad = grad * s.clip;
    let m = m * s.beta1 + grad.clone() * (1.0 - s.beta1);
    let v = v * s.beta2 + grad.clone() * grad * (1.0 - s.beta2);
    let t = s.step as f64;
    let root = (v.clone() / (1.0 - s.beta2.powf(t))).sqrt() + s.eps;
    let param = param * (1.0 - s.lr * s.weight_decay) - m.clone() / root * (s.lr / (1.0 - s.beta1.powf(t)));
    let ema = ema * decay + param.clone() * (1.0 - decay);
    [param, m, v, ema]
}

/// One Muon step, and one of the moving average; see [`super::fused::muon`].
pub fn muon(s: &Muon, decay: f64, grad: Tensor<2>, [param, m, v, ema]: [Tensor<2>; 4]) -> [Tensor<2>; 4] {
    let rows = s.rows;
    let grad = grad * s.clip;
    let m = m * s.momentum + grad.clone();
    let [keep, step] = s.factors([rows, param.dims()[1]]);
    let direction = (grad + m.clone() * s.momentum).split(rows, 0).into_iter().map(orthogonal).collect();
    let param = param * keep - Tensor::cat(direction, 0) * step;
    let ema = ema * decay + param.clone() * (1.0 - decay);
    [param, m, v, ema]
}

/// A matrix with the same singular vectors whose singular values are near 1.
fn orthogonal(x: Tensor<2>) -> Tensor<2> {
    let [a, b, c] = COEFFICIENTS;
    let norm = (x.clone() * x.clone()).sum().sqrt().reshape([1, 1]) + 1e-7;
    let mut x = x / norm;
    for _ in 0..ITERATIONS {
        let s = x.clone().matmul(x.clone().transpose());
        let polynomial = s.clone() * b + s.clone().matmul(s) * c;
        x = x.clone() * a + polynomial.matmul(x);
    }
    x
}
