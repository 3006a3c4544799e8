//! A training recipe as written: TOML, every key known, every value of its type. `train::plan` checks what they mean together.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A whole recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Seeds everything: initial weights, order of the data, noise, dropout.
    #[serde(default)]
    pub seed: u64,
    /// The official code's quirks: ordered antithetic times, f32 bound 1e-3, weight 1 of clips above 1/2, bos in the denominator.
    #[serde(default)]
    pub official: bool,
    /// The text.
    pub data: Data,
    /// The network.
    pub model: Model,
    /// Block sizes and their noise.
    pub blocks: Blocks,
    /// Corrupted visible tokens.
    #[serde(default)]
    pub corrupt: Corrupt,
    /// The loop.
    pub train: Train,
}

/// Where the text comes from: either `sources` or `toy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Folders made by `bd3 data`, all with one tokenizer.
    #[serde(default)]
    pub sources: Vec<Source>,
    /// Or: this many toy stories, written for the run itself.
    pub toy: Option<usize>,
    /// How the toy stories are tokenized: `bytes` or `train:N`.
    pub tokenizer: Option<String>,
    /// How documents become rows: `stream`, `starts` (short ones), `documents` (full rows alone), `official`, `official-special`.
    #[serde(default = "stream")]
    pub wrap: String,
}

/// One folder of token shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The folder, relative to the working directory.
    pub path: PathBuf,
    /// Its share of the rows, relative to the other sources.
    #[serde(default = "one")]
    pub weight: f64,
    /// Its share at the end of the run (the weight moves linearly; default: the same).
    pub weight_end: Option<f64>,
    /// How its documents become rows (default: as `data.wrap` says).
    pub wrap: Option<String>,
}

/// The network's shape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// `masked` (BD3-LM, MDLM), `score` (SEDD) or `next-token` (autoregressive).
    #[serde(default)]
    pub objective: Objective,
    /// Width.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Heads.
    pub heads: usize,
    /// Width of the conditioning vector.
    #[serde(default = "cond")]
    pub cond: usize,
    /// Length of a row in tokens, bos included.
    pub length: usize,
    /// Dropout on the branch outputs.
    #[serde(default)]
    pub dropout: f64,
}

/// What a network is trained to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// Masked diffusion with the SUBS parameterisation (MDLM, BD3-LM): log-probabilities of the clean token.
    #[default]
    Masked,
    /// Score entropy (SEDD, Lou et al. 2024): log-ratios, conditioned on the noise level.
    Score,
    /// The next token, from the left (logits are shifted by one position).
    NextToken,
}

impl Objective {
    /// As a recipe has it.
    pub fn name(self) -> &'static str {
        match self {
            Objective::Masked => "masked",
            Objective::Score => "score",
            Objective::NextToken => "next-token",
        }
    }
}

/// Block sizes and their noise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Blocks {
    /// One batch has one size, drawn with its share.
    pub sizes: Vec<Size>,
    /// The default size of the trained model (default: the first).
    pub default: Option<usize>,
    /// Noise schedule: `loglinear`, `cosine`, `square`, `square_root` or `log`.
    #[serde(default = "loglinear")]
    pub schedule: String,
    /// Redraw blocks whose masked share falls outside the clip interval.
    #[serde(default)]
    pub resample: bool,
    /// Widths of the intervals that the clip search tries at every `validate_every`, e.g. [0.5, 0.6, 0.7, 0.8, 0.9]; empty: no search.
    #[serde(default)]
    pub search: Vec<f64>,
}

/// One block size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Tokens in a block; divides the length.
    pub size: usize,
    /// Its share of the batches, relative to the other sizes.
    #[serde(default = "one")]
    pub share: f64,
    /// Its clip interval (default: [1e-3, 1], and [1, 1] for size 1).
    pub clip: Option<[f64; 2]>,
}

/// Corrupted visible tokens, with a loss on every visible token of those rows, so that the model can judge what is written: all three, or none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Corrupt {
    /// Share of a row's visible tokens that are replaced by random ones.
    #[serde(default)]
    pub share: f64,
    /// Share of the rows that this happens to.
    #[serde(default)]
    pub rows: f64,
    /// Weight of the loss on visible tokens.
    #[serde(default)]
    pub weight: f64,
}

