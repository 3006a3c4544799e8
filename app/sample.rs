//! `bd3 sample`: text from a model. How text is made is the library's; here are flags, the view, and the result.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bd3::engine::Options;
use bd3::event::{Event, Header, Reason, Sink, VERSION};
use bd3::pass::{Denoiser, Filter, Nucleus};
use bd3::rng::Rng;
use bd3::sample::{self, SampleOptions, Sampler, Stop, Window};
use bd3::tokenizer::chat::Message;
use bd3::{Error, Result};
use clap::{Args, Parser, ValueEnum};
use serde_json::{Value, json};

use crate::model::{self, Model};
use crate::race::{self, Course};
use crate::record::Recorder;
use crate::rule::RuleArgs;
use crate::view::{self, Show, View};
use crate::{counts, interrupt};

/// Write text with a model, block by block
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  bd3 sample -p 'Once upon a time' -n 200 --rule threshold --threshold 0.9")]
pub struct SampleArgs {
    /// A model folder (config.json, model.safetensors, tokenizer.json) or a .gguf file; default: the model inside the binary
    model: Option<PathBuf>,

    /// The text to continue; with a prompt, end of text ends a sample
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, help_heading = "Text")]
    prompt: Option<String>,
    /// The same, from a file; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompt", help_heading = "Text")]
    prompt_file: Option<PathBuf>,
    /// The prompt is a user's message: wrap it in the model's chat template
    #[arg(long, help_heading = "Text")]
    chat: bool,
    /// New tokens, at most
    #[arg(short, value_name = "N", default_value_t = 128, value_parser = counts::size, help_heading = "Text")]
    n: usize,
    /// How many samples, one after the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = counts::some, help_heading = "Text")]
    samples: u64,
    /// Everything random follows from it
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Text")]
    seed: u64,

    /// Tokens in a block, best one that the model was trained at; default: the model's own
    #[arg(long, value_name = "N", help_heading = "Blocks")]
    pub block: Option<usize>,
    #[command(flatten)]
    pub rule: RuleArgs,
    /// What is seen of a text longer than the training length: all of it, without the oldest blocks, or half a window afresh;
    /// default: slide, or recompute where a block is more than half of that length
    #[arg(long, value_enum, help_heading = "Blocks")]
    window: Option<WindowName>,

    /// Divides the logits; 0 takes the most probable token
    #[arg(allow_negative_numbers = true, long, value_name = "X", default_value_t = 1.0, help_heading = "Tokens")]
    temperature: f64,
    /// Draw from the most probable tokens that together have this probability; 1 keeps all
    #[arg(allow_negative_numbers = true, long, value_name = "X", default_value_t = 0.9, help_heading = "Tokens")]
    top_p: f64,
    /// Whether the token that crosses --top-p is kept (usual) or dropped (strict, as in the official code)
    #[arg(long, value_enum, default_value_t = NucleusName::Usual, help_heading = "Tokens")]
    nucleus: NucleusName,
    /// End a sample when the last 256 tokens have a histogram of less entropy, in nats; the official code: 4
    #[arg(allow_negative_numbers = true, long, value_name = "X", help_heading = "Tokens")]
    stop_entropy: Option<f64>,

    /// f32 throughout: no quantised activations, no half-precision cache
    #[arg(long, help_heading = "Engine")]
    exact: bool,
    /// Threads; default: one for each core
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = counts::threads, help_heading = "Engine")]
    threads: usize,

    /// How the sample is shown; default: canvas on a terminal, text on a pipe
    #[arg(long, value_enum, help_heading = "Output")]
    view: Option<View>,
    /// Write what happens to this file, event by event; `bd3 replay` shows it again
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    trace: Option<PathBuf>,
    /// Three lanes side by side: block size 1, --block, and the largest that the model was trained at
    #[arg(long, conflicts_with = "trace", help_heading = "Output")]
    race: bool,
}

/// See [`Window`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WindowName {
    Grow,
    Slide,
    Recompute,
}

/// See [`Nucleus`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NucleusName {
    Usual,
    Strict,
}

/// The seed of `bd3` alone: one whose text begins at the beginning of a story. (Rows of training start anywhere.)
const FIRST_SEED: u64 = 148;

/// The flags without a command in front.
#[derive(Parser)]
#[command(name = "bd3 sample", no_binary_name = true, disable_help_flag = true)]
struct Bare {
    #[command(flatten)]
    args: SampleArgs,
}

impl SampleArgs {
    /// What `bd3` alone means: the defaults of `bd3 sample`, which so stand in one place, and a seed of its own.
    pub fn bare() -> Self {
        Self { seed: FIRST_SEED, ..Bare::parse_from([""; 0]).args }
    }

