//! The hot operations of the network, each a choice between its composed and its fused form.

use burn::tensor::{Device, Tensor, TensorData};

use super::{Dropout, Form, Heads, composed};
use crate::error::{Error, Result};

/// The quickest form that the device has.
pub fn best_form(_device: &Device) -> Form {
    Form::Composed
}

/// A tensor's numbers, row major.
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
pub fn gather(_form: Form, table: Tensor<2>, ids: &[u32]) -> Tensor<2> {
    composed::gather(table, ids)
}

/// `x` `[rows, in]` times `weight` `[out, in]` transposed.
pub fn linear(_form: Form, x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    composed::linear(x, weight)
}

/// `LN(x) * weight * (1 + scale) + shift`.
pub fn norm(_form: Form, x: Tensor<2>, weight: Tensor<2>, modulation: Option<(Tensor<2>, Tensor<2>)>) -> Tensor<2> {
    composed::norm(x, weight, modulation)
}

/// `gelu(z + bias)`, tanh approximation.
pub fn bias_gelu(_form: Form, z: Tensor<2>, bias: Tensor<2>) -> Tensor<2> {
    composed::bias_gelu(z, bias)
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
    pub dropout: Option<Dropout>,
}

/// `x + gate * dropout(branch + bias)`.
pub fn residual(_form: Form, x: Tensor<2>, branch: Branch) -> Tensor<2> {
    composed::residual(x, branch)
}

/// Attention of a stream that sees blocks up to the query's.
pub fn block_causal(_form: Form, qkv: Tensor<2>, heads: &Heads, block: usize) -> Tensor<2> {
    composed::block_causal(qkv, heads, block)
}

/// Attention of the noised stream: its own block, and the clean blocks strictly before it.
pub fn offset_block(_form: Form, noised: Tensor<2>, clean: Tensor<2>, heads: &Heads, block: usize) -> Tensor<2> {
    composed::offset_block(noised, clean, heads, block)
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
/// every row.
pub fn head_nll(
    _form: Form,
    x: Tensor<2>,
    head: &[Tensor<2>; 2],
    targets: &Targets<'_>,
) -> Result<(Tensor<2>, Vec<f32>)> {
    let nll = composed::head_nll(x, head, targets.ids, targets.banned);
    let weights = TensorData::new(targets.weights.clone(), nll.dims());
    let loss = (nll.clone() * Tensor::<2>::from_data(weights, &nll.device())).sum().reshape([1, 1]);
    Ok((loss, to_vec(nll)?))
}
