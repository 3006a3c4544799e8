//! Names for what something was made from: SHA-256, 64 hexadecimal digits.

use std::path::Path;

use bd3::data::Shard;
use bd3::format::map_file;
use bd3::{Error, Result};
use sha2::{Digest, Sha256};

/// Of some texts in memory.
pub fn bytes(texts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    // A hash of hashes, so that what leaves one text and enters the next does not go unseen.
    texts.iter().for_each(|text| hash.update(Sha256::digest(text)));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of a model: a file, or the descriptions and weights in a folder, by name in order.
///
/// # Errors
/// A file that can't be read.
pub fn model(path: &Path) -> Result<String> {
    let mut paths = vec![path.to_path_buf()];
    if path.is_dir() {
        let entries =
            std::fs::read_dir(path).and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect());
        paths = entries.map_err(|e| Error::io(path, e))?;
        paths.retain(|path| path.extension().is_some_and(|ending| ending == "json" || ending == "safetensors"));
        paths.sort();
    }
    let files = paths.iter().map(|path| map_file(path)).collect::<Result<Vec<_>>>()?;
    Ok(bytes(&files.iter().map(|file| &file[..]).collect::<Vec<_>>()))
}

/// Of a text: its ids, and where its documents end.
pub fn text(shard: &Shard) -> String {
    let mut ids = Vec::new();
    shard.read(0..shard.len(), &mut ids);
    let ids: Vec<u8> = ids.into_iter().flat_map(u32::to_le_bytes).collect();
    let ends = (0..shard.documents()).flat_map(|document| shard.document(document).end.to_le_bytes());
    bytes(&[&ids, &ends.collect::<Vec<u8>>()])
}
