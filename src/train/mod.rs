//! Training: the loop in sight. A run is a function of its recipe: every draw depends on seed and step alone, so that a run that
//! was stopped and resumed has the same losses, bit for bit, as one that was not.

pub mod batch;
mod checks;
pub mod clips;
pub mod init;
pub mod log;
pub mod optim;
pub mod place;
pub mod plan;
pub mod state;

use std::path::Path;
use std::time::Instant;

use burn::tensor::{Device, Tensor};

use crate::arch::{Objective, SizeClip};
use crate::checkpoint::{self, Checkpoint};
use crate::error::{Error, Result};
use crate::format::Type;
use crate::likelihood::{self, Estimator, Measure};
use crate::loss;
use crate::model::{Dit, Dropout, Form, Precision, dit::View, ops};
use crate::noise::Clip;
use crate::recipe;
use crate::rng::Rng;
use crate::tokenizer::Tokenizer;

use batch::Micro;
use log::{Log, StepRow, ValidationRow};
use optim::{Momentum, Optimizer, Update, gradients};
use place::Hold;
use plan::{Plan, SizePlan};
use state::Progress;

/// Decay of Muon's momentum, as its authors have it.
const MOMENTUM: f64 = 0.95;

/// Hears what a run does.
pub trait Observer {
    /// Asked now and then: `true` asks the run to save and stop.
    fn stop(&self) -> bool {
        false
    }
    /// One optimiser step is done.
    fn step(&mut self, row: &StepRow);
    /// One block size was validated.
    fn validation(&mut self, row: &ValidationRow);
    /// A checkpoint stands.
    fn saved(&mut self, step: u64);
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Finished,
    /// The observer asked to stop after this step; the checkpoint stands.
    Stopped(u64),
}

/// A model whose weights a run starts from.
#[derive(Clone, Copy)]
pub struct Init<'a> {
    /// Its name in errors: a folder, for one that has files.
    pub path: &'a Path,
    /// Its description and tensors.
    pub checkpoint: &'a Checkpoint,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
}

/// A run at work.
pub struct Run {
    plan: Plan,
    hold: Hold,
    rng: Rng,
    sizes: Vec<SizePlan>,
    model: Dit,
    optimizer: Optimizer,
    step: u64,
    tokens: u64,
    /// The clip search and the validation of this step are still to come.
    unmeasured: bool,
    log: Log,
}

impl Run {
    /// Starts a run in the folder that is held, or resumes the one whose state is there. `init` gives the weights of a fresh run.
    ///
    /// # Errors
    /// A state that can't be read, or was made from other data; weights of `init` that are of another shape, objective or tokenizer; a
    /// precision that the device does not have; a folder that can't be written.
    pub fn open(mut plan: Plan, mut hold: Hold, device: &Device, init: Option<Init>) -> Result<Self> {
        let rng = Rng::new(plan.recipe.seed);
        let device = device.clone().autodiff();
        let dir = hold.dir();
        let mut sizes = plan.sizes.clone();
        let resumed = state::path(dir).exists();
        if let (true, Some(init)) = (resumed, init) {
            let expected = "no weights to start from, since the run has its own";
            return Err(Error::value("--init", expected, init.path.display().to_string()));
        }
        let (mut model, optimizer, step, tokens, unmeasured) = if resumed {
            let (model, optimizer, progress) = state::load(dir, &plan.arch, &device)?;
            plan.reader.seek(&progress.cursor)?;
            for size in &mut sizes {
                if let Some((_, beta, omega)) = progress.clips.iter().find(|(known, _, _)| *known == size.size) {
                    size.clip = Clip::new(*beta, *omega)?;
                }
            }
            (model, optimizer, progress.step, progress.tokens, progress.unmeasured)
        } else {
            let mut model = match init {
                None => init::fresh(&plan.arch, &device, &rng)?,
                Some(init) => initial(&plan, init, &device)?,
            };
            model.require_grad();
            let optimizer = Optimizer::new(&model);
            (model, optimizer, 0, 0, false)
        };
        model.form = form(model.form, plan.recipe.train.precision)?;
        let log = Log::open(&dir.join("log.jsonl"), step, step.saturating_sub(u64::from(unmeasured)))?;
        hold.keep();
        let run = Self { plan, hold, rng, sizes, model, optimizer, step, tokens, unmeasured, log };
        if resumed {
            // A crash may have come between the state and its model.
            run.save_model()?;
        }
        Ok(run)
    }

