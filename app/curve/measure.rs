//! The measuring itself. Samples are made one at a time, in rounds over all ways to write, so that a machine which is slow for a
//! while is slow for all of them; medians forget the rest. The judge reads afterwards.

use std::collections::BTreeSet;

use bd3::data::Packing;
use bd3::engine::Engine;
use bd3::likelihood::{Estimator, Measure, RowNats};
use bd3::{Error, Result};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::CurveArgs;
use super::record::{Bound, Line, Record};
use super::report::{Curve, Point};
use crate::eval::generated::{Figures, Reader};
use crate::eval::{likelihood, side_by_side};
use crate::generate::{self, Sample, Times};
use crate::model::Model;
use crate::sample::SampleArgs;
use crate::{bench, interrupt};

/// A way to write.
pub struct Way {
    pub block: usize,
    pub label: &'static str,
    pub args: SampleArgs,
    /// The flags that `args` came from.
    pub flags: Vec<String>,
}

/// Text that people wrote.
pub struct Text {
    /// For the bound.
    pub rows: Packing,
    /// As long as samples, for the judge.
    pub pieces: Vec<Vec<u32>>,
    pub hash: String,
}

/// All that measures.
pub struct Bench<'a> {
    pub args: &'a CurveArgs,
    pub model: &'a Model,
    pub engine: &'a Engine,
    pub reader: &'a Reader,
    pub text: Option<&'a Text>,
    pub ways: &'a [Way],
}

