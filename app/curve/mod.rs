//! `bd3 curve`: what each block size and rule costs and gives on this machine: speed, and how a judge likes the text. Here are flags
//! and the order of things; `grid.rs` says what is compared, `measure.rs` measures, `record.rs` keeps it, `report.rs` tells it.

mod grid;
mod labels;
mod measure;
mod picture;
mod record;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bd3::block::Layout;
use bd3::data::Wrap;
use bd3::engine::Options;
use bd3::engine::simd::Isa;
use bd3::format::write_atomic;
use bd3::{Error, Result};
use clap::Args;
use serde_json::{Map, Value, json};

use crate::eval::generated::Reader;
use crate::eval::texts;
use crate::model::{self, BUILT_IN_NAME, Model};
use crate::sample::SampleArgs;
use crate::{args, counts, digest, interrupt, view};

use measure::{Text, Way};
use record::Record;

/// Measure speed and quality over block sizes and rules, on this machine
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  bd3 curve --judge SmolLM2-135M-Instruct.Q4_1.gguf --data stories.jsonl")]
pub struct CurveArgs {
    /// A model folder or a .gguf file; default: the model inside the binary
    model: Option<PathBuf>,
    /// The model that reads what MODEL writes, or `tiny`, the one inside the binary; default: MODEL itself, at block size 1
    #[arg(long, value_name = "MODEL")]
    judge: Option<PathBuf>,
    /// Text that people wrote, to compare with: a folder made by `bd3 data`, or texts as `bd3 eval` takes them; may be given again
    #[arg(long, value_name = "DATA")]
    data: Vec<PathBuf>,
    /// Where points.jsonl, curve.json, curve.csv and curve.svg go; what a stopped command left there is gone on with
    #[arg(long, value_name = "DIR", default_value = "runs/curve")]
    out: PathBuf,
    /// Measure anew what is complete there or was made with other settings, and keep its points beside it
    #[arg(long)]
    again: bool,

    /// Block sizes, parted by commas; default: those that the model was trained at, up to 64
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = counts::some_size, help_heading = "What is compared")]
    block: Vec<usize>,
    /// Rules, parted by commas, of first-hitting, ancestral, confidence, entropy-bound, factor and threshold; default: all six
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', help_heading = "What is compared")]
    rule: Vec<String>,

    /// Samples of each point
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = counts::samples, help_heading = "Samples")]
    samples: u64,
    /// Their tokens
    #[arg(short, value_name = "N", default_value_t = 200, value_parser = counts::some_size, help_heading = "Samples")]
    n: usize,
    /// Everything random follows from it
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Samples")]
    seed: u64,
    /// More flags of `bd3 sample`
    #[arg(last = true, value_name = "SAMPLE FLAGS", allow_hyphen_values = true, help_heading = "Samples")]
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
}

/// The largest block size that is measured unasked: a pass over more positions is slow, and a curve takes many.
const LARGEST_UNASKED: usize = 64;

/// Runs the command.
pub fn run(args: &CurveArgs) -> anyhow::Result<()> {
    let entries = grid::of_rules(&args.rule)?;
    let model = model::open(args.model.as_deref())?;
    let blocks = args.blocks(&model)?;
    let ways =
        blocks.iter().flat_map(|&block| entries.iter().filter(move |e| block >= e.from).map(move |e| (block, e)));
    let ways = ways.map(|(block, entry)| args.way(block, entry)).collect::<Result<Vec<Way>>>()?;
    if ways.is_empty() {
        let expected = "a block size at which they differ from first hitting";
        return Err(Error::value("--block", expected, format!("{blocks:?}")).into());
    }
    // Refuses what the model can't do.
    ways.iter().try_for_each(|way| way.args.job(&model).map(|_| ()))?;
    let text = args.text(&model, &blocks)?;
    let own = args.model.as_deref().unwrap_or(Path::new(BUILT_IN_NAME));
    let reader = Reader::open(args.judge.as_deref().unwrap_or(own), args.engine())?;
    let settings = args.settings((&model, &reader.model), text.as_ref(), ways[0].args.engine().threads)?;
    let complete = Record::is_complete(&args.out);
    let mut record = match Record::open(&args.out, settings.clone()) {
        // Its lines tell of something else.
        Err(Error::Key { .. }) if args.again => Record::afresh(&args.out, settings.clone()),
        Ok(_) if args.again && complete => Record::afresh(&args.out, settings.clone()),
        opened => opened?,
    };
    blocks.iter().for_each(|&block| model.note_untrained(block));
    let engine = model.checkpoint.engine(ways[0].args.engine())?;
    interrupt::watch()?;
    let bench =
        measure::Bench { args, model: &model, engine: &engine, reader: &reader, text: text.as_ref(), ways: &ways };
    let Some(curve) = bench.run(&mut record, Value::Object(settings))? else {
        note!("stopped; the same command goes on from {}", args.out.join("points.jsonl").display());
        return Ok(());
    };
    for (name, content) in [
        ("curve.json", format!("{:#}\n", curve.json())),
        ("curve.csv", curve.csv()),
        ("curve.svg", picture::draw(&curve)),
    ] {
        write_atomic(&args.out.join(name), |out| out.write_all(content.as_bytes()))?;
    }
    if args.json {
        return Ok(view::print_json(&curve.json())?);
    }
    curve.notes().iter().for_each(|line| note!("{line}"));
    note!("{}", args.out.join("curve.svg").display());
    Ok(view::print(&format!("{}{}\n", curve.table(), curve.summary()))?)
}