    /// Optimiser steps done so far.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Trains to the end of the recipe, or until the observer asks to stop.
    ///
    /// # Errors
    /// A loss, gradient norm or parameter that is not finite; masks that [`batch::noised`] can't draw; what [`clips::search`] or
    /// [`likelihood::measure`] refuses; a file that can't be written; a device that fails.
    pub fn train(&mut self, observer: &mut dyn Observer) -> Result<Ending> {
        let train = self.plan.recipe.train.clone();
        if self.unmeasured {
            self.measure(observer)?;
            self.save(observer)?;
        }
        while self.step < train.steps {
            let row = self.one_step()?;
            self.log.step(&row)?;
            observer.step(&row);
            let last = self.step == train.steps;
            if (self.due() || last) && !self.plan.valid.is_empty() {
                // Measuring takes a while and may fail: what was trained is safe before.
                self.unmeasured = true;
                self.save(observer)?;
                self.measure(observer)?;
            }
            let stop = observer.stop();
            if last || stop || self.step.is_multiple_of(train.checkpoint_every) {
                self.save(observer)?;
            }
            if stop && !last {
                return Ok(Ending::Stopped(self.step));
            }
        }
        Ok(Ending::Finished)
    }

    /// One optimiser step: draw, forward, backward, update.
    fn one_step(&mut self) -> Result<StepRow> {
        let started = Instant::now();
        let train = self.plan.recipe.train.clone();
        let rng = self.rng.split_at("step", self.step);
        self.mix_sources()?;
        let size = self.sizes[batch::draw_size(&self.sizes, &mut rng.split("size"))];
        let (mut loss, mut sums) = (0.0, None);
        for index in 0..train.accumulate {
            let rows = self.plan.reader.next_batch(train.batch);
            let rng = rng.split_at("micro", index as u64);
            let micro = batch::noised(&self.plan, rows, &size, &rng)?;
            let Some(scalar) = self.loss(&micro, train.accumulate as f64, &mut rng.split("dropout"))? else { continue };
            loss += f64::from(ops::to_vec(scalar.clone())?[0]);
            if !loss.is_finite() {
                return Err(Error::Diverged { step: self.step + 1, what: "loss", value: loss });
            }
            let grads = gradients(&mut self.model, scalar.backward());
            sums = Some(match sums {
                None => grads,
                Some(sums) => add(sums, grads),
            });
        }
        let lr = learning_rate(&train, self.step);
        let matrix_lr = lr * train.matrix_lr.map_or(1.0, |peak| peak / train.lr);
        let muon = Momentum { lr: matrix_lr, momentum: MOMENTUM };
        let update = Update {
            lr,
            betas: train.betas,
            weight_decay: train.weight_decay,
            max_norm: train.clip,
            ema: train.ema,
            muon: (train.optimizer == recipe::Optimizer::Muon).then_some(muon),
        };
        let grads = sums.unwrap_or_else(|| self.optimizer.slots.iter().map(|slot| slot.m.zeros_like()).collect());
        let grad_norm = self.optimizer.update(&mut self.model, grads, &update)?;
        self.step += 1;
        let tokens = (train.batch * train.accumulate * self.plan.arch.length) as u64;
        self.tokens += tokens;
        let tokens_per_second = tokens as f64 / started.elapsed().as_secs_f64();
        Ok(StepRow { step: self.step, tokens: self.tokens, loss, lr, grad_norm, tokens_per_second, block: size.size })
    }