/// The loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Optimiser steps.
    pub steps: u64,
    /// Rows in a micro-batch.
    pub batch: usize,
    /// Micro-batches in a step.
    #[serde(default = "one_count")]
    pub accumulate: usize,
    /// Peak learning rate.
    #[serde(default = "learning_rate")]
    pub lr: f64,
    /// What moves the parameters.
    #[serde(default)]
    pub optimizer: Optimizer,
    /// Peak learning rate of the matrices that Muon moves (default: `lr`).
    pub matrix_lr: Option<f64>,
    /// Of large products, on the CPU.
    #[serde(default)]
    pub precision: Precision,
    /// Steps of linear warm-up; the first step has learning rate 0, as in the official code.
    #[serde(default)]
    pub warmup: u64,
    /// Share of the run at its end over which the learning rate falls linearly to 0.
    #[serde(default)]
    pub decay: f64,
    /// Decoupled weight decay, of matrices that Muon moves too (times `matrix_lr`).
    #[serde(default)]
    pub weight_decay: f64,
    /// AdamW's betas.
    #[serde(default = "betas")]
    pub betas: [f64; 2],
    /// Bound of the global gradient norm; 0: none.
    #[serde(default = "one")]
    pub clip: f64,
    /// Decay of the exponential moving average, warmed up as min(ema, (1 + n) / (10 + n)); 0: none.
    #[serde(default = "ema")]
    pub ema: f64,
    /// Steps between checkpoints.
    #[serde(default = "checkpoint_every")]
    pub checkpoint_every: u64,
    /// Steps between validations (and clip searches); 0: none but the last, and not that one where a text has no valid split, or no row in it.
    #[serde(default)]
    pub validate_every: u64,
    /// Rows in a validation, per block size.
    #[serde(default = "validate_rows")]
    pub validate_rows: usize,
}

/// What large products (linear layers, head, Muon) round their inputs to. Their sums, and all else, attention too, are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// Nothing is rounded.
    #[default]
    F32,
    /// Eight bits of mantissa, as GPUs train with: twice as quick where the processor has AVX-512 BF16.
    Bf16,
}

/// What moves the parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// AdamW, all of them.
    #[default]
    Adamw,
    /// Muon the matrices of the layers, AdamW the rest.
    Muon,
}

fn stream() -> String {
    "stream".into()
}
fn one() -> f64 {
    1.0
}
fn one_count() -> usize {
    1
}
fn cond() -> usize {
    128
}
fn loglinear() -> String {
    "loglinear".into()
}
fn learning_rate() -> f64 {
    3e-4
}
fn betas() -> [f64; 2] {
    [0.9, 0.999]
}
fn ema() -> f64 {
    0.9999
}
fn checkpoint_every() -> u64 {
    500
}
fn validate_rows() -> usize {
    64
}

impl Recipe {
    /// Reads a recipe file and applies `KEY=VALUE` settings (dotted keys, TOML values) on top.
    ///
    /// # Errors
    /// A file that can't be read, is not UTF-8, or is empty; else as [`Recipe::parse`].
    pub fn open(path: &Path, settings: &[String]) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|e| Error::io(path, e))?;
        let text = String::from_utf8(bytes).map_err(|e| {
            let at = e.utf8_error().valid_up_to();
            Error::file(path, "a recipe in UTF-8", format!("a wrong byte at offset {at}"))
        })?;
        if text.trim().is_empty() {
            return Err(Error::file(path, "a recipe in TOML", "an empty file"));
        }
        Self::parse(path, &text, settings)
    }

    /// Reads a recipe; `path` names it in errors.
    ///
    /// # Errors
    /// No TOML, a missing or unknown key, a value of another type, or a setting that is no `KEY=VALUE` or does not fit.
    pub fn parse(path: &Path, text: &str, settings: &[String]) -> Result<Self> {
        let line = |e: &toml::de::Error| e.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        // Once as written, so that an error knows its line; once more with the settings on top.
        let written: Result<Self, toml::de::Error> = toml::from_str(text);
        if let (Err(e), true) = (&written, settings.is_empty() || text.parse::<toml::Table>().is_err()) {
            let found = format!("line {}: {}", line(e), sentence(e.message()));
            return Err(Error::file(path, "a recipe in TOML", found));
        }
        let mut table: toml::Table =
            text.parse().map_err(|e: toml::de::Error| Error::file(path, "a recipe in TOML", sentence(e.message())))?;
        for setting in settings {
            set(&mut table, setting)?;
            // Each by itself, so that the one at fault is named; what is missing yet, a later one may bring.
            let tried: Result<Self, toml::de::Error> = table.clone().try_into();
            if let Err(e) = tried
                && !e.message().starts_with("missing field")
                && written.is_ok()
            {
                return Err(Error::value(
                    format!("--set {setting}"),
                    "a key and a value of the recipe",
                    sentence(e.message()),
                ));
            }
        }
        table.try_into().map_err(|e: toml::de::Error| Error::file(path, "a recipe in TOML", sentence(&e.to_string())))
    }

    /// The recipe as TOML, every default written out.
    ///
    /// # Errors
    /// A number that TOML does not hold: a seed above `i64::MAX`.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|e| Error::Run(format!("the recipe can't be written as TOML: {e}")))
    }
}