impl Bench<'_> {
    /// Measures what the record lacks; `None` when the user asked to stop.
    ///
    /// # Errors
    /// When a model fails, or the record can't be written.
    pub fn run(&self, record: &mut Record, settings: Value) -> anyhow::Result<Option<Curve>> {
        if !self.write(record)? || !self.bounds(record)? || !self.judge(record)? {
            return Ok(None);
        }
        let held_out = match self.text {
            Some(text) => {
                let count = text.pieces.len() as u64;
                Some(Figures::of_text(judged(record, &held_out(count), count)?, &text.pieces)?)
            }
            None => None,
        };
        let mut points: Vec<Point> = Vec::with_capacity(self.ways.len());
        let base = self.rates(record, &self.ways[0])?;
        for way in self.ways {
            points.push(self.point(record, way, &base)?);
        }
        let (model, judge) = (self.model.name.clone(), self.reader.model.name.clone());
        let own_judge = self.args.judge.is_none();
        let mut curve = Curve { model, judge, own_judge, settings, held_out, points };
        curve.mark();
        Ok(Some(curve))
    }

    /// Round by round, a sample of each way.
    fn write(&self, record: &mut Record) -> anyhow::Result<bool> {
        let bar = bar("writing", self.ways.len() as u64 * self.args.samples)?;
        let mut warm = false;
        for index in 0..self.args.samples {
            for way in self.ways {
                let flags = way.name();
                if record.sample(&flags, index).is_none() {
                    let job = way.args.job(self.model)?;
                    if !warm {
                        // The first sample of a program waits for memory and clock.
                        generate::alone(&job, self.engine, index)?;
                        warm = true;
                    }
                    bar.set_message(format!("writing, block {}, {}", way.block, way.label));
                    let Some((sample, times)) = generate::alone(&job, self.engine, index)? else {
                        return stopped(&bar);
                    };
                    let (seconds, first_block_seconds) = (times.seconds, times.first_block);
                    let Sample { ids, passes } = sample;
                    record.push(Line::Sample { flags, index, ids, passes, seconds, first_block_seconds })?;
                }
                bar.inc(1);
            }
        }
        bar.finish_and_clear();
        Ok(true)
    }

    /// Of the text held out, at each block size.
    fn bounds(&self, record: &mut Record) -> anyhow::Result<bool> {
        let Some(text) = self.text else { return Ok(true) };
        for block in self.ways.iter().map(|way| way.block).collect::<BTreeSet<usize>>() {
            if interrupt::asked() {
                return Ok(false);
            }
            if record.bound(block).is_none() {
                // As `bd3 eval` does unasked.
                let (estimator, batch) = (Estimator::Subset, side_by_side(block));
                let found =
                    likelihood(self.engine, &text.rows, &Measure { block, draws: 1, estimator, batch, seed: 1 })?;
                let stderr = Some(found.stderr()).filter(|stderr| stderr.is_finite());
                let (exact, nats, perplexity) = (found.exact, found.nats(), found.perplexity());
                record.push(Line::Bound(Bound { block, exact, nats, stderr, perplexity }))?;
            }
        }
        Ok(true)
    }

    /// The judge reads the text held out and all samples.
    fn judge(&self, record: &mut Record) -> anyhow::Result<bool> {
        let bar = bar("judging", self.ways.len() as u64 + 1)?;
        if let Some(text) = self.text {
            let name = held_out(text.pieces.len() as u64);
            self.read(record, &name, "", &text.pieces)?;
        }
        bar.inc(1);
        for way in self.ways {
            if interrupt::asked() {
                return stopped(&bar);
            }
            bar.set_message(format!("judging, block {}, {}", way.block, way.label));
            let prompt = way.args.job(self.model)?.prompt.unwrap_or_default();
            let ids: Vec<Vec<u32>> = self.samples(record, way)?.into_iter().map(|(sample, _)| sample.ids).collect();
            self.read(record, &way.name(), &prompt, &ids)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(true)
    }

    fn read(&self, record: &mut Record, name: &str, prompt: &str, ids: &[Vec<u32>]) -> Result<()> {
        let missing: Vec<usize> = (0..ids.len()).filter(|&i| record.judged(name, i as u64).is_none()).collect();
        let found = self.reader.read(self.model, prompt, missing.iter().map(|&i| &ids[i][..]))?;
        for (index, RowNats { nats, tokens }) in missing.into_iter().zip(found) {
            record.push(Line::Judged { text: name.into(), index: index as u64, nats, tokens })?;
        }
        Ok(())
    }

    fn samples(&self, record: &Record, way: &Way) -> Result<Vec<(Sample, Times)>> {
        let flags = way.name();
        let sample = |index| record.sample(&flags, index).cloned().ok_or_else(|| lost(&flags));
        (0..self.args.samples).map(sample).collect()
    }

    /// Tokens per second of each sample.
    fn rates(&self, record: &Record, way: &Way) -> Result<Vec<f64>> {
        let samples = self.samples(record, way)?;
        Ok(samples.iter().map(|(sample, times)| sample.ids.len() as f64 / times.seconds).collect())
    }

    /// `base`: rates of the first way, which this one's are compared with, round by round.
    fn point(&self, record: &Record, way: &Way, base: &[f64]) -> Result<Point> {
        let (samples, times): (Vec<Sample>, Vec<Times>) = self.samples(record, way)?.into_iter().unzip();
        let mut rates = self.rates(record, way)?;
        let mut speeds: Vec<f64> = rates.iter().zip(base).map(|(rate, base)| rate / base).collect();
        let mut firsts: Vec<f64> = times.iter().map(|times| times.first_block).collect();
        Ok(Point {
            block: way.block,
            label: way.label,
            figures: Figures::of_samples(judged(record, &way.name(), self.args.samples)?, &samples)?,
            bound: record.bound(way.block),
            tokens_per_second: bench::median(&mut rates),
            speed: bench::median(&mut speeds),
            first_block: bench::median(&mut firsts),
            commands: self.args.commands(self.model, &self.reader.model, way),
            low_entropy: false,
            front: false,
        })
    }
}

impl Way {
    /// Its name in the record.
    fn name(&self) -> String {
        super::quoted(&self.flags)
    }
}

/// The name of the pieces of text in the record: which they are depends on their number.
fn held_out(count: u64) -> String {
    format!("held out, {count} pieces")
}

fn judged(record: &Record, name: &str, count: u64) -> Result<Vec<RowNats>> {
    (0..count).map(|index| record.judged(name, index).ok_or_else(|| lost(name))).collect()
}

fn lost(name: &str) -> Error {
    Error::Run(format!("what was measured of `{name}` is not there any more"))
}

fn bar(what: &str, count: u64) -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len}, {eta} left: {msg}");
    let bar = ProgressBar::new(count).with_style(style.map_err(|e| Error::Run(e.to_string()))?);
    bar.set_message(what.to_string());
    Ok(bar)
}

fn stopped(bar: &ProgressBar) -> anyhow::Result<bool> {
    bar.finish_and_clear();
    Ok(false)
}
