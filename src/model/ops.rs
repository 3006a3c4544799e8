//! The hot operations of the network, each a choice between its composed and its fused form.

use std::sync::Mutex;

use burn::tensor::{Device, Tensor, TensorData};

use super::custom::{Grad, Made, custom, from_host, host, numbers};
use super::fused::adamw::{self, AdamW};
use super::fused::attention::{self, KeyValueLayout};
use super::fused::head::{self, Head, HeadGrads};
use super::fused::muon::{self, Muon};
use super::fused::norm::{self, Normed};
use super::fused::{self, embed, gelu, matmul};
use super::{Dropout, Form, Heads, Precision, composed};
use crate::error::{Error, Result};

/// The quickest form that the device has.
pub fn best_form(device: &Device) -> Form {
    let inner = device.clone().inner();
    if inner == Device::flex() { Form::Fused(Precision::F32) } else { Form::Composed }
}

/// A tensor's numbers, row major.
///
/// # Errors
/// When the device fails, to compute them or to give them.
pub fn to_vec(tensor: Tensor<2>) -> Result<Vec<f32>> {
    let data = tensor.try_into_data_as::<f32>().map_err(|e| Error::Run(format!("reading a tensor: {e:?}")))?;
    data.try_into_vec::<f32>().map_err(|e| Error::Run(format!("reading a tensor: {e:?}")))
}

/// Shift, scale and gate of a layer's branches, or of the output layer: columns of `adaLN(c)`, each `[groups, d]`.
#[derive(Clone, Debug)]
pub struct Modulation {
    columns: Option<Tensor<2>>,
    width: usize,
}

impl Modulation {
    /// `c weight^T + bias`, or nothing for a network without modulation; `width` is d.
    pub fn of(map: Option<&[Tensor<2>; 2]>, conditioning: Option<&Tensor<2>>, width: usize) -> Self {
        let columns = map
            .zip(conditioning)
            .map(|([weight, bias], c)| c.clone().matmul(weight.clone().transpose()) + bias.clone());
        Self { columns, width }
    }

    fn column(&self, index: usize) -> Option<Tensor<2>> {
        Some(self.columns.as_ref()?.clone().narrow(1, index * self.width, self.width))
    }

    /// Shift and scale of a branch: 0 attention (or the output layer), 1 feed-forward.
    pub fn part(&self, branch: usize) -> Option<(Tensor<2>, Tensor<2>)> {
        Some((self.column(branch * 3)?, self.column(branch * 3 + 1)?))
    }

    /// Gate of a branch.
    pub fn gate(&self, branch: usize) -> Option<Tensor<2>> {
        self.column(branch * 3 + 2)
    }
}

/// Rows of a table by id: `[ids, width]`.
pub fn gather(form: Form, table: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    if form == Form::Composed {
        return composed::gather(table, ids);
    }
    let [count, width] = table.dims();
    custom([table], |[table]| {
        let data = embed::embed_forward(table, ids, width);
        let ids = ids.to_vec();
        let shape = [ids.len(), width];
        Made::new(data, shape, move |[_], grad| [Grad::New(embed::embed_backward(grad, &ids, (count, width)))])
    })
}

/// `x` `[rows, in]` times `weight` `[out, in]` transposed.
pub fn linear(form: Form, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let Form::Fused(precision) = form else { return composed::linear(x, weight) };
    let ([rows, _], [out, _]) = (x.dims(), weight.dims());
    custom([x, weight], |[x, weight]| {
        Made::new(matmul::linear_forward(x, weight, rows, precision), [rows, out], move |[x, weight], grad| {
            let (dx, dweight) = matmul::linear_backward(grad, x, weight, rows, precision);
            [Grad::New(dx), Grad::New(dweight)]
        })
    })
}

/// `LN(x) * weight * (1 + scale) + shift`.
pub fn norm(form: Form, x: Tensor<2>, weight: Tensor<2>, modulation: Option<(Tensor<2>, Tensor<2>)>) -> Tensor<2> {
    if form == Form::Composed {
        return composed::norm(x, weight, modulation);
    }
    let shape = x.dims();
    let Some((shift, scale)) = modulation else {
        return custom([x, weight], |[x, weight]| {
            let Normed { y, mean, rstd } = norm::norm_modulate_forward(x, weight, None);
            Made::new(y, shape, move |[x, weight], grad| {
                let grads = norm::norm_modulate_backward(grad, x, (&mean, &rstd), weight, None);
                [Grad::New(grads.x), Grad::New(grads.weight)]
            })
        });
    };
    custom([x, weight, shift, scale], |[x, weight, shift, scale]| {
        let modulation = norm::Modulation { shift, scale };
        let Normed { y, mean, rstd } = norm::norm_modulate_forward(x, weight, Some(modulation));
        Made::new(y, shape, move |[x, weight, shift, scale], grad| {
            let modulation = Some(norm::Modulation { shift, scale });
            let grads = norm::norm_modulate_backward(grad, x, (&mean, &rstd), weight, modulation);
            let (dshift, dscale) = grads.modulation.unwrap_or_default();
            [Grad::New(grads.x), Grad::New(grads.weight), Grad::New(dshift), Grad::New(dscale)]
        })
    })
}

