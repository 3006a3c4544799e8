//! The executor: packed weights, an exact cache, passes over a few rows near the limit of the machine. The same network as `model`,
//! without gradients and without the tensor library; laws compare the two. It runs both shapes of [`Arch`], answers proposals,
//! and decides nothing.
//!
//! From below: `simd` the instructions, `panel` how weights lie, `product` rows by panels, `team` the threads, `attention` over
//! `cache`, `rows` what stands between products, `plan` which rows there are, `pass` all of it in order, `head` from logits to
//! proposals.

mod attention;
mod cache;
mod head;
mod panel;
mod pass;
mod plan;
pub mod product;
mod quants;
mod rows;
pub mod simd;
mod team;
mod weights;

use std::sync::Mutex;

use cache::Kind;
pub use cache::{KeyValues, Precision};
use pass::{Machine, Scratch, WIDEST_HEAD};
use simd::Isa;
use team::Team;
use weights::Weights;

use crate::arch::{Arch, Objective};
use crate::error::{Error, Result};
use crate::format::Stored;
use crate::pass::{Denoiser, Lane, Proposal};

/// How an engine runs.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Threads that work on a pass; 0 means one for each core.
    pub threads: usize,
    /// f32 throughout: no quantised activations, no half-precision cache.
    pub exact: bool,
    /// The instructions to use; `None`: the machine's best.
    pub isa: Option<Isa>,
}

impl Default for Options {
    fn default() -> Self {
        Self { threads: 0, exact: false, isa: None }
    }
}

/// A network ready to decode.
pub struct Engine {
    arch: Arch,
    weights: Weights,
    frequencies: Vec<f32>,
    /// One pass at a time.
    state: Mutex<(Machine, Scratch)>,
    options: Options,
}

impl Engine {
    /// Packs a network. `take` gives a tensor by its canonical name ([`Arch::tensors`]) and shape.
    ///
    /// # Errors
    /// Those of `take`; a score-entropy model, whose ratios no rule here can use; a head of more than 256 numbers; a number that is
    /// not finite; memory or threads that the system refuses.
    pub fn new<'f>(
        arch: &Arch,
        mut take: impl FnMut(&str, &[usize]) -> Result<Stored<'f>>,
        options: Options,
    ) -> Result<Self> {
        if arch.head_dim() > WIDEST_HEAD {
            let expected = format!("at most {WIDEST_HEAD} numbers");
            return Err(Error::value("width of a head", expected, arch.head_dim().to_string()));
        }
        let weights = Weights::new(arch, &mut take)?;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if options.threads == 0 { cores() } else { options.threads };
        let team = Team::new(threads).map_err(|e| Error::Run(format!("no thread for the engine: {e}")))?;
        let machine = Machine { team, isa: options.isa.unwrap_or_else(Isa::best), exact: options.exact };
        Ok(Self {
            arch: arch.clone(),
            weights,
            frequencies: arch.rotary_frequencies(),
            state: Mutex::new((machine, Scratch::default())),
            options,
        })
    }

    /// Its description.
    pub fn arch(&self) -> &Arch {
        &self.arch
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Logits `[rows, vocab]` of the rows that the lanes ask for, lane by lane; stores what the lanes store.
    ///
    /// # Errors
    /// Lanes that mean nothing to the model.
    pub fn logits(&self, lanes: &mut [Lane<'_, KeyValues>]) -> Result<Vec<f32>> {
        self.run(lanes, |_, scratch, rows| {
            let mut all = Vec::with_capacity(rows * self.arch.vocab);
            for row in 0..rows {
                let panels = scratch.logits.chunks(rows * panel::OUTPUTS);
                let numbers = panels.flat_map(|panel| &panel[row * panel::OUTPUTS..][..panel::OUTPUTS]);
                all.extend(numbers.take(self.arch.vocab));
            }
            Ok(all)
        })
    }

    /// One pass, and what is made of its logits. `then` gets the number of rows asked for.
    fn run<T>(
        &self,
        lanes: &mut [Lane<'_, KeyValues>],
        then: impl FnOnce(&mut Machine, &mut Scratch, usize) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state.lock().map_err(|_| Error::Run("the engine failed in an earlier pass".into()))?;
        let (machine, scratch) = &mut *state;
        scratch.plan.make(&self.arch, &self.frequencies, lanes)?;
        machine.pass(&self.arch, &self.weights, scratch, lanes);
        for lane in lanes.iter_mut() {
            lane.cache.stored(lane.store);
        }
        let rows = scratch.plan.asked.len();
        then(machine, scratch, rows)
    }
}

impl Denoiser for Engine {
    type Cache = KeyValues;

    fn mask_id(&self) -> u32 {
        self.arch.mask
    }

    fn cache(&self, block: usize) -> KeyValues {
        KeyValues::new(Kind {
            block,
            causal: self.arch.objective == Objective::NextToken,
            layers: self.arch.layers,
            heads: self.arch.kv_heads(),
            width: self.arch.head_dim(),
            precision: if self.options.exact { Precision::Single } else { Precision::Half },
        })
    }

    fn pass(&self, lanes: &mut [Lane<'_, KeyValues>]) -> Result<Vec<Vec<Proposal>>> {
        let mask = self.arch.mask;
        let queries = lanes.iter().flat_map(|l| (0..l.ask.rows.len()).map(|i| l.ask.query(i, l.open, mask)));
        let queries: Vec<_> = queries.collect();
        let counts: Vec<usize> = lanes.iter().map(|lane| lane.ask.rows.len()).collect();
        self.run(lanes, |machine, scratch, rows| {
            let mut proposals =
                head::propose(&mut machine.team, machine.isa, &scratch.logits, (rows, self.arch.vocab), &queries)?;
            let mut answers = Vec::with_capacity(counts.len());
            for count in counts.iter().rev() {
                answers.push(proposals.split_off(proposals.len() - count));
            }
            answers.reverse();
            Ok(answers)
        })
    }
}
