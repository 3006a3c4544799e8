//! Detokenizers and wrapping of the official data pipeline.

use std::path::Path;
use std::sync::Arc;

use bd3::data::pack::{Between, Frame};
use bd3::data::{Detokenizer, Packing, Shard, Wrap};
use bd3::tokenizer::Special;

use super::golden::{Check, json};

/// detokenizers.json: a list of (before, after) per detokenizer.
pub fn detokenizers(_: &Path, path: &Path) -> Check {
    let golden = json(path)?;
    for (key, pairs) in golden.as_object().ok_or("not an object")? {
        let name = match key.trim_end_matches("_detokenizer") {
            "wt" => "wikitext".to_string(),
            other => other.replace('_', "-"),
        };
        let detokenizer = Detokenizer::named(&name).map_err(|e| format!("{key}: {e}"))?;
        for (i, pair) in pairs.as_array().ok_or("not a list")?.iter().enumerate() {
            let text = |side: usize| pair[side].as_str().ok_or(format!("{key}[{i}]: not two texts"));
            let found = detokenizer.apply(text(0)?);
            if found != text(1)? {
                return Err(format!("{key}[{i}]: {found:?}, expected {:?}", text(1)?));
            }
        }
    }
    Ok(())
}

/// group_texts.json lists only the rows that came out, with special tokens at the ends and without. The documents (an end-of-text
/// id 9 behind each) follow from them, and so do the special ids and the length.
pub fn group_texts(_: &Path, path: &Path) -> Check {
    let golden = json(path)?;
    let rows = |key: &str| -> Result<Vec<Vec<u32>>, String> {
        serde_json::from_value(golden[key].clone()).map_err(|e| format!("{key}: {e}"))
    };
    let (framed, plain) = (rows("True")?, rows("False")?);
    let ends = framed.first().and_then(|row| Some((*row.first()?, *row.last()?)));
    let (bos, eos) = ends.ok_or("True: no row to read bos and eos from")?;
    let documents = [vec![1, 2, 3, 4, 9], vec![5, 6, 9], vec![7, 8, 1, 2, 3, 4, 5, 9]];
    let ids = documents.iter().chain(&framed).chain(&plain).flatten();
    let free = ids.max().map_or(0, |largest| largest + 1);
    let special = Special { bos: Some(bos), eos: Some(eos), mask: free, pad: Some(free + 1) };
    let documents = documents.into_iter().map(|ids| (ids, 1));
    let shard = Shard::in_memory("group_texts", free as usize + 2, documents).map_err(|e| e.to_string())?;
    let shard = Arc::new(shard);
    for (key, expected, frame) in [("True", framed, Frame::BosEos), ("False", plain, Frame::Nothing)] {
        let length = expected.first().map_or(0, Vec::len);
        let wrap = Wrap::Official { eos: Between::Nothing, frame };
        let packing = Packing::new(shard.clone(), wrap, length, special).map_err(|e| e.to_string())?;
        let batch = packing.batch(0..packing.rows());
        let found: Vec<Vec<u32>> = (0..batch.rows).map(|row| batch.row(row).to_vec()).collect();
        if found != expected {
            return Err(format!("{key}: {found:?}, expected {expected:?}"));
        }
    }
    Ok(())
}
