//! `bd3 eval`: how likely a text is under a model, or how good the texts are that it writes (`generated.rs`). The measuring is the
//! library's; here are flags, progress, the table.

pub mod generated;
pub mod texts;

use std::path::PathBuf;
use std::sync::Arc;

use bd3::arch::{Arch, Objective};
use bd3::data::{Packing, Wrap};
use bd3::engine::Options;
use bd3::likelihood::{Estimator, Likelihood, Measure, Scorer, measure};
use bd3::{Error, Result};
use burn::tensor::Device;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::{counts, model, view};

use texts::SplitName;

/// Measure how likely a text is, bound or exact value, at any block size; with --judge, how good a model's own texts are
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bd3 eval runs/toy/model data/toy --block 1,4,16 --draws 4\n  \
                  bd3 eval tiny --judge SmolLM2-135M-Instruct.Q4_1.gguf --generate 16 --block 4 -- -n 200 --top-p 0.95")]
pub struct EvalArgs {
    /// A model folder, a .gguf file, or `tiny`, the model inside the binary
    model: PathBuf,
    /// A folder made by `bd3 data`, or texts: .txt, .text, .md, .jsonl and .ndjson, plain, gzip or zstd
    #[arg(value_name = "DATA", required_unless_present = "judge")]
    data: Vec<PathBuf>,

    /// Which split of a data folder; default: test
    #[arg(long, value_enum, requires = "data", help_heading = "Text")]
    split: Option<SplitName>,
    /// How documents become rows: stream, documents, starts, official, official-special
    #[arg(long, value_name = "NAME", default_value = "stream", help_heading = "Text")]
    wrap: String,
    /// Tokens in a row, at most the training length, which is the default
    #[arg(long, value_name = "N", help_heading = "Text")]
    length: Option<usize>,

    /// Block sizes, parted by commas; default: the model's own
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = counts::some_size, help_heading = "Measure")]
    block: Vec<usize>,
    /// How often each row is noised
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = counts::size, help_heading = "Measure")]
    draws: usize,
    /// Draw subsets (the noise level integrated out), or noise levels as in the paper
    #[arg(long, value_enum, default_value_t = EstimatorName::Subset, help_heading = "Measure")]
    estimator: EstimatorName,
    /// Seed of the draws
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Measure")]
    seed: u64,
    /// Rows of text side by side; the figures do not depend on it; default: as many as make a pass efficient
    #[arg(long, value_name = "N", value_parser = counts::size, help_heading = "Measure")]
    batch: Option<usize>,

    /// Judge texts that MODEL writes: this model (or `tiny`) reads them, a masked one at block size 1. DATA, if given, is judged beside them
    #[arg(
        long,
        value_name = "MODEL",
        help_heading = "Samples",
        conflicts_with_all = ["wrap", "length", "draws", "estimator", "seed", "batch"]
    )]
    judge: Option<PathBuf>,
    /// How many samples; default: 16
    #[arg(long, value_name = "N", requires = "judge", value_parser = counts::samples, help_heading = "Samples")]
    generate: Option<u64>,
    /// How they are written: flags of `bd3 sample`
    #[arg(last = true, value_name = "SAMPLE FLAGS", requires = "judge", allow_hyphen_values = true)]
    sample: Vec<String>,

    /// f32 throughout: no quantised activations, no half-precision cache
    #[arg(long, help_heading = "Engine")]
    exact: bool,
    /// Threads; default: one for each core
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = counts::threads, help_heading = "Engine")]
    threads: usize,

    /// One JSON object instead of a table
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// In it, nats, tokens and document of every row of text too, so that models can be compared row by row
    #[arg(long, help_heading = "Output", requires = "json", conflicts_with = "judge")]
    each: bool,
}

/// Open rows of a pass that make it efficient: the weights are read once for all of them.
const PASS_ROWS: usize = 64;
/// Rows of text side by side, at most: each has a cache of its own.
const MOST_LANES: usize = 16;

/// See [`Estimator`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EstimatorName {
    Subset,
    Official,
}

/// One line of the result.
struct Row {
    block: usize,
    found: Likelihood,
    /// Absent where the wrapping drops text.
    bits_per_byte: Option<f64>,
}

/// Runs the command.
pub fn run(args: &EvalArgs) -> anyhow::Result<()> {
    if let Some(judge) = &args.judge {
        return generated::run(args, judge);
    }
    let wrap = Wrap::named(&args.wrap)?;
    let model = model::open(Some(&args.model))?;
    let arch = &model.checkpoint.arch;
    let (length, blocks) = (args.length(arch)?, args.blocks(arch));
    for &block in &blocks {
        bd3::block::Layout::new(length, block)?;
        arch.check_block(block)?;
        model.note_untrained(block);
    }
    let shard = Arc::new(texts::shard(&args.data, args.split, &model)?);
    let text = texts::rows(shard, wrap, length, &model)?;
    if text.rows() == 1 {
        note!("note: one row of {length} tokens holds the text, so no standard error (--length makes rows shorter)");
    }
    let measure_all = |scorer: &dyn Fn(usize) -> Result<Likelihood>| {
        let bits = |found: &Likelihood| bits_per_byte(found, &text, wrap);
        let row = |&block: &usize| scorer(block).map(|found| Row { block, bits_per_byte: bits(&found), found });
        blocks.iter().map(row).collect::<Result<Vec<Row>>>()
    };
    let rows = if arch.objective == Objective::Score {
        args.refuse_engine_flags()?;
        let network = model.checkpoint.model(&Device::flex())?;
        measure_all(&|block| likelihood(&network, &text, &args.measure(block)))?
    } else {
        let engine = model.checkpoint.engine(args.engine())?;
        measure_all(&|block| likelihood(&engine, &text, &args.measure(block)))?
    };
    if args.json {
        let rows: Vec<Value> = rows.iter().map(|row| object(row, args.each)).collect();
        return Ok(view::print_json(&json!({"model": model.name, "data": names(&args.data), "rows": rows}))?);
    }
    let header = "block  kind       nats    stderr  perplexity  bits/byte     tokens  draws\n";
    Ok(view::print(&rows.iter().map(line).fold(header.to_string(), |table, line| table + &line))?)
}

