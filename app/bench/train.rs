//! `bd3 bench train`: whole training steps, beside the bound that our own product of large square matrices sets.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bd3::arch::{Arch, Dit, Objective, Shape, SizeClip, SpecialIds};
use bd3::data::{Packing, Reader, Shard, Source, Tail, Wrap};
use bd3::model::fused::matmul::{Matrix, Precision};
use bd3::noise::{Clip, Schedule};
use bd3::recipe::Recipe;
use bd3::rng::Rng;
use bd3::tokenizer::{Special, Tokenizer};
use bd3::train::log::{StepRow, ValidationRow};
use bd3::train::place::Hold;
use bd3::train::plan::{Plan, SizePlan};
use bd3::train::{Observer, Run};
use bd3::{Error, Result};
use burn::tensor::Device;
use clap::Args;
use serde_json::json;

use super::median;
use crate::{counts, settle, view};

/// `bd3 bench train`
#[derive(Args, Debug)]
pub struct TrainArgs {
    /// Steps that are timed, after two that are not
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = counts::count)]
    steps: u64,
    /// What large products round their inputs to
    #[arg(long, value_name = "PRECISION", default_value = "f32", value_parser = ["f32", "bf16"])]
    precision: String,
    /// One JSON object instead of a sentence
    #[arg(long)]
    json: bool,
}

/// Steps before the clock counts: caches fill, threads start.
const WARM_UP: u64 = 2;
/// Side of the square matrices whose product is the machine's peak.
const SIDE: usize = 2048;
const VOCAB: usize = 8192;
const LENGTH: usize = 256;
const BLOCK: usize = 16;

/// The reference step. Its data are random ids, so `toy` is only there because a recipe must name a text.
const RECIPE: &str = "
data = { toy = 1, tokenizer = 'bytes' }
model = { hidden = 256, layers = 6, heads = 4, cond = 128, length = 256, dropout = 0.1 }
blocks = { sizes = [{ size = 16 }] }
train = { steps = 1000000, batch = 8, checkpoint_every = 1000000, validate_rows = 1 }
";

/// Runs the command.
pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    if args.steps == 0 {
        return Err(Error::value("--steps", "at least 1", "0").into());
    }
    settle::settle();
    let place = Temporary::new();
    let plan = plan(&args.precision)?;
    let useful = useful_flops(&plan.arch, plan.recipe.train.batch);
    let tokens_per_step = (plan.recipe.train.batch * LENGTH) as f64;
    let precision = plan.recipe.train.precision;
    let mut clock = Clock { steps: args.steps, precision, rates: Vec::new(), peaks: Vec::new() };
    let hold = Hold::take(&place.0, &plan.recipe)?;
    Run::open(plan, hold, &Device::flex(), None)?.train(&mut clock)?;
    let (rate, peak) = (median(&mut clock.rates), median(&mut clock.peaks));
    let bound = tokens_per_step * peak / useful;
    let share = rate / bound;
    let text = if args.json {
        let object = json!({
            "precision": args.precision,
            "tokens_per_second": rate,
            "peak_gflop_s": peak / 1e9,
            "useful_flops_per_step": useful,
            "bound_tokens_per_second": bound,
            "share": share,
        });
        format!("{object}\n")
    } else {
        format!(
            "{rate:.0} tokens/s: {:.0} % of the {bound:.0} that {:.1} GFLOP a step allow at the {:.0} GFLOP/s of our product in {}\n",
            100.0 * share,
            useful / 1e9,
            peak / 1e9,
            args.precision
        )
    };
    Ok(view::print(&text)?)
}

fn plan(precision: &str) -> Result<Plan> {
    let settings = [format!("train.precision={precision}")];
    let recipe = Recipe::parse(Path::new("the reference step"), RECIPE, &settings)?;
    let special = Special { bos: Some(0), eos: Some(1), mask: VOCAB as u32 - 1, pad: None };
    let mut rng = Rng::new(0);
    let mut document = || ((0..LENGTH - 1).map(|_| 2 + rng.below(VOCAB - 3) as u32).collect(), 1);
    let shard = Shard::in_memory("random ids", VOCAB, (0..256).map(|_| document()))?;
    let packing = Packing::new(Arc::new(shard), Wrap::Stream, LENGTH, special)?;
    let source = Source { packing: packing.clone(), weight: 1.0 };
    let arch = Arch {
        vocab: VOCAB,
        mask: special.mask,
        special: SpecialIds { bos: special.bos, eos: special.eos, pad: special.pad },
        hidden: recipe.model.hidden,
        layers: recipe.model.layers,
        heads: recipe.model.heads,
        length: LENGTH,
        objective: Objective::Masked,
        block: BLOCK,
        sizes: vec![SizeClip { size: BLOCK, beta: Clip::FULL.beta(), omega: Clip::FULL.omega() }],
        visible_loss: false,
        shape: Shape::Dit(Dit { cond: recipe.model.cond, dropout: recipe.model.dropout }),
    };
    Ok(Plan {
        recipe,
        arch,
        schedule: Schedule::LogLinear,
        sizes: vec![SizePlan { size: BLOCK, share: 1.0, clip: Clip::FULL }],
        tokenizer: Arc::new(Tokenizer::bytes()),
        reader: Reader::new(vec![source], &rng, Tail::Drop)?,
        weights: vec![[1.0, 1.0]],
        valid: vec![packing],
        ordinary: Vec::new(),
    })
}

/// Multiplications and additions that a step can't do without: matrix products forward and twice backward, attention over pairs
/// that may see each other, logits at the half of the positions that is masked on average. The clean stream ends at the keys and
/// values of the last layer.
fn useful_flops(arch: &Arch, batch: usize) -> f64 {
    let (d, rows) = (arch.hidden as f64, (batch * arch.length) as f64);
    let whole_layers = (2 * arch.layers - 1) as f64;
    let layers = rows * d * d * (12.0 * whole_layers + 2.0);
    let logits = rows / 2.0 * d * arch.vocab as f64;
    let pairs = rows * (arch.length + arch.block) as f64 / 2.0;
    let attention = 2.0 * d * pairs * whole_layers;
    6.0 * (layers + logits + attention)
}

/// Times steps and, in turn with them, the product that is the machine's peak.
struct Clock {
    steps: u64,
    precision: Precision,
    /// Tokens per second.
    rates: Vec<f64>,
    /// Operations per second.
    peaks: Vec<f64>,
}

impl Observer for Clock {
    fn stop(&self) -> bool {
        self.rates.len() as u64 >= self.steps
    }

    fn step(&mut self, row: &StepRow) {
        let peak = peak(self.precision);
        if row.step > WARM_UP {
            self.rates.push(row.tokens_per_second);
            self.peaks.push(peak);
        }
    }

    fn validation(&mut self, _: &ValidationRow) {}

    fn saved(&mut self, _: u64) {}
}

fn peak(precision: Precision) -> f64 {
    let ones = vec![1.0; SIDE * SIDE];
    let start = Instant::now();
    black_box(precision.product(Matrix::new(&ones, SIDE, SIDE), Matrix::new(&ones, SIDE, SIDE)));
    2.0 * (SIDE as f64).powi(3) / start.elapsed().as_secs_f64()
}

/// A folder for the run's log and checkpoint, which nobody needs.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("bd3-bench-{}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // What can't be removed is left to the system's own cleaning of temporary folders.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_step_needs_130_gflop() {
        let plan = plan("f32").unwrap();
        let useful = useful_flops(&plan.arch, plan.recipe.train.batch);
        assert!((useful / 1e9 - 130.0).abs() < 1.0, "{useful}");
    }
}
