//! `bd3 bench pass`: one pass at a time, as a share of the roofline: the time that reading its bytes or making its operations
//! takes at the least, whichever is longer, by the time that it took.

use std::fmt;
use std::time::Instant;

use bd3::arch::{Arch, Objective, Shape};
use bd3::engine::{Engine, KeyValues, Precision};
use bd3::format::Type;
use bd3::pass::{Ask, Cache, Denoiser, Filter, Lane};
use bd3::{Error, Result};
use clap::Args;
use serde_json::{Value, json};

use super::ceilings::{Ceilings, Machine};
use super::median;
use super::subject::{Subject, SubjectArgs, format, ids};
use crate::{counts, view};

/// `bd3 bench pass`
#[derive(Args, Debug)]
pub struct PassArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Types of the random weights: f32, f16, bf16, q8_0, q4_0, q4_1, q4_k, q6_k
    #[arg(long, value_name = "NAME,...", value_parser = format, value_delimiter = ',', default_value = "q8_0",
        conflicts_with = "model")]
    format: Vec<Type>,
    /// Rows of a pass: open positions, all asked for; of an autoregressive model stored ids, the last one asked for
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "1,2,4,8,16,32", value_parser = counts::size)]
    rows: Vec<usize>,
    /// Positions in the cache
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_value = "0,256,1024", value_parser = counts::size)]
    depth: Vec<usize>,
    /// Passes that are timed for each row of the table; default: as many as a second holds
    #[arg(long, value_name = "N", value_parser = counts::size)]
    repeat: Option<usize>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Rows of a pass, at most.
const MOST_ROWS: usize = 1024;
/// Positions in a cache, at most.
const DEEPEST: usize = 1 << 20;
/// Ids that are stored at a time to fill a cache.
const PIECE: usize = 64;
/// Seconds for each row of the table.
const SECONDS: f64 = 1.0;

/// Runs the command.
pub fn run(args: &PassArgs) -> anyhow::Result<()> {
    if let Some(&found) = args.rows.iter().find(|rows| !(1..=MOST_ROWS).contains(*rows)) {
        return Err(Error::value("--rows", format!("1 to {MOST_ROWS}"), found.to_string()).into());
    }
    if let Some(&found) = args.depth.iter().find(|depth| **depth > DEEPEST) {
        return Err(Error::value("--depth", format!("at most {DEEPEST}"), found.to_string()).into());
    }
    args.format.iter().try_for_each(|&format| args.subject.check(format))?;
    if args.repeat == Some(0) {
        return Err(Error::value("--repeat", "at least 1", "0").into());
    }
    let (isa, threads) = (args.subject.isa(), args.subject.threads());
    let machine = Machine::new(isa, threads)?;
    let formats = if args.subject.model.is_some() { &args.format[..1] } else { &args.format };
    let mut all = Vec::new();
    let mut name = String::new();
    for (index, &format) in formats.iter().enumerate() {
        let subject = args.subject.open(format)?;
        if index == 0 && !args.json {
            view::print(&format!("{}, {} threads, {}\n{HEAD}\n", subject.name, threads, isa.name()))?;
        }
        for &depth in &args.depth {
            let mut bench = Bench::new(&subject.engine, depth)?;
            for &rows in &args.rows {
                let row = bench.row(&subject, rows, &machine, args.repeat)?;
                if !args.json {
                    view::print(&format!("{row}\n"))?;
                }
                all.push(row);
            }
        }
        name = subject.name;
    }
    let of = |what: fn(&Row) -> f64| median(&mut all.iter().map(what).collect::<Vec<_>>());
    let [read, floats, bytes] =
        [of(|row| row.ceilings.read), of(|row| row.ceilings.floats), of(|row| row.ceilings.bytes)];
    let ceilings = Ceilings { read, floats, bytes };
    let text = if args.json {
        let rows: Vec<Value> = all.iter().map(Row::json).collect();
        json!({ "shape": name, "isa": isa.name(), "threads": threads, "ceilings": told(ceilings), "rows": rows })
            .to_string()
    } else {
        let (read, floats, bytes) = (read / 1e9, floats / 1e9, bytes / 1e9);
        format!("ceilings: read {read:.1} GB/s, f32 {floats:.0} GFLOP/s, int8 {bytes:.0} GOP/s")
    };
    Ok(view::print(&format!("{text}\n"))?)
}

