//! `bd3 bench decode`: a whole decode through the real sampler at a forced number of tokens per pass, so that its speed can be
//! measured with random weights, too.

use std::time::Instant;

use bd3::arch::Objective;
use bd3::engine::Engine;
use bd3::event::Quiet;
use bd3::format::Type;
use bd3::pass::{Denoiser, Filter, Nucleus};
use bd3::rng::Rng;
use bd3::sample::{self, Rule, SampleOptions, Sampler, Split};
use bd3::{Error, Result};
use clap::Args;
use serde_json::json;

use super::median;
use super::subject::{SubjectArgs, format};
use crate::{counts, view};

/// Tokens of a prompt, at most.
const LONGEST_PROMPT: usize = 1 << 20;

/// `bd3 bench decode`
#[derive(Args, Debug)]
pub struct DecodeArgs {
    #[command(flatten)]
    subject: SubjectArgs,
    /// Type of the random weights: f32, f16, bf16, q8_0, q4_0, q4_1, q4_k, q6_k
    #[arg(long, value_name = "NAME", value_parser = format, default_value = "q8_0", conflicts_with = "model")]
    format: Type,
    /// Tokens in a block; default: 4, of an autoregressive model 1
    #[arg(long, value_name = "N")]
    block: Option<usize>,
    /// Tokens that become known in a pass, 1 to the block: rule confidence with ceil(block / X) steps; default: 2, at block 1 (the only
    /// one of an autoregressive model) 1
    #[arg(long, value_name = "X")]
    tokens_per_pass: Option<f64>,
    /// New tokens
    #[arg(short, value_name = "N", default_value_t = 256, value_parser = counts::size)]
    n: usize,
    /// Samples side by side, which share passes as requests of a server do
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = counts::size)]
    lanes: usize,
    /// Tokens of the prompt, which the first pass stores
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = counts::size)]
    prompt: usize,
    /// Divides the logits; 0 takes the most probable token
    #[arg(allow_negative_numbers = true, long, value_name = "X", default_value_t = 1.0)]
    temperature: f64,
    /// Decodes that are timed, after one that is not
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = counts::size)]
    repeat: usize,
    /// One JSON object instead of a sentence
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &DecodeArgs) -> anyhow::Result<()> {
    if args.prompt > LONGEST_PROMPT {
        let expected = format!("at most {LONGEST_PROMPT}");
        return Err(Error::value("--prompt", expected, args.prompt.to_string()).into());
    }
    for (name, found) in [("-n", args.n), ("--prompt", args.prompt), ("--repeat", args.repeat), ("--lanes", args.lanes)]
    {
        if found == 0 {
            return Err(Error::value(name, "at least 1", "0").into());
        }
    }
    let subject = args.subject.open(args.format)?;
    let engine = &subject.engine;
    let options = args.options(engine)?;
    let Rule::Confidence { steps, .. } = options.rule else { unreachable!("the rule of this command") };
    args.decode(engine, &options)?;
    let mut all = Vec::with_capacity(args.repeat);
    let (mut tokens, mut passes) = (0, 0);
    for _ in 0..args.repeat {
        let seconds;
        (tokens, passes, seconds) = args.decode(engine, &options)?;
        all.push(seconds);
    }
    let seconds = median(&mut all);
    let (rate, per_pass) = (tokens as f64 / seconds, tokens as f64 / passes as f64);
    let (isa, threads) = (args.subject.isa().name(), args.subject.threads());
    let lanes = if args.lanes == 1 { String::new() } else { format!(", {} lanes", args.lanes) };
    let text = if args.json {
        json!({
            "shape": subject.name,
            "format": subject.format,
            "isa": isa,
            "threads": threads,
            "block": options.block,
            "lanes": args.lanes,
            "rule": options.rule.name(),
            "steps": steps,
            "tokens": tokens,
            "passes": passes,
            "seconds": seconds,
            "tokens_per_second": rate,
            "tokens_per_pass": per_pass,
        })
        .to_string()
    } else {
        format!(
            "{rate:.0} tokens/s: {tokens} tokens in {seconds:.3} s, {passes} passes, {per_pass:.2} tokens a pass (block {}{lanes}, \
             rule {}, {steps} steps; {}, {}, {threads} threads, {isa})",
            options.block,
            options.rule.name(),
            subject.name,
            subject.format,
        )
    };
    Ok(view::print(&format!("{text}\n"))?)
}

impl DecodeArgs {
    fn options(&self, engine: &Engine) -> Result<SampleOptions> {
        let arch = engine.arch();
        let alone = arch.objective == Objective::NextToken;
        let block = self.block.unwrap_or(if alone { 1 } else { 4 });
        arch.check_block(block)?;
        if !(1..=arch.length).contains(&block) {
            let expected = format!("1 to {} (the training length)", arch.length);
            return Err(Error::value("block", expected, block.to_string()));
        }
        let per_pass = self.tokens_per_pass.unwrap_or(if block == 1 { 1.0 } else { 2.0 });
        if !(1.0..=block as f64).contains(&per_pass) {
            let expected = match (alone, block) {
                (true, _) => "1 (an autoregressive model makes one token in a pass)".to_string(),
                (false, 1) => "1 (a block of one token)".to_string(),
                (false, _) => format!("1 to {block}, the tokens of a block"),
            };
            return Err(Error::value("--tokens-per-pass", expected, per_pass.to_string()));
        }
        let rule = Rule::Confidence { steps: (block as f64 / per_pass).ceil() as usize, split: Split::Even };
        Ok(SampleOptions {
            filter: Filter { temperature: self.temperature, nucleus: Nucleus::Off },
            train_length: arch.length,
            ..SampleOptions::new(block, self.n, rule)
        })
    }

    /// Tokens of all samples, passes of the model, and seconds of one decode.
    fn decode(&self, engine: &Engine, options: &SampleOptions) -> Result<(usize, u64, f64)> {
        let prompt = super::subject::ids(engine, self.prompt);
        let mut samplers = (0..self.lanes as u64)
            .map(|lane| {
                let (caches, rng) = (|size| engine.cache(size), Rng::new(lane));
                Sampler::new(options.clone(), &prompt, engine.mask_id(), caches, rng)
            })
            .collect::<Result<Vec<_>>>()?;
        let mut sinks: Vec<Quiet> = samplers.iter().map(|_| Quiet).collect();
        let (start, mut passes) = (Instant::now(), 0);
        while sample::step(engine, &mut samplers, &mut sinks)? > 0 {
            passes += 1;
        }
        let seconds = start.elapsed().as_secs_f64();
        Ok((samplers.iter().map(|sampler| sampler.new_ids().len()).sum(), passes, seconds))
    }
}
