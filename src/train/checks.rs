//! What a recipe's keys can be, alone and beside each other, whatever the data. `at` makes an error of a key, what was expected, and what
//! was found.

use crate::arch::Objective;
use crate::error::{Error, Result};
use crate::noise::{Grid, candidates};
use crate::recipe::{Corrupt, Optimizer, Recipe};

/// Tokens of a micro-batch, at most: eight times those of a whole step of the paper's.
const MOST_TOKENS: usize = 1 << 22;
/// Toy stories, at most.
const MOST_STORIES: usize = 100_000_000;

/// Numbers out of their range.
pub fn numbers(recipe: &Recipe, at: &impl Fn(&str, &str, String) -> Error) -> Result<()> {
    let Recipe { train, corrupt, .. } = recipe;
    let counts = [("train.steps", train.steps), ("train.checkpoint_every", train.checkpoint_every)];
    let sizes = [
        ("train.batch", train.batch),
        ("train.accumulate", train.accumulate),
        ("train.validate_rows", train.validate_rows),
        ("model.length", recipe.model.length.saturating_sub(1)),
    ];
    for (key, value) in counts.into_iter().chain(sizes.map(|(key, value)| (key, value as u64))) {
        if value == 0 {
            let expected = if key == "model.length" { "at least 2" } else { "at least 1" };
            return Err(at(
                key,
                expected,
                if key == "model.length" { recipe.model.length.to_string() } else { "0".into() },
            ));
        }
    }
    most(recipe, at)?;
    whole(corrupt, at)?;
    let shares = [
        ("corrupt.share", corrupt.share),
        ("corrupt.rows", corrupt.rows),
        ("train.decay", train.decay),
        ("train.ema", train.ema),
    ];
    for (key, value) in shares {
        if !(0.0..=1.0).contains(&value) {
            return Err(at(key, "a number from 0 to 1", value.to_string()));
        }
    }
    let positive = [("train.lr", train.lr), ("train.weight_decay", train.weight_decay), ("train.clip", train.clip)];
    for (key, value) in positive.into_iter().chain([("corrupt.weight", corrupt.weight)]) {
        if !(value >= 0.0 && value.is_finite()) {
            return Err(at(key, "a number that is not negative", value.to_string()));
        }
    }
    if let Some(lr) = train.matrix_lr {
        if recipe.train.optimizer != Optimizer::Muon {
            return Err(at("train.matrix_lr", "none without `optimizer = \"muon\"`", lr.to_string()));
        }
        if !(lr >= 0.0 && lr.is_finite() && train.lr > 0.0) {
            return Err(at(
                "train.matrix_lr",
                "a number that is not negative, beside a positive train.lr",
                lr.to_string(),
            ));
        }
    }
    if train.betas.iter().any(|b| !(0.0..1.0).contains(b)) {
        return Err(at("train.betas", "two numbers from 0 to below 1", format!("{:?}", train.betas)));
    }
    Ok(())
}

/// Refuses a corruption without one of its numbers: of no tokens or rows, or one that the loss never hears of.
fn whole(corrupt: &Corrupt, at: &impl Fn(&str, &str, String) -> Error) -> Result<()> {
    let numbers =
        [("corrupt.share", corrupt.share), ("corrupt.rows", corrupt.rows), ("corrupt.weight", corrupt.weight)];
    let missing = numbers.iter().find(|(_, value)| *value == 0.0);
    match missing {
        Some((key, _)) if numbers.iter().any(|(_, value)| *value > 0.0) => {
            let expected = "a number above 0, as the other two of corrupt (or 0 in all three, which corrupts nothing)";
            Err(at(key, expected, "0".into()))
        }
        _ => Ok(()),
    }
}

/// Refuses what would only fill the memory or the disk.
fn most(recipe: &Recipe, at: &impl Fn(&str, &str, String) -> Error) -> Result<()> {
    let Recipe { train, data, model, .. } = recipe;
    for (key, value, most, of) in [
        ("model.length", model.length, MOST_TOKENS, "tokens"),
        ("train.batch", train.batch, MOST_TOKENS / model.length, "rows of this length (train.accumulate takes more)"),
        ("train.accumulate", train.accumulate, MOST_TOKENS, "micro-batches"),
        ("data.toy", data.toy.unwrap_or_default(), MOST_STORIES, "stories"),
    ] {
        if value > most {
            return Err(at(key, &format!("at most {most} {of}"), value.to_string()));
        }
    }
    Ok(())
}

/// What the objective, the schedule or `official` cannot have.
pub fn options(recipe: &Recipe, at: &impl Fn(&str, &str, String) -> Error) -> Result<()> {
    if recipe.official && recipe.blocks.sizes.len() != 1 {
        return Err(at("official", "one block size, as in the official code", recipe.blocks.sizes.len().to_string()));
    }
    if recipe.model.objective == Objective::Score && recipe.blocks.schedule != "loglinear" {
        return Err(at("blocks.schedule", "loglinear, for score entropy", recipe.blocks.schedule.clone()));
    }
    let blocks = &recipe.blocks;
    if recipe.model.objective != Objective::Masked {
        let noised = blocks.resample || !blocks.search.is_empty() || blocks.sizes.iter().any(|s| s.clip.is_some());
        if noised || recipe.corrupt.rows > 0.0 {
            let expected = "no clip, resample, search or corrupt for this objective";
            return Err(at("model.objective", expected, "one of them".into()));
        }
    }
    for size in &blocks.sizes {
        candidates(size.size, &blocks.search, Grid::Exact)
            .map_err(|e| at("blocks.search", "widths in (0.001, 1]", e.to_string()))?;
    }
    if !blocks.search.is_empty() && recipe.train.validate_every == 0 {
        let expected = "at least 1, as blocks.search asks for a search whenever a validation is due";
        return Err(at("train.validate_every", expected, "0".into()));
    }
    if !blocks.search.is_empty() && recipe.train.validate_rows < 2 {
        return Err(at(
            "train.validate_rows",
            "at least 2, for the clip search",
            recipe.train.validate_rows.to_string(),
        ));
    }
    for source in &recipe.data.sources {
        for weight in [source.weight, source.weight_end.unwrap_or(source.weight)] {
            if !(weight >= 0.0 && weight.is_finite()) {
                return Err(at("data.sources", "weights that are not negative", weight.to_string()));
            }
        }
    }
    let ends = recipe.data.sources.iter().map(|s| s.weight_end.unwrap_or(s.weight)).sum::<f64>();
    if !recipe.data.sources.is_empty() && ends <= 0.0 {
        return Err(at("data.sources", "a source whose weight is positive at the end", "none".into()));
    }
    Ok(())
}
