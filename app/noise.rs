//! `bd3 noise`: a text at rising noise, as kinds of noise hide it. What noise does is the library's; here are flags, levels and
//! colours.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use bd3::noise::{self, Draws, Embeddings, Neighbours};
use bd3::rng::Rng;
use bd3::{Error, Result};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::counts;
use crate::job::read_text;
use crate::model::{self, Model};
use crate::view::{self, Ink, Inks, Speller, paint};

/// Show a text at rising noise: masked, replaced at random, by near tokens, or mixed
#[derive(Args, Debug)]
#[command(
    after_help = "Example:\n  bd3 noise 'Once upon a time there was a little dog.' --kind mask,semantic\n\nThe draws are \
                        the same at every level, so that noise only grows. Colours tell how near a replacement is to \
                        what stood there, red to green."
)]
pub struct NoiseArgs {
    /// The text; `-` is standard input
    #[arg(required_unless_present = "prompt")]
    text: Option<String>,
    /// The same, where it begins with a hyphen
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "text")]
    prompt: Option<String>,
    /// Whose tokens and embeddings: a model folder or a .gguf file; default: the model inside the binary
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Kinds of noise
    #[arg(
        long,
        value_enum,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "mask,uniform,semantic,mixed"
    )]
    kind: Vec<Kind>,
    /// How many levels, from 0 to 1 in equal steps
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = counts::levels)]
    levels: usize,
    /// Kind semantic: the temperature of the cosines at level 1; it rises with the level
    #[arg(allow_negative_numbers = true, long, value_name = "X", default_value_t = 0.1)]
    temperature: f64,
    /// Kind mixed: the share of replaced tokens at level 1/2
    #[arg(allow_negative_numbers = true, long, value_name = "X", default_value_t = 0.2)]
    replaced: f64,
    /// Everything random follows from it
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// One object with a row for each kind and level
    #[arg(long)]
    json: bool,
}

/// A kind of noise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Tokens become masks
    Mask,
    /// Tokens become any other
    Uniform,
    /// Tokens become near ones, by the model's embeddings
    Semantic,
    /// Masks and any others mixed, as in GIDD
    Mixed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Mask => "mask",
            Kind::Uniform => "uniform",
            Kind::Semantic => "semantic",
            Kind::Mixed => "mixed",
        }
    }
}

/// Runs the command.
pub fn run(args: &NoiseArgs) -> anyhow::Result<()> {
    check(args)?;
    let text = match (&args.prompt, args.text.as_deref()) {
        (Some(text), _) => text.clone(),
        (None, Some("-") | None) => read_text(Path::new("-"))?,
        (None, Some(text)) => text.to_string(),
    };
    let model = model::open(args.model.as_deref())?;
    let ids = model.tokenizer.encode(&text)?;
    if ids.is_empty() {
        return Err(Error::value("TEXT", "a text of at least one token", "none").into());
    }
    let source = Source::new(args, &model, ids)?;
    if args.json {
        view::print_json(&source.object(&text))?;
        return Ok(());
    }
    let inks = if std::io::stdout().is_terminal() { Inks::of_environment() } else { Inks::None };
    for (index, &kind) in args.kind.iter().enumerate() {
        view::print(&format!("{}{}\n", if index > 0 { "\n" } else { "" }, kind.name()))?;
        for (level, t) in source.levels.iter().enumerate() {
            view::print(&format!("{t:.2}  {}\n", source.line(kind, level, inks)))?;
        }
    }
    Ok(())
}

impl NoiseArgs {
    /// What a page asks: kinds by their names, so many levels.
    ///
    /// # Errors
    /// A name that is none.
    pub fn of_page(kinds: &[String], levels: usize, seed: u64) -> Result<Self> {
        let named = |name: &String| {
            let found = Kind::value_variants().iter().copied().find(|kind| kind.name() == *name);
            found.ok_or_else(|| Error::value("kinds", "mask, uniform, semantic, mixed", format!("`{name}`")))
        };
        let mut kind = kinds.iter().map(named).collect::<Result<Vec<_>>>()?;
        if kind.is_empty() {
            kind = Kind::value_variants().to_vec();
        }
        let (temperature, replaced) = (0.1, 0.2);
        Ok(Self { text: None, prompt: None, model: None, kind, levels, temperature, replaced, seed, json: true })
    }

    fn levels(&self) -> Vec<f64> {
        (0..self.levels).map(|level| level as f64 / (self.levels - 1) as f64).collect()
    }
}

/// The object of `--json`.
///
/// # Errors
/// A model whose embeddings can't be read.
pub fn object(args: &NoiseArgs, model: &Model, text: &str, ids: Vec<u32>) -> Result<Value> {
    check(args)?;
    Ok(Source::new(args, model, ids)?.object(text))
}