    /// The loss of one micro-batch as a scalar of the graph; none where nothing happens to be masked.
    fn loss(&self, micro: &Micro, parts: f64, rng: &mut Rng) -> Result<Option<Tensor<2>>> {
        let arch = &self.plan.arch;
        let keep = (1.0 - arch.dit()?.dropout) as f32;
        let sigma: Vec<f32> = micro.noise.iter().map(|n| n.sigma as f32).collect();
        let sigma = (!sigma.is_empty()).then_some(sigma.as_slice());
        let view = View { batch: micro.rows, block: micro.block, sigma, dropout: Dropout { key: rng.bits(), keep } };
        let denominator = micro.denominator * parts;
        if arch.objective == Objective::Score {
            let noise: Vec<_> = micro.noise.iter().flat_map(|n| std::iter::repeat_n(*n, arch.length)).collect();
            let logits = self.model.logits(self.model.single(&micro.xt, &view)?);
            let scores = loss::log_score(logits, &micro.xt, &noise);
            let entropy = loss::score_entropy(scores, &micro.x0, &micro.xt, arch.mask, &noise);
            return Ok(Some((entropy.sum() / denominator).reshape([1, 1])));
        }
        if micro.terms.is_empty() {
            return Ok(None);
        }
        let stream = match arch.objective {
            Objective::NextToken => self.model.single(&micro.xt, &view)?,
            _ => self.model.paired(&micro.xt, &micro.x0, &view)?,
        };
        Ok(Some(loss::cross_entropy(&self.model, stream, &micro.terms, denominator)?.0))
    }

    /// Moves the sources' weights along their way from start to end.
    fn mix_sources(&mut self) -> Result<()> {
        let way = self.step as f64 / self.plan.recipe.train.steps.max(1) as f64;
        let weights: Vec<f64> = self.plan.weights.iter().map(|[start, end]| start + (end - start) * way).collect();
        self.plan.reader.set_weights(&weights)
    }

    /// True where the recipe asks for a clip search and a validation after this step.
    fn due(&self) -> bool {
        let every = self.plan.recipe.train.validate_every;
        every > 0 && self.step.is_multiple_of(every)
    }

    /// The clip search, where one is due, and the validation of this step.
    fn measure(&mut self, observer: &mut dyn Observer) -> Result<()> {
        if self.due() {
            self.search_clips()?;
        }
        self.unmeasured = !self.validate(observer)?;
        Ok(())
    }

    /// Measures every block size on every source; false where a request to stop left some out.
    fn validate(&mut self, observer: &mut dyn Observer) -> Result<bool> {
        let model = self.averaged();
        let train = &self.plan.recipe.train;
        for size in &self.sizes {
            let how = Measure { block: size.size, draws: 1, estimator: Estimator::Subset, batch: train.batch, seed: 1 };
            for (index, text) in self.plan.valid.iter().enumerate() {
                let count = train.validate_rows.min(text.rows());
                let found = likelihood::measure(&model, text, 0..count, &how, |_| !observer.stop())?;
                if found.rows.len() < count {
                    return Ok(false);
                }
                let (nats, stderr, perplexity) = (found.nats(), found.stderr(), found.perplexity());
                let source = (self.plan.valid.len() > 1).then_some(index);
                let row = ValidationRow { step: self.step, block: size.size, nats, stderr, perplexity, source };
                self.log.validation(&row)?;
                observer.validation(&row);
            }
        }
        Ok(true)
    }

    fn search_clips(&mut self) -> Result<()> {
        if self.plan.recipe.blocks.search.is_empty() || self.plan.arch.objective != Objective::Masked {
            return Ok(());
        }
        let model = self.averaged();
        for index in 0..self.sizes.len() {
            if self.sizes[index].size == 1 {
                continue;
            }
            let rng = self.rng.split_at("search", self.step);
            let found = clips::search(&self.plan, &model, &self.sizes[index], &rng)?;
            self.sizes[index].clip = found.clip;
            self.log.clip(self.step, &found)?;
        }
        Ok(())
    }

    /// The network with averaged weights, as it is written and measured.
    fn averaged(&self) -> Dit {
        let mut model = if self.plan.recipe.train.ema > 0.0 {
            self.optimizer.averaged(&self.model)
        } else {
            self.model.clone().without_autodiff()
        };
        let clip = |s: &SizePlan| SizeClip { size: s.size, beta: s.clip.beta(), omega: s.clip.omega() };
        model.arch.sizes = self.sizes.iter().map(clip).collect();
        model.form = ops::best_form(model.device());
        model
    }

