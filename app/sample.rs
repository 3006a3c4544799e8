//! `bd3 sample`: text from a model. How text is made is the library's; here are flags, the view, and the result.

use std::path::PathBuf;

use bd3::arch::{Arch, Objective};
use bd3::engine::Options;
use bd3::pass::{Filter, Nucleus};
use bd3::sample::{SampleOptions, Stop, Template, Window};
use bd3::tokenizer::chat::Message;
use bd3::{Error, Result};
use clap::{Args, Parser, ValueEnum};

use crate::constrain::ConstraintArgs;
use crate::job::{Job, bos, read_text, template_ids};
use crate::model::{self, Model};
use crate::race::{self, Course};
use crate::revise::ReviseArgs;
use crate::rule::RuleArgs;
use crate::view::View;
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
    /// The same, from a file, without the newline that ends it; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with = "prompt", help_heading = "Text")]
    prompt_file: Option<PathBuf>,
    /// Fill the gaps of a text: `___` is 1 to 8 tokens, `___{3,8}` 3 to 8, `\_` is no gap, a space before a gap is the gap's
    #[arg(long, value_name = "TEMPLATE", allow_hyphen_values = true, conflicts_with_all = ["prompt", "prompt_file", "chat"], help_heading = "Text")]
    pub infill: Option<String>,
    /// The prompt is a user's message: wrap it in the model's chat template
    #[arg(long, help_heading = "Text")]
    chat: bool,
    /// New tokens, at most; default: 128, after a template none
    #[arg(short, value_name = "N", value_parser = counts::size, help_heading = "Text")]
    n: Option<usize>,
    /// How many samples, one after the other
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = counts::some, help_heading = "Text")]
    pub samples: u64,
    /// Everything random follows from it
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Text")]
    pub seed: u64,

    /// Tokens in a block, best one that the model was trained at; default: the model's own, with --infill the smallest trained one that
    /// holds the template
    #[arg(long, value_name = "N", help_heading = "Blocks")]
    pub block: Option<usize>,
    #[command(flatten)]
    pub rule: RuleArgs,
    #[command(flatten)]
    revise: ReviseArgs,
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
    /// Lead away from what would be written without the prompt (classifier-free guidance); 0: not at all
    #[arg(allow_negative_numbers = true, long, value_name = "X", default_value_t = 0.0, help_heading = "Tokens")]
    guidance: f32,
    /// Whether the token that crosses --top-p is kept (usual) or dropped (strict, as in the official code)
    #[arg(long, value_enum, default_value_t = NucleusName::Usual, help_heading = "Tokens")]
    nucleus: NucleusName,
    /// End a sample when the last 256 tokens have a histogram of less entropy, in nats; the official code: 4
    #[arg(allow_negative_numbers = true, long, value_name = "X", help_heading = "Tokens")]
    stop_entropy: Option<f64>,

    #[command(flatten)]
    constraint: ConstraintArgs,

    /// f32 throughout: no quantised activations, no half-precision cache
    #[arg(long, help_heading = "Engine")]
    exact: bool,
    /// Threads; default: one for each core
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, value_parser = counts::threads, help_heading = "Engine")]
    threads: usize,

    /// How the sample is shown; default: canvas on a terminal, text on a pipe
    #[arg(long, value_enum, help_heading = "Output")]
    pub view: Option<View>,
    /// Write what happens to this file, event by event; `bd3 replay` shows it again
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub trace: Option<PathBuf>,
    /// Three lanes side by side: block size 1, --block, and the largest that the model was trained at
    #[arg(long, conflicts_with_all = ["trace", "infill"], help_heading = "Output")]
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

/// The flags without a command in front.
#[derive(Parser)]
#[command(name = "bd3 sample", no_binary_name = true, disable_help_flag = true)]
struct Bare {
    #[command(flatten)]
    args: SampleArgs,
}

impl SampleArgs {
    /// What `bd3` alone means: the defaults of `bd3 sample`, which so stand in one place.
    pub fn bare() -> Self {
        Bare::parse_from([""; 0]).args
    }

    /// Reads flags, those of `bd3 sample` without a command in front.
    ///
    /// # Errors
    /// What the parser of the command line refuses, in its words.
    pub fn parse(flags: &[String]) -> std::result::Result<Self, String> {
        match crate::args::parse::<Bare>(flags) {
            Ok(bare) => Ok(bare.args),
            Err(error) => {
                let told = crate::args::in_a_line(&error.to_string());
                let told = told.rsplit_once(" (see ").map_or(told.as_str(), |(told, _)| told);
                Err(told.trim_start_matches("error: ").to_string())
            }
        }
    }

    /// The long flags that say how a text is made, each with whether it takes a value.
    pub fn making() -> Vec<(String, bool)> {
        let command = <Bare as clap::CommandFactory>::command();
        let making = |a: &&clap::Arg| matches!(a.get_help_heading(), Some("Blocks" | "Revision" | "Tokens"));
        let flag = |a: &clap::Arg| a.get_long().map(|flag| (flag.to_string(), a.get_action().takes_values()));
        command.get_arguments().filter(making).filter_map(flag).collect()
    }