fn told(ceilings: Ceilings) -> Value {
    json!({
        "read_gb_s": ceilings.read / 1e9,
        "f32_gflop_s": ceilings.floats / 1e9,
        "int8_gop_s": ceilings.bytes / 1e9,
    })
}

/// What a pass can't do without.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Needs {
    /// Bytes of weights and of keys and values that are read.
    bytes: f64,
    /// Multiplications and additions.
    ops: f64,
}

impl Needs {
    /// `packed`: bytes of the weights that a pass reads. A row of an autoregressive model sees the rows before it, and only the
    /// last one goes on after the keys and values of the last layer; the rows of a block see each other, and all are asked for.
    fn new(arch: &Arch, packed: usize, precision: Precision, (rows, depth): (usize, usize)) -> Self {
        let causal = arch.objective == Objective::NextToken;
        let (queries, keys) = (arch.heads * arch.head_dim(), arch.kv_heads() * arch.head_dim());
        let branches = if matches!(arch.shape, Shape::Dit(_)) { 2 } else { 3 };
        let before = arch.hidden * 2 * keys;
        let after = 2 * arch.hidden * queries + branches * arch.hidden * arch.feed_forward();
        let pairs = |rows: usize| rows * depth + if causal { rows * (rows + 1) / 2 } else { rows * rows };
        let asked = if causal { 1 } else { rows };
        let last_pairs = if causal { depth + rows } else { pairs(rows) };
        let products =
            rows * (arch.layers * before + (arch.layers - 1) * after) + asked * (after + arch.hidden * arch.vocab);
        let attention = 2 * queries * ((arch.layers - 1) * pairs(rows) + last_pairs);
        let cache = depth * arch.layers * 2 * keys * precision.bytes();
        Self { bytes: (packed + cache) as f64, ops: 2.0 * (products + attention) as f64 }
    }

    /// Seconds at the least.
    fn least(self, ceilings: Ceilings) -> f64 {
        (self.bytes / ceilings.read).max(self.ops / ceilings.best())
    }
}

/// A cache of some depth, and passes over it.
struct Bench<'a> {
    engine: &'a Engine,
    cache: KeyValues,
    depth: usize,
}

impl<'a> Bench<'a> {
    fn new(engine: &'a Engine, depth: usize) -> Result<Self> {
        // A pass takes the same time whatever the size of the blocks that it stored; blocks of one allow every depth.
        let mut cache = engine.cache(1);
        let ask = Ask::none();
        let ids = ids(engine, depth);
        for store in ids.chunks(PIECE) {
            engine.pass(&mut [Lane::new(&mut cache, store, &[], &ask)])?;
        }
        Ok(Self { engine, cache, depth })
    }

    /// Times passes and ceilings in turn.
    fn row(&mut self, subject: &Subject, rows: usize, machine: &Machine, repeat: Option<usize>) -> Result<Row> {
        let arch = self.engine.arch();
        let causal = arch.objective == Objective::NextToken;
        let mask = self.engine.mask_id();
        let (store, open) = if causal { (ids(self.engine, rows), vec![mask]) } else { (Vec::new(), vec![mask; rows]) };
        let asked: Vec<usize> = (0..open.len()).collect();
        let ask = Ask::new(asked.clone(), vec![0.5; asked.len()], Filter::GREEDY);
        let mut once = || {
            let start = Instant::now();
            self.engine.pass(&mut [Lane::new(&mut self.cache, &store, &open, &ask)])?;
            let seconds = start.elapsed().as_secs_f64();
            self.cache.truncate(self.depth);
            Ok(seconds)
        };
        once()?;
        let start = Instant::now();
        machine.measure();
        let turn = start.elapsed().as_secs_f64() + 2.0 * once()?;
        let turns = repeat.unwrap_or_else(|| ((SECONDS / turn) as usize).max(5));
        let mut samples = [const { Vec::new() }; 4];
        for _ in 0..turns {
            let Ceilings { read, floats, bytes } = machine.measure();
            // The first pass after something else finds the caches full of that.
            once()?;
            for (samples, sample) in samples.iter_mut().zip([read, floats, bytes, once()?]) {
                samples.push(sample);
            }
        }
        let [read, floats, bytes, seconds] = samples.each_mut().map(|samples| median(samples));
        let precision = if subject.exact { Precision::Single } else { Precision::Half };
        let needs = Needs::new(arch, self.engine.read_bytes(), precision, (rows, self.depth));
        let format = subject.format.clone();
        Ok(Row { format, rows, depth: self.depth, seconds, needs, ceilings: Ceilings { read, floats, bytes } })
    }
}

