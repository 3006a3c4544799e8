//! AdamW (Loshchilov and Hutter 2019) in one pass over a parameter, with clipping and the exponential moving average.
//!
//! As PyTorch computes it: weight decay first and decoupled, bias-corrected moments, epsilon outside the square root,
//! `p -= lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)`.

use rayon::prelude::*;

use super::simd::{LANES, mul_add, vectorised};

/// Elements that one task works on.
pub const CHUNK: usize = 1 << 14;

/// The settings of one step.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate of this step.
    pub lr: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Number of this step, counted from 1.
    pub step: u64,
    /// Multiplied into the gradient: 1, or max_norm / norm.
    pub clip: f64,
}

/// A parameter's state, updated in place; all slices have the parameter's length.
#[derive(Debug)]
pub struct Slot<'a> {
    /// The parameter.
    pub param: &'a mut [f32],
    /// First moment.
    pub m: &'a mut [f32],
    /// Second moment.
    pub v: &'a mut [f32],
    /// Moving average of the parameter and its decay in this step: `ema = decay * ema + (1 - decay) * param`.
    pub ema: Option<(&'a mut [f32], f64)>,
}

/// One step for one parameter.
pub fn adamw(settings: &AdamW, grad: &[f32], slot: Slot) {
    let Slot { param, m, v, ema } = slot;
    let n = param.len();
    assert_eq!((grad.len(), m.len(), v.len()), (n, n, n), "gradient and moments have the parameter's length");
    let factors = Factors::new(settings);
    let chunks = param.par_chunks_mut(CHUNK).zip(grad.par_chunks(CHUNK));
    let chunks = chunks.zip(m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK)));
    match ema {
        None => chunks.for_each(|((param, grad), (m, v))| update(factors, grad, param, m, v)),
        Some((ema, decay)) => {
            assert_eq!(ema.len(), n, "the moving average has the parameter's length");
            chunks.zip(ema.par_chunks_mut(CHUNK)).for_each(|(((param, grad), (m, v)), ema)| {
                update(factors, grad, param, m, v);
                average(ema, param, (1.0 - decay) as f32);
            });
        }
    }
}

/// The sum of squares, for the global norm: in f64, in chunks of a fixed size added in order.
pub fn square_sum(x: &[f32]) -> f64 {
    x.par_chunks(CHUNK).map(square_sum_chunk).collect::<Vec<_>>().iter().sum()
}

#[derive(Clone, Copy)]
struct Factors {
    clip: f32,
    keep: f32,
    rest1: f32,
    beta2: f32,
    rest2: f32,
    step: f32,
    root: f32,
    eps: f32,
}

impl Factors {
    fn new(s: &AdamW) -> Self {
        let t = s.step as f64;
        Self {
            clip: s.clip as f32,
            keep: (1.0 - s.lr * s.weight_decay) as f32,
            rest1: (1.0 - s.beta1) as f32,
            beta2: s.beta2 as f32,
            rest2: (1.0 - s.beta2) as f32,
            step: (s.lr / (1.0 - s.beta1.powf(t))) as f32,
            root: (1.0 / (1.0 - s.beta2.powf(t)).sqrt()) as f32,
            eps: s.eps as f32,
        }
    }
}

vectorised! {
    fn update(f: Factors, grad: &[f32], param: &mut [f32], m: &mut [f32], v: &mut [f32]) {
        let n = param.len();
        let (grad, m, v) = (&grad[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let g = grad[i] * f.clip;
            let first = mul_add::<FMA>(g - m[i], f.rest1, m[i]);
            let second = mul_add::<FMA>(g * g, f.rest2, v[i] * f.beta2);
            m[i] = first;
            v[i] = second;
            param[i] = param[i] * f.keep - f.step * first / mul_add::<FMA>(second.sqrt(), f.root, f.eps);
        }
    }
}

vectorised! {
    /// `ema` moved towards `param` by the share `rest`.
    pub fn average(ema: &mut [f32], param: &[f32], rest: f32) {
        for (ema, param) in ema.iter_mut().zip(param) {
            *ema = mul_add::<FMA>(param - *ema, rest, *ema);
        }
    }
}

vectorised! {
    fn square_sum_chunk(x: &[f32]) -> f64 {
        let mut lanes = [0f64; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for chunk in whole {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                let x = f64::from(*x);
                *lane += x * x;
            }
        }
        lanes.iter().sum::<f64>() + rest.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>()
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::{close, random, same_in_pools, wide};
    use super::*;

    fn settings(step: u64) -> AdamW {
        AdamW { lr: 3e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, step, clip: 0.5 }
    }

    #[test]
    fn steps_equal_the_definition() {
        let n = 1003;
        let mut param = random(n, 1);
        let (mut m, mut v, mut ema) = (vec![0.0; n], vec![0.0; n], param.clone());
        let (mut pw, mut mw, mut vw, mut ew) = (wide(&param), vec![0.0; n], vec![0.0; n], wide(&param));
        for step in 1..=4 {
            let s = settings(step);
            let mut grad = random(n, 10 + step);
            grad[..10].fill(0.0);
            adamw(&s, &grad, Slot { param: &mut param, m: &mut m, v: &mut v, ema: Some((&mut ema, 0.99)) });
            let t = step as i32;
            for i in 0..n {
                let g = f64::from(grad[i]) * s.clip;
                pw[i] *= 1.0 - s.lr * s.weight_decay;
                mw[i] = s.beta1 * mw[i] + (1.0 - s.beta1) * g;
                vw[i] = s.beta2 * vw[i] + (1.0 - s.beta2) * g * g;
                let root = (vw[i] / (1.0 - s.beta2.powi(t))).sqrt();
                pw[i] -= s.lr / (1.0 - s.beta1.powi(t)) * mw[i] / (root + s.eps);
                ew[i] = 0.99 * ew[i] + 0.01 * pw[i];
            }
        }
        close(&param, &pw, 1e-6);
        close(&m, &mw, 1e-6);
        close(&v, &vw, 1e-6);
        close(&ema, &ew, 1e-6);
    }

    #[test]
    fn sum_of_squares() {
        let x = random(50_001, 1);
        let want: f64 = wide(&x).iter().map(|x| x * x).sum();
        assert!((square_sum(&x) - want).abs() < 1e-9 * want);
        assert_eq!(square_sum(&[]), 0.0);
    }

    #[test]
    fn threads_do_not_change_a_bit() {
        let n = 50_001;
        let grad = random(n, 1);
        same_in_pools(|| {
            let (mut param, mut m, mut v) = (random(n, 2), random(n, 3), vec![0.1; n]);
            adamw(&settings(3), &grad, Slot { param: &mut param, m: &mut m, v: &mut v, ema: None });
            param.push(square_sum(&grad) as f32);
            param
        });
    }
}
