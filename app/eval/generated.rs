//! `bd3 eval --judge`: how good the text is that a model writes. Another model reads it, or text that people wrote, in pieces as
//! long as the samples.

use std::path::Path;
use std::sync::Arc;

use bd3::engine::{Engine, Options};
use bd3::likelihood::RowNats;
use bd3::likelihood::judge::{Judge, Passage, Quality, passages};
use bd3::{Error, Result};
use serde_json::{Value, json};

use super::{EvalArgs, names, texts};
use crate::generate::{self, Sample};
use crate::model::{self, Model};
use crate::sample::SampleArgs;
use crate::view;

/// Samples where none are asked for.
const SAMPLES: u64 = 16;

/// What is known of some texts.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Perplexity, entropy, repetition.
    pub quality: Quality,
    /// Tokens of the model that wrote.
    pub tokens: usize,
    /// Forward evaluations; absent where people wrote.
    pub passes: Option<u64>,
}

impl Figures {
    /// From samples and what a judge found.
    pub fn of_samples(judged: Vec<RowNats>, samples: &[Sample]) -> Result<Self> {
        let passes = Some(samples.iter().map(|sample| sample.passes).sum());
        Self::new(judged, &samples.iter().map(|sample| &sample.ids[..]).collect::<Vec<_>>(), passes)
    }

    /// From pieces of a text and what a judge found.
    pub fn of_text(judged: Vec<RowNats>, pieces: &[Vec<u32>]) -> Result<Self> {
        Self::new(judged, &pieces.iter().map(|ids| &ids[..]).collect::<Vec<_>>(), None)
    }

    fn new(judged: Vec<RowNats>, ids: &[&[u32]], passes: Option<u64>) -> Result<Self> {
        let tokens = ids.iter().map(|ids| ids.len()).sum();
        Ok(Self { quality: Quality::new(judged, ids.iter().copied())?, tokens, passes })
    }

    /// Tokens that a pass makes known.
    pub fn tokens_per_pass(&self) -> Option<f64> {
        self.passes.map(|passes| self.tokens as f64 / passes as f64)
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let Self { quality, tokens, passes } = self;
        json!({
            "samples": quality.judged.rows.len(),
            "nats": quality.judged.nats(),
            "perplexity": quality.judged.perplexity(),
            "stderr": quality.perplexity_stderr(),
            "judge_tokens": quality.judged.tokens(),
            "entropy": quality.entropy,
            "repetition": quality.repetition,
            "tokens": tokens,
            "passes": passes,
            "tokens_per_pass": self.tokens_per_pass(),
        })
    }
}

/// A MODEL that judges.
pub struct Reader {
    /// The files.
    pub model: Model,
    engine: Engine,
}

impl Reader {
    /// Opens it.
    ///
    /// # Errors
    /// Files that hold no model that the engine runs.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        let model = model::open(Some(path))?;
        // A masked model reads at block size 1; a next-token model has no other.
        if model.checkpoint.arch.check_block(1).is_ok() {
            model.note_untrained(1);
        }
        let engine = model.checkpoint.engine(options)?;
        Ok(Self { model, engine })
    }

    /// Reads texts of a model of this tokenizer, each behind the prompt.
    ///
    /// # Errors
    /// As [`Judge::read`].
    pub fn read<'a>(
        &self,
        writer: &Model,
        prompt: &str,
        texts: impl Iterator<Item = &'a [u32]>,
    ) -> Result<Vec<RowNats>> {
        let samples: Vec<Vec<Passage>> = texts.map(|ids| passages(ids, prompt, &writer.tokenizer)).collect();
        Judge::new(&self.engine, &self.model.tokenizer).read(&samples)
    }
}

/// One line of the result.
struct Row {
    text: &'static str,
    block: Option<usize>,
    figures: Figures,
}