    /// The flags of `bd3 sample` as another command takes them, which says itself which model writes, how many samples, and what
    /// becomes of them.
    ///
    /// # Errors
    /// Flags that `bd3 sample` does not have, or that the other command has taken over.
    pub fn within(flags: &[String]) -> Result<Self> {
        let refuse = |found: String| Error::value("flags of bd3 sample", "those that say how a text is made", found);
        let mut args = Bare::try_parse_from(flags).map_err(|e| {
            let told = e.to_string();
            refuse(told.lines().next().unwrap_or_default().trim_start_matches("error: ").to_string())
        })?;
        let args = &mut args.args;
        for (name, given) in [
            ("a model", args.model.is_some()),
            ("--samples", args.samples != 1),
            ("--view", args.view.is_some()),
            ("--chat", args.chat),
        ] {
            if given {
                return Err(refuse(name.into()));
            }
        }
        // Standard input can be read once only, and these flags are used for many samples.
        args.prompt = args.prompt()?;
        args.prompt_file = None;
        Ok(std::mem::replace(args, Self::bare()))
    }

    /// What the samples of these flags share.
    ///
    /// # Errors
    /// A prompt that can't be read; flags that the model can't follow.
    pub fn job<'a>(&'a self, model: &'a Model) -> Result<Job<'a>> {
        let prompt = self.prompt()?;
        let options = self.options(model, model.tokenizer.special().eos.filter(|_| prompt.is_some()))?;
        let ids = self.ids(model, prompt.as_deref())?;
        Ok(Job { args: self, model, options, prompt, ids })
    }

    /// How the engine runs.
    pub fn engine(&self) -> Options {
        Options { exact: self.exact, threads: self.threads, isa: None }
    }

    /// The prompt, if one is given.
    fn prompt(&self) -> Result<Option<String>> {
        match &self.prompt_file {
            Some(path) => read_text(path).map(Some),
            None => Ok(self.prompt.clone()),
        }
    }

    /// The ids that a sample begins with: beginning of text and the prompt, or the prompt in its chat template.
    fn ids(&self, model: &Model, prompt: Option<&str>) -> Result<Vec<u32>> {
        let tokenizer = &model.tokenizer;
        if !self.chat {
            let Some(bos) = tokenizer.special().bos else {
                return Err(Error::value("tokenizer.json", "a token that begins a text", "none"));
            };
            let mut ids = vec![bos];
            ids.extend(tokenizer.encode(prompt.unwrap_or_default())?);
            return Ok(ids);
        }
        let Some(prompt) = prompt else {
            return Err(Error::value("--chat", "a message (-p or --prompt-file)", "none"));
        };
        let text = model.chat_template()?.render(&[Message::new("user", prompt)])?;
        tokenizer.encode_template(&text)
    }

    fn filter(&self) -> Filter {
        let nucleus = match self.nucleus {
            // `p` of 1 must keep what rounding leaves beyond the last digit.
            _ if self.top_p == 1.0 => Nucleus::Off,
            NucleusName::Usual => Nucleus::Usual(self.top_p),
            NucleusName::Strict => Nucleus::Strict(self.top_p),
        };
        Filter { temperature: self.temperature, nucleus }
    }

    fn options(&self, model: &Model, eos: Option<u32>) -> Result<SampleOptions> {
        let arch = &model.checkpoint.arch;
        let block = self.block.unwrap_or(arch.block);
        arch.check_block(block)?;
        if block == 0 || block > arch.length {
            let expected = format!("1 to {} (the training length)", arch.length);
            return Err(Error::value("block", expected, block.to_string()));
        }
        Ok(SampleOptions {
            filter: self.filter(),
            train_length: arch.length,
            window: match self.window {
                Some(WindowName::Grow) => Window::Grow,
                Some(WindowName::Slide) => Window::Slide,
                Some(WindowName::Recompute) => Window::Recompute,
                // A window that slides keeps at least the block before the open one.
                None if 2 * block <= arch.length => Window::Slide,
                None => Window::Recompute,
            },
            stop: Stop { eos, low_entropy: self.stop_entropy },
            budget: self.rule.budget(),
            ..SampleOptions::new(block, self.n, self.rule.rule()?)
        })
    }
}

/// The text in a file, or on standard input for `-`.
pub fn read_text(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    let read = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(|_| ())
    } else {
        std::fs::read(path).map(|read| bytes = read)
    };
    read.map_err(|e| Error::io(path, e))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let found = format!("a wrong byte at offset {}", e.utf8_error().valid_up_to());
        Error::file(path, "a text in UTF-8", found)
    })?;
    Ok(text.strip_prefix('\u{feff}').map_or(text.clone(), str::to_string))
}

/// Runs the command.
pub fn run(args: &SampleArgs) -> anyhow::Result<()> {
    let alone = [(args.trace.is_some(), "--trace"), (args.race, "--race")];
    if let Some((_, flag)) = alone.iter().find(|(given, _)| *given && args.samples != 1) {
        return Err(Error::value(*flag, "one sample (--samples 1)", args.samples.to_string()).into());
    }
    let model = model::open(args.model.as_deref())?;
    let job = args.job(&model)?;
    if args.race {
        let blocks = race::blocks(&model.checkpoint.arch, args.block)?;
        let lane = |block| SampleArgs { block: Some(block), ..args.clone() }.options(&model, job.options.stop.eos);
        let options = blocks.into_iter().map(lane).collect::<Result<Vec<_>>>()?;
        options.iter().for_each(|options| model.note_untrained(options.block));
        interrupt::watch()?;
        let Job { prompt, ids, .. } = job;
        let course = Course { model: &model, prompt, ids, seed: args.seed, options, view: args.view };
        return race::run(&course, &model.checkpoint.engine(args.engine())?);
    }
    model.note_untrained(job.options.block);
    interrupt::watch()?;
    job.write(&model.checkpoint.engine(args.engine())?)
}

