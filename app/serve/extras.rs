//! What the page asks beside text: the model, tokens, noise.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use bd3::event::piece_line;
use bd3::sample::Rule;
use serde_json::{Value, json};

use super::Served;
use super::error::ApiError;
use super::fields::Fields;
use crate::noise::{self, NoiseArgs};
use crate::revise;

/// Tokens that noise is shown for, at most.
const MOST_NOISED: usize = 512;
/// Levels of noise, at most.
const MOST_LEVELS: u64 = 101;

/// What there is to choose from.
pub async fn model(State(served): State<Arc<Served>>) -> Json<Value> {
    let arch = &served.model.checkpoint.arch;
    let special = served.model.tokenizer.special();
    let rule = |name: &&str| json!({ "name": name, "about": Rule::about(name), "knobs": Rule::knobs(name) });
    let revision = |(name, about): &(&str, &str)| json!({ "name": name, "about": about });
    let parameters: usize = arch.tensors().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
    Json(json!({
        "model": served.name, "vocab": arch.vocab, "parameters": parameters,
        "length": arch.length, "block": arch.block, "block_sizes": arch.block_sizes(),
        "mask": arch.mask, "bos": special.bos, "eos": special.eos, "chat": served.template.is_some(),
        "rules": Rule::NAMES.iter().map(rule).collect::<Vec<_>>(),
        "revisions": revise::NAMES.iter().map(revision).collect::<Vec<_>>(),
        "samples": { "n": 128, "top_p": 0.9 },
    }))
}

/// The lines that give the bytes of these ids.
fn pieces(served: &Served, ids: impl Iterator<Item = u32>) -> Vec<Value> {
    let line = |id| serde_json::from_str(&piece_line(id, served.spell(id))).unwrap_or_default();
    ids.collect::<BTreeSet<u32>>().into_iter().map(line).collect()
}

/// A text's ids.
pub async fn tokenize(State(served): State<Arc<Served>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let of = served.clone();
    let work = move || {
        let mut fields = Fields::of_body(&body)?;
        let text = fields.text("text")?.unwrap_or_default();
        fields.end()?;
        let ids = of.model.tokenizer.encode(&text).map_err(|e| ApiError::of(&e))?;
        let pieces = pieces(&of, ids.iter().copied());
        Ok(Json(json!({ "ids": ids, "pieces": pieces })))
    };
    served.reading.blocking(work).await
}

/// A text at rising noise.
pub async fn noise(State(served): State<Arc<Served>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let of = served.clone();
    // It takes the whole embedding in f32, and its time in a large vocabulary.
    served.noising.blocking(move || noised(&of, &body)).await.map(Json)
}

fn noised(served: &Served, body: &[u8]) -> Result<Value, ApiError> {
    let mut fields = Fields::of_body(body)?;
    let text = fields.text("text")?.unwrap_or_default();
    let kinds = fields.texts("kinds", 4)?;
    let levels = fields.count("levels", 2..=MOST_LEVELS)?.unwrap_or(6) as usize;
    let seed = fields.count("seed", 0..=u64::MAX)?.unwrap_or(0);
    fields.end()?;
    let ids = served.model.tokenizer.encode(&text).map_err(|e| ApiError::of(&e))?;
    if ids.is_empty() || ids.len() > MOST_NOISED {
        let expected = format!("a text of 1 to {MOST_NOISED} tokens");
        return Err(ApiError::field("text", expected, format!("{} tokens", ids.len())));
    }
    let args = NoiseArgs::of_page(&kinds, levels, seed).map_err(|e| ApiError::of(&e))?;
    let mut object = noise::object(&args, &served.model, &text, ids).map_err(|e| ApiError::of(&e))?;
    let of = |ids: &Value| ids.as_array().cloned().unwrap_or_default().into_iter();
    let rows = of(&object["rows"]).flat_map(|row| of(&row["ids"]));
    let all = of(&object["ids"]).chain(rows).filter_map(|id| id.as_u64()).map(|id| id as u32);
    object["pieces"] = pieces(served, all).into();
    Ok(object)
}
