//! An operation of our own with its own backward, on the CPU: the bridge between a tensor of the tensor library and the pure
//! functions on slices in `fused`. It is the only place that knows the library's autodiff internals.

use std::fmt;
use std::sync::Arc;

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Flex};
use burn::tensor::{Tensor, TensorData};

/// A tensor of the CPU backend.
pub type Host = FloatTensor<Flex>;
type Tracked = FloatTensor<Autodiff<Flex>>;

/// The gradient of one input.
pub enum Grad {
    /// It takes part in no gradient.
    None,
    /// The output's gradient itself.
    Same,
    /// These numbers, laid out like the input.
    New(Vec<f32>),
}

/// What an operation gives: its result `[rows, width]`, and how the result's gradient becomes that of every input.
pub struct Made<F> {
    data: Vec<f32>,
    shape: [usize; 2],
    backward: F,
}

impl<F> Made<F> {
    /// A result, its shape and its backward function.
    pub fn new<const N: usize>(data: Vec<f32>, shape: [usize; 2], backward: F) -> Self
    where
        F: Fn([&[f32]; N], &[f32]) -> [Grad; N],
    {
        Self { data, shape, backward }
    }
}

/// Runs `forward` on the inputs' numbers; where they are tracked, remembers `backward` for the backward pass.
///
/// # Panics
/// If an input is not on the CPU backend: the caller chooses this form by device.
pub fn custom<const N: usize, F>(inputs: [Tensor<2>; N], forward: impl FnOnce([&[f32]; N]) -> Made<F>) -> Tensor<2>
where
    F: Fn([&[f32]; N], &[f32]) -> [Grad; N] + Send + Sync + 'static,
{
    if !inputs[0].is_autodiff() {
        let hosts = inputs.map(host);
        let made = forward(hosts.each_ref().map(numbers));
        return Tensor::from_data(TensorData::new(made.data, made.shape), &burn::tensor::Device::flex());
    }
    let (hosts, nodes) = unzip(inputs.map(tracked).map(|t| {
        let (primitive, node) = t.into_parts();
        (primitive.to_contiguous(), node)
    }));
    let made = forward(hosts.each_ref().map(numbers));
    let output = Host::from_data(TensorData::new(made.data, made.shape));
    let primitive: Tracked = match Remembered.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            prepared.finish(State { inputs: hosts, backward: Arc::new(made.backward) }, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(primitive)
}

/// The CPU tensor behind an untracked tensor, contiguous.
pub fn host(tensor: Tensor<2>) -> Host {
    match tensor.try_into_primitive::<Flex>() {
        Ok(primitive) => primitive.to_contiguous(),
        Err(e) => unreachable!("a fused operation on another device: {e:?}"),
    }
}

/// An untracked tensor from a CPU tensor.
pub fn from_host(host: Host) -> Tensor<2> {
    Tensor::from_primitive::<Flex>(host)
}

fn tracked(tensor: Tensor<2>) -> Tracked {
    match tensor.try_into_primitive::<Autodiff<Flex>>() {
        Ok(primitive) => primitive,
        Err(e) => unreachable!("a fused operation on another device: {e:?}"),
    }
}

/// The numbers of a contiguous CPU tensor.
pub fn numbers(host: &Host) -> &[f32] {
    host.as_slice::<f32>().unwrap_or_else(|| unreachable!("made contiguous before"))
}

fn unzip<const N: usize, A, B>(pairs: [(A, B); N]) -> ([A; N], [B; N]) {
    let mut second = Vec::with_capacity(N);
    let first = pairs.map(|(a, b)| {
        second.push(b);
        a
    });
    let second = second.try_into().unwrap_or_else(|_| unreachable!("as many as there are pairs"));
    (first, second)
}

type BackwardFn<const N: usize> = dyn Fn([&[f32]; N], &[f32]) -> [Grad; N] + Send + Sync;

#[derive(Clone)]
struct State<const N: usize> {
    inputs: [Host; N],
    backward: Arc<BackwardFn<N>>,
}

impl<const N: usize> fmt::Debug for State<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("inputs", &self.inputs).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Remembered;

impl<const N: usize> Backward<Flex, N> for Remembered {
    type State = State<N>;

    fn backward(self, ops: Ops<State<N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let State { inputs, backward } = ops.state;
        let input_grads = backward(inputs.each_ref().map(numbers), numbers(&grad));
        for ((parent, input), input_grad) in ops.parents.into_iter().zip(&inputs).zip(input_grads) {
            let Some(node) = parent else { continue };
            match input_grad {
                Grad::None => {}
                Grad::Same => grads.register::<Flex>(node.id, grad.clone()),
                Grad::New(data) => {
                    let shape = input.layout().shape().clone();
                    grads.register::<Flex>(node.id, Host::from_data(TensorData::new(data, shape)));
                }
            }
        }
    }
}