    /// The flags of `bd3 sample` as another command takes them, which says itself which model writes, how many samples, and what
    /// becomes of them.
    ///
    /// # Errors
    /// Flags that `bd3 sample` does not have, or that the other command has taken over.
    pub fn within(flags: &[String]) -> Result<Self> {
        let refuse = |found: String| Error::value("flags of bd3 sample", "those that say how a text is made", found);
        let mut args = Self::parse(flags).map_err(refuse)?;
        for (name, given) in [
            ("a model", args.model.is_some()),
            ("--samples", args.samples != 1),
            ("--view", args.view.is_some()),
            ("--chat", args.chat),
            ("--trace", args.trace.is_some()),
            ("--race", args.race),
            ("--infill", args.infill.is_some()),
            (args.constraint.given().unwrap_or_default(), args.constraint.given().is_some()),
        ] {
            if given {
                return Err(refuse(name.into()));
            }
        }
        // Standard input can be read once only, and these flags are used for many samples.
        args.prompt = args.prompt()?;
        args.prompt_file = None;
        Ok(args)
    }

    /// What the samples of these flags share.
    ///
    /// # Errors
    /// A prompt that can't be read; flags that the model can't follow.
    pub fn job<'a>(&'a self, model: &'a Model) -> Result<Job<'a>> {
        let arch = &model.checkpoint.arch;
        let prompt = self.prompt()?;
        let template = self.infill.as_deref().map(Template::parse).transpose()?;
        let constraint = self.constraint.constraint(model)?;
        let eos = model.tokenizer.special().eos.filter(|_| prompt.is_some() || constraint.is_some());
        let (ids, block) = match &template {
            None => (self.ids(model, prompt.as_deref())?, arch.block),
            Some(template) => {
                let longest = template_ids(model, template, |_, most| most)?;
                if longest.len() > arch.length {
                    let expected = format!("at most {} tokens, the length the model was trained for", arch.length);
                    return Err(Error::value("--infill", expected, longest.len().to_string()));
                }
                let block = block_that_holds(arch, longest.len());
                (longest, block)
            }
        };
        if self.guidance != 0.0 && prompt.is_none() {
            return Err(Error::value("--guidance", "a prompt to be led by", "none"));
        }
        let options = self.options(model, (eos, self.block.unwrap_or(block)))?;
        let options = SampleOptions { constraint, ..options };
        Ok(Job { args: self, model, options, prompt, template, ids })
    }

    /// How the engine runs.
    pub fn engine(&self) -> Options {
        Options { exact: self.exact, threads: self.threads, isa: None }
    }

    /// The prompt, if one is given.
    fn prompt(&self) -> Result<Option<String>> {
        match &self.prompt_file {
            // Editors end a file with a newline, which is none of the prompt's.
            Some(path) => read_text(path).map(|text| {
                let text =
                    text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text));
                Some(text.to_string())
            }),
            None => Ok(self.prompt.clone()),
        }
    }

    /// The ids that a sample begins with: beginning of text and the prompt, or the prompt in its chat template.
    fn ids(&self, model: &Model, prompt: Option<&str>) -> Result<Vec<u32>> {
        let tokenizer = &model.tokenizer;
        if !self.chat {
            let mut ids = vec![bos(tokenizer)?];
            ids.extend(tokenizer.encode(prompt.unwrap_or_default())?);
            return Ok(ids);
        }
        let Some(prompt) = prompt else {
            return Err(Error::value("--chat", "a message (-p or --prompt-file)", "none"));
        };
        model.chat_template()?.encode(&[Message::new("user", prompt)], tokenizer)
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

    /// How a sample is made at this block size, ended by this token.
    ///
    /// # Errors
    /// Flags that the model can't follow.
    pub fn options(&self, model: &Model, (eos, block): (Option<u32>, usize)) -> Result<SampleOptions> {
        let arch = &model.checkpoint.arch;
        if self.guidance > 0.0 && arch.objective != Objective::Masked {
            return Err(Error::value("--guidance", "a model that fills masks", "one that does not"));
        }
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
            revise: self.revise.revise(arch, block)?,
            guidance: self.guidance,
            ..SampleOptions::new(
                block,
                self.n.unwrap_or(if self.infill.is_some() { 0 } else { 128 }),
                self.rule.rule()?,
            )
        })
    }
}

/// The smallest trained block size that holds a text of this many ids, bos included, or the largest one: so a gap sees what
/// follows it.
pub fn block_that_holds(arch: &Arch, length: usize) -> usize {
    let mut sizes = arch.block_sizes();
    sizes.sort_unstable();
    sizes.iter().copied().find(|&size| size >= length).or(sizes.last().copied()).unwrap_or(arch.block)
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
        let lane = |block| {
            let options = args.options(&model, (job.options.stop.eos, block))?;
            Ok(SampleOptions { constraint: job.options.constraint.clone(), ..options })
        };
        let options = blocks.into_iter().map(lane).collect::<Result<Vec<_>>>()?;
        options.iter().for_each(|options| model.note_untrained(options.block));
        let Job { prompt, ids, .. } = job;
        let course = Course { model: &model, prompt, ids, seed: args.seed, options, view: args.view };
        return race::run(&course, &model.checkpoint.engine(args.engine())?);
    }
    model.note_untrained(job.options.block);
    interrupt::watch()?;
    job.write(&model.checkpoint.engine(args.engine())?)
}
