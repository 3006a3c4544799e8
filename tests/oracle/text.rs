//! Detokenizers and wrapping of the official data pipeline.

use std::path::Path;
use std::sync::Arc;

use bd3::data::pack::{Between, Frame};
use bd3::data::shard::Writer;
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
/// id 9 behind each) follow from them.
pub fn group_texts(_: &Path, path: &Path) -> Check {
    let golden = json(path)?;
    let documents = [vec![1, 2, 3, 4, 9], vec![5, 6, 9], vec![7, 8, 1, 2, 3, 4, 5, 9]];
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let file = dir.path().join("train.bin");
    let mut writer = Writer::create(&file, 104, "hash").map_err(|e| e.to_string())?;
    documents.iter().try_for_each(|ids| writer.push(ids, 1)).map_err(|e| e.to_string())?;
    writer.finish().map_err(|e| e.to_string())?;
    let shard = Arc::new(Shard::open(&file).map_err(|e| e.to_string())?);
    let special = Special { bos: Some(100), eos: Some(101), mask: 103, pad: Some(102) };
    for (key, frame) in [("True", Frame::BosEos), ("False", Frame::Nothing)] {
        let expected: Vec<Vec<u32>> = serde_json::from_value(golden[key].clone()).map_err(|e| format!("{key}: {e}"))?;
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
