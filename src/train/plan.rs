//! From a recipe as written to a run that is known to make sense: shapes, schedule, clip intervals, data. Every complaint names
//! the recipe's key.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::arch::{Arch, Dit, MOST_PARAMETERS, Objective, Shape, SizeClip, SpecialIds};
use crate::block::Layout;
use crate::data::build::{build, train_tokenizer};
use crate::data::{self, Folder, Packing, Reader, Shares, Split, Tail, Wrap, toy};
use crate::error::{Error, Result};
use crate::noise::{Clip, Schedule};
use crate::recipe::{self, Recipe};
use crate::rng::Rng;
use crate::tokenizer::Tokenizer;

use super::place::Hold;
use super::{checks, clips};

/// One block size of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SizePlan {
    /// Tokens in a block.
    pub size: usize,
    /// Share of the steps.
    pub share: f64,
    /// Interval that noise levels are drawn from.
    pub clip: Clip,
}

/// A checked recipe with its data open.
pub struct Plan {
    /// The recipe.
    pub recipe: Recipe,
    /// The network.
    pub arch: Arch,
    /// The noise schedule.
    pub schedule: Schedule,
    /// Block sizes with their shares and first clip intervals.
    pub sizes: Vec<SizePlan>,
    /// The tokenizer of the data.
    pub tokenizer: Arc<Tokenizer>,
    /// Rows to train on.
    pub reader: Reader,
    /// Weights of the sources at the start and at the end.
    pub weights: Vec<[f64; 2]>,
    /// Rows to validate on, by source; none where nothing asks for them and a source has none.
    pub valid: Vec<Packing>,
    /// Ids that a corrupted token may become.
    pub ordinary: Vec<u32>,
}

impl Plan {
    /// Checks a recipe, takes the folder of its run, and opens its data. Toy stories are written into `dir` unless they are there.
    ///
    /// # Errors
    /// A value that is out of range, or does not go with the others or the data; a `dir` as [`Hold::take`] refuses it; data that can't
    /// be read or made. Then what was made in `dir` is taken away.
    pub fn open(name: &Path, recipe: Recipe, dir: &Path) -> Result<(Self, Hold)> {
        let at = |key: &str, expected: &str, found: String| Error::key(name, key, expected, found);
        checks::numbers(&recipe, &at)?;
        let schedule = Schedule::from_str(&recipe.blocks.schedule).map_err(|_| {
            at("blocks.schedule", &Schedule::ALL.map(Schedule::name).join(", "), recipe.blocks.schedule.clone())
        })?;
        let sizes = sizes(&recipe, schedule, &at)?;
        checks::options(&recipe, &at)?;
        let wraps = wraps(&recipe, &at)?;
        // The shape is checked before any data is made; a vocabulary of bytes stands in for the one to come.
        arch(&recipe, &sizes, &Tokenizer::bytes(), name)?;
        let hold = Hold::take(dir, &recipe)?;
        let folders = folders(&recipe, name, dir)?;
        let tokenizer = folders[0].tokenizer().clone();
        for (folder, source) in folders.iter().zip(&recipe.data.sources).skip(1) {
            if folder.tokenizer().hash() != tokenizer.hash() {
                let expected = "the tokenizer of the first source in all of them";
                return Err(at("data.sources", expected, format!("another one in {}", source.path.display())));
            }
        }
        let arch = arch(&recipe, &sizes, &tokenizer, name)?;
        let length = recipe.model.length;
        let packing = |folder: &Folder, split, wrap| {
            Packing::new(Arc::new(folder.shard(split)?), wrap, length, tokenizer.special())
        };
        let weights = weights(&recipe);
        let mut sources = Vec::new();
        for ((folder, weight), wrap) in folders.iter().zip(&weights).zip(&wraps) {
            sources.push(data::Source { packing: packing(folder, Split::Train, *wrap)?, weight: weight[0] });
        }
        let valid = valid(&recipe, &folders, &wraps, &packing, &at)?;
        if let (false, Some(text)) = (recipe.blocks.search.is_empty(), valid.first()) {
            for size in sizes.iter().filter(|size| size.size > 1) {
                clips::rows(text, recipe.train.validate_rows, size.size).map_err(|error| named(name, error))?;
            }
        }
        let reader = Reader::new(sources, &Rng::new(recipe.seed), Tail::Drop)?;
        let special = tokenizer.special();
        let ordinary = (0..tokenizer.vocab_size() as u32).filter(|&id| !special.contains(id)).collect();
        Ok((Self { recipe, arch, schedule, sizes, tokenizer, reader, weights, valid, ordinary }, hold))
    }
}