/// How many lines the record of a curve has that is measured with these flags: a sample and its judgement, for each.
///
/// # Errors
/// Flags that are none; a model that has no such curve.
pub fn length(model: &Model, flags: &[String]) -> Result<usize> {
    let bare = args::parse::<Bare>(flags).map_err(|error| {
        let told = args::in_a_line(&error.to_string());
        Error::value("--curve-flags", "flags of bd3 curve", told.trim_start_matches("error: "))
    })?;
    let (entries, blocks) = (grid::of_rules(&bare.args.rule)?, bare.args.blocks(model)?);
    let ways = blocks.iter().map(|&block| entries.iter().filter(|entry| block >= entry.from).count());
    Ok(ways.sum::<usize>() * bare.args.samples as usize * 2)
}

/// The flags without a command in front.
#[derive(clap::Parser)]
#[command(no_binary_name = true)]
struct Bare {
    #[command(flatten)]
    args: CurveArgs,
}

impl CurveArgs {
    /// In ascending order.
    fn blocks(&self, model: &Model) -> Result<Vec<usize>> {
        let arch = &model.checkpoint.arch;
        let mut blocks = self.block.clone();
        if blocks.is_empty() {
            blocks = arch.block_sizes();
            blocks.push(arch.block);
            blocks.retain(|&block| arch.check_block(block).is_ok());
            let least = blocks.iter().copied().min().unwrap_or(arch.block);
            blocks.retain(|&block| block <= LARGEST_UNASKED.max(least));
        }
        blocks.sort_unstable();
        blocks.dedup();
        Ok(blocks)
    }

    fn engine(&self) -> Options {
        Options { exact: self.exact, threads: self.threads, isa: None }
    }

    /// The flags that all samples share.
    fn common(&self) -> Vec<String> {
        let own = ["-n".into(), self.n.to_string(), "--seed".into(), self.seed.to_string()];
        let exact = self.exact.then(|| "--exact".to_string());
        let threads = (self.threads > 0).then(|| ["--threads".into(), self.threads.to_string()]);
        own.into_iter().chain(self.sample.iter().cloned()).chain(exact).chain(threads.into_iter().flatten()).collect()
    }

    fn way(&self, block: usize, entry: &'static grid::Entry) -> Result<Way> {
        let flags = [self.common(), entry.at(block)].concat();
        Ok(Way { block, label: entry.label, args: SampleArgs::within(&flags)?, flags })
    }

    /// The text to compare with, if one is given.
    fn text(&self, model: &Model, blocks: &[usize]) -> Result<Option<Text>> {
        if self.data.is_empty() {
            return Ok(None);
        }
        let length = model.checkpoint.arch.length;
        blocks.iter().try_for_each(|&block| Layout::new(length, block).map(|_| ()))?;
        let shard = Arc::new(texts::shard(&self.data, None, model)?);
        let hash = digest::text(&shard);
        let pieces = texts::pieces(shard.clone(), self.n, self.samples as usize, model)?;
        Ok(Some(Text { rows: texts::rows(shard, Wrap::Stream, length, model)?, pieces, hash }))
    }

    /// All that the numbers follow from, but for the grid: points may be added to what is there.
    fn settings(
        &self,
        (model, judge): (&Model, &Model),
        text: Option<&Text>,
        threads: usize,
    ) -> Result<Map<String, Value>> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = json!({
            "bd3": env!("CARGO_PKG_VERSION"),
            "model": model.hash()?,
            "judge": judge.hash()?,
            "data": text.map(|text| text.hash.clone()),
            "flags": quoted(&self.common()),
            "threads": if threads == 0 { cores } else { threads },
            "instructions": Isa::best().name(),
        });
        match settings {
            Value::Object(settings) => Ok(settings),
            other => Err(Error::Run(format!("settings that are no object: {other}"))),
        }
    }

    /// The commands that give the numbers of a point again, each with what it gives.
    fn commands(&self, model: &Model, judge: &Model, way: &Way) -> Vec<(&'static str, String)> {
        let [model, judge, count] = [model.name.clone(), judge.name.clone(), self.samples.to_string()];
        let line = |words: &[&[&str]], flags: &[String]| {
            let words = words.concat().into_iter().map(str::to_string);
            quoted(&words.chain(flags.iter().cloned()).collect::<Vec<_>>())
        };
        let exact: &[&str] = if self.exact { &["--exact"] } else { &[] };
        let judged = ["bd3", "eval", &model, "--judge", &judge, "--generate", &count];
        let timed = ["bd3", "sample", &model, "--samples", &count, "--view", "json"];
        let mut commands =
            vec![("quality", line(&[&judged, exact, &["--"]], &way.flags)), ("speed", line(&[&timed], &way.flags))];
        if !self.data.is_empty() {
            let data: Vec<String> = self.data.iter().map(|path| path.display().to_string()).collect();
            let data: Vec<&str> = data.iter().map(String::as_str).collect();
            let block = way.block.to_string();
            commands.push(("bound", line(&[&["bd3", "eval", &model], &data, &["--block", &block], exact], &[])));
        }
        commands
    }
}

/// Words as a POSIX shell reads them back.
fn quoted(words: &[String]) -> String {
    words.iter().map(|word| view::quoted(word)).collect::<Vec<_>>().join(" ")
}