fn check(args: &NoiseArgs) -> Result<()> {
    let refuse = |flag: &str, expected: &str, found: String| Err(Error::value(flag, expected, found));
    if args.levels < 2 {
        return refuse("--levels", "at least 2", args.levels.to_string());
    }
    if !(args.temperature >= 0.0 && args.temperature.is_finite()) {
        return refuse("--temperature", "a number of at least 0", args.temperature.to_string());
    }
    if !(0.0..1.0).contains(&args.replaced) {
        return refuse("--replaced", "a share from 0 to below 1", args.replaced.to_string());
    }
    Ok(())
}

/// A text, its draws, and what its tokens may become.
struct Source<'a> {
    args: &'a NoiseArgs,
    model: &'a Model,
    ids: Vec<u32>,
    levels: Vec<f64>,
    draws: Draws,
    allowed: Vec<u32>,
    embeddings: Embeddings,
    /// Kind semantic, by level; none where it is not asked for.
    semantic: Vec<Vec<u32>>,
}

impl<'a> Source<'a> {
    fn new(args: &'a NoiseArgs, model: &'a Model, ids: Vec<u32>) -> Result<Self> {
        let arch = &model.checkpoint.arch;
        // The first tensor of every description is the embedding, [vocab, hidden].
        let (name, shape) = arch.tensors().swap_remove(0);
        let embeddings = Embeddings::new(model.checkpoint.f32(&name, &shape)?, arch.hidden);
        let adds = |&id: &u32| !model.tokenizer.token_bytes(id).is_empty();
        let allowed: Vec<u32> = (0..model.tokenizer.vocab_size() as u32).filter(adds).collect();
        let (levels, draws) = (args.levels(), Draws::new(ids.len(), &Rng::new(args.seed)));
        let mut source = Self { args, model, ids, levels, draws, allowed, embeddings, semantic: Vec::new() };
        if args.kind.contains(&Kind::Semantic) {
            source.semantic = source.near();
        }
        Ok(source)
    }

    /// Kind semantic, by level. A token has as many neighbours as the vocabulary has tokens, so they are kept for one at a time.
    fn near(&self) -> Vec<Vec<u32>> {
        let mut rows = vec![self.ids.clone(); self.levels.len()];
        for id in self.ids.iter().copied().collect::<BTreeSet<u32>>() {
            let near = BTreeMap::from([(id, Neighbours::of(id, &self.embeddings, &self.allowed))]);
            for (row, &t) in rows.iter_mut().zip(&self.levels) {
                // The others, without neighbours, stay.
                let noised = noise::semantic(&self.ids, t, &self.draws, &near, self.args.temperature);
                let own = row.iter_mut().zip(noised).zip(&self.ids).filter(|(_, old)| **old == id);
                own.for_each(|((to, new), _)| *to = new);
            }
        }
        rows
    }

    fn noised(&self, kind: Kind, level: usize) -> Vec<u32> {
        let (ids, t, draws, mask) = (&self.ids, self.levels[level], &self.draws, self.mask());
        match kind {
            Kind::Mask => noise::masked(ids, t, draws, mask),
            Kind::Uniform => noise::uniform(ids, t, draws, &self.allowed),
            Kind::Semantic => self.semantic[level].clone(),
            Kind::Mixed => noise::mixed(ids, t, draws, (mask, &self.allowed), self.args.replaced),
        }
    }

    fn mask(&self) -> u32 {
        self.model.tokenizer.special().mask
    }

    /// One line, whatever the text's own.
    fn line(&self, kind: Kind, level: usize, inks: Inks) -> String {
        let (mut speller, mut cells) = (Speller::default(), Vec::new());
        for (&old, new) in self.ids.iter().zip(self.noised(kind, level)) {
            let ink = if new == old { Ink::Settled } else { Ink::Drawn(self.embeddings.cosine(old, new)) };
            match new == self.mask() {
                true => speller.push_mask(Ink::Mask, &mut cells),
                false => speller.push(&self.model.tokenizer.token_bytes(new), ink, &mut cells),
            }
        }
        speller.give_up(&mut cells);
        cells.iter_mut().filter(|cell| cell.ch == '\n').for_each(|cell| cell.ch = '⏎');
        paint(&cells, inks)
    }

    fn object(&self, text: &str) -> Value {
        let rows = self.args.kind.iter().flat_map(|&kind| (0..self.levels.len()).map(move |level| (kind, level)));
        let rows: Vec<Value> = rows.map(|(kind, level)| self.row(kind, level)).collect();
        json!({ "model": self.model.name, "seed": self.args.seed, "text": text, "ids": self.ids, "rows": rows })
    }

    fn row(&self, kind: Kind, level: usize) -> Value {
        let (t, noised) = (self.levels[level], self.noised(kind, level));
        let changed = self.ids.iter().zip(&noised).filter(|(old, new)| old != new).count();
        let masked = noised.iter().filter(|&&id| id == self.mask()).count();
        let near = |(&old, &new): (&u32, &u32)| (f64::from(self.embeddings.cosine(old, new)) * 1e3).round() / 1e3;
        let cosines: Vec<f64> = self.ids.iter().zip(&noised).map(near).collect();
        json!({ "kind": kind.name(), "t": t, "changed": changed, "masked": masked, "ids": noised, "cosines": cosines })
    }
}
