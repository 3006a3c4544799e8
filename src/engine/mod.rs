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
mod product;
#[cfg(test)]
mod product_tests;
mod quants;
mod rows;
pub mod simd;
mod team;
mod weights;

use std::sync::Mutex;

use cache::Kind;
pub use cache::{KeyValues, Precision};
use panel::OUTPUTS;
use pass::{Machine, Scratch, WIDEST_HEAD};
use simd::Isa;
use team::Team;
use weights::Weights;

use crate::arch::{Arch, Objective};
use crate::error::{Error, Result};
use crate::format::Stored;
use crate::pass::{Ask, Bias, Denoiser, Guide, Lane, Place, Proposal};

/// How an engine runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads that work on a pass; 0 means one for each core.
    pub threads: usize,
    /// f32 throughout: no quantised activations, no half-precision cache.
    pub exact: bool,
    /// The instructions to use; `None`: the machine's best.
    pub isa: Option<Isa>,
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
    /// Those of `take`; a score-entropy model, whose ratios no rule here can use; a head of more than 256 numbers; more than 256 threads; a number that is
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
        if options.threads > MOST_THREADS {
            return Err(Error::value("threads", format!("at most {MOST_THREADS}"), options.threads.to_string()));
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

    /// Bytes that a cache takes for each position.
    pub fn cache_bytes(&self) -> usize {
        let precision = if self.options.exact { Precision::Single } else { Precision::Half };
        let width = self.arch.head_dim().next_multiple_of(simd::LANES);
        2 * self.arch.layers * self.arch.kv_heads() * width * precision.bytes()
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// Bytes of the weights that a pass reads: all but an embedding that is not also the head, which is read a row at a time.
    pub fn read_bytes(&self) -> usize {
        let embedding = &self.weights.embedding.place;
        let tied = *embedding == self.weights.head.weights.place;
        self.bytes() - if tied { 0 } else { embedding.len() }
    }

    /// Logits `[rows, vocab]` of the rows that the lanes ask for, lane by lane; stores what the lanes store.
    ///
    /// # Errors
    /// Lanes that mean nothing to the model.
    pub fn logits(&self, lanes: &mut [Lane<'_, KeyValues>]) -> Result<Vec<f32>> {
        self.run(lanes, |_, scratch, Passed { asked, rows, kept }| {
            kept.into_iter().collect::<Result<()>>()?;
            let mut all = Vec::with_capacity(asked * self.arch.vocab);
            let mut line = vec![0.0; self.arch.vocab.next_multiple_of(OUTPUTS)];
            for row in 0..asked {
                row_of(&scratch.logits, rows, row, &mut line);
                all.extend_from_slice(&line[..self.arch.vocab]);
            }
            Ok(all)
        })
    }

    /// Logits `[ids, vocab]` after each of these ids, of a next-token model, which are stored: `then` gets the number of an id and its
    /// row, once for each, in order.
    ///
    /// # Errors
    /// A model that does not predict the next token; an id beyond the vocabulary.
    pub fn read(&self, cache: &mut KeyValues, ids: &[u32], mut then: impl FnMut(usize, &[f32])) -> Result<()> {
        if self.arch.objective != Objective::NextToken {
            return Err(Error::Run("only a next-token model reads a text from left to right".into()));
        }
        let ask = Ask::none();
        let mut line = vec![0.0; self.arch.vocab.next_multiple_of(OUTPUTS)];
        for (piece, ids) in ids.chunks(PIECE).enumerate() {
            let mut state = self.state()?;
            let (machine, scratch) = &mut *state;
            let lanes = &mut [Lane::new(cache, ids, &[], &ask)];
            scratch.plan.make(&self.arch, &self.frequencies, lanes)?;
            scratch.plan.ask_all(&self.arch);
            machine.pass(&self.arch, &self.weights, scratch, lanes);
            lanes[0].cache.stored(ids)?;
            for row in 0..ids.len() {
                row_of(&scratch.logits, ids.len(), row, &mut line);
                then(piece * PIECE + row, &line[..self.arch.vocab]);
            }
        }
        Ok(())
    }

    fn state(&self) -> Result<std::sync::MutexGuard<'_, (Machine, Scratch)>> {
        self.state.lock().map_err(|_| Error::Run("the engine failed in an earlier pass".into()))
    }

    /// One pass, and what is made of its logits.
    fn run<T>(
        &self,
        lanes: &mut [Lane<'_, KeyValues>],
        then: impl FnOnce(&mut Machine, &mut Scratch, Passed) -> Result<T>,
    ) -> Result<T> {
        let mut state = self.state()?;
        let (machine, scratch) = &mut *state;
        let count = lanes.len();
        let led: Vec<usize> = (0..count).filter(|&lane| lanes[lane].guide.is_some()).collect();
        let (mut all, guided, asked) = self.with_guides(lanes)?;
        scratch.plan.make(&self.arch, &self.frequencies, &all)?;
        machine.pass(&self.arch, &self.weights, scratch, &mut all);
        let mut kept: Vec<Result<()>> = all.iter_mut().map(|lane| lane.cache.stored(lane.store)).collect();
        for (guide, lane) in kept.split_off(count).into_iter().zip(led) {
            kept[lane] = std::mem::replace(&mut kept[lane], Ok(())).and(guide);
        }
        let rows = asked + guided.len();
        head::guide(&mut scratch.logits, (asked, rows), &guided);
        then(machine, scratch, Passed { asked, rows, kept })
    }

    /// All lanes, guides behind them as lanes of their own; for each of the guides' rows the row that it leads and its weight; and how many
    /// rows are asked for.
    fn with_guides<'l>(&self, lanes: &'l mut [Lane<'_, KeyValues>]) -> Result<Flat<'l>> {
        let (mut all, mut guides, mut guided, mut asked) = (Vec::with_capacity(lanes.len()), Vec::new(), Vec::new(), 0);
        for lane in lanes {
            let Lane { cache, store, open, place, ask, guide } = lane;
            if let Some(Guide { cache, store, open: unguided, weight }) = guide {
                if self.arch.objective == Objective::NextToken || unguided.len() != open.len() {
                    return Err(Error::Run(
                        "a guide opens the rows that its lane opens, of a model that fills masks".into(),
                    ));
                }
                if *place == Place::Beside {
                    return Err(Error::Run("ids open beside stored ones: expected no guide, found one".into()));
                }
                guided.extend((asked..asked + ask.rows.len()).map(|row| (row, *weight)));
                guides.push(Lane::new(&mut **cache, store, unguided, ask));
            }
            asked += ask.rows.len();
            all.push(Lane { place: *place, ..Lane::new(&mut **cache, store, open, ask) });
        }
        all.append(&mut guides);
        Ok((all, guided, asked))
    }
}

/// What a pass leaves beside its logits.
struct Passed {
    /// Rows that were asked for.
    asked: usize,
    /// Rows that the scratch holds: those of guides come last.
    rows: usize,
    /// Whether a lane's keys and values, and those of its guide, could be kept.
    kept: Vec<Result<()>>,
}

/// What [`Engine::with_guides`] gives.
type Flat<'l> = (Vec<Lane<'l, KeyValues>>, Vec<(usize, f32)>, usize);

/// Threads, at most: a pass has no work for more.
pub const MOST_THREADS: usize = 256;

/// Ids that are read in one pass: more would not make the products faster.
const PIECE: usize = 64;

/// One row of `[panels][rows][32]`.
fn row_of(panels: &[f32], rows: usize, row: usize, to: &mut [f32]) {
    for (panel, to) in panels.chunks_exact(rows * OUTPUTS).zip(to.chunks_exact_mut(OUTPUTS)) {
        to.copy_from_slice(&panel[row * OUTPUTS..][..OUTPUTS]);
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

    fn each(&self, lanes: &mut [Lane<'_, KeyValues>]) -> Result<Vec<Result<Vec<Proposal>>>> {
        let mask = self.arch.mask;
        for lane in lanes.iter() {
            lane.ask.check(lane.open.len())?;
        }
        let queries = lanes.iter().flat_map(|l| (0..l.ask.rows.len()).map(|i| l.ask.query(i, l.open, mask)));
        let queries: Vec<_> = queries.collect();
        let counts: Vec<usize> = lanes.iter().map(|lane| lane.ask.rows.len()).collect();
        let biases: Vec<Bias> = lanes.iter().map(|lane| lane.ask.bias.clone()).collect();
        self.run(lanes, |machine, scratch, Passed { rows, kept, .. }| {
            let mut first = 0;
            for (bias, count) in biases.iter().zip(&counts) {
                head::bias(&mut scratch.logits, rows, first..first + count, bias);
                first += count;
            }
            let size = (rows, self.arch.vocab);
            let mut proposals =
                head::propose(&mut machine.team, machine.isa, &scratch.logits, size, &queries).into_iter();
            let answer = |(kept, &count): (Result<()>, &usize)| {
                let own: Vec<Result<Proposal>> = proposals.by_ref().take(count).collect();
                kept.and_then(|()| own.into_iter().collect())
            };
            Ok(kept.into_iter().zip(&counts).map(answer).collect())
        })
    }
}
