//! The samples of one command: from flags that were read to texts that are shown.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use bd3::arch::Objective;
use bd3::event::{Event, Header, Reason, Sink, VERSION};
use bd3::pass::Denoiser;
use bd3::rng::Rng;
use bd3::sample::{self, SampleOptions, Sampler, Template};
use bd3::tokenizer::Tokenizer;
use bd3::{Error, Result};
use serde_json::{Value, json};

use crate::interrupt;
use crate::model::Model;
use crate::record::Recorder;
use crate::sample::SampleArgs;
use crate::view::{self, Show, View};

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

/// The id that begins a text.
pub fn bos(tokenizer: &Tokenizer) -> Result<u32> {
    let none = || Error::value("tokenizer.json", "a token that begins a text", "none");
    tokenizer.special().bos.ok_or_else(none)
}

/// Beginning of text, and the ids of a template whose gaps have these lengths.
///
/// # Errors
/// A model without a mask or a beginning of text.
pub fn template_ids(model: &Model, template: &Template, length: impl FnMut(usize, usize) -> usize) -> Result<Vec<u32>> {
    let tokenizer = &model.tokenizer;
    let arch = &model.checkpoint.arch;
    if arch.objective != Objective::Masked {
        return Err(Error::value("--infill", "a model that fills masks", "one that does not"));
    }
    let mut ids = vec![bos(tokenizer)?];
    ids.extend(template.ids(|text| tokenizer.encode(text), arch.mask, length)?);
    Ok(ids)
}

/// All that the samples of one command share.
pub struct Job<'a> {
    /// The flags.
    pub args: &'a SampleArgs,
    /// What writes.
    pub model: &'a Model,
    /// How.
    pub options: SampleOptions,
    /// The text to continue.
    pub prompt: Option<String>,
    /// The text whose gaps to fill.
    pub template: Option<Template>,
    /// What a sample begins with; of a template, with the longest gaps.
    pub ids: Vec<u32>,
}

impl Job<'_> {
    /// The sample of this number, before its first pass.
    ///
    /// # Errors
    /// Options or a prompt that no sample can have.
    pub fn sampler<D: Denoiser>(&self, denoiser: &D, index: u64) -> Result<Sampler<D::Cache>> {
        let root = Rng::new(self.args.seed);
        let mut lengths = root.split_at("gaps", index);
        let ids = match &self.template {
            None => self.ids.clone(),
            Some(template) => {
                template_ids(self.model, template, |least, most| least + lengths.below(most - least + 1))?
            }
        };
        let caches = |size| denoiser.cache(size);
        Sampler::new(self.options.clone(), &ids, denoiser.mask_id(), caches, root.split_at("sample", index))
    }

    /// Writes and shows all samples.
    ///
    /// # Errors
    /// A sample that fails; an output that can't be written.
    pub fn write(&self, denoiser: &impl Denoiser) -> anyhow::Result<()> {
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
        let settings = json!({ "prompt": self.prompt, "template": self.args.infill, "options": self.options });
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
        // Of a template the whole text is the result.
        let ids = if self.template.is_some() { &sampler.ids()[1..] } else { sampler.new_ids() };
        let made = Made { ids, tokens: sampler.written(), passes: sampler.passes(), seconds, reason };
        match kind {
            View::Json => {
                view::print_json(&object(self.model, self.args.seed, self.prompt.as_deref(), &made))?;
            }
            View::Canvas => {
                note!("{} tokens, {} passes, {:.0} tokens/s", made.tokens, made.passes, made.rate());
            }
            View::Text => {}
        }
        Ok(reason)
    }
}

/// What a sample came to.
pub struct Made<'a> {
    /// The new tokens, or a template's text.
    pub ids: &'a [u32],
    /// How many of them were written.
    pub tokens: usize,
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
        self.tokens as f64 / self.seconds
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
        "tokens": made.tokens,
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
