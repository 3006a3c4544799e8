//! `bd3 train`: a run of a recipe. The loop is the library's; here are flags, the progress line, and the picture of the loss.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bd3::Error;
use bd3::data::build::check_out;
use bd3::recipe::Recipe;
use bd3::train::log::{StepRow, ValidationRow};
use bd3::train::plan::Plan;
use bd3::train::{Ending, Init, Observer, Run, place};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

use crate::{interrupt, model, plot, settle, view};

/// Off a terminal a line is written this often.
const QUIET: Duration = Duration::from_secs(30);
/// The share of the newest step in the figures shown, so that they can be read.
const NEWEST: f64 = 0.05;

/// Train a model from a recipe
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bd3 train recipes/smoke.toml --out runs/smoke --set train.steps=200")]
pub struct TrainArgs {
    /// The recipe, a TOML file
    recipe: PathBuf,
    /// Where everything goes: log.jsonl, loss.svg, model/, state/
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Go on with the run in DIR; one that has no state yet is started, as in a new or empty folder
    #[arg(long, help_heading = "Start")]
    resume: bool,
    /// Start from the weights of a model folder, or of `tiny`, the model inside the binary
    #[arg(long, value_name = "MODEL", help_heading = "Start")]
    init: Option<PathBuf>,

    /// Change a key of the recipe, e.g. train.steps=100
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Run")]
    settings: Vec<String>,
    /// Where tensors live
    #[arg(long, value_enum, default_value_t = DeviceName::Cpu, help_heading = "Run")]
    device: DeviceName,
}

/// See [`Device`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DeviceName {
    /// The CPU, with fused operations
    Cpu,
    /// The first GPU that WebGPU finds, or its software stand-in; composed operations
    #[cfg(feature = "wgpu")]
    Wgpu,
}

/// Runs the command.
pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let recipe = Recipe::open(&args.recipe, &args.settings)?;
    let used = || Error::file(&args.out, "a new or empty folder, or `--resume` to go on with the run in it", "a run");
    if !args.resume {
        check_out(&args.out).map_err(|refusal| if place::holds_a_run(&args.out) { used() } else { refusal })?;
    }
    let device = match args.device {
        DeviceName::Cpu => Device::flex(),
        #[cfg(feature = "wgpu")]
        DeviceName::Wgpu => Device::wgpu(burn::tensor::DeviceKind::DefaultDevice),
    };
    settle::settle();
    let steps = recipe.train.steps;
    let model = args.init.as_deref().map(|path| model::open(Some(path))).transpose()?;
    let init = args.init.as_deref().zip(model.as_ref());
    let init = init.map(|(path, model)| Init { path, checkpoint: &model.checkpoint, tokenizer: &model.tokenizer });
    let (plan, hold) = Plan::open(&args.recipe, recipe, &args.out)?;
    if !args.resume && !hold.is_fresh() {
        // Another run has come and gone since the folder was looked at.
        return Err(used().into());
    }
    let (parameters, vocab, length) = (plan.arch.parameters(), plan.arch.vocab, plan.arch.length);
    let mut run = Run::open(plan, hold, &device, init)?;
    note!("{parameters} parameters, {vocab} tokens in the vocabulary, rows of {length}");
    if run.step() >= steps {
        note!("already at step {} of {steps}", run.step());
    }
    interrupt::watch()?;
    let mut progress = Progress::new(steps, &args.out)?;
    // From here on nothing is refused any more: whatever goes wrong has failed while running.
    let ending = run.train(&mut progress).map_err(|e| if e.is_refusal() { Error::Run(e.to_string()) } else { e })?;
    progress.bar.finish_and_clear();
    if let Ending::Stopped(step) = ending {
        note!("stopped after step {step} of {steps}; to go on: {}", command_to_resume(args));
        return Ok(());
    }
    Ok(view::print(&format!("{}\n", args.out.join("model").display()))?)
}

fn command_to_resume(args: &TrainArgs) -> String {
    let settings: String = args.settings.iter().map(|setting| format!(" --set {}", view::quoted(setting))).collect();
    let [recipe, out] = [&args.recipe, &args.out].map(|path| view::quoted(&path.display().to_string()));
    format!("bd3 train {recipe} --out {out} --resume{settings}")
}

/// The progress line: on a terminal one that changes, elsewhere a new one now and then.
struct Progress {
    bar: ProgressBar,
    dir: PathBuf,
    steps: u64,
    /// The first step of this process, and when it was done.
    first: Option<(u64, Instant)>,
    written: Instant,
    loss: f64,
    rate: f64,
    bound: Option<ValidationRow>,
}

impl Progress {
    fn new(steps: u64, dir: &Path) -> anyhow::Result<Self> {
        let bar = ProgressBar::new(steps).with_style(ProgressStyle::with_template("{msg}")?);
        let (loss, rate) = (f64::NAN, f64::NAN);
        Ok(Self { bar, dir: dir.into(), steps, first: None, written: Instant::now(), loss, rate, bound: None })
    }

    fn line(&self, row: &StepRow) -> String {
        let bound = self.bound.as_ref().map_or(String::new(), |row| {
            format!(" · bound {:.4} nats (perplexity {:.2}, block {})", row.nats, row.perplexity, row.block)
        });
        let left = self.left(row.step).map_or(String::new(), |left| format!(" · {:#} left", HumanDuration(left)));
        let Self { steps, loss, rate, .. } = self;
        format!("step {}/{steps} · loss {loss:.4}{bound} · {rate:.0} tokens/s{left}", row.step)
    }

    /// Time to the last step, at the pace since the start, validation and checkpoints included.
    fn left(&self, step: u64) -> Option<Duration> {
        let (first, start) = self.first?;
        let done = step.checked_sub(first).filter(|&done| done > 0)?;
        Some(start.elapsed().mul_f64((self.steps - step) as f64 / done as f64))
    }

    fn note(&self, text: &str) {
        self.bar.suspend(|| note!("{text}"));
    }
}

impl Observer for Progress {
    fn stop(&self) -> bool {
        interrupt::asked()
    }

    fn step(&mut self, row: &StepRow) {
        self.first.get_or_insert((row.step, Instant::now()));
        for (shown, new) in [(&mut self.loss, row.loss), (&mut self.rate, row.tokens_per_second)] {
            *shown = if shown.is_nan() { new } else { *shown + NEWEST * (new - *shown) };
        }
        let line = self.line(row);
        if self.bar.is_hidden() && (self.written.elapsed() >= QUIET || row.step == self.steps) {
            note!("{line}");
            self.written = Instant::now();
        }
        self.bar.set_position(row.step);
        self.bar.set_message(line);
    }

    fn validation(&mut self, row: &ValidationRow) {
        let source = row.source.map_or(String::new(), |source| format!(", source {source}"));
        let ValidationRow { step, block, nats, stderr, perplexity, .. } = row;
        self.note(&format!(
            "step {step}: {nats:.4} nats ± {stderr:.4}, perplexity {perplexity:.2} at block {block}{source}"
        ));
        // The line shows the size that is worst, usually the largest: the one that needs the most training.
        if self.bound.as_ref().is_none_or(|shown| shown.step != *step || shown.nats < *nats) {
            self.bound = Some(row.clone());
        }
    }

    fn saved(&mut self, _: u64) {
        // A picture that can't be drawn is no reason to lose a run.
        if let Err(error) = plot::draw(&self.dir.join("log.jsonl"), &self.dir.join("loss.svg")) {
            self.note(&format!("note: {error}"));
        }
    }
}
