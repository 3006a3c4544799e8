//! AdamW, or Muon for the matrices of the layers, with global-norm clipping and an exponential moving average, over all
//! parameters of a network, in place.

use burn::tensor::{Gradients, Tensor};

use crate::error::{Error, Result};
use crate::model::{Dit, ops};

pub use crate::model::fused::adamw::AdamW;
pub use crate::model::fused::muon::Muon;

/// One parameter's state, beside the parameter.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Published name.
    pub name: String,
    /// First moment.
    pub m: Tensor<2>,
    /// Second moment; Muon leaves it at 0.
    pub v: Tensor<2>,
    /// Moving average of the parameter.
    pub ema: Tensor<2>,
}

/// The optimiser's state.
#[derive(Clone, Debug)]
pub struct Optimizer {
    /// By parameter, in the order of [`Dit::visit`].
    pub slots: Vec<Slot>,
    /// Updates so far.
    pub updates: u64,
}

/// The settings of one update.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the moments.
    pub betas: [f64; 2],
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Bound of the global gradient norm; 0: none.
    pub max_norm: f64,
    /// Decay of the moving average, before its warm-up; 0: the average is the parameter itself.
    pub ema: f64,
    /// For the matrices of the layers, instead of AdamW.
    pub muon: Option<Momentum>,
}

/// What Muon has of its own.
#[derive(Clone, Copy, Debug)]
pub struct Momentum {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the momentum.
    pub momentum: f64,
}

impl Optimizer {
    /// A fresh state: moments 0, averages at the parameters.
    pub fn new(model: &Dit) -> Self {
        let mut slots = Vec::new();
        model.clone().visit(&mut |name, tensor| {
            let ema = tensor.clone().without_autodiff();
            let zeros = ema.zeros_like();
            slots.push(Slot { name: name.into(), m: zeros.clone(), v: zeros, ema });
        });
        Self { slots, updates: 0 }
    }

    /// One update from gradients in the order of the slots. Returns the global norm before clipping.
    ///
    /// # Errors
    /// A norm that is not finite, or that the device fails to give; then nothing is changed.
    pub fn update(&mut self, model: &mut Dit, grads: Vec<Tensor<2>>, update: &Update) -> Result<f64> {
        let form = model.form;
        let norm = grads.iter().map(|g| ops::square_sum(form, g)).sum::<Result<f64>>()?.sqrt();
        if !norm.is_finite() {
            return Err(Error::Diverged { step: self.updates + 1, what: "gradient norm", value: norm });
        }
        self.updates += 1;
        let clip = if update.max_norm > 0.0 { (update.max_norm / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let weight_decay = update.weight_decay;
        let settings = AdamW {
            lr: update.lr,
            beta1: update.betas[0],
            beta2: update.betas[1],
            eps: 1e-8,
            weight_decay,
            step: self.updates,
            clip,
        };
        let muon = |rows| update.muon.map(|Momentum { lr, momentum }| Muon { lr, momentum, weight_decay, clip, rows });
        let n = self.updates as f64;
        let decay = update.ema.min((1.0 + n) / (10.0 + n));
        let mut slots = self.slots.iter_mut().zip(grads);
        model.visit(&mut |name, tensor| {
            if let Some((slot, grad)) = slots.next() {
                let rows = matrix_rows(name, tensor.dims());
                step((tensor, grad), slot, |grad, state| match rows.and_then(&muon) {
                    Some(muon) => ops::muon(form, &muon, decay, grad, state),
                    None => ops::adamw(form, &settings, decay, grad, state),
                });
            }
        });
        Ok(norm)
    }

    /// A network with the averaged parameters, outside autodiff.
    pub fn averaged(&self, model: &Dit) -> Dit {
        let mut average = model.clone().without_autodiff();
        let mut slots = self.slots.iter();
        average.visit(&mut |_, tensor| {
            if let Some(slot) = slots.next() {
                *tensor = slot.ema.clone();
            }
        });
        average
    }
}

/// The rows of each matrix in a parameter that Muon moves: queries, keys and values are three.
fn matrix_rows(name: &str, [rows, cols]: [usize; 2]) -> Option<usize> {
    let (_, name) = name.strip_prefix("blocks.")?.split_once('.')?;
    match name {
        "attn_qkv.weight" => Some(cols),
        "attn_out.weight" | "mlp.0.weight" | "mlp.2.weight" => Some(rows),
        _ => None,
    }
}

fn step(
    (param, grad): (&mut Tensor<2>, Tensor<2>),
    slot: &mut Slot,
    rule: impl FnOnce(Tensor<2>, [Tensor<2>; 4]) -> [Tensor<2>; 4],
) {
    let leaf = std::mem::replace(param, Tensor::empty([1, 0], &param.device()));
    let state = [leaf.inner(), take(&mut slot.m), take(&mut slot.v), take(&mut slot.ema)];
    let [next, m, v, ema] = rule(grad, state);
    *param = Tensor::from_inner(next).require_grad();
    (slot.m, slot.v, slot.ema) = (m, v, ema);
}

/// Takes a tensor out of its place, so that it can be changed without a copy.
fn take(tensor: &mut Tensor<2>) -> Tensor<2> {
    std::mem::replace(tensor, Tensor::empty([1, 0], &tensor.device()))
}

/// The gradients of all parameters after a backward pass, zeros where one took no part, in the order of [`Dit::visit`].
pub fn gradients(model: &mut Dit, mut grads: Gradients) -> Vec<Tensor<2>> {
    let mut all = Vec::new();
    model.visit(&mut |_, tensor| {
        let grad = tensor.grad_remove(&mut grads);
        all.push(grad.unwrap_or_else(|| tensor.clone().inner().zeros_like()));
    });
    all
}
