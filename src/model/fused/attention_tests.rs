//! Attention against its definition in f64 with a dense mask.

use super::super::check::{close, inner, numeric_gradient, random, same_in_pools, wide};
use super::*;

/// The definition over two streams of `[rows, 3d]`; `sees(query, key stream, key)` within a sequence of length L.
struct Reference {
    shape: Shape,
    offset: bool,
}

impl Reference {
    fn sees(&self, query: usize, own: bool, key: usize) -> bool {
        let (query, key) = (query / self.shape.block, key / self.shape.block);
        match (self.offset, own) {
            (false, own) => own && key <= query,
            (true, true) => key == query,
            (true, false) => key < query,
        }
    }

    fn turned(&self, row: &[f64], section: usize, head: usize, position: usize) -> Vec<f64> {
        let Shape { heads, head_dim, .. } = self.shape;
        let x = &row[(section * heads + head) * head_dim..][..head_dim];
        let half = head_dim / 2;
        let angle = |i: usize| position as f64 * 10_000f64.powf(-2.0 * i as f64 / head_dim as f64);
        let lower = (0..half).map(|i| x[i] * angle(i).cos() - x[i + half] * angle(i).sin());
        lower.chain((0..half).map(|i| x[i + half] * angle(i).cos() + x[i] * angle(i).sin())).collect()
    }

    fn run(&self, own: &[f64], past: &[f64]) -> Vec<f64> {
        let Shape { batch, length, heads, head_dim, .. } = self.shape;
        let width = 3 * heads * head_dim;
        let mut out = Vec::new();
        for (sequence, query, head) in
            (0..batch * length * heads).map(|i| (i / heads / length, i / heads % length, i % heads))
        {
            let row = |stream: &'_ [f64], i: usize| stream[(sequence * length + i) * width..][..width].to_vec();
            let q = self.turned(&row(own, query), 0, head, query);
            let (mut total, mut sum) = (0.0, vec![0.0; head_dim]);
            for (stream, is_own) in [(own, true), (past, false)] {
                for key in (0..length).filter(|key| self.sees(query, is_own, *key)) {
                    let row = row(stream, key);
                    let k = self.turned(&row, 1, head, key);
                    let score = q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / (head_dim as f64).sqrt();
                    let weight = score.exp();
                    total += weight;
                    let values = &row[(2 * heads + head) * head_dim..][..head_dim];
                    sum.iter_mut().zip(values).for_each(|(sum, v)| *sum += weight * v);
                }
            }
            out.extend(sum.iter().map(|s| s / total));
        }
        out
    }
}

/// (k|v) of rows (q|k|v).
fn key_values(qkv: &[f32], d: usize) -> Vec<f32> {
    qkv.chunks(3 * d).flat_map(|row| &row[d..]).copied().collect()
}

fn shapes() -> Vec<Shape> {
    let shape = |batch, length, heads, head_dim, block| Shape { batch, length, heads, head_dim, block };
    vec![shape(2, 6, 2, 2, 1), shape(1, 6, 1, 4, 3), shape(1, 8, 1, 2, 8), shape(1, 18, 1, 2, 2)]
}

#[test]
fn small_shapes_forward_and_backward() {
    for shape in shapes() {
        let d = shape.width();
        let rotary = Rotary::new(shape.length, shape.head_dim, 10_000.0);
        let (noised, clean) = (random(shape.rows() * 3 * d, 1), random(shape.rows() * 3 * d, 2));
        let grad = random(shape.rows() * d, 3);
        let (nw, cw) = (wide(&noised), wide(&clean));
        let causal = Reference { shape, offset: false };
        close(&block_causal(&clean, shape, &rotary), &causal.run(&cw, &cw), 1e-5);
        let want = numeric_gradient(&cw, |x| inner(&causal.run(x, x), &grad));
        close(&block_causal_backward(&grad, &clean, shape, &rotary), &want, 1e-4);

        let offset = Reference { shape, offset: true };
        let layout = KeyValueLayout::qkv(d);
        close(&offset_block(&noised, (&clean, layout), shape, &rotary), &offset.run(&nw, &cw), 1e-5);
        let mut dclean = vec![0.5; clean.len()];
        let dnoised = offset_block_backward(&grad, &noised, (&clean, layout), &mut dclean, (shape, &rotary));
        close(&dnoised, &numeric_gradient(&nw, |x| inner(&offset.run(x, &cw), &grad)), 1e-4);
        let want = numeric_gradient(&cw, |x| inner(&offset.run(&nw, x), &grad) + 0.5 * x.iter().sum::<f64>());
        close(&dclean, &want, 1e-4);

        let kv = key_values(&clean, d);
        let mut dkv = vec![0.5; kv.len()];
        let layout = KeyValueLayout::kv(d);
        let again = offset_block_backward(&grad, &noised, (&kv, layout), &mut dkv, (shape, &rotary));
        assert_eq!((again, dkv), (dnoised, key_values(&dclean, d)));
    }
}