/// What is validated on, by source. A recipe that asks for no validation has none where one of its texts has nothing for it.
fn valid(
    recipe: &Recipe,
    folders: &[Folder],
    wraps: &[Wrap],
    packing: &impl Fn(&Folder, Split, Wrap) -> Result<Packing>,
    at: &impl Fn(&str, &str, String) -> Error,
) -> Result<Vec<Packing>> {
    let mut valid = Vec::new();
    for (folder, &wrap) in folders.iter().zip(wraps) {
        // What is measured holds every token once.
        let wrap = if wrap == Wrap::Starts { Wrap::Stream } else { wrap };
        let there = folder.splits().contains(&Split::Valid);
        let text = there.then(|| packing(folder, Split::Valid, wrap)).transpose()?;
        let every = recipe.train.validate_every;
        match text.filter(|text| text.rows() > 0) {
            Some(text) => valid.push(text),
            None if every == 0 => return Ok(Vec::new()),
            None => {
                let row = format!("row of {} tokens in its split", recipe.model.length);
                let missing = if there { &row } else { "split" };
                let expected = format!("0, as {} has no {missing} `valid`", folder.path().display());
                return Err(at("train.validate_every", &expected, every.to_string()));
            }
        }
    }
    Ok(valid)
}

/// How each source's documents become rows; toy stories are one source.
fn wraps(recipe: &Recipe, at: &impl Fn(&str, &str, String) -> Error) -> Result<Vec<Wrap>> {
    let named = |key: &str, name: &String| {
        let names = Wrap::NAMES.map(|(name, _)| name).join(", ");
        Wrap::named(name).map_err(|_| at(key, &names, name.clone()))
    };
    let all = named("data.wrap", &recipe.data.wrap)?;
    let of = |(i, source): (usize, &recipe::Source)| {
        source.wrap.as_ref().map_or(Ok(all), |name| named(&format!("data.sources[{i}].wrap"), name))
    };
    let sources = &recipe.data.sources;
    if sources.is_empty() { Ok(vec![all]) } else { sources.iter().enumerate().map(of).collect() }
}

fn sizes(recipe: &Recipe, schedule: Schedule, at: &impl Fn(&str, &str, String) -> Error) -> Result<Vec<SizePlan>> {
    let length = recipe.model.length;
    let wanted = match recipe.model.objective {
        Objective::Masked => None,
        Objective::Score => Some(length),
        Objective::NextToken => Some(1),
    };
    let mut sizes: Vec<SizePlan> = Vec::new();
    for entry in &recipe.blocks.sizes {
        let size = entry.size;
        Layout::new(length, size)
            .map_err(|_| at("blocks.sizes", &format!("sizes that divide the length {length}"), size.to_string()))?;
        if wanted.is_some_and(|w| w != size) {
            return Err(at("blocks.sizes", &format!("the size {} alone", wanted.unwrap_or(1)), size.to_string()));
        }
        if sizes.iter().any(|s| s.size == size) {
            return Err(at("blocks.sizes", "every size once", format!("{size} twice")));
        }
        if !(entry.share >= 0.0 && entry.share.is_finite()) {
            return Err(at("blocks.sizes", "shares that are not negative", entry.share.to_string()));
        }
        let clip = match entry.clip {
            Some([beta, omega]) => Clip::new(beta, omega).map_err(|_| {
                at("blocks.sizes", "clip = [beta, omega] with 0 < beta <= omega <= 1", format!("[{beta}, {omega}]"))
            })?,
            None if size == 1 => Clip::MASKED,
            None => Clip::FULL,
        };
        if recipe.blocks.resample && !schedule.clip_of_probs(clip).admits(size) {
            let expected = format!("a clip that admits some number of {size} masked tokens, as blocks.resample asks");
            return Err(at("blocks.sizes", &expected, clip.to_string()));
        }
        sizes.push(SizePlan { size, share: entry.share, clip });
    }
    if sizes.iter().map(|s| s.share).sum::<f64>() <= 0.0 {
        return Err(at("blocks.sizes", "at least one size with a share", format!("{} sizes", sizes.len())));
    }
    Ok(sizes)
}