    fn save(&self, observer: &mut dyn Observer) -> Result<()> {
        let clips = self.sizes.iter().map(|s| (s.size, s.clip.beta(), s.clip.omega())).collect();
        let (cursor, recipe) = (self.plan.reader.cursor().clone(), self.plan.recipe.to_toml()?);
        let Self { step, tokens, unmeasured, .. } = *self;
        let progress = Progress { step, tokens, cursor, clips, unmeasured, recipe };
        for (_, data) in self.model.parameters()? {
            if let Some(bad) = data.iter().find(|x| !x.is_finite()) {
                return Err(Error::Diverged { step: self.step, what: "value of a parameter", value: f64::from(*bad) });
            }
        }
        state::save(self.hold.dir(), &self.model, &self.optimizer, &progress)?;
        self.save_model()?;
        observer.saved(step);
        Ok(())
    }

    fn save_model(&self) -> Result<()> {
        let model = self.hold.dir().join("model");
        checkpoint::save_network(&model, &self.averaged(), Type::F32)?;
        self.plan.tokenizer.save(&model)
    }
}

/// The weights of another model in this recipe's network.
fn initial(plan: &Plan, Init { path, checkpoint, tokenizer }: Init, device: &Device) -> Result<Dit> {
    let theirs = &checkpoint.arch;
    if theirs.objective != plan.arch.objective {
        let [ours, found] = [plan.arch.objective, theirs.objective].map(Objective::name);
        let expected = format!("a model of the recipe's model.objective `{ours}`");
        return Err(Error::file(path.join("config.json"), expected, format!("one of objective `{found}`")));
    }
    for (key, ours, found) in [
        ("n_heads", plan.arch.heads.to_string(), theirs.heads.to_string()),
        ("n_blocks", plan.arch.layers.to_string(), theirs.layers.to_string()),
        ("mask id", plan.arch.mask.to_string(), theirs.mask.to_string()),
    ] {
        if ours != found {
            return Err(Error::key(path.join("config.json"), key, format!("{ours}, as in the recipe"), found));
        }
    }
    if tokenizer.hash() != plan.tokenizer.hash() {
        let expected = "the tokenizer that the data was made with";
        return Err(Error::file(path.join("tokenizer.json"), expected, "another one"));
    }
    Dit::from_parameters(&plan.arch, device, |name, shape| checkpoint.f32(name, shape))
}

/// The form that a recipe's precision asks for.
fn form(best: Form, precision: Precision) -> Result<Form> {
    match (best, precision) {
        (Form::Fused(_), precision) => Ok(Form::Fused(precision)),
        (Form::Composed, Precision::F32) => Ok(best),
        (Form::Composed, Precision::Bf16) => Err(Error::value(
            "train.precision",
            "f32 on this device, as `--set train.precision=f32` asks for (bf16 is for the CPU)",
            "bf16",
        )),
    }
}

/// The learning rate after `step` finished steps: linear warm-up from 0, constant, linear to 0 over the last share of the run.
pub fn learning_rate(train: &recipe::Train, step: u64) -> f64 {
    let warm = if train.warmup > 0 { (step as f64 / train.warmup as f64).min(1.0) } else { 1.0 };
    let tail = train.decay * train.steps as f64;
    let left = (train.steps - step) as f64;
    let cool = if tail > 0.0 { (left / tail).min(1.0) } else { 1.0 };
    train.lr * warm.min(cool)
}

fn add(sums: Vec<Tensor<2>>, grads: Vec<Tensor<2>>) -> Vec<Tensor<2>> {
    sums.into_iter().zip(grads).map(|(a, b)| a + b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_device_keeps_f32_or_says_so() {
        assert!(matches!(form(Form::Composed, Precision::F32), Ok(Form::Composed)));
        let refusal = form(Form::Composed, Precision::Bf16).unwrap_err().to_string();
        assert!(refusal.contains("train.precision") && refusal.contains("f32"), "{refusal}");
    }
}