/// Sizes that need several tiles: forward against the definition, backward against a directional derivative.
#[test]
fn large_shapes() {
    for (length, block) in
        [(130, 1), (130, 13), (200, 100), (96, 4), (240, 24), (128, 16), (150, 150), (160, 80), (120, 40)]
    {
        let shape = Shape { batch: 2, length, heads: 3, head_dim: 8, block };
        let d = shape.width();
        let rotary = Rotary::new(length, 8, 10_000.0);
        let streams = [random(shape.rows() * 3 * d, 1), random(shape.rows() * 3 * d, 2)];
        let steps = [random(shape.rows() * 3 * d, 4), random(shape.rows() * 3 * d, 5)];
        let grad = random(shape.rows() * d, 3);
        let along = |stream: usize, t: f64| -> Vec<f64> {
            let step = wide(&steps[stream]);
            wide(&streams[stream]).iter().zip(step).map(|(x, step)| x + t * step).collect()
        };
        let dot = |g: &[f32], step: &[f32]| inner(&wide(g), step);
        for offset in [false, true] {
            let reference = Reference { shape, offset };
            let at = |t: f64| reference.run(&along(0, t), &along(1, t));
            let slope = (inner(&at(1e-5), &grad) - inner(&at(-1e-5), &grad)) / 2e-5;
            let layout = KeyValueLayout::qkv(d);
            let (out, got) = if offset {
                let mut dclean = vec![0.0; streams[1].len()];
                let clean = (&streams[1][..], layout);
                let dnoised = offset_block_backward(&grad, &streams[0], clean, &mut dclean, (shape, &rotary));
                let got = dot(&dnoised, &steps[0]) + dot(&dclean, &steps[1]);
                (offset_block(&streams[0], clean, shape, &rotary), got)
            } else {
                let dqkv = block_causal_backward(&grad, &streams[0], shape, &rotary);
                (block_causal(&streams[0], shape, &rotary), dot(&dqkv, &steps[0]))
            };
            close(&out, &at(0.0), 1e-5);
            assert!(
                (got - slope).abs() < 1e-3 * slope.abs().max(1.0),
                "{length} {block} {offset}: {got}, expected {slope}"
            );
        }
    }
}

#[test]
fn large_scores_stay_finite() {
    let shape = Shape { batch: 1, length: 32, heads: 1, head_dim: 8, block: 4 };
    let rotary = Rotary::new(32, 8, 10_000.0);
    let qkv: Vec<f32> = random(32 * 24, 1).iter().map(|x| 1e3 * x).collect();
    let grad = random(32 * 8, 2);
    assert!(block_causal(&qkv, shape, &rotary).iter().all(|x| x.is_finite()));
    assert!(block_causal_backward(&grad, &qkv, shape, &rotary).iter().all(|x| x.is_finite()));
}

#[test]
fn threads_do_not_change_a_bit() {
    let shape = Shape { batch: 2, length: 96, heads: 3, head_dim: 8, block: 16 };
    let rotary = Rotary::new(96, 8, 10_000.0);
    let (noised, clean) = (random(192 * 72, 1), random(192 * 72, 2));
    let grad = random(192 * 24, 3);
    same_in_pools(|| {
        let mut dclean = block_causal_backward(&grad, &clean, shape, &rotary);
        let layout = KeyValueLayout::qkv(24);
        let dnoised = offset_block_backward(&grad, &noised, (&clean, layout), &mut dclean, (shape, &rotary));
        let out = offset_block(&noised, (&clean, layout), shape, &rotary);
        [dnoised, dclean, out, block_causal(&clean, shape, &rotary)].concat()
    });
}