/// A row of the table.
struct Row {
    format: String,
    rows: usize,
    depth: usize,
    seconds: f64,
    needs: Needs,
    ceilings: Ceilings,
}

impl Row {
    fn share(&self) -> f64 {
        self.needs.least(self.ceilings) / self.seconds
    }

    fn json(&self) -> Value {
        json!({
            "format": self.format,
            "rows": self.rows,
            "depth": self.depth,
            "ms": self.seconds * 1e3,
            "bytes": self.needs.bytes,
            "ops": self.needs.ops,
            "share": self.share(),
            "ceilings": told(self.ceilings),
        })
    }
}

/// Above the columns of a [`Row`].
const HEAD: &str = "format      rows   depth        ms    GB/s   GOP/s   share  limit";

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bytes, ops) = (self.needs.bytes / self.seconds, self.needs.ops / self.seconds);
        let limit = if self.needs.bytes / self.ceilings.read > self.needs.ops / self.ceilings.best() {
            "read"
        } else if self.ceilings.bytes > self.ceilings.floats {
            "int8"
        } else {
            "f32"
        };
        write!(f, "{:<10}{:>6}{:>8}{:>10.3}", self.format, self.rows, self.depth, self.seconds * 1e3)?;
        write!(f, "{:>8.1}{:>8.0}{:>8.2}  {limit}", bytes / 1e9, ops / 1e9, self.share())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::subject::tests::arch;

    #[test]
    fn what_a_block_needs_is_what_its_matrices_and_its_attention_need() {
        let arch = arch("768x12,2048,32000");
        // Four square matrices, three of the feed-forward branch, the head.
        let weights = 12 * (4 * 768 * 768 + 3 * 768 * 2048) + 768 * 32000;
        let needs = Needs::new(&arch, weights, Precision::Half, (4, 256));
        assert_eq!(needs.bytes, (weights + 256 * 12 * 2 * 768 * 2) as f64);
        assert_eq!(needs.ops, (2 * weights * 4 + 4 * 4 * (256 + 4) * 768 * 12) as f64);
        let exact = Needs::new(&arch, weights, Precision::Single, (4, 256));
        assert_eq!(exact.bytes - needs.bytes, (256 * 12 * 2 * 768 * 2) as f64);
    }

    #[test]
    fn one_row_needs_the_same_whether_it_is_a_block_or_the_next_token() {
        let block = arch("128x3,256,100");
        let next = Arch { objective: Objective::NextToken, ..block.clone() };
        let of = |arch: &Arch, rows| Needs::new(arch, 1000, Precision::Half, (rows, 7));
        assert_eq!(of(&block, 1), of(&next, 1));
        // Two more rows: keys and values in each layer, all of the others before the last, and what the last one sees of them.
        let (keys, others) = (2 * 128 * 128, 2 * 128 * 128 + 3 * 128 * 256);
        let attention = 2 * 128 * (2 * (9 + 10) + 2);
        assert_eq!(of(&next, 3).ops - of(&next, 1).ops, 2.0 * (2 * (3 * keys + 2 * others) + attention) as f64);
    }

    #[test]
    fn the_slower_of_reading_and_reckoning_bounds_a_pass() {
        let ceilings = Ceilings { read: 10.0, floats: 5.0, bytes: 20.0 };
        assert_eq!(Needs { bytes: 100.0, ops: 100.0 }.least(ceilings), 10.0);
        assert_eq!(Needs { bytes: 10.0, ops: 100.0 }.least(ceilings), 5.0);
    }
}