/// `gelu(z + bias)`, tanh approximation.
pub fn bias_gelu(form: Form, z: Tensor<2>, bias: Tensor<2>) -> Tensor<2> {
    if form == Form::Composed {
        return composed::bias_gelu(z, bias);
    }
    let shape = z.dims();
    custom([z, bias], |[z, bias]| {
        Made::new(gelu::bias_gelu_forward(z, bias), shape, |[z, bias], grad| {
            let (dz, dbias) = gelu::bias_gelu_backward(grad, z, bias);
            [Grad::New(dz), Grad::New(dbias)]
        })
    })
}

/// What joins a residual stream: `gate * dropout(branch + bias)`.
pub struct Branch {
    /// The branch's output map, `[rows, d]`.
    pub value: Tensor<2>,
    /// Its bias.
    pub bias: Option<Tensor<2>>,
    /// Its gate, `[groups, d]`.
    pub gate: Option<Tensor<2>>,
    /// Its dropout.
    pub dropout: Dropout,
}

/// `x + gate * dropout(branch + bias)`.
pub fn residual(form: Form, x: Tensor<2>, branch: Branch) -> Tensor<2> {
    if form == Form::Composed {
        return composed::residual(x, branch);
    }
    let Branch { value, bias, gate, dropout } = branch;
    let shape = x.dims();
    // An absent bias or gate is an empty input, so that one operation serves all four cases.
    let device = x.device();
    let absent = || Tensor::<2>::empty([1, 0], &device);
    let inputs = [x, value, bias.unwrap_or_else(absent), gate.unwrap_or_else(absent)];
    custom(inputs, |[x, values, bias, gate]| {
        let data = fused::residual::residual_forward(x, &joined([values, bias, gate], dropout, shape[1]));
        Made::new(data, shape, move |[_, values, bias, gate], grad| {
            let grads = fused::residual::residual_backward(grad, &joined([values, bias, gate], dropout, shape[1]));
            let optional = |grad: Option<Vec<f32>>| grad.map_or(Grad::None, Grad::New);
            [Grad::Same, Grad::New(grads.values), optional(grads.bias), optional(grads.gate)]
        })
    })
}

/// A branch of width `d` as the fused operation wants it; an empty bias or gate is none.
fn joined([values, bias, gate]: [&[f32]; 3], dropout: Dropout, d: usize) -> fused::residual::Branch<'_> {
    let present = |x| Some(x).filter(|x: &&[f32]| !x.is_empty());
    fused::residual::Branch { values, bias: present(bias), gate: present(gate), dropout, d }
}

/// Attention of a stream that sees blocks up to the query's.
pub fn block_causal(form: Form, qkv: Tensor<2>, heads: &Heads, block: usize) -> Tensor<2> {
    if form == Form::Composed {
        return composed::block_causal(&qkv, heads, block);
    }
    let (shape, rotary) = (heads.shape(block), heads.rotary.clone());
    let [rows, columns] = qkv.dims();
    custom([qkv], |[qkv]| {
        Made::new(attention::block_causal(qkv, shape, &rotary), [rows, columns / 3], move |[qkv], grad| {
            [Grad::New(attention::block_causal_backward(grad, qkv, shape, &rotary))]
        })
    })
}

/// Attention of the noised stream: its own block, and the clean blocks strictly before it. `clean` is a stream (q|k|v) or its keys and
/// values alone (k|v).
pub fn offset_block(form: Form, noised: Tensor<2>, clean: Tensor<2>, heads: &Heads, block: usize) -> Tensor<2> {
    if form == Form::Composed {
        return composed::offset_block(&noised, &clean, heads, block);
    }
    let (shape, rotary) = (heads.shape(block), heads.rotary.clone());
    let [rows, columns] = noised.dims();
    let width = columns / 3;
    let layout = if clean.dims()[1] == columns { KeyValueLayout::qkv(width) } else { KeyValueLayout::kv(width) };
    custom([noised, clean], |[noised, clean]| {
        let data = attention::offset_block(noised, (clean, layout), shape, &rotary);
        Made::new(data, [rows, width], move |[noised, clean], grad| {
            let mut dclean = vec![0.0; clean.len()];
            let clean = (clean, layout);
            let dnoised = attention::offset_block_backward(grad, noised, clean, &mut dclean, (shape, &rotary));
            [Grad::New(dnoised), Grad::New(dclean)]
        })
    })
}