/// One line in words, whatever the parser wrote.
fn sentence(message: &str) -> String {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    let Some((before, kind)) = line.rsplit_once("expected ") else { return line };
    let kind = match kind {
        "u64" | "usize" => "a whole number that is not negative",
        "f64" => "a number",
        "a sequence" => "a list",
        "an array of length 2" => "a list of two",
        kind if kind.starts_with("struct ") => "a table",
        kind => kind,
    };
    format!("{before}expected {kind}")
}

fn set(table: &mut toml::Table, setting: &str) -> Result<()> {
    let refuse = |found: &str| Error::value(format!("--set {setting}"), "KEY=VALUE, as in train.steps=100", found);
    let (key, value) = setting.split_once('=').ok_or_else(|| refuse("no `=`"))?;
    let value: toml::Value = format!("v = {value}")
        .parse::<toml::Table>()
        .ok()
        .filter(|t| t.len() == 1)
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.into()));
    let whole = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    if let Some(text) = value.as_str().filter(|text| whole(text.trim())) {
        let expected = format!("a whole number, at most {}", i64::MAX);
        return Err(Error::value(format!("--set {key}"), expected, text));
    }
    let mut place = table;
    let mut keys = key.trim().split('.').peekable();
    while let Some(key) = keys.next() {
        if keys.peek().is_none() {
            place.insert(key.into(), value);
            return Ok(());
        }
        let next = place.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        place = next.as_table_mut().ok_or_else(|| refuse(&format!("`{key}` is not a table")))?;
    }
    Err(refuse("an empty key"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "[data]\ntoy = 10\ntokenizer = 'bytes'\n[model]\nhidden = 8\nlayers = 1\nheads = 2\nlength = 16\n\
                         [blocks]\nsizes = [{ size = 4 }]\n[train]\nsteps = 3\nbatch = 2\n";

    fn parse(text: &str, settings: &[&str]) -> Result<Recipe> {
        Recipe::parse(Path::new("r.toml"), text, &settings.iter().map(|s| s.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn settings_override_and_the_written_recipe_reads_back() {
        let recipe = parse(SMALL, &["train.steps=7", "blocks.schedule=cosine", "train.clip=0.5"]).unwrap();
        assert_eq!((recipe.train.steps, recipe.train.clip, recipe.blocks.schedule.as_str()), (7, 0.5, "cosine"));
        assert_eq!(parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
    }

    #[test]
    fn an_unknown_key_a_wrong_type_and_broken_toml_are_one_sentence() {
        let cases: [(String, &[&str], &str); 10] = [
            (SMALL.replace("steps = 3", "stepz = 3"), &[], "line 12: unknown field `stepz`"),
            (SMALL.replace("steps = 3", "steps = 'x'"), &[], "line 12: invalid type"),
            (SMALL.replace("steps = 3", "steps = "), &[], "line 12"),
            (SMALL.replace("hidden = 8\n", ""), &[], "missing field `hidden`"),
            (SMALL.into(), &["train.stepz=3"], "unknown field `stepz`"),
            (SMALL.into(), &["train.steps"], "--set train.steps: expected KEY=VALUE"),
            (SMALL.into(), &["train.steps=18446744073709551615"], "train.steps: expected a whole number, at most 9223"),
            (SMALL.into(), &["train.steps=many"], "expected a whole number that is not negative"),
            (SMALL.into(), &["train=7"], "expected a table"),
            (SMALL.into(), &["blocks.sizes=4"], "expected a list"),
        ];
        for (text, settings, expected) in cases {
            let message = parse(&text, settings).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }
}
