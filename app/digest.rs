//! Names for what something was made from: SHA-256, 64 hexadecimal digits.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use bd3::data::Shard;
use bd3::{Error, Result};
use sha2::digest::Output;
use sha2::{Digest, Sha256};

/// Of some texts in memory.
pub fn bytes(texts: &[&[u8]]) -> String {
    together(texts.iter().map(Sha256::digest))
}

/// A hash of hashes, so that what leaves one text and enters the next does not go unseen.
fn together(hashes: impl IntoIterator<Item = Output<Sha256>>) -> String {
    let mut hash = Sha256::new();
    hashes.into_iter().for_each(|each| hash.update(each));
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
    Ok(together(paths.iter().map(|path| file(path)).collect::<Result<Vec<_>>>()?))
}

fn file(path: &Path) -> Result<Output<Sha256>> {
    let read = || {
        let (mut file, mut hash) = (BufReader::with_capacity(1 << 20, File::open(path)?), Sha256::new());
        loop {
            let part = file.fill_buf()?;
            if part.is_empty() {
                return Ok(hash.finalize());
            }
            hash.update(part);
            let length = part.len();
            file.consume(length);
        }
    };
    read().map_err(|e| Error::io(path, e))
}

/// Of a text: its ids, and where its documents end.
pub fn text(shard: &Shard) -> String {
    let mut ids = Vec::new();
    shard.read(0..shard.len(), &mut ids);
    let ids: Vec<u8> = ids.into_iter().flat_map(u32::to_le_bytes).collect();
    let ends = (0..shard.documents()).flat_map(|document| shard.document(document).end.to_le_bytes());
    bytes(&[&ids, &ends.collect::<Vec<u8>>()])
}