/// What the head is asked for each row.
pub struct Targets<'a> {
    /// The token each row should predict.
    pub ids: &'a [u32],
    /// The factor of each row's `-log p` in the loss.
    pub weights: Vec<f32>,
    /// The id that no row can predict: the mask.
    pub banned: u32,
}

/// Output map and cross entropy in one: the loss `sum weight * -log p(target)` as a scalar `[1, 1]`, and `-log p(target)` of
/// every row in nats.
///
/// # Errors
/// As [`to_vec`], in the composed form alone.
pub fn head_nll(
    form: Form,
    x: Tensor<2>,
    head: &[Tensor<2>; 2],
    targets: &Targets<'_>,
) -> Result<(Tensor<2>, Vec<f64>)> {
    let Targets { ids, weights, banned } = targets;
    let Form::Fused(precision) = form else {
        let nll = composed::head_nll(x, head, ids, *banned);
        let weights = TensorData::new(weights.clone(), nll.dims());
        let loss = (nll.clone() * Tensor::<2>::from_data(weights, &nll.device())).sum().reshape([1, 1]);
        return Ok((loss, to_vec(nll)?.into_iter().map(f64::from).collect()));
    };
    let mut nll = Vec::new();
    let differentiated = x.is_autodiff();
    let loss = custom([x, head[0].clone(), head[1].clone()], |[x, weight, bias]| {
        let head = Head { weight, bias, banned: Some(*banned), precision };
        // The gradients are made while a chunk of logits is in the cache; the backward pass only scales them.
        let grads = if differentiated {
            let (losses, grads) = head::head_nll_and_grads(x, ids, weights, head);
            nll = losses;
            Some(Mutex::new(grads))
        } else {
            nll = head::head_nll(x, ids, head);
            None
        };
        let total: f64 = nll.iter().zip(weights).map(|(nll, &weight)| nll * f64::from(weight)).sum();
        Made::new(vec![total as f32], [1, 1], move |[_, _, _], grad| {
            let scaled = |values: Vec<f32>| Grad::New(values.into_iter().map(|g| g * grad[0]).collect());
            let taken = grads.as_ref().and_then(|g| Some(std::mem::take(&mut *g.lock().ok()?)));
            let HeadGrads { x, weight, bias } = taken.unwrap_or_default();
            [scaled(x), scaled(weight), scaled(bias)]
        })
    });
    Ok((loss, nll))
}

/// The sum of a tensor's squares.
///
/// # Errors
/// As [`to_vec`], in the composed form alone.
pub fn square_sum(form: Form, x: &Tensor<2>) -> Result<f64> {
    if form != Form::Composed {
        return Ok(adamw::square_sum(numbers(&host(x.clone()))));
    }
    Ok(to_vec((x.clone() * x.clone()).sum().reshape([1, 1]))?.into_iter().map(f64::from).sum())
}

/// One AdamW step and one of the moving average: `[param, m, v, ema]` to the same. In place where nobody else holds them.
pub fn adamw(form: Form, settings: &AdamW, decay: f64, grad: Tensor<2>, state: [Tensor<2>; 4]) -> [Tensor<2>; 4] {
    if form == Form::Composed {
        return composed::adamw(settings, decay, grad, state);
    }
    let grad = host(grad);
    let mut state = state.map(host);
    let [param, m, v, ema] = state.each_mut().map(|t| t.storage_mut::<f32>());
    adamw::adamw(settings, numbers(&grad), adamw::Slot { param, m, v, ema: Some((ema, decay)) });
    state.map(from_host)
}

/// One Muon step and one of the moving average: `[param, m, v, ema]` to the same, v unused.
pub fn muon(form: Form, settings: &Muon, decay: f64, grad: Tensor<2>, state: [Tensor<2>; 4]) -> [Tensor<2>; 4] {
    let Form::Fused(precision) = form else { return composed::muon(settings, decay, grad, state) };
    let cols = grad.dims()[1];
    let grad = host(grad);
    let mut state = state.map(host);
    let [param, m, v, ema] = state.each_mut().map(|t| t.storage_mut::<f32>());
    let slot = adamw::Slot { param, m, v, ema: Some((ema, decay)) };
    muon::muon(settings, numbers(&grad), slot, cols, precision);
    state.map(from_host)
}