/// All that the samples of one command share.
pub struct Job<'a> {
    args: &'a SampleArgs,
    /// What writes.
    pub model: &'a Model,
    /// How.
    pub options: SampleOptions,
    /// The text to continue.
    pub prompt: Option<String>,
    ids: Vec<u32>,
}

impl Job<'_> {
    /// The sample of this number, before its first pass.
    ///
    /// # Errors
    /// Options or a prompt that no sample can have.
    pub fn sampler<D: Denoiser>(&self, denoiser: &D, index: u64) -> Result<Sampler<D::Cache>> {
        let rng = Rng::new(self.args.seed).split_at("sample", index);
        let caches = |size| denoiser.cache(size);
        Sampler::new(self.options.clone(), &self.ids, denoiser.mask_id(), caches, rng)
    }

    fn write(&self, denoiser: &impl Denoiser) -> anyhow::Result<()> {
        let kind = self.args.view.unwrap_or_else(View::of_stdout);
        for index in 0..self.args.samples {
            if index > 0 && kind != View::Json {
                view::print("\n\n")?;
            }
            let reason = self.sample(denoiser, kind, index)?;
            if reason == Reason::Interrupted {
                break;
            }
        }
        Ok(())
    }

    /// The first line of a trace.
    fn header(&self, mask: u32) -> Header {
        let options = &self.options;
        let settings = json!({
            "prompt": self.prompt,
            "block": options.block,
            "n": options.max_new,
            "rule": options.rule.name(),
            "options": format!("{options:?}"),
        });
        let (model, tokenizer) = (self.model.name.clone(), self.model.tokenizer.hash().to_string());
        Header { version: VERSION, model, tokenizer, mask, seed: self.args.seed, settings }
    }

    fn sample(&self, denoiser: &impl Denoiser, kind: View, index: u64) -> anyhow::Result<Reason> {
        let spell = |id| self.model.tokenizer.token_bytes(id);
        let mask = denoiser.mask_id();
        let mut sampler = self.sampler(denoiser, index)?;
        let mut shown = kind.open(&spell, mask);
        let mut trace = self.args.trace.clone().map(|path| Recorder::new(path, self.header(mask), &spell));
        let start = Instant::now();
        sample::run(denoiser, &mut sampler, Watched { trace: trace.as_mut(), view: &mut *shown })?;
        trace.map_or(Ok(()), Recorder::close)?;
        let seconds = start.elapsed().saturating_sub(shown.close()?).as_secs_f64();
        let reason = sampler.reason().unwrap_or(Reason::Interrupted);
        let made = Made { ids: sampler.new_ids(), passes: sampler.passes(), seconds, reason };
        match kind {
            View::Json => {
                view::print_json(&object(self.model, self.args.seed, self.prompt.as_deref(), &made))?;
            }
            View::Canvas => {
                note!("{} tokens, {} passes, {:.0} tokens/s", made.ids.len(), made.passes, made.rate());
            }
            View::Text => {}
        }
        Ok(reason)
    }
}

/// What a sample came to.
pub struct Made<'a> {
    /// The new tokens.
    pub ids: &'a [u32],
    /// Forward evaluations.
    pub passes: u64,
    /// Time, without loading and without waiting for a view.
    pub seconds: f64,
    /// Why it ended.
    pub reason: Reason,
}

impl Made<'_> {
    /// Tokens per second.
    pub fn rate(&self) -> f64 {
        self.ids.len() as f64 / self.seconds
    }
}

/// A result as `--view json` prints it.
pub fn object(model: &Model, seed: u64, prompt: Option<&str>, made: &Made) -> Value {
    json!({
        "model": model.name,
        "seed": seed,
        "prompt": prompt,
        "text": view::lossy(made.ids.iter().flat_map(|&id| model.tokenizer.token_bytes(id)).collect()),
        "ids": made.ids,
        "tokens": made.ids.len(),
        "passes": made.passes,
        "seconds": made.seconds,
        "tokens_per_second": made.rate(),
        "reason": made.reason,
    })
}

/// Shows a sample, keeps it, and stops it at the next pass after Ctrl-C.
struct Watched<'a, 'r> {
    trace: Option<&'a mut Recorder<'r>>,
    view: &'a mut (dyn Show + 'a),
}

impl Sink for Watched<'_, '_> {
    fn event(&mut self, event: &Event) -> bool {
        if let Some(trace) = &mut self.trace {
            let kept = trace.event(event);
            // A sample that can't be kept from its beginning on is refused, and shows nothing.
            if !kept {
                if trace.has_begun() {
                    self.view.event(event);
                }
                return false;
            }
        }
        self.view.event(event) && !interrupt::asked()
    }
}