impl EvalArgs {
    /// Tokens in a row.
    fn length(&self, arch: &Arch) -> Result<usize> {
        match self.length {
            None => Ok(arch.length),
            Some(length) if (2..=arch.length).contains(&length) => Ok(length),
            Some(length) => {
                let expected = format!("2 to {} (the training length)", arch.length);
                Err(Error::value("--length", expected, length.to_string()))
            }
        }
    }

    fn blocks(&self, arch: &Arch) -> Vec<usize> {
        if self.block.is_empty() { vec![arch.block] } else { self.block.clone() }
    }

    fn measure(&self, block: usize) -> Measure {
        let estimator = match self.estimator {
            EstimatorName::Subset => Estimator::Subset,
            EstimatorName::Official => Estimator::Official,
        };
        let batch = self.batch.unwrap_or_else(|| side_by_side(block));
        Measure { block, draws: self.draws, estimator, batch, seed: self.seed }
    }

    fn engine(&self) -> Options {
        Options { exact: self.exact, threads: self.threads, isa: None }
    }

    /// The network alone knows score entropy.
    fn refuse_engine_flags(&self) -> Result<()> {
        for (name, given) in [("--exact", self.exact), ("--threads", self.threads > 0)] {
            if given {
                let expected = "a model that the engine runs";
                return Err(Error::value(name, expected, "a score-entropy model, which runs in f32 on all cores"));
            }
        }
        Ok(())
    }
}

/// Measures all rows of a text.
///
/// # Errors
/// As [`measure`].
pub fn likelihood(scorer: &impl Scorer, text: &Packing, how: &Measure) -> Result<Likelihood> {
    let bar = bar(&format!("block {}", how.block), "rows", text.rows() as u64)?;
    let found = measure(scorer, text, 0..text.rows(), how, |done| {
        bar.set_position(done as u64);
        true
    })?;
    bar.finish_and_clear();
    Ok(found)
}

/// Rows of text side by side where nobody says how many.
pub fn side_by_side(block: usize) -> usize {
    (PASS_ROWS / block).clamp(1, MOST_LANES)
}

/// A line of progress: of `what`, so many of `things` are done.
fn bar(what: &str, things: &str, count: u64) -> Result<ProgressBar> {
    let bar = ProgressBar::new(count);
    let style = ProgressStyle::with_template(&format!("{{msg}} {{bar:30}} {{pos}}/{{len}} {things}, {{eta}} left"));
    bar.set_style(style.map_err(|e| Error::Run(e.to_string()))?);
    bar.set_message(what.to_string());
    Ok(bar)
}

/// Absent where the wrapping drops or repeats text.
fn bits_per_byte(found: &Likelihood, text: &Packing, wrap: Wrap) -> Option<f64> {
    let bytes = (0..text.shard().documents()).map(|document| text.shard().document_bytes(document)).sum();
    let whole = !matches!(wrap, Wrap::Official { .. } | Wrap::Starts);
    whole.then(|| found.bits_per_byte(bytes))
}

fn kind(found: &Likelihood) -> &'static str {
    if found.exact { "exact" } else { "bound" }
}

fn object(row: &Row, each: bool) -> Value {
    let found = &row.found;
    let mut object = json!({
        "block": row.block,
        "kind": kind(found),
        "nats": found.nats(),
        "stderr": found.stderr(),
        "perplexity": found.perplexity(),
        "bits_per_byte": row.bits_per_byte,
        "tokens": found.tokens(),
        "draws": found.draws,
    });
    if each {
        let rows = found.rows.iter().zip(&found.documents);
        object["each"] = rows.map(|(row, document)| json!([row.nats, row.tokens, document])).collect();
    }
    object
}

fn line(row: &Row) -> String {
    let found = &row.found;
    // One row has no spread.
    let stderr = if found.stderr().is_nan() { "-".into() } else { format!("{:.4}", found.stderr()) };
    let bits = row.bits_per_byte.map_or("-".into(), |bits| format!("{bits:.4}"));
    format!(
        "{:>5}  {:5} {:>9.4} {stderr:>9} {:>11.3} {bits:>10} {:>10} {:>6}\n",
        row.block,
        kind(found),
        found.nats(),
        found.perplexity(),
        found.tokens(),
        found.draws,
    )
}

fn names(paths: &[PathBuf]) -> Value {
    match paths {
        [] => Value::Null,
        [path] => json!(path),
        paths => json!(paths),
    }
}