fn arch(recipe: &Recipe, sizes: &[SizePlan], tokenizer: &Tokenizer, name: &Path) -> Result<Arch> {
    let special = tokenizer.special();
    let objective = recipe.model.objective;
    let block = recipe.blocks.default.unwrap_or(sizes[0].size);
    if !sizes.iter().any(|s| s.size == block) {
        return Err(Error::key(name, "blocks.default", "one of blocks.sizes", block.to_string()));
    }
    let clip = |s: &SizePlan| SizeClip { size: s.size, beta: s.clip.beta(), omega: s.clip.omega() };
    let cond = if objective == Objective::NextToken { 0 } else { recipe.model.cond };
    let arch = Arch {
        vocab: tokenizer.vocab_size(),
        mask: special.mask,
        special: SpecialIds { bos: special.bos, eos: special.eos, pad: special.pad },
        hidden: recipe.model.hidden,
        layers: recipe.model.layers,
        heads: recipe.model.heads,
        length: recipe.model.length,
        objective,
        block,
        sizes: sizes.iter().map(clip).collect(),
        visible_loss: recipe.corrupt.rows * recipe.corrupt.share * recipe.corrupt.weight > 0.0,
        shape: Shape::Dit(Dit { cond, dropout: recipe.model.dropout }),
    };
    arch.check("").map_err(|error| named(name, error))?;
    let numbers: f64 = arch.tensors().iter().map(|(_, shape)| shape.iter().map(|&n| n as f64).product::<f64>()).sum();
    if numbers > MOST_PARAMETERS as f64 {
        let expected = "a shape (hidden, layers, cond) of at most 2^34 parameters";
        return Err(Error::key(name, "model", expected, format!("{numbers:.0}")));
    }
    Ok(arch)
}

/// What is wrong with a shape, by the recipe's keys.
fn named(recipe: &Path, error: Error) -> Error {
    let Error::Value { name, expected, found } = error else { return error };
    let key = match name.trim_start_matches(": ") {
        "width" => "model.hidden",
        "number of layers" => "model.layers",
        "number of heads" => "model.heads",
        "width of the conditioning vector" => "model.cond",
        "dropout" => "model.dropout",
        "length" => "model.length",
        "block size" => "blocks.sizes",
        "vocabulary size" | "data.tokenizer" => "data.tokenizer",
        other => other,
    };
    Error::key(recipe, key, expected, found)
}

fn weights(recipe: &Recipe) -> Vec<[f64; 2]> {
    let sources = &recipe.data.sources;
    match recipe.data.toy {
        Some(_) => vec![[1.0, 1.0]],
        None => sources.iter().map(|s| [s.weight, s.weight_end.unwrap_or(s.weight)]).collect(),
    }
}

fn folders(recipe: &Recipe, name: &Path, dir: &Path) -> Result<Vec<Folder>> {
    let data = &recipe.data;
    let refuse = |found: &str| {
        Err(Error::key(name, "data", "either `sources` or `toy` (a number of stories with a `tokenizer`)", found))
    };
    match (data.toy, data.sources.as_slice(), data.tokenizer.as_deref()) {
        (None, [], _) => refuse("neither"),
        (Some(_), [_, ..], _) => refuse("both"),
        (None, _, Some(_)) => refuse("`sources` with a `tokenizer` (they have one already)"),
        (Some(_), [], None) => refuse("`toy` without a `tokenizer`"),
        (None, sources, None) => sources.iter().map(|s| Folder::open(&s.path)).collect(),
        (Some(stories), [], Some(tokenizer)) => {
            // Named by its settings, so that a changed recipe never finds another one's stories.
            let dir = dir.join(format!("toy-{stories}-{}-seed-{}", tokenizer.replace(':', "-"), recipe.seed));
            Ok(vec![toy_folder(recipe.seed, stories, tokenizer, &dir).map_err(|error| named(name, error))?])
        }
    }
}

fn toy_folder(seed: u64, stories: usize, tokenizer: &str, dir: &PathBuf) -> Result<Folder> {
    if dir.is_dir() {
        return Folder::open(dir);
    }
    let texts = move || {
        let rng = Rng::new(seed).split("toy");
        (0..stories as u64).map(move |i| Ok(toy::story(&mut rng.split_at("story", i)).text))
    };
    let shares = (Shares::parse("90,10,0")?, seed);
    let tokenizer = match tokenizer.strip_prefix("train:") {
        None if tokenizer == "bytes" => Tokenizer::bytes(),
        Some(size) if size.parse::<usize>().is_ok() => {
            train_tokenizer(texts, shares, size.parse().unwrap_or_default())?
        }
        _ => return Err(Error::value("data.tokenizer", "`bytes` or `train:N`", format!("`{tokenizer}`"))),
    };
    build(texts(), &tokenizer, shares, dir, &mut |_| {})?;
    Folder::open(dir)
}