/// Runs the command.
pub fn run(args: &EvalArgs, judge: &Path) -> anyhow::Result<()> {
    let writers = writers(args)?;
    let count = args.generate.unwrap_or(SAMPLES);
    let model = model::open(Some(&args.model))?;
    let jobs = writers.iter().map(|writer| writer.job(&model)).collect::<Result<Vec<_>>>()?;
    if jobs[0].options.max_new == 0 {
        return Err(Error::value("-n", "at least 1", "0").into());
    }
    jobs.iter().for_each(|job| model.note_untrained(job.options.block));
    let pieces = match args.data.is_empty() {
        true => Vec::new(),
        false => {
            let shard = Arc::new(texts::shard(&args.data, args.split, &model)?);
            texts::pieces(shard, jobs[0].options.max_new, count as usize, &model)?
        }
    };
    let reader = Reader::open(judge, args.engine())?;
    let mut rows = Vec::new();
    if !pieces.is_empty() {
        let judged = reader.read(&model, "", pieces.iter().map(|ids| &ids[..]))?;
        rows.push(Row { text: "held out", block: None, figures: Figures::of_text(judged, &pieces)? });
    }
    let engine = model.checkpoint.engine(shared(args.engine(), writers[0].engine()))?;
    for job in &jobs {
        let bar = super::bar(&format!("block {}", job.options.block), "samples", count)?;
        let samples = generate::side_by_side(job, &engine, count, |done| bar.set_position(done))?;
        bar.finish_and_clear();
        let prompt = job.prompt.as_deref().unwrap_or_default();
        let judged = reader.read(&model, prompt, samples.iter().map(|sample| &sample.ids[..]))?;
        let figures = Figures::of_samples(judged, &samples)?;
        rows.push(Row { text: "samples", block: Some(job.options.block), figures });
    }
    if args.json {
        let told: Vec<Value> = rows.iter().map(object).collect();
        let object = json!({"model": model.name, "judge": reader.model.name, "data": names(&args.data), "rows": told});
        return Ok(view::print_json(&object)?);
    }
    let header = "text      block  samples  perplexity  stderr  entropy  repetition   tokens  tokens/pass\n";
    Ok(view::print(&rows.iter().map(line).fold(header.to_string(), |table, line| table + &line))?)
}

/// The flags of each block size.
fn writers(args: &EvalArgs) -> Result<Vec<SampleArgs>> {
    let flags = SampleArgs::within(&args.sample)?;
    if args.block.is_empty() {
        return Ok(vec![flags]);
    }
    if flags.block.is_some() {
        return Err(Error::value("--block", "one of them, before or after --", "two"));
    }
    let at = |&block: &usize| {
        let mut flags = flags.clone();
        flags.block = Some(block);
        flags
    };
    Ok(args.block.iter().map(at).collect())
}

/// How the writer runs: as the judge does, but for what its own flags say.
fn shared(judge: Options, writer: Options) -> Options {
    let threads = if writer.threads == 0 { judge.threads } else { writer.threads };
    Options { exact: judge.exact || writer.exact, threads, ..writer }
}

fn object(row: &Row) -> Value {
    let mut object = json!({"text": row.text, "block": row.block});
    if let (Value::Object(object), Value::Object(figures)) = (&mut object, row.figures.json()) {
        object.extend(figures);
    }
    object
}

fn line(row: &Row) -> String {
    let Figures { quality, tokens, .. } = &row.figures;
    let or_none = |number: Option<String>| number.unwrap_or("-".into());
    // One sample has no spread, and one too short for a repetition no share of them.
    let told = |number: f64, digits| or_none((!number.is_nan()).then(|| format!("{number:.digits$}")));
    format!(
        "{:8} {:>6} {:>8} {:>11.2} {:>7} {:>8.3} {:>11} {tokens:>8} {:>12}\n",
        row.text,
        or_none(row.block.map(|block| block.to_string())),
        quality.judged.rows.len(),
        quality.judged.perplexity(),
        told(quality.perplexity_stderr(), 2),
        quality.entropy,
        told(quality.repetition, 3),
        or_none(row.figures.tokens_per_pass().map(|rate| format!("{rate:.2}"))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, parse};

    #[test]
    fn flags_of_the_engine_are_the_writers_too() {
        let engine = |flags: &[&str]| {
            let words = [&["bd3", "eval", "tiny", "--judge", "tiny"], flags].concat();
            let Some(Command::Eval(args)) = parse::<Cli>(words).unwrap().command else { panic!("bd3 eval") };
            let options = shared(args.engine(), writers(&args).unwrap()[0].engine());
            (options.exact, options.threads)
        };
        assert_eq!(engine(&["--exact", "--threads", "2", "--", "-n", "8"]), (true, 2));
        assert_eq!(engine(&["--threads", "2", "--", "--exact", "--threads", "3"]), (true, 3));
        assert_eq!(engine(&[]), (false, 0));
    }
}
